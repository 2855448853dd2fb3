//! Limits of one client.

use std::time::Duration;

use r_tftpd_test_support::client::{Client, Packet};

use crate::{root_with_file, serve};

#[test]
fn one_address_has_no_more_requests_at_once_than_allowed() {
    let (root, contents) = root_with_file(5000);
    let daemon = serve(&root, &["--max-per-client", "3", "--timeout", "60"]);
    let mut held: Vec<Client> = (0..3).map(|_| Client::new(daemon.address())).collect();
    for client in &mut held {
        client.ask("file", &[]);
        assert!(matches!(client.receive(), Packet::Data(1, _)));
        client.ack(1);
        assert!(matches!(client.receive(), Packet::Data(2, _)));
    }
    let mut fourth = Client::new(daemon.address());
    fourth.ask("file", &[]);
    let answer = fourth.receive_within(Duration::from_millis(100));
    assert!(!matches!(answer, Some(Packet::Data(..))), "{answer:?}");
    held[0].abort(0, "make room");
    daemon.wait_for_request("file");
    assert_eq!(fourth.get("file", &[]).unwrap().bytes, contents);
}

#[test]
fn transfers_beyond_max_connections_wait_their_turn() {
    let (root, contents) = root_with_file(5000);
    let daemon = serve(&root, &["--max-connections", "1", "--timeout", "60"]);
    let mut first = Client::new(daemon.address());
    first.ask("file", &[]);
    first.receive();
    first.ack(1);
    first.receive();
    let second = std::thread::spawn({
        let server = daemon.address();
        move || Client::new(server).get("file", &[]).unwrap().bytes
    });
    for number in 2..=10 {
        first.ack(number);
        if number < 10 {
            assert!(matches!(first.receive(), Packet::Data(block, _) if block == number + 1));
        }
    }
    assert_eq!(second.join().unwrap(), contents);
}
