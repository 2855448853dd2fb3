//! The messages between broker and worker, and their encoding.
//!
//! A message is one bincode value. A SEQPACKET datagram of at most [`MAX_MESSAGE`] bytes is one of
//! them, or several between broker and worker ([`crate::inbox`]); every byte of it must belong to a
//! value. bincode is used here and nowhere else.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub use bincode::{Decode, Encode};

use crate::fetch::{Failure, Head, Validators};

/// The most bytes a message between broker and worker can have.
pub const MAX_MESSAGE: usize = 4096;

/// The most bytes a request datagram can have. RFC 2347 stops at 512; firmware with many options
/// and long names passes that, so there is room for four times as much.
pub const MAX_REQUEST: usize = 2048;

/// The most bytes a path in [`ToBroker::Open`] can have: no longer than the request that named it.
pub const MAX_PATH: usize = MAX_REQUEST;

/// First message on every channel, in both directions: ends two processes of different builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    protocol: u64,
    build: u64,
}

impl Hello {
    /// What this build says.
    pub const OURS: Self = Self {
        protocol: PROTOCOL,
        build: BUILD,
    };

    /// Whether the other side was built from the same sources.
    #[must_use]
    pub fn is_ours(self) -> bool {
        self == Self::OURS
    }
}

/// What the broker tells the worker.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToWorker {
    /// Always first.
    Hello(Hello),
    /// A request that passed the broker's limits. Comes with one descriptor, unless it is
    /// one the worker has kept ([`SocketUse`]): the reply socket, connected to the peer, non-blocking.
    Request(Request),
    /// A reply socket that was kept is not needed any more.
    Close {
        /// The number it was kept under.
        number: u16,
    },
    /// Answers [`ToBroker::Open`]. Comes with one descriptor: a regular file open for reading.
    File {
        /// The request that asked.
        id: u64,
        /// Length in bytes when it was opened.
        size: u64,
        /// On tmpfs or ramfs: reads never wait for a disk.
        in_memory: bool,
    },
    /// Answers [`ToBroker::Open`]: there is no such file.
    Missing {
        /// The request that asked.
        id: u64,
    },
    /// Answers [`ToBroker::Open`] or [`ToBroker::Scratch`]: not granted.
    Denied {
        /// The request that asked.
        id: u64,
        /// Why; for the log, never for the client.
        reason: Denial,
    },
    /// Answers [`ToBroker::Scratch`]. Comes with one descriptor: an empty memory file, writable,
    /// of the size asked.
    Scratch {
        /// The request that asked.
        id: u64,
    },
    /// Answers [`ToBroker::Open`]: the name leads to an origin.
    Link {
        /// The request that asked.
        id: u64,
        /// What the worker may know of it.
        link: LinkInfo,
    },
    /// Answers [`ToBroker::Fetch`]: the fetcher has the job. Comes with one descriptor: the file
    /// that the body goes to, for reading.
    Fetching {
        /// The request that asked.
        id: u64,
        /// Names the job in all further messages; never used twice in a generation.
        job: u64,
        /// A memory file, or one on tmpfs or ramfs: reads never wait for a disk.
        in_memory: bool,
    },
    /// Answers [`ToBroker::Fetch`]: there is no fetcher, or no file for it.
    NotFetched {
        /// The request that asked.
        id: u64,
        /// Why.
        failure: Failure,
    },
    /// The origin has answered.
    Head(Head),
    /// This much of the body is in the file.
    Extent {
        /// The job.
        job: u64,
        /// Bytes from the start of the file; never less than before.
        len: u64,
    },
    /// The whole body is in the file.
    End {
        /// The job.
        job: u64,
        /// Length of the body in bytes.
        len: u64,
    },
    /// The job has ended without the whole body; also when the fetcher has died.
    Failed {
        /// The job.
        job: u64,
        /// Why.
        failure: Failure,
        /// Why, for the log alone; at most [`crate::fetch::MAX_DETAIL`] bytes.
        detail: String,
    },
}

/// What the worker may know of a link: enough for the cache and the log, no credentials.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LinkInfo {
    /// Hash of the full URL, of its modifiers and of what was asked below it; keyed anew in each
    /// generation.
    pub key: [u64; 2],
    /// The URL without credentials and what was asked below it, for logs; at most
    /// [`MAX_DISPLAY`] bytes.
    pub display: String,
    /// Whether answers may be kept and shared: false with `+nocache`.
    pub cache: bool,
    /// Whether the origin is asked for the plain form only: true with `+nocompress`.
    pub identity: bool,
}

