//! Which file of a server does a source's path name?

use std::sync::Arc;

use feature_defs::{BatchSource, DefError};

use super::{HistoryFile, Missed, remote};
use crate::objects::{Location, Objects};

/// The one file that `batch` names: a server lists none over HTTP.
pub(super) fn named(objects: &Arc<Objects>, batch: &BatchSource) -> Result<Vec<HistoryFile>, Missed> {
    let mistake = |cause: String| Missed::from(DefError::new(&batch.loc, cause));
    let Some(connection) = &batch.connection else {
        return Err(mistake(format!("no connection of its project leads to `{}`", batch.path)));
    };
    let location = Location::over_http(&batch.path, connection).map_err(mistake)?;
    let object = objects.served(&location).map_err(|unread| remote::missed(&batch.loc, unread))?;
    Ok(vec![remote::file(objects, object, &Arc::default())])
}
