//! The fuzzer's bytes as choices.

/// What is left of the bytes. At their end every choice is the first one.
pub(crate) struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `bound`, which is at most 2^16.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let number = if bound > 256 {
            usize::from(self.number::<2>() as u16)
        } else {
            self.byte().into()
        };
        number % bound.max(1)
    }

    pub(crate) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// So many bytes as a number.
    pub(crate) fn number<const BYTES: usize>(&mut self) -> u64 {
        self.take(BYTES)
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A number of any size, with preference for the ends of the types.
    pub(crate) fn any_size(&mut self) -> u64 {
        match self.byte() % 8 {
            0 => 0,
            1 => self.number::<1>(),
            2 | 3 => self.number::<2>(),
            4 => self.number::<4>(),
            5 => self.number::<8>(),
            6 => u64::MAX - self.number::<1>(),
            _ => 1 << (self.byte() % 64),
        }
    }

    /// Some bytes: how many stands before them.
    pub(crate) fn bytes(&mut self, most: usize) -> &'d [u8] {
        let count = self.below(most + 1);
        self.take(count)
    }

    pub(crate) fn rest(&mut self) -> &'d [u8] {
        self.take(self.0.len())
    }

    fn take(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
