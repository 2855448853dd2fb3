//! Reply sockets: bound to the address that was asked, connected to who asked.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

use super::receive::Received;
use crate::sys;
use crate::wire::Endpoint;

/// Bytes that can wait in the socket: two windows of 64 blocks of 1468 bytes. The kernel doubles
/// it for its own needs and takes less where net.core.wmem_max is less.
const SEND_BUFFER: i32 = 256 * 1024;

/// Ports of `--port-range` that are tried before a request is dropped, as each costs a system
/// call and the whole range is 65 535 of them.
const MAX_TRIES: u32 = 512;

/// IP_PMTUDISC_DONT and IPV6_PMTUDISC_DONT (linux/in.h, linux/in6.h): no DF bit, so that a path
/// MTU below what we know costs fragments and not the transfer. Firmware does not retry smaller.
const NO_PATH_MTU_DISCOVERY: i32 = 0;

/// A socket that reaches one peer, and what the worker is told of it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) socket: UdpSocket,
    pub(super) local: Endpoint,
    /// Bytes; 0 = unknown.
    pub(super) mtu: u32,
}

/// Makes a socket that answers `request`, from a port of `ports` or any free one.
///
/// # Errors
/// As socket(2), bind(2), connect(2). EADDRNOTAVAIL: the address was taken from this machine since
/// (VRRP); the client will ask the machine that has it now. EADDRINUSE: no port is free.
pub(super) fn connect(request: &Received<'_>, ports: Option<&PortRange>) -> io::Result<Reply> {
    let (is_ipv4, local) = (request.peer.is_ipv4(), bind_address(request));
    let family = if is_ipv4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    match ports {
        None => bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?,
        Some(ports) => bind_in_range(socket.as_fd(), local, ports)?,
    }
    let (level, discovery) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    sys::set_option(socket.as_fd(), level, discovery, NO_PATH_MTU_DISCOVERY)?;
    sys::set_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_SNDBUF,
        SEND_BUFFER,
    )?;
    let socket = UdpSocket::from(socket);
    socket.connect(request.peer)?;
    let mtu = mtu(socket.as_fd(), request.peer);
    let local = Endpoint::from(socket.local_addr()?);
    Ok(Reply { socket, local, mtu })
}

/// Bytes of the largest packet that the route to `peer` takes, to which `socket` is connected; 0 =
/// unknown.
pub(super) fn mtu(socket: BorrowedFd<'_>, peer: SocketAddr) -> u32 {
    let (level, name) = if peer.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    let mtu = sys::option(socket, level, name);
    mtu.ok().and_then(|mtu| mtu.try_into().ok()).unwrap_or(0)
}

/// The address that was asked, with port 0; the wildcard if it is not known.
fn bind_address(request: &Received<'_>) -> SocketAddr {
    match (request.peer, request.local) {
        (SocketAddr::V4(_), Some(IpAddr::V4(local))) => (local, 0).into(),
        (SocketAddr::V6(_), Some(IpAddr::V6(local))) if !local.is_unicast_link_local() => {
            (local, 0).into()
        }
        (SocketAddr::V6(peer), Some(IpAddr::V6(local))) => {
            // A link-local address means nothing without its interface; the kernel tells that with
            // the peer's address even when packet info was asked for too late.
            match [request.interface, peer.scope_id()]
                .into_iter()
                .find(|scope| *scope != 0)
            {
                Some(scope) => SocketAddrV6::new(local, 0, 0, scope).into(),
                None => (Ipv6Addr::UNSPECIFIED, 0).into(),
            }
        }
        (SocketAddr::V4(_), _) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (SocketAddr::V6(_), _) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// `--port-range`, in an order that cannot be guessed: a forger must not know the next port.
#[derive(Debug)]
pub(super) struct PortRange {
    first: u16,
    /// 1 or more.
    count: u32,
}

impl PortRange {
    /// The ports from `first` to `last`.
    pub(super) fn new((first, last): (u16, u16)) -> Self {
        Self {
            first,
            count: u32::from(last.saturating_sub(first)) + 1,
        }
    }

    /// All ports, from a random one on; at most 512.
    fn shuffled(&self) -> impl Iterator<Item = u16> {
        // Every RandomState has keys of its own, without a system call.
        let random = RandomState::new().hash_one(());
        let (first, count) = (u64::from(self.first), u64::from(self.count));
        (0..u64::from(self.count.min(MAX_TRIES)))
            .map(move |step| first + (random % count + step) % count)
            .filter_map(|port| port.try_into().ok())
    }
}

fn bind_in_range(
    socket: BorrowedFd<'_>,
    mut local: SocketAddr,
    ports: &PortRange,
) -> io::Result<()> {
    for port in ports.shuffled() {
        local.set_port(port);
        match bind(socket.as_raw_fd(), &SockaddrStorage::from(local)) {
            Err(Errno::EADDRINUSE) => (),
            result => return Ok(result?),
        }
    }
    Err(Errno::EADDRINUSE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(peer: &str, local: Option<&str>, interface: u32) -> String {
        let local = local.map(|local| local.parse().unwrap());
        let peer = peer.parse().unwrap();
        bind_address(&Received {
            peer,
            local,
            interface,
            datagram: &[],
        })
        .to_string()
    }

    #[test]
    fn a_reply_socket_is_bound_to_the_address_that_was_asked() {
        assert_eq!(bound("192.0.2.9:1", Some("192.0.2.1"), 2), "192.0.2.1:0");
        assert_eq!(
            bound("[2001:db8::9]:1", Some("2001:db8::1"), 2),
            "[2001:db8::1]:0"
        );
    }

    #[test]
    fn an_address_that_is_not_known_leaves_the_choice_to_the_kernel() {
        assert_eq!(bound("192.0.2.9:1", None, 0), "0.0.0.0:0");
        assert_eq!(bound("[2001:db8::9]:1", None, 0), "[::]:0");
        assert_eq!(bound("[fe80::9%3]:1", None, 0), "[::]:0");
    }

    #[test]
    fn a_link_local_address_comes_with_its_interface() {
        assert_eq!(bound("[fe80::9%3]:1", Some("fe80::1"), 3), "[fe80::1%3]:0");
        assert_eq!(
            bound("[2001:db8::9]:1", Some("fe80::1"), 3),
            "[fe80::1%3]:0"
        );
        assert_eq!(bound("[fe80::9%3]:1", Some("fe80::1"), 0), "[fe80::1%3]:0");
        assert_eq!(bound("[2001:db8::9]:1", Some("fe80::1"), 0), "[::]:0");
    }
}
