//! Write requests: refused, or accepted and discarded for testing clients.

use std::fs;

use r_tftpd_test_support::client::{Client, Packet, request};
use r_tftpd_test_support::daemon::message;
use r_tftpd_test_support::files::TempDir;

use crate::{assert_serves, root_with_file, serve};

#[test]
fn a_write_is_refused_with_code_2() {
    let (root, contents) = root_with_file(10);
    let daemon = serve(&root, &[]);
    for (name, mode) in [("file", "octet"), ("new", "octet"), ("new", "netascii")] {
        let mut client = Client::new(daemon.address());
        client.send_to_listener(&request(2, name.as_bytes(), mode, &[("tsize", "10")]));
        assert!(
            matches!(client.receive(), Packet::Error(2, _)),
            "{name} {mode}"
        );
    }
    assert_eq!(message(&daemon.wait_for_request("new")), "read-only");
    assert_eq!(fs::read(root.path().join("file")).unwrap(), contents);
    assert!(!root.path().join("new").exists());
}

#[test]
fn with_wrq_devnull_a_write_is_accepted_and_discarded() {
    let root = TempDir::new();
    let daemon = serve(&root, &["--wrq-devnull"]);
    let mut client = Client::new(daemon.address());
    client.send_to_listener(&request(2, b"upload", "octet", &[]));
    assert_eq!(client.receive(), Packet::Ack(0));
    client.data(1, &[7; 512]);
    assert_eq!(client.receive(), Packet::Ack(1));
    client.data(1, &[7; 512]);
    client.data(2, b"end");
    let answers = [
        client.receive(),
        client
            .receive_within(std::time::Duration::from_millis(50))
            .unwrap_or(Packet::Ack(2)),
    ];
    assert_eq!(answers[1], Packet::Ack(2), "{answers:?}");
    let record = daemon.wait_for_request("upload");
    assert_eq!(message(&record), "discarded");
    assert_eq!(
        (&record["fields"]["kind"], &record["fields"]["bytes"]),
        (&"write".into(), &515.into())
    );
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn with_wrq_devnull_options_and_windows_are_granted() {
    let root = TempDir::new();
    let daemon = serve(&root, &["--wrq-devnull"]);
    let mut client = Client::new(daemon.address());
    let options = [("blksize", "1024"), ("windowsize", "4"), ("tsize", "9216")];
    client.send_to_listener(&request(2, b"upload", "octet", &options));
    let Packet::Oack(granted) = client.receive() else {
        panic!("no OACK")
    };
    let mut granted: Vec<_> = granted
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    granted.sort_unstable();
    assert_eq!(
        granted,
        [("blksize", "1024"), ("tsize", "9216"), ("windowsize", "4")]
    );
    for window in 0..2 {
        for block in 1..=4 {
            client.data(window * 4 + block, &[1; 1024]);
        }
        assert_eq!(client.receive(), Packet::Ack(window * 4 + 4));
    }
    client.data(9, &[1; 1024]);
    client.data(10, &[]);
    assert_eq!(client.receive(), Packet::Ack(10));
    assert_eq!(message(&daemon.wait_for_request("upload")), "discarded");
}

#[test]
fn with_wrq_devnull_files_are_still_served() {
    let (root, contents) = root_with_file(700);
    let daemon = serve(&root, &["--wrq-devnull"]);
    assert_serves(&daemon, &contents);
}
