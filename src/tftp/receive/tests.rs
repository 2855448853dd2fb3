use std::time::Duration;

use super::super::packet::data_header;
use super::super::simulator::{Random, epoch, limits};
use super::*;

struct Bench {
    receiver: Receiver,
    now: Instant,
}

impl Bench {
    fn new(asked: Asked) -> Self {
        let now = epoch();
        Self {
            receiver: Receiver::new(&asked, &limits(), now),
            now,
        }
    }

    fn polled(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.receiver.poll_transmit()).collect()
    }

    fn data(&mut self, index: u64, len: usize) -> Vec<Answer> {
        let mut datagram = data_header(Block::from_index(index)).to_vec();
        datagram.resize(4 + len, 7);
        self.receiver.handle_datagram(&datagram, self.now);
        self.polled()
    }

    fn silence(&mut self) -> Vec<Answer> {
        self.now = self.receiver.deadline().expect("no deadline");
        self.receiver.handle_timeout(self.now);
        self.polled()
    }
}

fn windows(windowsize: u16) -> Asked {
    Asked {
        windowsize: Some(windowsize),
        ..Asked::default()
    }
}

fn ack(index: u64) -> Vec<Answer> {
    vec![Answer::Ack(Block::from_index(index))]
}

//= rfc1350#section-4
#[test]
fn without_options_the_request_is_acknowledged_as_block_0() {
    let mut bench = Bench::new(Asked::default());
    assert_eq!(bench.polled(), ack(0));
    assert_eq!(bench.data(1, 512), ack(1));
    assert_eq!(bench.data(2, 100), ack(2));
    assert_eq!(bench.receiver.outcome(), Some(Outcome::Complete));
    assert_eq!(bench.receiver.figures().bytes, 612);
}

//= rfc2349#transfer-size-option-specification
#[test]
fn with_options_the_answer_is_an_oack_that_echoes_the_size() {
    let mut bench = Bench::new(Asked {
        tsize: Some(700),
        ..windows(2)
    });
    assert_eq!(bench.polled(), [Answer::Oack]);
    assert_eq!(
        bench.receiver.oack(),
        b"\0\x06tsize\x00700\0windowsize\x002\0"
    );
    assert_eq!(bench.data(1, 512), []);
    assert_eq!(bench.data(2, 188), ack(2));
}

//= rfc7440#section-4
#[test]
fn each_window_is_acknowledged_at_its_end() {
    let mut bench = Bench::new(windows(4));
    bench.polled();
    for index in 1..100 {
        let answers = bench.data(index, 512);
        assert_eq!(answers, if index % 4 == 0 { ack(index) } else { vec![] });
    }
    assert_eq!(bench.data(100, 0), ack(100));
}

//= rfc7440#section-4
#[test]
fn a_gap_is_reported_once_and_starts_a_new_window() {
    let mut bench = Bench::new(windows(8));
    bench.polled();
    bench.data(1, 512);
    assert_eq!(bench.data(3, 512), ack(1));
    for index in 4..=8 {
        assert_eq!(bench.data(index, 512), []);
    }
    for index in 2..9 {
        assert_eq!(bench.data(index, 512), []);
    }
    assert_eq!(bench.data(9, 512), ack(9));
}

#[test]
fn lost_first_block_is_reported_as_block_0() {
    let mut bench = Bench::new(windows(8));
    bench.polled();
    assert_eq!(bench.data(2, 512), ack(0));
}

#[test]
fn repeated_window_is_acknowledged_once_each_time() {
    let mut bench = Bench::new(windows(4));
    bench.polled();
    for index in 1..=4 {
        bench.data(index, 512);
    }
    for _ in 0..3 {
        assert_eq!(bench.data(1, 512), ack(4));
        for index in 2..=4 {
            assert_eq!(bench.data(index, 512), []);
        }
    }
}

#[test]
fn repeated_block_in_lock_step_is_acknowledged_every_time() {
    let mut bench = Bench::new(Asked::default());
    bench.polled();
    bench.data(1, 512);
    for _ in 0..3 {
        assert_eq!(bench.data(1, 512), ack(1));
    }
}

