//! Thousands of transfers, each from its own seed.
//!
//! `R_TFTPD_SEEDS=100000` tries as many seeds, `R_TFTPD_SEEDS=4711..4712` these.

use std::ops::Range;
use std::time::Duration;

use super::super::session::Outcome;
use super::{Client, Ending, Habit, Random, World};

const HABITS: [Habit; 3] = [Habit::Once, Habit::Always, Habit::Never];

/// The seeds of one test: so many, or those that the environment names.
pub(super) fn seeds(count: u64) -> Range<u64> {
    let Ok(wanted) = std::env::var("R_TFTPD_SEEDS") else {
        return 0..count;
    };
    let (first, end) = wanted.split_once("..").unwrap_or(("0", &wanted));
    first.parse().unwrap()..end.parse().unwrap()
}

/// Names its seed if the run ends in a panic, wherever that is.
pub(super) struct Named(pub(super) u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("R_TFTPD_SEEDS={}..{} repeats it", self.0, self.0 + 1);
        }
    }
}

/// Blocks of a file, the short one at the end included.
fn blocks(len: u64, blksize: u64) -> u64 {
    len / blksize + 1
}

fn assert_whole(ending: &Ending, len: u64, context: &str) {
    assert_eq!(ending.outcome, Outcome::Complete, "{context}: {ending:?}");
    assert!(ending.received.is_some(), "{context}: {ending:?}");
    assert_eq!(ending.figures.bytes, len, "{context}: {ending:?}");
}

//= rfc1350#section-6
//= rfc7440#section-4
#[test]
fn every_size_arrives_whole_and_no_block_is_sent_twice() {
    for len in [0, 1, 511, 512, 513, 1023, 1024, 1025, 4096, 65_536, 100_000] {
        for (blksize, windowsize) in [(512, 1), (512, 4), (8, 16), (1468, 1), (1468, 64)] {
            for habit in HABITS {
                let ending = World::new(len, Client::new(blksize, windowsize, habit)).run();
                assert_whole(
                    &ending,
                    len,
                    &format!("{len} {blksize} {windowsize} {habit:?}"),
                );
                assert_eq!(ending.figures.blocks, blocks(len, blksize));
                assert_eq!(ending.figures.retransmitted, 0);
            }
        }
    }
}

#[test]
fn numbers_roll_over_to_0_in_lock_step_and_in_windows() {
    for windowsize in [1, 64] {
        for blocks in [65_535, 65_536, 65_537] {
            let len = blocks * 8 - 3;
            let ending = World::new(len, Client::new(8, windowsize, Habit::Once)).run();
            assert_whole(&ending, len, &format!("{blocks} {windowsize}"));
            assert_eq!(ending.figures.blocks, blocks);
        }
    }
}

#[test]
fn numbers_roll_over_under_loss() {
    for windowsize in [4, 64] {
        let len = 66_000 * 8;
        let mut world = World::new(len, Client::new(8, windowsize, Habit::Always));
        world.to_client.loss = 5;
        world.to_server.loss = 5;
        assert_whole(&world.run(), len, "rollover");
    }
}

/// Sizes, options, habits and a network with every fault, all by chance.
#[test]
fn bad_networks_end_every_transfer_and_harm_no_file() {
    let (mut runs, mut complete) = (0, 0);
    for seed in seeds(3000) {
        let _named = Named(seed);
        let mut random = Random::new(seed);
        let blksize = random.pick(&[8, 512, 512, 1024, 1468]);
        let windowsize = random.pick(&[1, 1, 2, 4, 8, 16, 64]);
        let len = random.pick(&[0, 1, 511, 512, 513, 7_340, 20_000, 30_001]);
        let habit = random.pick(&HABITS);
        let mut client = Client::new(blksize, windowsize, habit);
        if random.below(3) == 0 {
            client
                .options
                .push(("timeout", (1 + random.below(4)).to_string()));
        }
        client.timeout = Duration::from_millis(500 + random.below(5000));
        let mut world = World::new(len, client);
        let mut faults = 0;
        for link in [&mut world.to_client, &mut world.to_server] {
            link.delay = Duration::from_micros(random.below(50_000));
            link.loss = random.below(100);
            link.duplication = random.below(50);
            link.reordering = random.below(50);
            link.garbling = random.below(20);
            faults += link.loss + link.duplication + link.reordering + link.garbling;
            // One ACK of a block that never arrived ends what a client can get of a file.
            link.corruption = random.pick(&[0, 0, 0, 20]);
            faults += link.corruption;
        }
        if random.below(4) == 0 {
            world.growth = Some(1 + random.below(20_000));
        }
        world.random = random;
        let ending = world.run();
        let context = format!("seed {seed}: {len} bytes, {blksize}/{windowsize}, {habit:?}");
        let sent = ending.figures.blocks;
        // Each fault can cost a window.
        let bound = (blocks(len, blksize) + windowsize) * (3 + windowsize * faults / 1000) + 20;
        assert!(sent <= bound, "{context}: {sent} blocks sent, {ending:?}");
        if ending.received.is_some() && ending.outcome == Outcome::Complete {
            assert_eq!(ending.figures.bytes, len, "{context}");
            complete += 1;
        }
        runs += 1;
    }
    assert!(complete * 10 >= runs * 8, "{complete} of {runs}");
}

