//! Resolution by hand, one component after the other.
//!
//! Every component is pinned by an O_PATH descriptor before it is looked at, so what is examined
//! is what is used, whatever is renamed meanwhile. `..` (only symlinks bring it) goes back to the
//! directory that the walk came through.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::{
    MAX_RACES, Means, Opened, Path, READ, Refused, Signpost, Symlink, kind, opened, refusal,
};
use crate::link::Link;
use crate::wire::Denial;

/// Symlinks on the way to one file: as many as the kernel follows. path_resolution(7)
const MAX_LINKS: u32 = 40;

/// Components still to be walked: each symlink brings some, of at most 4 KiB.
const MAX_COMPONENTS: usize = 8192;

/// Opens a file below `root`.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, means: Means) -> Result<Opened, Refused> {
    let mut walk = Walk {
        root,
        means,
        way: Vec::new(),
        todo: Vec::new(),
        links: 0,
        races: 0,
        current: None,
    };
    walk.push(path.as_c_str().to_bytes());
    walk.run()
}

struct Walk<'r> {
    root: BorrowedFd<'r>,
    means: Means,
    /// The directories walked through, below the root.
    way: Vec<OwnedFd>,
    /// The components to come, the next one last.
    todo: Vec<Vec<u8>>,
    links: u32,
    races: u32,
    /// The last symlink, and how many components were left to walk behind it.
    current: Option<(Symlink, usize)>,
}

impl Walk<'_> {
    fn run(mut self) -> Result<Opened, Refused> {
        while let Some(component) = self.todo.pop() {
            match component.as_slice() {
                b"" | b"." => (),
                b".." => {
                    if self.way.pop().is_none() {
                        return Err(self.escape());
                    }
                }
                _ => {
                    if let Some(file) = self.step(component)? {
                        return opened(file, None);
                    }
                }
            }
        }
        Err(Refused::Denied(Denial::NotRegular))
    }

    /// Takes one component; the open file if the walk ends there.
    fn step(&mut self, component: Vec<u8>) -> Result<Option<OwnedFd>, Refused> {
        let name = CString::new(component).map_err(|_| Refused::Denied(Denial::BadPath))?;
        let pin = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let pinned = self
            .means
            .open(self.directory(), &name, pin)
            .map_err(|error| self.failed(error))?;
        let stat = fstat(&pinned).map_err(|error| self.failed(error))?;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                self.way.push(pinned);
                Ok(None)
            }
            SFlag::S_IFLNK => {
                self.follow(name.into_bytes(), &pinned)?;
                Ok(None)
            }
            // Something is asked below it; an empty component is the slash behind a directory.
            _ if !self.todo.is_empty() => Err(self.failed(Errno::ENOTDIR)),
            SFlag::S_IFREG => self.open_pinned(name, &stat),
            _ => Err(Refused::Denied(Denial::NotRegular)),
        }
    }

    fn follow(&mut self, name: Vec<u8>, pinned: &OwnedFd) -> Result<(), Refused> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Refused::Denied(Denial::Loop));
        }
        let target = readlinkat(pinned, c"")
            .map_err(|error| self.failed(error))?
            .into_vec();
        self.current = Some((
            Symlink {
                name,
                target: target.clone(),
            },
            self.todo.len(),
        ));
        if target.starts_with(b"/") {
            return Err(self.escape());
        }
        self.push(&target);
        if self.todo.len() > MAX_COMPONENTS {
            return Err(Refused::Denied(Denial::BadPath));
        }
        Ok(())
    }

    /// Opens the file that was pinned. If another one has come to its place, the walk takes that.
    fn open_pinned(
        &mut self,
        name: CString,
        pinned: &FileStat,
    ) -> Result<Option<OwnedFd>, Refused> {
        let file = self
            .means
            .open(self.directory(), &name, READ | OFlag::O_NOFOLLOW);
        let is_other = match &file {
            Ok(file) => {
                let stat = fstat(file).map_err(|error| self.failed(error))?;
                (stat.st_dev, stat.st_ino) != (pinned.st_dev, pinned.st_ino)
            }
            Err(Errno::ELOOP | Errno::ENXIO) => true,
            Err(_) => false,
        };
        if is_other {
            self.races += 1;
            if self.races > MAX_RACES {
                return Err(Refused::Denied(Denial::System));
            }
            self.todo.push(name.into_bytes());
            return Ok(None);
        }
        file.map(Some).map_err(|error| self.failed(error))
    }

    fn directory(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(self.root, AsFd::as_fd)
    }

    fn push(&mut self, path: &[u8]) {
        self.todo
            .extend(path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
    }

    /// A symlink is to blame, as a request has no `..`.
    fn escape(&self) -> Refused {
        match &self.current {
            Some((link, _)) => Refused::Escape(link.clone()),
            None => Refused::Denied(Denial::OutsideRoot),
        }
    }

    /// Explains an error. Inside the target of a symlink, a missing name makes that one dangling:
    /// it may name a URL. What such a URL leads to is never taken for a name here.
    fn failed(&self, error: Errno) -> Refused {
        let refused = refusal(error, self.means);
        let Some((symlink, behind)) = &self.current else {
            return refused;
        };
        if refused != Refused::Missing || self.todo.len() < *behind {
            return refused;
        }
        let Some(link) = Link::parse(&symlink.target).transpose() else {
            return refused;
        };
        let behind = self.todo.get(..*behind).unwrap_or_default();
        let rest: Vec<_> = behind.iter().rev().map(Vec::as_slice).collect();
        Refused::Url(Box::new(Signpost {
            symlink: symlink.clone(),
            link,
            rest: rest.join(&b'/'),
        }))
    }
}
