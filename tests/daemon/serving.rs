//! What is served, and what is refused.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use r_tftpd_test_support::client::{Client, Packet, option, request};
use r_tftpd_test_support::files::{TempDir, pattern};

use crate::{assert_serves, root_with_file, serve};

#[test]
fn files_of_every_size_arrive_intact() {
    let root = TempDir::new();
    let sizes = [0, 1, 511, 512, 513, 1023, 1024, 1025, 5 * 512, 100_000];
    for size in sizes {
        root.write(&size.to_string(), &pattern(size, 1));
    }
    let daemon = serve(&root, &[]);
    for size in sizes {
        for options in [&[][..], &[("blksize", "1024"), ("windowsize", "4")]] {
            let transfer = Client::new(daemon.address())
                .get(&size.to_string(), options)
                .unwrap();
            assert!(
                transfer.bytes == pattern(size, 1),
                "{size} bytes with {options:?}"
            );
        }
    }
}

#[test]
fn every_request_has_a_port_of_its_own_whatever_the_last_one_was() {
    let (root, contents) = root_with_file(5000);
    let daemon = serve(&root, &[]);
    let ways = [
        &[][..],
        &[("blksize", "1024"), ("windowsize", "4")],
        &[("blksize", "1400")],
        &[("blksize", "600"), ("windowsize", "8")],
    ];
    let mut clients: Vec<_> = (0..20).map(|_| Client::new(daemon.address())).collect();
    let mut tids = Vec::new();
    for round in 0..4 {
        for (index, client) in clients.iter_mut().enumerate() {
            let options = ways[(index + round) % ways.len()];
            assert!(client.get("file", options).unwrap().bytes == contents);
            assert_ne!(tids.last(), Some(&client.tid()));
            tids.push(client.tid());
            assert_eq!(client.get("missing", &[]).unwrap_err().code, 1);
        }
    }
    // By chance some come twice.
    let different: BTreeSet<_> = tids.iter().collect();
    assert!(different.len() > 70, "{tids:?}");
}

#[test]
fn a_file_past_the_rollover_of_block_numbers_arrives_intact() {
    let (root, contents) = root_with_file(40_000_000);
    let daemon = serve(&root, &[]);
    let options = [("blksize", "512"), ("windowsize", "64")];
    let transfer = Client::new(daemon.address()).get("file", &options).unwrap();
    assert!(transfer.bytes == contents);
}

#[test]
fn a_file_in_netascii_has_line_ends_of_two_bytes_and_their_count_as_tsize() {
    let root = TempDir::new();
    root.write("text", b"one\ntwo\r\n\rend");
    let daemon = serve(&root, &[]);
    let mut client = Client::new(daemon.address());
    let asked = request(1, b"text", "NetASCII", &[("tsize", "0")]);
    let transfer = client.get_raw(&asked).unwrap();
    assert_eq!(transfer.bytes, b"one\r\ntwo\r\0\r\n\r\0end");
    assert_eq!(option(&transfer.granted, "tsize"), Some("17"));
    let without_options = request(1, b"text", "netascii", &[]);
    assert_eq!(
        client.get_raw(&without_options).unwrap().bytes,
        transfer.bytes
    );
}

#[test]
fn a_long_text_in_netascii_arrives_intact() {
    let root = TempDir::new();
    let text = b"a line of some length\nand\ranother\r\n".repeat(3000);
    root.write("text", &text);
    let daemon = serve(&root, &[]);
    let asked = request(
        1,
        b"text",
        "netascii",
        &[("windowsize", "8"), ("blksize", "700")],
    );
    let transfer = Client::new(daemon.address()).get_raw(&asked).unwrap();
    let decoded: Vec<u8> = transfer
        .bytes
        .split(|byte| *byte == b'\r')
        .enumerate()
        .fold(Vec::new(), |mut decoded, (index, part)| {
            match part {
                rest if index == 0 => decoded.extend_from_slice(rest),
                [b'\n', rest @ ..] => decoded.extend([b"\n", rest].concat()),
                [0, rest @ ..] => decoded.extend([b"\r", rest].concat()),
                _ => panic!("a bare CR"),
            }
            decoded
        });
    assert!(decoded == text);
}

