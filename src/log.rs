//! How all processes write their log records: one line each, to standard error.
//!
//! Every record is formatted first and then written by one write(2), so that records of several
//! processes never mix; a thread can write those of one turn together. There are no colours: records
//! go to files and to journald, which is told the priority of each by a prefix that it takes off.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::PanicHookInfo;

use r_tftpd_broker::settings::{LogFormat, LogSettings};
use tracing::{Level, Metadata, error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log of this process. A filter that can not be read is replaced by `info`, with a
/// warning; a second call changes nothing.
pub fn start(settings: &LogSettings) {
    let (filter, problem) = match filter(&settings.filter) {
        Ok(filter) => (filter, None),
        Err(problem) => (Targets::new().with_default(Level::INFO), Some(problem)),
    };
    let format = fmt::layer()
        .with_writer(Writer {
            priorities: settings.priorities,
        })
        .with_ansi(false)
        .log_internal_errors(false);
    let format = match settings.format {
        // As few words as possible: the journal adds the time and the process.
        LogFormat::Compact => format.compact().without_time().with_target(false).boxed(),
        LogFormat::Full => format.boxed(),
        LogFormat::Json => format
            .json()
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
    };
    let _ = tracing_subscriber::registry()
        .with(format.with_filter(filter))
        .try_init();
    std::panic::set_hook(Box::new(log_panic));
    if let Some(problem) = problem {
        warn!(
            "RUST_LOG={:?} is ignored: {problem}; write for example debug",
            settings.filter
        );
    }
}

/// Whether standard error leads to journald. `stream` is the value of `JOURNAL_STREAM`, which says
/// where a service's output went when it was started: systemd.exec(5).
#[must_use]
pub fn is_journal(stream: Option<&str>) -> bool {
    let own = || {
        let descriptor = io::stderr().as_fd().try_clone_to_owned()?;
        File::from(descriptor).metadata()
    };
    stream.is_some_and(|stream| {
        own().is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
    })
}

/// Writes text of several lines that is no log record, each line with the priority of an error.
///
/// # Errors
/// As write(2).
pub fn write_error(text: &str) -> io::Result<()> {
    let prefix = prefix(Level::ERROR);
    let lines: String = text
        .lines()
        .map(|line| format!("{prefix}{line}\n"))
        .collect();
    io::stderr().write_all(lines.as_bytes())
}

/// Whether [`start`] can read this value of `RUST_LOG`.
#[must_use]
pub fn is_valid(filter: &str) -> bool {
    self::filter(filter).is_ok()
}

/// Levels by module: no regular expressions, which would be parsed in a locked process.
fn filter(text: &str) -> Result<Targets, String> {
    let text = if text.trim().is_empty() { "info" } else { text };
    text.parse::<Targets>().map_err(|error| error.to_string())
}

/// Where records go.
struct Writer {
    priorities: bool,
}

/// One record on its way to standard error.
struct Record {
    prefix: &'static str,
    /// It is written at once.
    is_urgent: bool,
}

/// The most bytes that are held back: what a pipe takes as a whole (PIPE_BUF, pipe(7)).
const HELD: usize = 4096;

thread_local! {
    /// Records to be written together; none = this thread writes each by itself.
    static HELD_BACK: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Lets this thread write its records together, at most 4 KiB, at the next call of [`write_held`].
/// Warnings and errors take all that wait with them at once.
pub(crate) fn hold_back() {
    HELD_BACK.set(Some(Vec::with_capacity(HELD)));
}

/// Writes what this thread holds back.
pub(crate) fn write_held() {
    // Nobody can be told that the log can not be written.
    let _ = HELD_BACK.with_borrow_mut(|held| held.as_mut().map_or(Ok(()), write_out));
}

fn write_out(held: &mut Vec<u8>) -> io::Result<()> {
    let written = match held.as_slice() {
        [] => Ok(()),
        records => io::stderr().write_all(records),
    };
    held.clear();
    written
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record {
            prefix: "",
            is_urgent: true,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Record {
        let prefix = prefix(*metadata.level());
        Record {
            prefix: if self.priorities { prefix } else { "" },
            is_urgent: *metadata.level() <= Level::WARN,
        }
    }
}

impl Write for Record {
    /// The whole record with its prefix: written, or held back.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = [self.prefix.as_bytes(), record];
        HELD_BACK.with_borrow_mut(|held| {
            let Some(held) = held else {
                return io::stderr().write_all(&line.concat());
            };
            if held.len() + self.prefix.len() + record.len() > HELD {
                write_out(held)?;
            }
            line.iter().for_each(|part| held.extend_from_slice(part));
            if self.is_urgent || held.len() > HELD {
                write_out(held)?;
            }
            Ok(())
        })?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The priorities of syslog(3), as sd-daemon(3) writes them.
fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// A panic is a record like any other. No backtrace: it would open files, which a locked process
/// may not.
fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    error!(place, "panic: {}", text.unwrap_or("no message"));
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn an_empty_filter_means_info() {
        let filter = filter("").unwrap();
        assert!(filter.would_enable("r_tftpd::request", &Level::INFO));
        assert!(!filter.would_enable("r_tftpd::request", &Level::DEBUG));
    }

    #[test]
    fn a_filter_names_levels_and_modules() {
        let filter = filter("warn,r_tftpd::request=debug").unwrap();
        assert!(filter.would_enable("r_tftpd::request", &Level::DEBUG));
        assert!(!filter.would_enable("r_tftpd_broker::supervisor", &Level::INFO));
        assert!(filter_off());
    }

    fn filter_off() -> bool {
        !filter("off")
            .unwrap()
            .would_enable("r_tftpd", &Level::ERROR)
    }

    #[test]
    fn only_the_stream_that_standard_error_is_counts_as_the_journal() {
        let own = File::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
        let own = own.metadata().unwrap();
        let stream = format!("{}:{}", own.dev(), own.ino());
        assert!(is_journal(Some(&stream)));
        // As where a unit sends its output to a file, or a shell inside a service does.
        let other = format!("{}:{}", own.dev(), own.ino() + 1);
        assert!(!is_journal(Some(&other)));
        assert!(!is_journal(Some("")) && !is_journal(None));
    }

    #[test]
    fn a_filter_that_can_not_be_read_is_known_as_such() {
        assert!(is_valid("") && is_valid("info") && is_valid("r_tftpd=trace,warn"));
        assert!(!is_valid("r_tftpd=loud"));
        assert!(!is_valid("[request{id=1}]=debug"));
    }
}
