//! How far is the log of a source, and how far is whoever follows it?

use quern_base::random;

/// How far the log of a source is, or whoever follows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of its last commit: 1, 2, 3, …; 0 where there is none.
    pub number: i64,
    /// That commit's name, drawn at random. A log that is brought back from before, and goes on from there, has other
    /// names for the same numbers: who followed it further finds out.
    pub token: i64,
}

impl Position {
    /// The position of the commit after this one.
    #[must_use]
    pub fn next(self) -> Position {
        Position { number: self.number + 1, token: random::number() as i64 }
    }

    pub(crate) fn bytes(self) -> [u8; 16] {
        let (number, token) = (self.number.to_be_bytes(), self.token.to_be_bytes());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&token);
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Position> {
        let (number, token) = bytes.split_first_chunk()?;
        let token = i64::from_be_bytes(token.try_into().ok()?);
        Some(Position { number: i64::from_be_bytes(*number), token })
    }
}

/// How far a head is with the log of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Up to this commit it has everything.
    pub applied: Position,
    /// And it may have some of what comes up to this one.
    pub begun: Position,
}

impl Standing {
    /// Of a head that has all of a commit or nothing.
    pub fn at(position: Position) -> Standing {
        Standing { applied: position, begun: position }
    }

    pub(crate) fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.applied.bytes());
        bytes[16..].copy_from_slice(&self.begun.bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Standing> {
        let (applied, begun) = bytes.split_at_checked(16)?;
        Some(Standing { applied: Position::read(applied)?, begun: Position::read(begun)? })
    }
}
