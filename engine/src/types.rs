//! The words the engine and its caller share. The engine orders terms for nobody and reads no payload.

use std::fmt;

use bytes::Bytes;

use crate::error::{CheckpointError, ReadError};
use crate::format::{
    CHECKPOINT_SLOT_BYTES, CHECKPOINT_SLOTS_ALIGN_BYTES, RECORD_ALIGN_BYTES, SLOT_BYTES_MAX,
};
use crate::scrub::{Rot, ScrubStatus};

/// One entry of the log by index and term. (0, 0) is the position before the first entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// 1-based; dense.
    pub index: u64,
    /// Opaque to the engine.
    pub term: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {})", self.index, self.term)
    }
}

/// What a voter must not forget. Restated in every frame and every segment header.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct HardState {
    /// The current term.
    pub term: u64,
    /// Who got this node's vote in it; 0 is nobody.
    pub vote: u64,
}

/// One raft index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its index; 1 or more.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Opaque to the engine.
    pub kind: u8,
    /// At most [`crate::Options::entry_bytes_max`] bytes.
    pub payload: Bytes,
}

/// Where bytes lie on this node's disk: a slot and an offset in it, a multiple of 16. It means nothing on another node,
/// and nothing here once the slot is used anew; see [`crate::Reader::pin`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Location(u64);

impl Location {
    /// Requires: `offset` is a multiple of 16 within the largest slot.
    pub fn new(slot: u32, offset: u64) -> Location {
        assert!(offset.is_multiple_of(RECORD_ALIGN_BYTES as u64));
        assert!(offset < SLOT_BYTES_MAX);
        Location((u64::from(slot) << 32) | (offset / RECORD_ALIGN_BYTES as u64))
    }

    /// The slot.
    pub fn slot(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("half of a word")
    }

    /// The offset in the slot, in bytes.
    pub fn offset(self) -> u64 {
        (self.0 & u64::from(u32::MAX)) * RECORD_ALIGN_BYTES as u64
    }

    /// The place so many bytes further on; a multiple of 16.
    #[must_use]
    pub fn plus(self, bytes: usize) -> Location {
        Location::new(self.slot(), self.offset() + bytes as u64)
    }

    /// As a number, to be stored.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The inverse of [`Location::to_u64`]; none for a number that names no place in any slot.
    pub fn from_u64(number: u64) -> Option<Location> {
        let location = Location(number);
        (location.offset() < SLOT_BYTES_MAX).then_some(location)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {:08x} at {:#x}", self.slot(), self.offset())
    }
}

/// A value to be read: the value's bytes follow its key's at `location`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Where the key starts.
    pub location: Location,
    /// The key that must lie there.
    pub key: Bytes,
    /// The length of the value.
    pub value_bytes: u32,
    /// The CRC-32 of the value.
    pub checksum: u32,
}

/// One write of the caller, applied to the log in the order of its fields.
#[derive(Clone, Default, Debug)]
pub struct Append {
    /// The caller's number of it; dense and rising. [`Event::Durable`] names it.
    pub write: u64,
    /// The hard state from now on.
    pub hard_state: Option<HardState>,
    /// Drops every entry and continues after this position. Requires a durable checkpoint there.
    pub reset: Option<Position>,
    /// Faulty entries once more ([`crate::FaultyRange`]), in any order: each in its own term, and the payload as it was.
    /// They replace nothing.
    pub repairs: Vec<Entry>,
    /// Consecutive indices. The first one may lie at or below the last index: it and everything above are replaced.
    pub entries: Vec<Entry>,
}

/// Who made a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CheckpointOrigin {
    /// This node, from its own state.
    Local,
    /// A peer; received as a snapshot.
    Installed,
}

/// A durable, verified checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CheckpointInfo {
    /// The last entry that it contains.
    pub at: Position,
    /// Whether a peer made it.
    pub installed: bool,
    /// While it is kept, the log is kept from the entry after this one on; at most `at`.
    pub keeps_after: Position,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// Every frame up to this sequence number was durable when it was begun.
    pub durable_seq: u64,
    /// How many slots hold values of it.
    pub slots_count: u32,
}

impl CheckpointInfo {
    /// Bytes of the table of slots that comes before the body.
    pub(crate) fn table_bytes(&self) -> u64 {
        let bytes = u64::from(self.slots_count) * CHECKPOINT_SLOT_BYTES as u64;
        bytes.next_multiple_of(CHECKPOINT_SLOTS_ALIGN_BYTES as u64)
    }

    /// Bytes of table and body.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.table_bytes().saturating_add(self.body_bytes)
    }
}

/// Whether there is room, and for which entries.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub enum Room {
    /// Slots are ready ahead of need.
    #[default]
    Plenty,
    /// No further slot can be made: what is left is for entries that free space or hold a cluster together.
    Low,
    /// Likewise, and enough of those is written for now: the next checkpoint comes first.
    Full,
}