#[test]
fn names_may_begin_with_slashes_and_be_of_any_bytes() {
    let root = TempDir::new();
    root.write("EFI/BOOT/grub x64.efi", b"one");
    root.write("b\u{f6}\u{444}", b"two");
    let daemon = serve(&root, &[]);
    let mut client = Client::new(daemon.address());
    assert_eq!(
        client.get("/EFI/BOOT/grub x64.efi", &[]).unwrap().bytes,
        b"one"
    );
    assert_eq!(
        client
            .get("///EFI//BOOT/./grub x64.efi", &[])
            .unwrap()
            .bytes,
        b"one"
    );
    assert_eq!(client.get("b\u{f6}\u{444}", &[]).unwrap().bytes, b"two");
    for name in [&b"\xff\xfe"[..], b"\\Boot\\BCD", b"<?>Onboard", b"a\nb"] {
        let refused = client.get_raw(&request(1, name, "octet", &[])).unwrap_err();
        assert_eq!(refused.code, 1, "{name:?}");
    }
}

#[test]
fn a_missing_file_is_refused_with_code_1_and_no_server_path() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    for name in ["missing", "no/such/directory", "file/below-a-file"] {
        let refused = Client::new(daemon.address())
            .get(name, &[("tsize", "0")])
            .unwrap_err();
        assert_eq!(refused.code, 1, "{name}");
        assert!(
            !refused.text.contains('/') && !refused.text.contains(name),
            "{}",
            refused.text
        );
    }
}

#[test]
fn what_may_not_be_read_is_refused_with_code_2() {
    let root = TempDir::new();
    let outside = TempDir::new();
    let secret = outside.write("secret", b"secret");
    let closed = root.write("closed", b"x");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o000)).unwrap();
    root.write("directory/file", b"x");
    symlink(&secret, root.path().join("absolute")).unwrap();
    symlink("../../../../../../etc/passwd", root.path().join("climbing")).unwrap();
    symlink(outside.path(), root.path().join("elsewhere")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    symlink("/proc/self/root/etc/passwd", root.path().join("magic")).unwrap();
    let daemon = serve(&root, &[]);
    for name in [
        "closed",
        "directory",
        "directory/",
        ".",
        "absolute",
        "climbing",
        "elsewhere/secret",
        "loop",
        "magic",
        "../secret",
        "directory/../../secret",
        "/../../../../../../../../etc/passwd",
        "..",
    ] {
        let refused = Client::new(daemon.address()).get(name, &[]).unwrap_err();
        assert_eq!(refused.code, 2, "{name}");
        assert!(!refused.text.contains('/'), "{}", refused.text);
    }
}

#[test]
fn a_fifo_or_socket_is_refused_and_holds_up_nobody() {
    let (root, contents) = root_with_file(1000);
    let fifo = root.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    let daemon = serve(&root, &[]);
    for name in ["fifo", "socket"] {
        assert_eq!(
            Client::new(daemon.address())
                .get(name, &[])
                .unwrap_err()
                .code,
            2,
            "{name}"
        );
        assert_serves(&daemon, &contents);
    }
}

#[test]
fn symlinks_inside_the_root_are_followed() {
    let root = TempDir::new();
    root.write("images/v2/kernel", b"new kernel");
    symlink("v2", root.path().join("images/current")).unwrap();
    symlink("images/current/kernel", root.path().join("kernel")).unwrap();
    symlink("../kernel", root.path().join("images/up")).unwrap();
    let daemon = serve(&root, &[]);
    for name in ["kernel", "images/current/kernel", "images/up"] {
        let transfer = Client::new(daemon.address()).get(name, &[]).unwrap();
        assert_eq!(transfer.bytes, b"new kernel", "{name}");
    }
}

