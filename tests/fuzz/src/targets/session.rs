//! A transfer to a client that does anything at any time, against a model that knows no more than RFC 1350 and 7440:
//! which blocks are acknowledged, and which were handed out.
//!
//! Never more than a window beyond what is acknowledged, never a byte outside the file, never what is acknowledged,
//! never more than four datagrams to who has not answered, never an answer to a repeated ACK in lock-step, and always an
//! end once nobody speaks.

use std::time::{Duration, Instant};

use super::options::limits;
use crate::input::Input;
use crate::tftp::block::Block;
use crate::tftp::options::Asked;
use crate::tftp::packet::{Refusal, ack};
use crate::tftp::session::{Extent, Limits, Outcome, Session, Transmit};

/// A transfer and its events, by choice.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = limits(&mut input);
    let asked = Asked {
        blksize: input.pick(&[None, Some(8), Some(512), Some(1468), Some(65464)]),
        timeout: input.pick(&[None, None, Some(1), Some(7), Some(255)]),
        tsize: input.pick(&[None, Some(0)]),
        windowsize: input.pick(&[
            None,
            Some(1),
            Some(2),
            Some(4),
            Some(16),
            Some(64),
            Some(65535),
        ]),
    };
    let extent = Extent {
        len: len(&mut input),
        complete: input.byte() % 4 != 3,
    };
    let length =
        (!extent.complete && input.flag()).then(|| extent.len.saturating_add(input.number::<2>()));
    let mut transfer = Transfer::new(&asked, &limits, extent, length);
    transfer.take(Cause::Other);
    for _ in 0..400 {
        if input.is_empty() || transfer.session.outcome().is_some() {
            break;
        }
        transfer.event(&mut input);
    }
    transfer.end_in_silence();
}

struct Transfer {
    session: Session,
    limits: Limits,
    now: Instant,
    extent: Extent,
    /// First block that is not acknowledged.
    base: u64,
    /// First block that was never handed out.
    next: u64,
    /// Packets handed out, and those of them that had been before.
    handed: u64,
    again: u64,
    blocks: u64,
    /// When a datagram without progress was answered last, if nothing else has happened since.
    answered: Option<Instant>,
    /// Datagrams to a client that has not answered.
    unproven: u32,
    has_refused: bool,
}

/// What made the session speak.
#[derive(Clone, Copy, PartialEq)]
enum Cause {
    /// An ACK of something new.
    Progress,
    /// Any other datagram.
    Noise,
    /// Time, the source, a repeated request.
    Other,
}

impl Transfer {
    fn new(asked: &Asked, limits: &Limits, extent: Extent, length: Option<u64>) -> Self {
        let now = Instant::now();
        let session = Session::new(asked, limits, extent, length, now);
        let first = u64::from(session.granted().is_empty());
        Self {
            session,
            limits: *limits,
            now,
            extent,
            base: first,
            next: first,
            handed: 0,
            again: 0,
            blocks: 0,
            answered: None,
            unproven: 0,
            has_refused: false,
        }
    }