/// What [`crate::Engine::turn`] reports.
#[derive(Debug)]
pub enum Event {
    /// Every write up to and including this one is durable.
    Durable {
        /// [`Append::write`].
        write: u64,
    },
    /// The answer to `read_entries`.
    Entries {
        /// The caller's name for the read.
        id: u64,
        /// Consecutive entries from the first one asked for; never empty.
        result: Result<Vec<Entry>, ReadError>,
    },
    /// A checkpoint is durable, verified and in its place.
    CheckpointDurable {
        /// Whose.
        origin: CheckpointOrigin,
        /// Which.
        info: CheckpointInfo,
    },
    /// A checkpoint ended without a result; nothing of it is left. It may be begun again.
    CheckpointFailed {
        /// Whose.
        origin: CheckpointOrigin,
        /// Why.
        error: CheckpointError,
    },
    /// The answer to `read_checkpoint`.
    CheckpointBytes {
        /// The caller's name for the read.
        id: u64,
        /// Verified body bytes; fewer than asked for only at the end of the body.
        result: Result<Bytes, ReadError>,
    },
    /// The answer to `read_values`.
    Values {
        /// The caller's name for the read.
        id: u64,
        /// One for each value, in the order asked for; verified.
        results: Vec<Result<Bytes, ReadError>>,
    },
    /// The bytes of `append_values` are durable. They can be read there from now on.
    ValuesPlaced {
        /// What `append_values` returned.
        id: u64,
        /// Where they start.
        location: Location,
    },
    /// The log starts after this position: a reset is durable, or every checkpoint that is kept holds what was before.
    LogStart {
        /// The entry before the first one that is still kept.
        log_start: Position,
    },
    /// Faulty entries can be read again: a frame that holds them once more is durable.
    Repaired {
        /// How many entries still are faulty, or are repaired only in frames that are not durable.
        faulty: u64,
    },
    /// [`crate::Engine::room`] has changed.
    RoomChanged(Room),
    /// The scrubber has found bytes that are not what was written. Nothing is changed, and the engine goes on; every pass
    /// reports a place once.
    Damaged(Rot),
    /// A frame took 100 ms or more from its submission to its completion.
    SlowWrite {
        /// How long it took.
        latency_us: u64,
    },
}

/// Whose values lie in no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ValuesOwner {
    /// The caller's, who is taking a snapshot in.
    Snapshot,
    /// The cleaner's.
    Cleaner,
}

/// The slots that hold the values of one state, as they were at the moment at which it was asked for; for the
/// checkpoint of that state. [`crate::Engine::value_slots`] gives them; the default is for a state without values.
#[derive(Clone, Default, Debug)]
pub struct ValueSlots {
    pub(crate) slots: Vec<u32>,
    /// The number of the state among those that were shown since the open.
    pub(crate) shown: u64,
}

/// The identity of a data directory and what the application stores beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// The format version of every file.
    pub format: u16,
    /// Random; mixed into every frame's checksum, so that no other log's frame is ever taken for ours.
    pub log_id: u128,
    /// The node's number.
    pub node: u64,
    /// Random; tells a wiped directory from the one before.
    pub incarnation: u128,
    /// The size of every slot.
    pub slot_bytes: u64,
    /// At least this many slots exist.
    pub slots_min: u32,
    /// Opaque to the engine; at most 64 KiB.
    pub application: Vec<u8>,
}

/// Who opens a directory. `incarnation` and `log_id` count only when it is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node's number; 1 or more.
    pub node: u64,
    /// Random.
    pub incarnation: u128,
    /// Random.
    pub log_id: u128,
}

/// Counters and watermarks for people and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Status {
    /// The disk's backend.
    pub backend: &'static str,
    /// Whether it bypasses the page cache.
    pub direct: bool,
    /// The entry before the first stored one.
    pub log_start: Position,
    /// The last entry that is queued or written.
    pub last: Position,
    /// The last entry that is durable and not replaced by one that is on its way.
    pub durable: Position,
    /// The last frame that is durable.
    pub durable_seq: u64,
    /// Frames in flight.
    pub in_flight: usize,
    /// Bytes that wait for a frame.
    pub queued_bytes: usize,
    /// Slots that hold entries still needed, the open one included.
    pub slots_live: usize,
    /// Slots that are pre-written and free.
    pub slots_ready: usize,
    /// All slots.
    pub slots: usize,
    /// Bytes of the slots that hold entries still needed.
    pub log_bytes: u64,
    /// Frames in memory for readers, in bytes.
    pub tail_bytes: usize,
    /// Values in memory that were read from the disk, in bytes with what holding them takes.
    pub cached_bytes: u64,
    /// Frames written since the open.
    pub frames: u64,
    /// Entries written since the open.
    pub entries: u64,
    /// Payload bytes of those entries.
    pub payload_bytes: u64,
    /// Bytes of those frames, headers and padding included.
    pub frame_bytes: u64,
    /// Bytes of padding in those frames.
    pub padding_bytes: u64,
    /// Zeros written to new slots since the open.
    pub prewrite_bytes: u64,
    /// Slots that hold no entry but values that are still needed, or that somebody still reads.
    pub slots_held: usize,
    /// Those of them that are segments of values which checkpoints alone do not keep yet.
    pub slots_values: usize,
    /// Slots that the cleaner leaves alone, because something that is live in them could not be read.
    pub slots_spared: usize,
    /// Frames of values written since the open, headers and padding included, in bytes.
    pub value_bytes: u64,
    /// Values that the cleaner has moved since the open.
    pub values_moved: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Values read from the disk since the open.
    pub values_read: u64,
    /// Bytes written to checkpoints since the open.
    pub checkpoint_bytes: u64,
    /// Bytes of file that are held for the next checkpoint.
    pub spare_bytes: u64,
    /// Whether a checkpoint is being written.
    pub checkpoint_in_progress: bool,
    /// Entries that are damaged, and that no durable frame holds once more.
    pub faulty: u64,
    /// Whether there is room.
    pub room: Room,
    /// What the scrubber has done.
    pub scrub: ScrubStatus,
}
