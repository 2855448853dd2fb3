//! Reply sockets that serve one request after another.

use std::net::UdpSocket;

use r_tftpd_broker::wire::{self, SocketUse, ToBroker, ToWorker};

use super::harness::{Client, Worker, datagram, pattern};
use super::{RRQ, error, wire_settings};

fn kept(id: u64, proven: bool) -> ToBroker {
    let kept = true;
    ToBroker::Done { id, proven, kept }
}

/// What the broker does with a socket that is kept.
fn connect(socket: &UdpSocket, client: &Client) {
    socket.connect(client.address()).unwrap();
}

#[test]
fn a_socket_that_is_kept_serves_the_next_client_whatever_became_of_the_last() {
    let mut worker = Worker::start();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut socket = SocketUse::First(7);
    let mut ask = |worker: &mut Worker, client: &Client, words: &[&str]| {
        connect(&ours, client);
        let request = datagram(RRQ, words);
        let id = worker.request_by(client, &request, socket, &ours);
        socket = SocketUse::Again(7);
        id
    };
    let windows = ["f", "octet", "blksize", "1024", "windowsize", "8"];
    for round in 0..3 {
        // Refused: no transfer is begun.
        let client = Client::new();
        let id = ask(&mut worker, &client, &["missing", "octet"]);
        worker.told();
        worker.tell(&ToWorker::Missing { id }, &[]);
        assert!(error(1)(&client.receive().0));
        assert_eq!(worker.told(), kept(id, false));
        // In windows, so that the kernel cuts.
        let client = Client::new();
        let id = ask(&mut worker, &client, &windows);
        worker.told();
        let content = pattern(50_000 + round);
        worker.grant(id, &content);
        let (_, from) = client.receive();
        client.ack(0, from);
        assert!(client.take(1, 1024, 8) == content);
        assert_eq!(worker.told(), ToBroker::Proven { id });
        assert_eq!(worker.told(), kept(id, true));
        // Longer datagrams than those; and the client ends it.
        let client = Client::new();
        let id = ask(&mut worker, &client, &["f", "octet", "blksize", "1400"]);
        worker.told();
        worker.grant(id, &pattern(5000));
        let (_, from) = client.receive();
        client.ack(0, from);
        assert!(client.receive().0[4..] == pattern(1400));
        client.send(b"\0\x05\0\0enough\0", from);
        assert_eq!(worker.told(), ToBroker::Proven { id });
        assert_eq!(worker.told(), kept(id, true));
        assert_eq!(from, ours.local_addr().unwrap());
    }
}

#[test]
fn a_request_that_is_only_repeated_gives_its_socket_back() {
    let mut worker = Worker::start();
    let client = Client::new();
    let request = datagram(RRQ, &["f", "octet"]);
    worker.read(&client, &request, b"content");
    let first = client.receive();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    connect(&socket, &client);
    let again = worker.request_by(&client, &request, SocketUse::First(0), &socket);
    assert_eq!(client.receive(), first);
    assert_eq!(worker.told(), kept(again, false));
}

#[test]
fn a_request_that_ends_while_it_waits_for_the_broker_gives_its_socket_back() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.max_unproven = 1));
    let (first, second) = (Client::new(), Client::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    connect(&socket, &first);
    let request = datagram(RRQ, &["f", "octet"]);
    let id = worker.request_by(&first, &request, SocketUse::First(3), &socket);
    worker.told();
    worker.request(&second, &request);
    worker.told();
    worker.grant(id, b"too late");
    assert_eq!(worker.told(), kept(id, false));
}

#[test]
fn a_closed_socket_can_not_be_used() {
    let mut worker = Worker::start();
    let client = Client::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    connect(&socket, &client);
    let request = datagram(RRQ, &["f", "octet"]);
    let id = worker.request_by(&client, &request, SocketUse::First(0), &socket);
    worker.told();
    worker.tell(&ToWorker::Missing { id }, &[]);
    assert_eq!(worker.told(), kept(id, false));
    worker.tell(&ToWorker::Close { number: 0 }, &[]);
    worker.request_by(&client, &request, SocketUse::Again(0), &socket);
    assert_eq!(worker.ends(), 1);
}

#[test]
fn a_socket_that_was_never_kept_ends_the_worker() {
    let mut worker = Worker::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let request = datagram(RRQ, &["f", "octet"]);
    let number = wire::MAX_KEPT - 1;
    worker.request_by(&Client::new(), &request, SocketUse::Again(number), &socket);
    assert_eq!(worker.ends(), 1);
}
