//! Which tiles must be rebuilt from history? Those that may hold a pushed event already: it cannot be taken in twice.

use quern_engine::asof::KeyTable;
use quern_engine::windows::Windows;
use quern_features::Compiled;
use quern_features::write::{Failures, Stretch, ViewWriter};

use quern_store::log::Position;

use crate::error::Result;

/// Keys whose tiles must be rebuilt from history, which has each event once.
pub(super) struct Rebuild<'a> {
    writer: ViewWriter<'a>,
    windows: &'a Windows,
    keys: KeyTable,
    from_us: i64,
}

impl<'a> Rebuild<'a> {
    pub(super) fn nothing(writer: ViewWriter<'a>, windows: &'a Windows) -> Rebuild<'a> {
        Rebuild { writer, windows, keys: KeyTable::default(), from_us: i64::MAX }
    }

    /// Adds a key, for an event that is visible from `visible_us` on.
    pub(super) fn add(&mut self, key: &[u8], visible_us: i64) {
        self.keys.intern(key);
        self.from_us = self.from_us.min(Windows::cut_us(visible_us));
    }

    /// The source of the events.
    pub(super) fn source(&self) -> &str {
        &self.writer.view.source
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Rebuilds them of what there is up to commit `at`. The caller keeps pushes waiting.
    pub(super) fn run(&self, live: &Compiled, at: Position) -> Result<()> {
        let ViewWriter { history, view, .. } = self.writer;
        let since = history.pushed.of(&view.source).end();
        let scan = live.open(history, view)?;
        let stretch = Stretch {
            // What lies before the days of a window over all time is one state, from which nothing can be taken.
            from_us: if self.windows.has_lifetime() { i64::MIN } else { self.from_us },
            to_us: i64::MAX,
            keys: Some(&self.keys),
            kept: self.writer.kept(self.windows),
            since,
            at: Some(at),
            order: None,
            // Known since they came in.
            failed: &Failures::default(),
            said: None,
        };
        self.writer.bring_in_events(&scan, &stretch, &|_, _| ())?;
        Ok(())
    }
}
