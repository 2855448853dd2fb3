//! Options: RFC 2347, 2348, 2349, 7440.

use r_tftpd_test_support::client::{Client, Packet, option};

use crate::{root_with_file, serve};

/// What an OACK grants for these options; the transfer is then given up.
fn granted(arguments: &[&str], asked: &[(&str, &str)]) -> Vec<(String, String)> {
    let (root, _) = root_with_file(1000);
    let daemon = serve(&root, arguments);
    let mut client = Client::new(daemon.address());
    client.ask("file", asked);
    let packet = client.receive();
    client.abort(8, "enough");
    match packet {
        Packet::Oack(granted) => granted,
        Packet::Data(..) => Vec::new(),
        other => panic!("{other:?} in answer to {asked:?}"),
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn every_option_is_granted_alone() {
    for (asked, expected) in [
        (("blksize", "8"), ("blksize", "8")),
        (("blksize", "1428"), ("blksize", "1428")),
        (("BLKSIZE", "512"), ("blksize", "512")),
        (("tsize", "0"), ("tsize", "1000")),
        (("timeout", "1"), ("timeout", "1")),
        (("timeout", "255"), ("timeout", "255")),
        (("windowsize", "1"), ("windowsize", "1")),
        (("windowsize", "16"), ("windowsize", "16")),
    ] {
        assert_eq!(granted(&[], &[asked]), pairs(&[expected]));
    }
}

#[test]
fn all_options_are_granted_together_and_nothing_else() {
    let asked = [
        ("windowsize", "4"),
        ("tsize", "0"),
        ("msftwindow", "31416"),
        ("blksize", "1024"),
        ("timeout", "5"),
        ("multicast", ""),
    ];
    let mut granted = granted(&[], &asked);
    granted.sort();
    let expected = [
        ("blksize", "1024"),
        ("timeout", "5"),
        ("tsize", "1000"),
        ("windowsize", "4"),
    ];
    assert_eq!(granted, pairs(&expected));
}

#[test]
fn too_large_a_value_is_clamped() {
    assert_eq!(
        granted(&[], &[("windowsize", "65535")]),
        pairs(&[("windowsize", "64")])
    );
    assert_eq!(
        granted(&[], &[("blksize", "65464")]),
        pairs(&[("blksize", "65464")])
    );
    let limits = ["--max-blksize", "1400", "--max-windowsize", "8"];
    assert_eq!(
        granted(&limits, &[("blksize", "1468")]),
        pairs(&[("blksize", "1400")])
    );
    assert_eq!(
        granted(&limits, &[("windowsize", "16")]),
        pairs(&[("windowsize", "8")])
    );
    assert_eq!(
        granted(&limits, &[("blksize", "512")]),
        pairs(&[("blksize", "512")])
    );
}

#[test]
fn a_bad_value_is_ignored_and_the_others_are_granted() {
    for bad in [
        ("blksize", "7"),
        ("blksize", "many"),
        ("blksize", ""),
        ("blksize", "-1"),
        ("windowsize", "0"),
        ("windowsize", "-1"),
        ("timeout", "0"),
        ("timeout", "256"),
        ("timeout", "3000"),
        ("timeout", "1.5"),
        ("tsize", "x"),
        ("tsize", "99999999999999999999999999"),
        ("rollover", "0"),
        ("", ""),
    ] {
        assert_eq!(granted(&[], &[bad]), [], "{bad:?} alone");
        let asked = [("blksize", "600"), bad, ("windowsize", "2")];
        let granted = granted(&[], &asked);
        let other = if bad.0 == "blksize" {
            "windowsize"
        } else {
            "blksize"
        };
        assert!(
            option(&granted, other).is_some(),
            "{bad:?} among others: {granted:?}"
        );
    }
}

#[test]
fn without_options_the_first_answer_is_the_first_block() {
    let (root, contents) = root_with_file(100);
    let daemon = serve(&root, &[]);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), Packet::Data(1, contents));
    client.ack(1);
    daemon.wait_for_request("file");
}

#[test]
fn with_no_rfc2347_options_are_not_answered() {
    let (root, contents) = root_with_file(1000);
    let daemon = serve(&root, &["--no-rfc2347"]);
    let options = [("blksize", "1024"), ("tsize", "0"), ("windowsize", "8")];
    let transfer = Client::new(daemon.address()).get("file", &options).unwrap();
    assert_eq!((transfer.bytes, transfer.granted), (contents, vec![]));
}

#[test]
fn every_blksize_and_windowsize_carries_a_file() {
    let (root, contents) = root_with_file(150_000);
    let daemon = serve(&root, &[]);
    for blksize in ["8", "512", "1428", "1468", "8192", "16384", "65464"] {
        for windowsize in ["1", "2", "7", "64"] {
            if (blksize, windowsize) == ("8", "1") {
                continue; // 18750 round trips prove nothing that 512 does not.
            }
            let options = [
                ("blksize", blksize),
                ("windowsize", windowsize),
                ("tsize", "0"),
            ];
            let transfer = Client::new(daemon.address()).get("file", &options).unwrap();
            assert!(transfer.bytes == contents, "{options:?}");
            assert_eq!(option(&transfer.granted, "tsize"), Some("150000"));
        }
    }
}

#[test]
fn a_window_is_sent_at_once_and_no_more() {
    let (root, contents) = root_with_file(512 * 10);
    let daemon = serve(&root, &["--timeout", "60"]);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[("windowsize", "3")]);
    assert_eq!(
        client.receive(),
        Packet::Oack(pairs(&[("windowsize", "3")]))
    );
    for (acknowledged, blocks) in [(0, 1..=3_u16), (3, 4..=6), (4, 5..=7), (7, 8..=10)] {
        client.ack(acknowledged);
        for block in blocks {
            let start = usize::from(block - 1) * 512;
            let payload = contents[start..start + 512].to_vec();
            assert_eq!(client.receive(), Packet::Data(block, payload));
        }
        let silence = std::time::Duration::from_millis(30);
        assert_eq!(client.receive_within(silence), None, "after {acknowledged}");
    }
    client.ack(10);
    assert_eq!(client.receive(), Packet::Data(11, vec![]));
    client.ack(11);
    daemon.wait_for_request("file");
}
