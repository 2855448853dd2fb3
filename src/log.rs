//! How all processes write their log records: one line each, to standard error.
//!
//! Every record is formatted first and then written by one write(2), so that records of several
//! processes never mix. There are no colours: records go to files and to journald.

use std::io;
use std::panic::PanicHookInfo;

use r_tftpd_broker::settings::{LogFormat, LogSettings};
use tracing::{error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log of this process. A filter that can not be read is replaced by `info`, with a
/// warning; a second call changes nothing.
pub fn start(settings: &LogSettings) {
    let (filter, problem) = match filter(&settings.filter) {
        Ok(filter) => (filter, None),
        Err(problem) => (
            Targets::new().with_default(tracing::Level::INFO),
            Some(problem),
        ),
    };
    let format = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    let format = match settings.format {
        LogFormat::Compact => format.compact().without_time().boxed(),
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
    fn a_filter_that_can_not_be_read_is_known_as_such() {
        assert!(is_valid("") && is_valid("info") && is_valid("r_tftpd=trace,warn"));
        assert!(!is_valid("r_tftpd=loud"));
        assert!(!is_valid("[request{id=1}]=debug"));
    }
}
