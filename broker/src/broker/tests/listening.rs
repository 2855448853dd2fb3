//! Which datagrams are taken, and where answers to them come from.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::broker::receive::{Junk, Received, Receiver};
use crate::broker::reply::{self, PortRange, Reply};

/// Sends a request from `client` to `asked`, and answers it from a reply socket: the client must
/// get the answer from `asked`.
fn ask(listener: UdpSocket, from: &str, asked: &str) -> Reply {
    let client = client(from);
    let port = listener.local_addr().unwrap().port();
    let address: SocketAddr = format!("{asked}:{port}").parse().unwrap();
    client.send_to(RRQ, address).unwrap();
    let mut receiver = Receiver::new();
    fill(&mut receiver, &listener);
    let received = receiver.next().unwrap().unwrap();
    assert_eq!(received.datagram, RRQ);
    assert_eq!(received.local, Some(address.ip()));
    assert_eq!(received.peer, client.local_addr().unwrap());
    let reply = reply::connect(&received, None).unwrap();
    reply.socket.send(b"answer").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"answer"[..], reply.local.into())
    );
    assert_eq!(reply.local.ip, address.ip());
    assert_ne!(reply.local.port, port);
    reply
}

/// Waits for something, and receives it.
fn fill(receiver: &mut Receiver, listener: &UdpSocket) {
    use std::os::fd::AsFd;
    let mut place = [nix::poll::PollFd::new(
        listener.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(nix::poll::poll(&mut place, 20_000_u16), Ok(1));
    receiver
        .fill(&listener.try_clone().unwrap().into(), 0)
        .unwrap();
}

#[test]
fn an_answer_comes_from_the_ipv4_address_that_was_asked() {
    for asked in ["127.0.0.1", "127.0.0.2", "127.200.1.9"] {
        ask(listener("0.0.0.0:0"), "127.0.0.1:0", asked);
    }
    ask(listener("127.0.0.1:0"), "127.0.0.3:0", "127.0.0.1");
}

#[test]
fn an_answer_comes_from_the_ipv6_address_that_was_asked() {
    ask(listener("[::]:0"), "[::1]:0", "[::1]");
    ask(listener("[::1]:0"), "[::1]:0", "[::1]");
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_answered_over_ipv4() {
    for asked in ["127.0.0.1", "127.0.0.2"] {
        let reply = ask(listener("[::]:0"), "127.0.0.1:0", asked);
        assert!(reply.socket.local_addr().unwrap().is_ipv4());
    }
}

#[test]
fn a_reply_socket_reaches_its_peer_only_does_not_block_and_knows_the_mtu() {
    let reply = ask(listener("127.0.0.1:0"), "127.0.0.1:0", "127.0.0.1");
    let other = client("127.0.0.1:0");
    other.send_to(b"x", SocketAddr::from(reply.local)).unwrap();
    let error = reply.socket.recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    // The MTU of lo, of which IPv4 can use all but one byte.
    assert_eq!(reply.mtu, 65_535);
    let reply = ask(listener("[::1]:0"), "[::1]:0", "[::1]");
    assert_eq!(reply.mtu, 65_536);
}

#[test]
fn a_request_queued_before_packet_info_was_on_is_answered() {
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let listener = UdpSocket::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (from, to) = match address {
            "[::1]:0" => ("[::1]:0", SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
            _ => ("127.0.0.1:0", SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        };
        let client = client(from);
        client.send_to(RRQ, to).unwrap();
        setsockopt(&listener, sockopt::Ipv4PacketInfo, &true).unwrap();
        if to.is_ipv6() || address == "[::]:0" {
            setsockopt(&listener, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        }
        let mut receiver = Receiver::new();
        fill(&mut receiver, &listener);
        let reply = reply::connect(&receiver.next().unwrap().unwrap(), None).unwrap();
        reply.socket.send(b"answer").unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6, "{address}");
    }
}

#[test]
fn only_requests_are_taken_and_the_rest_of_them_is_not_looked_at() {
    let listener = listener("127.0.0.1:0");
    let (client, mut receiver) = (client("127.0.0.1:0"), Receiver::new());
    let mut longest = vec![0; crate::wire::MAX_REQUEST];
    longest[1] = 2;
    let mut too_long = longest.clone();
    too_long.push(0);
    for (datagram, expected) in [
        (&b""[..], Err(Junk::NoRequest)),
        (b"\0", Err(Junk::NoRequest)),
        (b"\0\0", Err(Junk::NoRequest)),
        (b"\0\x01", Ok(2)),
        (b"\0\x02\xff\xff", Ok(4)),
        (b"\0\x03\0\x01", Err(Junk::NoRequest)),
        (b"\0\x04\0\x01", Err(Junk::NoRequest)),
        (b"\0\x05\0\0x\0", Err(Junk::NoRequest)),
        (b"\0\x06", Err(Junk::NoRequest)),
        (b"\x01\x01file\0octet\0", Err(Junk::NoRequest)),
        (&longest, Ok(longest.len())),
        (&too_long, Err(Junk::TooLong)),
    ] {
        client
            .send_to(datagram, listener.local_addr().unwrap())
            .unwrap();
        fill(&mut receiver, &listener);
        let answer = receiver
            .next()
            .unwrap()
            .map(|received| received.datagram.len());
        let sender = Some(client.local_addr().unwrap().ip());
        let expected = expected.map_err(|junk| (sender, junk));
        assert_eq!(answer, expected, "{}", datagram.escape_ascii());
        assert!(receiver.next().is_none());
    }
}

#[test]
fn a_batch_is_received_at_once_and_in_order() {
    let listener = listener("127.0.0.1:0");
    let (client, mut receiver) = (client("127.0.0.1:0"), Receiver::new());
    for number in 0..40 {
        client
            .send_to(&[0, 1, number], listener.local_addr().unwrap())
            .unwrap();
    }
    let mut numbers = Vec::new();
    for batch in [16, 16, 8] {
        fill(&mut receiver, &listener);
        let before = numbers.len();
        while let Some(received) = receiver.next() {
            numbers.push(received.unwrap().datagram[2]);
        }
        assert_eq!(numbers.len() - before, batch);
    }
    assert_eq!(numbers, (0..40).collect::<Vec<u8>>());
    let nothing = receiver.fill(&listener.into(), 0).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    assert!(receiver.next().is_none());
}

#[test]
fn a_queue_that_was_too_long_for_its_buffer_is_noticed_once() {
    for from in ["127.0.0.1", "::1"] {
        let listener = listener(&SocketAddr::new(from.parse().unwrap(), 0).to_string());
        setsockopt(&listener, sockopt::RxqOvfl, &1).unwrap();
        setsockopt(&listener, sockopt::RcvBuf, &4096).unwrap();
        let client = client(&SocketAddr::new(from.parse().unwrap(), 0).to_string());
        let address = listener.local_addr().unwrap();
        let listener = OwnedFd::from(listener);
        let mut receiver = Receiver::new();
        let mut ask = |count: usize| {
            for _ in 0..count {
                client.send_to(RRQ, address).unwrap();
            }
            let mut has_lost = 0;
            while let Ok(batch) = receiver.fill(&listener, 0) {
                while receiver.next().is_some() {}
                has_lost += usize::from(batch.has_lost);
            }
            has_lost
        };
        assert_eq!(ask(1), 0);
        assert_eq!(
            ask(200),
            0,
            "what is dropped behind them is told with the next"
        );
        assert_eq!(ask(1), 1);
        assert_eq!(ask(1), 0);
    }
}

#[test]
fn a_broadcast_or_multicast_request_is_ignored() {
    let multicast = Ipv4Addr::new(239, 255, 0, 69);
    let listener = listener("0.0.0.0:0");
    listener
        .join_multicast_v4(&multicast, &Ipv4Addr::LOCALHOST)
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = client("127.0.0.1:0");
    client.set_broadcast(true).unwrap();
    nix::sys::socket::setsockopt(&client, sockopt::IpMulticastLoop, &true).unwrap();
    let mut receiver = Receiver::new();
    for address in [multicast, Ipv4Addr::new(127, 255, 255, 255)] {
        client.send_to(RRQ, (address, port)).unwrap();
        fill(&mut receiver, &listener);
        assert_eq!(
            receiver.next().unwrap().unwrap_err().1,
            Junk::Broadcast,
            "{address}"
        );
    }
}

fn received(peer: &str, local: &str) -> Received<'static> {
    let (peer, local) = (peer.parse().unwrap(), Some(local.parse().unwrap()));
    Received {
        peer,
        local,
        interface: 1,
        datagram: RRQ,
    }
}

#[test]
fn a_reply_socket_uses_the_ports_allowed_and_no_others() {
    let range = PortRange::new((40_200, 40_203));
    let request = received("127.0.0.1:9", "127.0.0.9");
    let replies: Vec<_> = (0..4)
        .map(|_| reply::connect(&request, Some(&range)).unwrap())
        .collect();
    let mut ports: Vec<_> = replies.iter().map(|reply| reply.local.port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [40_200, 40_201, 40_202, 40_203]);
    let error = reply::connect(&request, Some(&range)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(replies);
    reply::connect(&request, Some(&range)).unwrap();
}

#[test]
fn the_ports_of_a_range_are_used_in_no_order() {
    let range = PortRange::new((40_300, 41_300));
    let request = received("127.0.0.1:9", "127.0.0.8");
    let mut distances = std::collections::BTreeSet::new();
    let mut last = 0;
    for _ in 0..32 {
        let reply = reply::connect(&request, Some(&range)).unwrap();
        assert!((40_300..=41_300).contains(&reply.local.port));
        distances.insert(i32::from(reply.local.port) - last);
        last = i32::from(reply.local.port);
    }
    assert!(distances.len() > 20, "{distances:?}");
}

#[test]
fn an_address_that_has_moved_to_another_machine_is_not_answered_from() {
    let error = reply::connect(&received("127.0.0.1:9", "192.0.2.77"), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    let error = reply::connect(&received("[::1]:9", "2001:db8::77"), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
}
