//! One transfer to a client; what is sent again in `losses`.

mod losses;

use std::ops::Range;
use std::time::Instant;

use self::losses::Gap;
use super::block::Block;
use super::options::{Asked, Granted};
use super::packet::{Packet, Refusal};
use super::path::Path;
use super::timer::Timer;
pub use super::transfer::{Figures, Limits, Outcome};

/// How much of a source is readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the start.
    pub len: u64,
    /// There will be no more.
    pub complete: bool,
}

/// What is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// The OACK: [`Session::oack`].
    Oack,
    /// These blocks, by absolute index, one or more; the first block of a file is 1. Their places
    /// in the file: [`Session::block_bytes`].
    Data(Range<u64>),
    /// An ERROR, after which nothing follows.
    Error(Refusal),
}

/// The pure state machine of one transfer to a client (RRQ).
///
/// Call order: after [`Session::new`], and after every `handle_*` and [`Session::refuse`], take
/// transmissions from [`Session::poll_transmit`] until there is none and send them; then look at
/// [`Session::outcome`] (if there is one the transfer is over, everything can be freed at once),
/// else wait for a datagram, for growth of the source, or until [`Session::deadline`].
///
/// The window is `base..next`: blocks that were sent and are not acknowledged. The OACK is block
/// 0, with the same retransmission as a block. Blocks leave in ranges, never as bytes, so nothing
/// is kept for retransmission.
///
/// **Losses.** An ACK inside the window says that what follows did not arrive, and is answered at
/// once with a window from there. EDK2 however sends such an ACK for *every* block it did not
/// expect, so each repetition that is answered needlessly causes the next. Therefore:
/// - the same gap is answered once;
/// - an ACK that could just as well be the echo of a block that was sent twice is answered only
///   if no progress follows for twice a round trip, meanwhile the window is filled up with new
///   blocks, which is all that such a client misses;
/// - both again only after progress or a timeout. In lock-step a repeated ACK is never answered.
///
/// **The end of a window.** When its last block is lost, or the ACK of all of it, no later block
/// makes the client speak. A client of which we know how soon it answers is therefore asked early,
/// after some round trips instead of its timeout: first by the last block alone, which a client
/// that has the others completes, and one that has not answers with a report of the gap; then by
/// whole windows. That neither spends retries nor counts as a timeout. Never in lock-step, where
/// some clients do not bear a block that comes twice.
///
/// **Waiting for the source.** While the client has all that could be sent, or the window is not
/// yet full because the source has no more, the client owes no answer: no timer runs and nothing
/// is sent again, until the source grows. (How long a source may take is the driver's to judge.)
#[derive(Clone, Debug)]
pub struct Session {
    granted: Granted,
    extent: Extent,
    /// First block that is not acknowledged; 0 = the OACK is not.
    base: u64,
    /// First block that was never handed out.
    next: u64,
    /// What `poll_transmit` still has to hand out: `cursor..next`.
    cursor: u64,
    /// Blocks below this may be on their way more than once.
    repeated: u64,
    timer: Timer,
    /// When blocks were handed out last.
    sent_at: Instant,
    path: Path,
    timeouts: u32,
    ignored: u32,
    blocks: u64,
    retransmitted: u64,
    gap: Gap,
    /// The last repetition was a guess, not the answer to a sure gap: the client may have any of
    /// these blocks.
    blind: bool,
    proven: bool,
    cut: Cut,
    outcome: Option<Outcome>,
    /// The ERROR is still to be handed out.
    refusing: bool,
}

/// Where the client cuts windows.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    kept: u16,
    times: u8,
}

impl Session {
    /// A transfer of a source of which `extent` is readable; `length` is its final length in
    /// bytes where that is known before it is complete; `now` is when the request was seen.
    /// The size is told only if it is known, and the first packet is ready to be polled unless the
    /// source has to grow first.
    pub fn new(
        asked: &Asked,
        limits: &Limits,
        extent: Extent,
        length: Option<u64>,
        now: Instant,
    ) -> Self {
        let size = length.or(extent.complete.then_some(extent.len));
        let granted = Granted::negotiate(asked, limits, size);
        let first = u64::from(granted.is_empty());
        let mut session = Self {
            granted,
            extent,
            base: first,
            next: first,
            cursor: first,
            repeated: 0,
            timer: Timer::new(limits, granted.timeout, now),
            sent_at: now,
            path: Path::default(),
            timeouts: 0,
            ignored: 0,
            blocks: 0,
            retransmitted: 0,
            gap: Gap::Unreported,
            blind: false,
            proven: false,
            cut: Cut::default(),
            outcome: None,
            refusing: false,
        };
        session.fill_window(now);
        session
    }

