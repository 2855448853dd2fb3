//! Names, by a name server that is this test and answers over TCP alone.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use r_tftpd_broker::fetch::{Failure, FromFetcher};

use crate::harness::{Fetcher, Setup, fetch, granted, setup};
use r_tftpd_test_support::origin::{Raw, answer};

/// Answers A queries for `boot.test` with 127.0.0.1, other queries for it with nothing, and
/// queries for any other name with NXDOMAIN. For `hostileN.test` it has an address, too, and tells
/// it in the N-th wrong way.
struct NameServer {
    port: u16,
    queries: Arc<AtomicUsize>,
}

impl NameServer {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counter = Arc::clone(&counter);
                thread::spawn(move || while reply(&stream, &counter).is_some() {});
            }
        });
        Self { port, queries }
    }
}

/// RFC 1035, sections 4.1 and 4.2.2.
fn reply(mut stream: &TcpStream, counter: &AtomicUsize) -> Option<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut query = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut query).ok()?;
    counter.fetch_add(1, Ordering::SeqCst);
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 1;
    let question = &query[12..name_end + 4];
    let label = &query[13..13 + usize::from(query[12])];
    let hostile = str::from_utf8(label).ok()?.strip_prefix("hostile");
    let known = hostile.is_some() || question.starts_with(b"\x04boot\x04test\x00");
    let address = known && question[name_end - 12..].starts_with(&[0, 1]);
    let code = if known { 0 } else { 3 };
    let mut reply = [
        &query[..2],
        &[0x81, 0x80 | code, 0, 1, 0, u8::from(address)],
        &[0; 4],
        question,
    ]
    .concat();
    if address {
        // The name is that of the question; type A, class IN, 60 seconds, 4 bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    let mut length = u16::try_from(reply.len()).ok()?;
    if let Some(way) = hostile {
        length = damage(way.parse().ok()?, length, &mut reply, name_end + 4);
    }
    stream.write_all(&length.to_be_bytes()).ok()?;
    stream.write_all(&reply).ok()?;
    // Who is told too much waits for the rest: there is none.
    (usize::from(length) == reply.len()).then_some(())
}

/// How many wrong ways there are.
const WAYS: usize = 17;

/// Makes an answer wrong: its length in front, its header, or what follows the question. The
/// address stays that of this machine, so that nobody else is ever asked.
fn damage(way: usize, length: u16, reply: &mut Vec<u8>, end: usize) -> u16 {
    let has_record = reply.len() > end;
    let mut put = |place: usize, bytes: &[u8]| {
        if has_record || place + bytes.len() <= end {
            reply[place..place + bytes.len()].copy_from_slice(bytes);
        }
    };
    match way {
        0 => reply.clear(),
        1 => reply.truncate(end - 3),
        2 => return u16::MAX,
        3 => return 0,
        4 => return 1,
        5 => put(0, &[0xff, 0xff]),
        6 => put(2, &[0x01]),
        7 => put(2, &[0x83]),
        8 => put(6, &[0xff, 0xff]),
        9 => put(13, b"HOSTILE"),
        // A name that points to itself, and one that has no end.
        10 => put(end, &[0xc0, u8::try_from(end).unwrap()]),
        11 => put(end, &[0xff, 0xff]),
        // Records of a length that can not be, and an alias of itself.
        12 => put(end + 10, &[0xff, 0xff]),
        13 => put(end + 10, &[0, 3]),
        14 => put(end + 2, &[0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]),
        15 => reply[4..].fill(0xff),
        _ => {
            reply.resize(usize::from(u16::MAX), 0xc0);
            return u16::MAX;
        }
    }
    if way > 1 { length } else { length + 9 }
}

/// With the name server in place of the hosts file.
fn asking(port: u16) -> Setup {
    let mut setup = setup();
    setup.start.dns_port = port;
    setup.resolv_conf = b"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".into();
    setup.hosts = Vec::new();
    setup
}

