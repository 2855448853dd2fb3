//! The binaries of the other processes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::Error;

/// Where packages put them, unless the packager said otherwise when it was built.
pub(super) const LIBEXECDIR: &str = match option_env!("R_TFTPD_LIBEXECDIR") {
    Some(directory) => directory,
    None => "/usr/libexec/r-tftpd",
};

/// Opened once, executed for every generation.
#[derive(Debug)]
pub(super) struct Programs {
    /// `r-tftpd-broker`.
    pub(super) broker: OwnedFd,
    /// `r-tftpd-worker`.
    pub(super) worker: OwnedFd,
    /// `r-tftpd-fetcher`; none without a proxy.
    pub(super) fetcher: Option<OwnedFd>,
}

impl Programs {
    /// Opens them beside the running program, or in [`LIBEXECDIR`]. Never through PATH: its
    /// directories may belong to anybody.
    ///
    /// # Errors
    /// [`Error::Program`].
    pub(super) fn open(proxy: bool) -> Result<Self, Error> {
        let own = std::env::current_exe().map_err(Error::system("readlink /proc/self/exe"))?;
        let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        let directories = [beside, LIBEXECDIR.into()];
        Ok(Self {
            broker: find(&directories, "r-tftpd-broker")?,
            worker: find(&directories, "r-tftpd-worker")?,
            fetcher: proxy
                .then(|| find(&directories, "r-tftpd-fetcher"))
                .transpose()?,
        })
    }
}

/// Opens `name` in the first directory that has it; the error is the first one that says more than
/// that it is not there.
fn find(directories: &[PathBuf], name: &'static str) -> Result<OwnedFd, Error> {
    let mut failure = None;
    for directory in directories {
        let path = directory.join(name);
        match open_program(&path) {
            Ok(program) => return Ok(program),
            Err(error) => match &failure {
                Some((_, first)) if !is_missing(first) || is_missing(&error) => (),
                _ => failure = Some((path, error)),
            },
        }
    }
    let (path, error) = failure.unwrap_or_else(|| (name.into(), io::ErrorKind::NotFound.into()));
    Err(Error::Program(name, path, error))
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn open_program(path: &Path) -> io::Result<OwnedFd> {
    let program = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&program)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFREG {
        Ok(program)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_way_out() {
        let error = find(&["/proc/self".into()], "r-tftpd-worker")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("/proc/self/r-tftpd-worker: "), "{error}");
        assert!(error.contains("`cargo build`"), "{error}");
    }

    #[test]
    fn of_several_places_the_one_that_says_why_is_named() {
        let [none, closed, other] =
            ["/proc/nowhere", "/proc", "/proc/elsewhere"].map(PathBuf::from);
        let error = |places: &[PathBuf]| find(places, "self").unwrap_err().to_string();
        assert!(error(&[none.clone(), other]).starts_with("/proc/nowhere/self: "));
        assert!(error(&[none, closed]).starts_with("/proc/self: not a regular file"));
    }

    #[test]
    fn a_directory_is_no_program() {
        let error = find(&["/proc".into()], "self").unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn the_first_directory_that_has_it_counts() {
        assert!(find(&["/proc/nowhere".into(), "/proc/self".into()], "status").is_ok());
    }
}
