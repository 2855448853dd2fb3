//! Writes the manual pages and completions into `contrib/`, where they are committed.

use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    for (path, contents) in r_tftpd_generate::files() {
        if let Err(error) = fs::write(&path, contents) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{}", path.display());
    }
    ExitCode::SUCCESS
}
