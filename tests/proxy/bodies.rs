//! Bodies on their way: their size, their encoding, and what becomes of them when they break off.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use r_tftpd_test_support::client::{Client, Packet, option, request};
use r_tftpd_test_support::daemon::message;
use r_tftpd_test_support::files::pattern;
use r_tftpd_test_support::origin::{Asked, Raw, answer, hang_up, put};

use crate::{FRESH, Gate, OPTIONS, get, linked, refused};

/// A body of 300 kB that breaks off after its first half; after that its rest is sent, if `ranges`.
fn breaking(headers: &'static str, ranges: bool) -> (Raw, Arc<Vec<u8>>) {
    let body = Arc::new(pattern(300_000, 3));
    let sent = Arc::clone(&body);
    let origin = Raw::new(move |asked, number, stream| {
        let first = if ranges { first_byte(asked) } else { None };
        let whole = match first {
            Some(first) => {
                let range = format!("{headers}Content-Range: bytes {first}-299999/300000\r\n");
                answer("206 Partial Content", &range, &sent[first..])
            }
            None => answer("200 OK", headers, &sent),
        };
        if number == 0 {
            put(stream, &whole[..150_000]);
            hang_up(stream);
        } else {
            put(stream, &whole);
        }
    });
    (origin, body)
}

/// Of a `Range` header.
fn first_byte(asked: &Asked) -> Option<usize> {
    let range = asked.header("range")?.strip_prefix("bytes=")?;
    range.strip_suffix('-')?.parse().ok()
}

#[test]
fn a_body_that_breaks_off_is_resumed_by_range() {
    let (origin, body) = breaking("ETag: \"one\"\r\n", true);
    let (_root, daemon) = linked(&origin, "+nocompress", &[]);
    assert!(get(&daemon, "link/file").unwrap() == *body);
    let asked = origin.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("if-range"), Some("\"one\""));
    assert!(first_byte(&asked[1]).unwrap() > 100_000, "{asked:?}");
}

