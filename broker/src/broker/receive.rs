//! Requests from the listeners, unread but for their first two bytes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::{BATCH, Slot, receive_batch};

/// Receives in batches and hands out one request at a time.
pub(super) struct Receiver {
    slots: Box<[Slot]>,
    /// The filled slots that were not handed out yet.
    waiting: std::ops::Range<usize>,
    /// By listener: datagrams that the kernel had to drop so far.
    lost: Vec<u32>,
}

/// What one receive has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) datagrams: usize,
    /// The listener had no more.
    pub(super) is_all: bool,
    /// The kernel has dropped some since the last receive: there was no room for them.
    pub(super) has_lost: bool,
}

/// A datagram that begins as a read or write request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received<'b> {
    /// The sender; never v4-mapped.
    pub(super) peer: SocketAddr,
    /// The address that was asked; none if the kernel did not say.
    pub(super) local: Option<IpAddr>,
    /// The interface it came in by; 0 if the kernel did not say.
    pub(super) interface: u32,
    /// All of it.
    pub(super) datagram: &'b [u8],
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Junk {
    /// Longer than any request.
    TooLong,
    /// Neither RRQ nor WRQ.
    NoRequest,
    /// The sender can not be answered: port 0, or no address of a host.
    NoSender,
    /// Sent to many hosts: answering would tell forged senders of all of them.
    Broadcast,
}

impl fmt::Display for Junk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "longer than any request",
            Self::NoRequest => "neither RRQ nor WRQ",
            Self::NoSender => "its sender can not be answered",
            Self::Broadcast => "sent to many hosts",
        })
    }
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..BATCH).map(|_| Slot::EMPTY).collect(),
            waiting: 0..0,
            lost: Vec::new(),
        }
    }

    /// Reads what a listener, the `at`th, has, at most 16 datagrams; without waiting. What was
    /// received before must have been handed out.
    ///
    /// # Errors
    /// As recvmmsg(2). None is a reason to stop: errors of single datagrams are reported here too.
    pub(super) fn fill(&mut self, listener: &OwnedFd, at: usize) -> io::Result<Batch> {
        self.waiting = 0..0;
        let datagrams = receive_batch(listener.as_fd(), &mut self.slots)?;
        self.waiting = 0..datagrams;
        let last = datagrams.checked_sub(1);
        let lost = last.and_then(|last| Some(lost(self.slots.get(last)?.control())));
        Ok(Batch {
            datagrams,
            is_all: datagrams < BATCH,
            has_lost: lost.is_some_and(|lost| self.has_lost(at, lost)),
        })
    }

    /// Whether the `at`th listener's count has changed. The first one tells nothing new: it goes on
    /// where that of an earlier generation has ended.
    fn has_lost(&mut self, at: usize, lost: u32) -> bool {
        if self.lost.len() <= at {
            self.lost.resize(at + 1, lost);
        }
        let known = self.lost.get_mut(at);
        known.is_some_and(|known| std::mem::replace(known, lost) != lost)
    }

    /// The next datagram that was received; of one that is dropped also the sender, if it has one.
    pub(super) fn next(&mut self) -> Option<Result<Received<'_>, (Option<IpAddr>, Junk)>> {
        let slot = self.slots.get(self.waiting.next()?)?;
        let vetted = vet(slot.datagram(), slot.name(), slot.control());
        Some(vetted.map_err(|junk| (address(slot.name()).map(|peer| peer.ip()), junk)))
    }
}

/// What can be answered of a datagram.
fn vet<'b>(datagram: Option<&'b [u8]>, name: &[u8], control: &[u8]) -> Result<Received<'b>, Junk> {
    let datagram = datagram.ok_or(Junk::TooLong)?;
    // The opcodes of RRQ and WRQ: all that this process reads of a datagram.
    //= rfc1350#section-5
    let ([0, 1, ..] | [0, 2, ..]) = datagram else {
        return Err(Junk::NoRequest);
    };
    let peer = address(name).filter(is_host).ok_or(Junk::NoSender)?;
    let info = packet_info(control, peer.is_ipv4());
    if info.is_some_and(|info| info.to_many) {
        return Err(Junk::Broadcast);
    }
    let local = info
        .map(|info| info.local)
        .filter(|local| !local.is_unspecified());
    let interface = info.map_or(0, |info| info.interface);
    Ok(Received {
        peer,
        local,
        interface,
        datagram,
    })
}

