//! How far does a window reach, which tiles is it read from, and which of them does a head keep?

pub(super) const DAY_US: i64 = 86_400_000_000;
/// Eight days: the size of the tiles that are made of tiles.
pub(super) const ROLLUP_US: i64 = 8 * DAY_US;
/// Sizes of tiles; each divides the next.
pub(super) const SPANS_US: [i64; 5] = [1, 300_000_000, 3_600_000_000, DAY_US, ROLLUP_US];
/// How long before its latest event a key's days are kept apart for lifetime windows.
pub const LIFETIME_TAIL_US: i64 = 32 * DAY_US;

const _: () = assert!(LIFETIME_TAIL_US % DAY_US == 0);

/// How far a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// None: over all time.
    pub(super) length_us: Option<i64>,
    pub(super) hop_us: i64,
}

impl Window {
    /// The first instant that the window holds at `q_us`: `floor(q - window, hop)`.
    pub(super) fn start_us(&self, q_us: i64) -> i64 {
        self.length_us.map_or(i64::MIN, |length_us| floor(q_us.saturating_sub(length_us), self.hop_us))
    }

    /// How far before a query time its tiles must be kept.
    pub(super) fn reach_us(&self) -> i64 {
        // The days of a lifetime are kept apart from a day's start on.
        self.length_us.map_or(LIFETIME_TAIL_US + DAY_US, |length_us| length_us.saturating_add(self.hop_us))
    }

    /// The size of the smallest tiles that it is read from.
    pub(super) fn least_us(&self) -> i64 {
        if self.length_us.is_none() { DAY_US } else { self.hop_us }
    }

    /// Whether tiles of that size help to read it, given how far they are kept.
    pub(super) fn uses(&self, level: &Level) -> bool {
        let least_us = self.least_us();
        let fits = level.span_us == least_us
            || level.span_us > least_us && self.length_us.unwrap_or(LIFETIME_TAIL_US) >= 2 * level.span_us;
        fits && level.reach_us >= self.reach_us()
    }
}

/// A size of tiles and how long before the latest event they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The stretch of time that a tile covers, µs.
    pub span_us: i64,
    /// How long before the latest event tiles are kept, µs.
    pub reach_us: i64,
}

/// What a head keeps of a view's events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Sizes of tiles and how far they reach.
    pub levels: Vec<Level>,
    /// Whether everything before them is kept as one.
    pub lifetime: bool,
}

impl Kept {
    /// Whether it holds all that `other` does.
    pub fn holds(&self, other: &Kept) -> bool {
        let has = |level: &Level| {
            self.levels.iter().any(|k| k.span_us == level.span_us && k.reach_us >= level.reach_us)
        };
        other.levels.iter().all(has) && (self.lifetime || !other.lifetime)
    }

    /// What holds all that this and `other` hold.
    #[must_use]
    pub fn union(&self, other: &Kept) -> Kept {
        let mut levels = self.levels.clone();
        for level in &other.levels {
            match levels.iter_mut().find(|known| known.span_us == level.span_us) {
                Some(known) => known.reach_us = known.reach_us.max(level.reach_us),
                None => levels.push(*level),
            }
        }
        // Larger tiles are made of smaller ones, which come first.
        levels.sort_by_key(|level| level.span_us);
        Kept { levels, lifetime: self.lifetime || other.lifetime }
    }

    /// What both keep.
    pub fn common(&self, other: &Kept) -> Kept {
        let level = |level: &Level| {
            let same = self.levels.iter().find(|known| known.span_us == level.span_us)?;
            Some(Level { reach_us: level.reach_us.min(same.reach_us), ..*level })
        };
        Kept {
            levels: other.levels.iter().filter_map(level).collect(),
            lifetime: self.lifetime && other.lifetime,
        }
    }

    /// As bytes.
    pub fn write(&self) -> Vec<u8> {
        let numbers = self.levels.iter().flat_map(|level| [level.span_us, level.reach_us]);
        let numbers = std::iter::once(i64::from(self.lifetime)).chain(numbers);
        numbers.flat_map(i64::to_le_bytes).collect()
    }

    /// From the bytes that [`Kept::write`] made.
    pub fn read(bytes: &[u8]) -> Kept {
        let numbers: Vec<i64> = bytes.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect();
        let Some((lifetime, levels)) = numbers.split_first() else { return Kept::default() };
        let levels = levels
            .as_chunks()
            .0
            .iter()
            .map(|[span_us, reach_us]| Level { span_us: *span_us, reach_us: *reach_us });
        Kept { levels: levels.collect(), lifetime: *lifetime != 0 }
    }
}

/// The tiles that the windows need: for each size the farthest reach of the windows that use it.
pub(super) fn levels(windows: &[Window]) -> Vec<Level> {
    let level = |span_us: &i64| {
        let boundless = Level { span_us: *span_us, reach_us: i64::MAX };
        let users = windows.iter().filter(|window| window.uses(&boundless));
        users.map(Window::reach_us).max().map(|reach_us| Level { span_us: *span_us, reach_us })
    };
    SPANS_US.iter().filter_map(level).collect()
}

/// The last multiple of `span_us` at or before `us`.
pub(super) fn floor(us: i64, span_us: i64) -> i64 {
    us.div_euclid(span_us).saturating_mul(span_us)
}
