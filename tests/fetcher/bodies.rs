//! Bodies and heads: encodings, lengths, limits.

use std::io::Write;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use r_tftpd_broker::fetch::{Failure, Fetch, Validators};

use crate::harness::{Fetcher, about, fetch, setup};
use r_tftpd_test_support::origin::{Raw, answer, pattern, put};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_plain_body_arrives_whole_with_its_length_known_first() {
    let body = pattern(3_000_000);
    let origin = Raw::fixed(answer(
        "200 OK",
        "ETag: \"a\"\r\nSet-Cookie: a=b\r\n",
        &body,
    ));
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.get(&origin.url("/file"));
    assert_eq!(fetched.whole(), body);
    assert_eq!((fetched.status(), fetched.length()), (200, Some(3_000_000)));
    assert_eq!(fetched.header("etag"), ["\"a\""]);
    assert_eq!(fetched.header("set-cookie").len(), 0);
    fetcher.stop();
}

#[test]
fn an_empty_body_is_whole() {
    let origin = Raw::fixed(answer("200 OK", "", b""));
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.get(&origin.url("/empty"));
    assert_eq!((fetched.whole(), fetched.length()), (&b""[..], Some(0)));
    fetcher.stop();
}

#[test]
fn the_lock_down_is_complete() {
    let fetcher = Fetcher::start(&setup());
    let facts = fetcher.facts;
    assert!(facts.no_new_privs && facts.no_capabilities && facts.uid != 0);
    assert!(facts.landlock_abi > 0 && facts.system_calls > 0);
    fetcher.stop();
}

#[test]
fn compressed_bodies_are_decoded_and_their_length_is_unknown() {
    let body = pattern(500_000);
    let mut fetcher = Fetcher::start(&setup());
    for (name, compressed) in [("gzip", gzip(&body)), ("deflate", zlib(&body))] {
        let headers = format!("Content-Encoding: {name}\r\n");
        let origin = Raw::fixed(answer("200 OK", &headers, &compressed));
        let fetched = fetcher.get(&origin.url("/file"));
        assert_eq!(fetched.whole(), body, "{name}");
        assert_eq!(fetched.length(), None);
    }
    fetcher.stop();
}

#[test]
fn brotli_and_zstd_are_decoded() {
    let body = pattern(1000);
    // RFC 7932, section 9: window, one block stored as it is, an empty last one.
    let brotli = [&[0x70, 0x3e, 0x10][..], &body, &[0x03]].concat();
    // RFC 8878, section 3.1: magic, content size 1000 - 256, one last block stored as it is.
    let zstd = [&b"\x28\xb5\x2f\xfd\x60\xe8\x02\x41\x1f\x00"[..], &body].concat();
    let mut fetcher = Fetcher::start(&setup());
    for (name, encoded) in [("br", &brotli), ("zstd", &zstd)] {
        let headers = format!("Content-Encoding: {name}\r\n");
        let origin = Raw::fixed(answer("200 OK", &headers, encoded));
        assert_eq!(
            fetcher.get(&origin.url("/")).whole(),
            pattern(1000),
            "{name}"
        );
        let cut = &encoded[..encoded.len() - 3];
        let origin = Raw::fixed(answer("200 OK", &headers, cut));
        assert_eq!(
            fetcher.get(&origin.url("/")).failure(),
            Failure::BrokenOff,
            "{name}"
        );
    }
    fetcher.stop();
}

#[test]
fn a_compressed_body_that_was_cut_is_broken_off() {
    let whole = gzip(&pattern(100_000));
    let mut fetcher = Fetcher::start(&setup());
    for length in [1, 5, whole.len() / 2, whole.len() - 1] {
        let body = &whole[..length];
        let origin = Raw::fixed(answer("200 OK", "Content-Encoding: gzip\r\n", body));
        assert_eq!(
            fetcher.get(&origin.url("/")).failure(),
            Failure::BrokenOff,
            "{length}"
        );
    }
    fetcher.stop();
}

