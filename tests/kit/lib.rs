//! What do Quern's tests and benchmarks speak to? The only crate of them that knows the server's names, so that these
//! may change without them.
//!
//! A [`Repository`] lies in a folder of its own. Opened, on the [`Store`] that the test is about, it is a [`Node`]: a
//! server in this process, whose operations are called as its edges call them. A [`Server`] is one that listens, and a
//! [`Process`] is the binary, which can be killed.
//!
//! [`RedisServer`], [`RedisCluster`] and [`Postgres`] are real servers in processes of their own, [`Beside`] is any
//! other one, a [`Bucket`] fails as it is told to, and [`Proxy`] holds a connection still. An [`Authority`] signs
//! certificates.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod repository;
mod store;

mod node;
mod process;
mod server;
mod service;

mod beside;
mod bucket;
mod certificates;
mod postgres;
mod proxy;
mod redis_server;

mod environment;
mod failure;
mod faulty;
mod format;
mod random;
mod wait;

pub use quern::wire::{Plan, Report, Summary};
pub use quern_base::points;
pub use quern_engine::schema::{arrow_type, timestamp};
pub use quern_engine::windows::{Kept, Level};
pub use quern_engine::{RowState, Status, ViewId};
pub use quern_features::Vectors;
pub use quern_server::settings::KEYS as SETTINGS;
pub use quern_server::verbs::joined::Room;
pub use quern_server::verbs::labels::compact::Compacted;
pub use quern_server::verbs::predict::batch::When;
pub use quern_store::objects::Location as ObjectLocation;
pub use quern_store::online::Online;
pub use quern_store::redis::Redis;
pub use quern_store::rocks::{Replaced, Rows, Upserted, Wanted};

pub use self::beside::Beside;
pub use self::bucket::{Bucket, BucketFaults};
pub use self::certificates::{Authority, Signed};
pub use self::environment::{cache, cases, fixture, python_of, required, root};
pub use self::failure::{Failure, Result};
pub use self::faulty::{FAILS, FULL, Faults};
pub use self::format::set_format;
pub use self::node::{Checked, Labels, Live, Node, Push, metric, restore};
pub use self::postgres::{Postgres, fresh_database, load_dump};
pub use self::process::{Printed, Process, command, run, run_in};
pub use self::proxy::Proxy;
pub use self::random::Random;
pub use self::redis_server::{RedisCluster, RedisServer, free_port, fresh_prefix};
pub use self::repository::Repository;
pub use self::server::{Server, serve};
pub use self::service::{Model, Service, onnx_session};
pub use self::store::{Head, Store, open_redis};
pub use self::wait::{blocking, runtime, until};

/// Who asks, by what they bring.
pub mod identity {
    pub use quern_identity::api_key::fresh;
    pub use quern_identity::sign_in::parameters;
    pub use quern_identity::{Identity, Issuer, KeysAt, KnownKey, Registration, Trust, Why};
}

/// What is kept for good.
pub mod segments {
    pub use quern_store::segments::*;
}

/// The registry of definitions.
pub mod registry {
    pub use quern_store::registry::{AppliedModel, Apply, Location, NewApiKey, Registry, RunEnd, RunNote};
}
