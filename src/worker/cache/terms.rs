//! What the cache is asked and told: the contents of the messages about links and fetches, and the
//! time.

use std::time::{Instant, SystemTime};

pub use r_tftpd_broker::fetch::{About, Failure, Head, MAX_VALIDATOR, Validators};
pub use r_tftpd_broker::wire::LinkInfo;

pub use crate::tftp::session::Extent;

/// Whether the way to the origin or the origin itself is to blame: then a stale entry may be
/// served instead (RFC 9111 section 4.2.4). The others would fail with any origin.
pub(super) fn is_of_origin(failure: Failure) -> bool {
    match failure {
        Failure::Dns
        | Failure::Refused
        | Failure::Timeout
        | Failure::Tls
        | Failure::Redirects
        | Failure::BrokenOff
        | Failure::Internal => true,
        Failure::BadUrl | Failure::PortNotAllowed { .. } | Failure::TooLarge | Failure::Disk => {
            false
        }
    }
}

/// Whether clients waited long for this failure.
pub(super) fn is_slow(failure: Failure) -> bool {
    matches!(failure, Failure::Timeout | Failure::Dns)
}

/// A failure in a few words, for the log.
pub(super) fn describe(failure: Failure) -> &'static str {
    match failure {
        Failure::BadUrl => "not a URL that can be fetched",
        Failure::PortNotAllowed { .. } => "port is not allowed, see --proxy-ports",
        Failure::Dns => "host not found",
        Failure::Refused => "no connection to the origin",
        Failure::Timeout => "the origin does not answer",
        Failure::Tls => "no TLS with the origin",
        Failure::Redirects => "bad redirects",
        Failure::BrokenOff => "the answer broke off",
        Failure::TooLarge => "larger than --cache-max-object",
        Failure::Disk => "no room in the cache",
        Failure::Internal => "the fetch failed",
    }
}

/// The time, by both clocks. Only the first answer of an origin is judged by the date; after that
/// the steady clock counts, so that a step of the date makes nothing fresh or stale.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The steady clock.
    pub clock: Instant,
    /// The date, as HTTP headers have it.
    pub date: SystemTime,
}
