//! Loss, duplicates, repeats, and clients that leave.

use std::time::Duration;

use r_tftpd_test_support::client::{Client, Packet, request};
use r_tftpd_test_support::daemon::message;

use crate::{root_with_file, serve};

/// Long enough to see an answer that should not come.
const SILENCE: Duration = Duration::from_millis(50);

/// No timer of the server fires during a test.
const NO_TIMER: [&str; 2] = ["--timeout", "60"];

fn block(contents: &[u8], number: u16) -> Packet {
    let start = (usize::from(number) - 1) * 512;
    Packet::Data(
        number,
        contents[start..contents.len().min(start + 512)].to_vec(),
    )
}

#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let (root, contents) = root_with_file(1000);
    let daemon = serve(&root, &["--timeout", "0.1"]);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[("tsize", "0")]);
    let first = client.receive();
    assert_eq!(client.receive(), first, "the OACK again");
    client.ack(0);
    assert_eq!(client.receive(), block(&contents, 1));
    assert_eq!(client.receive(), block(&contents, 1));
    client.ack(1);
    assert_eq!(client.receive(), block(&contents, 2));
    client.ack(2);
    let record = daemon.wait_for_request("file");
    assert_eq!(message(&record), "complete");
    assert!(
        record["fields"]["timeouts"].as_u64().unwrap() >= 2,
        "{record}"
    );
    assert!(
        record["fields"]["retransmitted"].as_u64().unwrap() >= 1,
        "{record}"
    );
}

#[test]
fn one_who_never_answers_gets_at_most_four_datagrams() {
    let (root, _) = root_with_file(512 * 100);
    let daemon = serve(&root, &["--timeout", "0.1"]);
    for options in [&[][..], &[("windowsize", "64"), ("blksize", "512")]] {
        let mut client = Client::new(daemon.address());
        client.ask("file", options);
        let received = client.receive_until_silence(Duration::from_secs(1));
        assert!(
            (1..=4).contains(&received.len()),
            "{} datagrams",
            received.len()
        );
        assert!(received.iter().all(|packet| *packet == received[0]));
    }
    let of_requests = |record: &_| message(record) == "timeout";
    assert_eq!(daemon.wait_for_many(2, of_requests).len(), 2);
}

#[test]
fn a_duplicate_ack_in_lock_step_is_ignored() {
    let (root, contents) = root_with_file(512 * 5);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    for _ in 0..10 {
        client.ack(1);
    }
    assert_eq!(client.receive_until_silence(SILENCE), [block(&contents, 2)]);
    client.ack(2);
    client.ack(1);
    client.ack(2);
    client.ack(40_000);
    assert_eq!(client.receive_until_silence(SILENCE), [block(&contents, 3)]);
    for number in 3..=5 {
        client.ack(number);
        client.receive();
    }
    client.ack(6);
    assert_eq!(message(&daemon.wait_for_request("file")), "complete");
}

#[test]
fn edk2_that_acks_every_unexpected_block_does_not_get_a_window_for_each() {
    let (root, contents) = root_with_file(512 * 20);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[("windowsize", "4")]);
    client.receive();
    client.ack(0);
    let window: Vec<Packet> = (1..=4).map(|number| block(&contents, number)).collect();
    assert_eq!(client.receive_until_silence(SILENCE), window);
    // Block 2 was lost: blocks 3 and 4, and whatever comes later, each cause an ACK of block 1.
    for _ in 0..10 {
        client.ack(1);
    }
    let again: Vec<Packet> = (2..=5).map(|number| block(&contents, number)).collect();
    let mut received = client.receive_until_silence(SILENCE);
    assert_eq!(received[..4], again);
    for _ in 0..10 {
        client.ack(1);
    }
    received.extend(client.receive_until_silence(SILENCE));
    // One answer to the ACK that made progress, one to its first repeat.
    assert!(
        received.len() <= 8,
        "{} blocks for repeats of one gap report",
        received.len()
    );
    client.ack(5);
    assert!(
        client
            .receive_until_silence(SILENCE)
            .contains(&block(&contents, 6))
    );
    client.abort(0, "enough");
    daemon.wait_for_request("file");
}

#[test]
fn u_boot_that_keeps_half_a_window_gets_the_other_half() {
    let (root, contents) = root_with_file(512 * 200);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[("windowsize", "64")]);
    client.receive();
    client.ack(0);
    for number in 1..=64 {
        assert_eq!(client.receive(), block(&contents, number));
    }
    client.ack(32);
    assert_eq!(client.receive(), block(&contents, 33));
    client.receive_until_silence(SILENCE);
    client.abort(0, "enough");
    daemon.wait_for_request("file");
}

