//! The process that users and systemd start: reads the command line and supervises the others.

use std::process::ExitCode;

fn main() -> ExitCode {
    r_tftpd::cli::main()
}