    fn event(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            // The client has all that was sent.
            0..=3 => self.ack(self.next.saturating_sub(1)),
            // Some of it, something that it had, or something that was never sent.
            4 | 5 => self.ack(
                self.base
                    .saturating_add(input.number::<1>())
                    .saturating_sub(4),
            ),
            6 => self.ack(self.base.saturating_sub(1)),
            7 => self.ack(input.number::<2>()),
            8 => {
                let junk = [&[0, input.pick(&[4, 3, 6, 1, 0, 255])], input.bytes(8)].concat();
                let is_ack = junk.get(1) == Some(&4) && junk.len() >= 4;
                if is_ack {
                    self.ack(u64::from(junk[2]) << 8 | u64::from(junk[3]));
                } else {
                    self.session.handle_datagram(&junk, self.now);
                    self.take(Cause::Noise);
                }
            }
            9 => {
                let code = input.pick(&[8, 0, 3]);
                self.session
                    .handle_datagram(&[0, 5, 0, code, b'x', 0], self.now);
                self.take(Cause::Noise);
                assert!(
                    self.session.outcome().is_some(),
                    "an ERROR did not end the transfer"
                );
            }
            10 => {
                self.session.handle_repeated_request(self.now);
                self.take(Cause::Other);
            }
            11 => {
                self.extent = Extent {
                    len: if self.extent.complete {
                        self.extent.len
                    } else {
                        self.extent.len.saturating_add(len(input))
                    },
                    complete: self.extent.complete || input.byte() % 4 == 3,
                };
                self.session.handle_extent(self.extent, self.now);
                self.take(Cause::Other);
            }
            12 if input.byte() % 8 == 7 => {
                self.session.refuse(Refusal::Stopping);
                self.take(Cause::Other);
                assert!(self.has_refused, "no ERROR");
            }
            12 | 13 => {
                let deadline = self.session.deadline().unwrap_or(self.now);
                self.pass(deadline.saturating_duration_since(self.now));
            }
            _ => {
                let time = Duration::from_micros(1 << (input.byte() % 34));
                self.pass(time);
            }
        }
    }

    fn ack(&mut self, index: u64) {
        let block = Block::from_index(index);
        let in_flight = (self.base..self.next)
            .take(65536)
            .find(|index| Block::from_index(*index) == block);
        self.session.handle_datagram(&ack(block), self.now);
        if let Some(index) = in_flight {
            self.base = index + 1;
        }
        self.take(if in_flight.is_some() {
            Cause::Progress
        } else {
            Cause::Noise
        });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.take(Cause::Other);
        let later = self
            .session
            .deadline()
            .is_none_or(|deadline| deadline > self.now);
        assert!(later, "what is due was not done");
    }

    /// Takes what is to be sent, and looks at everything that can be seen of the session.
    fn take(&mut self, cause: Cause) {
        let window = u64::from(self.session.granted().windowsize);
        let blksize = u64::from(self.session.granted().blksize);
        let mut has_data = false;
        while let Some(transmit) = self.session.poll_transmit() {
            assert!(!self.has_refused, "something follows an ERROR");
            match transmit {
                Transmit::Error(_) => {
                    assert!(matches!(self.session.outcome(), Some(Outcome::Refused(_))));
                    self.has_refused = true;
                    continue;
                }
                Transmit::Oack => {
                    assert_eq!(
                        self.base, 0,
                        "an OACK that is acknowledged or was not granted"
                    );
                    self.hand(0..1);
                }
                Transmit::Data(range) => {
                    assert!(!range.is_empty() && range.start > 0, "no block");
                    assert!(range.start >= self.base, "what is acknowledged");
                    assert!(range.start <= self.next, "blocks are left out");
                    assert!(range.end <= self.base + window, "more than a window");
                    assert!(self.base > 0, "DATA before the OACK is acknowledged");
                    for index in [range.start, range.end - 1] {
                        self.check_bytes(index, blksize);
                    }
                    self.blocks += range.end - range.start;
                    self.hand(range);
                }
            }
            has_data = true;
            assert!(self.session.outcome().is_none(), "sends after its end");
            if !self.session.is_proven() {
                self.unproven += 1;
                assert_eq!(
                    self.next,
                    u64::from(self.session.granted().is_empty()) + 1,
                    "more than a datagram"
                );
                assert!(
                    self.unproven <= 4,
                    "more than four datagrams to who may be forged"
                );
            }
        }
        self.check_answers(cause, has_data);
        self.check_state();
    }

    /// Who says the same again is answered once, and again only when time has passed.
    fn check_answers(&mut self, cause: Cause, has_data: bool) {
        match cause {
            Cause::Noise if has_data => {
                assert!(
                    self.session.granted().windowsize > 1,
                    "a repeated ACK is answered in lock-step"
                );
                assert_ne!(self.answered, Some(self.now), "two windows for one report");
                self.answered = Some(self.now);
            }
            Cause::Noise => {}
            Cause::Progress | Cause::Other => self.answered = None,
        }
    }

    fn hand(&mut self, range: std::ops::Range<u64>) {
        self.handed += range.end - range.start;
        self.again += range.end.min(self.next).saturating_sub(range.start);
        self.next = self.next.max(range.end);
    }

    fn check_bytes(&self, index: u64, blksize: u64) {
        let bytes = self.session.block_bytes(index);
        assert!(bytes.end <= self.extent.len, "a byte outside the file");
        assert_eq!(
            Some(bytes.start),
            (index - 1).checked_mul(blksize),
            "another block"
        );
        let size = bytes.end - bytes.start;
        assert!(
            size <= blksize && (size == blksize || self.extent.complete),
            "a short block too early"
        );
        assert!(
            size == blksize || bytes.end == self.extent.len,
            "a short block inside"
        );
    }

    fn check_state(&self) {
        let figures = self.session.figures();
        let blksize = u64::from(self.session.granted().blksize);
        let bytes = self
            .base
            .saturating_sub(1)
            .saturating_mul(blksize)
            .min(self.extent.len);
        assert_eq!(figures.bytes, bytes, "bytes acknowledged");
        assert_eq!(figures.blocks, self.blocks, "blocks handed out");
        assert_eq!(
            figures.retransmitted, self.again,
            "packets handed out again"
        );
        let first = u64::from(self.session.granted().is_empty());
        assert_eq!(
            self.session.is_proven(),
            self.base > first,
            "proven without an answer"
        );
        let has_all = self.extent.complete && bytes == self.extent.len;
        match self.session.outcome() {
            None => {
                let waits = self.session.deadline().is_some() || !self.extent.complete;
                assert!(waits, "nothing will ever happen");
                let last = self.extent.len / blksize + 1;
                assert!(
                    !self.extent.complete || self.base <= last,
                    "all is acknowledged"
                );
            }
            Some(outcome) => {
                assert_eq!(self.session.deadline(), None, "a deadline after the end");
                assert!(
                    outcome != Outcome::Complete || has_all,
                    "complete without all bytes"
                );
                assert!(
                    outcome != Outcome::SizeProbe || self.base == 0,
                    "a size probe that read"
                );
            }
        }
    }

    /// Nobody speaks any more: it ends, after as many packets as the retries allow.
    fn end_in_silence(&mut self) {
        if !self.extent.complete {
            self.extent.complete = true;
            self.session.handle_extent(self.extent, self.now);
            self.take(Cause::Other);
        }
        let start = self.now;
        // Retries, early questions, one late answer, and the last look.
        for _ in 0..self.limits.max_retries + 8 {
            let Some(deadline) = self.session.deadline() else {
                break;
            };
            self.pass(deadline.saturating_duration_since(self.now));
        }
        assert!(self.session.outcome().is_some(), "it does not end");
        let longest =
            self.limits.timeout.max(Duration::from_secs(30)) * (self.limits.max_retries + 2);
        assert!(
            self.now - start <= longest,
            "it ends after {:?}",
            self.now - start
        );
        let before = self.handed;
        self.session.handle_repeated_request(self.now);
        self.session.handle_extent(self.extent, self.now);
        self.session
            .handle_datagram(&ack(Block::from_index(self.next)), self.now);
        self.session
            .handle_timeout(self.now + Duration::from_secs(1_000_000));
        self.session.refuse(Refusal::Internal);
        self.take(Cause::Other);
        assert_eq!(self.handed, before, "revived");
    }
}

/// The length of a file, with preference for multiples of a block.
fn len(input: &mut Input<'_>) -> u64 {
    match input.byte() % 4 {
        0 => input.number::<1>(),
        1 => u64::from(input.byte()) * input.pick(&[512, 8, 1468, 65464]),
        2 => input.number::<3>(),
        _ => input.any_size(),
    }
}
