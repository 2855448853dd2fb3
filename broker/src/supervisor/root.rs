//! The root directory, opened before rights are dropped: who we become need not be able to read
//! the directories above it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};
use tracing::warn;

use super::Error;

/// The directory that is served.
#[derive(Debug)]
pub(super) struct Root {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// [`Error::Root`].
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor = open(path, flags, Mode::empty())
            .map_err(|errno| Error::Root(path.into(), errno.into()))?;
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        if path == Path::new("/") {
            warn!("the whole file system is served: choose a directory with --root");
        }
        Ok(Self { descriptor, path })
    }

    /// Refuses to start where every request would be denied.
    ///
    /// # Errors
    /// [`Error::RootDenied`].
    pub(super) fn assert_searchable(&self, user: &str) -> Result<(), Error> {
        faccessat(
            &self.descriptor,
            ".",
            AccessFlags::X_OK,
            AtFlags::AT_EACCESS,
        )
        .map_err(|_| Error::RootDenied(self.path.clone(), user.into()))
    }

    /// Its absolute path, for the log.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_root_is_named_with_the_way_out() {
        let error = Root::open(Path::new("/proc/no-such-directory"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/proc/no-such-directory does not exist"),
            "{error}"
        );
        assert!(error.contains("--root"), "{error}");
    }

    #[test]
    fn a_file_is_no_root() {
        let error = Root::open(Path::new("/proc/self/status"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("is not a directory"), "{error}");
    }

    #[test]
    fn a_directory_is_opened_and_named_absolutely() {
        let root = Root::open(Path::new(".")).unwrap();
        assert!(root.name().starts_with('/'));
        root.assert_searchable("me").unwrap();
    }
}
