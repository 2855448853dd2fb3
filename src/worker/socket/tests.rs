use std::net::UdpSocket;

use super::*;

/// A reply socket and its peer; run inside a runtime.
fn connected() -> (ReplySocket, UdpSocket) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    peer.connect(socket.local_addr().unwrap()).unwrap();
    (ReplySocket::new(socket.into()).unwrap(), peer)
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap()
        .block_on(test)
}

fn received(peer: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let length = peer.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn assert_received(peer: &UdpSocket, bytes: &[u8], segment: usize) {
    for datagram in bytes.chunks(segment) {
        assert_eq!(received(peer), datagram);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect()
}

#[test]
fn a_window_leaves_as_datagrams_of_one_size_and_a_short_one() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        let bytes = pattern(40 * 1472 + 7);
        assert_eq!(socket.send_window(&bytes, 1472), bytes.len());
        assert_received(&peer, &bytes, 1472);
        assert!(socket.segmenting);
    });
}

#[test]
fn what_the_path_does_not_take_as_a_whole_leaves_singly() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        // Longer than an IP packet: the kernel answers EMSGSIZE, as it does when the route's MTU
        // has become smaller than a segment.
        let bytes = pattern(50 * 1472);
        assert_eq!(socket.send_window(&bytes, 1472), bytes.len());
        assert_received(&peer, &bytes, 1472);
        assert!(!socket.segmenting);
        assert_eq!(socket.send_window(&bytes[..4000], 1472), 4000);
        assert_received(&peer, &bytes[..4000], 1472);
    });
}

#[test]
fn an_error_is_not_cut_by_the_segment_size_of_a_window() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        assert_eq!(socket.send_window(&pattern(36), 12), 36);
        assert_received(&peer, &pattern(36), 12);
        let error = b"\0\x05\0\0file can not be read to its end\0";
        socket.send_packet(error);
        assert_eq!(received(&peer), error);
        assert_eq!(socket.send_window(&pattern(36), 12), 36);
        assert_received(&peer, &pattern(36), 12);
    });
}

#[test]
fn a_closed_port_counts_once_for_each_transmission() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        drop(peer);
        // A datagram to a closed port of this host is reported at the next send.
        for refused in [1, 2] {
            assert!(!socket.is_gone());
            socket.begin();
            for _ in 0..5 {
                socket.send_packet(b"x");
            }
            assert_eq!(socket.refused, refused);
        }
        assert!(socket.is_gone());
    });
}

#[test]
fn a_datagram_of_the_peer_forgives_a_closed_port() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        socket.refused = 1;
        peer.send(b"ack").unwrap();
        let mut taken = Vec::new();
        let mut buffer = [0; 64];
        std::future::poll_fn(|cx| {
            socket.poll_receive(cx, &mut buffer, 16, &mut |datagram| {
                taken.push(datagram.to_vec())
            })
        })
        .await
        .unwrap();
        assert_eq!((taken, socket.refused), (vec![b"ack".to_vec()], 0));
    });
}

#[test]
fn datagrams_come_in_order_and_are_cut_at_the_slot() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        for datagram in [&b"a"[..], b"", b"0123456789", b"b", b"c", b"d"] {
            peer.send(datagram).unwrap();
        }
        let mut taken = Vec::new();
        let mut buffer = [0; 32];
        while taken.len() < 6 {
            std::future::poll_fn(|cx| {
                socket.poll_receive(cx, &mut buffer, 8, &mut |datagram| {
                    taken.push(datagram.to_vec())
                })
            })
            .await
            .unwrap();
        }
        let expected = [&b"a"[..], b"", b"01234567", b"b", b"c", b"d"];
        assert_eq!(taken, expected);
    });
}

#[test]
fn an_answer_is_looked_for_as_long_as_said() {
    in_runtime(async {
        let (mut socket, peer) = connected();
        let (mut buffer, mut taken) = ([0; 64], Vec::new());
        let mut look = |socket: &mut ReplySocket, time| {
            socket.receive_within(time, &mut buffer, 16, &mut |bytes| {
                taken.push(bytes.to_vec())
            })
        };
        let moment = Duration::from_millis(2);
        let start = Instant::now();
        assert!(!look(&mut socket, moment));
        assert!(start.elapsed() >= moment);
        peer.send(b"one").unwrap();
        peer.send(b"two").unwrap();
        assert!(look(&mut socket, Duration::ZERO));
        // A closed port is remembered.
        drop(peer);
        socket.send_packet(b"x");
        assert!(!look(&mut socket, Duration::ZERO));
        assert_eq!(socket.refused, 1);
        assert_eq!(taken, [b"one", b"two"]);
    });
}
