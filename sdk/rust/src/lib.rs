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
//!
//! Rows go up and training sets come down as streams of record batches:
//!
//! ```no_run
//! # async fn example(client: quern::Client, rows: arrow::array::RecordBatch) -> quern::Result<()> {
//! use quern::wire::PushCommand;
//!
//! let command = PushCommand { push_source_name: "landings".to_owned(), ..PushCommand::default() };
//! let pushed = client.push(&command, rows.schema(), futures::stream::iter([rows])).await?.finish().await?;
//! println!("{} rows are durable", pushed.accepted + pushed.repeated);
//! # Ok(())
//! # }
//! ```
//!
//! A server that asks who one is, over TLS, with a certificate of an authority of its own:
//!
//! ```no_run
//! # async fn example(key: String) -> quern::Result<()> {
//! use quern::Credentials;
//!
//! let credentials = Credentials { token: Some(key), ca: Some("ca.pem".into()), ..Credentials::default() };
//! let client = quern::Client::connect_with("https://quern.corp:7400", credentials).await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod credentials;
mod error;
mod exchange;
mod flight;
mod push;
mod tls;

pub use client::Client;
pub use credentials::Credentials;
pub use error::{Error, Result};
pub use exchange::Rows;
pub use push::Push;
pub use quern_wire as wire;
