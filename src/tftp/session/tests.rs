use std::time::Duration;

use super::super::packet::ack;
use super::super::simulator::{epoch, limits};
use super::*;

mod early;
mod late;
mod source;

const SECOND: Duration = Duration::from_secs(1);

/// A session under test and its clock.
struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    fn new(asked: Asked, len: u64) -> Self {
        Self::with(
            asked,
            &limits(),
            Extent {
                len,
                complete: true,
            },
        )
    }

    fn with(asked: Asked, limits: &Limits, extent: Extent) -> Self {
        let now = epoch();
        Self {
            session: Session::new(&asked, limits, extent, None, now),
            now,
        }
    }

    fn polled(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.session.poll_transmit()).collect()
    }

    /// An ACK 1 ms later, and what it causes.
    fn ack(&mut self, index: u64) -> Vec<Transmit> {
        self.now += Duration::from_millis(1);
        self.session
            .handle_datagram(&ack(Block::from_index(index)), self.now);
        self.polled()
    }

    /// Waits for the deadline, and returns after what time that was and what it causes.
    fn silence(&mut self) -> (Duration, Vec<Transmit>) {
        let deadline = self.session.deadline().expect("no deadline");
        let waited = deadline - self.now;
        self.now = deadline;
        self.session.handle_timeout(deadline);
        (waited, self.polled())
    }
}

fn windows(windowsize: u16) -> Asked {
    Asked {
        windowsize: Some(windowsize),
        ..Asked::default()
    }
}

fn data(range: Range<u64>) -> Vec<Transmit> {
    vec![Transmit::Data(range)]
}

//= rfc1350#section-4
#[test]
fn without_options_the_answer_is_block_1() {
    let mut bench = Bench::new(Asked::default(), 1000);
    assert_eq!(bench.polled(), data(1..2));
    assert!(!bench.session.is_proven());
    assert_eq!(bench.ack(1), data(2..3));
    assert!(bench.session.is_proven());
    assert_eq!(bench.ack(2), []);
    assert_eq!(bench.session.outcome(), Some(Outcome::Complete));
    assert_eq!(bench.session.deadline(), None);
    assert_eq!(bench.session.figures().bytes, 1000);
}

//= rfc2347#negotiation-protocol
#[test]
fn with_options_the_answer_is_an_oack_that_block_0_acknowledges() {
    let mut bench = Bench::new(windows(4), 10_000);
    assert_eq!(bench.polled(), [Transmit::Oack]);
    assert_eq!(bench.session.oack(), b"\0\x06windowsize\x004\0");
    assert_eq!(bench.ack(0), data(1..5));
}

//= rfc1350#section-6
#[test]
fn exact_multiple_ends_with_an_empty_block() {
    let mut bench = Bench::new(Asked::default(), 1024);
    bench.polled();
    bench.ack(1);
    assert_eq!(bench.ack(2), data(3..4));
    assert_eq!(bench.session.block_bytes(2), 512..1024);
    assert_eq!(bench.session.block_bytes(3), 1024..1024);
    bench.ack(3);
    assert_eq!(bench.session.outcome(), Some(Outcome::Complete));
}

#[test]
fn no_index_leads_out_of_the_file() {
    let bench = Bench::new(Asked::default(), 700);
    for index in [0, 1, 2, 3, u64::MAX] {
        assert!(bench.session.block_bytes(index).end <= 700);
    }
    let huge = Bench::new(Asked::default(), u64::MAX);
    assert_eq!(huge.session.block_bytes(u64::MAX / 512 + 1).end, u64::MAX);
}

//= rfc1350#section-2
#[test]
fn silence_after_proof_is_answered_until_the_budget_is_spent() {
    let limits = Limits {
        max_retries: 2,
        ..limits()
    };
    let extent = Extent {
        len: 5000,
        complete: true,
    };
    let mut bench = Bench::with(windows(4), &limits, extent);
    bench.polled();
    bench.ack(0);
    for _ in 0..2 {
        assert_eq!(bench.silence(), (3 * SECOND, data(1..5)));
    }
    assert_eq!(bench.silence(), (3 * SECOND, vec![]));
    assert_eq!(bench.session.outcome(), Some(Outcome::TimedOut));
    let figures = bench.session.figures();
    assert_eq!(
        (figures.timeouts, figures.retransmitted, figures.blocks),
        (3, 8, 12)
    );
}

