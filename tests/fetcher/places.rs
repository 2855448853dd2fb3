//! Where the fetcher goes: URLs, redirects, ports, credentials.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc;

use r_tftpd_broker::fetch::{Failure, Fetch};

use crate::harness::{Fetcher, about, fetch, setup};
use r_tftpd_test_support::origin::{Raw, answer, put};

fn redirect(to: &str) -> Vec<u8> {
    answer("302 Found", &format!("Location: {to}\r\n"), b"elsewhere")
}

#[test]
fn what_can_not_be_joined_asks_nobody() {
    let origin = Raw::fixed(answer("200 OK", "", b""));
    let mut fetcher = Fetcher::start(&setup());
    for rest in [&b"../x"[..], b"%2e%2e/x", b"a\\..\\x", b"a\tb", b"\xff"] {
        let fetched = fetcher.fetch(&Fetch {
            rest: rest.into(),
            ..fetch(&origin.url("/a/"))
        });
        assert_eq!(
            fetched.failure(),
            Failure::BadUrl,
            "{}",
            rest.escape_ascii()
        );
    }
    assert_eq!(fetcher.get("file:///etc/passwd").failure(), Failure::BadUrl);
    assert_eq!(origin.requests(), 0);
    fetcher.stop();
}

#[test]
fn a_loop_of_redirects_ends() {
    let origin = Raw::fixed(redirect("/again"));
    let mut fetcher = Fetcher::start(&setup());
    assert_eq!(fetcher.get(&origin.url("/")).failure(), Failure::Redirects);
    assert_eq!(origin.requests(), 6);
    fetcher.stop();
}

#[test]
fn an_answer_behind_redirects_that_may_change_is_marked() {
    let origin = Raw::new(
        |asked, _, stream| match asked.line.split(' ').nth(1).unwrap() {
            "/temporary" => put(stream, redirect("file")),
            "/permanent" => put(stream, answer("301 Moved", "Location: /file\r\n", b"")),
            _ => put(
                stream,
                answer("200 OK", "Cache-Control: max-age=60\r\n", b"x"),
            ),
        },
    );
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.get(&origin.url("/temporary"));
    assert_eq!(fetched.whole(), b"x");
    assert_eq!(fetched.header("cache-control"), ["max-age=60", "no-cache"]);
    assert_eq!(
        fetcher
            .get(&origin.url("/permanent"))
            .header("cache-control"),
        ["max-age=60"]
    );
    fetcher.stop();
}

#[test]
fn a_redirect_leads_to_http_alone() {
    let mut fetcher = Fetcher::start(&setup());
    for to in [
        "ftp://origin.test/",
        "file:///etc/passwd",
        "tftp://origin.test/",
        "http://",
    ] {
        let origin = Raw::fixed(redirect(to));
        assert_eq!(
            fetcher.get(&origin.url("/")).failure(),
            Failure::Redirects,
            "{to}"
        );
    }
    fetcher.stop();
}

#[test]
fn a_port_that_is_not_allowed_is_never_connected_to() {
    let forbidden = TcpListener::bind("127.0.0.1:0").unwrap();
    forbidden.set_nonblocking(true).unwrap();
    let port = forbidden.local_addr().unwrap().port();
    let (by_name, by_address) = (
        format!("http://origin.test:{port}/"),
        format!("http://127.0.0.1:{port}/"),
    );
    let origin = Raw::fixed(redirect(&by_name));
    let mut setup = setup();
    setup.start.ports = vec![(origin.address.port(), origin.address.port())];
    let mut fetcher = Fetcher::start(&setup);
    for url in [&origin.url("/"), &by_name, &by_address] {
        let fetched = fetcher.get(url);
        assert_eq!(fetched.failure(), Failure::PortNotAllowed { port });
        assert!(fetched.failed.unwrap().1.contains("--proxy-ports"));
    }
    assert_eq!(
        forbidden.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    fetcher.stop();
}

#[test]
fn credentials_and_the_client_s_address_stay_with_the_link_s_origin() {
    let (sender, asked) = mpsc::channel();
    let sender = Mutex::new(sender);
    let other = Raw::new(move |request, _, stream| {
        let header = |name| request.header(name).map(String::from);
        let seen = (
            header("authorization"),
            header("x-tftp-client"),
            header("referer"),
        );
        sender.lock().unwrap().send(seen).unwrap();
        put(stream, answer("200 OK", "", b"other"));
    });
    let (sender, first) = mpsc::channel();
    let sender = Mutex::new(sender);
    let to = other.url("/x");
    let origin = Raw::new(move |request, _, stream| {
        let header = |name| request.header(name).map(String::from);
        sender
            .lock()
            .unwrap()
            .send((header("authorization"), header("x-tftp-client")))
            .unwrap();
        let here = request.line.contains(" /a ");
        put(stream, redirect(if here { "/b" } else { &to }));
    });
    let url = origin.url("/a").replace("http://", "http://user:secret@");
    let mut fetcher = Fetcher::start(&setup());
    let fetched = fetcher.fetch(&Fetch {
        about: about(),
        ..fetch(&url)
    });
    assert_eq!(fetched.whole(), b"other");
    for _ in ["/a", "/b"] {
        let (authorization, client) = first.recv().unwrap();
        assert_eq!(authorization.as_deref(), Some("Basic dXNlcjpzZWNyZXQ="));
        assert_eq!(client.as_deref(), Some("192.0.2.7"));
    }
    assert_eq!(asked.recv().unwrap(), (None, None, None));
    fetcher.stop();
}

#[test]
fn no_failure_tells_credentials() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut fetcher = Fetcher::start(&setup());
    for url in [
        format!("http://user:secret@{gone}/"),
        "http://user:secret@nowhere.test/".into(),
        "http://user:secret@h:99999/".into(),
        "ftp://user:secret@h/".into(),
    ] {
        let failed = fetcher.get(&url).failed.unwrap();
        assert!(!failed.1.contains("secret"), "{failed:?}");
    }
    fetcher.stop();
}

#[test]
fn a_refused_connection_is_told_as_such() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut fetcher = Fetcher::start(&setup());
    assert_eq!(
        fetcher.get(&format!("http://{gone}/")).failure(),
        Failure::Refused
    );
    fetcher.stop();
}
