//! A Raft core: inputs in, one [`Ready`] out. It has no I/O, no clock, no thread and no randomness
//! but its caller's seed; equal inputs give equal outputs.
#![forbid(unsafe_code)]

mod batch;
mod cache;
mod candidate;
mod config;
mod error;
mod follower;
mod inflight;
mod install;
mod leader;
mod log;
mod message;
mod mutant;
mod progress;
mod quorum;
mod raft;
mod read;
mod ready;
mod recover;
mod rng;
mod terms;
mod types;
mod writes;

pub use batch::{Batch, Kind};
pub use config::Config;
pub use error::*;
pub use message::*;
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use quorum::VOTERS_MAX;
pub use raft::{PeerState, PeerStatus, Raft};
pub use ready::*;
pub use recover::Stored;
pub use types::*;
