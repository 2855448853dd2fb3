//! The process that talks HTTP; started by `r-tftpd` alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Captured, in a self-test alone: by an argument, which nobody gives otherwise.
    r_tftpd::self_test::fetcher().unwrap_or_else(r_tftpd::fetcher::main)
}
