//! Nodes over a disk that can lose its tail and a network that can do anything, with every
//! invariant checked at every step. Tests that tell a story and tests that roll dice share it.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "only tests use it, though not from functions marked so")]

pub(crate) mod checker;
pub(crate) mod disk;
pub(crate) mod model;
pub(crate) mod random;
pub(crate) mod talk;
pub(crate) mod world;

use raft::{LogId, LogIndex, Term};

/// The identity of an entry, in short.
pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: LogIndex(index) }
}
