//! Who is answered, and how much at once. Time is an argument.

use std::collections::HashMap;
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
    /// Requests outstanding of each address; never an entry of 0, so never longer than
    /// `max_outstanding`.
    clients: HashMap<IpAddr, u32>,
    outstanding: usize,
    budgets: Budgets,
}

/// Why a request is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// Not in `--allow-net`, or in `--deny-net`.
    Network,
    /// The broker has as many requests as it can hold.
    Outstanding,
    /// The address has `--max-per-client` requests outstanding.
    PerClient,
    /// The prefix has been sent too much that was never answered.
    Budget,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network is not served",
            Self::Outstanding => "too many requests outstanding",
            Self::PerClient => "too many requests of one address (--max-per-client)",
            Self::Budget => "too many requests of a network that does not answer",
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
            budgets: Budgets::default(),
        }
    }

    /// Takes a request in and tells the bytes charged for it, or says why not. What was taken in is
    /// given back by [`Self::release`] and [`Self::refund`].
    pub(super) fn admit(&mut self, peer: IpAddr, now: Instant) -> Result<u64, Excess> {
        let named = |networks: &[Network]| networks.iter().any(|network| network.contains(peer));
        if named(&self.deny) || !(self.allow.is_empty() || named(&self.allow)) {
            return Err(Excess::Network);
        }
        if self.outstanding >= self.max_outstanding {
            return Err(Excess::Outstanding);
        }
        if self
            .clients
            .get(&peer)
            .is_some_and(|count| *count >= self.max_per_client)
        {
            return Err(Excess::PerClient);
        }
        let charged = self.budgets.charge(peer, now).ok_or(Excess::Budget)?;
        *self.clients.entry(peer).or_insert(0) += 1;
        self.outstanding += 1;
        Ok(charged)
    }

    /// Gives the place of an ended request back.
    pub(super) fn release(&mut self, peer: IpAddr) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(count) = self.clients.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.clients.remove(&peer);
            }
        }
    }

    /// Gives bytes back that were charged and not sent to a silent peer.
    pub(super) fn refund(&mut self, peer: IpAddr, bytes: u64, now: Instant) {
        self.budgets.refund(peer, bytes, now);
    }

    /// Whether this is the time for another log line about requests of this prefix.
    pub(super) fn may_log(&mut self, peer: IpAddr, now: Instant) -> bool {
        self.budgets.may_log(peer, now)
    }
}

/// Lets a log line pass now and then.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    window: Option<Instant>,
    passed: u32,
    held: u64,
}

impl Throttle {
    /// Lines in one window.
    const LINES: u32 = 10;
    const WINDOW: Duration = Duration::from_secs(10);

    /// Whether a line may be written; if so, how many were held back since the last one.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        let fresh = |start: Instant| now.saturating_duration_since(start) < Self::WINDOW;
        if !self.window.is_some_and(fresh) {
            self.window = Some(now);
            self.passed = 0;
        }
        if self.passed >= Self::LINES {
            self.held += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::CHARGE;
    use super::*;

    fn limits(max_per_client: u32) -> Limits {
        Limits::new(Vec::new(), Vec::new(), max_per_client, 20_000)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_allowed_networks_that_are_not_denied_are_answered() {
        let network = |text: &str| vec![text.parse().unwrap()];
        let mut limits = Limits::new(network("10.0.0.0/8"), network("10.1.0.0/16"), 10, 10);
        let now = Instant::now();
        assert_eq!(limits.admit(ip("10.2.0.1"), now), Ok(CHARGE));
        assert_eq!(limits.admit(ip("10.1.0.1"), now), Err(Excess::Network));
        assert_eq!(limits.admit(ip("192.0.2.1"), now), Err(Excess::Network));
        assert_eq!(limits.admit(ip("2001:db8::1"), now), Err(Excess::Network));
    }

    #[test]
    fn an_address_has_its_number_of_requests_and_no_more() {
        let (mut limits, now) = (limits(2), Instant::now());
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!(limits.admit(one, now), Ok(CHARGE));
        assert_eq!(limits.admit(one, now), Ok(CHARGE));
        assert_eq!(limits.admit(one, now), Err(Excess::PerClient));
        assert_eq!(limits.admit(other, now), Ok(CHARGE));
        limits.release(one);
        assert_eq!(limits.admit(one, now), Ok(CHARGE));
    }

    #[test]
    fn nothing_is_kept_of_ended_requests() {
        let (mut limits, now) = (limits(2), Instant::now());
        for host in 0..=255 {
            let peer = IpAddr::from([192, 0, 2, host]);
            assert_eq!(limits.admit(peer, now), Ok(CHARGE));
            limits.release(peer);
        }
        assert_eq!((limits.clients.len(), limits.outstanding), (0, 0));
    }

    #[test]
    fn the_number_of_all_requests_is_bounded() {
        let mut limits = Limits::new(Vec::new(), Vec::new(), 10, 3);
        let now = Instant::now();
        for host in 0..3 {
            assert_eq!(
                limits.admit(IpAddr::from([192, 0, 2, host]), now),
                Ok(CHARGE)
            );
        }
        assert_eq!(
            limits.admit(ip("198.51.100.1"), now),
            Err(Excess::Outstanding)
        );
        limits.release(ip("192.0.2.0"));
        assert_eq!(limits.admit(ip("198.51.100.1"), now), Ok(CHARGE));
    }

    #[test]
    fn ten_thousand_clients_behind_one_prefix_start_at_once() {
        let (mut limits, now) = (limits(10_000), Instant::now());
        for client in 0..10_000_u64 {
            assert_eq!(
                limits.admit(ip("192.0.2.1"), now),
                Ok(CHARGE),
                "client {client}"
            );
        }
    }

    #[test]
    fn log_lines_are_held_back_and_counted() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..Throttle::LINES {
            assert_eq!(throttle.pass(now), Some(0));
        }
        assert_eq!(throttle.pass(now), None);
        assert_eq!(throttle.pass(now), None);
        assert_eq!(throttle.pass(now + Throttle::WINDOW), Some(2));
        assert_eq!(throttle.pass(now + Throttle::WINDOW), Some(0));
    }
}
