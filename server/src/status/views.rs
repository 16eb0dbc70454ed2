//! How far is the head with each feature view, and what came of its last run?

use std::collections::BTreeMap;

use quern_base::clock::shown;
use quern_store::registry::Run;
use quern_wire::{HeadState, RunStatus, ViewStatus};

use super::Asked;
use crate::{Deployment, Node};

impl Node {
    pub(super) fn views(&self, live: &Deployment, asked: &Asked) -> Vec<ViewStatus> {
        let runs: BTreeMap<&str, &Run> = asked.runs.runs.iter().map(|run| (run.view.as_str(), run)).collect();
        let view = |view: &std::sync::Arc<quern_engine::ViewPlan>| {
            let head = &self.reader.head;
            let until_us = head.materialized_until(view.id);
            let run = runs.get(view.name.as_str()).copied();
            ViewStatus {
                name: view.name.clone(),
                source: view.source.clone(),
                head: match until_us {
                    Some(_) => HeadState::Materialized,
                    None if head.has_begun(view.id) => HeadState::Begun,
                    None => HeadState::Never,
                },
                materialized_until: until_us.map(shown),
                last_run: run.map(|run| self.run(run, asked)),
                last_success: run.and_then(|run| run.success_us).map(shown),
            }
        };
        live.compiled.catalog.views.values().map(view).collect()
    }

    fn run(&self, run: &Run, asked: &Asked) -> RunStatus {
        RunStatus {
            state: self.runs.state_of(run, asked.runs.now_us),
            began: shown(run.begun_us),
            ended: run.ended_us.map(shown),
            seconds: run.ended_us.map(|ended_us| ended_us.saturating_sub(run.begun_us).max(0) as f64 / 1e6),
            age_seconds: asked.age_seconds(run.ended_us.unwrap_or(run.begun_us)),
            rows_written: run.rows_written.map(i64::unsigned_abs),
            until: run.until_us.map(shown),
            instance: run.instance.clone(),
            error: run.error.clone(),
        }
    }
}
