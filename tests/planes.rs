//! What do the tests ask about, unless they need more? A few planes and three models.

use quern_kit::{Node, Repository, Server, fixture, required};
use serde_json::{Value, json};

/// 2013-01-10, a moment after everything that the planes did.
pub(crate) const JANUARY_10: &str = "2013-01-10T00:00:00Z";
pub(crate) const JANUARY_10_US: i64 = 1_357_776_000_000_000;

pub(crate) const DEFINITIONS: &str = r#"
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: csv, path: landings.csv}
event_timestamp: landed_at
created_timestamp: loaded_at
columns:
  - {name: tailnum, type: string}
  - {name: landed_at, type: timestamp}
  - {name: loaded_at, type: timestamp}
  - {name: delay, type: float64}
  - {name: seats, type: int64}
  - {name: carrier, type: string}
---
kind: FeatureView
name: plane_history
entities: [plane]
source: landings
ttl: 30d
features:
  - {name: last_delay, expr: delay}
  - {name: seats}
  - {name: carrier, default: none}
---
kind: FeatureService
name: delay_v1
request: [{name: distance, type: float64}]
features: [{view: plane_history, features: [last_delay, seats]}]
derived: [{name: far, expr: "distance > 1000"}]
outputs: [distance, last_delay, far]
---
kind: FeatureService
name: carrier_v1
request: [{name: distance, type: float32}]
features: [{view: plane_history, features: [carrier]}]
outputs: [carrier, distance]
---
kind: Model
name: delay
versions: [{version: "1", path: models/linear.onnx, service: delay_v1}]
---
kind: Model
name: carrier
versions: [{version: "1", path: models/named.onnx, service: carrier_v1}]
---
kind: Model
name: class
versions: [{version: "1", path: models/classifier_text.onnx, service: delay_v1}]
"#;

/// N1's last number of seats is null, and its second landing was noted late; N2 was last seen long ago.
pub(crate) const LANDINGS: &str = "tailnum,landed_at,loaded_at,delay,seats,carrier\n\
    N1,2013-01-01T10:00:00Z,2013-01-01T10:00:00Z,5,100,UA\n\
    N1,2013-01-02T10:00:00Z,2013-01-05T00:00:00Z,7.5,,DL\n\
    N2,2012-06-01T10:00:00Z,2012-06-01T10:00:00Z,1,50,AA\n\
    N3,2013-01-03T10:00:00Z,2013-01-03T10:00:00Z,-2.25,20,\n";

/// The planes on disk, nothing applied yet.
pub(crate) fn repository() -> Repository {
    required("ORT_DYLIB_PATH");
    let repository = Repository::new(DEFINITIONS);
    repository.write("landings.csv", LANDINGS);
    for name in ["linear", "named", "classifier_text", "total"] {
        repository.write(format!("models/{name}.onnx"), fixture(&format!("{name}.onnx")));
    }
    repository
}

/// The planes of `repository`, applied and materialized up to [`JANUARY_10`].
pub(crate) async fn open(repository: &Repository) -> Node {
    let node = repository.open_applied().await;
    node.materialize_to(JANUARY_10_US);
    node
}

/// The planes, served.
pub(crate) async fn serve() -> Server {
    let repository = repository();
    drop(open(&repository).await);
    let node = repository.open_with(&[("body_bytes_max", "1000000".to_owned())]).await.unwrap();
    Server::of(repository, node).await
}

/// An instance of plane `tailnum` asking at [`JANUARY_10`].
pub(crate) fn instance(tailnum: &str, distance: f64) -> Value {
    json!({"tailnum": tailnum, "distance": distance, "event_timestamp": JANUARY_10})
}
