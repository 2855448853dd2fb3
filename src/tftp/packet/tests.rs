use super::super::simulator::Random;
use super::*;

fn asked(options: &[u8]) -> Asked {
    let mut datagram = b"\0\x01f\0octet\0".to_vec();
    datagram.extend_from_slice(options);
    parse_request(&datagram).unwrap().asked
}

//= rfc1350#section-5
#[test]
fn request_has_kind_name_and_mode() {
    let read = parse_request(b"\0\x01boot/file\0octet\0").unwrap();
    assert_eq!((read.kind, read.mode), (Kind::Read, Mode::Octet));
    assert_eq!(read.name, b"boot/file");
    assert_eq!(read.asked, Asked::default());
    let write = parse_request(b"\0\x02log\0netascii\0").unwrap();
    assert_eq!((write.kind, write.mode), (Kind::Write, Mode::Netascii));
}

//= rfc1350#section-5
//= rfc2347#negotiation-protocol
#[test]
fn case_of_mode_and_options_does_not_matter() {
    assert_eq!(
        parse_request(b"\0\x01f\0OcTeT\0").unwrap().mode,
        Mode::Octet
    );
    assert_eq!(
        parse_request(b"\0\x01f\0NETASCII\0").unwrap().mode,
        Mode::Netascii
    );
    let asked = asked(b"BLKSIZE\x001468\0TSize\x000\0WindowSize\x004\0tImEoUt\x005\0");
    let all = Asked {
        blksize: Some(1468),
        timeout: Some(5),
        tsize: Some(0),
        windowsize: Some(4),
    };
    assert_eq!(asked, all);
}

#[test]
fn request_without_an_end_is_malformed() {
    for datagram in [
        &b""[..],
        b"\0",
        b"\0\x01",
        b"\0\x01name",
        b"\0\x01name\0",
        b"\0\x01name\0octet",
        b"\x01\0name\0octet\0",
        b"\0\x03name\0octet\0",
    ] {
        let unreadable = parse_request(datagram).unwrap_err();
        assert_eq!(unreadable.refusal, Refusal::Malformed, "{datagram:?}");
    }
}

#[test]
fn empty_name_is_a_missing_file() {
    let unreadable = parse_request(b"\0\x01\0octet\0").unwrap_err();
    assert_eq!(unreadable.refusal, Refusal::Missing);
}

//= rfc1350#section-1
#[test]
fn other_modes_are_refused_with_code_4() {
    for mode in ["mail", "binary", "", "octets"] {
        let datagram = format!("\0\x01f\0{mode}\0");
        let unreadable = parse_request(datagram.as_bytes()).unwrap_err();
        assert_eq!(unreadable.refusal, Refusal::BadMode);
    }
    assert_eq!(Refusal::BadMode.code(), 4);
}

#[test]
fn what_could_be_read_of_a_refused_request_is_told() {
    for (datagram, kind, name, mode) in [
        (&b"\0\x03"[..], None, None, None),
        (b"\0\x02name", Some(Kind::Write), None, None),
        (b"\0\x01name\0octet", Some(Kind::Read), Some("name"), None),
        (
            b"\0\x01name\0mail\0",
            Some(Kind::Read),
            Some("name"),
            Some("mail"),
        ),
    ] {
        let unreadable = parse_request(datagram).unwrap_err();
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        assert_eq!(
            (unreadable.kind, unreadable.name, unreadable.mode),
            (kind, bytes(name), bytes(mode)),
            "{datagram:?}"
        );
    }
}

//= rfc2347#negotiation-protocol
#[test]
fn ill_formed_options_are_ignored_one_by_one() {
    for ignored in [
        &b"blksize\x007\0"[..],
        b"blksize\x000\0",
        b"blksize\0\0",
        b"blksize\x00-8\0",
        b"blksize\x001468x\0",
        b"timeout\x000\0",
        b"timeout\x00256\0",
        b"timeout\x003000\0",
        b"windowsize\x000\0",
        b"tsize\0abc\0",
        b"tsize\x0099999999999999999999\0",
        b"multicast\0\0",
    ] {
        let mut options = ignored.to_vec();
        options.extend_from_slice(b"blksize\x00512\0");
        assert_eq!(
            asked(&options),
            Asked {
                blksize: Some(512),
                ..Asked::default()
            }
        );
    }
}

//= rfc2348#blocksize-option-specification
//= rfc7440#section-3
#[test]
fn values_that_are_too_large_are_clamped() {
    assert_eq!(asked(b"blksize\x0065465\0").blksize, Some(65464));
    assert_eq!(asked(b"blksize\x00100000\0").blksize, Some(65464));
    assert_eq!(asked(b"windowsize\x0065536\0").windowsize, Some(65535));
}

