//! Who is answered, and how much at once. Time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::budget::Budgets;
use crate::net::Network;

/// The limits and what counts against them.
#[derive(Debug)]
pub(super) struct Limits {
    allow: Vec<Network>,
    deny: Vec<Network>,
    max_per_client: u32,
    max_outstanding: usize,
    /// Addresses with requests outstanding, so never longer than `max_outstanding`.
    clients: HashMap<IpAddr, Client>,
    outstanding: usize,
    /// What is neither proven nor about to end, by id: the oldest first.
    silent: BTreeMap<u64, Silent>,
    budgets: Budgets,
}

/// What is outstanding of one address.
#[derive(Debug, Default)]
struct Client {
    /// Never 0.
    outstanding: u32,
    /// Those of them that are silent.
    silent: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Silent {
    peer: IpAddr,
    since: Instant,
}

/// How long a request is not made to give way: an honest client has answered by then.
const GRACE: Duration = Duration::from_millis(200);

/// Requests of one address that can be about to give way at once. The worker ends them within
/// milliseconds.
const GIVING_WAY: u32 = 64;

/// The broker is nearly full when no more than one in so many places is free. That is what those
/// that are about to give way can take.
const KEPT_FREE: usize = 8;

/// Why a request is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Excess {
    /// Not in `--allow-net`, or in `--deny-net`.
    Network,
    /// The broker has as many requests as it can hold.
    Outstanding,
    /// The address has `--max-per-client` requests outstanding.
    PerClient,
    /// The prefix has been sent too much that was never answered.
    Budget,
    /// More come than can be handed on, and this client has not asked before.
    Overload,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network is not served",
            Self::Outstanding => "too many requests outstanding",
            Self::PerClient => "too many requests of one address (--max-per-client)",
            Self::Budget => "too many requests of a network that does not answer",
            Self::Overload => "more come than can be served, clients that repeat theirs go first",
        })
    }
}

impl Limits {
    pub(super) fn new(
        allow: Vec<Network>,
        deny: Vec<Network>,
        max_per_client: u32,
        max_outstanding: u32,
    ) -> Self {
        Self {
            allow,
            deny,
            max_per_client,
            max_outstanding: usize::try_from(max_outstanding).unwrap_or(usize::MAX),
            clients: HashMap::new(),
            outstanding: 0,
            silent: BTreeMap::new(),
            budgets: Budgets::default(),
        }
    }

    /// Takes request `id`, higher than all before, in and tells the bytes charged for it, or says
    /// why not. What was taken in is given back by [`Self::release`] and [`Self::refund`].
    ///
    /// An address that has all its requests outstanding, some of them silent, is not refused: an
    /// honest client can share it with one that floods (NAT). The caller asks [`Self::give_way`]
    /// which one ends instead.
    pub(super) fn admit(&mut self, peer: IpAddr, id: u64, now: Instant) -> Result<u64, Excess> {
        let named = |networks: &[Network]| networks.iter().any(|network| network.contains(peer));
        if named(&self.deny) || !(self.allow.is_empty() || named(&self.allow)) {
            return Err(Excess::Network);
        }
        if self.outstanding >= self.max_outstanding {
            return Err(Excess::Outstanding);
        }
        if let Some(client) = self.clients.get(&peer) {
            let over = client.outstanding.checked_sub(self.max_per_client);
            if over.is_some_and(|over| over >= GIVING_WAY || self.oldest_of(client, now).is_none())
            {
                return Err(Excess::PerClient);
            }
        }
        let charged = self.budgets.charge(peer, now).ok_or(Excess::Budget)?;
        let client = self.clients.entry(peer).or_default();
        client.outstanding += 1;
        client.silent.insert(id);
        self.outstanding += 1;
        self.silent.insert(id, Silent { peer, since: now });
        Ok(charged)
    }

    /// After [`Self::admit`]: the silent request that has to end to make up for it, of the same
    /// address if that has more than its number, of any if the broker is nearly full. It counts
    /// until it is released.
    pub(super) fn give_way(&mut self, peer: IpAddr, now: Instant) -> Option<u64> {
        let client = self.clients.get(&peer)?;
        let nearly_full = self.max_outstanding - self.max_outstanding / KEPT_FREE;
        let id = if client.outstanding > self.max_per_client {
            self.oldest_of(client, now)?
        } else if self.outstanding > nearly_full {
            let (id, silent) = self.silent.first_key_value()?;
            is_late(silent, now).then_some(*id)?
        } else {
            return None;
        };
        self.prove(id);
        Some(id)
    }

    /// The request no longer gives way.
    pub(super) fn prove(&mut self, id: u64) {
        let silent = self.silent.remove(&id);
        if let Some(client) = silent.and_then(|silent| self.clients.get_mut(&silent.peer)) {
            client.silent.remove(&id);
        }
    }

    /// Gives the place of an ended request back.
    pub(super) fn release(&mut self, peer: IpAddr, id: u64) {
        self.prove(id);
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(client) = self.clients.get_mut(&peer) {
            client.outstanding = client.outstanding.saturating_sub(1);
            if client.outstanding == 0 {
                self.clients.remove(&peer);
            }
        }
    }

    /// The oldest silent request of an address, if an honest client would have answered it.
    fn oldest_of(&self, client: &Client, now: Instant) -> Option<u64> {
        let oldest = client.silent.first()?;
        let silent = self.silent.get(oldest)?;
        is_late(silent, now).then_some(*oldest)
    }

    /// Forgets what need not be known, and keeps no room for more.
    pub(super) fn shrink(&mut self, now: Instant) {
        self.clients.shrink_to_fit();
        self.budgets.shrink(now);
    }

    /// Gives bytes back that were charged and not sent to a silent peer.
    pub(super) fn refund(&mut self, peer: IpAddr, bytes: u64, now: Instant) {
        self.budgets.refund(peer, bytes, now);
    }
}

fn is_late(silent: &Silent, now: Instant) -> bool {
    now.saturating_duration_since(silent.since) >= GRACE
}

#[cfg(test)]
mod tests;
