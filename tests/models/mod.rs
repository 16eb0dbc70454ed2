//! Where do models come from, who answers for them, and what is kept of what they said?

mod artifacts;
mod registered;

mod bounds;
mod fed;
mod remote;
mod workers;

mod batch;
mod routing;

mod compaction;
mod kept;
mod labels;
mod own_event;
pub(crate) mod predictions;

pub(crate) use self::predictions::repository as logged_planes;
