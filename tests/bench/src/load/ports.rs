//! The ports of a client, which take turns.
//!
//! To open one for each transfer takes a third of a client's time when files are small. Where server
//! and clients share a core, as in the scenarios on both, that time would be the server's.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, UdpGroSegment};
use nix::sys::socket::{MsgFlags, recv, setsockopt};

use crate::options::Options;

/// Ports of each client: a transfer has another one than the three before it.
const PORTS: usize = 4;

/// For windows, so that nothing is lost by a client which is one of many in this program.
const RECEIVE_BUFFER: usize = 2 << 20;

/// The ports of one client.
pub struct Ports {
    address: Ipv4Addr,
    /// The client's place.
    slot: usize,
    /// Open ones that no transfer uses.
    idle: [Option<Rc<UdpSocket>>; PORTS],
    /// Which one the transfer has.
    turn: usize,
}

impl Ports {
    /// Of the client at place `slot`, which has an address of its own if `options` do not say
    /// otherwise. None is open yet.
    pub fn new(options: &Options, slot: usize) -> Self {
        Self {
            address: options.from.unwrap_or_else(|| address(slot)),
            slot,
            idle: [const { None }; PORTS],
            turn: 0,
        }
    }

    /// A port for the next transfer. Events of it have a number, see [`place_of`].
    pub fn take(&mut self, options: &Options, epoll: &Epoll) -> Rc<UdpSocket> {
        self.turn = (self.turn + 1) % PORTS;
        self.drain(self.turn);
        let kept = self.idle[self.turn].take();
        kept.unwrap_or_else(|| Rc::new(self.open(options, epoll)))
    }

    /// Keeps the port of a transfer that is over. Not to be called if it is connected.
    pub fn give_back(&mut self, socket: Rc<UdpSocket>) {
        self.idle[self.turn] = Some(socket);
    }

    /// Throws away what has come too late, if no transfer uses the port.
    pub fn drain(&self, port: usize) {
        if let Some(socket) = &self.idle[port] {
            while recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT).is_ok() {}
        }
    }

    fn open(&self, options: &Options, epoll: &Epoll) -> UdpSocket {
        let socket = UdpSocket::bind((self.address, 0)).expect("a port of an address of ours");
        if options.windowsize.iter().any(|windowsize| *windowsize > 1) {
            if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
                setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER).expect("SO_RCVBUF");
            }
            // Where the kernel has no GRO for UDP datagrams come one by one.
            let _ = setsockopt(&socket, UdpGroSegment, &true);
        }
        let number = u64::try_from(self.slot * PORTS + self.turn).expect("a number");
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        epoll.add(&socket, event).expect("epoll_ctl");
        socket
    }
}

/// The place of a client, and which of its ports, of an event.
pub fn place_of(event: &EpollEvent) -> (usize, usize) {
    let number = usize::try_from(event.data()).expect("a place and a port");
    (number / PORTS, number % PORTS)
}

/// Networks (/24) that clients are dealt to in turn: a server may bound what one of them gets,
/// and requests that come as fast as they can for seconds reach such a bound.
const NETWORKS: usize = 64;

/// Clients in a network.
const HOSTS: usize = 254;

/// In 127.16.0.0/12, another one for each slot.
fn address(slot: usize) -> Ipv4Addr {
    let (turn, network) = (slot / NETWORKS, slot % NETWORKS);
    let network = turn / HOSTS * NETWORKS + network;
    let offset = u32::try_from((network << 8) + turn % HOSTS + 1);
    let first = Ipv4Addr::new(127, 16, 0, 0).to_bits();
    Ipv4Addr::from_bits(first + offset.expect("fewer than a million clients"))
}
