//! What will a run of so many rows cost?
//!
//! When a model is loaded it is tried on zeros, and zeros may be cheaper than what it is asked later; nor does a trial
//! say what a run costs while others run. So each run teaches: the last few of each size, by their median, since a run
//! that the machine interrupted says nothing of the model. Between sizes the cost is taken to be a straight line.

use std::time::Duration;

use crate::run::Cost;

/// So many of the last runs of a size count.
const RECENT: usize = 7;
/// Sizes are told apart by their power of two.
const SIZES: usize = 18;
/// The first run of a size outweighs no more than one of so many that cost what other sizes made one expect: it may be
/// one that was interrupted, and who believes that never tries the size again.
const GUESSES: usize = 2;
/// A size of which so many runs brought none is forgotten: the machine may be busier or less busy since, and a size
/// that a few interrupted runs made look expensive would never be tried again.
const STALE_RUNS: u64 = 32;
/// A run that is expected to take no longer is not worth a change of threads, which costs some 20 µs.
const SHORT_MAX: Duration = Duration::from_micros(200);
/// A model that took longer lately is not trusted to be short: a thread of the async runtime would wait with it, and
/// with that thread all sockets and timers.
const SURPRISE_MAX: Duration = Duration::from_millis(5);
/// How much of a surprise is forgotten with each run.
const FORGOTTEN: f64 = 1.0 / 64.0;
/// A row in company costs less than this share of a row alone, or sharing a run only makes the first one wait.
const PAYS_BELOW: f64 = 0.9;
/// Of how many rows that is asked: one is enough.
const PAYS_ROWS: [usize; 5] = [2, 4, 8, 16, 32];

/// What runs of one file cost lately.
#[derive(Debug)]
pub(crate) struct Costs {
    trial: Cost,
    sizes: [Size; SIZES],
    /// What is known, by rows, ascending.
    points: Vec<Point>,
    runs: u64,
    /// The longest run, less what is forgotten of it since.
    worst_micros: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Point {
    rows: f64,
    micros: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    recent: [Point; RECENT],
    seen: usize,
    /// The number of its last run.
    last: u64,
}

impl Size {
    /// Its mean rows and its median cost.
    fn point(&self) -> Point {
        let mut known = self.recent;
        let known = &mut known[..self.seen.min(RECENT)];
        known.sort_unstable_by(|a, b| a.micros.total_cmp(&b.micros));
        let rows = known.iter().map(|run| run.rows).sum::<f64>() / known.len() as f64;
        Point { rows, micros: known[(known.len() - 1) / 2].micros }
    }
}

impl Costs {
    pub(crate) fn new(trial: Cost) -> Costs {
        Costs { trial, sizes: [Size::default(); SIZES], points: Vec::new(), runs: 0, worst_micros: 0.0 }
    }

    pub(crate) fn of(&self, rows: usize) -> Duration {
        Duration::from_secs_f64(self.micros(rows as f64).max(0.0) / 1e6)
    }

    /// Whether a run of `rows` may happen on a thread that others need.
    pub(crate) fn is_short(&self, rows: usize) -> bool {
        self.worst_micros <= SURPRISE_MAX.as_secs_f64() * 1e6 && self.of(rows) <= SHORT_MAX
    }

    /// Whether rows are cheaper together than one by one.
    pub(crate) fn company_pays(&self, max_rows: usize) -> bool {
        let alone = PAYS_BELOW * self.micros(1.0);
        let pays = |rows: usize| self.micros(rows as f64) < alone * rows as f64;
        PAYS_ROWS.iter().any(|rows| *rows <= max_rows && pays(*rows))
    }

    /// As many rows in a run as are known to make rows cheap.
    pub(crate) fn best_rows(&self, max_rows: usize) -> usize {
        (2 * self.tried()).min(max_rows).max(1)
    }

    /// The most rows that ran lately; beyond them costs are guessed.
    pub(crate) fn tried(&self) -> usize {
        self.points.last().map_or(1, |point| point.rows as usize).max(1)
    }

