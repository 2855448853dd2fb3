//! Who is heard when more requests come than can be handed on.
//!
//! To drop a request costs a fiftieth of handing it on. A broker that hands on all it can is too
//! slow for a flood: the socket's queue is always full, and the kernel drops what comes, from
//! whomever. So when more have come than ever fit into the queue, as long as it is not empty, and
//! the kernel has dropped some, the broker drops all first requests and only takes note of them:
//! who asks again after a while, as honest clients do, is heard at once. Forged requests that all
//! come from another port are not.
//!
//! What a boot storm brings at once fits into the queue, and is handed on. Clients that ask one
//! thing after another as fast as they are answered may never let the queue run empty, but not
//! fill it either. Time is an argument.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::receive::Batch;

/// Datagrams that are received before the queue is empty: more than the largest receive buffer
/// that the units ask for has room for, and the requests of 10 000 machines.
const QUEUE: usize = 16_384;

/// How long an overload lasts after the last sign of it.
const CALM: Duration = Duration::from_secs(2);

/// When a second request counts: firmware repeats its own after 1 to 5 s. What comes sooner or
/// later is taken for a first one.
const AGAIN: std::ops::RangeInclusive<u32> = 400..=8000; // milliseconds

/// Clients of which a request is remembered, 8 bytes each while there is an overload: the requests
/// of 5 s, at the 200 000 in a second that a core can send.
const CLIENTS: usize = 1 << 20;

/// Whether there is an overload, and who was dropped for it.
#[derive(Debug, Default)]
pub(super) struct Overload {
    /// Datagrams received since the queue was found empty.
    behind: usize,
    /// The kernel has dropped some since then.
    has_lost: bool,
    /// There is an overload until then, at least.
    until: Option<Instant>,
    seen: Option<Seen>,
}

/// When clients were seen last, by a keyed hash. A newer one takes the place of an older one.
#[derive(Debug)]
struct Seen {
    start: Instant,
    keys: RandomState,
    clients: Vec<Sighting>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    /// The part of the hash that is not the place.
    tag: u32,
    /// Milliseconds since the start, 0 = nobody.
    at: u32,
}

impl Overload {
    /// This was received.
    pub(super) fn note(&mut self, batch: Batch, now: Instant) {
        if batch.is_all {
            (self.behind, self.has_lost) = (0, false);
        } else {
            self.behind += batch.datagrams;
            self.has_lost |= batch.has_lost;
        }
        let has_begun = self.behind > QUEUE && self.has_lost;
        if has_begun || (self.behind > 0 && self.is_overload(now)) {
            self.until = Some(now + CALM);
        }
    }

    /// Whether a request is looked at. Called once for each.
    pub(super) fn admits(&mut self, peer: SocketAddr, now: Instant) -> bool {
        if !self.is_overload(now) {
            self.seen = None;
            return true;
        }
        let seen = self.seen.get_or_insert_with(|| Seen::new(now));
        seen.again(peer, now) || self.behind == 0
    }

    fn is_overload(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When [`Self::calm`] is due; none if there is nothing to forget.
    pub(super) fn due(&self) -> Option<Instant> {
        self.seen.as_ref().and(self.until)
    }

    /// Forgets who was seen, if the overload is over.
    pub(super) fn calm(&mut self, now: Instant) {
        if !self.is_overload(now) {
            self.seen = None;
        }
    }
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self {
            start: now,
            keys: RandomState::new(),
            clients: vec![Sighting::default(); CLIENTS],
        }
    }

