//! What becomes of a frame on its way.

use std::ops::Range;
use std::time::Duration;

use r_tftpd_bench::chance::Chance;

use crate::datagram::{complete, payload, resize};
use crate::options::Options;

/// Chances of one direction.
#[derive(Debug)]
pub struct Harm {
    duplicate: Chance,
    reorder: Chance,
    corrupt: Chance,
    garble: Chance,
}

impl Harm {
    /// Each direction, and each kind of harm, draws numbers of its own.
    pub fn new(options: &Options, direction: u64) -> Self {
        let chance =
            |kind, probability| Chance::of((options.seed << 8) + direction * 4 + kind, probability);
        Self {
            duplicate: chance(0, options.duplicate),
            reorder: chance(1, options.reorder),
            corrupt: chance(2, options.corrupt),
            garble: chance(3, options.garble),
        }
    }

    /// What arrives of this frame, and how much later than others.
    pub fn apply(&mut self, mut frame: Vec<u8>) -> Vec<(Duration, Vec<u8>)> {
        let Some(mut range) = payload(&frame) else {
            return vec![(Duration::ZERO, frame)];
        };
        if self.garble.happens() {
            range = self.garble(&mut frame, range);
        }
        complete(&mut frame, &range);
        if self.corrupt.happens() && !range.is_empty() {
            let bit = self.corrupt.below(range.len() * 8);
            frame[range.start + bit / 8] ^= 1 << (bit % 8);
        }
        let copies = 1 + usize::from(self.duplicate.happens());
        (0..copies).map(|_| (self.late(), frame.clone())).collect()
    }

    /// Makes a DATA or an ACK something that the receiver can tell from all that it could expect.
    /// What it can not tell (other bytes in DATA, the number of another block of the window, an
    /// ERROR) no server can mend.
    fn garble(&mut self, frame: &mut Vec<u8>, range: Range<usize>) -> Range<usize> {
        let [0, 3 | 4, ..] = frame[range.clone()] else {
            return range;
        };
        match self.garble.below(4) {
            // No opcode.
            0 => frame[range.start + 1] = 7 + self.garble.below(200) as u8,
            // A number half the circle away.
            1 if range.len() >= 4 => frame[range.start + 2] ^= 0x80,
            // Less than a number.
            2 => {
                let length = self.garble.below(4);
                return resize(frame, &range, length);
            }
            // The other direction's opcode.
            _ => frame[range.start + 1] ^= 7,
        }
        range
    }

    fn late(&mut self) -> Duration {
        if !self.reorder.happens() {
            return Duration::ZERO;
        }
        let most = usize::try_from(LATE.as_micros()).expect("milliseconds");
        let micros = u64::try_from(self.reorder.below(most)).expect("milliseconds");
        Duration::from_micros(micros)
    }
}

/// The most that a frame is late.
const LATE: Duration = Duration::from_millis(3);
