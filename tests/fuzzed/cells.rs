//! Which values do bytes stand for? Taken off their front one after another, until there are none.

/// What is left of the bytes.
pub(crate) struct Cells<'a>(pub(crate) &'a [u8]);

impl<'a> Cells<'a> {
    /// So many bytes; the last ones are zero where there are fewer.
    pub(crate) fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let mut fixed = [0; N];
        let taken = self.some(N);
        fixed[..taken.len()].copy_from_slice(taken);
        fixed
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.fixed::<1>()[0]
    }

    /// At most so many bytes.
    pub(crate) fn some(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A value of one in eight chances is none.
    pub(crate) fn some_or_null<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let is_null = self.byte() % 8 == 7;
        let value = value(self);
        (!is_null).then_some(value)
    }
}
