//! What a transfer learns about the path to its client: how long a round trip takes, and whether
//! packets keep their order.

use std::time::Duration;

/// Round trips and trust of one transfer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    /// Slowest round of late, in microseconds, from a window to the ACK of all of it; 0 = none yet.
    round: u32,
    /// Fastest round ever, of the OACK too, in microseconds; 0 = none yet.
    trip: u32,
    /// Windows to arrive before the path is trusted again.
    doubt: u8,
}

impl Path {
    /// A packet was answered after this time at most; it may have been sent more than once.
    pub(super) fn note_trip(&mut self, trip: Duration) {
        let fastest = if self.trip == 0 { u32::MAX } else { self.trip };
        self.trip = micros(trip).min(fastest);
    }

    /// All that was sent, and sent once, is acknowledged; `whole` says it was a whole window.
    pub(super) fn note_round(&mut self, round: Duration, whole: bool) {
        self.note_trip(round);
        self.doubt = self.doubt.saturating_sub(1);
        if whole {
            self.round = micros(round).max(self.round - self.round / 8);
        }
    }

    /// Too little time has passed since blocks left for an ACK to be about them.
    pub(super) fn is_too_early(&self, passed: Duration) -> bool {
        self.trip >= TRIP_MIN && micros(passed) < self.trip / 2
    }

    /// The path doubles or reorders packets, which is remembered for some windows.
    pub(super) fn doubt(&mut self) {
        self.doubt = DOUBT;
    }

    /// What an ACK inside a window seems to say may be the path's doing.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubt > 0
    }

    /// Time after which an ACK of all that was sent is overdue.
    pub(super) fn patience(&self) -> Duration {
        self.rounds(2)
            .map_or(PATIENCE_UNKNOWN, |rounds| PATIENCE_MIN.max(rounds))
    }

    /// Time after which a client that says nothing is asked; none while no whole window was
    /// acknowledged.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.rounds(4).map(|rounds| SILENCE_MIN.max(rounds))
    }

    fn rounds(&self, count: u32) -> Option<Duration> {
        let round = Duration::from_micros(self.round.into());
        (self.round > 0).then_some(round * count)
    }
}

/// In microseconds, at least 1.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1)
}

/// Shortest round trip, in microseconds, that says how early an ACK is too early. Below it, the
/// processors at both ends take more of the time than the path does.
const TRIP_MIN: u32 = 200;
/// Windows for which a path that doubles or reorders packets is remembered.
const DOUBT: u8 = 8;
/// Patience while no window has arrived yet.
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(100);
/// Shortest patience: below this a round trip says more about scheduling than about the path.
const PATIENCE_MIN: Duration = Duration::from_millis(3);
/// Shortest silence: clients that write to a slow disk now and then take that long.
const SILENCE_MIN: Duration = Duration::from_millis(20);
