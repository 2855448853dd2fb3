//! From a name a client sent to an open file below the root.
//!
//! The kernel resolves it where it can: openat2(2) with RESOLVE_BENEATH. Where that fails, a walk
//! of single components tells why, or, on kernels and in containers without openat2, finds the
//! file by itself. Both give the same answer to the same name, but for two things: the walk does
//! not mount what an automounter would, and it sees a magic link as a symlink like any other.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};

use crate::link::{BadLink, Link};
use crate::wire::Denial;

mod helpers;
#[cfg(test)]
mod tests;
mod walk;

pub(super) use helpers::Helpers;

/// A regular file open for reading.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: OwnedFd,
    /// Bytes, when it was opened.
    pub(super) size: u64,
    /// On tmpfs or ramfs: reading it never waits for a disk.
    pub(super) in_memory: bool,
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No such file.
    Missing,
    /// Not granted.
    Denied(Denial),
    /// A symlink leads out of the root.
    Escape(Symlink),
    /// A dangling symlink names a URL.
    Url(Box<Signpost>),
    /// Only [`Resolver::open_cached`]: the answer may have to wait for a disk or a server.
    Waits,
}

/// A dangling symlink that names a URL, and what was asked below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signpost {
    pub(super) symlink: Symlink,
    /// What its target says.
    pub(super) link: Result<Link, BadLink>,
    /// What follows the symlink in the name, as the client sent it.
    pub(super) rest: Vec<u8>,
}

/// A symlink, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Symlink {
    /// Its own name, without directories.
    pub(super) name: Vec<u8>,
    /// Where it leads.
    pub(super) target: Vec<u8>,
}

/// A name from a client, fit to be resolved below the root: not absolute, without `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(CString);

impl Path {
    /// Vets a name. Leading slashes count for nothing: for a client, the root is `/`. Backslashes
    /// are bytes like any others.
    ///
    /// # Errors
    /// `..` is refused and not resolved: no client needs it, and all of them that send it mean
    /// harm.
    pub(super) fn parse(name: &[u8]) -> Result<Self, Denial> {
        if name
            .split(|byte| *byte == b'/')
            .any(|component| component == b"..")
        {
            return Err(Denial::OutsideRoot);
        }
        let slashes = name.iter().take_while(|byte| **byte == b'/').count();
        let relative = match name.get(slashes..) {
            None | Some([]) => b".",
            Some(relative) => relative,
        };
        CString::new(relative)
            .map(Self)
            .map_err(|_| Denial::BadPath)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// What the kernel has for resolving paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// openat2, also with RESOLVE_CACHED (Linux 5.12).
    Openat2Cached,
    /// openat2 (Linux 5.6).
    Openat2,
    /// Neither, or a container's seccomp filter denies it.
    Walk,
}

/// Opens files below the root, or below a second directory what is not there.
#[derive(Debug)]
pub(super) struct Resolver {
    root: Root,
    fallback: Option<Root>,
    support: Support,
}

/// A directory that is served. As long as it is open, no other filesystem gets its device number.
#[derive(Debug)]
struct Root {
    directory: OwnedFd,
    device: Option<nix::libc::dev_t>,
    in_memory: bool,
}

impl Resolver {
    /// Opens below `root` and `fallback`, with what the kernel has.
    pub(super) fn new(root: OwnedFd, fallback: Option<OwnedFd>) -> Self {
        let probe = |resolve| openat2(&root, c".", how(OFlag::O_PATH, BENEATH | resolve));
        let support = if probe(ResolveFlag::empty()).is_err() {
            Support::Walk
        } else if matches!(probe(RESOLVE_CACHED), Ok(_) | Err(Errno::EAGAIN)) {
            Support::Openat2Cached
        } else {
            Support::Openat2
        };
        Self::with(root, fallback, support)
    }

    /// Opens below `root` and `fallback`, with no more than `support`.
    pub(super) fn with(root: OwnedFd, fallback: Option<OwnedFd>, support: Support) -> Self {
        Self {
            root: Root::new(root),
            fallback: fallback.map(Root::new),
            support,
        }
    }

    pub(super) fn support(&self) -> Support {
        self.support
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.directory.as_fd()
    }

    pub(super) fn fallback(&self) -> Option<BorrowedFd<'_>> {
        self.fallback.as_ref().map(|root| root.directory.as_fd())
    }

    /// Opens a file if that needs no disk and no server.
    pub(super) fn open_cached(&self, path: &Path) -> Result<Opened, Refused> {
        match self.support {
            Support::Openat2Cached => self.open_in_turn(Means::Cached, path),
            Support::Openat2 | Support::Walk => Err(Refused::Waits),
        }
    }

