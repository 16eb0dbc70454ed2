//! What happened to an entity within the last hour, day, year?
//!
//! Read in this order: [`window`] says how far a window reaches; [`exact`] sums numbers without rounding;
//! [`aggregate`] is the algebra: what is kept of events, and how it is merged; [`value`] is how values get in and out.
//! [`plan`] is what a view needs of them, and [`compile`] makes it from definitions. [`sweep`] answers many query times
//! of a key from its [`events`] (training); [`tiles`] is what is stored of a key, and [`answer`] answers one query time
//! from it (serving). Both use the algebra and nothing else, and what is kept is independent of order and tiling: so
//! they agree bit for bit.

mod aggregate;
mod answer;
mod bytes;
mod compile;
mod events;
mod exact;
mod plan;
mod sweep;
#[cfg(test)]
mod tests;
mod tiles;
mod value;
mod window;

pub use events::{Chunk, Events, Order, Rank};
pub use plan::{Excluded, Windows, excluded};
pub use sweep::{Asked, Group};
pub use tiles::latest_us;
pub use window::{Kept, LIFETIME_TAIL_US, Level};