#[test]
fn unproven_client_gets_one_datagram_and_at_most_three_more() {
    for (asked, first) in [
        (Asked::default(), Transmit::Data(1..2)),
        (windows(64), Transmit::Oack),
    ] {
        let limits = Limits {
            max_retries: 100,
            ..limits()
        };
        let mut bench = Bench::with(
            asked,
            &limits,
            Extent {
                len: 100_000,
                complete: true,
            },
        );
        assert_eq!(bench.polled(), std::slice::from_ref(&first));
        for _ in 0..3 {
            assert_eq!(bench.silence(), (3 * SECOND, vec![first.clone()]));
        }
        bench.silence();
        assert_eq!(bench.session.outcome(), Some(Outcome::TimedOut));
    }
}

//= rfc2349#timeout-interval-option-specification
#[test]
fn the_clients_timeout_holds_once_it_is_proven() {
    let asked = Asked {
        timeout: Some(7),
        ..Asked::default()
    };
    let mut bench = Bench::new(asked, 5000);
    bench.polled();
    assert_eq!(bench.silence().0, 3 * SECOND);
    bench.ack(0);
    assert_eq!(bench.silence(), (7 * SECOND, data(1..2)));
}

/// Seconds until a proven client that asked for `timeout` is given up.
fn seconds_of_silence(timeout: Option<u8>, max_retries: u32) -> u64 {
    let limits = Limits {
        max_retries,
        ..limits()
    };
    let asked = Asked {
        timeout,
        blksize: Some(512),
        ..Asked::default()
    };
    let extent = Extent {
        len: 5000,
        complete: true,
    };
    let mut bench = Bench::with(asked, &limits, extent);
    bench.polled();
    bench.ack(0);
    let start = bench.now;
    while bench.session.outcome().is_none() {
        bench.silence();
    }
    (bench.now - start).as_secs()
}

#[test]
fn a_silent_client_is_given_up_after_the_retries_and_one_more_timeout() {
    assert_eq!(seconds_of_silence(None, 5), 18);
    assert_eq!(seconds_of_silence(None, 20), 63);
    assert_eq!(seconds_of_silence(Some(1), 2), 3);
}

#[test]
fn a_timeout_of_its_own_lets_no_client_hold_its_place_longer_than_the_silence_limit() {
    for (timeout, limit) in [(1, 6), (5, 30), (20, 30), (255, 30)] {
        assert_eq!(seconds_of_silence(Some(timeout), 1000), limit, "{timeout}");
    }
}

#[test]
fn progress_refills_the_budget() {
    let mut bench = Bench::new(Asked::default(), 512 * 20);
    bench.polled();
    for index in 1..=20 {
        for _ in 0..3 {
            bench.silence();
        }
        bench.ack(index);
    }
    assert_eq!(bench.session.outcome(), None);
}

//= rfc1123#section-4.2.3.1
#[test]
fn repeated_ack_in_lock_step_is_ignored_and_does_not_restart_the_timer() {
    let mut bench = Bench::new(Asked::default(), 5000);
    bench.polled();
    bench.ack(1);
    let deadline = bench.session.deadline();
    for _ in 0..10 {
        assert_eq!(bench.ack(1), []);
    }
    assert_eq!(bench.session.deadline(), deadline);
    assert_eq!(bench.session.figures().ignored, 10);
}

#[test]
fn stale_future_and_junk_datagrams_change_nothing() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench.ack(4);
    let deadline = bench.session.deadline();
    for index in [0, 1, 3, 9, 10, 1000, 65535] {
        assert_eq!(bench.ack(index), [], "{index}");
    }
    for junk in [
        &b""[..],
        b"\0\x04",
        b"\0\x03\0\x05data",
        b"\0\x01f\0octet\0",
        b"\xff\xff\xff\xff",
    ] {
        bench.session.handle_datagram(junk, bench.now);
        assert_eq!(bench.polled(), []);
    }
    assert_eq!(bench.session.deadline(), deadline);
    assert_eq!(bench.session.figures().ignored, 12);
    assert_eq!(bench.ack(8), data(9..13));
}

