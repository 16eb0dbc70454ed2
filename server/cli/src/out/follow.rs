//! Which rows does a table of Delta Lake get that has those of the nights before?

use quern_base::clock::{now_us, shown};
use quern_server::destination::Mode;
use tokio::task::block_in_place;

use super::{At, Target};
use crate::error::Error;
use crate::failure::Result;

/// Before all time: a table that remembers this has nothing.
const NOTHING: i64 = i64::MIN;

/// Rows of one origin within a stretch of time, which a table may change.
pub(crate) struct Stretch<'a> {
    /// Whose rows.
    pub(crate) of: String,
    /// From this time on.
    pub(crate) from_us: &'a mut Option<i64>,
    /// Before this time.
    pub(crate) to_us: &'a mut Option<i64>,
}

/// What a table is to remember.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    /// Whose rows it has.
    pub(super) of: String,
    /// Up to when.
    pub(super) to_us: i64,
}

impl Target {
    /// Has a table remember up to when it has these rows, and go on from there where more are appended: nothing is
    /// there twice, and nothing is missing in between. They end by now, since of a later time there may be more.
    ///
    /// # Errors
    /// Where they begin elsewhere, unless that is meant (`again`).
    pub(crate) fn follow(&mut self, stretch: Stretch<'_>, again: bool) -> Result<()> {
        let At::Delta(delta, mode) = &self.at else { return Ok(()) };
        let Stretch { of, from_us, to_us } = stretch;
        let now_us = now_us();
        let mut end_us = to_us.map_or(now_us, |to_us| to_us.min(now_us));
        let mut known = None;
        if *mode == Mode::Append {
            let scratch = tempfile::tempdir().map_err(Error::from)?;
            known = block_in_place(|| delta.noted(&of, scratch.path()))?.filter(|us| *us != NOTHING);
        }
        if let (Some(known_us), false) = (known, again) {
            self.check_begins_at(known_us, (&of, *from_us))?;
            *from_us = Some(known_us);
            end_us = end_us.max(known_us);
        }
        *to_us = Some(end_us);
        self.noted = Some(Noted { of, to_us: end_us.max(known.unwrap_or(i64::MIN)) });
        Ok(())
    }

    /// Has a table forget up to when it has the rows of `of`, where others take their place.
    pub(crate) fn forget(&mut self, of: String) {
        if let At::Delta(_, Mode::Overwrite) = &self.at {
            self.noted = Some(Noted { of, to_us: NOTHING });
        }
    }

    fn check_begins_at(&self, known_us: i64, (of, from_us): (&str, Option<i64>)) -> Result<()> {
        let Some(from_us) = from_us.filter(|from_us| *from_us != known_us) else { return Ok(()) };
        let (known, from) = (shown(known_us), shown(from_us));
        let why = match from_us < known_us {
            true => "and would have some of them twice",
            false => "and would never have those in between",
        };
        Err(Error::refused(format!(
            "the table {self} has the rows of `{of}` up to {known}, {why} if these begin at {from}: leave `--from` out to go \
             on where it ends, or say `--again` if that is meant"
        ))
        .into())
    }
}