/// One block in a hundred is lost: the price is a window for each, whatever the client's habit.
#[test]
fn loss_costs_at_most_a_window_for_each_lost_packet() {
    for seed in 0..150 {
        for windowsize in [4, 16, 64] {
            for habit in [Habit::Once, Habit::Always] {
                let len = 400 * 64 + 7;
                let mut world = World::new(len, Client::new(64, windowsize, habit));
                world.to_client.loss = 10;
                world.to_server.loss = 10;
                world.random = Random::new(seed);
                let ending = world.run();
                let context = format!("seed {seed}, window {windowsize}, {habit:?}");
                assert_whole(&ending, len, &context);
                let factor = ending.figures.blocks as f64 / 401.0;
                let allowed = 1.1 + 0.04 * windowsize as f64;
                assert!(
                    factor < allowed,
                    "{context}: {factor:.2} times the file, {ending:?}"
                );
            }
        }
    }
}

//= rfc1123#section-4.2.3.1
#[test]
fn doubled_packets_are_never_answered_in_lock_step() {
    for habit in HABITS {
        let mut world = World::new(100_000, Client::new(512, 1, habit));
        world.to_client.duplication = 1000;
        world.to_server.duplication = 1000;
        let ending = world.run();
        assert_whole(&ending, 100_000, "doubled");
        assert_eq!(
            ending.figures.blocks,
            blocks(100_000, 512) + 1,
            "{ending:?}"
        );
    }
}

#[test]
fn doubled_packets_do_not_double_windows() {
    for habit in HABITS {
        for windowsize in [2, 4, 64] {
            let mut world = World::new(1_000_000, Client::new(512, windowsize, habit));
            world.to_client.duplication = 1000;
            world.to_server.duplication = 1000;
            let ending = world.run();
            assert_whole(&ending, 1_000_000, "doubled");
            let factor = ending.figures.blocks as f64 / blocks(1_000_000, 512) as f64;
            assert!(
                factor < 1.6,
                "{habit:?} {windowsize}: {factor:.2}, {ending:?}"
            );
        }
    }
}

#[test]
fn growing_source_is_followed_to_its_end() {
    for windowsize in [1, 4, 64] {
        for growth in [1, 100, 511, 512, 5_000, 40_000] {
            for len in [0, 1, 512, 30_000] {
                let mut world = World::new(len, Client::new(512, windowsize, Habit::Always));
                world.growth = Some(growth);
                world.client.timeout = Duration::from_secs(2);
                world.client.retries = 1000;
                let ending = world.run();
                assert_whole(&ending, len, &format!("{windowsize} {growth} {len}"));
            }
        }
    }
}

/// A client that says nothing about gaps: whatever is lost, only the server's timer mends it.
#[test]
fn losses_of_a_silent_client_are_mended_in_round_trips_not_in_timeouts() {
    for (loss, windowsize, allowed) in [(10, 16, 3), (10, 64, 3), (50, 16, 20)] {
        let len = 4 << 20;
        let mut took = Vec::new();
        for seed in 0..5 {
            let mut client = Client::new(1468, windowsize, Habit::Never);
            client.timeout = Duration::from_secs(60);
            let patience = client.timeout;
            let mut world = World::new(len, client);
            world.to_client.loss = loss;
            world.random = Random::new(seed);
            let ending = world.run();
            assert_whole(&ending, len, &format!("{loss} of 1000, {windowsize}"));
            // At last the client waits for what could still come.
            took.push(ending.took - patience);
        }
        took.sort_unstable();
        let median = took[2];
        assert!(
            median < Duration::from_secs(allowed),
            "{loss} of 1000 lost, windowsize {windowsize}: {median:?}"
        );
    }
}

/// The median of the times in which eleven transfers of a MiB end, with loss in both directions.
fn median(loss: u64, windowsize: u64, habit: Habit) -> Duration {
    let len = 1 << 20;
    let took = |seed| {
        let mut client = Client::new(1468, windowsize, habit);
        client.timeout = Duration::from_secs(1);
        client.retries = 30;
        let mut world = World::lossy(len, client, loss);
        world.random = Random::new(seed);
        let ending = world.run();
        assert!(
            ending.received.is_some(),
            "{loss} of 1000 lost, {windowsize} {habit:?}, seed {seed}: {ending:?}"
        );
        ending.took
    };
    let mut all: Vec<_> = (0..11).map(took).collect();
    all.sort_unstable();
    all[5]
}

/// With 64 blocks hardly a window arrives whole, with one in five lost none of 16 either.
#[test]
fn where_no_window_arrives_whole_losses_are_mended_in_round_trips_too() {
    for (loss, windowsize, allowed) in [(50, 64, 4), (200, 16, 30), (200, 64, 30)] {
        for habit in [Habit::Once, Habit::Always] {
            let median = median(loss, windowsize, habit);
            let context = format!("{loss} of 1000 lost, {windowsize} {habit:?}: {median:?}");
            assert!(median < Duration::from_secs(allowed), "{context}");
        }
    }
}
