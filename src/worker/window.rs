//! Where the blocks of one send lie: in the file, in the send buffer and on the wire.
//!
//! A window goes out as `[header|payload]*` in one buffer, every datagram but the last equally
//! long: the shape that one vectored read fills and that UDP_SEGMENT cuts.

use std::ops::Range;

use crate::sys::MAX_PIECES;
use crate::tftp::block::Block;
use crate::tftp::packet::data_header;

/// The most bytes of one send: the payload of an IPv4 datagram, which also bounds UDP_SEGMENT.
pub(crate) const MAX_SEND: usize = 65_507;

/// The most datagrams of one send: what kernels accept for UDP_SEGMENT, and pieces of one read.
const MAX_SEGMENTS: usize = MAX_PIECES;

/// Bytes of a DATA header: opcode and block (RFC 1350 section 5).
const HEADER: usize = 4;

/// Blocks that go out with one send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    blocks: Range<u64>,
    blksize: usize,
    /// Where in the file the payload of the first block begins.
    offset: u64,
    /// Bytes of payload in all blocks together.
    payload: usize,
}

impl Layout {
    /// The first of `blocks` that fit one send. `bytes_of` says which bytes of the file a block
    /// has; only the last of `blocks` may have fewer than `blksize`.
    pub(crate) fn new(
        blocks: Range<u64>,
        blksize: u16,
        bytes_of: impl Fn(u64) -> Range<u64>,
    ) -> Self {
        let blksize = usize::from(blksize);
        let most = (MAX_SEND / (HEADER + blksize)).clamp(1, MAX_SEGMENTS);
        let end = blocks.start.saturating_add(most as u64).min(blocks.end);
        let offset = bytes_of(blocks.start).start;
        let payload = bytes_of(end.saturating_sub(1)).end.saturating_sub(offset);
        let payload = usize::try_from(payload).unwrap_or(0).min(most * blksize);
        Self {
            blocks: blocks.start..end,
            blksize,
            offset,
            payload,
        }
    }

    /// The blocks that fit.
    pub(crate) fn blocks(&self) -> Range<u64> {
        self.blocks.clone()
    }

    /// Bytes of every datagram but the last.
    pub(crate) fn segment(&self) -> usize {
        HEADER + self.blksize
    }

    /// Bytes of all datagrams together, at most [`MAX_SEND`].
    pub(crate) fn len(&self) -> usize {
        let count = usize::try_from(self.blocks.end - self.blocks.start).unwrap_or(0);
        count * HEADER + self.payload
    }

    /// Whether it is a single block.
    pub(crate) fn is_one_block(&self) -> bool {
        self.blocks.end == self.blocks.start + 1
    }

    /// Where in the file the payload lies.
    pub(crate) fn file_range(&self) -> Range<u64> {
        self.offset..self.offset + self.payload as u64
    }

    /// Writes the headers into `buffer`, [`Layout::len`] bytes, and returns the gaps between them
    /// that the payload is to fill.
    pub(crate) fn gaps<'b>(&self, buffer: &'b mut [u8]) -> impl Iterator<Item = &'b mut [u8]> {
        let indices = self.blocks.clone();
        buffer
            .chunks_mut(self.segment())
            .zip(indices)
            .filter_map(|(datagram, index)| {
                let (header, payload) = datagram.split_at_mut_checked(HEADER)?;
                header.copy_from_slice(&data_header(Block::from_index(index)));
                Some(payload)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(blocks: Range<u64>, blksize: u16, len: u64) -> Layout {
        Layout::new(blocks, blksize, |index| {
            let size = u64::from(blksize);
            ((index - 1) * size).min(len)..(index * size).min(len)
        })
    }

    #[test]
    fn a_window_is_cut_at_what_one_send_can_carry() {
        let window = layout(1..65, 1468, 1 << 20);
        assert_eq!(window.blocks(), 1..45);
        assert_eq!(window.len(), 44 * 1472);
        assert_eq!(layout(45..65, 1468, 1 << 20).blocks(), 45..65);
        assert_eq!(layout(1..1000, 8, 1 << 20).blocks(), 1..65);
        assert_eq!(layout(1..3, 65464, 1 << 20).blocks(), 1..2);
    }

    #[test]
    fn headers_and_gaps_alternate_and_the_last_block_is_short() {
        let window = layout(65_535..65_538, 8, 8 * 65_536 + 3);
        assert_eq!((window.segment(), window.len()), (12, 31));
        assert_eq!(window.file_range(), 8 * 65_534..8 * 65_536 + 3);
        let mut buffer = vec![0xff; window.len()];
        let gaps: Vec<usize> = window.gaps(&mut buffer).map(|gap| gap.len()).collect();
        assert_eq!(gaps, [8, 8, 3]);
        assert_eq!(buffer[..4], [0, 3, 0xff, 0xff]);
        assert_eq!(buffer[12..16], [0, 3, 0, 0]);
        assert_eq!(buffer[24..28], [0, 3, 0, 1]);
    }

    #[test]
    fn the_empty_block_that_ends_a_file_is_a_header() {
        let window = layout(3..4, 512, 1024);
        assert_eq!((window.len(), window.file_range()), (4, 1024..1024));
        let mut buffer = [0; 4];
        assert_eq!(
            window.gaps(&mut buffer).map(|gap| gap.len()).sum::<usize>(),
            0
        );
        assert_eq!(buffer, [0, 3, 0, 3]);
    }
}
