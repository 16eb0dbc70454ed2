//! What is wrong, and what is the way out? What keeps the server from answering comes first.

use quern_wire::{HeadState, Part, RunState, ServerStatus, StoreStatus, Trouble, ViewStatus};

use crate::{Deployment, Node};

/// Who has lacked pushed rows for so long does not just follow a moment later.
const STUCK_SECONDS: u64 = 10;
/// More rows than this in no file are too many, as the alert says as well.
const TAIL_ROWS_MAX: u64 = 1_000_000;

const AGAIN: &str = "run `quern materialize`";

impl Node {
    pub(super) fn troubles(&self, live: &Deployment, status: &ServerStatus) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let server = &status.server;
        troubles.extend(server.not_ready.iter().map(|cause| of(Part::Server, cause)));
        let stores =
            [(Part::OnlineStore, &status.stores.online_store), (Part::Registry, &status.stores.registry)];
        troubles.extend(stores.into_iter().filter_map(|(part, store)| unreachable(part, store)));
        troubles.extend(
            server.degraded.iter().filter(|_| server.ready).map(|degraded| {
                of(Part::Server, &format!("{} is degraded: {}", degraded.part, degraded.cause))
            }),
        );
        troubles.extend(self.log_trouble(live, status));
        let damaged = self.segments.damaged();
        troubles.extend(damaged.first().map(|path| {
            let count = damaged.len();
            let cause = format!(
                "segments are damaged or missing ({count}, `{path}` among them); `quern scrub` says the way out of each"
            );
            of(Part::Store, &cause)
        }));
        let lost = live.models.values().flat_map(|model| {
            model.versions.iter().filter_map(|version| {
                let name = format!("{} version {}", model.name, version.version);
                let cause = format!("it answers nobody: {}", version.model.why_lost()?);
                Some(Trouble { part: Part::Model, name: Some(name), cause })
            })
        });
        troubles.extend(lost);
        let sources = &live.compiled.catalog.definitions.sources;
        for view in &status.feature_views {
            let has_files = sources
                .get(&view.source)
                .is_some_and(|source| source.batch.is_some() || source.pull.is_some());
            troubles.extend(view_trouble(view, has_files));
        }
        for source in &status.sources {
            let tail_rows = source.pushed.map_or(0, |pushed| pushed.tail_rows);
            let tail = (tail_rows > TAIL_ROWS_MAX)
                .then(|| format!("{tail_rows} pushed rows are in no file yet; the server's log says why"));
            let stream = source.stream.as_ref().and_then(|stream| stream.cause.as_ref());
            let stream =
                stream.map(|cause| format!("its stream cannot be read, and is tried again: {cause}"));
            let pull = source.pull.as_ref().and_then(|pull| pull.cause.as_ref());
            let pull = pull.map(|cause| format!("its last pull failed: {cause}; mend that, and {AGAIN}"));
            troubles.extend(tail.into_iter().chain(stream).chain(pull).map(|cause| Trouble {
                part: Part::Source,
                name: Some(source.name.clone()),
                cause,
            }));
        }
        troubles
    }

    fn log_trouble(&self, live: &Deployment, status: &ServerStatus) -> Option<Trouble> {
        let log = &status.stores.log;
        let mut sources = live.compiled.catalog.definitions.sources.values();
        if let Err(error) = self.lag.log.check()
            && sources.any(|source| source.push)
        {
            return Some(of(Part::Log, &error.said()));
        }
        let behind = log.commits_behind.filter(|commits| *commits > 0)?;
        (log.behind_seconds >= STUCK_SECONDS).then(|| {
            let seconds = log.behind_seconds;
            let cause = format!(
                "the online store lacks {behind} commits of pushed rows and has not come nearer for {seconds} s; the \
                 server's log says why"
            );
            of(Part::Log, &cause)
        })
    }
}

fn of(part: Part, cause: &str) -> Trouble {
    Trouble { part, name: None, cause: cause.to_owned() }
}

fn unreachable(part: Part, store: &StoreStatus) -> Option<Trouble> {
    let cause = store.cause.as_ref()?;
    let place = if cause.contains(&store.place) { String::new() } else { format!(" ({})", store.place) };
    Some(of(part, &format!("{} does not answer: {cause}{place}", store.kind)))
}

fn view_trouble(view: &ViewStatus, has_files: bool) -> Option<Trouble> {
    let trouble = |cause| Some(Trouble { part: Part::FeatureView, name: Some(view.name.clone()), cause });
    let run = view.last_run.as_ref();
    match run.map(|run| (run.state, run)) {
        Some((RunState::Died, run)) => {
            return trouble(format!(
                "its last run died: it began at {} in process {}, which ended before it did; {AGAIN}",
                run.began, run.instance
            ));
        }
        Some((RunState::Failed, run)) => {
            let cause = run.error.as_deref().unwrap_or("it does not say why");
            return trouble(format!("its last run failed: {cause}"));
        }
        Some((RunState::Running, _)) => return None,
        Some((RunState::Done, _)) | None => {}
    }
    match view.head {
        _ if !has_files => None,
        HeadState::Never => trouble(format!("never materialized, so nothing of it is found; {AGAIN}")),
        HeadState::Begun => trouble(format!("a first run began and has not ended; {AGAIN}")),
        HeadState::Materialized => None,
    }
}
