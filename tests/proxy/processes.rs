//! The processes behind the proxy: their death, their replacement, their sandbox.

use std::net::Shutdown;

use nix::sys::signal::Signal;
use r_tftpd_test_support::client::{Client, Packet};
use r_tftpd_test_support::daemon::{Daemon, message};
use r_tftpd_test_support::files::pattern;
use r_tftpd_test_support::origin::{Raw, answer, put};

use crate::{FRESH, Gate, get, linked, wait_for};

const BLKSIZE: usize = 1000;

/// An origin that holds back the second half of its first answer until `gate` is open.
fn holding(gate: &Gate, body: &[u8]) -> Raw {
    let (gate, whole) = (gate.clone(), answer("200 OK", FRESH, body));
    Raw::new(move |_, number, stream| {
        let half = whole.len() / 2;
        put(stream, &whole[..half]);
        if number == 0 {
            gate.pass();
        }
        put(stream, &whole[half..]);
    })
}

/// A transfer of which the first block has arrived.
fn begun(daemon: &Daemon, body: &[u8]) -> Client {
    let mut client = Client::new(daemon.address());
    client.ask("link/file", &[("blksize", "1000")]);
    assert!(matches!(client.receive(), Packet::Oack(_)));
    client.ack(0);
    assert_eq!(client.receive(), Packet::Data(1, body[..BLKSIZE].to_vec()));
    client
}

/// Goes on to the end; the ERROR's code and text if there is one.
fn finish(client: &mut Client, body: &[u8]) -> Result<(), (u16, String)> {
    for block in 1_u16.. {
        client.ack(block);
        let start = usize::from(block) * BLKSIZE;
        let end = body.len().min(start + BLKSIZE);
        match client.receive() {
            Packet::Data(number, payload) => {
                assert_eq!((number, payload), (block + 1, body[start..end].to_vec()));
            }
            Packet::Error(code, text) => return Err((code, text)),
            other => panic!("unexpected {other:?}"),
        }
        if end - start < BLKSIZE {
            client.ack(block + 1);
            return Ok(());
        }
    }
    Ok(())
}

/// The process ids of broker, worker and fetcher.
fn pids(daemon: &Daemon) -> [i32; 3] {
    ["r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher"].map(|name| daemon.child(name).pid)
}

#[test]
fn a_fetcher_killed_in_mid_download_ends_it_cleanly_and_is_replaced_alone() {
    let (gate, body) = (Gate::default(), pattern(20_500, 1));
    let origin = holding(&gate, &body);
    let (root, daemon) = linked(&origin, "+nocompress", &[]);
    root.write("local", b"local file");
    let before = pids(&daemon);
    let mut client = begun(&daemon, &body);
    daemon.child("r-tftpd-fetcher").signal(Signal::SIGKILL);
    let (code, text) = finish(&mut client, &body).unwrap_err();
    assert_eq!((code, text.as_str()), (0, "File could not be fetched"));
    assert_eq!(get(&daemon, "local").unwrap(), b"local file");
    wait_for(&daemon, "fetcher is back");
    assert!(get(&daemon, "link/file").unwrap() == body);
    let after = pids(&daemon);
    assert_eq!(before[..2], after[..2]);
    assert_ne!(before[2], after[2]);
    assert_eq!(origin.requests(), 2);
    gate.open();
}

#[test]
fn a_reload_in_mid_download_keeps_the_transfer() {
    let (gate, body) = (Gate::default(), pattern(20_500, 1));
    let origin = holding(&gate, &body);
    let (_root, daemon) = linked(&origin, "+nocompress", &[]);
    let before = pids(&daemon);
    let mut client = begun(&daemon, &body);
    daemon.signal(Signal::SIGHUP);
    wait_for(&daemon, "reloaded");
    let after = pids(&daemon);
    for (before, after) in before.iter().zip(after) {
        assert_ne!(*before, after);
    }
    // The new generation fetches for itself.
    assert!(get(&daemon, "link/file").unwrap() == body);
    gate.open();
    assert_eq!(finish(&mut client, &body), Ok(()));
    assert_eq!(origin.requests(), 2);
    daemon.wait_for_many(2, |record| message(record) == "complete");
}

#[test]
fn broker_worker_and_fetcher_stay_in_their_sandboxes_whatever_the_origin_does() {
    let origin = Raw::answering(|asked, _| match asked.path() {
        "/good" => answer("200 OK", FRESH, b"contents"),
        "/status" => answer("599 Odd", "", b""),
        "/unasked" => b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
        "/loop" => answer("302 Found", "Location: /loop\r\n", b""),
        "/elsewhere" => answer("302 Found", "Location: file:///etc/passwd\r\n", b""),
        "/port" => answer("302 Found", "Location: http://127.0.0.1:1/\r\n", b""),
        "/encoding" => answer("200 OK", "Content-Encoding: gzip\r\n", b"no gzip"),
        "/age" => answer(
            "200 OK",
            "Age: -1\r\nExpires: 0\r\nDate: yesterday\r\n",
            b"contents",
        ),
        "/long" => answer("200 OK", &format!("X: {}\r\n", "x".repeat(1 << 20)), b""),
        _ => b"\0\x01\x02 nonsense".to_vec(),
    });
    let (root, daemon) = linked(&origin, "", &[]);
    let before = pids(&daemon);
    let dropping = Raw::new(|_, _, stream| drop(stream.shutdown(Shutdown::Both)));
    std::os::unix::fs::symlink(
        format!("http://{}/", dropping.place()),
        root.path().join("drops"),
    )
    .unwrap();
    for name in [
        "status",
        "unasked",
        "loop",
        "elsewhere",
        "port",
        "encoding",
        "long",
        "nonsense",
    ] {
        let refused = get(&daemon, &format!("link/{name}")).unwrap_err();
        assert_eq!(
            (refused.code, &refused.text[..]),
            (0, "File could not be fetched"),
            "{name}"
        );
    }
    crate::refused(&daemon, "drops/file", 0);
    for name in ["age", "good"] {
        assert_eq!(get(&daemon, &format!("link/{name}")).unwrap(), b"contents");
    }
    assert_eq!(pids(&daemon), before);
    for name in ["r-tftpd-broker", "r-tftpd-worker", "r-tftpd-fetcher"] {
        let process = daemon.child(name);
        assert_eq!(process.status("Seccomp"), "2", "{name}");
        assert_eq!(process.status("NoNewPrivs"), "1", "{name}");
        assert_eq!(process.status("CapEff"), "0000000000000000", "{name}");
    }
    assert_eq!(daemon.supervisor().status("NoNewPrivs"), "1");
}