/// The most bytes of [`LinkInfo::display`]; what is longer is cut.
pub const MAX_DISPLAY: usize = 1024;

/// What the worker asks of the broker: the broker's whole interface.
///
/// Anything not listed, an id that is not outstanding, a second `Open` of one id, a descriptor, or
/// a message that does not decode ends the worker and with it the generation.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum ToBroker {
    /// Always first.
    Hello(Hello),
    /// Open a file below the root for reading. Once per request. Allowed because answering a
    /// client needs it; harmless because the path is resolved beneath the root, to a regular
    /// file, read-only, and the client could have asked for it as well.
    Open {
        /// An outstanding request.
        id: u64,
        /// The name as the client sent it; at most [`MAX_PATH`] bytes.
        path: Vec<u8>,
    },
    /// A memory file for the netascii form of a file. Once per request, after a granted `Open`.
    /// Bounded by [`MAX_SCRATCH`] each and by the broker in all.
    Scratch {
        /// An outstanding request.
        id: u64,
        /// Bytes wanted, at most [`MAX_SCRATCH`].
        size: u64,
    },
    /// The peer has answered on the reply socket: it is no forged sender. Once per request. Gives
    /// back its share of the budget for unproven clients.
    Proven {
        /// An outstanding request.
        id: u64,
    },
    /// Fetch what the name of the request leads to. Once per request, after a [`ToWorker::Link`].
    /// Harmless because the broker kept the URL: the worker names nothing but its request.
    Fetch {
        /// An outstanding request.
        id: u64,
        /// Ask only for what differs from these.
        validators: Validators,
        /// The request's mode, for the `X-TFTP-Mode` header: netascii, otherwise octet.
        netascii: bool,
    },
    /// Nobody wants this job any more; nothing happens if it has just ended. The broker says
    /// nothing more of it; what is under way can still arrive.
    Cancel {
        /// The job.
        job: u64,
    },
    /// The request has ended; its id is free and its places in the limits are returned. A job that
    /// was fetched for it goes on.
    Done {
        /// An outstanding request.
        id: u64,
        /// Whether the peer ever answered on the reply socket.
        proven: bool,
        /// Whether the worker has kept the reply socket for another request; only one that has a
        /// number ([`SocketUse`]).
        kept: bool,
    },
}

/// The most bytes of a scratch file: the largest netascii form that is served.
pub const MAX_SCRATCH: u64 = 64 * 1024 * 1024;

/// The most reply sockets that are kept at once; their numbers are below it.
pub const MAX_KEPT: u16 = 512;

/// A request datagram and what the broker knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Names the request in all further messages; never used twice in a generation.
    pub id: u64,
    /// Who asked.
    pub peer: Endpoint,
    /// Which socket answers it.
    pub socket: SocketUse,
    /// The address and port of the reply socket.
    pub local: Endpoint,
    /// MTU in bytes of the route to the peer, as far as known; 0 = unknown.
    pub mtu: u32,
    /// An earlier request, not known to be proven, that has to end to make room for this one. It
    /// may have been proven or have ended meanwhile; then there is nothing to do.
    pub replaces: Option<u64>,
    /// The datagram, unread but for the first two bytes; at most [`MAX_REQUEST`] bytes.
    pub datagram: Vec<u8>,
}

/// How a reply socket is used. To make one costs much of what a short transfer costs, so some serve
/// one request after another: the broker keeps a descriptor of its own, takes peer and port from
/// the socket once the worker has said [`ToBroker::Done`], and connects it to the next peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum SocketUse {
    /// It is new, and for this request alone.
    Once,
    /// It is new, and the worker may keep it under this number, in place of any other.
    First(u16),
    /// It is the one that was kept under this number: there is no descriptor.
    Again(u16),
}

impl SocketUse {
    /// Whether the request comes with a descriptor.
    #[must_use]
    pub fn has_descriptor(self) -> bool {
        !matches!(self, Self::Again(_))
    }

    /// The number that the socket can be kept under.
    #[must_use]
    pub fn number(self) -> Option<u16> {
        match self {
            Self::Once => None,
            Self::First(number) | Self::Again(number) => Some(number),
        }
    }
}

