//! What a transfer is told and what it amounts to, whichever way the file goes.

use std::time::Duration;

use super::packet::Refusal;

/// What the operator allows, and what is known of the path to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time before a resend where the client asked for none; what is above an hour is an hour.
    pub timeout: Duration,
    /// Resends in a row without progress before the transfer ends.
    pub max_retries: u32,
    /// Largest blksize granted, in bytes, 8 to 65464.
    pub max_blksize: u16,
    /// Largest windowsize granted, in blocks, 1 to 65535.
    pub max_windowsize: u16,
    /// Options are granted at all; if not, no request is answered with an OACK.
    pub options: bool,
    /// Bytes of the largest IP packet of the path, headers included; 0 = not known.
    pub mtu: u32,
    /// The packets are IPv6, whose headers are longer.
    pub ipv6: bool,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has the whole file.
    Complete,
    /// The client only wanted to know the size, and knows it.
    SizeProbe,
    /// The client sent an ERROR.
    Aborted {
        /// Its error code.
        code: u16,
    },
    /// The client was silent for too long.
    TimedOut,
    /// We sent an ERROR.
    Refused(Refusal),
}

/// What a transfer amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes of the file that are acknowledged.
    pub bytes: u64,
    /// DATA packets handed out, with repeats.
    pub blocks: u64,
    /// Packets (DATA, OACK) handed out again.
    pub retransmitted: u64,
    /// Times the client was silent for a timeout.
    pub timeouts: u64,
    /// Datagrams that changed nothing: junk, stale and future ACKs, gap reports already answered.
    pub ignored: u64,
}
