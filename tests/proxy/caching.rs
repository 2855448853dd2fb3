//! What is kept, for how long, and what the operator sees of it.

use nix::sys::signal::Signal;
use r_tftpd_test_support::client::Client;
use r_tftpd_test_support::daemon::message;
use r_tftpd_test_support::origin::{Raw, answer};

use crate::{FRESH, cache_uses, get, linked, records, refused, wait_for};

/// Stale at once, with an ETag by which it can be revalidated.
const STALE: &str = "Cache-Control: max-age=0\r\nETag: \"one\"\r\n";

#[test]
fn nocache_asks_every_time_and_leaves_no_entry() {
    let origin = Raw::fixed(answer("200 OK", FRESH, b"contents"));
    let (_root, daemon) = linked(&origin, "+nocache", &[]);
    for _ in 0..3 {
        assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    }
    assert_eq!(origin.requests(), 3);
    assert_eq!(cache_uses(&daemon, "link/file", 3), ["miss"; 3]);
    daemon.signal(Signal::SIGUSR1);
    assert_eq!(wait_for(&daemon, "cache")["fields"]["entries"], 0);
}

#[test]
fn a_fresh_entry_is_served_with_the_origin_gone() {
    let origin = Raw::fixed(answer("200 OK", FRESH, b"contents"));
    let (_root, daemon) = linked(&origin, "", &[]);
    assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    origin.stop();
    assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    assert_eq!(cache_uses(&daemon, "link/file", 2), ["miss", "hit"]);
    refused(&daemon, "link/other", 0);
}

#[test]
fn a_stale_entry_is_revalidated_by_its_etag() {
    let origin = Raw::answering(|asked, _| match asked.header("if-none-match") {
        Some("\"one\"") => format!("HTTP/1.1 304 Not Modified\r\n{STALE}\r\n").into_bytes(),
        _ => answer("200 OK", STALE, b"contents"),
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    for _ in 0..2 {
        assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    }
    let asked = origin.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("if-none-match"), None);
    assert_eq!(asked[1].header("if-none-match"), Some("\"one\""));
    assert_eq!(cache_uses(&daemon, "link/file", 2), ["miss", "revalidated"]);
}

#[test]
fn a_stale_entry_is_revalidated_by_its_date() {
    let date = "Mon, 02 Nov 2020 10:00:00 GMT";
    let headers = format!("Cache-Control: no-cache\r\nLast-Modified: {date}\r\n");
    let origin = Raw::answering(move |asked, _| match asked.header("if-modified-since") {
        Some(since) if since == date => b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
        _ => answer("200 OK", &headers, b"contents"),
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    for _ in 0..2 {
        assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    }
    assert_eq!(origin.requests(), 2);
    assert_eq!(cache_uses(&daemon, "link/file", 2), ["miss", "revalidated"]);
}

#[test]
fn an_entry_that_has_changed_is_replaced() {
    let origin = Raw::answering(|_, number| {
        let etag = format!("Cache-Control: max-age=0\r\nETag: \"{number}\"\r\n");
        answer("200 OK", &etag, format!("version {number}").as_bytes())
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    for number in 0..3 {
        let expected = format!("version {number}");
        assert_eq!(get(&daemon, "link/file").unwrap(), expected.as_bytes());
    }
}

#[test]
fn a_stale_entry_stands_in_for_an_origin_that_is_gone() {
    let origin = Raw::fixed(answer("200 OK", STALE, b"contents"));
    let (_root, daemon) = linked(&origin, "", &[]);
    assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    origin.stop();
    assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    let record = records(&daemon, "link/file", 2).remove(1);
    assert_eq!(
        (message(&record), &record["fields"]["cache"]),
        ("complete", &"stale".into())
    );
    assert!(record["fields"]["reason"].is_string(), "{record}");
}

#[test]
fn without_stale_if_error_it_does_not() {
    let origin = Raw::fixed(answer("200 OK", STALE, b"contents"));
    let (_root, daemon) = linked(&origin, "", &["--stale-if-error", "0"]);
    assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    origin.stop();
    refused(&daemon, "link/file", 0);
}

#[test]
fn what_is_private_or_not_to_be_stored_is_not_kept() {
    for control in ["no-store", "private", "max-age=0"] {
        let headers = format!("Cache-Control: {control}\r\n");
        let origin = Raw::fixed(answer("200 OK", &headers, b"contents"));
        let (_root, daemon) = linked(&origin, "", &[]);
        for _ in 0..2 {
            assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
        }
        assert_eq!(origin.requests(), 2, "{control}");
    }
}

#[test]
fn that_there_is_no_file_is_remembered_for_a_moment() {
    let origin = Raw::fixed(answer("404 Not Found", "", b""));
    let (_root, daemon) = linked(&origin, "", &[]);
    for _ in 0..3 {
        refused(&daemon, "link/file", 1);
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn sigusr1_lists_the_entries_and_sigusr2_clears_them() {
    let origin = Raw::fixed(answer("200 OK", FRESH, b"contents"));
    let (_root, daemon) = linked(&origin, "", &[]);
    for _ in 0..3 {
        get(&daemon, "link/file").unwrap();
    }
    daemon.signal(Signal::SIGUSR1);
    let entry = wait_for(&daemon, "cache entry");
    let fields = &entry["fields"];
    assert_eq!(fields["url"], format!("http://{}/file", origin.place()));
    assert_eq!((&fields["size"], &fields["hits"]), (&8.into(), &2.into()));
    assert!(
        (500..=600).contains(&fields["fresh_s"].as_u64().unwrap()),
        "{entry}"
    );
    let cache = wait_for(&daemon, "cache");
    assert_eq!(
        (&cache["fields"]["entries"], &cache["fields"]["bytes"]),
        (&1.into(), &8.into())
    );
    daemon.signal(Signal::SIGUSR2);
    wait_for(&daemon, "cache cleared");
    get(&daemon, "link/file").unwrap();
    assert_eq!(origin.requests(), 2);
}

#[test]
fn the_limits_hold() {
    let origin = Raw::fixed(answer("200 OK", FRESH, &[7; 1000]));
    let limits = ["--cache-size", "10K", "--cache-entries", "4"];
    let (_root, daemon) = linked(&origin, "", &limits);
    let mut client = Client::new(daemon.address());
    for number in 0..30 {
        let name = format!("link/{number}");
        assert_eq!(client.get(&name, crate::OPTIONS).unwrap().bytes, [7; 1000]);
    }
    records(&daemon, "link/29", 1);
    daemon.signal(Signal::SIGUSR1);
    let cache = wait_for(&daemon, "cache");
    let fields = &cache["fields"];
    assert_eq!(
        (&fields["entries"], &fields["bytes"]),
        (&4.into(), &4000.into())
    );
}
