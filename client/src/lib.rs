//! The async client of holdfast: finds the leader, pipelines, retries what may be retried, keeps
//! sessions alive, holds locks.
//!
//! # Quick start
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use client::{Client, ClientOptions, Wait};
//!
//! # async fn example() -> client::Result<()> {
//! let endpoints = ["127.0.0.1:7400".to_owned()];
//! let client = Client::connect(&endpoints, ClientOptions::default())?;
//!
//! client.put("city", "Berlin").await?;
//! let city = client.get("city").await?.item.map(|item| item.value);
//! assert_eq!(city.as_deref(), Some(&b"Berlin"[..]));
//!
//! // In a session a write takes effect exactly once, and locks can be held.
//! let session = client.session(Duration::from_secs(10), "quick start").await?;
//! session.put("counter", "1").await?;
//! if let Some(guard) = session.lock("job", Wait::Millis(2_000)).await? {
//!     println!("fencing token {}", guard.token());
//!     tokio::select! {
//!         reason = guard.lost() => eprintln!("stop: {reason}"),
//!         () = work() => guard.release().await?,
//!     }
//! }
//! session.close().await?;
//! # Ok(()) }
//! # async fn work() {}
//! ```
//!
//! # When something fails
//!
//! [`Error::certainty`] says whether the call took effect: certainly not, certainly, or unknown.
//! Reads and everything in a [`Session`] are repeated until the timeout of the call; a write
//! outside of a session is repeated only after an answer that says that it was not done.
//!
//! # Three ways in
//!
//! - [`Client`] for programs.
//! - [`Connection`] for load generators: one TCP connection, nothing else.
//! - [`core::Core`] for simulators: what [`Client`] does, without sockets and clocks.

#![forbid(unsafe_code)]

mod client;
mod connection;
pub mod core;
mod driver;
mod error;
mod lock;
mod session;

pub use client::{
    Client, ClientOptions, CompareAndSetReply, DeleteReply, GetReply, LockReply, RangePage,
};
pub use connection::{Connection, Reply};
pub use error::Error;
pub use lock::LockGuard;
pub use protocol::{Certainty, Consistency, ErrorCode, Expect, Item, KeyRange, NodeStatus, Wait};
pub use session::Session;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;