#[test]
fn a_body_that_breaks_off_goes_on_without_ranges_if_its_validator_is_the_same() {
    let (origin, body) = breaking("ETag: \"one\"\r\n", false);
    let (_root, daemon) = linked(&origin, "", &[]);
    assert!(get(&daemon, "link/file").unwrap() == *body);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_body_that_can_not_be_resumed_ends_with_an_error_and_is_not_kept() {
    let (origin, body) = breaking(FRESH, false);
    let (_root, daemon) = linked(&origin, "+nocompress", &[]);
    refused(&daemon, "link/file", 0);
    assert_eq!(origin.requests(), 1);
    assert_eq!(message(&daemon.wait_for_request("link/file")), "failed");
    assert!(get(&daemon, "link/file").unwrap() == *body);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_body_shorter_than_its_content_length_is_never_delivered_as_whole() {
    let origin = Raw::new(|_, _, stream| {
        put(
            stream,
            format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 600\r\n\r\n"),
        );
        put(stream, [1; 100]);
        hang_up(stream);
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    for _ in 0..2 {
        refused(&daemon, "link/file", 0);
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn what_follows_a_body_after_its_content_length_is_no_part_of_anything() {
    let lie = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";
    let origin = Raw::fixed(*lie);
    let (_root, daemon) = linked(&origin, "+nocache", &[]);
    for name in ["link/one", "link/two", "link/three"] {
        assert_eq!(get(&daemon, name).unwrap(), b"body");
    }
}

#[test]
fn two_content_lengths_that_differ_are_refused() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 8\r\n\r\n";
    let origin = Raw::fixed(format!("{head}contents"));
    let (_root, daemon) = linked(&origin, "", &[]);
    refused(&daemon, "link/file", 0);
}

#[test]
fn the_size_is_told_and_sending_begins_before_the_body_is_complete() {
    let (gate, body) = (Gate::default(), pattern(10_000, 1));
    let (held, sent) = (gate.clone(), body.clone());
    let origin = Raw::new(move |_, _, stream| {
        let whole = answer("200 OK", FRESH, &sent);
        let half = whole.len() - 5000;
        put(stream, &whole[..half]);
        held.pass();
        put(stream, &whole[half..]);
    });
    let (_root, daemon) = linked(&origin, "+nocompress", &[]);
    let mut client = Client::new(daemon.address());
    client.ask("link/file", &[("tsize", "0"), ("blksize", "1000")]);
    let Packet::Oack(granted) = client.receive() else {
        panic!("no OACK");
    };
    assert_eq!(option(&granted, "tsize"), Some("10000"));
    client.ack(0);
    assert_eq!(client.receive(), Packet::Data(1, body[..1000].to_vec()));
    client.ack(1);
    assert_eq!(client.receive(), Packet::Data(2, body[1000..2000].to_vec()));
    gate.open();
    for block in 2..11_u16 {
        client.ack(block);
        let start = usize::from(block) * 1000;
        let end = body.len().min(start + 1000);
        assert_eq!(
            client.receive(),
            Packet::Data(block + 1, body[start..end].to_vec())
        );
    }
    client.ack(11);
}

/// An origin whose body is compressed for those who can read it.
fn compressing(body: &[u8]) -> Raw {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    let (body, compressed) = (body.to_vec(), encoder.finish().unwrap());
    Raw::answering(move |asked, _| {
        let accepted = asked.header("accept-encoding").unwrap_or_default();
        if accepted.contains("gzip") {
            let headers = format!("{FRESH}Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n");
            answer("200 OK", &headers, &compressed)
        } else {
            answer("200 OK", FRESH, &body)
        }
    })
}

#[test]
fn a_compressed_body_is_decoded_and_its_size_is_that_of_the_file() {
    let body = b"the same again and again. ".repeat(5000);
    let origin = compressing(&body);
    for (modifiers, tsize) in [("", true), ("", false), ("+nocompress", true)] {
        let (_root, daemon) = linked(&origin, modifiers, &[]);
        let mut options = OPTIONS.to_vec();
        if tsize {
            options.push(("tsize", "0"));
        }
        let transfer = Client::new(daemon.address())
            .get("link/file", &options)
            .unwrap();
        assert!(transfer.bytes == body, "{modifiers}");
        let told = option(&transfer.granted, "tsize");
        assert_eq!(told, tsize.then_some("130000"), "{modifiers}");
    }
}

#[test]
fn a_proxied_file_is_translated_for_netascii() {
    let origin = Raw::fixed(answer("200 OK", FRESH, b"one\ntwo\rthree\n"));
    let (_root, daemon) = linked(&origin, "", &[]);
    let asked = request(1, b"link/file", "netascii", &[("tsize", "0")]);
    for _ in 0..2 {
        let transfer = Client::new(daemon.address()).get_raw(&asked).unwrap();
        assert_eq!(transfer.bytes, b"one\r\ntwo\r\0three\r\n");
        assert_eq!(get(&daemon, "link/file").unwrap(), b"one\ntwo\rthree\n");
    }
    let asked = origin.asked().remove(0);
    assert_eq!(asked.header("x-tftp-mode"), Some("netascii"));
}

#[test]
fn an_empty_file_is_a_file() {
    let origin = Raw::fixed(answer("200 OK", FRESH, b""));
    let (_root, daemon) = linked(&origin, "", &[]);
    for _ in 0..2 {
        assert_eq!(get(&daemon, "link/file").unwrap(), b"");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_chunked_body_is_delivered_whole_or_not_at_all() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let origin = Raw::new(move |asked, _, stream| {
        put(stream, format!("{head}4\r\nbody\r\n"));
        if asked.path() == "/whole" {
            put(stream, "0\r\n\r\n");
        } else {
            hang_up(stream);
        }
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    assert_eq!(get(&daemon, "link/whole").unwrap(), b"body");
    refused(&daemon, "link/cut", 0);
}
