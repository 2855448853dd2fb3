//! What several requests from one port mean.

use std::net::SocketAddr;

use r_tftpd_broker::wire::{ToBroker, ToWorker};

use super::harness::{Client, Worker, datagram, pattern};
use super::{RRQ, done, error, wire_settings};

const PLAIN: &[&str] = &["f", "octet"];

/// A client that has acknowledged the first block of a file of four; the id and the TID.
fn proven(worker: &mut Worker, client: &Client) -> (u64, SocketAddr) {
    let id = worker.read(client, &datagram(RRQ, PLAIN), &pattern(2000));
    let (_, tid) = client.receive();
    client.ack(1, tid);
    assert!(client.receive().0.starts_with(&[0, 3, 0, 2]));
    assert_eq!(worker.told(), ToBroker::Proven { id });
    (id, tid)
}

#[test]
fn the_same_request_again_is_answered_from_the_same_tid_while_unproven() {
    let mut worker = Worker::start();
    let client = Client::new();
    let request = datagram(RRQ, &["f", "octet", "tsize", "0"]);
    worker.read(&client, &request, b"content");
    let first = client.receive();
    let again = worker.request(&client, &request);
    assert_eq!(client.receive(), first);
    assert_eq!(worker.told(), done(again, false));
}

#[test]
fn a_client_that_keeps_to_its_first_request_is_served_by_it() {
    for says_so in [true, false] {
        let timeout = if says_so { 1000 } else { 30 };
        let mut worker = Worker::start_with(wire_settings(|settings| {
            settings.timeout_ms = timeout;
            settings.max_retries = 100;
        }));
        let client = Client::new();
        let (first, tid) = proven(&mut worker, &client);
        let second = worker.read(&client, &datagram(RRQ, PLAIN), &pattern(2000));
        let (_, other_tid) = client.receive();
        assert_ne!(other_tid, tid);
        if says_so {
            client.send(b"\0\x05\0\x05Unknown TID\0", other_tid);
        }
        assert_eq!(worker.told(), done(second, says_so));
        for block in 2..=4 {
            client.ack(block, tid);
            let next = [0, 3, 0, block.to_be_bytes()[1] + 1];
            // What was sent again meanwhile may come before.
            while block < 4 && !client.receive().0.starts_with(&next) {}
        }
        assert_eq!(worker.told(), done(first, true));
    }
}

#[test]
fn a_client_that_begins_anew_ends_its_first_request() {
    let mut worker = Worker::start();
    let client = Client::new();
    let (first, tid) = proven(&mut worker, &client);
    let second = worker.read(&client, &datagram(RRQ, PLAIN), &pattern(2000));
    let (data, other_tid) = client.receive();
    assert!(data.starts_with(&[0, 3, 0, 1]));
    assert_ne!(other_tid, tid);
    client.ack(1, other_tid);
    assert_eq!(worker.told(), ToBroker::Proven { id: second });
    assert_eq!(worker.told(), done(first, true));
    assert_eq!(client.take(2, 512, 1), pattern(2000)[512..]);
    assert_eq!(worker.told(), done(second, true));
}

#[test]
fn a_challenger_of_one_block_ends_the_first_as_well() {
    let mut worker = Worker::start();
    let client = Client::new();
    let (first, _) = proven(&mut worker, &client);
    let second = worker.read(&client, &datagram(RRQ, &["g", "octet"]), b"new");
    assert_eq!(client.take(1, 512, 1), b"new");
    let mut told = [worker.told(), worker.told()];
    told.sort_by_key(|message| *message == done(first, true));
    assert_eq!(told, [done(second, true), done(first, true)]);
}

#[test]
fn a_further_repetition_is_answered_by_the_challenger() {
    let mut worker = Worker::start();
    let client = Client::new();
    proven(&mut worker, &client);
    worker.read(&client, &datagram(RRQ, PLAIN), &pattern(2000));
    let challenger = client.receive();
    let third = worker.request(&client, &datagram(RRQ, PLAIN));
    assert_eq!(client.receive(), challenger);
    assert_eq!(worker.told(), done(third, false));
}

#[test]
fn a_refused_request_leaves_the_transfer_of_the_same_port_alone() {
    let mut worker = Worker::start();
    let client = Client::new();
    let (first, tid) = proven(&mut worker, &client);
    let missing = worker.request(&client, &datagram(RRQ, &["g", "octet"]));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    worker.tell(&ToWorker::Missing { id: missing }, &[]);
    assert!(error(1)(&client.receive().0));
    assert_eq!(worker.told(), done(missing, false));
    client.ack(2, tid);
    assert_eq!(client.take(3, 512, 1), pattern(2000)[1024..]);
    assert_eq!(worker.told(), done(first, true));
}

#[test]
fn a_request_that_was_answered_in_vain_ends_quietly_beside_another() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.timeout_ms = 50));
    let client = Client::new();
    let old = worker.read(&client, &datagram(RRQ, PLAIN), b"old");
    client.receive();
    let new = worker.request(&client, &datagram(RRQ, &["g", "octet"]));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    assert_eq!(worker.told(), done(old, false));
    worker.grant(new, b"new");
    // The old one has sent nothing more.
    assert_eq!(client.take(1, 512, 1), b"new");
    assert_eq!(worker.told(), done(new, true));
}

#[test]
fn a_request_without_an_answer_is_outdated_by_another() {
    let mut worker = Worker::start();
    let client = Client::new();
    let old = worker.request(&client, &datagram(RRQ, PLAIN));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    let new = worker.read(&client, &datagram(RRQ, &["g", "octet"]), b"new");
    worker.grant(old, b"old");
    assert_eq!(worker.told(), done(old, false));
    assert_eq!(client.take(1, 512, 1), b"new");
    assert_eq!(worker.told(), done(new, true));
}
