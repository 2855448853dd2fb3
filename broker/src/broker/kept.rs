//! Reply sockets that serve one request after another.
//!
//! To make a reply socket, hand it over, watch it and close it again costs much of what a file of
//! one block needs. So when a request has ended, both sides keep its socket for a while, and the
//! broker connects it to the next client that asks the same address.
//!
//! - **Between two requests it is dead**: it has no peer and no port, so that nothing can be sent
//!   or received, and what had come is thrown away.
//! - **Each request has a port of its own**, as random as that of a new socket. A port that stayed
//!   the same would tell an attacker, who can ask for a file, too, where to send an ACK in another
//!   one's name; and what the network holds back could be taken for a part of a later transfer
//!   (RFC 1350, section 4).
//! - **Where addresses mean more than themselves** (link-local ones, or when the address asked is
//!   not known, so that the kernel has chosen one for the first peer), sockets are not kept.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::receive::Received;
use super::reply::{self, Reply};
use crate::sys;
use crate::wire::Endpoint;

/// How long a socket is kept without a request.
const IDLE: Duration = Duration::from_secs(2);

/// Idle sockets that are looked at for a request. If none is of the address that was asked, so
/// many are enough.
const LOOKED_AT: usize = 8;

/// Datagrams of the last client that are thrown away; with more, so is the socket.
const MAX_STALE: usize = 16;

/// All sockets that are kept or can be.
#[derive(Debug)]
pub(super) struct Kept {
    /// By number.
    sockets: Vec<Option<Socket>>,
    /// Numbers that no socket has.
    free: Vec<u16>,
    /// Numbers of those that no request uses, and since when; the longest first.
    idle: VecDeque<(u16, Instant)>,
    /// Numbers of those that the worker has still to close.
    closing: Vec<u16>,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    /// The address it is bound to, and the port it had last.
    local: Endpoint,
}

impl Kept {
    /// Of at most so many sockets.
    pub(super) fn new(max: u16) -> Self {
        Self {
            sockets: (0..max).map(|_| None).collect(),
            free: (0..max).rev().collect(),
            idle: VecDeque::new(),
            closing: Vec::new(),
        }
    }

    /// A socket that has just been made for `request`, as none fitted: the number it can be kept
    /// under, if it can.
    pub(super) fn add(&mut self, request: &Received<'_>, reply: &Reply) -> Option<u16> {
        lasting(request)?;
        if self.idle.len() >= LOOKED_AT {
            // They are of other addresses: make room.
            let (number, _) = self.idle.pop_front()?;
            self.closing.push(number);
            return None;
        }
        let number = self.free.pop()?;
        let place = self.sockets.get_mut(usize::from(number))?;
        // Without another descriptor, this one does.
        *place = reply.socket.try_clone().ok().map(|socket| Socket {
            socket,
            local: reply.local,
        });
        if place.is_none() {
            self.free.push(number);
        }
        place.as_ref().map(|_| number)
    }

    /// A socket that was kept and now answers `request`, with what the worker is told of it: its
    /// number, its address and port, the MTU. None if none fits.
    pub(super) fn take(&mut self, request: &Received<'_>) -> Option<(u16, Endpoint, u32)> {
        let asked = lasting(request)?;
        let at = self.idle.iter().take(LOOKED_AT).position(|(number, _)| {
            self.socket(*number)
                .is_some_and(|socket| socket.local.ip == asked)
        })?;
        let (number, _) = self.idle.remove(at)?;
        let socket = self.sockets.get_mut(usize::from(number))?.as_mut()?;
        let last = socket.local.port;
        match socket.connect(request.peer) {
            Ok(mtu) if socket.local.port != last => Some((number, socket.local, mtu)),
            // A new one will do, or tell why not.
            _ => {
                self.closing.push(number);
                None
            }
        }
    }

    /// The request that used a socket has ended; `is_kept`: the worker has it still.
    pub(super) fn give_back(&mut self, number: u16, is_kept: bool, now: Instant) {
        if !is_kept {
            self.forget(number);
        } else if self
            .socket(number)
            .is_some_and(|socket| socket.disconnect().is_ok())
        {
            self.idle.push_back((number, now));
        } else {
            self.closing.push(number);
        }
    }

    /// The number of a socket that the worker has to close, for good; to be called until there is
    /// none.
    pub(super) fn poll_close(&mut self, now: Instant) -> Option<u16> {
        let number = match self.closing.pop() {
            Some(number) => number,
            None if self.due().is_some_and(|due| due <= now) => self.idle.pop_front()?.0,
            None => return None,
        };
        self.forget(number);
        Some(number)
    }

    /// When [`Self::poll_close`] has something to say, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.idle.front().map(|(_, since)| *since + IDLE)
    }

    fn socket(&self, number: u16) -> Option<&Socket> {
        self.sockets.get(usize::from(number))?.as_ref()
    }

    fn forget(&mut self, number: u16) {
        if let Some(place) = self.sockets.get_mut(usize::from(number)) {
            *place = None;
            self.free.push(number);
        }
    }
}