#[test]
fn nocompress_asks_for_the_body_as_it_is_and_leaves_it_so() {
    let compressed = gzip(b"a file that is itself a .gz");
    let body = compressed.clone();
    let (sender, asked) = mpsc::channel();
    let sender = Mutex::new(sender);
    let origin = Raw::new(move |request, _, stream| {
        sender
            .lock()
            .unwrap()
            .send(request.header("accept-encoding").map(String::from))
            .unwrap();
        put(
            stream,
            answer("200 OK", "Content-Encoding: gzip\r\n", &body),
        );
    });
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.fetch(&Fetch {
        identity: true,
        ..fetch(&origin.url("/initrd.gz"))
    });
    assert_eq!(fetched.whole(), compressed);
    assert_eq!(fetched.length(), Some(compressed.len() as u64));
    assert_eq!(asked.recv().unwrap().as_deref(), Some("identity"));
    fetcher.get(&origin.url("/"));
    let encodings = asked.recv().unwrap().unwrap();
    for name in ["gzip", "br", "zstd", "deflate"] {
        assert!(encodings.contains(name), "{encodings}");
    }
    fetcher.stop();
}

#[test]
fn a_chunked_body_ends_with_its_last_chunk_alone() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let mut fetcher = Fetcher::start(&setup());
    let origin = Raw::fixed(format!("{head}2\r\nde\r\n0\r\n\r\n"));
    let fetched = fetcher.get(&origin.url("/"));
    assert_eq!((fetched.whole(), fetched.length()), (&b"abcde"[..], None));
    for tail in ["", "2\r\nd", "2\r\nde\r\n", "x\r\n"] {
        let text = format!("{head}{tail}");
        let origin = Raw::new(move |_, _, stream| {
            put(stream, &text);
            r_tftpd_test_support::origin::hang_up(stream);
        });
        assert_eq!(
            fetcher.get(&origin.url("/")).failure(),
            Failure::BrokenOff,
            "{tail:?}"
        );
    }
    fetcher.stop();
}

#[test]
fn the_first_bytes_are_reported_long_before_the_last() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Raw::new(move |_, _, stream| {
        put(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst");
        wait.lock().unwrap().recv().unwrap();
        put(stream, "last");
    });
    let mut fetcher = Fetcher::start(&setup());
    let file = std::fs::File::from(crate::harness::granted(b""));
    fetcher.ask(&fetch(&origin.url("/")), &file);
    assert!(matches!(
        fetcher.receive(),
        r_tftpd_broker::fetch::FromFetcher::Head(_)
    ));
    let extent = r_tftpd_broker::fetch::FromFetcher::Extent { job: 1, len: 5 };
    assert_eq!(fetcher.receive(), extent);
    assert_eq!(crate::harness::content(&file), b"first");
    go.send(()).unwrap();
    assert!(matches!(
        fetcher.receive(),
        r_tftpd_broker::fetch::FromFetcher::End { len: 9, .. }
            | r_tftpd_broker::fetch::FromFetcher::Extent { len: 9, .. }
    ));
    fetcher.stop();
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_or_while_it_grows() {
    let mut setup = setup();
    setup.start.max_object = 1000;
    let mut fetcher = Fetcher::start(&setup);
    let exact = Raw::fixed(answer("200 OK", "", &pattern(1000)));
    assert_eq!(fetcher.get(&exact.url("/")).whole().len(), 1000);
    let known = Raw::fixed(answer("200 OK", "", &pattern(1001)));
    let fetched = fetcher.get(&known.url("/"));
    assert_eq!((fetched.failure(), fetched.head), (Failure::TooLarge, None));
    let bomb = gzip(&vec![0; 10_000_000]);
    let growing = Raw::fixed(answer("200 OK", "Content-Encoding: gzip\r\n", &bomb));
    let fetched = fetcher.get(&growing.url("/"));
    assert_eq!(fetched.failure(), Failure::TooLarge);
    assert!(fetched.body.len() <= 1000);
    fetcher.stop();
}

#[test]
fn validators_are_sent_and_304_has_no_body() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let origin = Raw::new(move |asked, _, stream| {
        let header = |name| asked.header(name).map(String::from);
        let pair = (header("if-none-match"), header("if-modified-since"));
        log.lock().unwrap().push(pair);
        put(
            stream,
            "HTTP/1.1 304 Not Modified\r\nETag: \"b\"\r\nCache-Control: max-age=5\r\n\r\n",
        );
    });
    let date = "Mon, 02 Nov 2026 10:00:00 GMT";
    let validators = Validators {
        etag: Some(b"W/\"a\"".to_vec()),
        last_modified: Some(date.as_bytes().to_vec()),
    };
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.fetch(&Fetch {
        validators,
        ..fetch(&origin.url("/"))
    });
    assert_eq!((fetched.status(), fetched.whole()), (304, &b""[..]));
    assert_eq!(fetched.header("cache-control"), ["max-age=5"]);
    // Unasked.
    assert_eq!(fetcher.get(&origin.url("/")).status(), 304);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], (Some("W/\"a\"".into()), Some(date.into())));
    assert_eq!(seen[1], (None, None));
    drop(seen);
    fetcher.stop();
}