/// Reads a `sockaddr_in` or `sockaddr_in6`. ip(7), ipv6(7)
fn address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(array(name, 0)?);
    let port = u16::from_be_bytes(array(name, 2)?);
    match i32::from(family) {
        libc::AF_INET => Some((Ipv4Addr::from(array::<4>(name, 4)?), port).into()),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(array::<16>(name, 8)?);
            let scope = u32::from_ne_bytes(array(name, 24)?);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => (ip, port).into(),
                None => SocketAddrV6::new(ip, port, 0, scope).into(),
            })
        }
        _ => None,
    }
}

fn is_host(peer: &SocketAddr) -> bool {
    let ip = peer.ip();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    peer.port() != 0 && !(ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}

/// What the kernel says of a datagram's destination.
#[derive(Clone, Copy)]
struct PacketInfo {
    local: IpAddr,
    interface: u32,
    /// Broadcast or multicast.
    to_many: bool,
}

/// Looks for the packet info of the peer's address family: listeners for both families get both
/// kinds for IPv4 datagrams, and only the one of IPv4 tells broadcasts.
fn packet_info(control: &[u8], is_ipv4: bool) -> Option<PacketInfo> {
    if is_ipv4 {
        info_v4(find(control, libc::IPPROTO_IP, libc::IP_PKTINFO)?)
    } else {
        info_v6(find(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?)
    }
}

/// Datagrams that the kernel had dropped, as there was no room for them, when this one came: a
/// number that only grows. socket(7)
fn lost(control: &[u8]) -> u32 {
    find(control, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)
        .and_then(|data| array(data, 0))
        .map_or(0, u32::from_ne_bytes)
}

/// The data of a control message.
fn find(mut control: &[u8], level: i32, kind: i32) -> Option<&[u8]> {
    // struct cmsghdr: size_t length of header and data, int level, int type. Then the data, and
    // padding to a multiple of size_t. cmsg(3)
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = WORD + 8;
    loop {
        let length = usize::from_ne_bytes(array(control, 0)?);
        let found = (
            i32::from_ne_bytes(array(control, WORD)?),
            i32::from_ne_bytes(array(control, WORD + 4)?),
        );
        let data = control.get(HEADER..length)?;
        if found == (level, kind) {
            return Some(data);
        }
        control = control.get(length.checked_next_multiple_of(WORD)?..)?;
    }
}

/// struct in_pktinfo: int interface, address of ours to answer from, address in the header. ip(7)
fn info_v4(data: &[u8]) -> Option<PacketInfo> {
    let interface = u32::from_ne_bytes(array(data, 0)?);
    let local = Ipv4Addr::from(array::<4>(data, 4)?);
    let asked = Ipv4Addr::from(array::<4>(data, 8)?);
    // Zero = queued before the supervisor asked for packet info; only the header is known then.
    let is_not_ours = local != asked && !local.is_unspecified();
    let to_many = is_not_ours || asked.is_multicast() || asked.is_broadcast();
    Some(PacketInfo {
        local: local.into(),
        interface,
        to_many,
    })
}

/// struct in6_pktinfo: address in the header, unsigned int interface. ipv6(7)
fn info_v6(data: &[u8]) -> Option<PacketInfo> {
    let local = Ipv6Addr::from(array::<16>(data, 0)?);
    let interface = u32::from_ne_bytes(array(data, 16)?);
    Some(PacketInfo {
        local: local.into(),
        interface,
        to_many: local.is_multicast(),
    })
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}
