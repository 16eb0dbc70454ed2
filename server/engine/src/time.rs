//! The rules of time: when is a row visible, and does it still count?

use feature_defs::At;

/// How one look-up of one row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// A visible row that counts; of windows, that there are events of the key, in them or before.
    Present,
    /// No event of the key was ever visible, so that its windows are empty. A training set does not tell this apart.
    Unseen,
    /// No visible row for the key.
    NotFound,
    /// The latest visible row is older than the view's TTL.
    OutsideMaxAge,
    /// The online store did not answer: what stands there is the declared default.
    Unavailable,
}

/// How one value is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A stored value.
    Present,
    /// A stored null.
    NullValue,
    /// No visible row for the key.
    NotFound,
    /// The latest visible row is older than the view's TTL.
    OutsideMaxAge,
    /// The online store did not answer: the value is the declared default.
    Unavailable,
}

impl Status {
    /// The status of a value in a row of `state`.
    pub fn of(state: RowState, is_null: bool) -> Status {
        match state {
            RowState::NotFound => Status::NotFound,
            RowState::OutsideMaxAge => Status::OutsideMaxAge,
            RowState::Unavailable => Status::Unavailable,
            RowState::Present | RowState::Unseen if is_null => Status::NullValue,
            RowState::Present | RowState::Unseen => Status::Present,
        }
    }

    /// The name on the wire, as Feast spells it; `UNAVAILABLE` is ours.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Present => "PRESENT",
            Status::NullValue => "NULL_VALUE",
            Status::NotFound => "NOT_FOUND",
            Status::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Status::Unavailable => "UNAVAILABLE",
        }
    }
}

impl RowState {
    /// Whether a row was found, so that it has an event timestamp.
    pub fn has_row(self) -> bool {
        matches!(self, RowState::Present | RowState::OutsideMaxAge)
    }
}

/// The first query time (µs) that sees a row with event timestamp `ts_us`.
pub fn visible_from(ts_us: i64, lag_us: i64) -> i64 {
    ts_us.saturating_add(lag_us)
}

/// The last instant at which a row may become visible that counts at query time `q_us`.
///
/// Time is whole microseconds: what was visible before `q` was visible at `q - 1`. Only this end of time knows of `at`.
/// How long a row counts, and how far back a window reaches, is counted from the query time itself.
pub fn last_us(q_us: i64, at: At) -> i64 {
    match at {
        At::Including => q_us,
        At::Before => q_us.saturating_sub(1),
    }
}

/// Whether the latest visible row still counts at query time `q_us`: `q - ttl <= ts + lag`.
pub fn state_at(q_us: i64, ts_us: i64, lag_us: i64, ttl_us: Option<i64>) -> RowState {
    match ttl_us {
        Some(ttl_us) if q_us.saturating_sub(ttl_us) > visible_from(ts_us, lag_us) => RowState::OutsideMaxAge,
        _ => RowState::Present,
    }
}
