//! What clients are told when an origin does not give a file.

use std::net::{Shutdown, TcpListener};

use r_tftpd_test_support::origin::{Raw, answer};

use crate::{get, linked, links, refused, serve};

#[test]
fn every_status_has_its_code_and_a_fixed_text() {
    for (status, code) in [
        ("404 Not Found", 1),
        ("410 Gone", 1),
        ("401 Unauthorized", 2),
        ("403 Forbidden", 2),
        ("400 Bad Request", 0),
        ("500 Internal Server Error", 0),
        ("503 Service Unavailable", 0),
    ] {
        let origin = Raw::fixed(answer(status, "", b"Apache/1.3 at 192.0.2.1, /srv/secret"));
        let (_root, daemon) = linked(&origin, "", &[]);
        refused(&daemon, "link/file", code);
        let record = daemon.wait_for_request("link/file");
        let reason = record["fields"]["reason"].as_str().unwrap();
        assert!(reason.contains(&status[..3]), "{record}");
    }
}

#[test]
fn an_origin_that_is_not_there_is_code_0_and_the_log_has_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    drop(listener);
    let root = links(&[("link", &format!("http://{place}/"))]);
    let daemon = serve(&root, &[]);
    refused(&daemon, "link/file", 0);
    let record = daemon.wait_for_request("link/file");
    let reason = record["fields"]["reason"].as_str().unwrap();
    assert!(reason.to_lowercase().contains("refused"), "{record}");
}

#[test]
fn an_origin_that_closes_or_talks_nonsense_is_code_0() {
    let answers: [&'static [u8]; 3] = [b"", b"HTTP/1.1 20", b"220 mail ready\r\n"];
    for sent in answers {
        let origin = Raw::new(move |_, _, stream| {
            r_tftpd_test_support::origin::put(stream, sent);
            let _ = stream.shutdown(Shutdown::Both);
        });
        let (_root, daemon) = linked(&origin, "", &[]);
        refused(&daemon, "link/file", 0);
        assert!(origin.requests() > 0);
    }
}

#[test]
fn an_origin_that_does_not_answer_is_code_0_after_the_time_for_it() {
    let origin = Raw::new(|_, _, _| ());
    let (_root, daemon) = linked(&origin, "", &["--proxy-timeout", "0.3"]);
    refused(&daemon, "link/file", 0);
    let record = daemon.wait_for_request("link/file");
    let reason = record["fields"]["reason"].as_str().unwrap();
    assert!(reason.contains("time"), "{record}");
}

#[test]
fn a_loop_of_redirects_and_an_unasked_304_are_code_0() {
    for sent in [
        answer("302 Found", "Location: /again\r\n", b""),
        b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_vec(),
    ] {
        let origin = Raw::fixed(sent);
        let (_root, daemon) = linked(&origin, "", &[]);
        refused(&daemon, "link/file", 0);
        assert!(origin.requests() < 20);
    }
}

#[test]
fn a_redirect_is_followed() {
    let origin = Raw::answering(|asked, _| match asked.path() {
        "/old" => answer("301 Moved Permanently", "Location: /new\r\n", b""),
        _ => answer("200 OK", "", b"contents"),
    });
    let (_root, daemon) = linked(&origin, "", &[]);
    assert_eq!(get(&daemon, "link/old").unwrap(), b"contents");
}

#[test]
fn an_object_above_the_limit_is_refused() {
    let origin = Raw::fixed(answer("200 OK", "", &[0; 1001]));
    let (_root, daemon) = linked(&origin, "", &["--cache-max-object", "1000"]);
    refused(&daemon, "link/file", 0);
    let (_root, daemon) = linked(&origin, "", &["--cache-max-object", "1001"]);
    assert_eq!(get(&daemon, "link/file").unwrap().len(), 1001);
}
