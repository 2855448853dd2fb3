//! The packet parser against another one, written byte by byte, and the packets we write.

use crate::tftp::block::Block;
use crate::tftp::packet::{Kind, Mode, Packet, Refusal, ack, data_header, parse_request};

/// Reads the bytes as a request and as a packet of a transfer.
pub fn run(data: &[u8]) {
    check_request(data);
    check_packet(data);
}

fn check_request(data: &[u8]) {
    let kind = match data.get(..2) {
        Some([0, 1]) => Some(Kind::Read),
        Some([0, 2]) => Some(Kind::Write),
        _ => None,
    };
    let strings = if kind.is_some() {
        strings(&data[2..])
    } else {
        Vec::new()
    };
    let name = strings.first().copied();
    let mode = strings.get(1).copied();
    let known = match mode.map(<[u8]>::to_ascii_lowercase).as_deref() {
        Some(b"octet") => Some(Mode::Octet),
        Some(b"netascii") => Some(Mode::Netascii),
        _ => None,
    };
    match (parse_request(data), name, mode) {
        (Ok(request), Some(name), Some(_)) => {
            assert_eq!(Some(request.kind), kind);
            assert_eq!(request.name, name);
            assert!(!name.is_empty() && !name.contains(&0));
            assert_eq!(Some(request.mode), known);
            assert!(
                request
                    .asked
                    .blksize
                    .is_none_or(|blksize| (8..=65464).contains(&blksize))
            );
            assert!(request.asked.windowsize != Some(0) && request.asked.timeout != Some(0));
            for (asked, option) in [
                (request.asked.blksize.is_some(), &b"blksize"[..]),
                (request.asked.windowsize.is_some(), b"windowsize"),
                (request.asked.timeout.is_some(), b"timeout"),
                (request.asked.tsize.is_some(), b"tsize"),
            ] {
                let given = strings[2..]
                    .chunks_exact(2)
                    .any(|pair| pair[0].eq_ignore_ascii_case(option));
                assert!(given || !asked, "{option:?} was not asked");
            }
        }
        (Err(unreadable), ..) => {
            assert_eq!((unreadable.kind, unreadable.name.as_deref()), (kind, name));
            assert_eq!(unreadable.mode.as_deref(), mode);
            let expected = match (name, mode) {
                (Some(b""), Some(_)) => Refusal::Missing,
                (Some(_), Some(_)) => Refusal::BadMode,
                _ => Refusal::Malformed,
            };
            assert_eq!(unreadable.refusal, expected);
            assert!(
                known.is_none() || name == Some(b""),
                "a request that could be served"
            );
            check_error(unreadable.refusal);
        }
        (Ok(request), ..) => panic!("{request:?} has no end"),
    }
}

fn check_packet(data: &[u8]) {
    let number = data
        .get(2..4)
        .map(|bytes| u16::from(bytes[0]) << 8 | u16::from(bytes[1]));
    match (Packet::parse(data), data.get(1)) {
        (Some(Packet::Data(block, payload)), Some(3)) => {
            assert_eq!([&data_header(block)[..], payload].concat(), data);
        }
        (Some(Packet::Ack(block)), Some(4)) => assert!(data.starts_with(&ack(block))),
        (Some(Packet::Error(code, text)), Some(5)) => {
            assert_eq!(code, number.unwrap_or(0));
            assert!(!text.contains(&0));
            let after = data.get(4..).unwrap_or_default();
            assert!(after.starts_with(text) && matches!(after.get(text.len()), None | Some(0)));
        }
        (None, opcode) => {
            let is_known =
                data.first() == Some(&0) && opcode.is_some_and(|opcode| (3..=5).contains(opcode));
            assert!(!is_known || number.is_none(), "a packet that was not read");
        }
        (packet, opcode) => panic!("{opcode:?} read as {packet:?}"),
    }
    if let Some(number) = number {
        let index = Block(number)
            .nearest(0..65_536)
            .expect("each number is in a window of all");
        assert_eq!(Block::from_index(index), Block(number));
    }
}

fn check_error(refusal: Refusal) {
    let datagram = refusal.datagram();
    assert_eq!(
        Packet::parse(&datagram),
        Some(Packet::Error(refusal.code(), refusal.text().as_bytes()))
    );
    assert_eq!(datagram.last(), Some(&0));
}

/// What stands before each NUL.
fn strings(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut strings = Vec::new();
    for (index, _) in bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == 0)
        .collect::<Vec<_>>()
    {
        let consumed = strings
            .iter()
            .map(|string: &&[u8]| string.len() + 1)
            .sum::<usize>();
        let (string, rest) = bytes.split_at(index - consumed);
        strings.push(string);
        bytes = &rest[1..];
    }
    strings
}