    /// Notes what a run cost.
    pub(crate) fn note(&mut self, rows: usize, elapsed: Duration) {
        let micros = elapsed.as_secs_f64() * 1e6;
        self.runs += 1;
        self.worst_micros = micros.max(self.worst_micros * (1.0 - FORGOTTEN));
        let guess = Point { rows: rows as f64, micros: self.micros(rows as f64) };
        let size = &mut self.sizes[(rows.max(1).ilog2() as usize).min(SIZES - 1)];
        if size.seen == 0 || self.runs - size.last > STALE_RUNS {
            size.recent = [guess; RECENT];
            size.seen = if self.points.is_empty() { 0 } else { GUESSES };
        }
        size.recent[size.seen % RECENT] = Point { rows: rows as f64, micros };
        // Never back to zero, which would be a size that nobody saw.
        size.seen = if size.seen + 1 == 2 * RECENT { RECENT } else { size.seen + 1 };
        size.last = self.runs;
        let fresh = self.sizes.iter().filter(|size| size.seen > 0 && self.runs - size.last <= STALE_RUNS);
        self.points.clear();
        self.points.extend(fresh.map(Size::point));
    }

    /// Notes a run that was ended since nobody waited any more. It would have taken longer; how much longer, nobody
    /// knows, and one that was ended early says nothing.
    pub(crate) fn note_ended(&mut self, rows: usize, elapsed: Duration) {
        if elapsed > self.of(rows) {
            self.note(rows, elapsed.mul_f64(1.5));
        }
    }

    fn micros(&self, rows: f64) -> f64 {
        let above = self.points.partition_point(|point| point.rows < rows);
        let nearest = |pair: [Point; 2]| {
            let [a, b] = pair;
            (b.micros - a.micros) / (b.rows - a.rows)
        };
        match *self.points.as_slice() {
            [] => self.trial(rows),
            [only] => only.micros * self.trial(rows) / self.trial(only.rows),
            [first, second, ..] if above == 0 => {
                let slope = nearest([first, second]).clamp(0.0, first.micros / first.rows);
                first.micros - slope * (first.rows - rows)
            }
            [.., before, last] if above == self.points.len() => {
                let slope = nearest([before, last]).clamp(0.0, last.micros / last.rows);
                last.micros + slope * (rows - last.rows)
            }
            ref points => {
                let pair = [points[above - 1], points[above]];
                pair[0].micros + nearest(pair) * (rows - pair[0].rows)
            }
        }
    }

    fn trial(&self, rows: f64) -> f64 {
        (self.trial.micros + self.trial.micros_per_row * (rows - 1.0).max(0.0)).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn costs() -> Costs {
        Costs::new(Cost { micros: 1_000.0, micros_per_row: 1_000.0 })
    }

    #[test]
    fn what_ran_outweighs_the_trial_and_an_interrupted_run_does_not() {
        let mut costs = costs();
        assert_eq!((costs.of(1), costs.of(4)), (MS, 4 * MS));
        for run in 0..20 {
            costs.note(1, if run % 3 == 0 { 500 * MS } else { 30 * MS });
        }
        assert_eq!(costs.of(1), 30 * MS);
        // Of no other size is anything known, so it is what the trial said, in proportion.
        assert_eq!(costs.of(4), 120 * MS);
    }

    #[test]
    fn sizes_are_learnt_one_from_the_other() {
        let mut costs = costs();
        assert!(!costs.company_pays(256));
        costs.note(1, 36 * MS);
        // One run of another size may have been interrupted; two say what it costs.
        costs.note(4, 39 * MS);
        assert_eq!(costs.of(4), 144 * MS);
        costs.note(4, 39 * MS);
        assert_eq!((costs.of(3), costs.of(14)), (38 * MS, 49 * MS));
        assert!(costs.company_pays(256) && !costs.company_pays(1));
        assert_eq!(costs.tried(), 4);
        // What has not been seen for long is no longer believed.
        (0..STALE_RUNS).for_each(|_| costs.note(4, 80 * MS));
        assert_eq!((costs.tried(), costs.of(1), costs.of(4)), (4, 20 * MS, 80 * MS));
    }

    #[test]
    fn a_run_that_was_ended_teaches_that_it_takes_longer() {
        let mut costs = costs();
        costs.note_ended(1, MS / 2);
        assert_eq!(costs.of(1), MS);
        costs.note_ended(1, 100 * MS);
        assert_eq!(costs.of(1), 150 * MS);
    }

    #[test]
    fn a_model_that_surprised_is_not_short_for_a_while() {
        let mut costs = Costs::new(Cost { micros: 20.0, micros_per_row: 1.0 });
        (0..9).for_each(|_| costs.note(1, Duration::from_micros(20)));
        assert!(costs.is_short(1));
        costs.note(1, 3_000 * MS);
        assert!(!costs.is_short(1));
        let until = (1..1_000).find(|_| {
            costs.note(1, Duration::from_micros(20));
            costs.is_short(1)
        });
        assert!(until.is_some_and(|runs| runs > 100), "{until:?}");
    }
}
