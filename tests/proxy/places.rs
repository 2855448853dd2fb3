//! Where a request can lead, and where it can not.

use r_tftpd_test_support::daemon::Daemon;
use r_tftpd_test_support::files::TempDir;
use r_tftpd_test_support::origin::{Raw, answer};

use crate::{R_TFTPD, get, links, refused, serve};

/// Answers everything that lies in the directory of the links, and tells secrets elsewhere.
fn guarded() -> Raw {
    Raw::answering(|asked, _| {
        let is_below = asked.path().starts_with("/tftp/pub/");
        answer("200 OK", "", if is_below { b"public" } else { b"SECRET" })
    })
}

/// Names that led out of the link's path in version 0.4.0, and relatives of theirs.
const ESCAPES: &[&str] = &[
    "%2e%2e/%2e%2e/secret",
    "%2E%2E/secret",
    "%252e%252e/secret",
    "..\\..\\secret",
    "a\\..\\..\\secret",
    "../../secret",
    "a/../../../secret",
    "..%2f..%2fsecret",
    "..;/..;/secret",
    ".%2e/secret",
    "\t../secret",
    "a\r\nHost: evil",
    "a HTTP/1.1",
];

/// Checks that `origin` heard of nothing but what lies below its directory.
#[track_caller]
fn assert_nothing_escaped(origin: &Raw) {
    for asked in origin.asked() {
        let path = asked.path();
        assert!(path.starts_with("/tftp/pub/"), "{asked:?}");
        assert!(
            !path.contains("..") && !path.to_lowercase().contains("%2e"),
            "{asked:?}"
        );
        assert!(!path.contains(['?', '#', '\\', '@']), "{asked:?}");
        assert_eq!(
            asked.header("host"),
            Some(origin.place().as_str()),
            "{asked:?}"
        );
        assert!(asked.line.ends_with(" HTTP/1.1"), "{asked:?}");
    }
}

#[test]
fn no_name_climbs_above_the_path_of_a_link_or_of_the_fallback() {
    let origin = guarded();
    let url = format!("http://{}/tftp/pub/", origin.place());
    let root = links(&[("link", &url)]);
    let daemon = serve(&root, &["--fallback", &url]);
    for escape in ESCAPES {
        for name in [(*escape).to_owned(), format!("link/{escape}")] {
            let got = get(&daemon, &name).unwrap_or_default();
            assert_ne!(got, b"SECRET", "{name:?}");
        }
    }
    assert_nothing_escaped(&origin);
    assert_eq!(get(&daemon, "link/%41?b#c@d:e").unwrap(), b"public");
    let last = origin.asked().pop().unwrap();
    assert_eq!(last.path().to_lowercase(), "/tftp/pub/%2541%3fb%23c@d:e");
}

#[test]
fn no_name_changes_host_port_user_or_query() {
    let (origin, evil) = (guarded(), Raw::fixed(answer("200 OK", "", b"EVIL")));
    let place = evil.place();
    let port = evil.address.port();
    // Without a slash at its end: names were once appended to the host.
    let fallback = format!("http://{}", origin.place());
    let root = links(&[("link", &fallback)]);
    let daemon = serve(&root, &["--fallback", &fallback]);
    for name in [
        ".evil.test/x".to_owned(),
        "@evil.test/x".to_owned(),
        format!(":{port}/x"),
        format!("@{place}/x"),
        format!("//{place}/x"),
        format!("/\\{place}/x"),
        format!("http://{place}/x"),
        format!("a?b@{place}"),
    ] {
        for name in [name.clone(), format!("link/{name}"), format!("link{name}")] {
            assert_ne!(get(&daemon, &name).unwrap_or_default(), b"EVIL", "{name:?}");
        }
    }
    assert_eq!(evil.requests(), 0);
    assert!(origin.requests() > 0);
    for asked in origin.asked() {
        assert_eq!(
            asked.header("host"),
            Some(origin.place().as_str()),
            "{asked:?}"
        );
        assert_eq!(asked.header("authorization"), None, "{asked:?}");
        assert!(!asked.path().contains('?'), "{asked:?}");
    }
}

