//! Answers TFTP requests. Started by `r-tftpd` only.

use std::process::ExitCode;

fn main() -> ExitCode {
    r_tftpd::worker::main()
}
