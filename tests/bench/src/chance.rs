//! Chance that is the same in every run with the same seed.

/// A generator of numbers (splitmix64).
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    state: u64,
    /// Below this it happens; 0 = never.
    threshold: u64,
}

impl Chance {
    /// Any numbers, beginning at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(seed, 0.0)
    }

    /// Something happens with `probability`, from 0 to 1.
    #[must_use]
    pub fn of(seed: u64, probability: f64) -> Self {
        Self {
            state: seed,
            threshold: (probability * 2_f64.powi(64)) as u64,
        }
    }

    /// Whether it happens this time.
    pub fn happens(&mut self) -> bool {
        self.threshold != 0 && self.draw() < self.threshold
    }

    /// Any number below `bound`.
    ///
    /// # Panics
    /// `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(self.draw() % bound).expect("less than a usize")
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
