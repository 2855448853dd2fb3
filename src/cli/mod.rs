//! The command line of `r-tftpd`: reads it, starts the log, and hands over to the supervisor.
//!
//! - `arguments`: every option with its help text, `proxy` those of the proxy; `values`: how their
//!   values are read.
//! - `help`: what stands below the options in `-h` and `--help`.
//! - [`command`]: all of it for the generator of manual pages and completions.

mod arguments;
mod help;
mod proxy;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use r_tftpd_broker::settings::LogSettings;
use r_tftpd_broker::supervisor::{self, Settings};
use tracing::{error, warn};

use self::arguments::Arguments;
use crate::log;

/// The variable by which systemd says where the output of a service goes.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Exit status for a command line that can not be obeyed.
const USAGE: u8 = 2;

/// Runs the server as the command line says. Exit status 0 when the user ended it, 1 when it could
/// not start or go on, or a self-test was surprised, 2 for a bad command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(message) => return show(&message),
    };
    let (is_self_test, json) = (arguments.is_self_test(), arguments.json);
    let (mut settings, warnings) = arguments.into_settings(&|name| std::env::var(name).ok());
    if is_self_test {
        return self_test(&settings, json);
    }
    log::start(&settings.log);
    // Said once, by us: the processes started later get a filter they can read.
    if !log::is_valid(&settings.log.filter) {
        settings.log.filter.clear();
    }
    for warning in warnings {
        warn!("{warning}");
    }
    match supervisor::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Tries the sandbox. Of the log, only what keeps it from starting is of interest.
fn self_test(settings: &Settings, json: bool) -> ExitCode {
    let log = LogSettings {
        filter: "error".into(),
        ..settings.log.clone()
    };
    log::start(&log);
    match crate::self_test::run(settings, json) {
        Ok(status) => status,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The definition of the command line, from which manual pages and completions are made.
#[must_use]
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it; or the text of `--help` or `--version`.
fn parse(
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> clap::error::Result<Arguments> {
    Arguments::try_parse_from(line)
}

fn show(message: &clap::Error) -> ExitCode {
    let is_error = message.use_stderr();
    let is_journal = is_error && log::is_journal(std::env::var(JOURNAL_STREAM).ok().as_deref());
    // Nobody is left to be told if this fails.
    let _ = if is_journal {
        log::write_error(&message.to_string())
    } else {
        message.print()
    };
    if is_error {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests;
