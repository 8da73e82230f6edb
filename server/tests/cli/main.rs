//! The `holdfast` binary from outside: what it prints, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dev;
mod lock;
mod node;
mod support;
mod usage;
mod wal;