#[test]
fn without_the_proxy_a_link_to_a_url_is_denied() {
    let root = TempDir::new();
    symlink(
        "http+nocache://origin.example/boot/",
        root.path().join("origin"),
    )
    .unwrap();
    let daemon = serve(&root, &["--disable-proxy"]);
    let refused = Client::new(daemon.address())
        .get("origin/kernel", &[])
        .unwrap_err();
    assert!(!refused.text.contains("origin.example"), "{}", refused.text);
    let record = daemon.wait_for_request("origin/kernel");
    assert_eq!(record["fields"]["message"], "denied");
}

#[test]
fn an_unknown_mode_is_refused_with_code_4() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    for mode in ["mail", "binary", ""] {
        let asked = request(1, b"file", mode, &[]);
        let refused = Client::new(daemon.address()).get_raw(&asked).unwrap_err();
        assert_eq!(refused.code, 4, "{mode:?}");
    }
}

#[test]
fn a_request_that_ends_too_early_is_refused_with_code_4() {
    let (root, _) = root_with_file(1);
    let daemon = serve(&root, &[]);
    for datagram in [
        &b"\0\x01"[..],
        b"\0\x01file",
        b"\0\x01file\0",
        b"\0\x01file\0octet",
    ] {
        let mut client = Client::new(daemon.address());
        client.send_to_listener(datagram);
        assert!(
            matches!(client.receive(), Packet::Error(4, _)),
            "{datagram:?}"
        );
    }
}

#[test]
fn what_is_no_request_is_never_answered_and_harms_nobody() {
    let (root, contents) = root_with_file(2000);
    let daemon = serve(&root, &[]);
    let junk = Client::new(daemon.address());
    let mut datagrams = vec![vec![], vec![0], vec![1, 0], vec![0, 0], vec![0xff; 65_000]];
    for opcode in 3..=9 {
        datagrams.push(vec![0, opcode, 0, 1, b'x', 0]);
    }
    datagrams.extend((0..200).map(|seed| {
        let mut bytes = pattern(usize::from(seed) * 7, u64::from(seed));
        bytes.splice(..bytes.len().min(2), [0xf0, seed]);
        bytes
    }));
    for datagram in &datagrams {
        junk.send_to_listener(datagram);
    }
    // Whatever was sent before this request has been looked at when it is answered.
    assert_serves(&daemon, &contents);
    let mut junk = junk;
    assert_eq!(
        junk.receive_within(std::time::Duration::from_millis(50)),
        None
    );
}

#[test]
fn a_file_replaced_or_removed_during_a_transfer_arrives_as_it_was() {
    let (root, contents) = root_with_file(3000);
    let daemon = serve(&root, &[]);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), Packet::Data(1, contents[..512].to_vec()));
    root.write("new", b"different");
    fs::rename(root.path().join("new"), root.path().join("file")).unwrap();
    for block in 2..=6_u16 {
        client.ack(block - 1);
        let start = usize::from(block - 1) * 512;
        let end = contents.len().min(start + 512);
        assert_eq!(
            client.receive(),
            Packet::Data(block, contents[start..end].to_vec())
        );
    }
    client.ack(6);
    assert_eq!(
        daemon.wait_for_request("file")["fields"]["message"],
        "complete"
    );
}

#[test]
fn a_file_that_shrinks_during_a_transfer_ends_it_with_an_error() {
    let (root, contents) = root_with_file(3000);
    let daemon = serve(&root, &[]);
    let mut client = Client::new(daemon.address());
    client.ask("file", &[]);
    assert_eq!(client.receive(), Packet::Data(1, contents[..512].to_vec()));
    fs::OpenOptions::new()
        .write(true)
        .open(root.path().join("file"))
        .unwrap()
        .set_len(600)
        .unwrap();
    client.ack(1);
    assert!(matches!(client.receive(), Packet::Error(0, _)));
    assert_eq!(
        daemon.wait_for_request("file")["fields"]["message"],
        "failed"
    );
}
