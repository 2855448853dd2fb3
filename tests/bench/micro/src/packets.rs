//! Datagrams to packets and back, and the negotiation between them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use r_tftpd::tftp::options::{Asked, Granted};
use r_tftpd::tftp::packet::{Packet, Refusal, parse_request};
use r_tftpd::tftp::session::{Extent, Limits, Session};

use crate::measure::{Bench, Per};

/// As PXELINUX and its like ask.
const PLAIN: &[u8] = b"\0\x01boot/grub/x86_64-efi/normal.mod\0octet\0";

/// Four options that are known and two that are not.
const OPTIONS: &[u8] = b"\0\x01boot/grub/x86_64-efi/normal.mod\0octet\0tsize\x000\0\
    blksize\x001468\0timeout\x005\0windowsize\x0064\0msftwindow\x0031416\0multicast\0\0";

/// Measures them.
pub fn run(bench: &mut Bench) {
    if !bench.group("packets", Bench::COLUMNS) {
        return;
    }
    bench.run("parse a request without options", Per::Operation, || {
        black_box(parse_request(black_box(PLAIN))).expect("a request");
    });
    bench.run("parse a request with six options", Per::Operation, || {
        black_box(parse_request(black_box(OPTIONS))).expect("a request");
    });
    bench.run("parse a request without end", Per::Operation, || {
        black_box(parse_request(black_box(&PLAIN[..30]))).expect_err("no request");
    });
    for (name, datagram) in [
        ("parse an ACK", &[0, 4, 1, 2][..]),
        ("parse an ERROR", b"\0\x05\0\x08User aborted the transfer\0"),
        ("parse junk", &[0xff; 100]),
    ] {
        bench.run(name, Per::Operation, || {
            black_box(Packet::parse(black_box(datagram)));
        });
    }
    let asked = parse_request(OPTIONS).expect("a request").asked;
    bench.run("negotiate four options", Per::Operation, || {
        let granted = Granted::negotiate(black_box(&asked), &LIMITS, Some(1 << 26));
        black_box(granted);
    });
    let extent = Extent {
        len: 1 << 26,
        complete: true,
    };
    let session = |asked: &Asked| Session::new(asked, &LIMITS, extent, None, Instant::now());
    let oack = session(&asked);
    bench.run("encode an OACK of four options", Per::Operation, || {
        black_box(black_box(&oack).oack());
    });
    bench.run("encode an ERROR", Per::Operation, || {
        black_box(black_box(Refusal::Missing).datagram());
    });
    bench.run("begin a session", Per::Operation, || {
        black_box(session(black_box(&asked)));
    });
}

/// What the server starts with, towards an Ethernet.
pub const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(3),
    max_retries: u32::MAX,
    max_blksize: 65464,
    max_windowsize: 65535,
    options: true,
    mtu: 0,
    ipv6: false,
};
