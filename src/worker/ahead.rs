//! Reading ahead for a client in lock-step, which would cost one read for each block of 512 bytes.
//!
//! What is read ahead lies in one buffer of the thread and not in the transfer, so that a waiting
//! transfer needs no memory for it. Only the transfer that read last has something there: where
//! several take turns, each reads its blocks one by one.

use std::ops::Range;

use super::source::{NotFilled, Source};
use super::window::Layout;

/// Bytes that are read at once: 32 blocks of 512 bytes, few enough to stay in the processor's cache.
const AHEAD: usize = 16 * 1024;

/// The bytes that one transfer needs next.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Which transfer read last, by the id of its request.
    reader: u64,
    /// Where in its file `bytes` begin.
    start: u64,
    /// How many of `bytes` hold something.
    held: usize,
    bytes: Box<[u8]>,
}

impl Ahead {
    /// Holds nothing.
    pub(crate) fn new() -> Self {
        Self {
            reader: 0,
            start: 0,
            held: 0,
            bytes: vec![0; AHEAD].into(),
        }
    }

    /// Fills `buffer`, [`Layout::len`] bytes, with the datagrams of `layout` for the transfer
    /// `reader`, without waiting.
    ///
    /// # Errors
    /// As [`Source::fill`].
    pub(crate) fn fill(
        &mut self,
        reader: u64,
        source: &Source,
        layout: &Layout,
        buffer: &mut [u8],
    ) -> Result<(), NotFilled> {
        if !layout.is_one_block() || !source.is_local() {
            return source.fill(layout, buffer);
        }
        let range = layout.file_range();
        let again = std::mem::replace(&mut self.reader, reader) == reader;
        let end = self.start + self.held as u64;
        if !again || range.start > end || range.start < self.start {
            // The first block of a reader is not worth more than itself.
            (self.start, self.held) = (range.end, 0);
            return source.fill(layout, buffer);
        }
        if range.end > end {
            self.start = range.start;
            self.held = source
                .read_cached(range.start, &mut self.bytes)
                .unwrap_or(0);
        }
        let Some(block) = self.held(&range) else {
            // The file is shorter than it was, or a disk has to be waited for.
            return source.fill(layout, buffer);
        };
        for gap in layout.gaps(buffer) {
            gap.copy_from_slice(block);
        }
        Ok(())
    }

    /// The bytes of `range`, if all of them are there.
    fn held(&self, range: &Range<u64>) -> Option<&[u8]> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let length = usize::try_from(range.end - range.start).ok()?;
        self.bytes.get(..self.held)?.get(from..from + length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::super::tests::harness::{file, pattern};
    use super::*;

    const BLOCK: u64 = 512;

    fn layout(index: u64, len: u64) -> Layout {
        Layout::new(index..index + 1, 512, |index| {
            ((index - 1) * BLOCK).min(len)..(index * BLOCK).min(len)
        })
    }

    /// The payload of one block, as it would be sent.
    fn block(ahead: &mut Ahead, reader: u64, source: &Source, index: u64) -> Option<Vec<u8>> {
        let layout = layout(index, source.len().unwrap());
        let mut buffer = vec![0xee; layout.len()];
        ahead.fill(reader, source, &layout, &mut buffer).ok()?;
        Some(buffer.split_off(4))
    }

    #[test]
    fn every_block_is_that_of_the_file_in_any_order_and_beside_other_readers() {
        let content = pattern(40 * 512 + 77);
        let other = pattern(60 * 512).split_off(9 * 512);
        let len = content.len() as u64;
        let source = Source::new(file(&content).into(), len, true);
        let beside = Source::new(file(&other).into(), other.len() as u64, true);
        let mut ahead = Ahead::new();
        let order = (1..=41).chain([41, 40, 3, 4, 4, 5, 38, 39, 40, 41, 1]);
        for index in order {
            let place = usize::try_from(index - 1).unwrap();
            let expected = content.chunks(512).nth(place).unwrap();
            assert_eq!(block(&mut ahead, 1, &source, index).unwrap(), expected);
            if index % 7 == 0 {
                let expected = &other[..512];
                assert_eq!(block(&mut ahead, 2, &beside, 1).unwrap(), expected);
            }
        }
    }

    #[test]
    fn the_second_block_brings_those_that_follow_it() {
        let file = file(&pattern(100 * 512));
        let source = Source::new(file.try_clone().unwrap().into(), 100 * 512, true);
        let mut ahead = Ahead::new();
        for index in 1..=2 {
            block(&mut ahead, 1, &source, index).unwrap();
        }
        // What is changed now is seen by the next read.
        file.write_all_at(&vec![0xff; 100 * 512], 0).unwrap();
        let last = 1 + AHEAD as u64 / BLOCK;
        assert_ne!(block(&mut ahead, 1, &source, last).unwrap(), [0xff; 512]);
        assert_eq!(
            block(&mut ahead, 1, &source, last + 1).unwrap(),
            [0xff; 512]
        );
    }

    #[test]
    fn a_file_that_got_shorter_is_an_error_not_other_bytes() {
        let mut file = file(&pattern(1200));
        file.flush().unwrap();
        let source = Source::new(file.into(), 4096, true);
        let mut ahead = Ahead::new();
        assert!(block(&mut ahead, 1, &source, 1).is_some());
        assert!(block(&mut ahead, 1, &source, 2).is_some());
        assert!(block(&mut ahead, 1, &source, 3).is_none());
        assert!(block(&mut ahead, 1, &source, 4).is_none());
    }
}
