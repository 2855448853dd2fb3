//! Clients that are asked early what they lack, before their timeout.

use super::*;

#[test]
fn a_lost_end_of_a_window_is_asked_for_after_some_round_trips() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    assert_eq!(bench.ack(4), data(5..9));
    // First the last block alone, then all, then the timeout, with a full budget.
    let early = [(20, 8..9), (40, 5..9), (80, 5..9), (160, 5..9), (320, 5..9)];
    for (milliseconds, range) in early {
        assert_eq!(
            bench.silence(),
            (Duration::from_millis(milliseconds), data(range))
        );
    }
    assert_eq!(bench.session.figures().timeouts, 0);
    let (waited, sent) = bench.silence();
    assert!(waited > 2 * SECOND, "{waited:?}");
    assert_eq!(sent, data(5..9));
    for _ in 0..4 {
        assert_eq!(bench.silence(), (3 * SECOND, data(5..9)));
    }
    assert_eq!(bench.silence(), (3 * SECOND, vec![]));
    assert_eq!(bench.session.outcome(), Some(Outcome::TimedOut));
}

#[test]
fn a_client_that_is_asked_early_says_what_it_lacks() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench.ack(4);
    assert_eq!(bench.silence().1, data(8..9));
    // It had 5 and 6: the gap is sure, and answered at once.
    assert_eq!(bench.ack(6), data(7..11));
    // And the next silence begins anew.
    assert_eq!(bench.silence().1, data(10..11));
}

#[test]
fn the_end_of_a_file_is_asked_for_early_too() {
    let mut bench = Bench::new(windows(4), 512 * 5);
    bench.polled();
    bench.ack(0);
    assert_eq!(bench.ack(4), data(5..7));
    assert_eq!(bench.silence(), (Duration::from_millis(20), data(6..7)));
    bench.ack(6);
    assert_eq!(bench.session.outcome(), Some(Outcome::Complete));
}

#[test]
fn who_waits_for_its_own_timer_is_not_asked_early() {
    // U-Boot asks for 64 blocks, keeps 32, and waits.
    let mut bench = Bench::new(windows(64), 512 * 1000);
    bench.polled();
    bench.ack(0);
    bench.now += 2 * SECOND;
    bench.ack(32);
    assert!(bench.silence().0 > 2 * SECOND);
}

#[test]
fn where_no_window_arrives_whole_the_reports_of_gaps_tell_when_to_ask() {
    let mut bench = Bench::new(windows(64), 512 * 1000);
    bench.polled();
    bench.ack(0);
    bench.now += SECOND / 50;
    assert_eq!(bench.ack(10), data(11..75));
    let (waited, sent) = bench.silence();
    assert_eq!(
        (waited, sent),
        (Duration::from_millis(4 * 21), data(74..75))
    );
    // No hurry while little is known.
    let mut bench = Bench::new(windows(64), 512 * 1000);
    bench.polled();
    bench.ack(0);
    bench.ack(10);
    assert_eq!(bench.silence().0, Duration::from_millis(40));
}

#[test]
fn the_timer_of_a_client_whose_ack_was_lost_is_no_round_trip() {
    let mut bench = Bench::new(windows(8), 512 * 1000);
    bench.polled();
    // The first ACK is lost, the client repeats it.
    bench.now += SECOND;
    bench.ack(0);
    assert_eq!(bench.ack(3), data(4..12));
    // Not too early to be about that: the window begins behind it at once.
    assert_eq!(bench.ack(5), data(6..14));
    assert_eq!(bench.ack(7), data(8..16));
}

#[test]
fn the_round_trip_of_an_oack_that_was_lost_counts_from_the_second_one() {
    let mut bench = Bench::new(windows(8), 512 * 1000);
    bench.polled();
    bench.now += SECOND / 4;
    bench.session.handle_repeated_request(bench.now);
    assert_eq!(bench.polled(), [Transmit::Oack]);
    bench.ack(0);
    assert_eq!(bench.ack(3), data(4..12));
    assert_eq!(bench.ack(5), data(6..14));
}

//= rfc1123#section-4.2.3.1
#[test]
fn in_lock_step_nobody_is_asked_early() {
    // A Raspberry Pi that gets a block twice acknowledges the next one and hangs.
    let mut bench = Bench::new(Asked::default(), 512 * 100);
    bench.polled();
    for index in 1..10 {
        bench.ack(index);
    }
    assert_eq!(bench.silence().0, 3 * SECOND);
}

#[test]
fn a_slow_round_trip_makes_us_patient() {
    let mut bench = Bench::new(windows(4), 512 * 100);
    bench.polled();
    bench.ack(0);
    bench.now += SECOND / 10;
    bench.ack(4);
    let (waited, _) = bench.silence();
    assert_eq!(waited, Duration::from_millis(4 * 101));
}
