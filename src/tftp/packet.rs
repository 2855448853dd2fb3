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

/// A request that can not be served, and what could be read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The answer.
    pub refusal: Refusal,
    /// Read (RRQ) or write (WRQ).
    pub kind: Option<Kind>,
    /// The file name as sent.
    pub name: Option<Vec<u8>>,
    /// The mode as sent.
    pub mode: Option<Vec<u8>>,
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
    /// The origin does not give the file, or not to its end. Code 0.
    NotFetched,
    /// Too many requests. Code 0.
    Busy,
    /// The server is being stopped. Code 0.
    Stopping,
    /// Any other failure of the server. Code 0.
    Internal,
}

/// Reads a request (RRQ or WRQ). Bytes behind the options are tolerated, the file name may be any
/// bytes: shim asks for back-slashes and for garbage.
///
/// # Errors
/// What could be read, and
/// - [`Refusal::Malformed`]: neither RRQ nor WRQ, or name or mode have no end.
/// - [`Refusal::Missing`]: the name is empty. That is no file, and of all codes "file not found" is
///   the one on which a boot loader stops asking (U-Boot starts again after code 4).
/// - [`Refusal::BadMode`]: the mode is neither octet nor netascii.
//= rfc1350#section-5
pub fn parse_request(datagram: &[u8]) -> Result<Request, Unreadable> {
    let mut unreadable = Unreadable {
        refusal: Refusal::Malformed,
        kind: None,
        name: None,
        mode: None,
    };
    let (kind, rest) = match datagram {
        [0, 1, rest @ ..] => (Kind::Read, rest),
        [0, 2, rest @ ..] => (Kind::Write, rest),
        _ => return Err(unreadable),
    };
    unreadable.kind = Some(kind);
    let Some((name, rest)) = string(rest) else {
        return Err(unreadable);
    };
    unreadable.name = Some(name.to_vec());
    let Some((mode, mut rest)) = string(rest) else {
        return Err(unreadable);
    };
    let refused = |refusal| Unreadable {
        refusal,
        mode: Some(mode.to_vec()),
        ..unreadable.clone()
    };
    if name.is_empty() {
        return Err(refused(Refusal::Missing));
    }
    let mode = if mode.eq_ignore_ascii_case(b"octet") {
        Mode::Octet
    } else if mode.eq_ignore_ascii_case(b"netascii") {
        Mode::Netascii
    } else {
        return Err(refused(Refusal::BadMode));
    };
    let mut asked = Asked::default();
    while let Some((option, after)) = string(rest) {
        let Some((value, after)) = string(after) else {
            break;
        };
        asked.take(option, value);
        rest = after;
    }
    Ok(Request {
        kind,
        name: name.to_vec(),
        mode,
        asked,
    })
}

impl<'d> Packet<'d> {
    /// Reads a datagram that arrived on a reply socket; `None` if it is no DATA, ACK or ERROR.
    /// An ACK may be longer than it has to be (msftwindow adds a byte); an ERROR may lack its text,
    /// the NUL behind it, even its code (read as 0): whatever it says, the transfer is over.
    //= rfc1350#section-5
    pub fn parse(datagram: &'d [u8]) -> Option<Self> {
        match datagram {
            [0, 3, high, low, payload @ ..] => Some(Self::Data(
                Block(u16::from_be_bytes([*high, *low])),
                payload,
            )),
            [0, 4, high, low, ..] => Some(Self::Ack(Block(u16::from_be_bytes([*high, *low])))),
            [0, 5, high, low, text @ ..] => {
                let text = string(text).map_or(text, |(text, _)| text);
                Some(Self::Error(u16::from_be_bytes([*high, *low]), text))
            }
            [0, 5, ..] => Some(Self::Error(0, &[])),
            _ => None,
        }
    }
}

/// The bytes before the payload of a DATA packet.
//= rfc1350#section-5
pub fn data_header(block: Block) -> [u8; 4] {
    let [high, low] = block.0.to_be_bytes();
    [0, 3, high, low]
}

/// An ACK datagram.
//= rfc1350#section-5
pub fn ack(block: Block) -> [u8; 4] {
    let [high, low] = block.0.to_be_bytes();
    [0, 4, high, low]
}

impl Refusal {
    /// The error code on the wire.
    //= rfc1350#appendix-I
    pub fn code(self) -> u16 {
        match self {
            Self::Missing => 1,
            Self::Denied | Self::ReadOnly => 2,
            Self::Malformed | Self::BadMode => 4,
            Self::TooLarge
            | Self::ReadFailed
            | Self::NotFetched
            | Self::Busy
            | Self::Stopping
            | Self::Internal => 0,
        }
    }

    /// The text on the wire: fit for the user's screen, on which GRUB and U-Boot show it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "File not found",
            Self::Denied => "Access denied",
            Self::ReadOnly => "This server does not accept files",
            Self::Malformed => "Malformed request",
            Self::BadMode => "Only octet and netascii modes are supported",
            Self::TooLarge => "File is too large for netascii mode",
            Self::ReadFailed => "File could not be read",
            Self::NotFetched => "File could not be fetched",
            Self::Busy => "Server is busy, try again",
            Self::Stopping => "Server is shutting down",
            Self::Internal => "Internal server error",
        }
    }

    /// The ERROR datagram.
    //= rfc1350#section-5
    pub fn datagram(self) -> Vec<u8> {
        let [high, low] = self.code().to_be_bytes();
        let mut datagram = vec![0, 5, high, low];
        datagram.extend_from_slice(self.text().as_bytes());
        datagram.push(0);
        datagram
    }
}

/// Splits a string off at its NUL; `None` if there is none.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    parts.next().zip(parts.next())
}

#[cfg(test)]
mod tests;