/// Landlock lets the fetcher reach the origin's port and the name server's.
fn finding(server: &NameServer, port: u16) -> Setup {
    let mut setup = asking(server.port);
    setup.start.ports = vec![(port, port)];
    setup
}

#[test]
fn a_name_is_resolved_over_tcp() {
    let server = NameServer::new();
    let origin = Raw::fixed(answer("200 OK", "", b"found"));
    let port = origin.address.port();
    let mut fetcher = Fetcher::start(&finding(&server, port));
    let url = format!("http://boot.test:{port}/");
    assert_eq!(fetcher.get(&url).whole(), b"found");
    let asked = server.queries.load(Ordering::SeqCst);
    assert!(asked > 0);
    // The second time it is known.
    assert_eq!(fetcher.get(&url).whole(), b"found");
    assert_eq!(server.queries.load(Ordering::SeqCst), asked);
    let unknown = fetcher.get(&format!("http://nowhere.test:{port}/"));
    assert_eq!(unknown.failure(), Failure::Dns);
    // The name server's port is not for links.
    let fetched = fetcher.get(&format!("http://127.0.0.1:{}/", server.port));
    assert_eq!(
        fetched.failure(),
        Failure::PortNotAllowed { port: server.port }
    );
    fetcher.stop();
}

#[test]
fn a_name_server_without_tcp_fails_as_dns_and_nothing_else_is_asked() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut fetcher = Fetcher::start(&asking(gone));
    for _ in 0..2 {
        assert_eq!(fetcher.get("http://boot.test/").failure(), Failure::Dns);
    }
    fetcher.stop();
}

#[test]
fn a_name_server_that_is_silent_fails_as_dns_before_the_connection_times_out() {
    // Its backlog takes connections, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = asking(silent.local_addr().unwrap().port());
    setup.resolv_conf = b"nameserver 127.0.0.1\noptions timeout:5 attempts:2\n".into();
    setup.start.connect_timeout_ms = 400;
    let mut fetcher = Fetcher::start(&setup);
    assert_eq!(fetcher.get("http://boot.test/").failure(), Failure::Dns);
    fetcher.stop();
}

#[test]
fn wrong_dns_answers_end_as_dns_and_the_next_name_is_resolved() {
    let server = NameServer::new();
    let origin = Raw::fixed(answer("200 OK", "", b"found"));
    let port = origin.address.port();
    let mut fetcher = Fetcher::start(&finding(&server, port));
    let file = File::from(granted(b""));
    for way in 0..WAYS {
        fetcher.ask(&fetch(&format!("http://hostile{way}.test:{port}/")), &file);
    }
    let (mut whole, mut failed) = (0, 0);
    while whole + failed < WAYS {
        match fetcher.receive() {
            // What is said in a wrong way can still be understood.
            FromFetcher::Head(head) => assert_eq!(head.status, 200),
            FromFetcher::Extent { .. } => (),
            FromFetcher::End { .. } => whole += 1,
            FromFetcher::Failed { job, failure, .. } => {
                assert_eq!(failure, Failure::Dns, "job {job}");
                failed += 1;
            }
            FromFetcher::Hello(_) => panic!("a second greeting"),
        }
    }
    assert!(failed > 10, "{whole} whole, {failed} failed");
    let url = format!("http://boot.test:{port}/");
    assert_eq!(fetcher.get(&url).whole(), b"found");
    fetcher.stop();
}

#[test]
fn a_listed_host_needs_no_name_server() {
    let server = NameServer::new();
    let origin = Raw::fixed(answer("200 OK", "", b"listed"));
    let mut setup = asking(server.port);
    setup.hosts = b"127.0.0.1 origin.test\n".into();
    let mut fetcher = Fetcher::start(&setup);
    assert_eq!(fetcher.get(&origin.url("/")).whole(), b"listed");
    assert_eq!(server.queries.load(Ordering::SeqCst), 0);
    fetcher.stop();
}
