//! Block numbers: 16 bits on the wire, absolute inside; only this module knows about rollover.

use std::ops::Range;

/// A block number on the wire. Block 0 is the OACK; after 65535 follows 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub u16);

impl Block {
    /// The number under which the block with this absolute index travels. The first block of a
    /// file has index 1, the OACK index 0. After 65535 the numbers go on with 0, as every known
    /// client of big files expects; no RFC names a rollover.
    pub fn from_index(index: u64) -> Self {
        let [.., high, low] = index.to_be_bytes();
        Self(u16::from_be_bytes([high, low]))
    }

    /// The absolute index in `range` that has this number; `None` if there is none. Of several (a
    /// range of more than 65536) the first.
    pub fn nearest(self, range: Range<u64>) -> Option<u64> {
        let distance = self.0.wrapping_sub(Self::from_index(range.start).0);
        range
            .start
            .checked_add(u64::from(distance))
            .filter(|index| range.contains(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_after_65535_is_0() {
        assert_eq!(Block::from_index(65535), Block(65535));
        assert_eq!(Block::from_index(65536), Block(0));
        assert_eq!(Block::from_index(65537), Block(1));
        assert_eq!(Block::from_index(u64::MAX), Block(65535));
    }

    #[test]
    fn every_number_finds_its_block_across_the_rollover() {
        for index in 65500..65600 {
            assert_eq!(Block::from_index(index).nearest(65500..65600), Some(index));
        }
    }

    #[test]
    fn number_outside_the_range_is_no_block_of_it() {
        assert_eq!(Block(9).nearest(10..20), None);
        assert_eq!(Block(20).nearest(10..20), None);
        assert_eq!(Block(65535).nearest(65536..65540), None);
        assert_eq!(Block(4).nearest(65536..65540), None);
        assert_eq!(Block(0).nearest(0..0), None);
    }

    #[test]
    fn largest_window_has_one_block_per_number() {
        let range = 70_000..70_000 + 65_536;
        for index in range.clone() {
            assert_eq!(Block::from_index(index).nearest(range.clone()), Some(index));
        }
    }

    #[test]
    fn end_of_the_numbers_does_not_overflow() {
        assert_eq!(Block(3).nearest(u64::MAX - 1..u64::MAX), None);
    }
}
