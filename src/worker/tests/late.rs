//! A client that has answered while the worker was busy with others.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use tokio::task::{LocalSet, yield_now};

use super::*;

/// A request of `client` and the socket that answers it.
fn request(id: u64, client: &Client) -> (ToWorker, Option<OwnedFd>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(client.address()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let request = wire::Request {
        id,
        peer: client.address().into(),
        local: socket.local_addr().unwrap().into(),
        mtu: 0,
        socket: wire::SocketUse::Once,
        replaces: None,
        datagram: datagram(RRQ, &["f", "octet", "blksize", "600"]),
    };
    (ToWorker::Request(request), Some(socket.into()))
}

#[test]
fn a_client_whose_answer_lies_in_the_socket_does_not_give_way() {
    let runtime = super::super::start_runtime().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (channel, _broker) = Channel::pair().unwrap();
        channel.set_nonblocking().unwrap();
        let settings = wire_settings(|settings| settings.max_unproven = 1);
        let server = Server::new(settings, Link::new(channel).unwrap());
        let (first, second) = (Client::new(), Client::new());
        let (message, socket) = request(1, &first);
        server.handle(message, socket).unwrap();
        let content = file(&pattern(700)).into();
        let granted = ToWorker::File {
            id: 1,
            size: 700,
            in_memory: true,
        };
        server.handle(granted, Some(content)).unwrap();
        yield_now().await;
        let (oack, from) = first.receive();
        assert_eq!(oack, datagram(6, &["blksize", "600"]));
        // Before the transfer can see this there is no room for it.
        first.ack(0, from);
        let (message, socket) = request(2, &second);
        server.handle(message, socket).unwrap();
        yield_now().await;
        yield_now().await;
        let (data, from) = first.receive();
        assert_eq!(data[4..], pattern(700)[..600]);
        assert_eq!(server.counts().transfers, 1);
        first.ack(1, from);
    });
}
