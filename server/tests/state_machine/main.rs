//! The state machine, seen through its public surface.

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
