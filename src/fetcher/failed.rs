//! Why a fetch failed: one kind for the other processes, one line for the log.

use std::error::Error;
use std::io;

use r_tftpd_broker::fetch::{Failure, MAX_DETAIL};

use super::dns;

/// A fetch that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// For the other processes.
    pub(super) failure: Failure,
    /// For the log.
    pub(super) detail: String,
}

impl Failed {
    /// A failure with its reason.
    pub(super) fn new(failure: Failure, detail: impl AsRef<str>) -> Self {
        Self {
            failure,
            detail: visible(detail.as_ref()),
        }
    }

    /// What the HTTP client met. Its own text may name the URL, with credentials: only the texts
    /// of the causes are kept.
    pub(super) fn http(error: &reqwest::Error) -> Self {
        let mut failure = if error.is_connect() {
            Failure::Refused
        } else {
            Failure::BrokenOff
        };
        let mut texts: Vec<String> = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        while let Some(cause) = next {
            if let Some(found) = kind(cause) {
                failure = found;
            }
            // TCP alone has no end before it stands: the other side speaks no TLS.
            if error.is_connect() && ended_early(cause) {
                failure = Failure::Tls;
            }
            let text = cause.to_string();
            if !texts.last().is_some_and(|last| last.contains(&text)) {
                texts.push(text);
            }
            next = inner(cause).or_else(|| cause.source());
        }
        if error.is_timeout() && failure != Failure::Dns {
            failure = Failure::Timeout;
        }
        if texts.is_empty() {
            texts.push(
                if error.is_timeout() {
                    "timed out"
                } else {
                    "failed"
                }
                .into(),
            );
        }
        Self::new(failure, texts.join(": "))
    }

    /// Whether asking again can help.
    pub(super) fn can_pass(&self) -> bool {
        matches!(
            self.failure,
            Failure::BrokenOff | Failure::Timeout | Failure::Refused
        )
    }
}

/// What a cause says about the kind of failure.
fn kind(cause: &(dyn Error + 'static)) -> Option<Failure> {
    if cause.is::<dns::Error>() {
        return Some(Failure::Dns);
    }
    if cause.is::<rustls::Error>() {
        return Some(Failure::Tls);
    }
    match cause.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::TimedOut => Some(Failure::Timeout),
        _ => None,
    }
}

fn ended_early(cause: &(dyn Error + 'static)) -> bool {
    let cause = cause.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

/// The error inside an I/O error, which its `source` skips.
fn inner<'e>(cause: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
    Some(inner)
}

/// Cuts and escapes a text, as parts of it can come from an origin.
fn visible(text: &str) -> String {
    let mut visible: String = text
        .chars()
        .take(MAX_DETAIL)
        .flat_map(char::escape_default)
        .collect();
    visible.truncate(MAX_DETAIL);
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_short_and_visible() {
        let failed = Failed::new(Failure::Tls, "\u{1b}[31m\n€".repeat(300));
        assert_eq!(failed.detail.len(), MAX_DETAIL);
        assert!(
            failed
                .detail
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte))
        );
    }
}
