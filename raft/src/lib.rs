//! A Raft core: inputs in, one [`Ready`] out.
//!
//! It does no I/O, reads no clock, starts no thread and draws no randomness but from its caller's
//! seed; equal inputs give equal outputs. It knows nothing of disks, sockets and keys. `docs/raft.md`
//! describes the design; this page is the contract.
//!
//! # What the caller owes
//!
//! 1. **Writes.** Every [`Ready::write`] goes to the log in the order of its number.
//!    (W1) What survives a crash is a prefix: if anything of write *k* is there, all of every
//!    earlier write is; within one write the order is hard state, reset, truncation, entries, and
//!    any prefix of that is legal. (W2) [`Raft::wrote`]`(seq)` means that every write up to `seq`
//!    is durable; completions out of order are folded into the contiguous prefix first. (W3) A
//!    write that fails is final: there is no input to take it back, the process ends and recovers.
//! 2. **Messages** may be sent at once: none waits for the write beside it. Each belongs to one
//!    connection and dies with it. What arrives is given to [`Raft::step`] with the connection it
//!    came over; an error there means that the connection must be closed.
//! 3. **Connections.** At most one per peer is current. [`Raft::peer_up`] comes before its first
//!    message, [`Raft::peer_lost`] when it is gone, whatever was still under way.
//! 4. **Committed entries** are applied in order, each once; then [`Raft::applied`]. They may not
//!    be durable here yet, so a checkpoint waits for [`Raft::durable_index`].
//! 5. **Loads and snapshots** are answered under the identity they were asked with. A snapshot is
//!    loaded into the state machine only while its install stands: not after
//!    [`SnapshotOrder::StopInstalling`], which comes in a [`Ready`] before that `Ready`'s committed
//!    entries are to be applied.
//! 6. **Time.** [`Raft::tick`] at most once per turn, after the messages of that turn.
//!
//! # Watermarks
//!
//! ```text
//! log_start ≤ applied_index ≤ commit_index ≤ last_index        durable_index ≤ last_index
//! ```
//!
//! `durable_index` and `commit_index` are *not* ordered: a quorum of others may commit an entry
//! before this node's disk has answered, and a disk may hold entries that never commit.
//!
//! # Example
//!
//! A cluster of one, whose disk answers at once:
//!
//! ```
//! use raft::{Config, Membership, Micros, NodeId, Raft, Ready, Stored};
//!
//! let founding = Stored::founding(Membership { voters: vec![NodeId(1)] });
//! let mut raft = Raft::recover(Config::new(NodeId(1)), founding, 42)?;
//! let mut out = Ready::default();
//! while !raft.is_leader_ready() {
//!     raft.tick(Micros(0));
//!     raft.ready(&mut out);
//!     if let Some(write) = out.write.take() {
//!         raft.wrote(write.seq); // Only when it is durable.
//!     }
//! }
//! let id = raft.propose("x".into()).expect("it leads");
//! raft.ready(&mut out);
//! raft.wrote(out.write.take().expect("the entry").seq);
//! raft.ready(&mut out);
//! let batch = out.committed.last().expect("its own disk is the quorum");
//! assert_eq!((batch.term(), batch.payload(id.index)), (id.term, "x".into()));
//! # Ok::<(), raft::RecoverError>(())
//! ```
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