/// A socket address whose link-local scope survives the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Endpoint {
    /// Never a v4-mapped address.
    pub ip: IpAddr,
    /// UDP port.
    pub port: u16,
    /// IPv6 scope id, 0 for none.
    pub scope: u32,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(v6) => v6.scope_id(),
        };
        let ip = address.ip().to_canonical();
        Self {
            ip,
            port: address.port(),
            scope: if ip.is_ipv4() { 0 } else { scope },
        }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint.ip {
            IpAddr::V4(ip) => (ip, endpoint.port).into(),
            IpAddr::V6(ip) => v6(ip, endpoint.port, endpoint.scope).into(),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

/// Why the broker did not grant a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Denial {
    /// `..`, or a symlink, or an absolute symlink leads out of the root.
    OutsideRoot,
    /// A directory, device, FIFO or socket.
    NotRegular,
    /// File permissions, or SELinux.
    Permission,
    /// Symlinks in a circle, or too many of them.
    Loop,
    /// A path or component is too long, or has a NUL byte.
    BadPath,
    /// A dangling symlink names a URL that is not fetched: the proxy is off, or the scheme, a
    /// modifier, the port or the URL is not one it may ask.
    Proxy,
    /// A limit of the broker or the system: descriptors, memory, scratch space.
    Resources,
    /// Any other error of the system.
    System,
}

/// What is wrong with a message; always fatal to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Longer than [`MAX_MESSAGE`] bytes.
    TooLong,
    /// Not a value of the type expected.
    Malformed,
    /// Bytes after the value.
    Trailing,
    /// More or fewer descriptors than belong to it.
    Descriptors,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooLong => "message too long",
            Self::Malformed => "malformed message",
            Self::Trailing => "bytes after the message",
            Self::Descriptors => "wrong number of descriptors",
        })
    }
}

impl std::error::Error for Error {}

/// Encodes `message` into `buffer` and returns the bytes used.
///
/// # Errors
/// [`Error::TooLong`] if it does not fit.
pub fn encode<'b, M: Encode>(message: &M, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
    let used = bincode::encode_into_slice(message, buffer, bincode::config::standard())
        .map_err(|_| Error::TooLong)?;
    buffer.get(..used).ok_or(Error::TooLong)
}

/// Decodes a whole datagram.
///
/// No allocation exceeds `LIMIT` bytes, whatever the datagram claims.
///
/// # Errors
/// Anything but exactly one value.
pub fn decode<M: Decode<()>, const LIMIT: usize>(datagram: &[u8]) -> Result<M, Error> {
    match decode_first::<M, LIMIT>(datagram)? {
        (message, []) => Ok(message),
        _ => Err(Error::Trailing),
    }
}

/// Decodes a datagram of several messages, with the same limit for all of it. Nothing follows an
/// error.
pub fn messages<M: Decode<()>, const LIMIT: usize>(
    mut datagram: &[u8],
) -> impl Iterator<Item = Result<M, Error>> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let first = decode_first::<M, LIMIT>(datagram).map(|(message, rest)| {
            datagram = rest;
            message
        });
        is_over = first.is_err() || datagram.is_empty();
        Some(first)
    })
}

/// The first message of a datagram, and what follows it.
fn decode_first<M: Decode<()>, const LIMIT: usize>(datagram: &[u8]) -> Result<(M, &[u8]), Error> {
    if datagram.len() > LIMIT {
        return Err(Error::TooLong);
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (message, used) =
        bincode::decode_from_slice(datagram, config).map_err(|_| Error::Malformed)?;
    let rest = datagram.get(used..).ok_or(Error::Malformed)?;
    Ok((message, rest))
}

/// An IPv6 socket address without flow information.
fn v6(ip: Ipv6Addr, port: u16, scope: u32) -> SocketAddrV6 {
    SocketAddrV6::new(ip, port, 0, scope)
}

/// Raised by hand when the meaning of a message changes and its form does not.
const PROTOCOL: u64 = 3;

/// Names the sources that define the protocol: equal in two binaries only when they were built
/// from the same version of these files.
const BUILD: u64 = {
    let hash = fnv1a(0xcbf2_9ce4_8422_2325, env!("CARGO_PKG_VERSION").as_bytes());
    let hash = fnv1a(hash, include_bytes!("wire.rs"));
    let hash = fnv1a(hash, include_bytes!("fetch.rs"));
    let hash = fnv1a(hash, include_bytes!("settings.rs"));
    fnv1a(hash, include_bytes!("control.rs"))
};

/// The FNV-1a hash of `bytes`, continued from `hash`.
#[allow(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, the index is bounded"
)]
const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x100_0000_01b3);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests;
