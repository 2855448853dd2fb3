//! Block numbers: 16 bits on the wire, absolute inside; only this module knows about rollover.

/// A block number on the wire. Block 0 is the OACK; after 65535 follows 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub u16);
