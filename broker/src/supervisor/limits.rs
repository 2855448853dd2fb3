//! How many descriptors the processes may hold, and what that means for the transfers.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

use super::Error;
use crate::wire::MAX_KEPT;

/// Clients that have not answered yet; their oldest gives way. Enough for every machine of a large
/// site to ask in the same second.
const MAX_UNPROVEN: u32 = 4096;

/// A transfer holds its reply socket and its file.
const DESCRIPTORS_PER_TRANSFER: u64 = 2;

/// Listeners, channels, the runtime's own, descriptors on their way between two processes.
const RESERVED: u64 = 128;

/// The most fetches at once. Each holds a file in the worker, and in the fetcher a connection or
/// two.
const MAX_FETCHES: u32 = 256;

/// Of so many descriptors, one may be a reply socket that no request uses.
const KEPT_PART: u64 = 16;

/// How many clients can be served at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Proven transfers; 1 or more.
    pub(super) connections: u32,
    /// Unproven transfers; 1 or more.
    pub(super) unproven: u32,
    /// Entries of the cache; each holds a file.
    pub(super) entries: u32,
    /// Fetches; 1 or more.
    pub(super) fetches: u32,
    /// Reply sockets that are kept for the next request; none if there are few descriptors.
    pub(super) kept: u16,
}

impl Limits {
    /// Takes as many descriptors as the system allows, for this process and those it starts, and
    /// fits the limits into them. `entries` of the cache; none = no proxy.
    ///
    /// # Errors
    /// As setrlimit(2).
    pub(super) fn raise(connections: u32, entries: Option<u32>) -> Result<Self, Error> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::system("getrlimit"))?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(Error::system("setrlimit"))?;
        let limits = Self::fit(connections, entries, hard);
        if limits.connections < connections
            || limits.unproven < MAX_UNPROVEN
            || limits.entries < entries.unwrap_or(0)
        {
            warn!(
                descriptors = hard,
                connections = limits.connections,
                unproven = limits.unproven,
                cache_entries = limits.entries,
                "few descriptors, fewer clients at once: raise the limit with LimitNOFILE= in the \
                 unit or `ulimit -Hn`"
            );
        }
        Ok(limits)
    }

    /// Requests that broker and worker can hold together: any of the proven may become unproven
    /// again by a new request, and those that wait take the places of others.
    pub(super) fn outstanding(self) -> u32 {
        self.connections.saturating_add(self.unproven)
    }

    /// Shares the descriptors. The cache gets what it wants up to a quarter, fetches up to an
    /// eighth; of the rest, the proven what they want as long as half is left for others.
    fn fit(connections: u32, entries: Option<u32>, descriptors: u64) -> Self {
        let part = |wanted: u32, parts: u64| {
            wanted
                .min(u32::try_from(descriptors / parts).unwrap_or(u32::MAX))
                .max(1)
        };
        let (entries, fetches, proxy) = match entries {
            Some(entries) => {
                let (entries, fetches) = (part(entries, 4), part(MAX_FETCHES, 8));
                (entries, fetches, u64::from(entries) + u64::from(fetches))
            }
            None => (1, 1, 0),
        };
        let kept =
            u16::try_from(descriptors / KEPT_PART).map_or(MAX_KEPT, |most| most.min(MAX_KEPT));
        let left = descriptors.saturating_sub(RESERVED + proxy + u64::from(kept));
        let places = left / DESCRIPTORS_PER_TRANSFER;
        let places = u32::try_from(places).unwrap_or(u32::MAX).max(2);
        let unproven = MAX_UNPROVEN.min((places / 2).max(places.saturating_sub(connections)));
        Self {
            connections: connections.min(places - unproven),
            unproven,
            entries,
            fetches,
            kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(connections: u32, descriptors: u64) -> (u32, u32) {
        let Limits {
            connections,
            unproven,
            ..
        } = Limits::fit(connections, None, descriptors);
        (connections, unproven)
    }

    #[test]
    fn enough_descriptors_grant_all_that_was_asked() {
        assert_eq!(fit(4096, 524_288), (4096, MAX_UNPROVEN));
        assert_eq!(fit(4096, 20_000), (4096, MAX_UNPROVEN));
        assert_eq!(fit(1, u64::MAX), (1, MAX_UNPROVEN));
    }

    #[test]
    fn few_descriptors_are_shared() {
        assert_eq!(fit(4096, 1024), (208, 208));
        assert_eq!(fit(64, 1024), (64, 352));
        assert_eq!(fit(1, 0), (1, 1));
    }

    #[test]
    fn every_transfer_has_its_descriptors() {
        for connections in [1, 64, 4096, 1_000_000] {
            for descriptors in [256, 1024, 4096, 65536, 1 << 20] {
                for entries in [None, Some(1), Some(1024), Some(100_000)] {
                    let limits = Limits::fit(connections, entries, descriptors);
                    let transfers = u64::from(limits.outstanding()) * DESCRIPTORS_PER_TRANSFER;
                    let cache = entries.map_or(0, |_| limits.entries + limits.fetches);
                    assert!(
                        transfers + u64::from(cache) + u64::from(limits.kept) + RESERVED
                            <= descriptors,
                        "{connections} {descriptors}: {limits:?}"
                    );
                    assert!(limits.connections >= 1 && limits.unproven >= 1);
                }
            }
        }
    }
}