    /// Takes note of a client. Whether it was seen before, neither just now nor long ago.
    fn again(&mut self, peer: SocketAddr, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        let at = u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1);
        let hash = self.keys.hash_one(peer);
        let [place, tag] = [hash >> 32, hash & u64::from(u32::MAX)];
        let place = usize::try_from(place).unwrap_or(0) % CLIENTS;
        let new = Sighting {
            tag: u32::try_from(tag).unwrap_or(0),
            at,
        };
        let Some(slot) = self.clients.get_mut(place) else {
            return false;
        };
        let old = std::mem::replace(slot, new);
        old.at > 0 && old.tag == new.tag && AGAIN.contains(&at.saturating_sub(old.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    /// A receive that loses nothing.
    fn received(datagrams: usize) -> Batch {
        Batch {
            datagrams,
            is_all: datagrams < 16,
            has_lost: false,
        }
    }

    /// An overload that has just begun.
    fn overload() -> (Overload, Instant) {
        let (mut overload, start) = (Overload::default(), Instant::now());
        overload.note(
            Batch {
                datagrams: QUEUE + 1,
                is_all: false,
                has_lost: true,
            },
            start,
        );
        (overload, start)
    }

    #[test]
    fn a_full_queue_of_a_boot_storm_is_no_overload() {
        let (mut overload, now) = (Overload::default(), Instant::now());
        for _ in 0..2 {
            for _ in 0..QUEUE / 16 {
                overload.note(received(16), now);
                assert!(overload.admits(peer(1000), now));
            }
            // Once empty, it may be full again.
            overload.note(received(3), now);
        }
        assert!(overload.admits(peer(1000), now));
        assert!(overload.seen.is_none());
    }

    #[test]
    fn clients_that_keep_the_queue_from_running_empty_are_no_overload() {
        let (mut overload, now) = (Overload::default(), Instant::now());
        for _ in 0..10 * QUEUE / 16 {
            overload.note(received(16), now);
            assert!(overload.admits(peer(1000), now));
        }
    }

    #[test]
    fn a_loss_before_the_queue_ran_empty_counts_no_more() {
        let (mut overload, now) = (Overload::default(), Instant::now());
        let has_lost = true;
        overload.note(
            Batch {
                has_lost,
                ..received(16)
            },
            now,
        );
        overload.note(
            Batch {
                has_lost,
                ..received(15)
            },
            now,
        );
        for _ in 0..=QUEUE / 16 {
            overload.note(received(16), now);
        }
        assert!(overload.admits(peer(1000), now));
        overload.note(
            Batch {
                has_lost,
                ..received(16)
            },
            now,
        );
        assert!(!overload.admits(peer(1000), now));
    }

    #[test]
    fn who_asks_again_is_heard_and_others_when_the_queue_is_empty() {
        let (mut overload, now) = overload();
        assert!(!overload.admits(peer(1), now));
        assert!(!overload.admits(peer(2), now));
        // Too soon.
        assert!(!overload.admits(peer(2), now + SECOND / 10));
        overload.note(received(16), now + SECOND);
        assert!(overload.admits(peer(1), now + SECOND));
        assert!(!overload.admits(peer(3), now + SECOND));
        overload.note(received(15), now + SECOND);
        assert!(overload.admits(peer(4), now + SECOND));
        // Too late.
        for step in 1..=10 {
            overload.note(received(16), now + step * SECOND);
        }
        assert!(!overload.admits(peer(3), now + 10 * SECOND));
    }

    #[test]
    fn a_forged_port_that_is_used_without_end_is_never_heard() {
        let (mut overload, mut now) = overload();
        for _ in 0..100 {
            overload.note(received(16), now);
            assert!(!overload.admits(peer(7), now));
            now += SECOND / 10;
        }
    }

    #[test]
    fn an_honest_client_is_heard_among_a_hundred_thousand_forged_ones() {
        let (mut overload, now) = overload();
        let mut heard = 0;
        for client in 0..100 {
            overload.admits(peer(client), now);
        }
        for number in 0..100_000_u32 {
            let [a, b, c, d] = number.to_be_bytes();
            let address = SocketAddr::from(([198, 18, a ^ b, c], 1024 + u16::from(d)));
            heard += u32::from(overload.admits(address, now + SECOND / 2));
        }
        assert_eq!(heard, 0);
        overload.note(received(16), now + SECOND);
        let honest = (0..100).filter(|client| overload.admits(peer(*client), now + SECOND));
        assert!(honest.count() > 75);
    }

    #[test]
    fn nothing_is_left_when_the_overload_is_over() {
        let (mut overload, now) = overload();
        overload.admits(peer(1), now);
        assert_eq!(overload.due(), Some(now + CALM));
        overload.calm(now + SECOND);
        assert!(overload.seen.is_some());
        overload.calm(now + CALM);
        assert!(overload.seen.is_none() && overload.due().is_none());
        assert!(overload.admits(peer(2), now + CALM));
    }
}
