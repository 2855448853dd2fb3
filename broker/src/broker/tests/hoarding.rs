//! What a captured worker gets of the broker at most, however many clients the attacker has and
//! whatever the worker says of them.

use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use super::*;
use crate::broker::budget::{CHARGE, PREFIX_BURST};

/// Requests that are sent before the broker is waited for: its socket has room for them.
const TOGETHER: u64 = 64;

/// A broker whose worker is captured.
struct Captured {
    rig: Rig,
    /// Requests that were sent.
    sent: u64,
    /// Ids of the requests that came, with their sockets if those are kept.
    hoard: Vec<(u64, Option<UdpSocket>)>,
}

impl Captured {
    fn new(limit: impl FnOnce(&mut BrokerStart)) -> Self {
        let mut limits = settings();
        limit(&mut limits);
        let rig = Rig::with(listener("127.0.0.1:0"), limits);
        rig.order(Order::Go);
        rig.greet();
        Self {
            rig,
            sent: 0,
            hoard: Vec::new(),
        }
    }

    /// `number` requests from each of so many addresses; takes what the broker hands on.
    fn asked(&mut self, hosts: u32, number: u64, keep: bool) {
        for host in 0..hosts {
            let address = Ipv4Addr::from(0x7f00_0101 + host);
            let client = client(&format!("{address}:0"));
            for _ in 0..number {
                client.send_to(RRQ, self.rig.address()).unwrap();
                self.sent += 1;
                if self.sent.is_multiple_of(TOGETHER) {
                    self.take(keep);
                }
            }
        }
        self.take(keep);
    }

    /// Waits until the broker has looked at all that was sent.
    fn take(&mut self, keep: bool) {
        loop {
            let counts = self.rig.counts();
            while self.hoard.len() < usize::try_from(counts.requests).unwrap() {
                let (request, socket) = self.rig.request();
                self.hoard.push((request.id, Some(socket).filter(|_| keep)));
            }
            if counts.requests + counts.dropped == self.sent {
                return;
            }
        }
    }

    fn say_of_all(&self, message: impl Fn(u64) -> ToBroker) {
        for (id, _) in &self.hoard {
            self.rig.say(&message(*id));
        }
    }
}

#[test]
fn a_worker_that_ends_nothing_gets_no_more_requests_than_there_are_places() {
    let mut captured = Captured::new(|limits| limits.max_outstanding = 100);
    captured.asked(60, 5, true);
    assert_eq!(captured.hoard.len(), 100);
    // One that ends makes place for one.
    let id = captured.hoard[7].0;
    captured.rig.say(&done(id, true));
    captured.asked(10, 1, true);
    assert_eq!(captured.hoard.len(), 101);
}

#[test]
fn to_call_all_clients_proven_gives_no_more_places() {
    let mut captured = Captured::new(|limits| {
        limits.max_outstanding = 100;
        limits.max_per_client = 10;
    });
    captured.asked(1, 20, true);
    assert_eq!(captured.hoard.len(), 10);
    captured.asked(100, 1, true);
    assert_eq!(captured.hoard.len(), 100);
    captured.say_of_all(|id| ToBroker::Proven { id });
    let proven = |captured: &Captured| captured.rig.counts().transfers == 100;
    while !proven(&captured) {}
    std::thread::sleep(Duration::from_millis(250));
    captured.asked(100, 2, true);
    assert_eq!(captured.hoard.len(), 100);
}

#[test]
fn what_has_to_give_way_and_is_not_ended_brings_a_bounded_number_of_requests() {
    let mut captured = Captured::new(|limits| limits.max_per_client = 500);
    captured.asked(1, 600, true);
    assert_eq!(captured.hoard.len(), 500);
    std::thread::sleep(Duration::from_millis(250));
    captured.asked(1, 600, true);
    assert_eq!(captured.hoard.len(), 500 + 64);
}

#[test]
fn a_worker_that_ends_nothing_gets_no_more_of_a_network_than_its_budget() {
    let mut captured = Captured::new(|limits| {
        limits.max_outstanding = 50_000;
        limits.max_per_client = 50_000;
    });
    let begin = std::time::Instant::now();
    let burst = PREFIX_BURST / CHARGE;
    captured.asked(1, 2 * burst, false);
    let got = u64::try_from(captured.hoard.len()).unwrap();
    // 256 bytes in each millisecond, and the reserve of an address: a request in a second.
    let time = begin.elapsed().as_secs() + 1;
    let most = burst + (256_000 * time).div_ceil(CHARGE) + time;
    assert!((burst..=most).contains(&got), "{got} of {burst} to {most}");
}

#[test]
fn a_broken_promise_about_a_client_can_be_made_once_for_each_request() {
    let mut captured = Captured::new(|limits| limits.max_per_client = 100);
    captured.asked(1, 10, true);
    captured.say_of_all(|id| done(id, true));
    // Once more for one of them: the broker ends with it, and would not hear the rest.
    let id = captured.hoard[0].0;
    captured.rig.say(&done(id, true));
    assert!(matches!(captured.rig.end(), Err(Error::Violation(_))));
}

#[test]
fn memory_is_taken_back_from_a_worker_that_keeps_its_descriptors() {
    let rig = Rig::new();
    let mut kept = Vec::new();
    for _ in 0..10 {
        let (_client, id) = rig.asked();
        rig.open(id, b"file");
        let size = crate::wire::MAX_SCRATCH;
        rig.say(&ToBroker::Scratch { id, size });
        let (message, mut files) = rig.hear();
        assert_eq!(message, ToWorker::Scratch { id });
        let file = fs::File::from(files.remove(0));
        file.write_all_at(&[7; 100_000], 1 << 20).unwrap();
        kept.push(file);
        rig.say(&done(id, true));
    }
    let (_client, id) = rig.asked();
    // The answer comes behind all that was said before.
    assert_eq!(rig.open(id, b"nothing"), ToWorker::Missing { id });
    let blocks: u64 = kept
        .iter()
        .map(|file| file.metadata().unwrap().blocks())
        .sum();
    assert_eq!(blocks, 0);
    assert!(kept.iter().all(|file| file.write_all_at(&[7], 0).is_err()));
}
