//! Clients so near that they answer before we would be asleep.
//!
//! In lock-step the thread falls asleep after each block, and to be woken takes longer than all
//! else. A client on the same machine, or in a virtual machine on it, answers within microseconds.
//! So a transfer that is alone looks for the answer for a moment before it waits: over a network
//! that is in vain, and therefore rarely done.

use std::time::Duration;

/// How long to look: less than to fall asleep and to be woken takes.
const MOMENT: Duration = Duration::from_micros(8);

/// Answers in a row that were found so. Then all others have their turn.
const IN_A_ROW: u8 = 15;

/// Answers that are waited for after one that did not come in time.
const FAR: u8 = 64;

/// What is known of a client's distance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    found: u8,
    /// Answers that will be waited for.
    far: u8,
}

impl Near {
    /// How long to look for the next answer before it is waited for; none = not at all.
    pub(crate) fn moment(&mut self) -> Option<Duration> {
        if self.far > 0 {
            self.far -= 1;
            return None;
        }
        if self.found == IN_A_ROW {
            self.found = 0;
            return None;
        }
        Some(MOMENT)
    }

    /// Whether there was an answer in that time.
    pub(crate) fn note(&mut self, was_found: bool) {
        if was_found {
            self.found += 1;
        } else {
            *self = Self { found: 0, far: FAR };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_client_is_waited_for_now_and_then_so_that_others_have_their_turn() {
        let mut near = Near::default();
        for _ in 0..3 {
            for _ in 0..IN_A_ROW {
                assert_eq!(near.moment(), Some(MOMENT));
                near.note(true);
            }
            assert_eq!(near.moment(), None);
        }
    }

    #[test]
    fn a_client_that_is_far_is_seldom_looked_for() {
        let mut near = Near::default();
        for _ in 0..3 {
            assert_eq!(near.moment(), Some(MOMENT));
            near.note(false);
            for _ in 0..FAR {
                assert_eq!(near.moment(), None);
            }
        }
    }
}