    /// Opens a file, however long it takes.
    pub(super) fn open(&self, path: &Path) -> Result<Opened, Refused> {
        match self.support {
            Support::Openat2Cached | Support::Openat2 => self.open_in_turn(Means::Openat2, path),
            Support::Walk => self.open_in_turn(Means::Openat, path),
        }
    }

    fn open_in_turn(&self, means: Means, path: &Path) -> Result<Opened, Refused> {
        match (open_below(&self.root, means, path), &self.fallback) {
            (Err(Refused::Missing), Some(fallback)) => open_below(fallback, means, path),
            (result, _) => result,
        }
    }
}

impl Root {
    fn new(directory: OwnedFd) -> Self {
        Self {
            device: fstat(&directory).ok().map(|stat| stat.st_dev),
            in_memory: is_in_memory(&directory),
            directory,
        }
    }
}

fn open_below(served: &Root, means: Means, path: &Path) -> Result<Opened, Refused> {
    let root = served.directory.as_fd();
    if means == Means::Openat {
        return walk::open(root, path, means);
    }
    let name = path.as_c_str();
    // Most names lead through no symlink, and then a missing file is missing, whatever else there
    // is: one call answers both.
    let directly = means.resolve(root, name, READ, ResolveFlag::RESOLVE_NO_SYMLINKS);
    let result = match directly {
        Err(Errno::ENOENT) => return Err(Refused::Missing),
        Err(Errno::ELOOP) => means.open(root, name, READ),
        result => result,
    };
    match result {
        Ok(file) => opened(file, Some(served)),
        // ENOENT, ENOTDIR and EXDEV: a link may be the reason. EACCES: Landlock's answer to a
        // directory, too.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EXDEV | Errno::EACCES) => {
            walk::open(root, path, means)
        }
        Err(error) => Err(refusal(error, means)),
    }
}

/// By which system call single files are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// openat2 that never waits.
    Cached,
    Openat2,
    /// openat: only for single components, as nothing keeps it beneath.
    Openat,
}

/// Never waits for a FIFO or a device, never becomes a controlling terminal.
const READ: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

/// A link to `/proc/self/exe` and the like leads to objects, not to names.
const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// Fail with EAGAIN rather than wait (linux/openat2.h). Linux 5.12 and later.
const RESOLVE_CACHED: ResolveFlag = ResolveFlag::from_bits_retain(0x20);

/// linux/magic.h
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// How often the kernel is asked again when a rename elsewhere kept it from a safe answer.
const MAX_RACES: u32 = 8;

impl Means {
    fn open(self, directory: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(directory, path, flags, ResolveFlag::empty())
    }

    /// `more` counts only with openat2.
    fn resolve(
        self,
        directory: BorrowedFd<'_>,
        path: &CStr,
        flags: OFlag,
        more: ResolveFlag,
    ) -> nix::Result<OwnedFd> {
        let resolve = BENEATH | more;
        let mut races = 0;
        loop {
            let result = match self {
                Self::Cached => openat2(directory, path, how(flags, resolve | RESOLVE_CACHED)),
                Self::Openat2 => openat2(directory, path, how(flags, resolve)),
                Self::Openat => openat(directory, path, flags | OFlag::O_CLOEXEC, Mode::empty()),
            };
            match result {
                Err(Errno::EINTR) => (),
                Err(Errno::EAGAIN) if self != Self::Cached && races < MAX_RACES => races += 1,
                result => return result,
            }
        }
    }
}

fn how(flags: OFlag, resolve: ResolveFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolve)
}

/// Grants a regular file and nothing else. Most are on the filesystem of a directory of which all
/// is known.
fn opened(file: OwnedFd, known: Option<&Root>) -> Result<Opened, Refused> {
    let stat = fstat(&file).map_err(|error| refusal(error, Means::Openat))?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(Refused::Denied(Denial::NotRegular));
    }
    let in_memory = match known {
        Some(root) if root.device == Some(stat.st_dev) => root.in_memory,
        _ => is_in_memory(&file),
    };
    Ok(Opened {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        in_memory,
        file,
    })
}

/// Whether reading a file never waits for a disk.
pub(super) fn is_in_memory(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.filesystem_type()))
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// What an error of open(2) means for the client.
fn refusal(error: Errno, means: Means) -> Refused {
    Refused::Denied(match error {
        Errno::ENOENT | Errno::ENOTDIR => return Refused::Missing,
        Errno::EAGAIN if means == Means::Cached => return Refused::Waits,
        Errno::EXDEV => Denial::OutsideRoot,
        Errno::EACCES | Errno::EPERM => Denial::Permission,
        Errno::ELOOP => Denial::Loop,
        Errno::ENAMETOOLONG => Denial::BadPath,
        // A socket, or a device without a driver.
        Errno::ENXIO | Errno::ENODEV => Denial::NotRegular,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Denial::Resources,
        _ => Denial::System,
    })
}
