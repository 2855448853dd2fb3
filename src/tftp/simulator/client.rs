//! Models of clients: one that follows the RFCs, and the oddities of real ones.

use std::time::{Duration, Instant};

use super::super::block::Block;
use super::super::packet::{Packet, ack};
use super::byte_at;

/// What a client does on a block it did not expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Habit {
    /// ACKs its last block in order once per gap (RFC 7440, U-Boot).
    Once,
    /// ACKs its last block in order on every unexpected block (EDK2).
    Always,
    /// Ignores it; only its timer makes it send again.
    Never,
}

/// A client that reads one file.
pub(in super::super) struct Client {
    /// Options as sent, each with its value.
    pub(in super::super) options: Vec<(&'static str, String)>,
    pub(in super::super) habit: Habit,
    /// Blocks it has room for between two ACKs; more are lost.
    pub(in super::super) keeps: u64,
    pub(in super::super) timeout: Duration,
    pub(in super::super) retries: u32,
    /// Never ACKs a final block that is empty (iPXE).
    pub(in super::super) leaves_empty_end: bool,
    blksize: u64,
    windowsize: u64,
    /// Block that is to come; 0 = nothing arrived yet, not even an OACK.
    expected: u64,
    since_ack: u64,
    reported: bool,
    deadline: Option<Instant>,
    tries: u32,
    done: bool,
}

impl Client {
    /// A client that follows the RFCs, with these values; 512 and 1 are not asked for.
    pub(in super::super) fn new(blksize: u64, windowsize: u64, habit: Habit) -> Self {
        let mut options = Vec::new();
        if blksize != 512 {
            options.push(("blksize", blksize.to_string()));
        }
        if windowsize != 1 {
            options.push(("windowsize", windowsize.to_string()));
        }
        Self {
            options,
            habit,
            keeps: u64::MAX,
            timeout: Duration::from_secs(5),
            retries: 10,
            leaves_empty_end: false,
            blksize: 512,
            windowsize: 1,
            expected: 0,
            since_ack: 0,
            reported: false,
            deadline: None,
            tries: 0,
            done: false,
        }
    }

    pub(in super::super) fn start(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.deadline = Some(now + self.timeout);
        vec![self.request()]
    }

    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(in super::super) fn has_file(&self) -> bool {
        self.done
    }

    pub(in super::super) fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.tries += 1;
        if self.done || self.tries > self.retries {
            self.deadline = None;
            return Vec::new();
        }
        self.deadline = Some(now + self.timeout);
        if self.expected == 0 {
            vec![self.request()]
        } else {
            self.acknowledge()
        }
    }

    pub(in super::super) fn handle_datagram(
        &mut self,
        datagram: &[u8],
        len: u64,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        if self.deadline.is_none() {
            return Vec::new();
        }
        if let [0, 6, options @ ..] = datagram {
            return self.handle_oack(options, now);
        }
        match Packet::parse(datagram) {
            Some(Packet::Data(block, payload)) => self.handle_data(block, payload, len, now),
            Some(Packet::Error(..)) => {
                self.deadline = None;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn handle_oack(&mut self, options: &[u8], now: Instant) -> Vec<Vec<u8>> {
        if self.expected > 1 {
            return Vec::new();
        }
        let words = options.split(|byte| *byte == 0).collect::<Vec<_>>();
        for pair in words.chunks_exact(2) {
            let value = std::str::from_utf8(pair[1])
                .unwrap()
                .parse::<u64>()
                .unwrap();
            let (_, asked) = self
                .options
                .iter()
                .find(|(name, _)| name.as_bytes() == pair[0])
                .expect("an option that was not asked");
            match pair[0] {
                b"blksize" => self.blksize = value,
                b"windowsize" => self.windowsize = value,
                b"timeout" => assert_eq!(*asked, value.to_string()),
                _ => {}
            }
            assert!(
                pair[0] == b"tsize" || value <= asked.parse().unwrap(),
                "more than asked"
            );
        }
        self.expected = 1;
        self.alive(now);
        self.acknowledge()
    }

    fn handle_data(
        &mut self,
        block: Block,
        payload: &[u8],
        len: u64,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        self.expected = self.expected.max(1);
        if block != Block::from_index(self.expected) || self.done {
            return self.handle_unexpected();
        }
        if self.since_ack >= self.keeps {
            return Vec::new();
        }
        let start = (self.expected - 1) * self.blksize;
        let size = self
            .blksize
            .min(len.checked_sub(start).expect("a block behind the end"));
        assert_eq!(payload.len() as u64, size, "a block of the wrong size");
        for (offset, byte) in (start..).zip(payload) {
            assert_eq!(*byte, byte_at(offset), "a wrong byte at {offset}");
        }
        self.alive(now);
        self.expected += 1;
        self.since_ack += 1;
        self.reported = false;
        self.done = size < self.blksize;
        if self.done && self.leaves_empty_end && size == 0 {
            self.deadline = None;
            return Vec::new();
        }
        if self.done || self.since_ack == self.windowsize {
            return self.acknowledge();
        }
        Vec::new()
    }

    fn handle_unexpected(&mut self) -> Vec<Vec<u8>> {
        match self.habit {
            Habit::Always => self.acknowledge(),
            // The final block once more: the ACK of it was lost.
            Habit::Once if !self.reported || self.windowsize == 1 || self.done => {
                self.reported = true;
                self.acknowledge()
            }
            Habit::Once | Habit::Never => Vec::new(),
        }
    }

    fn alive(&mut self, now: Instant) {
        self.tries = 0;
        self.deadline = Some(now + self.timeout);
    }

    fn acknowledge(&mut self) -> Vec<Vec<u8>> {
        self.since_ack = 0;
        vec![ack(Block::from_index(self.expected - 1)).to_vec()]
    }

    fn request(&self) -> Vec<u8> {
        let mut datagram = b"\0\x01file\0octet\0".to_vec();
        for (name, value) in &self.options {
            datagram.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        datagram
    }
}
