//! What a worker promises, seen by its broker, its supervisor and its clients.

pub(super) mod harness;
mod kept;
mod late;
mod links;
mod processes;
mod repeats;

use std::rc::Rc;
use std::time::Instant;

use r_tftpd_broker::channel::Channel;
use r_tftpd_broker::wire::{self, Denial, MAX_SCRATCH, ToBroker, ToWorker};

use super::engine::Engine;
use super::idle::IdleSocket;
use super::link::Link;
use super::server::Server;
use super::source::Source;
use super::ticket::Ticket;
use super::transfer::transfer;
use crate::tftp::options::Asked;
use crate::tftp::session::{Extent, Session};
use harness::{Client, Worker, datagram, file, pattern, settings};

const RRQ: u8 = 1;
const WRQ: u8 = 2;

/// What the broker is told when a request has ended.
fn done(id: u64, proven: bool) -> ToBroker {
    let kept = false;
    ToBroker::Done { id, proven, kept }
}

fn error(code: u8) -> impl Fn(&[u8]) -> bool {
    move |packet| packet.starts_with(&[0, 5, 0, code])
}

#[test]
fn a_file_arrives_in_windows_and_everything_is_given_back() {
    let mut worker = Worker::start();
    let client = Client::new();
    let content = pattern(300_000);
    let request = ["big", "octet", "blksize", "1468", "windowsize", "64"];
    let id = worker.read(&client, &datagram(RRQ, &request), &content);
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["blksize", "1468", "windowsize", "64"]));
    client.ack(0, from);
    assert_eq!(client.take(1, 1468, 64), content);
    assert_eq!(worker.told(), ToBroker::Proven { id });
    assert_eq!(worker.told(), done(id, true));
    assert_eq!(worker.counts().transfers, 0);
}

#[test]
fn files_of_every_size_around_a_block_arrive() {
    let mut worker = Worker::start();
    let client = Client::new();
    for length in [0, 1, 511, 512, 513, 1024] {
        let content = pattern(length);
        worker.read(&client, &datagram(RRQ, &["f", "octet"]), &content);
        assert_eq!(client.take(1, 512, 1), content, "{length} bytes");
        while !matches!(worker.told(), ToBroker::Done { proven: true, .. }) {}
    }
}

#[test]
fn a_client_without_a_place_waits_and_goes_on_without_asking_again() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.max_connections = 1));
    let (first, second) = (Client::new(), Client::new());
    let request = datagram(RRQ, &["f", "octet", "blksize", "512"]);
    worker.read(&first, &request, &pattern(700));
    let (_, from) = first.receive();
    first.ack(0, from);
    assert!(matches!(worker.told(), ToBroker::Proven { .. }));
    let id = worker.read(&second, &request, &pattern(600));
    let (_, from) = second.receive();
    second.ack(0, from);
    assert_eq!(worker.told(), ToBroker::Proven { id });
    let counts = worker.counts();
    assert_eq!(
        (counts.transfers, counts.waiting, counts.unproven),
        (1, 1, 0)
    );
    assert_eq!(first.take(1, 512, 1), pattern(700));
    assert_eq!(second.take(1, 512, 1), pattern(600));
}

#[test]
fn a_client_without_a_place_gets_a_window_now_and_then_and_may_finish() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.max_connections = 1));
    let (first, second) = (Client::new(), Client::new());
    let request = datagram(RRQ, &["f", "octet", "blksize", "512", "windowsize", "2"]);
    worker.read(&first, &request, &pattern(700));
    let (_, from) = first.receive();
    first.ack(0, from);
    assert!(matches!(worker.told(), ToBroker::Proven { .. }));
    let id = worker.read(&second, &request, &pattern(600));
    let (_, from) = second.receive();
    for _ in 0..3 {
        second.ack(0, from);
    }
    assert_eq!(worker.told(), ToBroker::Proven { id });
    assert_eq!(worker.counts().waiting, 1);
    assert_eq!(second.take(1, 512, 2), pattern(600));
    assert_eq!(worker.told(), done(id, true));
    assert_eq!((worker.counts().transfers, worker.counts().waiting), (1, 0));
}

#[test]
fn a_file_of_one_block_needs_no_place() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.max_connections = 1));
    let (first, second) = (Client::new(), Client::new());
    worker.read(
        &first,
        &datagram(RRQ, &["f", "octet", "tsize", "0"]),
        b"content",
    );
    let (_, from) = first.receive();
    first.ack(0, from);
    assert!(matches!(worker.told(), ToBroker::Proven { .. }));
    let id = worker.read(&second, &datagram(RRQ, &["f", "octet"]), b"content");
    assert_eq!(second.take(1, 512, 1), b"content");
    assert_eq!(worker.told(), done(id, true));
}