//= rfc7440#section-4
#[test]
fn ack_inside_the_window_starts_the_next_window_behind_it() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    assert_eq!(bench.ack(2), data(3..7));
    assert_eq!(bench.session.figures().retransmitted, 2);
}

#[test]
fn a_gap_is_answered_once() {
    let mut bench = Bench::new(windows(8), 512 * 100);
    bench.polled();
    bench.ack(0);
    assert_eq!(bench.ack(2), data(3..11));
    for _ in 0..5 {
        assert_eq!(bench.ack(2), []);
    }
    assert_eq!(bench.ack(10), data(11..19));
}

#[test]
fn lost_start_of_a_window_is_answered_at_once_and_once() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench.ack(4);
    assert_eq!(bench.ack(4), data(5..9));
    assert_eq!(bench.ack(4), []);
    assert_eq!(bench.ack(4), []);
    assert_eq!(bench.ack(8), data(9..13));
}

#[test]
fn second_report_of_a_gap_is_answered_when_the_round_trip_is_over() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench.ack(4);
    bench.ack(4);
    bench.ack(4);
    let (waited, sent) = bench.silence();
    assert!(waited < Duration::from_millis(20), "{waited:?}");
    assert_eq!(sent, data(5..9));
    // Not a third time: from now on only silence makes us speak.
    assert_eq!(bench.ack(4), []);
    assert_eq!(bench.silence().1, data(8..9));
}

#[test]
fn second_loss_in_a_repeated_window_is_answered_at_once() {
    let mut bench = Bench::new(windows(16), 512 * 100);
    bench.polled();
    bench.ack(0);
    assert_eq!(bench.ack(4), data(5..21));
    assert_eq!(bench.ack(9), data(10..26));
}

#[test]
fn repeated_request_repeats_the_first_packet_only_while_unproven() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    assert_eq!(bench.polled(), [Transmit::Oack]);
    for _ in 0..3 {
        bench.session.handle_repeated_request(bench.now);
        assert_eq!(bench.polled(), [Transmit::Oack]);
    }
    bench.session.handle_repeated_request(bench.now);
    assert_eq!(bench.polled(), []);
    bench.ack(0);
    bench.session.handle_repeated_request(bench.now);
    assert_eq!(bench.polled(), []);
}

#[test]
fn timeout_before_the_deadline_has_no_effect() {
    let mut bench = Bench::new(Asked::default(), 100);
    bench.polled();
    bench.session.handle_timeout(bench.now + 2 * SECOND);
    assert_eq!(bench.polled(), []);
    assert_eq!(bench.session.figures().timeouts, 0);
}

#[test]
fn refusal_ends_with_one_error() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench.session.refuse(Refusal::ReadFailed);
    bench.session.refuse(Refusal::Stopping);
    assert_eq!(bench.polled(), [Transmit::Error(Refusal::ReadFailed)]);
    assert_eq!(
        bench.session.outcome(),
        Some(Outcome::Refused(Refusal::ReadFailed))
    );
    assert_eq!(bench.session.deadline(), None);
    assert_eq!(bench.ack(4), []);
}

//= rfc1350#section-7
#[test]
fn error_of_the_client_ends_the_transfer_without_an_answer() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench
        .session
        .handle_datagram(b"\0\x05\0\x03disk full\0", bench.now);
    assert_eq!(bench.polled(), []);
    assert_eq!(bench.session.outcome(), Some(Outcome::Aborted { code: 3 }));
    assert_eq!(bench.session.deadline(), None);
}

#[test]
fn nothing_revives_a_transfer_that_is_over() {
    let mut bench = Bench::new(Asked::default(), 10);
    bench.polled();
    bench.ack(1);
    bench.session.handle_repeated_request(bench.now);
    bench.session.handle_extent(
        Extent {
            len: 99,
            complete: true,
        },
        bench.now,
    );
    bench.session.handle_timeout(bench.now + 100 * SECOND);
    bench.session.refuse(Refusal::Stopping);
    assert_eq!(bench.polled(), []);
    assert_eq!(bench.session.outcome(), Some(Outcome::Complete));
}

#[test]
fn waiting_transfer_is_a_small_struct() {
    assert!(size_of::<Session>() <= 200, "{}", size_of::<Session>());
}
