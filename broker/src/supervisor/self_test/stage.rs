//! Files to try deeds on: a directory that is served beside the root, and one for cache files. They
//! belong to the user the service runs as, so that no permission of theirs stops a deed that the
//! lock-down has to stop.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::super::Error;
use super::super::directory::Directory;

/// Below this name in the served directory stand all files that are tried.
pub const DIRECTORY: &str = "r-tftpd-self-test";

/// A file that is served, and what is in it.
pub const FILE: &str = "r-tftpd-self-test/file";
/// See [`FILE`].
pub const CONTENTS: &[u8] = b"inside: a file of the self-test";

/// A link to an origin; its URL has this password.
pub const LINK: &str = "r-tftpd-self-test/link";
/// See [`LINK`].
pub const SECRET: &str = "secret";

/// A link to where nobody may go.
pub const DENIED_LINK: &str = "r-tftpd-self-test/ftp";

/// A file in the directory for cache files that everybody may read and write, as no cache file is.
pub const NAMED: &str = "named";

/// Symlinks that lead out, below [`DIRECTORY`], and where to.
const LEADING_OUT: [(&str, &str); 5] = [
    ("absolute", "/etc/passwd"),
    ("climbing", "../../../../../../../../etc/passwd"),
    ("to-root", "/"),
    ("to-proc", "/proc/self"),
    ("magic", "/proc/self/exe"),
];

/// The directories. They go away with the value.
#[derive(Debug)]
pub(super) struct Stage(PathBuf);

impl Stage {
    /// Makes them in the first place that can be written to. `ports` are those that links may lead
    /// to.
    ///
    /// # Errors
    /// [`Error::Stage`].
    pub(super) fn build(ports: &[(u16, u16)]) -> Result<Self, Error> {
        let places = [
            std::env::temp_dir(),
            "/tmp".into(),
            "/var/tmp".into(),
            "/dev/shm".into(),
        ];
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for place in places {
            let path = place.join(format!("r-tftpd-self-test.{}", process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let stage = Self(path);
                    stage.furnish(ports).map_err(Error::Stage)?;
                    return Ok(stage);
                }
                Err(error) => failure = error,
            }
        }
        Err(Error::Stage(failure))
    }

    fn furnish(&self, ports: &[(u16, u16)]) -> io::Result<()> {
        fs::create_dir(self.0.join("cache"))?;
        fs::write(self.0.join("cache").join(NAMED), b"named")?;
        let port = ports.first().map_or(80, |(first, _)| *first);
        furnish(&self.0.join("served"), port)
    }

    /// The directory to serve.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn served(&self) -> Result<Directory, Error> {
        self.open("served")
    }

    /// The directory for cache files.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn cache(&self) -> Result<Directory, Error> {
        self.open("cache")
    }

    fn open(&self, name: &str) -> Result<Directory, Error> {
        let path: &Path = &self.0.join(name);
        Directory::open(path).map_err(|errno| Error::Stage(errno.into()))
    }
}

/// Makes the files that deeds need below `served`; the link leads to `port` of 127.0.0.1.
///
/// # Errors
/// As mkdir(2), open(2), symlink(2), mkfifo(3).
pub fn furnish(served: &Path, port: u16) -> io::Result<()> {
    let below = served.join(DIRECTORY);
    fs::create_dir_all(below.join("directory"))?;
    fs::write(served.join(FILE), CONTENTS)?;
    // To be cut, where nothing stops that.
    fs::write(below.join("other"), CONTENTS)?;
    let url = format!("http+nocache://user:{SECRET}@127.0.0.1:{port}/");
    symlink(url, served.join(LINK))?;
    symlink("ftp://127.0.0.1/", served.join(DENIED_LINK))?;
    for (name, target) in LEADING_OUT {
        symlink(target, below.join(name))?;
    }
    let everybody = Mode::S_IRUSR | Mode::S_IRGRP | Mode::S_IROTH;
    mkfifo(&below.join("fifo"), everybody)?;
    Ok(())
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nobody is left to be told if this fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}