#[test]
fn raspberry_pi_that_repeats_its_request_gets_the_current_packet_from_the_same_port() {
    let (root, contents) = root_with_file(2000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[("tsize", "0"), ("blksize", "512")]);
    let first = client.receive();
    let tid = client.tid();
    client.ask("file", &[("tsize", "0"), ("blksize", "512")]);
    assert_eq!((client.receive(), client.tid()), (first, tid));
    client.ack(0);
    assert_eq!(client.receive(), block(&contents, 1));
    assert_eq!(client.tid(), tid);
    client.abort(0, "enough");
    daemon.wait_for_request("file");
}

#[test]
fn the_same_request_of_a_proven_client_starts_again_from_a_new_port() {
    let (root, contents) = root_with_file(2000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    let old = client.tid();
    client.ack(1);
    assert_eq!(client.receive(), block(&contents, 2));
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    assert_ne!(client.tid(), old);
    for number in 1..=3 {
        client.ack(number);
        assert_eq!(client.receive(), block(&contents, number + 1));
    }
    let replaced = daemon.wait_for_request("file");
    assert_eq!(message(&replaced), "replaced");
    client.ack(4);
    daemon.wait_for(|record| message(record) == "complete");
}

#[test]
fn a_client_that_keeps_to_its_first_transfer_gets_all_of_it_although_it_asked_twice() {
    let (root, contents) = root_with_file(2000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    let first = client.tid();
    client.ack(1);
    assert_eq!(client.receive(), block(&contents, 2));
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    // RFC 1350 section 4: what comes from another TID is answered with an ERROR.
    client.abort(5, "unknown TID");
    for number in 2..=3 {
        client.send_to(first, &[&[0, 4], &u16::to_be_bytes(number)[..]].concat());
        assert_eq!(client.receive(), block(&contents, number + 1));
        assert_eq!(client.tid(), first);
    }
    client.ack(4);
    let record = daemon.wait_for_request("file");
    assert_eq!(message(&record), "complete");
}

#[test]
fn lpxelinux_that_asks_the_next_file_from_the_same_port_is_served() {
    let (root, contents) = root_with_file(600);
    root.write("next", b"next");
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    client.ack(1);
    assert_eq!(client.receive(), block(&contents, 2));
    // The final ACK was lost, or comes with the next request.
    client.ask("next", &[]);
    assert_eq!(client.receive(), Packet::Data(1, b"next".to_vec()));
    client.ack(1);
    assert_eq!(message(&daemon.wait_for_request("next")), "complete");
}

#[test]
fn packets_from_another_port_do_not_touch_a_transfer() {
    let (root, contents) = root_with_file(1000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    let stranger = Client::new(client.tid());
    stranger.send_to_listener(&[0, 5, 0, 0, 0]);
    stranger.send_to_listener(&[0, 4, 0, 1]);
    assert_eq!(client.receive_within(SILENCE), None);
    client.ack(1);
    assert_eq!(client.receive(), block(&contents, 2));
    client.ack(2);
    assert_eq!(message(&daemon.wait_for_request("file")), "complete");
}

#[test]
fn junk_from_the_client_does_not_touch_its_transfer() {
    let (root, contents) = root_with_file(1000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    for junk in [
        &[][..],
        &[0],
        &[0, 4],
        &[0, 4, 0],
        &[0, 3, 0, 1],
        &[0, 6, 0],
        &[9; 600],
    ] {
        client.send(junk);
    }
    client.send(&request(1, b"other", "octet", &[]));
    assert_eq!(client.receive_within(SILENCE), None);
    // An ACK may be longer than four bytes (msftwindow).
    client.send(&[0, 4, 0, 1, 4]);
    assert_eq!(client.receive(), block(&contents, 2));
    client.ack(2);
    let record = daemon.wait_for_request("file");
    assert!(
        record["fields"]["ignored"].as_u64().unwrap() >= 7,
        "{record}"
    );
}

#[test]
fn a_size_probe_ends_at_once_and_is_no_failure() {
    let (root, _) = root_with_file(1000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask(
        "file",
        &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")],
    );
    assert!(matches!(client.receive(), Packet::Oack(_)));
    client.abort(8, "User aborted the transfer");
    let record = daemon.wait_for_request("file");
    assert_eq!(message(&record), "size-probe");
    assert_eq!(record["level"], "INFO");
    assert_eq!(client.receive_within(SILENCE), None);
}

#[test]
fn an_error_from_the_client_ends_the_transfer_at_once() {
    let (root, contents) = root_with_file(5000);
    let daemon = serve(&root, &NO_TIMER);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), block(&contents, 1));
    client.ack(1);
    client.receive();
    client.send(&[0, 5, 0, 0, b'c', b'l', b'o', b's', b'e', b'd']); // without NUL
    assert_eq!(message(&daemon.wait_for_request("file")), "client-abort");
    assert_eq!(client.receive_within(SILENCE), None);
}
