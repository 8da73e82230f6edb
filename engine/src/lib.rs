//! A segmented write-ahead log with durable, batched frames, and checkpoints, over one [`io::Disk`] trait.
pub mod buffer;
mod codec;
mod error;
pub mod format;
mod frame;
mod index;
pub mod io;
mod options;
mod recovery;
mod scan;
mod segment;
mod types;

pub use error::{Check, CheckpointError, Damage, EngineError, OpenError, Proof, ReadError};
pub use options::Options;
pub use recovery::TornTail;
pub use types::{
    Append, CheckpointInfo, CheckpointOrigin, Entry, Event, HardState, Identity, Meta, Position,
    Room, Status,
};
