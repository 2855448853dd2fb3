//! The process that talks HTTP; started by `r-tftpd` alone.

use std::process::ExitCode;

fn main() -> ExitCode {
    r_tftpd::fetcher::main()
}
