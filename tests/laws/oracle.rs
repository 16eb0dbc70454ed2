//! The point-in-time join, as simply as it can be said: look at every row, keep the latest visible one.

use datafusion_common::ScalarValue;
use quern_kit::RowState;

/// A row of a source as the test made it, in arrival order with its fellows.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) key: Vec<ScalarValue>,
    pub(crate) ts_us: Option<i64>,
    pub(crate) created_us: Option<i64>,
    pub(crate) values: Vec<ScalarValue>,
}

/// The rules of one view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) lag_us: i64,
    pub(crate) ttl_us: Option<i64>,
    /// Keep only rows whose value in this column is an int64 above zero.
    pub(crate) positive: Option<usize>,
    pub(crate) as_known: bool,
    /// What became visible at the very query time does not count.
    pub(crate) before: bool,
}

/// What `key` has at `q_us`: the row, where there is a visible one, and whether it counts.
pub(crate) fn as_of<'a>(
    rows: &'a [Row],
    rules: Rules,
    key: &[ScalarValue],
    q_us: i64,
) -> (RowState, Option<&'a Row>) {
    let sees = |us: i64| if rules.before { us < q_us } else { us <= q_us };
    let mut latest: Option<(i64, i64, &Row)> = None;
    for row in rows {
        let Some(ts_us) = row.ts_us else { continue };
        let created_us = row.created_us.unwrap_or(ts_us);
        let passes = match rules.positive.map(|column| &row.values[column]) {
            Some(ScalarValue::Int64(value)) => value.is_some_and(|value| value > 0),
            _ => true,
        };
        let same_key = row.key == key && key.iter().all(|part| !part.is_null());
        let visible = sees(ts_us + rules.lag_us) && (!rules.as_known || sees(created_us));
        if passes
            && same_key
            && visible
            && latest.is_none_or(|(ts, created, _)| (ts_us, created_us) >= (ts, created))
        {
            latest = Some((ts_us, created_us, row));
        }
    }
    match latest {
        None => (RowState::NotFound, None),
        Some((ts_us, _, row)) => match rules.ttl_us {
            Some(ttl_us) if q_us - ttl_us > ts_us + rules.lag_us => (RowState::OutsideMaxAge, Some(row)),
            _ => (RowState::Present, Some(row)),
        },
    }
}
