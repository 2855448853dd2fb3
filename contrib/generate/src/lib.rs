//! Makes the manual pages and completions of r-tftpd, so that they say what the programs do.
//!
//! - `manual`: the pages, from `contrib/man/*.in` and what the other modules make for them.
//! - `options`: SYNOPSIS and OPTIONS, from the definition of the command line.
//! - `calls`: the system calls of each process, from the lists that its lock-down uses.
//! - `roff`: text as the pages need it.
//! - `completions`: bash, zsh and fish.
//!
//! `cargo run -p r-tftpd-generate` writes the files; `cargo test -p r-tftpd-generate` fails if
//! those that are committed are others, or if a message of the programs is in no page.

mod calls;
mod completions;
mod manual;
mod options;
mod roff;

use std::path::{Path, PathBuf};

/// Every file that is made: where it belongs, and what is in it.
#[must_use]
pub fn files() -> Vec<(PathBuf, String)> {
    let contrib = repository().join("contrib");
    let pages = ["r-tftpd.8", "r-tftpd-worker.8"].map(|name| {
        let page = contrib.join("man").join(name);
        let contents = manual::page(&page);
        (page, contents)
    });
    let completions = completions::all()
        .map(|(name, contents)| (contrib.join("completions").join(name), contents));
    pages.into_iter().chain(completions).collect()
}

/// The top of the sources.
#[must_use]
pub fn repository() -> &'static Path {
    // Two above this package.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}
