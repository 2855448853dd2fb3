//! Datagrams to packets and back (RFC 1350 section 5).

use super::block::Block;
use super::options::Asked;

/// A request to read or to write a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Read (RRQ) or write (WRQ).
    pub kind: Kind,
    /// The file name as sent: any bytes but NUL.
    pub name: Vec<u8>,
    /// How the file is to be translated.
    pub mode: Mode,
    /// The options that could be understood (RFC 2347); all others are left out.
    pub asked: Asked,
}

/// Which way the file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the client.
    Read,
    /// From the client.
    Write,
}

/// How the file is to be translated (RFC 1350 section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it is.
    Octet,
    /// Line ends as CR LF, a bare CR as CR NUL.
    Netascii,
}

/// A packet of a transfer: what can arrive on a reply socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'d> {
    /// A piece of a file; empty or short at the end.
    Data(Block, &'d [u8]),
    /// Acknowledges everything up to this block. Bytes behind it are tolerated (msftwindow).
    Ack(Block),
    /// Ends the transfer. The text is whatever the client sent, at most up to the NUL.
    Error(u16, &'d [u8]),
}

/// Why a request is answered with an ERROR. The text is fixed: no path, no URL, no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No such file. Code 1.
    Missing,
    /// The file may not be read. Code 2.
    Denied,
    /// Writing is not offered. Code 2.
    ReadOnly,
    /// The request can not be read. Code 4.
    Malformed,
    /// The mode is neither octet nor netascii. Code 4.
    BadMode,
    /// The netascii form is too large. Code 0.
    TooLarge,
    /// The file can not be read to its end. Code 0.
    ReadFailed,
    /// Too many requests. Code 0.
    Busy,
    /// The server is being stopped. Code 0.
    Stopping,
    /// Any other failure of the server. Code 0.
    Internal,
}
