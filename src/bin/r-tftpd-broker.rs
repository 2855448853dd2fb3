//! Receives requests unread, opens files and reply sockets. Started by `r-tftpd` only.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Captured, in a self-test alone: by an argument, which nobody gives otherwise.
    r_tftpd::self_test::broker()
        .unwrap_or_else(|| r_tftpd_broker::broker::main(r_tftpd::log::start))
}
