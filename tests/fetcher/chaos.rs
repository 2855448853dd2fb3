//! Answers damaged at random: each fetch comes to an end, and the locked process lives.

use std::collections::HashMap;
use std::fs::File;

use r_tftpd_broker::fetch::{Fetch, FromFetcher};

use crate::harness::{Fetcher, content, fetch, granted, setup};
use r_tftpd_test_support::origin::{Raw, hang_up, put};

/// Fetches, all asked at once; no more than the descriptors of this process allow.
const JOBS: usize = 400;

/// Answers that are right, or nearly so.
const ANSWERS: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nabcde",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/5\r\nETag: \"a\"\r\n\r\ncde",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nDate: x\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: http://origin.test:1/\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x08\x00\x00\x00\x00\x00\x00\x03",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 9\r\n\r\n(\x00/\x7f`\x00\x00\x00\x00",
];

/// xorshift.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// An answer with up to three bytes changed, cut off or doubled.
fn damaged(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut answer = ANSWERS[next(&mut state) % ANSWERS.len()]
        .as_bytes()
        .to_vec();
    for _ in 0..next(&mut state) % 4 {
        let place = next(&mut state) % answer.len();
        match next(&mut state) % 4 {
            0 => answer[place] = next(&mut state) as u8,
            1 => answer[place] ^= 1 << (next(&mut state) % 8),
            2 => answer.truncate(place + 1),
            _ => answer.extend_from_within(place..),
        }
    }
    answer
}

#[test]
fn damaged_answers_end_and_harm_nothing() {
    let origin = Raw::new(|asked, _, stream| {
        let seed = asked.line.split(['/', ' ']).nth(2).unwrap();
        put(stream, damaged(seed.parse().unwrap()));
        hang_up(stream);
    });
    let mut setup = setup();
    setup.start.ports = vec![(origin.address.port(), origin.address.port())];
    setup.start.read_timeout_ms = 1000;
    let mut fetcher = Fetcher::start(&setup);
    let files: Vec<_> = (0..JOBS).map(|_| File::from(granted(b""))).collect();
    for (seed, file) in files.iter().enumerate() {
        let url = origin.url(&format!("/{seed}"));
        fetcher.ask(
            &Fetch {
                identity: seed % 2 == 0,
                ..fetch(&url)
            },
            file,
        );
    }
    let mut heads = HashMap::new();
    let (mut whole, mut failed) = (0, 0);
    for _ in 0..JOBS {
        loop {
            match fetcher.receive() {
                FromFetcher::Head(head) => assert!(heads.insert(head.job, head).is_none()),
                FromFetcher::Extent { job, .. } => assert!(heads.contains_key(&job)),
                FromFetcher::End { job, len } => {
                    let head = &heads[&job];
                    // Jobs are numbered from 1 on, seeds from 0.
                    let body = content(&files[job as usize - 1]);
                    if head.status == 200 {
                        whole += 1;
                        assert_eq!(len, body.len() as u64, "seed {}", job - 1);
                        assert!(
                            head.length.is_none_or(|length| length == len),
                            "seed {}",
                            job - 1
                        );
                    } else {
                        assert_eq!((len, body.len()), (0, 0), "seed {}", job - 1);
                    }
                    break;
                }
                FromFetcher::Failed { .. } => {
                    failed += 1;
                    break;
                }
                FromFetcher::Hello(_) => panic!("a second greeting"),
            }
        }
    }
    assert!(whole > 20 && failed > 100, "{whole} whole, {failed} failed");
    fetcher.stop();
}
