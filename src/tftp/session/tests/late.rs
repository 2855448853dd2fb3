//! A driver that comes late.

use super::*;

#[test]
fn a_gap_whose_answer_comes_as_late_as_the_timeout_costs_one_retry() {
    let limits = Limits {
        max_retries: 2,
        ..limits()
    };
    let extent = Extent {
        len: 512 * 100,
        complete: true,
    };
    let mut bench = Bench::with(windows(4), &limits, extent);
    bench.polled();
    bench.ack(0);
    bench.ack(4);
    assert_eq!(bench.ack(4), data(5..9));
    bench.ack(4);
    bench.now += 4 * SECOND;
    bench.session.handle_timeout(bench.now);
    assert_eq!(bench.polled(), data(5..9));
    assert_eq!(bench.session.figures().retransmitted, 8);
}
