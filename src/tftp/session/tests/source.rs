//! A source that grows while it is sent.

use super::*;

#[test]
fn client_that_lacks_blocks_while_the_source_stalls_gets_them_again() {
    let mut bench = Bench::with(
        windows(8),
        &limits(),
        Extent {
            len: 2000,
            complete: false,
        },
    );
    bench.polled();
    assert_eq!(bench.ack(0), data(1..4));
    for _ in 0..3 {
        bench.now += 5 * SECOND;
        assert_eq!(bench.ack(0), data(1..4));
    }
}

#[test]
fn source_that_grows_is_sent_in_full_blocks_until_it_is_complete() {
    let mut bench = Bench::with(
        windows(4),
        &limits(),
        Extent {
            len: 700,
            complete: false,
        },
    );
    bench.polled();
    assert_eq!(bench.ack(0), data(1..2));
    // The window is not full, the client owes nothing, nothing is sent again.
    assert_eq!(bench.session.deadline(), None);
    bench.session.handle_extent(
        Extent {
            len: 2000,
            complete: false,
        },
        bench.now,
    );
    assert_eq!(bench.polled(), data(2..4));
    assert_eq!(bench.session.deadline(), None);
    bench.session.handle_extent(
        Extent {
            len: 2100,
            complete: true,
        },
        bench.now,
    );
    assert_eq!(bench.polled(), data(4..5));
    assert_eq!(bench.silence(), (3 * SECOND, data(1..5)));
    assert_eq!(bench.ack(4), data(5..6));
    bench.ack(5);
    assert_eq!(bench.session.outcome(), Some(Outcome::Complete));
    assert_eq!(bench.session.figures().bytes, 2100);
}

#[test]
fn transfer_that_waits_for_its_source_repeats_nothing() {
    let mut bench = Bench::with(
        Asked::default(),
        &limits(),
        Extent {
            len: 0,
            complete: false,
        },
    );
    assert_eq!(bench.polled(), []);
    assert_eq!(bench.session.deadline(), None);
    bench.session.handle_repeated_request(bench.now);
    assert_eq!(bench.polled(), []);
    bench.session.handle_extent(
        Extent {
            len: 512,
            complete: false,
        },
        bench.now,
    );
    assert_eq!(bench.polled(), data(1..2));
    assert_eq!(bench.ack(1), []);
    assert_eq!(bench.session.deadline(), None);
    assert_eq!(bench.ack(1), []);
    bench.session.handle_extent(
        Extent {
            len: 512,
            complete: true,
        },
        bench.now,
    );
    assert_eq!(bench.polled(), data(2..3));
}

#[test]
fn size_of_an_incomplete_source_is_not_told() {
    let asked = Asked {
        tsize: Some(0),
        blksize: Some(1024),
        ..Asked::default()
    };
    let bench = Bench::with(
        asked,
        &limits(),
        Extent {
            len: 9,
            complete: false,
        },
    );
    assert_eq!(bench.session.oack(), b"\0\x06blksize\x001024\0");
}

#[test]
fn size_that_is_known_before_the_source_is_complete_is_told() {
    let asked = Asked {
        tsize: Some(0),
        ..Asked::default()
    };
    let extent = Extent {
        len: 9,
        complete: false,
    };
    let now = epoch();
    let mut session = Session::new(&asked, &limits(), extent, Some(700), now);
    assert_eq!(session.oack(), b"\0\x06tsize\x00700\0");
    assert_eq!(session.poll_transmit(), Some(Transmit::Oack));
    session.handle_datagram(&ack(Block::from_index(0)), now);
    // Known is not there: the 9 bytes are no block.
    assert_eq!(session.poll_transmit(), None);
    let extent = Extent {
        len: 700,
        complete: true,
    };
    session.handle_extent(extent, now);
    assert_eq!(session.poll_transmit(), Some(Transmit::Data(1..2)));
}
