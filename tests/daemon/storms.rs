//! Many clients at once, and floods.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use r_tftpd_test_support::DEADLINE;
use r_tftpd_test_support::client::{Client, request};
use r_tftpd_test_support::daemon::message;

use crate::{root_with_file, serve};

/// `number` clients at once, each of which must get the whole file.
fn storm(server: SocketAddr, number: usize, contents: &[u8]) {
    let (sender, receiver) = mpsc::channel();
    for _ in 0..number {
        let sender = sender.clone();
        let thread = thread::Builder::new().stack_size(256 * 1024);
        let client = move || {
            let options = [("blksize", "1468"), ("windowsize", "8")];
            sender.send(
                Client::new(server)
                    .get("file", &options)
                    .map(|transfer| transfer.bytes),
            )
        };
        thread.spawn(client).unwrap();
    }
    for _ in 0..number {
        let bytes = receiver
            .recv_timeout(DEADLINE)
            .expect("every client ends")
            .unwrap();
        assert!(bytes == contents);
    }
}

#[test]
fn more_clients_than_transfers_at_once_all_get_their_file() {
    let (root, contents) = root_with_file(100_000);
    let daemon = serve(&root, &["--max-connections", "8"]);
    storm(daemon.address(), 200, &contents);
    let complete = daemon.wait_for_many(200, |record| message(record) == "complete");
    assert!(
        complete
            .iter()
            .all(|record| record["fields"]["bytes"] == 100_000)
    );
}

#[test]
fn a_hundred_storms_of_one_client_leave_nothing_behind() {
    let (root, contents) = root_with_file(2000);
    let daemon = serve(&root, &[]);
    let worker = daemon.child("r-tftpd-worker");
    let status = worker.status("FDSize");
    for _ in 0..100 {
        storm(daemon.address(), 1, &contents);
    }
    daemon.wait_for_many(100, |record| message(record) == "complete");
    assert_eq!(worker.status("FDSize"), status);
    assert_eq!(daemon.child("r-tftpd-worker"), worker);
}

#[test]
fn requests_that_are_never_acknowledged_keep_no_honest_client_from_finishing() {
    let (root, contents) = root_with_file(50_000);
    let daemon = serve(&root, &["--max-connections", "4"]);
    let flood: Vec<Client> = (0..100).map(|_| Client::new(daemon.address())).collect();
    let asked = request(1, b"file", "octet", &[("timeout", "255"), ("tsize", "0")]);
    for client in flood.iter().cycle().take(1000) {
        client.send_to_listener(&asked);
    }
    storm(daemon.address(), 10, &contents);
}

#[test]
fn clients_that_stop_in_mid_transfer_keep_no_honest_client_from_finishing() {
    let (root, contents) = root_with_file(50_000);
    let daemon = serve(
        &root,
        &[
            "--max-connections",
            "4",
            "--timeout",
            "0.1",
            "--max-retries",
            "3",
        ],
    );
    let mut stopped: Vec<Client> = (0..20).map(|_| Client::new(daemon.address())).collect();
    for client in &mut stopped {
        client.ask("file", &[]);
    }
    for client in &mut stopped[..4] {
        client.receive();
        client.ack(1);
    }
    storm(daemon.address(), 10, &contents);
}
