//! What a session sends again, and when. The rules stand at [`Session`].

use std::time::Instant;

use super::Session;

/// What became of the reports of the gap at `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// None yet.
    Unreported,
    /// The blocks from `base` on were sent as an answer to one.
    Answered,
    /// One will be answered when the round trip is over, unless there is progress.
    Waiting,
    /// One was answered late: no other is, for one timeout.
    Spent,
}

impl Session {
    /// The client acknowledged the block before the window again.
    //= rfc1123#section-4.2.3.1
    pub(super) fn handle_repeated_ack(&mut self, now: Instant) {
        if self.granted.windowsize == 1 || self.base == self.next {
            return self.ignore();
        }
        let echo = self.base <= self.repeated || self.path.is_too_early(now - self.sent_at);
        match self.gap {
            Gap::Unreported if !echo && self.timer.spend_retry() => {
                self.answer_gap(now);
            }
            Gap::Waiting => return self.ignore(),
            Gap::Spent if now < self.sent_at + self.timer.interval() => return self.ignore(),
            _ => self.gap = Gap::Waiting,
        }
        if self.gap == Gap::Waiting && now >= self.patience_ends() {
            self.answer_late(now);
        }
    }

    /// Sends a window from `base` on: the client dropped all it got of it and asks for it.
    pub(super) fn answer_gap(&mut self, now: Instant) {
        self.go_back(now);
        self.blind = false;
        self.gap = Gap::Answered;
    }

    /// Sends a window from `base` on: the client seems to lack it, no progress followed.
    pub(super) fn answer_late(&mut self, now: Instant) {
        self.gap = Gap::Spent;
        if self.timer.spend_retry() {
            self.go_back(now);
            self.blind = true;
        }
    }

    /// When the client is asked early what it lacks; `None` = its timeout is waited for.
    pub(super) fn probe_due(&self) -> Option<Instant> {
        let spent = self.timer.probes()?;
        let silence = self
            .path
            .silence()
            .filter(|_| self.granted.windowsize > 1)?;
        Some(self.sent_at + silence * (1 << spent))
    }

    /// Asks the client early what it lacks.
    pub(super) fn probe(&mut self, now: Instant) {
        if !self.timer.spend_probe() {
            self.go_back(now);
            self.blind = true;
            return;
        }
        self.retransmitted += 1;
        self.repeated = self.next;
        self.cursor = self.next - 1;
        self.path.note_sent_again(now - self.sent_at);
        self.sent_at = now;
        // An ACK inside the window is a sure gap: only the last block was sent twice.
        self.blind = false;
    }

    /// Hands everything from `base` on out again.
    pub(super) fn go_back(&mut self, now: Instant) {
        self.retransmitted += self.cursor.saturating_sub(self.base);
        self.repeated = self.next;
        self.cursor = self.base;
        let passed = now - self.sent_at;
        self.sent_at = now;
        self.fill_window(now);
        self.path.note_sent_again(passed);
    }

    /// An ACK inside the window may be caused by a block that arrived twice instead of a gap. On a
    /// path that keeps the order, the client has all that was sent twice by then, unless we sent
    /// it without being sure. An ACK that can not be about the answer to the gap before shows that
    /// the path does not keep the order, or doubles packets.
    pub(super) fn is_echo(&mut self, index: u64, now: Instant) -> bool {
        let repeated = index < self.repeated;
        if repeated && !self.blind && self.path.is_too_early(now - self.sent_at) {
            self.path.doubt();
        }
        self.path.is_doubted() || repeated && (self.blind || index + 1 == self.repeated)
    }

    /// When a gap report that may be an echo is answered, unless there is progress.
    pub(super) fn patience_ends(&self) -> Instant {
        self.sent_at + self.path.patience().min(self.timer.interval())
    }
}
