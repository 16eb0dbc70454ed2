//! How far is the head? Up to which time views are materialized, and which tiles are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use quern_base::random;
use quern_engine::ViewId;
use quern_engine::windows::Kept;

use super::{FILES_UNTIL, Head, ID, KEPT, LACKING, MADE_OF, WATERMARK, about};
use crate::error::{Error, Result};
use crate::made_of::MadeOf;

impl Head {
    /// Names this head among all: one that is made anew has another name.
    pub fn id(&self) -> Result<String> {
        let _writing = self.writing.lock();
        if let Some(id) = self.db.get_cf(self.meta(), ID)? {
            return Ok(String::from_utf8_lossy(&id).into_owned());
        }
        let id = format!("{:016x}{:016x}", random::number(), random::number());
        self.db.put_cf(self.meta(), ID, &id)?;
        Ok(id)
    }

    /// Up to which query time (µs) the view's history is in the head; none before the first materialize, `i64::MIN`
    /// while the first has begun and not ended.
    pub fn watermark(&self, view: ViewId) -> Result<Option<i64>> {
        Ok(self.known_watermark(view))
    }

    /// The same, without asking anybody.
    pub fn known_watermark(&self, view: ViewId) -> Option<i64> {
        self.watermarks.read().get(&view).copied()
    }

    /// Moves the view's watermark to `to_us`, never back. Everything written before is on disk first.
    pub fn set_watermark(&self, view: ViewId, to_us: i64) -> Result<()> {
        self.advance(WATERMARK, view, to_us)
    }

    /// Forgets up to when the view is materialized: its next run is the first once more.
    pub fn forget_watermark(&self, view: ViewId) -> Result<()> {
        let _writing = self.writing.lock();
        self.note(WATERMARK, view, i64::MIN)
    }

    /// The latest instant (µs) of an event of a file that tiles of the view may hold; none where they hold none.
    pub fn files_until(&self, view: ViewId) -> Result<Option<i64>> {
        self.db.get_cf(self.meta(), about(FILES_UNTIL, view))?.map(|bytes| instant(&bytes)).transpose()
    }

    /// Notes that events of files up to `to_us` are about to come in.
    pub fn set_files_until(&self, view: ViewId, to_us: i64) -> Result<()> {
        self.advance(FILES_UNTIL, view, to_us)
    }

    /// Which files what is stored of the view may come from.
    pub fn made_of(&self, view: ViewId) -> Result<MadeOf> {
        let stored = self.db.get_cf(self.meta(), about(MADE_OF, view))?;
        stored.map_or_else(|| Ok(MadeOf::default()), |bytes| MadeOf::read(&bytes))
    }

    /// Notes those. Everything written before is on disk first.
    pub fn set_made_of(&self, view: ViewId, files: &MadeOf) -> Result<()> {
        let _writing = self.writing.lock();
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.put_cf_opt(self.meta(), about(MADE_OF, view), files.write(), &options)?)
    }

    fn advance(&self, what: &[u8], view: ViewId, to_us: i64) -> Result<()> {
        let _writing = self.writing.lock();
        let stored =
            self.db.get_cf(self.meta(), about(what, view))?.map(|bytes| instant(&bytes)).transpose()?;
        if stored.is_some_and(|stored| stored >= to_us) {
            return Ok(());
        }
        self.note(what, view, to_us)
    }

    fn note(&self, what: &[u8], view: ViewId, to_us: i64) -> Result<()> {
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        self.db.put_cf_opt(self.meta(), about(what, view), to_us.to_be_bytes(), &options)?;
        if what == WATERMARK {
            self.watermarks.write().insert(view, to_us);
        }
        Ok(())
    }

    /// The sources of which rows are not here that no log has any more.
    pub fn lacking(&self) -> Result<BTreeSet<String>> {
        let stored = self.db.get_cf(self.meta(), LACKING)?.unwrap_or_default();
        let names = String::from_utf8_lossy(&stored);
        Ok(names.split('\n').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// Notes those, before anything else of them comes in.
    pub fn set_lacking(&self, sources: &BTreeSet<String>) -> Result<()> {
        let _writing = self.writing.lock();
        let names: Vec<&str> = sources.iter().map(String::as_str).collect();
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.put_cf_opt(self.meta(), LACKING, names.join("\n"), &options)?)
    }

    /// What is kept of the events of `view`; none until it is materialized.
    pub fn kept(&self, view: ViewId) -> Option<Arc<Kept>> {
        self.kept.read().get(&view).cloned()
    }

    /// Notes what is kept of the events of `view`, all of which are in.
    pub fn set_kept(&self, view: ViewId, kept: Kept) -> Result<()> {
        let _writing = self.writing.lock();
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        self.db.put_cf_opt(self.meta(), about(KEPT, view), kept.write(), &options)?;
        self.kept.write().insert(view, Arc::new(kept));
        Ok(())
    }

    /// Notes that rows of `view` are about to come in, so that [`Head::retain`] knows of them even if their run is cut
    /// short.
    pub fn begin(&self, view: ViewId) -> Result<()> {
        self.set_watermark(view, i64::MIN)
    }
}

/// A time as it is stored, µs.
pub(super) fn instant(bytes: &[u8]) -> Result<i64> {
    let bytes =
        <[u8; 8]>::try_from(bytes).map_err(|_| Error::broken("the online store holds a broken instant"))?;
    Ok(i64::from_be_bytes(bytes))
}
