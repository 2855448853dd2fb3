//! One direction of a network: delays, and by chance loses, doubles, reorders, garbles and corrupts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// Random numbers that depend on a seed only (splitmix64).
pub(in super::super) struct Random(u64);

impl Random {
    pub(in super::super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in super::super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(in super::super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of these.
    pub(in super::super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.next() % choices.len() as u64;
        choices[usize::try_from(index).unwrap()]
    }

    fn chance(&mut self, permille: u64) -> bool {
        permille > 0 && self.below(1000) < permille
    }
}

/// One direction. All chances are in packets of 1000.
pub(in super::super) struct Link {
    pub(in super::super) delay: Duration,
    /// The first packet takes so much longer: an end was busy, or had to find the other.
    pub(in super::super) first: Duration,
    pub(in super::super) loss: u64,
    pub(in super::super) duplication: u64,
    pub(in super::super) reordering: u64,
    /// Garbled packets arrive as junk; a garbled payload would be stopped by the UDP checksum.
    pub(in super::super) garbling: u64,
    /// One bit is another: of an ACK anywhere, of what has contents in the opcode only, as no side
    /// of TFTP could tell that from what was sent.
    pub(in super::super) corruption: u64,
    /// Numbers (from 0) of the packets that are lost for certain.
    pub(in super::super) lost: Vec<u64>,
    sent: u64,
    last_arrival: Option<Instant>,
    flying: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
}

impl Link {
    pub(in super::super) fn new() -> Self {
        Self {
            delay: Duration::from_micros(100),
            first: Duration::ZERO,
            loss: 0,
            duplication: 0,
            reordering: 0,
            garbling: 0,
            corruption: 0,
            lost: Vec::new(),
            sent: 0,
            last_arrival: None,
            flying: BinaryHeap::new(),
        }
    }

    pub(in super::super) fn send(
        &mut self,
        mut datagram: Vec<u8>,
        now: Instant,
        random: &mut Random,
    ) {
        let number = self.sent;
        self.sent += 1;
        if self.lost.contains(&number) || random.chance(self.loss) {
            return;
        }
        if random.chance(self.garbling) {
            datagram = random.next().to_be_bytes().to_vec();
            datagram[0] |= 1;
        }
        if random.chance(self.corruption) {
            let bytes = if datagram.starts_with(&[0, 4]) { 4 } else { 2 };
            let place = usize::try_from(random.below(bytes)).unwrap();
            datagram[place] ^= 1 << random.below(8);
        }
        if random.chance(self.duplication) {
            self.fly(datagram.clone(), now, random);
        }
        self.fly(datagram, now, random);
    }

    /// When the next packet arrives.
    pub(in super::super) fn next(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse((arrival, ..))| *arrival)
    }

    /// A packet that has arrived.
    pub(in super::super) fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.next().filter(|arrival| *arrival <= now)?;
        self.flying.pop().map(|Reverse((_, _, datagram))| datagram)
    }

    fn fly(&mut self, datagram: Vec<u8>, now: Instant, random: &mut Random) {
        let mut arrival = (now + self.delay).max(self.last_arrival.unwrap_or(now));
        // 1 Gbit/s and some work for each packet.
        arrival += Duration::from_micros(12);
        if random.chance(self.reordering) {
            arrival += Duration::from_micros(random.below(2000));
        } else {
            self.last_arrival = Some(arrival);
        }
        if self.sent == 1 {
            arrival += self.first;
        }
        let order = self.flying.len() as u64 + self.sent * 2;
        self.flying.push(Reverse((arrival, order, datagram)));
    }
}
