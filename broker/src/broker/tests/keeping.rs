//! Reply sockets that the worker keeps for the next request.

use super::*;
use crate::broker::requests::Violation;
use crate::wire::SocketUse;

/// A broker that lends so many sockets more than once.
fn rig(max_kept: u16) -> Rig {
    let mut settings = settings();
    settings.max_kept = max_kept;
    let rig = Rig::with(listener("127.0.0.1:0"), settings);
    rig.order(Order::Go);
    rig.greet();
    rig
}

fn asks(rig: &Rig, client: &UdpSocket) {
    client.send_to(RRQ, rig.address()).unwrap();
}

fn kept(id: u64) -> ToBroker {
    ToBroker::Done {
        id,
        proven: true,
        kept: true,
    }
}

/// The next request that the worker gets on a socket it has.
fn request_again(rig: &Rig) -> Request {
    match rig.hear() {
        (ToWorker::Request(request), descriptors) => {
            assert!(descriptors.is_empty());
            request
        }
        (message, _) => panic!("{message:?}"),
    }
}

#[test]
fn a_socket_that_is_kept_is_connected_to_the_next_client() {
    let rig = rig(8);
    let (one, two) = (client("127.0.0.1:0"), client("127.0.0.1:0"));
    asks(&rig, &one);
    let (first, socket) = rig.request();
    assert_eq!(first.socket, SocketUse::First(0));
    rig.say(&kept(first.id));
    asks(&rig, &two);
    let second = request_again(&rig);
    assert_eq!(second.socket, SocketUse::Again(0));
    assert_eq!(second.peer, two.local_addr().unwrap().into());
    assert_eq!((second.local.ip, second.mtu), (first.local.ip, first.mtu));
    assert_ne!(second.local.port, first.local.port);
    assert_ne!(second.id, first.id);
    socket.send(b"for the second").unwrap();
    assert_eq!(two.recv(&mut [0; 64]).unwrap(), 14);
    assert_eq!(rig.open(second.id, b"nothing"), {
        let id = second.id;
        ToWorker::Missing { id }
    });
    rig.say(&kept(second.id));
    asks(&rig, &one);
    assert_eq!(request_again(&rig).peer, one.local_addr().unwrap().into());
}

#[test]
fn a_socket_that_the_worker_closes_is_not_lent_again() {
    let rig = rig(1);
    let clients = [(); 3].map(|()| client("127.0.0.1:0"));
    let numbers = clients.each_ref().map(|client| {
        asks(&rig, client);
        let (request, _socket) = rig.request();
        rig.say(&done(request.id, true));
        request.socket
    });
    assert_eq!(numbers, [SocketUse::First(0); 3]);
}

#[test]
fn the_worker_is_told_to_close_what_nobody_needs() {
    let rig = rig(1);
    asks(&rig, &client("127.0.0.1:0"));
    let (request, _socket) = rig.request();
    rig.say(&kept(request.id));
    assert_eq!(rig.hear().0, ToWorker::Close { number: 0 });
    asks(&rig, &client("127.0.0.1:0"));
    assert_eq!(rig.request().0.socket, SocketUse::First(0));
}

#[test]
fn without_a_free_number_a_socket_serves_one_request() {
    let rig = rig(1);
    let clients = [(); 2].map(|()| client("127.0.0.1:0"));
    let uses = clients.each_ref().map(|client| {
        asks(&rig, client);
        rig.request().0.socket
    });
    assert_eq!(uses, [SocketUse::First(0), SocketUse::Once]);
}

#[test]
fn a_worker_that_keeps_what_is_not_to_be_kept_ends_the_broker() {
    let mut rig = rig(0);
    let (_client, id) = rig.asked();
    rig.say(&kept(id));
    let error = rig.end().unwrap_err();
    assert!(
        matches!(error, Error::Violation(Violation::Kept)),
        "{error:?}"
    );
}
