//! Which state does an accumulator keep? Decided once, outside of every loop.

/// Which [`State`](super::State) an accumulator keeps, of each bucket where there are buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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

/// Runs `body` with `S` as the state of an accumulator. With a body for `retractable` states, these get theirs.
macro_rules! dispatch {
    ($accumulator:expr, $S:ident => $body:block) => {
        $crate::windows::aggregate::dispatch!($accumulator, retractable $S => $body, $S => $body)
    };
    ($accumulator:expr, retractable $R:ident => $exactly:block, $S:ident => $body:block) => {
        $crate::windows::aggregate::dispatch!(@ $accumulator, $R, $exactly, $S, $body;
            Count: Count, Sum: Sum, Moments: Moments, Truths: Truths;
            Least: Extreme<false>, Greatest: Extreme<true>, First: Edge<false>, Last: Edge<true>, Several: Several,
            Distinct: Distinct, Hll: Hll, Percentile: Percentile)
    };
    (@ $accumulator:expr, $R:ident, $exactly:block, $S:ident, $body:block;
        $($exact:ident: $sum:ty),*; $($kind:ident: $state:ty),*) => {{
        #[allow(clippy::wildcard_imports, reason = "the states are named in one place")]
        use $crate::windows::aggregate::*;
        match ($accumulator.kind, $accumulator.bucketed) {
            $((Kind::$exact, false) => { type $R = $sum; $exactly }
              (Kind::$exact, true) => { type $S = Buckets<$sum>; $body })*
            $((Kind::$kind, false) => { type $S = $state; $body }
              (Kind::$kind, true) => { type $S = Buckets<$state>; $body })*
        }
    }};
}
pub(in crate::windows) use dispatch;
