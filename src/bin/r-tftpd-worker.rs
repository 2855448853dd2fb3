//! Answers TFTP requests. Started by `r-tftpd` only.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Captured, in a self-test alone: by an argument, which nobody gives otherwise.
    r_tftpd::self_test::worker().unwrap_or_else(r_tftpd::worker::main)
}
