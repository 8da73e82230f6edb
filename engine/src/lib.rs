//! A segmented write-ahead log with durable, batched frames, and checkpoints, over one [`io::Disk`] trait.
//!
//! - A **frame** is one durable write of one or more entries; slots are pre-written files that are recycled for ever.
//! - Torn or corrupt is decided by promises alone: each frame states up to where everything before it was durable.
//! - The engine starts no thread, reads no clock and never waits after [`open`]: the caller's loop appends, calls
//!   [`Engine::turn`], acts on its events and waits in [`Engine::wait`].
//! - Any error on a write or a sync is final. The process ends and the next [`open`] recovers.
//!
//! It does not know what a term means, what a payload holds, or that there are other nodes.
//! `docs/log-format.md` describes every byte, `docs/durability.md` what is promised and what cannot be.
mod blocking;
pub mod buffer;
mod checkpoint;
mod checkpoint_writer;
mod codec;
mod dir;
mod engine;
mod error;
pub mod format;
mod frame;
#[cfg(any(test, feature = "simulated"))]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod index;
pub mod io;
mod log;
mod meta;
mod opening;
mod options;
mod random;
mod reads;
mod recovery;
mod report;
mod retained;
mod scan;
mod segment;
mod shared;
mod slots;
mod tags;
mod tail;
mod types;

pub use dir::DirLock;
pub use engine::Engine;
pub use error::{Check, CheckpointError, Damage, EngineError, OpenError, Proof, ReadError};
pub use opening::{Opened, open};
pub use options::Options;
pub use recovery::TornTail;
pub use report::{Recovered, Report};
pub use shared::{SharedLog, Surroundings};
pub use types::{
    Append, CheckpointInfo, CheckpointOrigin, Entry, Event, HardState, Identity, Meta, Position,
    Room, Status,
};
