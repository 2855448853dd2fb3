//! Directories beside the root: for what is not there, and for cache files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use tracing::warn;

use super::Error;

/// Directories on the way up from any other. PATH_MAX has room for no more.
const MAX_DEPTH: usize = 4096;

/// A directory that was opened before rights were dropped.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open(path: &Path) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor = open(path, flags, Mode::empty())?;
        let path = path.canonicalize().unwrap_or_else(|_| path.into());
        Ok(Self { descriptor, path })
    }

    /// The directory of `--fallback`.
    ///
    /// # Errors
    /// [`Error::Fallback`].
    pub(super) fn fallback(path: &Path) -> Result<Self, Error> {
        Self::open(path).map_err(|errno| Error::Fallback(path.into(), errno.into()))
    }

    /// The directory of `--cache-dir`, which must not contain a served one or the other way
    /// round: the broker may write there.
    ///
    /// # Errors
    /// [`Error::Cache`], [`Error::CacheNested`].
    pub(super) fn cache(path: &Path, served: &[BorrowedFd<'_>]) -> Result<Self, Error> {
        let directory =
            Self::open(path).map_err(|errno| Error::Cache(path.into(), errno.into()))?;
        if directory.is_nested(served) {
            return Err(Error::CacheNested(directory.path));
        }
        Ok(directory)
    }

    /// Of the directories that nobody named, those that could be for cache files, best first.
    pub(super) fn cache_candidates(paths: &[PathBuf], served: &[BorrowedFd<'_>]) -> Vec<Self> {
        let opened = paths.iter().filter_map(|path| Self::open(path).ok());
        opened
            .filter(|directory| !directory.is_nested(served))
            .collect()
    }

    /// The first of `candidates` where we, with the rights that are left, can make files without
    /// a name. If there is none, that is said once, and cache files are memory files.
    pub(super) fn first_usable(candidates: Vec<Self>) -> Option<Self> {
        let mut reasons = Vec::new();
        for candidate in candidates {
            match candidate.probe() {
                Ok(()) => return Some(candidate),
                Err(errno) => {
                    reasons.push(format!("{}: {}", candidate.path.display(), errno.desc()));
                }
            }
        }
        let reasons = reasons.join(", ");
        warn!(
            reasons,
            "no directory for cache files: they are kept in memory, up to --cache-size; let the \
             user r-tftpd runs as write into one (a service also by ReadWritePaths= in its unit) and \
             name it with --cache-dir"
        );
        None
    }

    /// Its absolute path, for the log.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn probe(&self) -> nix::Result<()> {
        let flags = OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        openat(&self.descriptor, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR).map(drop)
    }

    fn is_nested(&self, served: &[BorrowedFd<'_>]) -> bool {
        served.iter().any(|directory| {
            is_below(*directory, self.as_fd()) || is_below(self.as_fd(), *directory)
        })
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether `inner` is `outer`, or somewhere below it. Compared are the directories themselves, not
/// their paths: symlinks and bind mounts make no difference.
fn is_below(inner: BorrowedFd<'_>, outer: BorrowedFd<'_>) -> bool {
    let identity = |directory: BorrowedFd<'_>| -> nix::Result<_> {
        let stat = fstat(directory)?;
        Ok((stat.st_dev, stat.st_ino))
    };
    let climb = || -> nix::Result<bool> {
        let target = identity(outer)?;
        let mut here = identity(inner)?;
        let mut directory = inner.try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
        for _ in 0..MAX_DEPTH {
            if here == target {
                return Ok(true);
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let parent = openat(&directory, "..", flags, Mode::empty())?;
            let above = identity(parent.as_fd())?;
            if above == here {
                return Ok(false);
            }
            (here, directory) = (above, parent);
        }
        Ok(false)
    };
    // Directories we can not pass: neither can those who would have to write there.
    climb().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let id = std::process::id();
            let tree = Self(std::env::temp_dir().join(format!("r-tftpd-{name}-{id}")));
            for directory in ["root/deep/er", "cache"] {
                create_dir_all(tree.0.join(directory)).unwrap();
            }
            tree
        }

        fn open(&self, name: &str) -> Directory {
            Directory::open(&self.0.join(name)).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn root_and_cache_may_not_contain_one_another() {
        let tree = Tree::new("nested");
        symlink(tree.0.join("root/deep"), tree.0.join("link")).unwrap();
        let root = tree.open("root");
        for (cache, nested) in [
            ("cache", false),
            ("root", true),
            ("root/deep/er", true),
            ("link", true),
            ("link/er", true),
            (".", true),
            ("..", true),
        ] {
            let result = Directory::cache(&tree.0.join(cache), &[root.as_fd()]);
            assert_eq!(result.is_err(), nested, "{cache}");
        }
    }

    #[test]
    fn a_directory_nobody_named_is_passed_over_if_it_is_missing_nested_or_of_no_use() {
        let tree = Tree::new("candidates");
        let root = tree.open("root");
        let paths = ["nowhere", "root", ".", "cache"].map(|name| tree.0.join(name));
        let mut found = vec![Directory::open(Path::new("/proc")).unwrap()];
        found.extend(Directory::cache_candidates(&paths, &[root.as_fd()]));
        assert_eq!(found.len(), 2);
        let usable = Directory::first_usable(found).unwrap();
        assert!(usable.name().ends_with("/cache"));
        assert!(Directory::first_usable(Vec::new()).is_none());
    }

    #[test]
    fn a_missing_directory_is_named_with_the_way_out() {
        let path = Path::new("/proc/no-such-directory");
        let error = Directory::cache(path, &[]).unwrap_err().to_string();
        assert!(error.contains("/proc/no-such-directory") && error.contains("--cache-dir"));
        let error = Directory::fallback(path).unwrap_err().to_string();
        assert!(error.contains("/proc/no-such-directory") && error.contains("--fallback"));
    }
}
