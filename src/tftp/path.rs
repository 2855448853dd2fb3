//! What a transfer learns about the path to its client: how long a round trip takes, and whether
//! packets keep their order.

use std::time::Duration;

/// Round trips and trust of one transfer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    /// Slowest round of late, in microseconds, from a window to the ACK of all of it, or of a part
    /// while none was acknowledged whole; 0 = none yet.
    round: u32,
    /// Fastest round ever, of the OACK too, in microseconds; 0 = none yet.
    trip: u32,
    /// `round` is of whole windows.
    is_whole: bool,
    /// There was nothing under way to the client or from it when blocks left last.
    is_quiet: bool,
    /// Windows to arrive before the path is trusted again.
    doubt: u8,
}

impl Path {
    /// What was sent last was answered after this time. If that is long, then rather because the first
    /// answer was lost: a trip that is too long would make all that follows look too early.
    fn note_trip(&mut self, trip: Duration) {
        let fastest = if self.trip == 0 { u32::MAX } else { self.trip };
        if trip <= TRIP_MAX {
            self.trip = micros(trip).min(fastest);
        }
    }

    /// The OACK was answered this time after it was sent last. If it was sent more than once, then
    /// perhaps only because the client's own timer made it repeat the answer.
    pub(super) fn note_first_trip(&mut self, trip: Duration, is_repeated: bool) {
        if !is_repeated || trip <= PART_MAX {
            self.note_trip(trip);
        }
    }

    /// All that was sent, and sent once, is acknowledged; `whole` says it was a whole window. If the
    /// first window took long, then rather because the first answer to it was lost: under loss it
    /// can be a long time until another arrives whole and corrects that.
    pub(super) fn note_round(&mut self, round: Duration, whole: bool) {
        self.note_trip(round);
        self.doubt = self.doubt.saturating_sub(1);
        if whole && (self.round > 0 || round <= TRIP_MAX) {
            if !self.is_whole {
                self.round = 0;
                self.is_whole = true;
            }
            self.round = micros(round).max(self.round - self.round / 8);
        }
    }

    /// A part of a window is acknowledged after this time: a gap was reported. That counts while no
    /// window has arrived whole, as where none ever does. Not if the client has waited: its own timer
    /// says nothing about the path.
    pub(super) fn note_part(&mut self, passed: Duration) {
        let waited = PART_MAX.max(self.trips(4));
        if !self.is_whole && !self.is_too_early(passed) && passed <= waited {
            self.round = micros(passed).max(self.round - self.round / 8);
        }
    }

    /// Too little time has passed since blocks left for an ACK to be about them.
    pub(super) fn is_too_early(&self, passed: Duration) -> bool {
        self.trip >= TRIP_MIN && micros(passed) < self.trip / 2
    }

    /// Blocks leave again, this time after others left. Their answers have arrived or are lost if it
    /// was long enough, so that the next ACK is an answer to these.
    pub(super) fn note_sent_again(&mut self, passed: Duration) {
        self.is_quiet = self.trip > 0 && passed > self.trips(2);
    }

    /// Blocks leave that never left before; others may just have been sent again.
    pub(super) fn note_sent_new(&mut self) {
        self.is_quiet = false;
    }

    /// Something new is acknowledged this time after blocks left.
    pub(super) fn note_progress(&mut self, passed: Duration) {
        if self.is_quiet {
            self.note_trip(passed);
        }
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
        let least = if self.is_whole {
            PATIENCE_MIN
        } else {
            PATIENCE_PART
        };
        self.rounds(2)
            .map_or(PATIENCE_UNKNOWN, |rounds| least.max(rounds))
    }

    /// Time after which a client that says nothing is asked; none while nothing of a window was
    /// acknowledged.
    pub(super) fn silence(&self) -> Option<Duration> {
        let least = if self.is_whole {
            SILENCE_MIN
        } else {
            2 * PATIENCE_PART
        };
        self.rounds(4).map(|rounds| least.max(rounds))
    }

    fn trips(&self, count: u32) -> Duration {
        Duration::from_micros(self.trip.into()) * count
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
/// Longest that is believed of a round trip, or of the first round: clients repeat an ACK after a
/// second or more.
const TRIP_MAX: Duration = Duration::from_millis(500);
/// Windows for which a path that doubles or reorders packets is remembered.
const DOUBT: u8 = 8;
/// Patience while no window has arrived yet.
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(100);
/// Shortest patience: below this a round trip says more about scheduling than about the path.
const PATIENCE_MIN: Duration = Duration::from_millis(3);
/// Shortest patience while the time of whole windows is not known.
const PATIENCE_PART: Duration = Duration::from_millis(20);
/// Shortest silence: clients that write to a slow disk now and then take that long.
const SILENCE_MIN: Duration = Duration::from_millis(20);
/// Longest time from a window to the report of a gap, if round trips are short.
const PART_MAX: Duration = Duration::from_millis(100);