#[test]
fn the_body_of_an_error_is_not_kept_and_its_connection_is_used_again() {
    let ports = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ports);
    let origin = Raw::new(move |_, _, stream| {
        log.lock().unwrap().push(stream.peer_addr().unwrap().port());
        put(stream, answer("404 Not Found", "", b"no such file"));
    });
    let mut fetcher = Fetcher::start(&setup());
    for _ in 0..3 {
        let fetched = fetcher.get(&origin.url("/missing"));
        assert_eq!((fetched.status(), fetched.whole()), (404, &b""[..]));
    }
    fetcher.stop();
    let mut ports = ports.lock().unwrap().clone();
    ports.dedup();
    assert!(ports.len() < 3, "{ports:?}");
}

#[test]
fn the_origin_learns_who_asked_only_if_it_is_to() {
    let (sender, asked) = mpsc::channel();
    let sender = Mutex::new(sender);
    let origin = Raw::new(move |request, _, stream| {
        sender.lock().unwrap().send(request.clone()).unwrap();
        put(stream, answer("200 OK", "", b""));
    });
    let told = Fetch {
        about: about(),
        rest: b"a b/c?d".to_vec(),
        ..fetch(&origin.url("/x?q"))
    };
    let mut fetcher = Fetcher::start(&setup());
    fetcher.fetch(&told);
    let request = asked.recv().unwrap();
    assert_eq!(request.line, "GET /x/a%20b/c%3Fd?q HTTP/1.1");
    assert_eq!(request.header("user-agent"), Some("r-tftpd/test"));
    assert_eq!(request.header("x-tftp-client"), Some("192.0.2.7"));
    assert_eq!(request.header("x-tftp-file"), Some("grub/a%20b%0D%0Ax"));
    assert_eq!(request.header("x-tftp-mode"), Some("octet"));
    assert_eq!(request.header("authorization"), None);
    fetcher.stop();
    let mut setup = setup();
    setup.start.about = false;
    let mut fetcher = Fetcher::start(&setup);
    fetcher.fetch(&told);
    assert_eq!(asked.recv().unwrap().header("x-tftp-client"), None);
    fetcher.stop();
}

#[test]
fn headers_without_end_are_given_up() {
    let origin = Raw::new(|_, _, stream| {
        put(stream, "HTTP/1.1 200 OK\r\n");
        for index in 0..20_000 {
            put(stream, format!("X-{index}: {}\r\n", "y".repeat(90)));
        }
        put(stream, "\r\n");
    });
    let mut fetcher = Fetcher::start(&setup());
    assert_eq!(fetcher.get(&origin.url("/")).failure(), Failure::BrokenOff);
    fetcher.stop();
}
