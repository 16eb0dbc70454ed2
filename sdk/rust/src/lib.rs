//! How does a Rust program talk to a Quern server?
//!
//! ```no_run
//! # async fn example() -> quern::Result<()> {
//! use serde_json::json;
//!
//! let client = quern::Client::connect("http://127.0.0.1:7400").await?;
//! let instance = json!({"tailnum": "N14228", "distance": 1400.0});
//! let reply = client.predict("arrival_delay", [instance]).await?;
//! println!("{:?}", reply.predictions);
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod flight;
mod push;
mod training;
pub mod wire;

pub use client::Client;
pub use error::{Error, Result};
pub use push::Push;
pub use training::TrainingSet;
