//! The negotiation: what the OACK names was asked, is within its RFC, and is no more than asked and allowed.

use std::time::{Duration, Instant};

use crate::input::Input;
use crate::tftp::packet::parse_request;
use crate::tftp::session::{Extent, Limits, Session, Transmit};

const NAMES: [&[u8]; 9] = [
    b"blksize",
    b"windowsize",
    b"timeout",
    b"tsize",
    b"BlkSize",
    b"utimeout",
    b"msftwindow",
    b"blksize2",
    b"",
];

/// A request with options by choice, and what it gets.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = limits(&mut input);
    let extent = Extent {
        len: input.any_size(),
        complete: input.flag(),
    };
    let length = input.flag().then(|| input.any_size());
    let mut request = b"\0\x01file\0octet\0".to_vec();
    while !input.is_empty() && request.len() < 512 {
        let name = input.pick(&NAMES);
        let value = match input.byte() % 4 {
            0 => input.any_size().to_string().into_bytes(),
            1 => input.number::<2>().to_string().into_bytes(),
            2 => input.byte().to_string().into_bytes(),
            _ => input.bytes(24).to_vec(),
        };
        request.extend([name, b"\0", &value, b"\0"].concat());
    }
    let asked = parse_request(&request).expect("a request").asked;
    let mut session = Session::new(&asked, &limits, extent, length, Instant::now());
    let granted = *session.granted();
    let size = length.or(extent.complete.then_some(extent.len));

    assert!((8..=65464).contains(&granted.blksize) && granted.windowsize >= 1);
    assert!(
        u64::from(granted.blksize) * u64::from(granted.windowsize) <= 33_554_432,
        "a window that large"
    );
    let (blksize, windowsize) = (asked.blksize, asked.windowsize);
    if limits.options {
        assert!(
            granted.blksize <= blksize.unwrap_or(512)
                && granted.windowsize <= windowsize.unwrap_or(1)
        );
        assert_eq!(granted.timeout, asked.timeout);
        assert_eq!(granted.tsize, asked.tsize.and(size));
        if blksize.is_some() {
            assert!(granted.blksize <= limits.max_blksize);
            let packet = u32::from(granted.blksize) + if limits.ipv6 { 52 } else { 32 };
            assert!(
                limits.mtu == 0 || packet <= limits.mtu || granted.blksize == 8,
                "cut into fragments"
            );
        }
        assert!(windowsize.is_none() || granted.windowsize <= limits.max_windowsize);
    } else {
        assert!(granted.is_empty() && (granted.blksize, granted.windowsize) == (512, 1));
    }

    // As a client reads it.
    let oack = session.oack();
    let words: Vec<_> = oack[2..]
        .split(|byte| *byte == 0)
        .map(|word| str::from_utf8(word).expect("text"))
        .collect();
    let (end, words) = words.split_last().expect("the last NUL");
    assert_eq!((&oack[..2], *end, words.len() % 2), (&[0, 6][..], "", 0));
    let mut told = Vec::new();
    for pair in words.chunks_exact(2) {
        let value: u64 = pair[1].parse().expect("a number");
        let (was_asked, holds) = match pair[0] {
            "blksize" => (blksize.is_some(), u64::from(granted.blksize)),
            "windowsize" => (windowsize.is_some(), u64::from(granted.windowsize)),
            "timeout" => (
                asked.timeout.is_some(),
                granted.timeout.expect("granted").into(),
            ),
            "tsize" => (
                asked.tsize.is_some(),
                size.expect("a size that is not known"),
            ),
            other => panic!("{other} is no option"),
        };
        assert!(
            was_asked && value == holds && !told.contains(&pair[0]),
            "{}",
            pair[0]
        );
        told.push(pair[0]);
    }
    assert_eq!(granted.is_empty(), told.is_empty());
    assert!(!granted.blksize_asked || told.contains(&"blksize"));
    assert!(!granted.windowsize_asked || told.contains(&"windowsize"));
    if !granted.is_empty() {
        assert_eq!(session.poll_transmit(), Some(Transmit::Oack));
    }
    assert_eq!(granted.to_string().split_whitespace().count(), told.len());
    assert!(asked.to_string().len() < 100);
}

/// What an operator can ask for, in the ranges of the command line.
pub(crate) fn limits(input: &mut Input<'_>) -> Limits {
    Limits {
        timeout: Duration::from_millis(1 + input.number::<2>()),
        max_retries: 1 + u32::from(input.byte() % 8),
        max_blksize: input.pick(&[65464, 1468, 512, 8, 1024]),
        max_windowsize: input.pick(&[64, 1, 4, 65535, 16]),
        options: input.byte() % 8 != 7,
        mtu: input.pick(&[0, 1500, 576, 68, 9000, 65536, 1]),
        ipv6: input.flag(),
    }
}
