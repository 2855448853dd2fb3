//! Receives requests unread, opens files and reply sockets. Started by `r-tftpd` only.

use std::process::ExitCode;

fn main() -> ExitCode {
    r_tftpd_broker::broker::main(r_tftpd::log::start)
}
