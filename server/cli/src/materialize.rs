//! `quern materialize`: how far is the head, and what came of the rows?

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};
use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use quern_wire::{MaterializeLine, MaterializeRequest, Progress, PullSummary, Summary, ViewSummary};

use super::backend::Backend;
use super::failure::{Failure, Result};
use super::output::{Align, print, print_json, table, thousands};
use super::{Options, Repository};
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    repository: Repository,
    /// Only this feature view; may be given several times.
    #[arg(long = "view", value_name = "VIEW")]
    views: Vec<String>,
    /// Rows from this time on, such as 2013-01-31 or 2013-01-31T08:30:00Z; else from where the last run ended.
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    from: Option<i64>,
    /// Rows up to this time; else up to now.
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    to: Option<i64>,
    /// How far before the end of the last run to look for rows that came late, such as 1d or 12h.
    #[arg(long, value_name = "DURATION", value_parser = feature_defs::parse_duration)]
    look_back: Option<i64>,
    /// Go on without pushed rows that the log of several servers has lost, as after a restore of an older backup: the
    /// views of their sources are made anew from what is left.
    #[arg(long, conflicts_with_all = ["views", "from", "to", "look_back"])]
    accept_loss: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let backend = Backend::open_to_change(&arguments.repository.folder(), options).await?;
    let request = MaterializeRequest {
        views: arguments.views.clone(),
        from_us: arguments.from,
        to_us: arguments.to,
        look_back_us: arguments.look_back,
        accept_loss: arguments.accept_loss,
    };
    let mut lines = backend.call_lines::<MaterializeLine>("/v1/materialize", &request).await?;
    let mut bar = Bar::default();
    while let Some(line) = lines.next().await {
        match line? {
            MaterializeLine::Progress(progress) => bar.show(progress),
            MaterializeLine::Summary(summary) => {
                bar.clear();
                match arguments.json {
                    true => print_json(&summary),
                    false => print_summary(&summary),
                }
                return refused(&summary);
            }
            MaterializeLine::Error(error) => {
                bar.clear();
                return Err(backend.failed(error));
            }
        }
    }
    bar.clear();
    let cause = "materialize broke off; run it again, it goes on where it stopped";
    Err(Error::unavailable(cause.to_owned()).into())
}

/// An error where rows were left out because of a `strict` feature.
fn refused(summary: &Summary) -> Result<()> {
    let views = summary.views.iter().filter(|view| view.refused > 0);
    let views: Vec<String> =
        views.map(|view| format!("`{}` ({})", view.view, thousands(view.refused))).collect();
    if views.is_empty() {
        return Ok(());
    }
    Err(Failure::Printed(format!(
        "values of `strict` features could not be computed, so that rows or events were left out: {}",
        views.join(", ")
    )))
}

/// One bar for all views, shown where stderr is a terminal.
#[derive(Default)]
struct Bar {
    views: BTreeMap<String, (u64, u64)>,
    bar: Option<ProgressBar>,
}

impl Bar {
    fn show(&mut self, progress: Progress) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(rows_bar);
        bar.set_message(progress.view.clone());
        self.views.insert(progress.view, (progress.done_rows, progress.total_rows));
        bar.set_length(self.views.values().map(|(_, total)| total).sum());
        bar.set_position(self.views.values().map(|(done, _)| done).sum());
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar that counts rows on stderr.
pub(super) fn rows_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let look = "{wide_bar} {human_pos}/{human_len} rows, {per_sec}, {eta} left  {msg}";
    if let Ok(style) = ProgressStyle::with_template(look) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn print_summary(summary: &Summary) {
    for PullSummary { source, rows, known, rejected, seconds } in &summary.pulled {
        let left_out =
            if *rejected > 0 { format!(", {} left out", thousands(*rejected)) } else { String::new() };
        let (rows, known) = (thousands(*rows), thousands(*known));
        print(format!(
            "pulled {source}: {rows} new rows, {known} known already{left_out}, in {seconds:.1} s"
        ));
    }
    let head = [
        ("feature view", Align::Left),
        ("rows read", Align::Right),
        ("filtered", Align::Right),
        ("written", Align::Right),
        ("unchanged", Align::Right),
        ("older", Align::Right),
        ("removed", Align::Right),
        ("rejected", Align::Right),
        ("rows/s", Align::Right),
        ("up to", Align::Left),
    ];
    let row = |view: &ViewSummary| {
        vec![
            view.view.clone(),
            thousands(view.rows_read),
            thousands(view.rows_filtered),
            thousands(view.rows_written),
            thousands(view.rows_unchanged),
            thousands(view.rows_older),
            thousands(view.rows_removed),
            thousands(view.rejected.values().sum()),
            rate(view.rows_read, view.seconds),
            DateTime::from_timestamp_micros(view.to_us)
                .map_or(String::new(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ]
    };
    print(table(&head, &summary.views.iter().map(row).collect::<Vec<_>>()));
    for view in &summary.views {
        for (why, count) in &view.rejected {
            print(format!("{}: {} rows rejected: {why}", view.view, thousands(*count)));
        }
        for (feature, count) in &view.failed {
            let count = thousands(*count);
            print(match feature.as_str() {
                "where" => {
                    format!("{}: {count} rows left out: `where` could not be computed for them", view.view)
                }
                _ => {
                    let first = view.failed_first.get(feature);
                    let first = first.map(|row| format!("; the first is in {row}")).unwrap_or_default();
                    format!("{}: {count} values of `{feature}` could not be computed{first}", view.view)
                }
            });
        }
    }
    for warning in &summary.warnings {
        print(format!("warning: {warning}"));
    }
    let read: u64 = summary.views.iter().map(|view| view.rows_read).sum();
    let wall = summary.wall_seconds;
    print(format!("\n{} rows in {wall:.1} s, {} rows/s", thousands(read), rate(read, wall)));
}

pub(super) fn rate(rows: u64, seconds: f64) -> String {
    if seconds > 0.0 { thousands((rows as f64 / seconds) as u64) } else { "-".to_owned() }
}

/// RFC 3339, a naive time or a date, both in UTC; as microseconds.
pub(super) fn time_us(text: &str) -> std::result::Result<i64, String> {
    let naive = |format| NaiveDateTime::parse_from_str(text, format).ok();
    let time = DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .ok()
        .or_else(|| {
            naive("%Y-%m-%dT%H:%M:%S%.f").or_else(|| naive("%Y-%m-%d %H:%M:%S%.f")).map(|time| time.and_utc())
        })
        .or_else(|| {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(date.and_hms_opt(0, 0, 0)?.and_utc())
        });
    time.map(|time| time.timestamp_micros()).ok_or_else(|| {
        "a time is such as 2013-01-31, 2013-01-31T08:30:00 or 2013-01-31T08:30:00-05:00".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        assert_eq!(time_us("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(time_us("1970-01-01T00:00:01.5"), Ok(1_500_000));
        assert_eq!(time_us("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(time_us("yesterday").is_err());
    }
}
