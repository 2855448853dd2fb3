//! One transfer from a client, whose data is discarded.

use std::time::Instant;

use super::block::Block;
use super::options::{Asked, Granted};
use super::packet::{Packet, Refusal};
use super::timer::Timer;
use super::transfer::{Figures, Limits, Outcome};

/// What is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The OACK: [`Receiver::oack`].
    Oack,
    /// The ACK of this block.
    Ack(Block),
    /// An ERROR, after which nothing follows.
    Error(Refusal),
}

/// The pure state machine of one transfer from a client (WRQ), which keeps nothing but the count.
///
/// Call order as for [`super::session::Session`], but for the end: when [`Receiver::outcome`] says
/// [`Outcome::Complete`] the final ACK may still get lost, so the driver keeps the transfer
/// until [`Receiver::deadline`] has passed (one timeout later) or is `None`, and a repeated last
/// block is acknowledged again. After every other outcome there is no deadline.
#[derive(Clone, Debug)]
pub struct Receiver {
    granted: Granted,
    /// The block that is to come.
    next: u64,
    /// The block that was acknowledged last; 0 = the request.
    acknowledged: u64,
    timer: Timer,
    bytes: u64,
    blocks: u64,
    retransmitted: u64,
    timeouts: u32,
    ignored: u32,
    /// Distance of the last unexpected block from `next`; a smaller one starts another round.
    unexpected: Option<u16>,
    pending: bool,
    outcome: Option<Outcome>,
    refusing: bool,
}

impl Receiver {
    /// A transfer whose first answer is ready to be polled; `now` is when the request was seen.
    //= rfc1350#section-4
    pub fn new(asked: &Asked, limits: &Limits, now: Instant) -> Self {
        //= rfc2349#transfer-size-option-specification
        let granted = Granted::negotiate(asked, limits, asked.tsize);
        let mut timer = Timer::new(limits, granted.timeout, now);
        timer.start(now);
        Self {
            granted,
            next: 1,
            acknowledged: 0,
            timer,
            bytes: 0,
            blocks: 0,
            retransmitted: 0,
            timeouts: 0,
            ignored: 0,
            unexpected: None,
            pending: true,
            outcome: None,
            refusing: false,
        }
    }

    /// Takes a datagram of the client: DATA in order is counted, DATA out of order is answered with
    /// the ACK of the last block in order, an ERROR ends the transfer, anything else is counted.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        match (Packet::parse(datagram), self.outcome) {
            (Some(Packet::Data(block, payload)), None | Some(Outcome::Complete)) => {
                self.handle_data(block, payload, now);
            }
            (Some(Packet::Error(code, _)), None) => self.end(Outcome::Aborted { code }),
            _ => self.ignore(),
        }
    }

    /// The client sent the same request again: while it is unproven it is answered again, which
    /// counts as a resend. Cisco asks again after 4 s.
    pub fn handle_repeated_request(&mut self, now: Instant) {
        if self.outcome.is_none() && !self.is_proven() && self.timer.spend_retry() {
            self.timer.restart(now);
            self.repeat();
        }
    }

    /// The time is `now`: acknowledges again what was acknowledged last, or gives up. No effect
    /// before [`Receiver::deadline`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timer.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        if self.outcome.is_some() {
            return self.timer.stop();
        }
        self.timeouts = self.timeouts.saturating_add(1);
        if self.timer.is_silent(now) || !self.timer.spend_retry() {
            return self.end(Outcome::TimedOut);
        }
        self.timer.restart(now);
        self.acknowledged = self.next - 1;
        self.repeat();
    }

    /// Ends the transfer with an ERROR (the server stops).
    pub fn refuse(&mut self, refusal: Refusal) {
        if self.outcome.is_none() {
            self.end(Outcome::Refused(refusal));
            self.refusing = true;
        }
    }

    /// The next thing to send; `None` = nothing now.
    pub fn poll_transmit(&mut self) -> Option<Answer> {
        if let Some(Outcome::Refused(refusal)) = self.outcome {
            return std::mem::take(&mut self.refusing).then_some(Answer::Error(refusal));
        }
        if !std::mem::take(&mut self.pending) {
            return None;
        }
        // A client that sends blocks has seen the OACK and understands an ACK of block 0.
        if !self.granted.is_empty() && self.acknowledged == 0 && self.unexpected.is_none() {
            return Some(Answer::Oack);
        }
        Some(Answer::Ack(Block::from_index(self.acknowledged)))
    }

    /// When [`Receiver::handle_timeout`] is to be called; after [`Outcome::Complete`] when the
    /// transfer can be forgotten.
    pub fn deadline(&self) -> Option<Instant> {
        self.timer.deadline()
    }

    /// How the transfer ended; `None` = it goes on.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The client has sent a block, so it is no forged address.
    pub fn is_proven(&self) -> bool {
        self.next > 1
    }

    /// What was negotiated.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// The counts so far: bytes and blocks received in order, ACKs sent again.
    pub fn figures(&self) -> Figures {
        Figures {
            bytes: self.bytes,
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

    //= rfc7440#section-4
    fn handle_data(&mut self, block: Block, payload: &[u8], now: Instant) {
        let blksize = usize::from(self.granted.blksize);
        let expected = Block::from_index(self.next);
        if payload.len() > blksize {
            return self.ignore();
        }
        if block != expected || self.outcome.is_some() {
            return self.handle_unexpected(block);
        }
        self.bytes += payload.len() as u64;
        self.blocks += 1;
        self.next += 1;
        self.unexpected = None;
        self.timer.prove();
        self.timer.start(now);
        if payload.len() < blksize {
            self.acknowledge();
            self.end(Outcome::Complete);
            self.timer.start(now);
        } else if self.next - 1 - self.acknowledged >= u64::from(self.granted.windowsize) {
            self.acknowledge();
        }
    }

    /// Something is missing, or came twice: the ACK of the last block in order says so. Once per
    /// round of blocks: of those that follow one another only the first is answered.
    fn handle_unexpected(&mut self, block: Block) {
        self.ignore();
        let distance = block.0.wrapping_sub(Block::from_index(self.next).0);
        if self.unexpected.is_none_or(|last| distance <= last) {
            self.acknowledged = self.next - 1;
            self.repeat();
        }
        self.unexpected = Some(distance);
    }

    fn acknowledge(&mut self) {
        self.acknowledged = self.next - 1;
        self.pending = true;
    }

    fn repeat(&mut self) {
        self.retransmitted += 1;
        self.pending = true;
    }

    fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.timer.stop();
    }

    fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
