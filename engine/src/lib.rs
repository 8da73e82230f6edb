//! A segmented write-ahead log with durable, batched frames, and checkpoints, over one [`io::Disk`] trait.
//!
//! - A **frame** is one durable write of one or more entries; slots are pre-written files that are recycled for ever.
//! - Torn or corrupt is decided by promises alone: each frame states up to where everything before it was durable.
//! - The engine starts no thread, reads no clock and never waits after [`open`]: the caller's loop appends, calls
//!   [`Engine::turn`], acts on its events and waits in [`Engine::wait`].
//! - Any error on a write or a sync is final. The process ends and the next [`open`] recovers.
//!
//! # A short tour
//!
//! A caller locks a directory ([`DirLock`]), opens a disk on it ([`io::open::open_disk`]), and opens the engine, which
//! tells what it found ([`Recovered`]). It appends, turns, and waits until [`Event::Durable`] comes back. A checkpoint
//! holds the caller's own state at one entry; what is before the older of the two newest is no longer kept. The next
//! open starts from the newest checkpoint and the entries after it.
//!
//! ```
//! use bytes::Bytes;
//! use engine::io::open::{AnyDisk, Backend, open_disk};
//! use engine::{
//!     Append, CheckpointOrigin, DirLock, Engine, Entry, Event, Identity, Opened, Options, ValueSlots,
//!     open,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let dir = dir.path();
//! let _lock = DirLock::acquire(dir)?;
//! // The ids are given once, to a new directory; the seed must be another one at each open.
//! let identity = Identity { node: 1, incarnation: 7, log_id: 42 };
//! let options = |seed| Options { slot_bytes: 1 << 20, seed, ..Options::default() };
//!
//! /// Turns until an event comes. The time is the caller's; it may stand still, as here.
//! fn wait_for(
//!     engine: &mut Engine<AnyDisk>,
//!     is_it: fn(&Event) -> bool,
//! ) -> Result<Event, Box<dyn std::error::Error>> {
//!     let mut events = Vec::new();
//!     loop {
//!         engine.turn(0, &mut events)?;
//!         if let Some(at) = events.iter().position(is_it) {
//!             return Ok(events.remove(at));
//!         }
//!         engine.wait(None);
//!     }
//! }
//!
//! // A new directory. Entries are opaque, numbered from 1, and durable when the event says so.
//! let (disk, _why_not_io_uring) = open_disk(dir, Backend::Auto)?;
//! let Opened { mut engine, recovered } = open(disk, dir, options([1, 1]), identity)?;
//! assert!(recovered.created);
//! let entry = |index, payload| Entry { index, term: 1, kind: 0, payload };
//! let entries = vec![entry(1, Bytes::from("one")), entry(2, Bytes::from("two"))];
//! engine.append(Append { write: 1, entries, ..Append::default() });
//! wait_for(&mut engine, |event| matches!(event, Event::Durable { write: 1 }))?;
//!
//! // A checkpoint of the state after entry 2, and one more entry.
//! let (at, local) = (engine.status().durable, CheckpointOrigin::Local);
//! engine.checkpoint_begin(at, local, 7, ValueSlots::default())?;
//! engine.checkpoint_push(local, b"one two");
//! engine.checkpoint_finish(local);
//! wait_for(&mut engine, |event| matches!(event, Event::CheckpointDurable { .. }))?;
//! let entries = vec![entry(3, Bytes::from("three"))];
//! engine.append(Append { write: 2, entries, ..Append::default() });
//! wait_for(&mut engine, |event| matches!(event, Event::Durable { write: 2 }))?;
//! engine.close();
//!
//! // The next process: the state as the checkpoint holds it, then the entries after it.
//! let (disk, _) = open_disk(dir, Backend::Auto)?;
//! let Opened { mut engine, recovered } = open(disk, dir, options([1, 2]), identity)?;
//! let checkpoint = recovered.checkpoint.expect("one was durable");
//! let mut state = Vec::new();
//! engine.load_checkpoint(&checkpoint, &mut |bytes| {
//!     state.extend_from_slice(bytes);
//!     Ok(())
//! })?;
//! assert_eq!(state, b"one two");
//! engine.read_entries(1, checkpoint.at.index + 1, recovered.last.index, 1 << 20);
//! let is_it = |event: &Event| matches!(event, Event::Entries { .. });
//! let Event::Entries { result, .. } = wait_for(&mut engine, is_it)? else { unreachable!() };
//! assert_eq!(result?, [entry(3, Bytes::from("three"))]);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/kv.rs` is the same as a program. [`io::Disk`] is what runs underneath: io_uring, plain system calls, or,
//! in tests, a simulated disk that loses power and lies.
//!
//! # What it is not
//!
//! It does not know what a term means, what a payload holds, or that there are other nodes.
//! `docs/log-format.md` describes every byte, `docs/durability.md` what is promised and what cannot be.
mod blocking;
pub mod buffer;
mod cache;
mod checkpoint;
mod checkpoint_writer;
mod cleaner;
mod cleaning;
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
mod holes;
mod index;
pub mod io;
mod log;
mod meta;
mod mutant;
mod opening;
mod options;
mod pins;
mod places;
mod random;
mod reads;
mod recovery;
mod report;
mod retained;
mod room;
mod scan;
mod scrub;
mod segment;
mod shared;
mod slots;
mod space;
mod spare;
mod tags;
mod tail;
pub mod tree;
mod types;
mod value_batch;
mod value_log;
mod values;
mod walk;
mod window;
mod write;

pub use cleaner::ValueIndex;
pub use dir::{DirLock, LookLock};
pub use engine::Engine;
pub use error::{Check, CheckpointError, Damage, EngineError, OpenError, Proof, ReadError};
pub use holes::{FaultyRange, Hole, HoleFate};
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use opening::inspect::{
    Dumped, FrameView, HeldSegment, HoleView, Inspection, RecordView, SegmentView, dump, verify,
};
pub use opening::{CheckpointSink, Opened, open, open_with};
pub use options::{OnDamage, Options};
pub use pins::Pin;
pub use recovery::TornTail;
pub use report::{Recovered, Report};
pub use scrub::{Rot, ScrubPlace, ScrubStatus};
pub use segment::SegmentKind;
pub use shared::{SharedLog, Surroundings};
pub use types::{
    Append, CheckpointInfo, CheckpointOrigin, Entry, Event, HardState, Identity, Location, Meta,
    Position, Room, Status, ValueSlots, Wanted,
};
pub use value_batch::{StoredValue, ValueBatch, value_footprint, values_in};
pub use values::{Reader, Reading};
