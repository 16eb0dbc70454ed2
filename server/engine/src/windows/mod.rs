//! What happened to an entity within the last hour, day, year?
//!
//! Read in this order: [`exact`] sums numbers without rounding; [`aggregate`] is the algebra: what is kept of events,
//! and how it is merged; [`value`] is how values get in and out. [`sweep`] answers many query times of a key from its
//! events (training), [`tiles`] answers one from what is stored of the key (serving). Both use the algebra and nothing
//! else, and what is kept is independent of order and tiling: so they agree bit for bit.

mod aggregate;
mod bytes;
mod events;
mod exact;
mod plan;
mod sweep;
#[cfg(test)]
mod tests;
mod tiles;
mod value;

use arrow::datatypes::SchemaRef;

pub use events::{Chunk, Events, Order, Rank};
pub use sweep::Group;
pub use tiles::latest_us;

use aggregate::{Finish, InputShape, Params};

use crate::expr::Expression;

const DAY_US: i64 = 86_400_000_000;
/// Eight days: the size of the tiles that are made of tiles.
const ROLLUP_US: i64 = 8 * DAY_US;
/// Sizes of tiles; each divides the next.
const SPANS_US: [i64; 5] = [1, 300_000_000, 3_600_000_000, DAY_US, ROLLUP_US];
/// How long before its latest event a key's days are kept apart for lifetime windows.
pub const LIFETIME_TAIL_US: i64 = 32 * DAY_US;

/// The aggregations of a feature view, compiled.
#[derive(Debug, Clone)]
pub struct Windows {
    view: String,
    /// The features.
    schema: SchemaRef,
    features: Vec<Feature>,
    accumulators: Vec<Accumulator>,
    inputs: Vec<InputPlan>,
    windows: Vec<Window>,
    levels: Vec<Level>,
    has_lifetime: bool,
    /// The columns of `event_id`, as places among the columns read.
    identity: Vec<usize>,
    /// Whether anything asks for the order of events of one instant.
    ordered: bool,
}

/// Which result of which accumulator over which window a feature is.
#[derive(Debug, Clone, Copy)]
struct Feature {
    accumulator: usize,
    window: usize,
    finish: Finish,
}

/// One intermediate result that is kept.
#[derive(Debug, Clone, PartialEq)]
struct Accumulator {
    kind: Kind,
    bucketed: bool,
    params: Params,
    input: usize,
}

/// Which [`aggregate::State`] an accumulator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Moments,
    Truths,
    Least,
    Greatest,
    First,
    Last,
    Several,
    Distinct,
    Hll,
    Percentile,
}

/// Runs `body` with `S` as the state of an accumulator: decided once, outside of every loop.
macro_rules! dispatch {
    ($accumulator:expr, $S:ident => $body:block) => {
        $crate::windows::dispatch!(@ $accumulator, $S, $body;
            Count: Count, Sum: Sum, Moments: Moments, Truths: Truths, Least: Extreme<false>, Greatest: Extreme<true>,
            First: Edge<false>, Last: Edge<true>, Several: Several, Distinct: Distinct, Hll: Hll, Percentile: Percentile)
    };
    (@ $accumulator:expr, $S:ident, $body:block; $($kind:ident: $state:ty),*) => {{
        #[allow(clippy::wildcard_imports, reason = "the states are named in one place")]
        use $crate::windows::aggregate::*;
        match ($accumulator.kind, $accumulator.bucketed) {
            $(($crate::windows::Kind::$kind, false) => { type $S = $state; $body }
              ($crate::windows::Kind::$kind, true) => { type $S = Buckets<$state>; $body })*
        }
    }};
}
use dispatch;

/// One set of columns that accumulators read.
#[derive(Debug, Clone)]
struct InputPlan {
    /// Names the columns: two inputs of one text are one.
    text: String,
    value: Option<Expression>,
    filter: Option<Expression>,
    by: Option<Expression>,
    bucket: Option<Expression>,
    shape: InputShape,
}

/// How far a window reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// None: over all time.
    length_us: Option<i64>,
    hop_us: i64,
}

impl Window {
    /// The first instant that the window holds at `q_us`: `floor(q - window, hop)`.
    fn start_us(&self, q_us: i64) -> i64 {
        self.length_us.map_or(i64::MIN, |length_us| floor(q_us.saturating_sub(length_us), self.hop_us))
    }

    /// How far before a query time its tiles must be kept.
    fn reach_us(&self) -> i64 {
        // The days of a lifetime are kept apart from a day's start on.
        self.length_us.map_or(LIFETIME_TAIL_US + DAY_US, |length_us| length_us.saturating_add(self.hop_us))
    }

    /// The size of the smallest tiles that it is read from.
    fn least_us(&self) -> i64 {
        if self.length_us.is_none() { DAY_US } else { self.hop_us }
    }

    /// Whether tiles of that size help to read it, given how far they are kept.
    fn uses(&self, level: &Level) -> bool {
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

/// The last multiple of `span_us` at or before `us`.
fn floor(us: i64, span_us: i64) -> i64 {
    us.div_euclid(span_us).saturating_mul(span_us)
}

impl Windows {
    /// What a head that is filled by this plan keeps.
    pub fn kept(&self) -> Kept {
        Kept { levels: self.levels.clone(), lifetime: self.has_lifetime }
    }

    /// Whether a window is over all time.
    pub fn has_lifetime(&self) -> bool {
        self.has_lifetime
    }

    /// Where a stretch of tiles may be cut so that no tile made of events is: the start of a day at or before `us`.
    pub fn cut_us(us: i64) -> i64 {
        floor(us, DAY_US)
    }

    /// How long before a query time its oldest event may have become visible, µs; none where a window is over all time.
    pub fn reach_us(&self, wanted: &[usize]) -> Option<i64> {
        let windows = wanted.iter().map(|feature| &self.windows[self.features[*feature].window]);
        windows
            .map(|window| window.length_us.map(|_| window.reach_us()))
            .try_fold(0, |longest: i64, us| Some(longest.max(us?)))
    }

    /// Whether a head that keeps `kept` answers the feature.
    pub fn is_kept(&self, feature: usize, kept: &Kept) -> bool {
        let window = &self.windows[self.features[feature].window];
        let enough =
            |level: &Level| level.span_us == window.least_us() && level.reach_us >= window.reach_us();
        kept.levels.iter().any(enough) && (kept.lifetime || window.length_us.is_some())
    }

    /// Whether a head that keeps `kept` answers all features.
    pub fn are_kept(&self, kept: &Kept) -> bool {
        (0..self.features.len()).all(|feature| self.is_kept(feature, kept))
    }
}
