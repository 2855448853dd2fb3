//! A client in line: where all places are taken, a client that has answered goes on in small steps.
//! Each of its ACKs is held for [`PACE`] before it counts; when there is a place nothing is held any
//! more.

use std::time::{Duration, Instant};

use super::engine::Engine;
use crate::tftp::packet::Packet;

/// A client in line gets an answer this long after each ACK: one window, so that it does not give
/// up. Clients have no more than five to ten seconds for one answer, GRUB does not repeat an ACK
/// at all, and the transfers in front can take minutes.
pub(super) const PACE: Duration = Duration::from_secs(2);

/// A datagram that has to wait.
pub(super) struct Held {
    pub(super) datagram: Vec<u8>,
    /// When the client answered.
    pub(super) since: Instant,
}

/// Whether a datagram of a client in line asks for more. What ends the transfer does not, nor does
/// junk.
pub(super) fn has_to_wait(engine: &Engine, datagram: &[u8], now: Instant) -> bool {
    match (engine, Packet::parse(datagram)) {
        (Engine::Send(_), Some(Packet::Ack(_))) | (Engine::Receive(..), Some(Packet::Data(..))) => {
            let mut next = engine.clone();
            next.handle_datagram(datagram, now);
            next.outcome(now).is_none()
        }
        _ => false,
    }
}

/// Holds a datagram. Of several ACKs the last one says most, of several blocks only the first one
/// is the one to come.
pub(super) fn hold(held: &mut Option<Held>, engine: &Engine, datagram: &[u8], now: Instant) {
    let since = match (&*held, engine) {
        (Some(_), Engine::Receive(..)) => return,
        (Some(held), Engine::Send(_)) => held.since,
        (None, _) => now,
    };
    *held = Some(Held {
        datagram: datagram.to_vec(),
        since,
    });
}
