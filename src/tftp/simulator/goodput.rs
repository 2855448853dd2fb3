//! What loss costs: a table, printed by
//! `R_TFTPD_SEEDS=50 cargo test --release --lib goodput -- --nocapture`.

use std::time::Duration;

use super::super::session::Outcome;
use super::tests::{Named, seeds};
use super::{Client, Habit, Random, World};

/// Bytes of the file, in blocks of the size that fits an Ethernet packet.
const LEN: u64 = 1 << 19;
const BLKSIZE: u64 = 1468;

/// Transfers that got the whole file, and their bytes in a second of virtual time.
struct Cell {
    whole: u64,
    runs: u64,
    goodput: f64,
}

/// A client that follows RFC 7440, 2 ms away, both of whose directions lose so many packets of
/// 1000.
fn measure(loss: u64, windowsize: u64) -> Cell {
    let (mut whole, mut runs, mut took) = (0, 0, Duration::ZERO);
    for seed in seeds(3) {
        let _named = Named(seed);
        runs += 1;
        let client = Client::new(BLKSIZE, windowsize, Habit::Once);
        let linger = client.timeout;
        let mut world = World::lossy(LEN, client, loss);
        world.limits.max_retries = 20;
        world.random = Random::new(seed);
        let ending = world.run();
        if ending.received.is_some() && ending.outcome == Outcome::Complete {
            whole += 1;
            // At last the client waits for what could still come.
            took += ending.took - linger;
        }
    }
    let goodput = (whole * LEN) as f64 / took.as_secs_f64();
    Cell {
        whole,
        runs,
        goodput,
    }
}

#[test]
fn goodput_under_loss_grows_with_the_window() {
    const LOSSES: [u64; 4] = [0, 10, 50, 200];
    println!("kB/s in virtual time, files of 512 KiB, round trip 2 ms, by windowsize:");
    println!("{:>6} {:>9} {:>9} {:>9} {:>9}", "loss", 1, 4, 16, 64);
    for loss in LOSSES {
        let row = [1, 4, 16, 64].map(|windowsize| measure(loss, windowsize));
        let kilobytes = row.each_ref().map(|cell| cell.goodput / 1000.0);
        let [one, four, sixteen, all] = kilobytes;
        println!(
            "{:>4} % {one:>9.1} {four:>9.1} {sixteen:>9.1} {all:>9.1}",
            loss / 10
        );
        for cell in &row {
            let grows = one <= cell.goodput / 1000.0;
            assert!(grows, "slower than in lock-step: {kilobytes:?}");
            assert!(
                cell.whole * 10 >= cell.runs * 9,
                "{} of {}",
                cell.whole,
                cell.runs
            );
        }
    }
}

/// What a transfer learns from an answer that was late, it must not hold for ever.
#[test]
fn no_transfer_takes_many_times_as_long_as_most() {
    for windowsize in [4, 16, 64] {
        let mut times = Vec::new();
        for seed in seeds(100) {
            let _named = Named(seed);
            let mut client = Client::new(BLKSIZE, windowsize, Habit::Once);
            // The timers of both sides meet at any time.
            client.timeout = Duration::from_micros(500_000 + seed * 700_001 % 1_000_000);
            client.retries = 1000;
            let mut world = World::lossy(400_000, client, 200);
            for link in [&mut world.to_client, &mut world.to_server] {
                link.first = Duration::from_millis(20 * (seed % 3));
            }
            world.limits.max_retries = 20;
            world.random = Random::new(seed);
            times.push(world.run().received.expect("the whole file"));
        }
        times.sort();
        let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        println!("windowsize {windowsize}: median {median:?}, slowest {slowest:?}");
        assert!(slowest < median * 6, "{windowsize}: {median:?} {slowest:?}");
    }
}