#[test]
fn a_port_that_is_not_allowed_is_refused_with_the_flag_that_allows_it() {
    let origin = guarded();
    let root = links(&[("link", &format!("http://{}/", origin.place()))]);
    let daemon = Daemon::start(R_TFTPD.as_ref(), root.path(), &[]);
    refused(&daemon, "link/file", 2);
    let line = daemon.wait_for(|record| record["fields"]["link"] == "link");
    let reason = line["fields"]["reason"].as_str().unwrap();
    assert!(reason.contains("--proxy-ports"), "{line}");
    assert!(
        reason.contains(&origin.address.port().to_string()),
        "{line}"
    );
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_redirect_to_a_port_that_is_not_allowed_is_not_followed() {
    let inner = guarded();
    let location = format!("Location: http://{}/tftp/pub/x\r\n", inner.place());
    let origin = Raw::fixed(answer("302 Found", &location, b""));
    let root = links(&[("link", &format!("http://{}/", origin.place()))]);
    let ports = origin.address.port().to_string();
    let daemon = Daemon::start(R_TFTPD.as_ref(), root.path(), &["--proxy-ports", &ports]);
    refused(&daemon, "link/file", 0);
    assert_eq!((origin.requests(), inner.requests()), (1, 0));
}

#[test]
fn a_link_of_an_unknown_kind_is_denied_with_a_line_that_names_it() {
    for (target, word) in [
        ("ftp://127.0.0.1/x", "ftp"),
        ("file:///etc/passwd", "file"),
        ("file:/etc/passwd", "file"),
        ("gopher://127.0.0.1/", "gopher"),
        ("http+gzip://127.0.0.1/", "gzip"),
        ("http:///x", "host"),
        ("http://127.0.0.1:99999/", "port"),
    ] {
        let root = links(&[("odd", target)]);
        let daemon = serve(&root, &[]);
        refused(&daemon, "odd", 2);
        let line = daemon.wait_for(|record| record["fields"]["link"] == "odd");
        assert_eq!(line["level"], "WARN", "{line}");
        let reason = line["fields"]["reason"].as_str().unwrap();
        assert!(reason.contains(word), "{line}");
    }
}

#[test]
fn credentials_of_a_link_are_used_and_never_logged() {
    let origin = Raw::answering(|asked, _| match asked.path() {
        "/broken" => answer("500 Internal Server Error", "", b"s3cret"),
        _ => answer("200 OK", crate::FRESH, b"contents"),
    });
    let url = format!("http://user:s3cret@{}/", origin.place());
    let root = links(&[("link", &url), ("odd", &url.replace("http:", "http+x:"))]);
    let place = origin.place();
    let mut command = r_tftpd_test_support::daemon::command(R_TFTPD.as_ref(), &[]);
    command
        .env("RUST_LOG", "trace")
        .arg("--root")
        .arg(root.path());
    command.args([
        "--port",
        "0",
        "--listen",
        "127.0.0.1",
        "--proxy-ports",
        "any",
    ]);
    let daemon = Daemon::spawn(command);
    assert_eq!(get(&daemon, "link/file").unwrap(), b"contents");
    refused(&daemon, "link/broken", 0);
    refused(&daemon, "odd", 2);
    daemon.signal(nix::sys::signal::Signal::SIGUSR1);
    crate::wait_for(&daemon, "cache");
    for asked in origin.asked() {
        let sent = asked.header("authorization");
        assert_eq!(sent, Some("Basic dXNlcjpzM2NyZXQ="), "{asked:?}");
    }
    let record = daemon.wait_for_request("link/file");
    assert_eq!(record["fields"]["origin"], format!("http://{place}/file"));
    let records = daemon.records();
    // Also the libraries of the fetcher have told all they can.
    let of_libraries = |record: &serde_json::Value| {
        let target = record["target"].as_str().unwrap_or_default();
        target.starts_with("hyper") || target.starts_with("reqwest")
    };
    assert!(records.iter().any(of_libraries));
    for record in records {
        let text = record.to_string();
        assert!(
            !text.contains("s3cret") && !text.contains("dXNlcjpz"),
            "{text}"
        );
    }
}

#[test]
fn origins_are_told_who_asks_for_what_unless_that_is_off() {
    for (arguments, told) in [(&[][..], true), (&["--no-tftp-headers"], false)] {
        let origin = Raw::fixed(answer("200 OK", "", b"contents"));
        let (_root, daemon) = crate::linked(&origin, "", arguments);
        get(&daemon, "link/some file").unwrap();
        let asked = origin.asked().remove(0);
        for (name, value) in [("x-tftp-client", "127.0.0.1"), ("x-tftp-mode", "octet")] {
            assert_eq!(asked.header(name), told.then_some(value), "{asked:?}");
        }
        let file = asked.header("x-tftp-file");
        assert_eq!(
            file.is_some_and(|file| file.starts_with("link/some")),
            told,
            "{asked:?}"
        );
        let agent = asked.header("user-agent").unwrap();
        assert!(agent.starts_with("r-tftpd/"), "{agent}");
    }
}

#[test]
fn a_name_in_hosts_is_an_origin_too() {
    let origin = Raw::fixed(answer("200 OK", "", b"contents"));
    let port = origin.address.port();
    let root: TempDir = links(&[("link", &format!("http://localhost:{port}/file"))]);
    let daemon = serve(&root, &[]);
    assert_eq!(get(&daemon, "link").unwrap(), b"contents");
    let host = format!("localhost:{port}");
    assert_eq!(origin.asked()[0].header("host"), Some(host.as_str()));
}
