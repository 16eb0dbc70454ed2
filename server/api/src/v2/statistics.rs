//! What has each version of a model been asked, in the words of Triton's extension for statistics?

use quern_oip::messages;
use quern_server::Deployment;
use quern_server::live::{LiveVersion, Seen};
use quern_server::metrics::{Statistics, Total};
use quern_server::verbs::predict::Target;
use quern_wire::{InferenceStatistics, StatisticDuration, VersionStatistics};

use super::metadata;

/// Of all versions of the model, or of the one that is asked about.
pub(super) fn of(target: &Target, only_one: bool) -> Vec<VersionStatistics> {
    let name = &target.model().name;
    match only_one {
        true => vec![of_version(name, target.version())],
        false => target.model().versions.iter().map(|version| of_version(name, version)).collect(),
    }
}

/// Of every model that may be asked.
pub(super) fn of_all(live: &Deployment, seen: &Seen<'_>) -> Vec<VersionStatistics> {
    metadata::index(live, seen).map(|(name, version)| of_version(name, version)).collect()
}

fn of_version(name: &str, version: &LiveVersion) -> VersionStatistics {
    let Statistics { answered, failed, queue, runs, rows, last_run_us } = Statistics::of(name, version);
    VersionStatistics {
        name: name.to_owned(),
        version: version.version.clone(),
        last_inference: u64::try_from(last_run_us / 1_000).unwrap_or_default(),
        inference_count: rows,
        execution_count: runs.count,
        inference_stats: InferenceStatistics {
            success: duration(answered),
            fail: duration(failed),
            queue: duration(queue),
            compute_infer: duration(runs),
            ..InferenceStatistics::default()
        },
        batch_stats: Vec::new(),
    }
}

fn duration(Total { count, time }: Total) -> StatisticDuration {
    StatisticDuration { count, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
}

/// The same over gRPC.
pub(super) fn as_message(of: VersionStatistics) -> messages::ModelStatistics {
    let InferenceStatistics { success, fail, queue, compute_input, compute_infer, compute_output, .. } =
        of.inference_stats;
    let duration = |of: StatisticDuration| Some(messages::StatisticDuration { count: of.count, ns: of.ns });
    messages::ModelStatistics {
        name: of.name,
        version: of.version,
        last_inference: of.last_inference,
        inference_count: of.inference_count,
        execution_count: of.execution_count,
        inference_stats: Some(messages::InferStatistics {
            success: duration(success),
            fail: duration(fail),
            queue: duration(queue),
            compute_input: duration(compute_input),
            compute_infer: duration(compute_infer),
            compute_output: duration(compute_output),
            cache_hit: duration(of.inference_stats.cache_hit),
            cache_miss: duration(of.inference_stats.cache_miss),
        }),
    }
}
