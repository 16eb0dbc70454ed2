//! What is known of each source without reading its files?

use std::collections::BTreeMap;

use feature_defs::{Broker, Source};
use quern_base::clock::shown;
use quern_wire::{PartitionsStatus, PullStatus, PushedStatus, SourceStatus, StreamStatus};

use super::Asked;
use crate::metrics::metrics;
use crate::{Deployment, Node};

impl Node {
    pub(super) fn sources(&self, live: &Deployment, asked: &Asked) -> Vec<SourceStatus> {
        let catalog = &live.compiled.catalog;
        let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
        for run in &asked.runs.runs {
            if let (Some(view), Some(newest_us)) = (catalog.views.get(&run.view), run.newest_us) {
                let known = newest.entry(&view.source).or_insert(newest_us);
                *known = newest_us.max(*known);
            }
        }
        let source = |source: &Source| {
            let pushed = self.reader.history.pushed.of(&source.name);
            let tail = pushed.newest_in_tail(&source.event_timestamp);
            let newest_us = newest.get(source.name.as_str()).copied().max(tail);
            SourceStatus {
                name: source.name.clone(),
                newest_event: newest_us.map(shown),
                pushed: source.push.then(|| self.pushed(source, asked.knows_lag)),
                stream: self.stream(source),
                pull: self.pull(source),
            }
        };
        catalog.definitions.sources.values().map(source).collect()
    }

    fn pushed(&self, source: &Source, knows_lag: bool) -> PushedStatus {
        let amounts = self.reader.history.pushed.of(&source.name).amounts();
        let counted = |outcome| metrics().pushed(&source.name, outcome);
        PushedStatus {
            rows: amounts.rows,
            tail_rows: amounts.tail_rows,
            files: amounts.files,
            bytes: amounts.bytes,
            commits_behind: knows_lag.then(|| self.lag.stands.of(&source.name)),
            accepted: counted("accepted"),
            repeated: counted("repeated"),
            rejected: counted("rejected"),
        }
    }

    fn pull(&self, source: &Source) -> Option<PullStatus> {
        let connection = source.pull.as_ref()?.by.clone();
        let known = self.pulls.of(&source.name);
        Some(PullStatus { connection, rows: known.rows, at: known.at_us.map(shown), cause: known.cause })
    }

    fn stream(&self, source: &Source) -> Option<StreamStatus> {
        let declared = source.stream.as_ref()?;
        let known = self.streams.of(&source.name);
        Some(StreamStatus {
            broker: match declared.broker {
                Broker::Kafka => "kafka",
                Broker::Redis => "redis",
            }
            .to_owned(),
            topic: declared.topic.clone(),
            reads: known.reads,
            partitions: known
                .partitions
                .map(|known| PartitionsStatus { here: known.here, all: known.all as u64 }),
            cause: known.cause,
            waiting_events: known.waiting_events,
            behind_seconds: known.behind.map(|behind| behind.as_secs_f64()),
        })
    }
}
