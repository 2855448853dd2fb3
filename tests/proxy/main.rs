//! Links to HTTP servers, end to end: the real programs, with every layer of the sandbox, between
//! clients and origins that are this test. Loopback only.
//!
//! No test needs root, another program or another machine.
#![cfg(test)]

mod bodies;
mod caching;
mod places;
mod processes;
mod refusals;
mod sharing;
mod table;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use r_tftpd_test_support::DEADLINE;
use r_tftpd_test_support::client::{Client, Refused};
use r_tftpd_test_support::daemon::{Daemon, is_request, message};
use r_tftpd_test_support::files::TempDir;
use r_tftpd_test_support::origin::Raw;
use serde_json::Value;

/// The program under test.
const R_TFTPD: &str = env!("CARGO_BIN_EXE_r-tftpd");

/// What most clients here ask for.
const OPTIONS: &[(&str, &str)] = &[("blksize", "1428"), ("windowsize", "16")];

/// A header that makes answers fresh for as long as a test takes.
const FRESH: &str = "Cache-Control: max-age=600\r\n";

/// The daemon, allowed to ask any port, with `arguments`.
fn serve(root: &TempDir, arguments: &[&str]) -> Daemon {
    let arguments = [arguments, &["--proxy-ports", "any"]].concat();
    Daemon::start(Path::new(R_TFTPD), root.path(), &arguments)
}

/// A root with symlinks: their names and targets.
fn links(links: &[(&str, &str)]) -> TempDir {
    let root = TempDir::new();
    for (name, target) in links {
        symlink(target, root.path().join(name)).unwrap();
    }
    root
}

/// The daemon with one link, `link`, to a directory of an origin. `modifiers` begin with `+`.
fn linked(origin: &Raw, modifiers: &str, arguments: &[&str]) -> (TempDir, Daemon) {
    let target = format!("http{modifiers}://{}/", origin.place());
    let root = links(&[("link", &target)]);
    let daemon = serve(&root, arguments);
    (root, daemon)
}

/// What a new client gets.
fn get(daemon: &Daemon, name: &str) -> Result<Vec<u8>, Refused> {
    let transfer = Client::new(daemon.address()).get(name, OPTIONS)?;
    Ok(transfer.bytes)
}

/// Asks as [`get`] does and expects to be refused with this code and its fixed text.
#[track_caller]
fn refused(daemon: &Daemon, name: &str, code: u16) {
    let refused = get(daemon, name).unwrap_err();
    let text = match code {
        0 => "File could not be fetched",
        1 => "File not found",
        _ => "Access denied",
    };
    assert_eq!(
        (refused.code, refused.text.as_str()),
        (code, text),
        "{name}"
    );
}

/// The first `number` records of requests for this file.
fn records(daemon: &Daemon, file: &str, number: usize) -> Vec<Value> {
    daemon.wait_for_many(number, |record| {
        is_request(record) && record["fields"]["file"] == file
    })
}

/// What the cache did for the requests for this file, one after another.
fn cache_uses(daemon: &Daemon, file: &str, number: usize) -> Vec<String> {
    let records = records(daemon, file, number);
    let uses = records.iter().map(|record| &record["fields"]["cache"]);
    uses.map(|word| word.as_str().unwrap_or("none").to_owned())
        .collect()
}

/// Waits for a record with this message.
fn wait_for(daemon: &Daemon, text: &str) -> Value {
    daemon.wait_for(|record| message(record) == text)
}

/// What an origin waits for.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everybody through, from now on.
    fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    fn pass(&self) {
        let closed = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(closed, DEADLINE, |open| !*open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
