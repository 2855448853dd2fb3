//! One record for each request.

use r_tftpd_test_support::client::{Client, request};
use r_tftpd_test_support::daemon::{is_request, message};
use r_tftpd_test_support::files::TempDir;
use serde_json::Value;

use crate::{root_with_file, serve};

#[test]
fn a_transfer_has_one_record_with_all_its_figures() {
    let (root, contents) = root_with_file(100_000);
    let daemon = serve(&root, &[]);
    let mut client = Client::new(daemon.address());
    let options = [
        ("blksize", "1468"),
        ("tsize", "0"),
        ("windowsize", "64"),
        ("timeout", "2"),
    ];
    assert_eq!(client.get("file", &options).unwrap().bytes, contents);
    let record = daemon.wait_for_request("file");
    let fields = &record["fields"];
    assert_eq!(
        (message(&record), &record["level"]),
        ("complete", &Value::from("INFO"))
    );
    assert_eq!(fields["peer"], client.address().to_string());
    assert_eq!(fields["local"], client.tid().to_string());
    assert_eq!(
        (&fields["kind"], &fields["mode"]),
        (&"read".into(), &"octet".into())
    );
    for list in ["asked", "granted"] {
        let text = fields[list].as_str().unwrap();
        for option in ["blksize=1468", "tsize", "windowsize=64", "timeout=2"] {
            assert!(text.contains(option), "{list}: {text}");
        }
    }
    assert_eq!(
        (&fields["size"], &fields["bytes"]),
        (&100_000.into(), &100_000.into())
    );
    assert!(fields["blocks"].as_u64().unwrap() >= 69);
    for count in ["id", "retransmitted", "timeouts", "ignored"] {
        assert!(fields[count].is_u64(), "{count}: {record}");
    }
    assert!(fields["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(fields["rate"].as_f64().unwrap() > 0.0);
    daemon.signal(nix::sys::signal::Signal::SIGUSR1);
    assert_eq!(
        daemon
            .records()
            .iter()
            .filter(|record| is_request(record))
            .count(),
        1
    );
}

#[test]
fn every_outcome_has_its_word() {
    let (root, _) = root_with_file(600);
    root.write("directory/x", b"");
    let daemon = serve(&root, &[]);
    for (opcode, name, mode, outcome) in [
        (1, "missing", "octet", "missing"),
        (1, "directory", "octet", "denied"),
        (2, "write", "octet", "read-only"),
    ] {
        let asked = request(opcode, name.as_bytes(), mode, &[]);
        Client::new(daemon.address()).get_raw(&asked).unwrap_err();
        let record = daemon.wait_for_request(name);
        assert_eq!(message(&record), outcome, "{record}");
        assert_eq!(record["level"], "INFO", "{record}");
    }
    for (datagram, outcome) in [
        (&b"\0\x01no end"[..], "malformed"),
        (b"\0\x01x\0mail\0", "bad-mode"),
    ] {
        Client::new(daemon.address()).send_to_listener(datagram);
        daemon.wait_for(|record| is_request(record) && message(record) == outcome);
    }
}

#[test]
fn names_are_escaped() {
    let root = TempDir::new();
    let daemon = serve(&root, &[]);
    let name = b"a\nb\x1b[31m\xff\"\\\r";
    let mut client = Client::new(daemon.address());
    client.get_raw(&request(1, name, "octet", &[])).unwrap_err();
    let record = daemon.wait_for(is_request);
    let file = record["fields"]["file"].as_str().unwrap();
    assert!(
        file.chars().all(|letter| (' '..='~').contains(&letter)),
        "{file:?}"
    );
    assert!(file.starts_with("a\\n") && file.contains("xff"), "{file:?}");
}

#[test]
fn a_name_can_not_forge_a_line_in_any_format() {
    for format in ["full", "compact", "default"] {
        let root = TempDir::new();
        let mut command = std::process::Command::new(crate::R_TFTPD);
        command
            .env_clear()
            .args(["--port", "0", "--listen", "127.0.0.1", "-L", format, "-r"]);
        let mut process = command
            .arg(root.path())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let log = std::io::BufReader::new(process.stderr.take().unwrap());
        let mut lines = std::io::BufRead::lines(log).map(Result::unwrap);
        let serving = lines.find(|line| line.contains("serving")).unwrap();
        let (_, rest) = serving.split_once("listen").unwrap();
        let address = rest.trim_start_matches(['=', '"']);
        let end = address.find([' ', '"', ',']).unwrap_or(address.len());
        let server = address[..end].parse().unwrap();
        let name = b"x\nFORGED serving\x1b[2J";
        Client::new(server)
            .get_raw(&request(1, name, "octet", &[]))
            .unwrap_err();
        let line = lines.find(|line| line.contains("FORGED")).unwrap();
        assert!(
            !line.starts_with("FORGED") && !line.contains('\x1b'),
            "{format}: {line:?}"
        );
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(process.id()).unwrap()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        assert!(process.wait().unwrap().success());
    }
}

#[test]
fn junk_is_not_logged_for_each_packet() {
    let (root, contents) = root_with_file(1000);
    let daemon = serve(&root, &[]);
    let before = daemon.records().len();
    let junk = Client::new(daemon.address());
    for _ in 0..500 {
        junk.send_to_listener(b"\0\x03junk");
    }
    assert_eq!(
        Client::new(daemon.address())
            .get("file", &[])
            .unwrap()
            .bytes,
        contents
    );
    daemon.wait_for_request("file");
    assert!(daemon.records().len() < before + 10);
}
