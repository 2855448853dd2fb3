//! The broker's path resolution, in each of its ways.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::wire::Denial;

#[path = "../../../broker/src/broker/resolve/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "threads that open files are not used here"
)]
mod resolve;

use resolve::{Path, Refused, Resolver, Support};

/// The ways to resolve a name.
pub(crate) const WAYS: [Way; 3] = [
    Way(Support::Openat2Cached),
    Way(Support::Openat2),
    Way(Support::Walk),
];

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way(Support);

/// Why a name is no file, with what the broker logs of a symlink.
#[derive(Debug, PartialEq)]
pub(crate) enum NoFile {
    Missing,
    Denied(Denial),
    Escape {
        name: Vec<u8>,
        target: Vec<u8>,
    },
    Url {
        name: Vec<u8>,
        target: Vec<u8>,
        rest: Vec<u8>,
    },
}

/// Opens `name` below `root`, or below `fallback` what is not there: the file and its size.
pub(crate) fn open(
    root: OwnedFd,
    fallback: Option<OwnedFd>,
    way: Way,
    name: &[u8],
) -> Result<(File, u64), NoFile> {
    let path = Path::parse(name).map_err(NoFile::Denied)?;
    let resolver = Resolver::with(root, fallback, way.0);
    let result = match resolver.open_cached(&path) {
        Err(Refused::Waits) => resolver.open(&path),
        result => result,
    };
    match result {
        Ok(opened) => Ok((opened.file.into(), opened.size)),
        Err(Refused::Missing) => Err(NoFile::Missing),
        Err(Refused::Denied(reason)) => Err(NoFile::Denied(reason)),
        Err(Refused::Escape(symlink)) => Err(NoFile::Escape {
            name: symlink.name,
            target: symlink.target,
        }),
        Err(Refused::Url(signpost)) => Err(NoFile::Url {
            name: signpost.symlink.name,
            target: signpost.symlink.target,
            rest: signpost.rest,
        }),
        Err(Refused::Waits) => panic!("an open that may wait says that it would have to"),
    }
}
