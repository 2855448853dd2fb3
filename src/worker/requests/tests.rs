use std::net::SocketAddr;
use std::time::Instant;

use r_tftpd_broker::wire;

use super::*;
use crate::tftp::packet::parse_request;
use crate::worker::idle::IdleSocket;
use crate::worker::tests::harness::file;

fn request(words: &[&str]) -> Request {
    let words: String = words.iter().map(|word| format!("{word}\0")).collect();
    parse_request(&[&[0, 1], words.as_bytes()].concat()).unwrap()
}

fn peer(port: u16) -> Endpoint {
    SocketAddr::from(([192, 0, 2, 1], port)).into()
}

fn ticket(id: u64, port: u16, request: Request) -> Rc<Ticket> {
    let (peer, local) = (peer(port), peer(69));
    let asked = wire::Request {
        id,
        peer,
        local,
        mtu: 0,
        socket: wire::SocketUse::Once,
        replaces: None,
        datagram: vec![],
    };
    Rc::new(Ticket::new(
        &asked,
        Some(request),
        IdleSocket::New(file(b"").into()),
        Instant::now(),
    ))
}

fn is_repeat(requests: &Requests, port: u16, words: &[&str]) -> bool {
    matches!(
        requests.admit(peer(port), &request(words)),
        Admission::Repeat(_)
    )
}

/// The one that a request ends at once.
fn outdates(requests: &Requests, port: u16, words: &[&str]) -> Option<u64> {
    match requests.admit(peer(port), &request(words)) {
        Admission::New { outdated } => outdated.map(|ticket| ticket.id),
        Admission::Repeat(_) => panic!("a repetition"),
    }
}

/// A request that is in the table, `phase` far.
fn insert(requests: &mut Requests, id: u64, words: &[&str], phase: Phase) -> Rc<Ticket> {
    let ticket = ticket(id, 1000, request(words));
    ticket.set_phase(phase);
    requests.insert(Rc::clone(&ticket));
    if ticket.has_turn() {
        requests.prove(id);
    }
    ticket
}

#[test]
fn only_the_same_request_from_the_same_port_is_a_repetition() {
    let mut requests = Requests::new(10);
    let words = ["f", "octet", "blksize", "1468"];
    insert(&mut requests, 1, &words, Phase::Unproven);
    assert!(is_repeat(&requests, 1000, &words));
    assert!(!is_repeat(&requests, 1001, &words));
    for other in [
        &["g", "octet", "blksize", "1468"][..],
        &["f", "octet"],
        &["f", "netascii"],
    ] {
        assert!(!is_repeat(&requests, 1000, other), "{other:?}");
    }
}

#[test]
fn a_request_that_was_answered_lives_on_beside_its_challenger() {
    for phase in [Phase::Unproven, Phase::Waiting, Phase::Proven] {
        let mut requests = Requests::new(10);
        let first = insert(&mut requests, 1, &["f", "octet"], phase);
        assert_eq!(outdates(&requests, 1000, &["g", "octet"]), None);
        let challenger = insert(&mut requests, 2, &["g", "octet"], Phase::Unproven);
        assert!(first.is_challenged() && !challenger.is_challenged());
        assert!(requests.choose(&first).is_none());
        assert!(
            requests
                .choose(&challenger)
                .is_some_and(|left| left.id == 1)
        );
    }
}

#[test]
fn a_request_that_was_not_answered_yet_is_outdated_by_another() {
    for phase in [Phase::Opening, Phase::AwaitingScratch] {
        let mut requests = Requests::new(10);
        insert(&mut requests, 1, &["f", "octet"], phase);
        assert!(is_repeat(&requests, 1000, &["f", "octet"]));
        assert_eq!(outdates(&requests, 1000, &["g", "octet"]), Some(1));
    }
}

#[test]
fn the_same_request_of_a_proven_client_is_repeated_by_its_challenger() {
    let mut requests = Requests::new(10);
    let words = ["f", "octet"];
    insert(&mut requests, 1, &words, Phase::Proven);
    assert_eq!(outdates(&requests, 1000, &words), None);
    let challenger = insert(&mut requests, 2, &words, Phase::Opening);
    assert!(challenger.is_repetition());
    assert!(is_repeat(&requests, 1000, &words));
    requests.choose(&challenger);
    assert!(!challenger.is_repetition());
}

#[test]
fn a_port_has_one_challenger_at_most() {
    let mut requests = Requests::new(10);
    let first = insert(&mut requests, 1, &["f", "octet"], Phase::Proven);
    let second = insert(&mut requests, 2, &["g", "octet"], Phase::Unproven);
    assert_eq!(outdates(&requests, 1000, &["h", "octet"]), Some(2));
    requests.detach(&second);
    assert!(!first.is_challenged());
    let third = insert(&mut requests, 3, &["h", "octet"], Phase::Unproven);
    assert!(first.is_challenged() && !third.is_repetition());
    assert!(requests.choose(&second).is_none());
}

#[test]
fn the_end_of_the_first_leaves_its_challenger() {
    let mut requests = Requests::new(10);
    let first = insert(&mut requests, 1, &["f", "octet"], Phase::Proven);
    let challenger = insert(&mut requests, 2, &["g", "octet"], Phase::Unproven);
    requests.remove(&first);
    assert!(is_repeat(&requests, 1000, &["g", "octet"]));
    assert!(requests.choose(&challenger).is_none());
    requests.remove(&challenger);
    assert!(requests.by_peer.is_empty() && requests.by_id.is_empty());
    assert_eq!(requests.unproven(), 0);
}

#[test]
fn the_oldest_unproven_gives_way_and_the_proven_never() {
    let mut requests = Requests::new(2);
    let first = ticket(1, 1, request(&["f", "octet"]));
    assert!(requests.insert(Rc::clone(&first)).is_none());
    requests.prove(1);
    for id in [2, 3] {
        let port = u16::try_from(id).unwrap();
        assert!(
            requests
                .insert(ticket(id, port, request(&["f", "octet"])))
                .is_none()
        );
    }
    let oldest = requests.insert(ticket(4, 4, request(&["f", "octet"])));
    assert_eq!(oldest.map(|ticket| ticket.id), Some(2));
    assert_eq!(requests.unproven(), 2);
    assert!(requests.find(1).is_some());
}
