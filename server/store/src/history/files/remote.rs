//! Which files of a bucket does a source's path name?

use std::sync::Arc;

use feature_defs::{BatchSource, Connection, DefError, Format, Loc, Reach};
use glob::{MatchOptions, Pattern};
use parking_lot::Mutex;

use super::super::format::{extensions, is_of};
use super::super::lakes::{self, Lake};
use super::{FILES_MAX, HistoryFile, Missed, Named, Place, Remote, Version, is_passed_over, too_many};
use crate::objects::{Location, Object, Objects, Reads, Unread};

/// How many names an error shows of those that are there.
const NAMES_SHOWN: usize = 5;
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Every file that `batch` names, sorted by name.
pub(super) fn named(objects: &Arc<Objects>, batch: &BatchSource) -> Result<Vec<HistoryFile>, Missed> {
    let mistake = |cause: String| DefError::new(&batch.loc, cause);
    let unread = |unread: Unread| missed(&batch.loc, unread);
    let plain = batch.objects().unwrap_or_default();
    let location = Location::parse_folder(plain).map_err(mistake)?;
    let Some(connection) = &batch.connection else {
        return Err(mistake(format!("no connection of its project leads to `{plain}`")).into());
    };
    let location = location.through(connection.storage.clone());
    if let Some(lake) = lake(objects, &location, connection) {
        return Err(mistake(lake.to_string()).with_help(lake.way_out()).into());
    }
    let glob = &batch.path[plain.len()..];
    if glob.is_empty() && !plain.ends_with('/') && location.depth() > 0 {
        let found = objects.file(&location).map_err(unread)?;
        if let Some(object) = found {
            return Ok(vec![file(objects, object, &Arc::default())]);
        }
    }
    let wanted = Wanted::new(glob, location.depth(), batch.format).map_err(mistake)?;
    let mut log = None;
    let found = objects.below(&location, FILES_MAX + 1, |parts| {
        log = log.take().or_else(|| lakes::told_by(parts));
        wanted.takes(parts)
    });
    let found = found.map_err(unread)?;
    if let Some(lake) = log {
        return Err(mistake(lake.to_string()).with_help(lake.way_out()).into());
    }
    if found.len() > FILES_MAX {
        return Err(too_many(batch).into());
    }
    if found.is_empty() {
        let cause = format!("no object matches `{}`", batch.path);
        let way_out = way_out(objects, &location, batch.format).map_err(unread)?;
        return Err(mistake(cause).with_help(way_out).into());
    }
    let reads = Arc::default();
    let mut files: Vec<HistoryFile> = found.into_iter().map(|object| file(objects, object, &reads)).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// What could not be read, at what names it.
pub(super) fn missed(loc: &Loc, unread: Unread) -> Missed {
    Missed { mistake: DefError::new(loc, unread.cause).with_help(unread.help), again: unread.again }
}

pub(super) fn file(objects: &Arc<Objects>, object: Object, reads: &Arc<Mutex<Reads>>) -> HistoryFile {
    let (name, at, version) = (object.name(), object.place(), Version::of_object(&object));
    let far = Arc::new(Remote { objects: Arc::clone(objects), object, reads: Arc::clone(reads) });
    HistoryFile { name, place: Place::Object(at, version, far), member: None }
}

/// Which objects below a folder a glob means.
struct Wanted {
    glob: Option<Pattern>,
    named: Named,
    /// How many parts the folder has.
    depth: usize,
    format: Format,
}

impl Wanted {
    fn new(glob: &str, depth: usize, format: Format) -> Result<Wanted, String> {
        let named = Named::by(glob);
        let is_plain = glob.is_empty();
        let glob = Pattern::new(glob).map_err(|error| format!("`{glob}` is no glob: {error}"))?;
        Ok(Wanted { glob: (!is_plain).then_some(glob), named, depth, format })
    }

    /// Whether the object with these parts is meant: itself, or as one of a folder that is.
    fn takes(&self, parts: &[String]) -> bool {
        let Some(below) = parts.get(self.depth..).filter(|below| !below.is_empty()) else { return false };
        let is_in = |folder: usize| {
            let inside = &below[folder..];
            inside.iter().all(|part| !is_passed_over(part))
                && inside.last().is_some_and(|name| is_of(self.format, name))
        };
        let Some(glob) = &self.glob else { return is_in(0) };
        let means = |count: usize| {
            let named = &below[..count];
            glob.matches_with(&named.join("/"), OPTIONS) && named.iter().all(|part| self.named.means(part))
        };
        means(below.len()) || (1..below.len()).any(|folder| means(folder) && is_in(folder))
    }
}

/// The table that the folder, or one above it to which the connection leads, is of.
fn lake(objects: &Objects, folder: &Location, connection: &Connection) -> Option<Lake> {
    let Reach::Objects { path, .. } = &connection.reach else { return None };
    let above = folder.above(path.len().max(1));
    above.into_iter().find_map(|folder| objects.told_of(&folder, || log_of(objects, &folder)))
}

/// The table of which there is a log in a folder.
fn log_of(objects: &Objects, folder: &Location) -> Option<Lake> {
    let depth = folder.depth();
    let is_log = |parts: &[String]| lakes::told_by(&parts[depth..]).is_some();
    lakes::LOGS.iter().find_map(|log| {
        // Who may not look there is told nothing, and reads what is named.
        let found = objects.below(&folder.join(log), 1, is_log).ok()?;
        lakes::told_by(&found.first()?.parts())
    })
}

/// Says what lies where the search began, which is mostly enough to see the typing error.
fn way_out(objects: &Objects, folder: &Location, format: Format) -> Result<String, Unread> {
    let found = objects.below(folder, NAMES_SHOWN + 1, |_| true)?;
    let mut names: Vec<String> = found.iter().take(NAMES_SHOWN).map(Object::name).collect();
    if names.is_empty() {
        names.push("nothing".to_owned());
    }
    let more = if found.len() > NAMES_SHOWN { ", …" } else { "" };
    Ok(format!(
        "looked below `{folder}`, where there is {}{more}; a folder stands for every {} file in it",
        names.join(", "),
        extensions(format).iter().map(|end| format!(".{end}")).collect::<Vec<_>>().join(" or ")
    ))
}
