//! Log records of which there are many are counted instead of written.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use r_tftpd_test_support::client::{Client, request};
use r_tftpd_test_support::daemon::{Daemon, message};
use serde_json::Value;

use crate::{root_with_file, serve};

/// Ends the daemon and waits for the line about records that were not written.
fn similar(daemon: &Daemon, outcome: &str) -> Value {
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for(|record| record["fields"]["outcome"] == outcome)
}

fn count(daemon: &Daemon, text: &str) -> usize {
    let records = daemon.records();
    records
        .iter()
        .filter(|record| message(record) == text)
        .count()
}

#[test]
fn of_many_like_requests_the_first_are_written_and_the_rest_is_counted() {
    let (root, _) = root_with_file(10);
    let daemon = serve(&root, &[]);
    for number in 0..512 {
        let mut client = Client::new(daemon.address());
        client.get(&format!("no{number}"), &[]).unwrap_err();
    }
    // Another outcome of the same client has lines of its own.
    let write = request(2, b"write", "octet", &[]);
    Client::new(daemon.address()).get_raw(&write).unwrap_err();
    daemon.wait_for_request("write");
    let record = similar(&daemon, "missing");
    assert_eq!(message(&record), "+412 similar");
    assert_eq!(
        (&record["target"], &record["level"]),
        (&"r_tftpd::request".into(), &"INFO".into())
    );
    let fields = &record["fields"];
    assert_eq!(
        (&fields["similar"], &fields["peer"], &fields["clients"]),
        (&412.into(), &"127.0.0.1".into(), &1.into())
    );
    assert!(fields["seconds"].as_u64().unwrap() >= 1);
    assert_eq!(count(&daemon, "missing"), 100);
}

#[test]
fn every_transfer_that_was_complete_is_written() {
    let (root, _) = root_with_file(10);
    let daemon = serve(&root, &[]);
    for _ in 0..300 {
        Client::new(daemon.address()).get("file", &[]).unwrap();
    }
    daemon.wait_for_many(300, |record| message(record) == "complete");
}

#[test]
fn with_debug_each_request_is_written() {
    let (root, _) = root_with_file(10);
    let mut command =
        r_tftpd_test_support::daemon::command(std::path::Path::new(crate::R_TFTPD), &[]);
    command
        .env("RUST_LOG", "r_tftpd::request=debug,info")
        .args(["--port", "0", "--listen", "127.0.0.1", "--root"])
        .arg(root.path());
    let daemon = Daemon::spawn(command);
    for _ in 0..110 {
        Client::new(daemon.address()).get("no", &[]).unwrap_err();
    }
    let all = daemon.wait_for_many(110, |record| message(record) == "missing");
    let held = all.iter().filter(|record| record["level"] == "DEBUG");
    assert_eq!(held.count(), 10);
}

#[test]
fn what_the_broker_drops_has_one_line_for_each_client_and_reason() {
    let (root, contents) = root_with_file(10);
    let daemon = serve(&root, &["--deny-net", "127.0.0.3"]);
    let from = |address: &str| {
        let address: SocketAddr = format!("{address}:0").parse().unwrap();
        Client::from_address(address, daemon.address())
    };
    let (junk, other, denied) = (from("127.0.0.2"), from("127.0.0.4"), from("127.0.0.3"));
    for _ in 0..30 {
        junk.send_to_listener(b"\0\x03junk");
        denied.ask("file", &[]);
    }
    other.send_to_listener(b"\0\x03junk");
    let mut honest = Client::new(daemon.address());
    assert_eq!(honest.get("file", &[]).unwrap().bytes, contents);
    let no_request = "datagram dropped: neither RRQ nor WRQ";
    let not_served = "request dropped: network is not served";
    daemon.wait_for_many(2, |record| message(record) == no_request);
    let record = similar(&daemon, no_request);
    let fields = &record["fields"];
    assert_eq!(
        (&fields["peer"], &fields["similar"]),
        (&"127.0.0.2".into(), &29.into())
    );
    let record = similar(&daemon, not_served);
    assert_eq!(record["fields"]["peer"], "127.0.0.3");
    assert_eq!(message(&record), "+29 similar");
    assert_eq!(
        (count(&daemon, no_request), count(&daemon, not_served)),
        (2, 1)
    );
}
