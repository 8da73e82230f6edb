//! The state machine, seen through its public surface.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![expect(clippy::wildcard_enum_match_arm, reason = "tests match what they expect")]

mod entries;
mod generator;
mod golden;
mod harness;
mod keys;
mod locks;
mod model;
mod model_test;
mod sessions;
mod snapshots;