    /// Takes a datagram of the client: an ACK moves the window or is ignored, an ERROR ends the
    /// transfer, anything else is counted.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        match Packet::parse(datagram) {
            Some(Packet::Ack(block)) => self.handle_ack(block, now),
            Some(Packet::Error(code, _)) => self.outcome = Some(self.outcome_of_error(code)),
            Some(Packet::Data(..)) | None => self.ignore(),
        }
    }

    /// The client sent the same request again: it has not seen our answer. While it is unproven
    /// that is sent again at once (it counts as a resend, of which there are at most three); later
    /// this does nothing.
    pub fn handle_repeated_request(&mut self, now: Instant) {
        if self.outcome.is_some() || self.proven || !self.timer.is_running() {
            return;
        }
        if self.timer.spend_retry() {
            self.timer.restart(now);
            self.go_back(now);
            self.blind = true;
        }
    }

    /// The time is `now`: resends what was not acknowledged in time, or gives up. No effect before
    /// [`Session::deadline`].
    //= rfc1350#section-2
    //= rfc7440#section-6
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        if self.timer.deadline().is_none_or(|deadline| now < deadline) {
            if self.gap == Gap::Waiting && now >= self.patience_ends() {
                self.answer_late(now);
            }
            if self.probe_due().is_some_and(|due| now >= due) {
                self.probe(now);
            }
            return;
        }
        self.timeouts = self.timeouts.saturating_add(1);
        if self.timer.is_silent(now) || !self.timer.spend_retry() {
            self.outcome = Some(self.outcome_of_silence());
            return;
        }
        self.timer.restart(now);
        self.go_back(now);
        self.blind = true;
        self.gap = Gap::Unreported;
    }

    /// The source has grown to `extent`. Before it is complete only full blocks are sent.
    /// A source never shrinks, and what is complete stays so.
    pub fn handle_extent(&mut self, extent: Extent, now: Instant) {
        if self.outcome.is_some() || self.extent.complete {
            return;
        }
        self.extent = Extent {
            len: extent.len.max(self.extent.len),
            complete: extent.complete,
        };
        self.fill_window(now);
    }

    /// Ends the transfer with an ERROR (the source failed, the server stops).
    pub fn refuse(&mut self, refusal: Refusal) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::Refused(refusal));
            self.refusing = true;
        }
    }

    /// The next thing to send; `None` = nothing now.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(outcome) = self.outcome {
            return match outcome {
                Outcome::Refused(refusal) if std::mem::take(&mut self.refusing) => {
                    Some(Transmit::Error(refusal))
                }
                _ => None,
            };
        }
        if self.cursor >= self.next {
            return None;
        }
        let range = self.cursor..self.next;
        self.cursor = self.next;
        if range.start == 0 {
            return Some(Transmit::Oack);
        }
        self.blocks += range.end - range.start;
        Some(Transmit::Data(range))
    }

    /// When [`Session::handle_timeout`] is to be called; `None` = only an event can go on.
    pub fn deadline(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        let patience = (self.gap == Gap::Waiting).then(|| self.patience_ends());
        let deadlines = [self.timer.deadline(), patience, self.probe_due()];
        deadlines.into_iter().flatten().min()
    }

    /// How the transfer ended; `None` = it goes on.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The client has acknowledged something, so it is no forged address.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// What was negotiated.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// The counts so far.
    pub fn figures(&self) -> Figures {
        let acknowledged = self.base.saturating_sub(1);
        Figures {
            bytes: acknowledged
                .saturating_mul(self.granted.blksize.into())
                .min(self.extent.len),
            blocks: self.blocks,
            retransmitted: self.retransmitted,
            timeouts: self.timeouts.into(),
            ignored: self.ignored.into(),
        }
    }

    /// The OACK datagram.
    pub fn oack(&self) -> Vec<u8> {
        self.granted.oack()
    }

    /// The bytes of the file that a block carries: blksize of them, fewer in the last block of the
    /// file, none where its size is a multiple of the blksize.
    //= rfc1350#section-6
    pub fn block_bytes(&self, index: u64) -> Range<u64> {
        let blksize = u64::from(self.granted.blksize);
        let start = index
            .saturating_sub(1)
            .saturating_mul(blksize)
            .min(self.extent.len);
        start..start.saturating_add(blksize).min(self.extent.len)
    }

    /// The client kept only this many blocks of a window, three times in a row: it has room for no
    /// more (U-Boot asks for 64 and keeps 32, then waits for 5 s).
    pub fn window_cut(&self) -> Option<u16> {
        (self.cut.times >= CUTS).then_some(self.cut.kept)
    }

    fn handle_ack(&mut self, block: Block, now: Instant) {
        if let Some(index) = block.nearest(self.base..self.next) {
            self.handle_progress(index, now);
        } else if self.base > 0 && block == Block::from_index(self.base - 1) {
            self.handle_repeated_ack(now);
        } else {
            self.ignore();
        }
    }

    /// Everything up to `index` arrived, for the first time.
    //= rfc7440#section-4
    fn handle_progress(&mut self, index: u64, now: Instant) {
        let kept = index + 1 - self.base;
        let passed = now - self.sent_at;
        if self.base == 0 {
            self.path.note_first_trip(passed, self.repeated > 0);
        }
        self.path.note_progress(passed);
        let whole = self.next - self.base == u64::from(self.granted.windowsize);
        let echo = self.is_echo(index, now);
        self.base = index + 1;
        self.cursor = self.cursor.max(self.base);
        self.proven = true;
        self.gap = Gap::Unreported;
        self.timer.prove();
        if self.base < self.next {
            if whole {
                self.cut.note(kept);
            }
            self.path.note_part(passed);
            self.timer.start(now);
            if echo {
                self.fill_window(now);
                self.gap = Gap::Waiting;
            } else {
                self.answer_gap(now);
            }
            return;
        }
        if whole && self.granted.windowsize > 1 {
            self.cut = Cut::default();
        }
        if self.base > self.repeated {
            self.path.note_round(passed, whole);
        }
        if self.base >= self.end() && self.extent.complete {
            self.outcome = Some(Outcome::Complete);
            return;
        }
        self.timer.stop();
        self.fill_window(now);
    }

    /// Adds what the window has room for and the source can give.
    fn fill_window(&mut self, now: Instant) {
        let room = if self.base == 0 {
            1
        } else {
            self.base + u64::from(self.granted.windowsize)
        };
        let end = if self.base == 0 { 1 } else { self.end() };
        let next = room.min(end).max(self.next);
        if next > self.next {
            self.next = next;
            self.sent_at = now;
            self.path.note_sent_new();
        }
        let owed = self.base < self.next && (self.next == room || self.extent.complete);
        if !owed {
            self.timer.stop();
        } else if !self.timer.is_running() {
            self.timer.start(now);
        }
    }

    /// One past the last block that can be sent.
    fn end(&self) -> u64 {
        let full = self.extent.len / u64::from(self.granted.blksize);
        full + 1 + u64::from(self.extent.complete)
    }

    /// Boot ROMs ask for the size first and abort with code 8 (EDK2) or 0 (UNDI) when the OACK
    /// told it. GRUB sends code 0 instead of the ACK of an empty file.
    fn outcome_of_error(&self, code: u16) -> Outcome {
        let told = self.base == 0 && self.granted.tsize.is_some();
        match code {
            0 if self.has_all_bytes() => Outcome::Complete,
            0 | 8 if told => Outcome::SizeProbe,
            code => Outcome::Aborted { code },
        }
    }

    /// iPXE never acknowledges an empty final block, curl leaves once it knows that a file is
    /// empty.
    fn outcome_of_silence(&self) -> Outcome {
        let told = self.proven || self.granted.tsize.is_some();
        if told && self.has_all_bytes() {
            Outcome::Complete
        } else {
            Outcome::TimedOut
        }
    }

    fn has_all_bytes(&self) -> bool {
        self.extent.complete && self.figures().bytes == self.extent.len
    }

    fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }
}

impl Cut {
    fn note(&mut self, kept: u64) {
        let kept = u16::try_from(kept).unwrap_or(u16::MAX);
        let times = if kept == self.kept {
            self.times.saturating_add(1)
        } else {
            1
        };
        *self = Self { kept, times };
    }
}

/// Windows cut at the same place before it is taken for a habit: once or twice is loss.
const CUTS: u8 = 3;

#[cfg(test)]
mod tests;
