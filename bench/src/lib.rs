//! The load generator: drives a cluster with a closed or an open loop, measures, and records histories.
//!
//! A run is a fixed number of [`lane`]s, one task and one connection each; a lane keeps a number of slots busy
//! with a [`job`]: preparing keys ([`sweep`]), the load on keys ([`load`]) or on locks ([`locks`]), a whole data set ([`whole`]). Nothing is
//! shared while the load runs but a counter and who leads. [`run`] puts it together.

#![forbid(unsafe_code)]

pub mod clock;
pub mod directory;
pub mod error;
pub mod job;
pub mod judge;
pub mod lane;
pub mod load;
pub mod locks;
pub mod material;
pub mod options;
pub mod pace;
pub mod pacer;
pub mod pending;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod scribe;
pub mod sweep;
pub mod tally;
pub mod whole;
