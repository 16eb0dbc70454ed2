//! Where does a row of history lie, and which of two arrived first?

/// Where a row of history lies. Addresses order as rows arrived: by file name, then row number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    const ROW_BITS: u32 = 40;
    /// The greatest number that a file may have.
    pub const FILES_MAX: u32 = (1 << (64 - Self::ROW_BITS - 1)) - 1;

    /// As many rows a file may have.
    pub const ROWS_MAX: u64 = 1 << Self::ROW_BITS;

    /// The address of `row` of the `file`-th file, by name.
    pub fn new(file: u32, row: u64) -> Address {
        debug_assert!(row < 1 << Self::ROW_BITS && file <= Self::FILES_MAX);
        Address(u64::from(file) << Self::ROW_BITS | row)
    }

    /// The address of the row that stands so many rows further on in the same file.
    pub fn plus(self, rows: usize) -> Address {
        Address::new(self.file(), self.row() + rows as u64)
    }

    /// The address that has this [`Address::order`].
    pub fn of_order(order: u64) -> Address {
        Address(order)
    }

    /// The file's place among the files, by name.
    pub fn file(self) -> u32 {
        (self.0 >> Self::ROW_BITS) as u32
    }

    /// A number that orders as addresses do.
    pub fn order(self) -> u64 {
        self.0
    }

    /// The row's number in its file.
    pub fn row(self) -> u64 {
        self.0 & ((1 << Self::ROW_BITS) - 1)
    }
}
