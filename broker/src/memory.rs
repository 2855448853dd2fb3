//! Gives memory back after a flood. The allocator keeps what was freed, for a next time that may
//! never come.

use crate::sys;

/// The most there was of something since memory was given back last.
#[derive(Debug, Default)]
pub struct Peak {
    most: usize,
    /// Given back when few were left; once more when none is.
    is_ebbing: bool,
}

/// So few of anything never take memory worth giving back: some 2 KiB for each request.
pub(crate) const FEW: usize = 256;

/// Memory is given back when one of so many is left: it takes about a millisecond.
const EBB: usize = 16;

impl Peak {
    /// There are `count` of it now, more than before.
    pub fn rise(&mut self, count: usize) {
        self.most = self.most.max(count);
    }

    /// There are `count` of it now, fewer than before. True if that is little after there were
    /// many: tables should shrink, and then [`give_back`] be called.
    pub fn has_ebbed(&mut self, count: usize) -> bool {
        let was_many = self.most > FEW && count <= self.most / EBB;
        let is_over = self.is_ebbing && count == 0;
        if was_many {
            self.most = count;
        }
        if was_many || is_over {
            self.is_ebbing = count > 0;
        }
        was_many || is_over
    }
}

/// Gives free memory back to the system. malloc_trim(3)
pub fn give_back() {
    sys::trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which counts memory is given back while they rise to `most` and fall again.
    fn wave(peak: &mut Peak, most: usize) -> Vec<usize> {
        for count in 1..=most {
            peak.rise(count);
        }
        let falling = (0..most).rev();
        falling.filter(|count| peak.has_ebbed(*count)).collect()
    }

    #[test]
    fn memory_is_given_back_when_many_have_become_few_and_when_none_is_left() {
        let mut peak = Peak::default();
        for _ in 0..3 {
            assert_eq!(wave(&mut peak, 4096), [256, 0]);
        }
    }

    #[test]
    fn a_hundred_requests_that_come_and_go_cost_nothing() {
        let mut peak = Peak::default();
        for _ in 0..10 {
            assert_eq!(wave(&mut peak, FEW), []);
        }
    }
}
