//! What the broker tells an operator of clients that get no answer or no file: a few lines of each
//! kind, and how many more there were.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use tracing::{info, warn};

use super::Broker;
use super::limits::Excess;
use super::receive::Junk;

/// Lines of one kind in a [`SPAN`](crate::similar::SPAN).
pub(super) const LINES: u32 = 20;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Trouble {
    /// A request that is not taken in.
    Excess(Excess),
    /// What is no request, or can not be answered.
    Junk(Junk),
    /// No reply socket.
    Socket,
    /// A listener that can not be read.
    Listener,
    /// A name that is refused.
    Path,
    /// A symlink that is not followed.
    Symlink,
    /// No file to fetch into.
    CacheFile,
    /// No fetcher, or it has too much to do.
    Fetch,
}

impl Trouble {
    /// Lines about one client. What is wrong with a file differs from one to the next.
    fn of_client(self) -> u32 {
        match self {
            Self::Excess(_) | Self::Junk(_) | Self::Socket | Self::Fetch => 1,
            Self::Path | Self::Symlink | Self::Listener | Self::CacheFile => LINES / 2,
        }
    }

    /// Whether the operator should do something, or need only know where to look.
    fn is_warning(self) -> bool {
        !matches!(self, Self::Junk(_) | Self::Excess(Excess::Network))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excess(reason @ (Excess::PerClient | Excess::Budget | Excess::Overload)) => {
                write!(f, "requests dropped: {reason}")
            }
            Self::Excess(reason) => write!(f, "request dropped: {reason}"),
            Self::Junk(reason) => write!(f, "datagram dropped: {reason}"),
            Self::Socket => f.write_str("request dropped: no reply socket"),
            Self::Listener => f.write_str("listener can not be read for the moment"),
            Self::Path => f.write_str("path refused"),
            Self::Symlink => f.write_str("symlink refused"),
            Self::CacheFile => f.write_str("no cache file"),
            Self::Fetch => f.write_str("not fetched: no fetcher, or too many fetches at once"),
        }
    }
}

impl Broker {
    /// Whether there is to be a line about this; otherwise it is counted.
    pub(super) fn may_tell(
        &mut self,
        client: Option<IpAddr>,
        trouble: Trouble,
        now: Instant,
    ) -> bool {
        self.similar.pass(client, trouble, trouble.of_client(), now)
    }

    /// Tells what there was no line about, and begins a new span.
    pub(super) fn tell_similar(&mut self, now: Instant) {
        let (summaries, span) = self.similar.take(now);
        let seconds = span.as_secs().max(1);
        for summary in summaries {
            let outcome = summary.kind.to_string();
            let peer = summary.client.map(tracing::field::display);
            let (similar, clients) = (summary.similar, summary.clients);
            if summary.kind.is_warning() {
                warn!(
                    outcome,
                    peer, similar, clients, seconds, "+{similar} similar"
                );
            } else {
                info!(
                    outcome,
                    peer, similar, clients, seconds, "+{similar} similar"
                );
            }
        }
    }
}
