//! How does the state of a server look on a page? What is wrong first, and no line longer than a terminal.

use chrono::{DateTime, Utc};
use quern_wire::{
    HeadState, Part, RampStatus, RunState, ServerStatus, SourceStatus, StoreStatus, Stores, StreamStatus,
    Trouble, ViewStatus,
};

use crate::output::{Align, counted, table, thousands};

const WIDTH: usize = 100;
/// So many of what is wrong are told, and so many rows of a table; JSON has all.
const TROUBLES_MAX: usize = 20;
const ROWS_MAX: usize = 40;
/// So many ramps are told why they ended.
const REASONS_MAX: usize = 5;
/// The longest that a name is shown.
const NAME_CHARS: usize = 22;
const SOURCE_CHARS: usize = 14;
/// Of an instance, enough to tell two of them apart.
const INSTANCE_CHARS: usize = 8;

/// The page.
pub(super) fn page(status: &ServerStatus) -> String {
    let mut parts = vec![troubles(&status.troubles), server(status), views(status), sources(status)];
    parts.extend([streams(status), pulls(status), ramps(status)]);
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn troubles(troubles: &[Trouble]) -> String {
    let mut lines = vec![match troubles.len() {
        0 => "all is well".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        more => format!("{} things are wrong", thousands(more as u64)),
    }];
    for Trouble { part, name, cause } in troubles.iter().take(TROUBLES_MAX) {
        let part = match part {
            Part::Server => "server",
            Part::OnlineStore => "online store",
            Part::Registry => "registry",
            Part::Log => "log of pushed rows",
            Part::Store => "store",
            Part::FeatureView => "feature view",
            Part::Source => "source",
            Part::Model => "model",
        };
        let name = name.as_ref().map(|name| format!(" {}", cut(name, WIDTH - 24))).unwrap_or_default();
        lines.push(format!("  {part}{name}"));
        lines.extend(wrapped(cause, WIDTH - 6).into_iter().map(|line| format!("      {line}")));
    }
    lines.extend(more(troubles.len(), TROUBLES_MAX));
    lines.join("\n")
}

/// Says how many are not shown.
fn more(all: usize, shown: usize) -> Option<String> {
    (all > shown).then(|| format!("  … and {} more, which --json shows", thousands((all - shown) as u64)))
}

fn server(status: &ServerStatus) -> String {
    let server = &status.server;
    let ready = if server.ready { "ready" } else { "not ready" };
    let apply = match &server.applied_at {
        Some(at) => format!("apply {} of {}", server.apply, ago_of(status, at)),
        None => "nothing applied".to_owned(),
    };
    let uptime = span(server.uptime_seconds);
    let version = &server.version;
    let Stores { online_store, registry, log, predictions } = &status.stores;
    let behind = match (log.kind.as_str(), log.commits_behind) {
        ("nowhere", _) => "takes no pushes".to_owned(),
        (_, None) => "how far the head is cannot be found out".to_owned(),
        (_, Some(0)) => "the head has all of it".to_owned(),
        (_, Some(commits)) => format!("the head lacks {}", counted(commits, "commit")),
    };
    let (waiting, dropped) = (thousands(predictions.waiting), thousands(predictions.dropped));
    let lines = [
        ("server", format!("quern {version}, {ready}, up {uptime}, {apply}, instance {}", server.instance)),
        ("online store", store(online_store, status)),
        ("registry", store(registry, status)),
        ("log", format!("{}; {behind}", log.kind)),
        (
            "predictions",
            format!("{waiting} wait, {} logged, {dropped} dropped", thousands(predictions.written)),
        ),
    ];
    let lines = lines.into_iter().flat_map(|(name, text)| {
        let mut name = Some(name);
        let line = move |line: String| format!("{:<14}{line}", name.take().unwrap_or_default());
        wrapped(&text, WIDTH - 14).into_iter().map(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn store(store: &StoreStatus, status: &ServerStatus) -> String {
    let answers = if store.reachable { "answers" } else { "does not answer" };
    let last = store.last_error.as_ref();
    let last = last.map(|last| format!("; {} it failed: {}", ago_of(status, &last.at), last.error));
    format!("{} {}, {answers}{}", store.kind, store.place, last.unwrap_or_default())
}

fn views(status: &ServerStatus) -> String {
    let head = [
        ("feature view", Align::Left),
        ("source", Align::Left),
        ("up to", Align::Right),
        ("last run", Align::Left),
        ("took", Align::Right),
        ("written", Align::Right),
        ("by", Align::Left),
    ];
    let row = |view: &&ViewStatus| {
        let run = view.last_run.as_ref();
        let state = run.map(|run| {
            let state = match run.state {
                RunState::Running => "running",
                RunState::Done => "done",
                RunState::Failed => "failed",
                RunState::Died => "died",
            };
            format!("{state} {}", ago(run.age_seconds as i64))
        });
        vec![
            cut(&view.name, NAME_CHARS),
            cut(&view.source, SOURCE_CHARS),
            match (view.head, &view.materialized_until) {
                (HeadState::Materialized, Some(until)) => ago_of(status, until),
                (HeadState::Never, _) => "never".to_owned(),
                (HeadState::Begun | HeadState::Materialized, _) => "begun".to_owned(),
            },
            state.unwrap_or_else(|| "-".to_owned()),
            run.and_then(|run| run.seconds).map_or("-".to_owned(), took),
            run.and_then(|run| run.rows_written).map_or("-".to_owned(), thousands),
            run.map_or("-".to_owned(), |run| run.instance.chars().take(INSTANCE_CHARS).collect()),
        ]
    };
    let wrong = names(status, Part::FeatureView);
    let is_well = |view: &&ViewStatus| !wrong.contains(view.name.as_str());
    let mut views: Vec<&ViewStatus> = status.feature_views.iter().collect();
    views.sort_by_key(is_well);
    shown(&head, &views, row)
}

fn ramps(status: &ServerStatus) -> String {
    let head = [
        ("ramp of", Align::Left),
        ("version", Align::Left),
        ("is", Align::Left),
        ("step", Align::Right),
        ("share", Align::Right),
        ("since", Align::Right),
        ("requests", Align::Right),
    ];
    let row = |ramp: &&RampStatus| {
        vec![
            cut(&ramp.model, NAME_CHARS),
            cut(&ramp.version, SOURCE_CHARS),
            ramp.state.as_str().to_owned(),
            format!("{} of {}", ramp.step, ramp.steps.len()),
            ramp.steps.get(ramp.step.saturating_sub(1)).map_or("-".to_owned(), ToString::to_string),
            ago_of(status, &ramp.since),
            ramp.requests.map_or("-".to_owned(), short),
        ]
    };
    let mut ramps: Vec<&RampStatus> = status.ramps.iter().collect();
    ramps.sort_by_key(|ramp| ramp.reason.is_none());
    let reasons =
        ramps.iter().take(REASONS_MAX).filter_map(|ramp| Some((&ramp.model, ramp.reason.as_ref()?)));
    let lines = reasons.map(|(model, reason)| format!("{}: {reason}", cut(model, NAME_CHARS)));
    let lines = lines.flat_map(|line| wrapped(&line, WIDTH - 6));
    let lines: String = lines.map(|line| format!("\n      {line}")).collect();
    shown(&head, &ramps, row) + &lines
}

fn sources(status: &ServerStatus) -> String {
    let head = [
        ("source", Align::Left),
        ("newest event", Align::Right),
        ("pushed rows", Align::Right),
        ("in no file", Align::Right),
        ("files", Align::Right),
        ("size", Align::Right),
        ("accepted", Align::Right),
        ("rejected", Align::Right),
    ];
    let row = |source: &&SourceStatus| {
        let pushed = |told: fn(&quern_wire::PushedStatus) -> String| {
            source.pushed.as_ref().map_or("-".to_owned(), told)
        };
        vec![
            cut(&source.name, NAME_CHARS),
            source.newest_event.as_ref().map_or("-".to_owned(), |at| ago_of(status, at)),
            pushed(|pushed| short(pushed.rows)),
            pushed(|pushed| short(pushed.tail_rows)),
            pushed(|pushed| short(pushed.files)),
            pushed(|pushed| size(pushed.bytes)),
            pushed(|pushed| short(pushed.accepted)),
            pushed(|pushed| short(pushed.rejected)),
        ]
    };
    let wrong = names(status, Part::Source);
    let is_well = |source: &&SourceStatus| !wrong.contains(source.name.as_str());
    let mut sources: Vec<&SourceStatus> = status.sources.iter().collect();
    sources.sort_by_key(is_well);
    shown(&head, &sources, row)
}

fn streams(status: &ServerStatus) -> String {
    let head = [
        ("stream of", Align::Left),
        ("broker", Align::Left),
        ("topic", Align::Left),
        ("read", Align::Left),
        ("waiting", Align::Right),
        ("behind", Align::Right),
    ];
    let streams: Vec<_> =
        status.sources.iter().filter_map(|source| Some((&source.name, source.stream.as_ref()?))).collect();
    shown(&head, &streams, |(name, stream)| {
        vec![
            cut(name, NAME_CHARS),
            stream.broker.clone(),
            cut(&stream.topic, NAME_CHARS),
            read(stream),
            stream.waiting_events.map_or("-".to_owned(), short),
            stream.behind_seconds.map_or("-".to_owned(), |seconds| span(seconds as u64)),
        ]
    })
}

/// How much of a stream is read here.
fn read(stream: &StreamStatus) -> String {
    let some = stream.partitions.as_ref().map(|partitions| (partitions.here.len() as u64, partitions.all));
    match (&stream.cause, stream.reads, some) {
        (Some(_), ..) => "fails".to_owned(),
        (None, false, _) => "not here".to_owned(),
        (None, true, Some((here, all))) if here < all => format!("{here} of {all} here"),
        (None, true, _) => "here".to_owned(),
    }
}

fn pulls(status: &ServerStatus) -> String {
    let head = [
        ("pull of", Align::Left),
        ("connection", Align::Left),
        ("rows here", Align::Right),
        ("last", Align::Left),
        ("pulls", Align::Left),
    ];
    let pulls: Vec<_> =
        status.sources.iter().filter_map(|source| Some((&source.name, source.pull.as_ref()?))).collect();
    shown(&head, &pulls, |(name, pull)| {
        vec![
            cut(name, NAME_CHARS),
            cut(&pull.connection, NAME_CHARS),
            short(pull.rows),
            pull.at.clone().unwrap_or_else(|| "-".to_owned()),
            if pull.cause.is_some() { "fails" } else { "well" }.to_owned(),
        ]
    })
}

/// A table of the first rows, and how many more there are; nothing where there are none.
fn shown<T>(head: &[(&str, Align)], all: &[T], row: impl Fn(&T) -> Vec<String>) -> String {
    if all.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = all.iter().take(ROWS_MAX).map(row).collect();
    let lines = [table(head, &rows)].into_iter().chain(more(all.len(), ROWS_MAX));
    lines.collect::<Vec<_>>().join("\n")
}

/// The names of what something is wrong with.
fn names(status: &ServerStatus, part: Part) -> std::collections::BTreeSet<&str> {
    let troubles = status.troubles.iter().filter(|trouble| trouble.part == part);
    troubles.filter_map(|trouble| trouble.name.as_deref()).collect()
}

/// The beginning of a text that is too long.
fn cut(text: &str, chars: usize) -> String {
    match text.chars().count() > chars {
        true => text.chars().take(chars - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Words in lines of at most `width` characters; a longer word is cut into pieces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let last = lines.last_mut().expect("there is a line from the beginning on");
            let used = last.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width {
                last.extend([' '].into_iter().take(gap));
                last.extend(word);
                break;
            }
            if used == 0 {
                last.extend(word.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines
}

/// How long before the reply a time is that stands in it.
fn ago_of(status: &ServerStatus, time: &str) -> String {
    let read = |text: &str| DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc));
    match (read(&status.server.now), read(time)) {
        (Some(now), Some(then)) => ago((now - then).num_seconds()),
        _ => time.to_owned(),
    }
}

fn ago(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => format!("{} ago", span(seconds)),
        // Clocks are not one; what is far ahead is wrong, and told elsewhere.
        Err(_) if seconds > -60 => "0s ago".to_owned(),
        Err(_) => format!("in {}", span(seconds.unsigned_abs())),
    }
}

fn span(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ if seconds < 730 * DAY => format!("{}d", seconds / DAY),
        _ => format!("{}y", seconds / (365 * DAY)),
    }
}

fn took(seconds: f64) -> String {
    if seconds < 600.0 { format!("{seconds:.1} s") } else { span(seconds as u64) }
}

/// Numbers that fit into a column: `131,072`, `1.2 billion`.
fn short(number: u64) -> String {
    match number {
        0..10_000_000 => thousands(number),
        10_000_000..1_000_000_000 => format!("{:.1} M", number as f64 / 1e6),
        _ => format!("{:.1} G", number as f64 / 1e9),
    }
}

fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut shown = bytes as f64;
    let mut unit = "B";
    for next in units {
        // What would be rounded up to a thousand is one of the next.
        if shown < 999.95 {
            break;
        }
        (shown, unit) = (shown / 1e3, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{shown:.1} {unit}") }
}

#[cfg(test)]
mod tests;