impl Socket {
    /// Takes its peer and its port from it.
    fn disconnect(&self) -> io::Result<()> {
        sys::disconnect(self.socket.as_fd())?;
        // From here on nothing comes in: all that is there is stale, errors included.
        for _ in 0..=MAX_STALE {
            match sys::discard(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                _ => (),
            }
        }
        Err(io::ErrorKind::QuotaExceeded.into())
    }

    /// Has it answer `peer`, from a port that the kernel chooses anew. Returns the MTU.
    fn connect(&mut self, peer: SocketAddr) -> io::Result<u32> {
        self.socket.connect(peer)?;
        self.local = self.socket.local_addr()?.into();
        Ok(reply::mtu(self.socket.as_fd(), peer))
    }
}

/// The address that was asked, if it means the same for all clients.
fn lasting(request: &Received<'_>) -> Option<IpAddr> {
    let is_link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    request
        .local
        .filter(|local| !is_link_local(*local) && !is_link_local(request.peer.ip()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::broker::reply::connect;
    use crate::broker::tests;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// What a client asks of an address.
    fn request(peer: SocketAddr, local: Option<IpAddr>) -> Received<'static> {
        Received {
            peer,
            local,
            interface: 1,
            datagram: &[],
        }
    }

    fn client() -> UdpSocket {
        tests::client("127.0.0.1:0")
    }

    fn asks(client: &UdpSocket) -> Received<'static> {
        request(client.local_addr().unwrap(), Some(LOCAL))
    }

    /// A new socket: its number, and what the worker gets.
    fn add(kept: &mut Kept, request: &Received<'_>) -> (u16, UdpSocket) {
        let reply = connect(request, None).unwrap();
        (kept.add(request, &reply).unwrap(), reply.socket)
    }

    /// The number of the socket that is taken, if one is.
    fn take(kept: &mut Kept, client: &UdpSocket) -> Option<u16> {
        Some(kept.take(&asks(client))?.0)
    }

    #[test]
    fn a_socket_serves_one_client_after_another_and_only_the_last() {
        let (mut kept, now) = (Kept::new(2), Instant::now());
        let (first, second) = (client(), client());
        let (number, socket) = add(&mut kept, &asks(&first));
        let port = socket.local_addr().unwrap();
        assert_eq!(take(&mut kept, &second), None);
        kept.give_back(number, true, now);
        let (again, local, mtu) = kept.take(&asks(&second)).unwrap();
        let local = SocketAddr::from(local);
        assert_eq!((again, local.ip()), (number, port.ip()));
        assert_eq!(local, socket.local_addr().unwrap());
        assert_eq!(mtu, connect(&asks(&second), None).unwrap().mtu);
        socket.send(b"data").unwrap();
        assert_eq!(second.recv_from(&mut [0; 8]).unwrap(), (4, local));
        first.send_to(b"ack", port).unwrap();
        first.send_to(b"ack", local).unwrap();
        second.send_to(b"ack 2", local).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 5);
        // In use.
        assert_eq!(take(&mut kept, &client()), None);
        assert_eq!(kept.due(), None);
    }

    #[test]
    fn between_two_requests_it_can_neither_send_nor_receive() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let client = client();
        let (number, socket) = add(&mut kept, &asks(&client));
        let port = socket.local_addr().unwrap();
        kept.give_back(number, true, now);
        assert_eq!(socket.local_addr().unwrap().port(), 0);
        let error = socket.send(b"data").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EDESTADDRREQ));
        client.connect(port).unwrap();
        client.send(b"ack").unwrap();
        // Nobody is there.
        let error = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let nothing = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn every_request_has_another_port() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let client = client();
        let (number, socket) = add(&mut kept, &asks(&client));
        let mut ports = vec![socket.local_addr().unwrap().port()];
        for _ in 0..50 {
            kept.give_back(number, true, now);
            // Once in thousands of times the kernel chooses the last one again.
            if let Some((_, local, _)) = kept.take(&asks(&client)) {
                assert_ne!(ports.last(), Some(&local.port));
                ports.push(local.port);
            } else {
                return;
            }
        }
        let steps: BTreeSet<_> = ports
            .windows(2)
            .map(|two| two[1].wrapping_sub(two[0]))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 45 && steps.len() > 40, "{ports:?} {steps:?}");
    }

    #[test]
    fn what_came_before_is_thrown_away() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let (first, second) = (client(), client());
        let (number, socket) = add(&mut kept, &asks(&first));
        for _ in 0..MAX_STALE {
            first
                .send_to(b"late", socket.local_addr().unwrap())
                .unwrap();
        }
        kept.give_back(number, true, now);
        assert_eq!(take(&mut kept, &second), Some(number));
        let nothing = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_closed_port_of_the_last_client_is_no_error_of_the_next() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let (first, second) = (client(), client());
        let (number, socket) = add(&mut kept, &asks(&first));
        drop(first);
        socket.send(b"data").unwrap();
        kept.give_back(number, true, now);
        assert_eq!(take(&mut kept, &second), Some(number));
        socket.send(b"data").unwrap();
        assert_eq!(second.recv(&mut [0; 8]).unwrap(), 4);
    }

    #[test]
    fn a_socket_with_too_much_left_in_it_is_closed() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let first = client();
        let (number, socket) = add(&mut kept, &asks(&first));
        for _ in 0..=MAX_STALE {
            first
                .send_to(b"late", socket.local_addr().unwrap())
                .unwrap();
        }
        kept.give_back(number, true, now);
        assert_eq!(take(&mut kept, &client()), None);
        assert_eq!(kept.poll_close(now), Some(number));
        assert_eq!(kept.poll_close(now), None);
        // Its number is free again.
        assert_eq!(add(&mut kept, &asks(&client())).0, number);
    }

    #[test]
    fn a_socket_is_closed_when_nobody_needs_it_for_a_while() {
        let (mut kept, start) = (Kept::new(2), Instant::now());
        let [one, two] = [(); 2].map(|()| add(&mut kept, &asks(&client())).0);
        let second = Duration::from_secs(1);
        kept.give_back(one, true, start);
        kept.give_back(two, true, start + second);
        assert_eq!(kept.due(), Some(start + IDLE));
        assert_eq!(kept.poll_close(start + IDLE - second), None);
        assert_eq!(kept.poll_close(start + IDLE), Some(one));
        assert_eq!(kept.poll_close(start + IDLE), None);
        assert_eq!(kept.due(), Some(start + second + IDLE));
        assert_eq!(kept.poll_close(start + second + IDLE), Some(two));
        assert_eq!(kept.due(), None);
    }

    #[test]
    fn what_the_worker_has_closed_is_forgotten() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let (number, _) = add(&mut kept, &asks(&client()));
        kept.give_back(number, false, now);
        assert_eq!(take(&mut kept, &client()), None);
        assert_eq!(kept.poll_close(now + IDLE), None);
        assert_eq!(add(&mut kept, &asks(&client())).0, number);
    }

    #[test]
    fn no_more_are_kept_than_allowed() {
        let mut kept = Kept::new(1);
        add(&mut kept, &asks(&client()));
        let request = asks(&client());
        let reply = connect(&request, None).unwrap();
        assert_eq!(kept.add(&request, &reply), None);
        assert_eq!(Kept::new(0).add(&request, &reply), None);
    }

    #[test]
    fn sockets_of_one_address_make_room_for_those_of_another() {
        let (mut kept, now) = (Kept::new(20), Instant::now());
        let numbers: Vec<_> = (0..20)
            .map(|_| add(&mut kept, &asks(&client())).0)
            .collect();
        for number in numbers {
            kept.give_back(number, true, now);
        }
        let other = request(client().local_addr().unwrap(), Some([127, 0, 0, 2].into()));
        let mut alone = 0;
        loop {
            assert_eq!(kept.take(&other), None);
            let reply = connect(&other, None).unwrap();
            if let Some(number) = kept.add(&other, &reply) {
                kept.give_back(number, true, now);
                break;
            }
            while kept.poll_close(now).is_some() {}
            alone += 1;
        }
        assert_eq!(alone, 20 - LOOKED_AT + 1);
        assert!(kept.take(&other).is_some());
    }

    #[test]
    fn a_socket_answers_only_for_the_address_it_was_made_for() {
        let (mut kept, now) = (Kept::new(1), Instant::now());
        let (number, _) = add(&mut kept, &asks(&client()));
        kept.give_back(number, true, now);
        let peer = client().local_addr().unwrap();
        let other = Some(IpAddr::from([127, 0, 0, 2]));
        assert_eq!(kept.take(&request(peer, other)), None);
        assert_eq!(kept.take(&request(peer, None)), None);
    }

    #[test]
    fn an_address_that_means_more_than_itself_lasts_for_one_request() {
        let lasts = |peer: &str, local: Option<&str>| {
            let local = local.map(|local| local.parse().unwrap());
            lasting(&request(peer.parse().unwrap(), local)).is_some()
        };
        assert!(lasts("192.0.2.9:1", Some("192.0.2.1")));
        assert!(lasts("169.254.0.9:1", Some("169.254.0.1")));
        assert!(lasts("[2001:db8::9]:1", Some("2001:db8::1")));
        assert!(!lasts("[fe80::9%3]:1", Some("2001:db8::1")));
        assert!(!lasts("[2001:db8::9]:1", Some("fe80::1")));
        assert!(!lasts("192.0.2.9:1", None));
    }
}