//= rfc1350#section-6
#[test]
fn final_block_is_acknowledged_again_for_one_timeout() {
    let mut bench = Bench::new(Asked::default());
    bench.polled();
    assert_eq!(bench.data(1, 3), ack(1));
    assert_eq!(bench.data(1, 3), ack(1));
    assert_eq!(
        bench.receiver.deadline(),
        Some(bench.now + Duration::from_secs(3))
    );
    assert_eq!(bench.silence(), []);
    assert_eq!(bench.receiver.deadline(), None);
    assert_eq!(bench.receiver.outcome(), Some(Outcome::Complete));
    assert_eq!(bench.receiver.figures().bytes, 3);
}

#[test]
fn silence_repeats_the_acknowledgement_and_then_ends() {
    let mut bench = Bench::new(windows(4));
    assert_eq!(bench.polled(), [Answer::Oack]);
    for _ in 0..3 {
        assert_eq!(bench.silence(), [Answer::Oack]);
    }
    assert_eq!(bench.silence(), []);
    assert_eq!(bench.receiver.outcome(), Some(Outcome::TimedOut));
    assert_eq!(bench.receiver.deadline(), None);

    let mut bench = Bench::new(windows(4));
    bench.polled();
    bench.data(1, 512);
    assert_eq!(bench.silence(), ack(1));
}

#[test]
fn cisco_repeats_its_write_request_and_is_answered_again() {
    let mut bench = Bench::new(Asked::default());
    assert_eq!(bench.polled(), ack(0));
    bench.receiver.handle_repeated_request(bench.now);
    assert_eq!(bench.polled(), ack(0));
    bench.data(1, 512);
    bench.receiver.handle_repeated_request(bench.now);
    assert_eq!(bench.polled(), []);
}

#[test]
fn device_that_pauses_in_mid_upload_is_waited_for() {
    let mut bench = Bench::new(Asked::default());
    bench.polled();
    bench.data(1, 512);
    bench.now += Duration::from_secs(8);
    bench.receiver.handle_timeout(bench.now);
    assert_eq!(bench.data(2, 10), ack(2));
    assert_eq!(bench.receiver.outcome(), Some(Outcome::Complete));
}

#[test]
fn errors_junk_and_oversized_blocks() {
    let mut bench = Bench::new(Asked::default());
    bench.polled();
    assert_eq!(bench.data(1, 513), []);
    bench.receiver.handle_datagram(b"\0\x04\0\0", bench.now);
    bench.receiver.handle_datagram(b"junk", bench.now);
    assert_eq!(bench.receiver.figures().ignored, 3);
    bench.receiver.handle_datagram(b"\0\x05\0\0", bench.now);
    assert_eq!(bench.receiver.outcome(), Some(Outcome::Aborted { code: 0 }));
    assert_eq!(bench.data(1, 512), []);
}

#[test]
fn refusal_ends_with_one_error() {
    let mut bench = Bench::new(Asked::default());
    bench.polled();
    bench.receiver.refuse(Refusal::Stopping);
    assert_eq!(bench.polled(), [Answer::Error(Refusal::Stopping)]);
    assert_eq!(bench.receiver.deadline(), None);
}

/// A sender that goes back to what was acknowledged, and a path that loses packets.
#[test]
fn uploads_arrive_whole_under_loss_and_past_the_rollover() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let windowsize = 1 + random.below(16);
        let last = if seed == 0 {
            66_000
        } else {
            1 + random.below(100)
        };
        let mut bench = Bench::new(Asked {
            blksize: Some(8),
            ..windows(u16::try_from(windowsize).unwrap())
        });
        bench.polled();
        let mut acknowledged = 0;
        while bench.receiver.outcome() != Some(Outcome::Complete) || acknowledged < last {
            let mut heard = None;
            for index in acknowledged + 1..=last.min(acknowledged + windowsize) {
                if random.below(100) < 90 {
                    let answers = bench.data(index, if index == last { 5 } else { 8 });
                    for answer in answers {
                        let Answer::Ack(block) = answer else { continue };
                        if random.below(100) < 90 {
                            heard = block.nearest(acknowledged..last + 1).or(heard);
                        }
                    }
                }
            }
            acknowledged = heard.unwrap_or(acknowledged);
            assert_ne!(bench.receiver.outcome(), Some(Outcome::TimedOut));
        }
        assert_eq!(
            bench.receiver.figures().bytes,
            (last - 1) * 8 + 5,
            "seed {seed}"
        );
    }
}
