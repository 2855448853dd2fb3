//! End-to-end tests: the real programs, with every layer of the sandbox, over loopback.
//!
//! No test needs root, another program or another machine.
#![cfg(test)]

mod addresses;
mod command_line;
mod lifecycle;
mod limits;
mod options;
mod privileges;
mod records;
mod retransmission;
mod service;
mod serving;
mod similar;
mod storms;
mod writing;

use std::path::Path;

use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::Daemon;
use r_tftpd_test_support::files::TempDir;

/// The program under test.
const R_TFTPD: &str = env!("CARGO_BIN_EXE_r-tftpd");

/// The daemon on a free port of 127.0.0.1, with `arguments`.
fn serve(root: &TempDir, arguments: &[&str]) -> Daemon {
    Daemon::start(Path::new(R_TFTPD), root.path(), arguments)
}

/// A root with one file, `file`, of `length` bytes, and its contents.
fn root_with_file(length: usize) -> (TempDir, Vec<u8>) {
    let root = TempDir::new();
    let contents = r_tftpd_test_support::files::pattern(length, 1);
    root.write("file", &contents);
    (root, contents)
}

/// A new client gets `file` whole.
#[track_caller]
fn assert_serves(daemon: &Daemon, contents: &[u8]) {
    let transfer = Client::new(daemon.address()).get("file", &[]).unwrap();
    assert_eq!(transfer.bytes, contents);
}
