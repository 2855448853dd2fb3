//! A transfer from a client that does anything at any time: what is acknowledged has arrived in order, each datagram is
//! answered at most once, and it always ends.

use std::time::{Duration, Instant};

use super::options::limits;
use crate::input::Input;
use crate::tftp::block::Block;
use crate::tftp::options::Asked;
use crate::tftp::packet::{Refusal, data_header};
use crate::tftp::receive::{Answer, Receiver};
use crate::tftp::session::Outcome;

/// A transfer and its events, by choice.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = limits(&mut input);
    let asked = Asked {
        blksize: input.pick(&[None, Some(8), Some(512), Some(9)]),
        timeout: input.pick(&[None, None, Some(1), Some(255)]),
        tsize: input.pick(&[None, Some(0), Some(u64::MAX)]),
        windowsize: input.pick(&[None, Some(1), Some(2), Some(4), Some(65535)]),
    };
    let now = Instant::now();
    let receiver = Receiver::new(&asked, &limits, now);
    let mut transfer = Transfer {
        receiver,
        now,
        next: 1,
        bytes: 0,
        answers: 0,
        unproven: 0,
        is_refused: false,
    };
    transfer.take();
    for _ in 0..400 {
        if input.is_empty() {
            break;
        }
        transfer.event(&mut input);
    }
    let mut steps = 0;
    while let Some(deadline) = transfer.receiver.deadline() {
        assert!(deadline > transfer.now, "what is due was not done");
        transfer.now = deadline;
        transfer.receiver.handle_timeout(deadline);
        transfer.take();
        steps += 1;
        assert!(steps <= limits.max_retries + 2, "it does not end");
    }
    assert!(transfer.receiver.outcome().is_some(), "it has no end");
}

struct Transfer {
    receiver: Receiver,
    now: Instant,
    /// The block that is to come.
    next: u64,
    bytes: u64,
    answers: u64,
    unproven: u32,
    is_refused: bool,
}

impl Transfer {
    fn event(&mut self, input: &mut Input<'_>) {
        let blksize = usize::from(self.receiver.granted().blksize);
        match input.byte() % 8 {
            0..=2 => self.data(self.next, blksize),
            3 => {
                let size = input.below(blksize + 2);
                self.data(self.next, size);
            }
            4 => {
                let index = (self.next + input.number::<1>()).saturating_sub(4);
                self.data(index, blksize);
            }
            5 => {
                let junk = [&[0, input.pick(&[4, 5, 6, 2, 0])], input.bytes(6)].concat();
                self.receiver.handle_datagram(&junk, self.now);
            }
            6 if input.byte() % 16 == 15 => {
                self.receiver.refuse(Refusal::Stopping);
                self.is_refused = true;
            }
            6 => self.receiver.handle_repeated_request(self.now),
            _ => {
                self.now += Duration::from_micros(1 << (input.byte() % 34));
                self.receiver.handle_timeout(self.now);
            }
        }
        self.take();
    }

    fn data(&mut self, index: u64, size: usize) {
        let blksize = usize::from(self.receiver.granted().blksize);
        let block = Block::from_index(index);
        let datagram = [&data_header(block)[..], &vec![7; size]].concat();
        let is_next = block == Block::from_index(self.next) && size <= blksize;
        if is_next && self.receiver.outcome().is_none() {
            self.next += 1;
            self.bytes += size as u64;
        }
        self.receiver.handle_datagram(&datagram, self.now);
        let is_last = is_next && size < blksize;
        assert!(
            !is_last || self.receiver.outcome().is_some(),
            "the last block did not end it"
        );
    }

    fn take(&mut self) {
        let mut answers = 0;
        while let Some(answer) = self.receiver.poll_transmit() {
            answers += 1;
            assert!(answers == 1, "two answers");
            match answer {
                Answer::Ack(block) => {
                    assert_eq!(
                        block,
                        Block::from_index(self.next - 1),
                        "what has not arrived, or not in order"
                    );
                }
                Answer::Oack => assert!(self.next == 1 && !self.receiver.granted().is_empty()),
                Answer::Error(_) => assert!(self.is_refused),
            }
            if self.next == 1
                && !matches!(answer, Answer::Error(_))
                && self.receiver.figures().ignored == 0
            {
                self.unproven += 1;
                assert!(
                    self.unproven <= 4,
                    "more than four datagrams to who may be forged"
                );
            }
        }
        self.answers += answers;
        let figures = self.receiver.figures();
        assert_eq!((figures.bytes, figures.blocks), (self.bytes, self.next - 1));
        assert_eq!(self.receiver.is_proven(), self.next > 1);
        match self.receiver.outcome() {
            None => assert!(
                self.receiver.deadline().is_some(),
                "nothing will ever happen"
            ),
            // The last ACK may be lost: a repeated block is answered for one timeout more.
            Some(Outcome::Complete) => {}
            Some(_) => assert_eq!(self.receiver.deadline(), None),
        }
    }
}
