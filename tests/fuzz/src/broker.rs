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

/// What came of a name, with what the broker logs of a symlink.
#[derive(Debug)]
pub(crate) enum Answer {
    File {
        file: File,
        size: u64,
    },
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

/// Opens `name` below `root`, or below `fallback` what is not there.
pub(crate) fn open(root: OwnedFd, fallback: Option<OwnedFd>, way: Way, name: &[u8]) -> Answer {
    let path = match Path::parse(name) {
        Ok(path) => path,
        Err(reason) => return Answer::Denied(reason),
    };
    let resolver = Resolver::with(root, fallback, way.0);
    let result = match resolver.open_cached(&path) {
        Err(Refused::Waits) => resolver.open(&path),
        result => result,
    };
    match result {
        Ok(opened) => Answer::File {
            file: opened.file.into(),
            size: opened.size,
        },
        Err(Refused::Missing) => Answer::Missing,
        Err(Refused::Denied(reason)) => Answer::Denied(reason),
        Err(Refused::Escape(symlink)) => Answer::Escape {
            name: symlink.name,
            target: symlink.target,
        },
        Err(Refused::Url(signpost)) => Answer::Url {
            name: signpost.symlink.name,
            target: signpost.symlink.target,
            rest: signpost.rest,
        },
        Err(Refused::Waits) => panic!("an open that may wait says that it would have to"),
    }
}
