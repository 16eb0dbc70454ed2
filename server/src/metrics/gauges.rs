//! What state is the server in, at the moment that it is asked? Read from where it is kept, and not counted.

use feature_defs::Operation;
use quern_access::Caller;
use quern_base::metrics::Gauge;

use crate::Node;
use crate::error::Result;
use crate::live::following::Standing;

impl Node {
    /// All that was counted in the process and the state of the node, in Prometheus' text format, for `who` asks.
    ///
    /// # Errors
    /// `Kind::Forbidden`: labels name what is live.
    pub fn show_metrics(&self, who: &Caller) -> Result<String> {
        self.live().seen_by(who).operate(Operation::Metrics)?;
        // Made here, so that what nobody counted yet is shown as zero.
        let _ =
            (super::metrics(), quern_features::metrics(), quern_inference::metrics(), quern_store::metrics());
        Ok(quern_base::metrics::render(&self.gauges()))
    }

    /// The state of what is live, of caches and of pools.
    pub fn gauges(&self) -> Vec<Gauge> {
        let live = self.live();
        let number = "Number of the apply that is live; 0 before the first";
        let mut gauges = vec![Gauge::new("quern_apply_number", number, live.number)];
        let (held, most) = ("Bytes that requests under way hold", "Bytes that they may hold");
        gauges.push(Gauge::new("quern_requests_bytes", held, self.memory.used() as u64));
        gauges.push(Gauge::new("quern_requests_bytes_max", most, self.memory.max() as u64));
        let until = "Up to when a feature view is materialized, in seconds since 1970";
        gauges.extend(live.compiled.catalog.views.values().filter_map(|view| {
            let until_us = self.reader.materialized_until(view.id)?;
            Some(Gauge {
                labels: vec![("feature_view", view.name.clone())],
                value: until_us as f64 / 1e6,
                ..Gauge::new("quern_materialized_until_seconds", until, 0)
            })
        }));
        gauges.extend(self.runs.gauges(live.compiled.catalog.views.keys()));
        gauges.extend(self.lag.gauges());
        gauges.extend(self.streams.gauges());
        gauges.extend(super::models::gauges(&live));
        gauges.extend(live.ramps.iter().map(|(model, ramp)| {
            let state = ramp.status(model, None, 0).state.as_str();
            let labels = [("model", model.as_str()), ("version", &ramp.version), ("state", state)];
            Gauge::new("quern_ramp_state", "Always 1, with how the ramp of a model is", 1).of(&labels)
        }));
        gauges.extend(self.degraded.gauges(std::time::Instant::now()));
        gauges.extend(quern_base::metrics::process());
        let build = Gauge::new("quern_build_info", "Always 1, with the version that runs", 1);
        gauges.push(build.of(&[("version", env!("CARGO_PKG_VERSION"))]));
        gauges.extend(self.local.gauges());
        if let Some((all, idle)) = self.registry.connections() {
            gauges.extend([
                Gauge::new("quern_registry_connections", "Connections to the shared registry", all),
                Gauge::new("quern_registry_connections_idle", "Connections to it that nobody uses", idle),
            ]);
        }
        if let Some(Standing { up, latest, lag_seconds }) = self.follow.standing() {
            let lag =
                "Seconds for which a newer apply than the live one has been known; 0 where there is none";
            gauges.extend([
                Gauge::new(
                    "quern_registry_up",
                    "Whether the shared registry answered when it was asked last",
                    u64::from(up),
                ),
                Gauge::new(
                    "quern_registry_apply_number",
                    "Number of the latest apply in the shared registry",
                    latest,
                ),
                Gauge { value: lag_seconds, ..Gauge::new("quern_apply_lag_seconds", lag, 0) },
            ]);
        }
        gauges
    }
}
