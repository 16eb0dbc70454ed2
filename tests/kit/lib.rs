//! What do Quern's tests and benchmarks speak to? The only crate of them that knows the server's names, so that these may
//! change without them.
//!
//! [`RedisServer`], [`RedisCluster`] and [`Postgres`] are real servers in processes of their own, [`Beside`] is any other
//! one, and [`Proxy`] holds a connection still.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
mod environment;
mod postgres;
mod proxy;
mod random;
mod redis_server;
mod wait;

pub use self::beside::Beside;
pub use self::environment::{cache, fixture, python_of, required};
pub use self::postgres::{Postgres, fresh_database};
pub use self::proxy::Proxy;
pub use self::random::Random;
pub use self::redis_server::{RedisCluster, RedisServer, free_port, fresh_prefix};
pub use self::wait::{blocking, until};
