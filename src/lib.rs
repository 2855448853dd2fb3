//! r-tftpd: a TFTP server for network boot, in processes that can each do next to nothing.
//!
//! - [`cli`]: the command line of `r-tftpd`, which hands over to the supervisor.
//! - [`tftp`]: the protocol, pure: no clock, no socket, no file, no log.
//! - [`worker`]: the process that answers clients.
//! - [`fetcher`]: the process that talks HTTP, for links to URLs.
//! - [`log`]: how all processes write their records.
//! - [`self_test`]: what a captured one of them can still do.
//!
//! The privileged side is the package `r-tftpd-broker`.

pub mod cli;
pub mod fetcher;
pub mod log;
pub mod self_test;
mod sys;
pub mod tftp;
pub mod worker;