//= rfc2347#negotiation-protocol
#[test]
fn first_of_two_equal_options_wins() {
    assert_eq!(
        asked(b"blksize\x00600\0blksize\x00700\0").blksize,
        Some(600)
    );
}

#[test]
fn trailing_bytes_and_half_options_are_tolerated() {
    assert_eq!(asked(b"blksize\x00600\0tsize").blksize, Some(600));
    assert_eq!(asked(b"blksize\x00600\0tsize\0").tsize, None);
    assert_eq!(asked(b"blksize\x00600\0tsize\x000").tsize, None);
    assert_eq!(asked(b"blksize\x00600\0\0\0\0\0").blksize, Some(600));
    assert_eq!(asked(b"\0\0\0"), Asked::default());
}

#[test]
fn name_is_kept_byte_for_byte() {
    let name = b"\\Boot\\\xff\xfe BCD%2e\n";
    let mut datagram = b"\0\x01".to_vec();
    datagram.extend_from_slice(name);
    datagram.extend_from_slice(b"\0octet\0");
    assert_eq!(parse_request(&datagram).unwrap().name, name);
}

//= rfc1350#section-5
#[test]
fn packets_are_read() {
    assert_eq!(
        Packet::parse(b"\0\x03\x01\x02xyz"),
        Some(Packet::Data(Block(0x102), b"xyz"))
    );
    assert_eq!(
        Packet::parse(b"\0\x03\0\x01"),
        Some(Packet::Data(Block(1), b""))
    );
    assert_eq!(
        Packet::parse(b"\0\x04\xff\xff"),
        Some(Packet::Ack(Block(65535)))
    );
    assert_eq!(
        Packet::parse(b"\0\x05\0\x08bye\0"),
        Some(Packet::Error(8, b"bye"))
    );
}

#[test]
fn sloppy_acks_and_errors_are_read() {
    assert_eq!(
        Packet::parse(b"\0\x04\0\x07\x10"),
        Some(Packet::Ack(Block(7)))
    );
    assert_eq!(
        Packet::parse(b"\0\x05\0\x01no nul"),
        Some(Packet::Error(1, b"no nul"))
    );
    assert_eq!(Packet::parse(b"\0\x05\0\x01"), Some(Packet::Error(1, b"")));
    assert_eq!(Packet::parse(b"\0\x05"), Some(Packet::Error(0, b"")));
    assert_eq!(Packet::parse(b"\0\x05\0"), Some(Packet::Error(0, b"")));
}

#[test]
fn everything_else_is_no_packet() {
    for junk in [
        &b""[..],
        b"\0",
        b"\0\x04",
        b"\0\x04\0",
        b"\0\x03\0",
        b"\0\x01f\0octet\0",
        b"\0\x06blksize\x008\0",
        b"\0\x07\0\0",
        b"\x04\0\0\0",
    ] {
        assert_eq!(Packet::parse(junk), None, "{junk:?}");
    }
}

//= rfc1350#section-5
#[test]
fn headers_are_written() {
    assert_eq!(data_header(Block(0xabcd)), [0, 3, 0xab, 0xcd]);
    assert_eq!(ack(Block(1)), [0, 4, 0, 1]);
    assert_eq!(Refusal::Missing.datagram(), b"\0\x05\0\x01File not found\0");
}

#[test]
fn refusals_have_short_texts_without_paths() {
    use Refusal::*;
    for refusal in [
        Missing, Denied, ReadOnly, Malformed, BadMode, TooLarge, ReadFailed, NotFetched, Busy,
        Stopping, Internal,
    ] {
        let text = refusal.text();
        assert!(
            text.is_ascii() && text.len() < 60 && !text.contains(['/', '\\', ':']),
            "{text}"
        );
        assert!(refusal.code() <= 4);
    }
}

#[test]
fn no_datagram_panics_the_parser() {
    let mut random = Random::new(1);
    for _ in 0..50_000 {
        let datagram = (0..random.below(40))
            .map(|_| random.pick(&[0, 0, 0, 1, 2, 3, 4, 5, 6, b'8', b'o', 0xff]))
            .collect::<Vec<u8>>();
        let _ = parse_request(&datagram);
        let _ = Packet::parse(&datagram);
        let mut request = b"\0\x01f\0octet\0blksize\0".to_vec();
        request.extend_from_slice(&datagram);
        assert!(parse_request(&request).is_ok());
    }
}
