//! The sandbox, tried from inside.
//!
//! This program takes the place of the worker, the broker or the fetcher: started by the real supervisor under
//! that name, it takes the same start message and descriptors, locks itself down with the same
//! code, and then does what an attacker would do. Which deed is told by a request from the network.
//!
//! The deeds are those of the self-test (`r_tftpd::self_test`), and some that take a supervisor
//! which goes on.
//!
//! Every deed must be refused with an error number, or kill the process, or be harmless; and each
//! time the supervisor must go on and the next generation must serve.

#![cfg(test)]

mod attacker;
mod attacks;
mod captured_broker;
mod captured_fetcher;
mod captured_worker;
mod degraded;
mod driver;
mod old_landlock;
mod paths;
mod probe;
mod raw;
mod self_test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os()
        .next()
        .map(PathBuf::from)
        .unwrap_or_default();
    match name
        .file_name()
        .map(OsString::from)
        .and_then(|name| name.into_string().ok())
        .as_deref()
    {
        Some("r-tftpd-worker") => self_test::unconfined().unwrap_or_else(captured_worker::main),
        Some("r-tftpd-broker") => captured_broker::main(),
        Some("r-tftpd-fetcher") => captured_fetcher::main(),
        Some(degraded::NAME) => degraded::main(),
        _ => driver::main(),
    }
}