#[test]
fn the_oldest_unproven_request_gives_way() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.max_unproven = 2));
    let clients = [Client::new(), Client::new(), Client::new()];
    let oldest = worker.read(&clients[0], &datagram(RRQ, &["f", "octet"]), b"x");
    worker.read(&clients[1], &datagram(RRQ, &["f", "octet"]), b"x");
    let newest = worker.request(&clients[2], &datagram(RRQ, &["f", "octet"]));
    let told = [worker.told(), worker.told()];
    assert!(told.contains(&done(oldest, false)), "{told:?}");
    assert!(
        told.contains(&ToBroker::Open {
            id: newest,
            path: b"f".to_vec()
        }),
        "{told:?}"
    );
}

#[test]
fn a_request_gives_way_when_the_broker_says_so_but_not_once_proven() {
    let mut worker = Worker::start();
    let clients = [Client::new(), Client::new(), Client::new()];
    let request = datagram(RRQ, &["f", "octet"]);
    let proven = worker.read(&clients[0], &request, &pattern(700));
    let (_, from) = clients[0].receive();
    clients[0].ack(1, from);
    assert_eq!(worker.told(), ToBroker::Proven { id: proven });
    let silent = worker.read(&clients[1], &request, b"x");
    clients[1].receive();
    for replaces in [proven, 77] {
        let id = worker.request_for(&clients[2], &request, Some(replaces));
        assert!(matches!(worker.told(), ToBroker::Open { .. }));
        worker.tell(&ToWorker::Missing { id }, &[]);
        assert_eq!(worker.told(), done(id, false));
    }
    worker.request_for(&clients[2], &request, Some(silent));
    let told = [worker.told(), worker.told()];
    let done = done(silent, false);
    assert!(told.contains(&done), "{told:?}");
    assert_eq!(clients[0].take(2, 512, 1), pattern(700)[512..]);
}

#[test]
fn a_request_that_gave_way_while_the_broker_opens_ends_when_it_has_answered() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.max_unproven = 1));
    let (first, second) = (Client::new(), Client::new());
    let old = worker.request(&first, &datagram(RRQ, &["f", "octet"]));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    worker.request(&second, &datagram(RRQ, &["f", "octet"]));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    worker.grant(old, b"late");
    assert_eq!(worker.told(), done(old, false));
}

#[test]
fn refusals_carry_their_codes_and_end_the_request() {
    let mut worker = Worker::start();
    let client = Client::new();
    let missing = worker.request(&client, &datagram(RRQ, &["f", "octet"]));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    worker.tell(&ToWorker::Missing { id: missing }, &[]);
    assert!(error(1)(&client.receive().0));
    assert_eq!(worker.told(), done(missing, false));
    for (reason, code) in [
        (Denial::OutsideRoot, 2),
        (Denial::NotRegular, 2),
        (Denial::Permission, 2),
        (Denial::Proxy, 2),
        (Denial::Resources, 0),
        (Denial::System, 0),
    ] {
        let id = worker.request(&client, &datagram(RRQ, &["f", "octet"]));
        assert!(matches!(worker.told(), ToBroker::Open { .. }));
        worker.tell(&ToWorker::Denied { id, reason }, &[]);
        assert!(error(code)(&client.receive().0), "{reason:?}");
        assert_eq!(worker.told(), done(id, false));
    }
    for (request, code) in [
        (datagram(RRQ, &["f", "mail"]), 4),
        (datagram(RRQ, &["f"]), 4),
        (datagram(WRQ, &["f", "octet"]), 2),
    ] {
        let id = worker.request(&client, &request);
        assert!(error(code)(&client.receive().0));
        assert_eq!(worker.told(), done(id, false));
    }
}

#[test]
fn a_size_probe_frees_the_transfer_at_once() {
    let mut worker = Worker::start();
    let client = Client::new();
    let id = worker.read(
        &client,
        &datagram(RRQ, &["f", "octet", "tsize", "0"]),
        b"1234567",
    );
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["tsize", "7"]));
    client.send(b"\0\x05\0\x08User aborted the transfer\0", from);
    assert_eq!(worker.told(), done(id, true));
}

#[test]
fn netascii_is_translated_into_a_scratch_file_and_its_size_is_told() {
    let mut worker = Worker::start();
    let client = Client::new();
    let id = worker.read(
        &client,
        &datagram(RRQ, &["f", "netascii", "tsize", "0"]),
        b"a\nb\rc",
    );
    assert_eq!(worker.told(), ToBroker::Scratch { id, size: 7 });
    worker.tell(&ToWorker::Scratch { id }, &[&file(b"").into()]);
    let (oack, from) = client.receive();
    assert_eq!(oack, datagram(6, &["tsize", "7"]));
    client.ack(0, from);
    assert_eq!(client.take(1, 512, 1), b"a\r\nb\r\0c");
}

