//! Files that the fetcher writes and the worker reads: without a name from the start, gone with
//! their last descriptor, also after a crash.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::memfd::MFdFlags;
use nix::sys::stat::Mode;

use super::{resolve, scratch};
use crate::fetch::Failure;

/// Shown as the name of a memory file in /proc.
const NAME: &CStr = c"cache";

/// No name, and none can be given later. The seccomp filter knows exactly this combination.
pub(super) const UNNAMED: OFlag = OFlag::O_TMPFILE
    .union(OFlag::O_EXCL)
    .union(OFlag::O_RDWR)
    .union(OFlag::O_CLOEXEC);

/// Makes cache files.
#[derive(Debug)]
pub(super) struct CacheFiles {
    /// None = memory files.
    directory: Option<OwnedFd>,
}

/// One cache file.
#[derive(Debug)]
pub(super) struct CacheFile {
    /// For the fetcher.
    pub(super) writable: OwnedFd,
    /// For the worker: cannot be written through, where /proc is mounted. Elsewhere the same as
    /// the other one, and a captured worker can spoil what it serves by a second way.
    pub(super) readable: OwnedFd,
    /// A memory file, or one on tmpfs or ramfs.
    pub(super) in_memory: bool,
}

impl CacheFiles {
    pub(super) fn new(directory: Option<OwnedFd>) -> Self {
        Self { directory }
    }

    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// An empty file.
    ///
    /// # Errors
    /// [`Failure::Disk`] if the disk is full, otherwise [`Failure::Internal`]; as openat(2) and
    /// memfd_create(2).
    pub(super) fn create(&self) -> Result<CacheFile, (Failure, io::Error)> {
        self.open().map_err(|errno| {
            let failure = match errno {
                Errno::ENOSPC | Errno::EDQUOT => Failure::Disk,
                _ => Failure::Internal,
            };
            (failure, errno.into())
        })
    }

    fn open(&self) -> nix::Result<CacheFile> {
        let unnamed = |directory| openat(directory, c".", UNNAMED, Mode::S_IRUSR | Mode::S_IWUSR);
        let writable = match self.directory().map(unnamed) {
            // The file system has no unnamed files (overlayfs before Linux 6.1, NFS).
            None | Some(Err(Errno::EOPNOTSUPP | Errno::EISDIR)) => {
                scratch::memory_file(NAME, MFdFlags::empty())?
            }
            Some(result) => result?,
        };
        // A file without a name can be opened anew only so. Landlock judges the file it leads to.
        let path = format!("/proc/self/fd/{}", writable.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let readable = match openat(AT_FDCWD, path.as_str(), flags, Mode::empty()) {
            Ok(readable) => readable,
            Err(_) => writable.try_clone().map_err(|_| Errno::EMFILE)?,
        };
        Ok(CacheFile {
            in_memory: resolve::is_in_memory(&writable),
            writable,
            readable,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn check(files: &CacheFiles) -> bool {
        let CacheFile {
            writable,
            readable,
            in_memory,
        } = files.create().unwrap();
        let (writable, readable) = (File::from(writable), File::from(readable));
        writable.write_all_at(b"body", 0).unwrap();
        let mut body = [0; 4];
        readable.read_exact_at(&mut body, 0).unwrap();
        assert_eq!(&body, b"body");
        assert!(readable.write_all_at(b"x", 0).is_err());
        assert_eq!(readable.metadata().unwrap().nlink(), 0);
        in_memory
    }

    #[test]
    fn what_the_fetcher_writes_the_worker_can_only_read() {
        let directory = File::open(std::env::temp_dir()).unwrap();
        check(&CacheFiles::new(Some(directory.into())));
    }

    #[test]
    fn without_a_directory_it_is_in_memory() {
        assert!(check(&CacheFiles::new(None)));
    }
}
