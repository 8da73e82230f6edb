//! Placeholder until the crate's first commit.
pub mod state_machine;
pub mod config;
