//! The state machine behind a transfer: one that sends a file or one that takes and discards one.

use std::time::Instant;

use super::record;
use crate::tftp::packet;
use crate::tftp::receive::{Answer, Receiver};
use crate::tftp::session::{Extent, Outcome, Session, Transmit};

/// A transfer in either direction.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    /// To the client.
    Send(Session),
    /// From the client; the size it announced is for the record.
    Receive(Receiver, Option<u64>),
}

/// What is to be sent now.
#[derive(Debug)]
pub(crate) enum Step {
    /// One datagram.
    Packet(Vec<u8>),
    /// Blocks of the file.
    Blocks(std::ops::Range<u64>),
}

impl Engine {
    /// See [`Session::poll_transmit`].
    pub(crate) fn poll_transmit(&mut self) -> Option<Step> {
        Some(match self {
            Self::Send(session) => match session.poll_transmit()? {
                Transmit::Data(blocks) => Step::Blocks(blocks),
                Transmit::Oack => Step::Packet(session.oack()),
                Transmit::Error(refusal) => Step::Packet(refusal.datagram()),
            },
            Self::Receive(receiver, _) => Step::Packet(match receiver.poll_transmit()? {
                Answer::Ack(block) => packet::ack(block).to_vec(),
                Answer::Oack => receiver.oack(),
                Answer::Error(refusal) => refusal.datagram(),
            }),
        })
    }

    /// See [`Session::handle_datagram`].
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8], now: Instant) {
        match self {
            Self::Send(session) => session.handle_datagram(datagram, now),
            Self::Receive(receiver, _) => receiver.handle_datagram(datagram, now),
        }
    }

    /// See [`Session::handle_repeated_request`].
    pub(crate) fn handle_repeated_request(&mut self, now: Instant) {
        match self {
            Self::Send(session) => session.handle_repeated_request(now),
            Self::Receive(receiver, _) => receiver.handle_repeated_request(now),
        }
    }

    /// See [`Session::handle_timeout`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Send(session) => session.handle_timeout(now),
            Self::Receive(receiver, _) => receiver.handle_timeout(now),
        }
    }

    /// See [`Session::handle_extent`].
    pub(crate) fn handle_extent(&mut self, extent: Extent, now: Instant) {
        match self {
            Self::Send(session) => session.handle_extent(extent, now),
            Self::Receive(..) => (),
        }
    }

    /// See [`Session::refuse`].
    pub(crate) fn refuse(&mut self, refusal: packet::Refusal) {
        match self {
            Self::Send(session) => session.refuse(refusal),
            Self::Receive(receiver, _) => receiver.refuse(refusal),
        }
    }

    /// See [`Session::deadline`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Send(session) => session.deadline(),
            Self::Receive(receiver, _) => receiver.deadline(),
        }
    }

    /// How the transfer ended. A completed write stays until its deadline, as its final ACK may
    /// get lost (see [`Receiver`]).
    pub(crate) fn outcome(&self, now: Instant) -> Option<Outcome> {
        match self {
            Self::Send(session) => session.outcome(),
            Self::Receive(receiver, _) => {
                let over = receiver.deadline().is_none_or(|deadline| deadline <= now);
                receiver.outcome().filter(|_| over)
            }
        }
    }

    /// See [`Session::is_proven`].
    pub(crate) fn is_proven(&self) -> bool {
        match self {
            Self::Send(session) => session.is_proven(),
            Self::Receive(receiver, _) => receiver.is_proven(),
        }
    }

    /// Bytes in a block.
    pub(crate) fn blksize(&self) -> u16 {
        match self {
            Self::Send(session) => session.granted().blksize,
            Self::Receive(receiver, _) => receiver.granted().blksize,
        }
    }

    /// What goes into the record; `size` = bytes of the file to be sent.
    pub(crate) fn result(&self, size: Option<u64>) -> record::Result {
        match self {
            Self::Send(session) => record::Result {
                granted: Some(*session.granted()),
                size,
                figures: session.figures(),
            },
            Self::Receive(receiver, announced) => record::Result {
                granted: Some(*receiver.granted()),
                size: *announced,
                figures: receiver.figures(),
            },
        }
    }
}