#[test]
fn netascii_without_line_ends_needs_no_scratch_file() {
    let mut worker = Worker::start();
    let client = Client::new();
    worker.read(&client, &datagram(RRQ, &["f", "netascii"]), b"plain");
    assert_eq!(client.take(1, 512, 1), b"plain");
}

#[test]
fn a_netascii_form_that_is_too_large_or_not_granted_is_refused() {
    let mut worker = Worker::start();
    let client = Client::new();
    let content = vec![b'\n'; usize::try_from(MAX_SCRATCH / 2).unwrap() + 1];
    let id = worker.read(&client, &datagram(RRQ, &["f", "netascii"]), &content);
    assert!(error(0)(&client.receive().0));
    assert_eq!(worker.told(), done(id, false));
    let id = worker.read(&client, &datagram(RRQ, &["f", "netascii"]), b"\n");
    assert_eq!(worker.told(), ToBroker::Scratch { id, size: 2 });
    worker.tell(
        &ToWorker::Denied {
            id,
            reason: Denial::Resources,
        },
        &[],
    );
    assert!(error(0)(&client.receive().0));
    assert_eq!(worker.told(), done(id, false));
}

#[test]
fn a_file_that_is_truncated_while_it_is_sent_ends_with_an_error() {
    let mut worker = Worker::start();
    let client = Client::new();
    let id = worker.request(&client, &datagram(RRQ, &["f", "octet", "blksize", "512"]));
    assert!(matches!(worker.told(), ToBroker::Open { .. }));
    let file = file(&pattern(2000));
    let granted = file.try_clone().unwrap().into();
    worker.tell(
        &ToWorker::File {
            id,
            size: 2000,
            in_memory: false,
        },
        &[&granted],
    );
    let (_, from) = client.receive();
    client.ack(0, from);
    let (data, _) = client.receive();
    assert_eq!(data[4..], pattern(2000)[..512]);
    file.set_len(1000).unwrap();
    client.ack(1, from);
    assert!(error(0)(&client.receive().0));
    assert_eq!(worker.told(), ToBroker::Proven { id });
    assert_eq!(worker.told(), done(id, true));
}

#[test]
fn a_write_is_discarded_where_that_is_allowed() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.wrq_devnull = true));
    let client = Client::new();
    let id = worker.request(&client, &datagram(WRQ, &["f", "octet"]));
    let (ack, from) = client.receive();
    assert_eq!(ack, [0, 4, 0, 0]);
    client.send(&[&[0, 3, 0, 1][..], &pattern(512)].concat(), from);
    assert_eq!(client.receive().0, [0, 4, 0, 1]);
    client.send(&[0, 3, 0, 2, 9], from);
    assert_eq!(client.receive().0, [0, 4, 0, 2]);
    assert_eq!(worker.told(), ToBroker::Proven { id });
    assert_eq!(worker.told(), done(id, true));
}

#[test]
fn a_client_whose_port_is_closed_is_gone_after_two_sends() {
    let mut worker = Worker::start_with(wire_settings(|settings| settings.timeout_ms = 20));
    let client = Client::new();
    let id = worker.read(&client, &datagram(RRQ, &["f", "octet"]), b"x");
    drop(client);
    assert_eq!(worker.told(), done(id, false));
}

#[test]
fn a_waiting_transfer_costs_little_memory() {
    let runtime = super::start_runtime().unwrap();
    let _guard = runtime.enter();
    let (channel, _broker) = Channel::pair().unwrap();
    let server = Server::new(settings(), Link::new(channel).unwrap());
    let address = "127.0.0.1:1"
        .parse::<std::net::SocketAddr>()
        .unwrap()
        .into();
    let asked = wire::Request {
        id: 1,
        peer: address,
        local: address,
        mtu: 0,
        socket: wire::SocketUse::Once,
        replaces: None,
        datagram: vec![],
    };
    let ticket = Rc::new(Ticket::new(
        &asked,
        None,
        IdleSocket::New(file(b"").into()),
        Instant::now(),
    ));
    let source = Source::new(file(b"").into(), 0, false);
    let limits = server.limits(&ticket);
    let extent = Extent {
        len: 0,
        complete: true,
    };
    let session = Session::new(&Asked::default(), &limits, extent, None, Instant::now());
    let socket = IdleSocket::New(file(b"").into());
    let task = transfer(
        server,
        ticket,
        socket,
        Engine::Send(session),
        Some(source),
        None,
        None,
    );
    let size = size_of_val(&task) + size_of::<Ticket>();
    assert!(size <= 1152, "{size} bytes");
}

fn wire_settings(
    change: impl FnOnce(&mut r_tftpd_broker::settings::WorkerStart),
) -> r_tftpd_broker::settings::WorkerStart {
    let mut settings = settings();
    change(&mut settings);
    settings
}
