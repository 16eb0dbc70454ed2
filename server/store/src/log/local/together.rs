//! How do those who commit at the same time share a write?
//!
//! A write to disk takes as long for many as for one. Whoever comes first writes for all that have come until then, as
//! soon as the write before is done; the others wait to hear what became of theirs.

use std::mem;
use std::sync::mpsc::{SyncSender, sync_channel};

use parking_lot::Mutex;

use super::bytes::start;
use crate::error::{Error, Result};
use crate::log::logged::{Logged, Seen, SeenKey, to_bytes};
use crate::position::Position;

/// What one of them gives.
pub(super) struct Given {
    pub(super) groups: Vec<Group>,
    /// As they are stored.
    pub(super) seen: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Rows of one source, as they are stored, but for the name of the commit before.
pub(super) struct Group {
    pub(super) source: String,
    pub(super) position: Position,
    end: u64,
    body: Vec<u8>,
}

/// Those who wait to be written.
#[derive(Default)]
pub(super) struct Waiting {
    given: Mutex<Vec<(Given, SyncSender<Result<()>>)>>,
    /// Held by whoever writes.
    writing: Mutex<()>,
}

impl Given {
    pub(super) fn new(groups: &[Logged], seen: &[(SeenKey, Seen)]) -> Result<Given> {
        let stored = |(key, seen): &(SeenKey, Seen)| {
            (key.bytes().to_vec(), [&seen.until_us.to_be_bytes()[..], &seen.value].concat())
        };
        Ok(Given {
            groups: groups.iter().map(Group::new).collect::<Result<_>>()?,
            seen: seen.iter().map(stored).collect(),
        })
    }
}

impl Group {
    fn new(logged: &Logged) -> Result<Group> {
        let history = to_bytes(&logged.history)?;
        let online = logged.online.as_ref().map(to_bytes).transpose()?.unwrap_or_default();
        let heads = [logged.first, logged.in_head as u64, history.len() as u64].map(u64::to_be_bytes);
        let body = [heads.as_flattened(), &history, &online].concat();
        let (source, position, end) = (logged.source.clone(), logged.position, logged.end());
        Ok(Group { source, position, end, body })
    }

    pub(super) fn key(&self) -> Vec<u8> {
        let number = self.position.number.to_be_bytes();
        [&start(&self.source)[..], &number, &self.end.to_be_bytes()].concat()
    }

    pub(super) fn value(&self, previous: i64) -> Vec<u8> {
        let names = [self.position.token, previous].map(i64::to_be_bytes);
        [names.as_flattened(), &self.body].concat()
    }
}

impl Waiting {
    /// Has `given` written, by this thread or another, by `write`, which tells what became of each.
    pub(super) fn write(
        &self,
        given: Given,
        write: impl FnOnce(&[Given]) -> Result<Vec<Result<()>>>,
    ) -> Result<()> {
        let (send, ended) = sync_channel(1);
        self.given.lock().push((given, send));
        let turn = self.writing.lock();
        let (all, told): (Vec<Given>, Vec<_>) = mem::take(&mut *self.given.lock()).into_iter().unzip();
        // Whoever wrote before has often taken this along.
        if !all.is_empty() {
            let ends = write(&all).unwrap_or_else(|error| {
                let again = || Err(quern_base::Failure::again(&error).into());
                told.iter().map(|_| again()).collect()
            });
            for (told, end) in told.iter().zip(ends) {
                // Who asked waits right there.
                let _ = told.send(end);
            }
        }
        drop(turn);
        ended.recv().unwrap_or_else(|_| Err(Error::broken("a write of the log of pushed rows broke off")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::thread;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;
    use crate::log::LocalLog;

    fn logged(source: &str, row: i64, position: Position) -> Logged {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![row]));
        let history = RecordBatch::try_from_iter([("x", values)]).unwrap();
        Logged { position, source: source.to_owned(), first: row as u64, history, in_head: 1, online: None }
    }

    #[test]
    fn whoever_commits_at_the_same_time_each_source_has_all_of_its_own_in_order() {
        const ROWS: i64 = 30;
        let folder = tempfile::tempdir().unwrap();
        let log = LocalLog::open(folder.path()).unwrap();
        let sources: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
        thread::scope(|scope| {
            for source in &sources {
                let log = &log;
                scope.spawn(move || {
                    for row in 0..ROWS {
                        let last = log.last(source);
                        let key =
                            (SeenKey::new(source, b"k"), Seen { until_us: i64::MAX, value: vec![row as u8] });
                        log.commit(&[logged(source, row, last.next())], &[key]).unwrap();
                        // Who comes too late writes nothing, and keeps nobody else from it.
                        log.commit(&[logged(source, row, last.next())], &[]).unwrap_err();
                    }
                });
            }
        });
        drop(log);
        let log = LocalLog::open(folder.path()).unwrap();
        let lasts: BTreeMap<String, i64> =
            log.lasts().into_iter().map(|(source, last)| (source, last.number)).collect();
        assert_eq!(lasts, sources.iter().map(|source| (source.clone(), ROWS)).collect());
        for source in &sources {
            let mut rows = Vec::new();
            log.after(source, 0, &mut |logged| {
                rows.push(logged.first as i64);
                Ok(())
            })
            .unwrap();
            assert_eq!(rows, (0..ROWS).collect::<Vec<_>>());
            let seen = log.seen(&[SeenKey::new(source, b"k")], 0).unwrap();
            assert_eq!(seen[0].as_ref().unwrap().value, [ROWS as u8 - 1]);
        }
    }
}
