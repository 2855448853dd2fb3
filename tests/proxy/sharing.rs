//! Many clients for one object.

use std::thread;

use r_tftpd_test_support::client::{Client, Packet};
use r_tftpd_test_support::files::pattern;
use r_tftpd_test_support::origin::{Raw, answer, put};

use crate::{FRESH, Gate, OPTIONS, cache_uses, linked};

/// An origin that answers nobody before `gate` is open.
fn gated(gate: &Gate, headers: &'static str, body: &[u8]) -> Raw {
    let (gate, sent) = (gate.clone(), answer("200 OK", headers, body));
    Raw::new(move |_, _, stream| {
        gate.pass();
        put(stream, &sent);
    })
}

#[test]
fn any_number_of_clients_for_a_cold_object_cause_one_request_and_get_it_intact() {
    let (gate, body) = (Gate::default(), pattern(300_000, 5));
    let origin = gated(&gate, FRESH, &body);
    let (_root, daemon) = linked(&origin, "", &[]);
    let clients: Vec<Client> = (0..50).map(|_| Client::new(daemon.address())).collect();
    for client in &clients {
        client.ask("link/file", OPTIONS);
    }
    origin.wait_for_requests(1);
    gate.open();
    thread::scope(|scope| {
        for mut client in clients {
            let body = &body;
            scope.spawn(move || {
                let transfer = client.get_what_was_asked("link/file", OPTIONS).unwrap();
                assert!(transfer.bytes == *body, "{} bytes", transfer.bytes.len());
            });
        }
    });
    assert_eq!(origin.requests(), 1);
    let mut uses = cache_uses(&daemon, "link/file", 50);
    uses.retain(|word| word == "miss");
    assert_eq!(uses.len(), 1);
}

#[test]
fn simultaneous_requests_with_nocache_are_not_merged() {
    let gate = Gate::default();
    let origin = gated(&gate, FRESH, b"contents");
    let (_root, daemon) = linked(&origin, "+nocache", &[]);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::new(daemon.address())).collect();
    for client in &clients {
        client.ask("link/file", OPTIONS);
    }
    origin.wait_for_requests(5);
    gate.open();
    for client in &mut clients {
        let transfer = client.get_what_was_asked("link/file", OPTIONS).unwrap();
        assert_eq!(transfer.bytes, b"contents");
    }
}

#[test]
fn who_waited_for_a_private_answer_fetches_alone() {
    let gate = Gate::default();
    let origin = gated(&gate, "Cache-Control: private\r\n", b"contents");
    let (_root, daemon) = linked(&origin, "", &[]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(daemon.address())).collect();
    for client in &clients {
        client.ask("link/file", OPTIONS);
    }
    origin.wait_for_requests(1);
    gate.open();
    for client in &mut clients {
        let transfer = client.get_what_was_asked("link/file", OPTIONS).unwrap();
        assert_eq!(transfer.bytes, b"contents");
    }
    assert_eq!(origin.requests(), 3);
}

#[test]
fn an_answer_that_varies_by_client_is_fetched_for_each_file_name() {
    let origin = Raw::answering(|asked, _| {
        let headers = format!("{FRESH}Vary: X-TFTP-File\r\n");
        answer(
            "200 OK",
            &headers,
            asked.header("x-tftp-file").unwrap().as_bytes(),
        )
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    // Both names are the same URL.
    for name in ["link/file", "link//file", "link/file", "link//file"] {
        assert_eq!(crate::get(&daemon, name).unwrap(), name.as_bytes());
    }
}

#[test]
fn a_client_that_stands_still_holds_up_nobody_else() {
    let (gate, body) = (Gate::default(), pattern(300_000, 6));
    let origin = gated(&gate, FRESH, &body);
    let (_root, daemon) = linked(&origin, "+nocompress", &[]);
    // It leads: the body is fetched for it.
    let mut still = Client::new(daemon.address());
    still.ask("link/file", &[]);
    origin.wait_for_requests(1);
    let mut other = Client::new(daemon.address());
    other.ask("link/file", OPTIONS);
    gate.open();
    assert_eq!(still.receive(), Packet::Data(1, body[..512].to_vec()));
    let transfer = other.get_what_was_asked("link/file", OPTIONS).unwrap();
    assert!(transfer.bytes == body, "{} bytes", transfer.bytes.len());
    still.ack(1);
    loop {
        // Block 1 may have been sent again meanwhile.
        match still.receive() {
            Packet::Data(1, _) => (),
            packet => break assert_eq!(packet, Packet::Data(2, body[512..1024].to_vec())),
        }
    }
    still.abort(0, "enough");
    assert_eq!(origin.requests(), 1);
}
