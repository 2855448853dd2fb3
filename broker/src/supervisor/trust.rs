//! The files that a fetcher is handed open, as it can open none: opened anew for each fetcher, so
//! that a reload brings what has changed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Error;

/// Where distributions keep the certificates of the system: Debian, Fedora, SUSE.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct TrustFiles {
    /// In place of those of the system (`SSL_CERT_FILE`).
    bundle: Option<PathBuf>,
    /// In addition (`--ca-file`).
    ca_files: Vec<PathBuf>,
}

impl TrustFiles {
    pub(super) fn new(bundle: Option<PathBuf>, ca_files: Vec<PathBuf>) -> Self {
        Self { bundle, ca_files }
    }

    /// Refuses to start without a file that the user named.
    ///
    /// # Errors
    /// [`Error::CaFile`].
    pub(super) fn assert_readable(&self) -> Result<(), Error> {
        let named = self.bundle.iter().chain(&self.ca_files);
        for path in named {
            File::open(path).map_err(|error| Error::CaFile(path.clone(), error))?;
        }
        Ok(())
    }

    /// resolv.conf, hosts, and certificates. What the system does not have is an empty file.
    ///
    /// # Errors
    /// A file that the user named is missing; as memfd_create(2).
    pub(super) fn open(&self) -> io::Result<Vec<OwnedFd>> {
        let mut files = vec![
            open_or_empty(Path::new("/etc/resolv.conf"))?,
            open_or_empty(Path::new("/etc/hosts"))?,
        ];
        match &self.bundle {
            Some(bundle) => files.push(open_named(bundle)?),
            None => {
                let found = SYSTEM_BUNDLES.iter().find_map(|path| File::open(path).ok());
                files.extend(found.map(OwnedFd::from));
            }
        }
        for path in &self.ca_files {
            files.push(open_named(path)?);
        }
        Ok(files)
    }
}

fn open_or_empty(path: &Path) -> io::Result<OwnedFd> {
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(_) => Ok(memfd_create(c"empty", MFdFlags::MFD_CLOEXEC)?),
    }
}

fn open_named(path: &Path) -> io::Result<OwnedFd> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    Ok(File::open(path).map_err(named)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_named_must_be_there_and_what_the_system_lacks_is_empty() {
        let nowhere = PathBuf::from("/proc/no-such-file");
        let files = TrustFiles::new(None, vec![nowhere.clone()]);
        let error = files.assert_readable().unwrap_err().to_string();
        assert!(error.contains("/proc/no-such-file") && error.contains("--ca-file"));
        assert!(
            files
                .open()
                .unwrap_err()
                .to_string()
                .contains("/proc/no-such-file")
        );
        let empty = File::from(open_or_empty(&nowhere).unwrap());
        assert_eq!(empty.metadata().unwrap().len(), 0);
    }

    #[test]
    fn the_user_s_certificates_come_last() {
        let own = std::env::current_exe().unwrap();
        let files = TrustFiles::new(Some(own.clone()), vec![own]);
        files.assert_readable().unwrap();
        assert_eq!(files.open().unwrap().len(), 4);
    }
}
