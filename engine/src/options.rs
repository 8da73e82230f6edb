//! Limits and tunables, each with its unit.

use crate::error::OpenError;
use crate::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, SLOT_BYTES_MAX,
    SLOT_BYTES_MIN,
};

/// Beyond this much copying a slot costs more than it gives back, and a slot of large values is never fuller.
const CLEAN_BELOW_PERCENT_MAX: u8 = 70;
/// What an open does with entries that had been durable and that nothing holds any more.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub enum OnDamage {
    /// It refuses the directory ([`OpenError::Damaged`]).
    #[default]
    Refuse,
    /// Where it is certain which entries these are, it hands them up ([`crate::FaultyRange`]) and goes on: they count as
    /// present, reading them is an error, and the caller repairs them. Otherwise it refuses the directory.
    HandUp,
}

/// How an engine works. Only `slot_bytes` is part of the format.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of every slot: 1 MiB to 1 GiB, whole MiB, the same for the life of a directory.
    pub slot_bytes: u64,
    /// Frames in flight at once; 1 or more.
    pub inflight_frames_max: usize,
    /// A further frame starts while one is in flight if this many bytes wait.
    pub further_frame_bytes: usize,
    /// Entries are batched into a frame up to this size. One larger entry may make a frame up to a quarter of a slot.
    pub frame_bytes_max: usize,
    /// A further frame starts, whatever waits, if the oldest write has been in flight for this long.
    pub overdue_us: u64,
    /// A NOTE frame follows when the pipeline has been empty for this long.
    pub note_after_us: u64,
    /// Recent frames are kept in memory for readers up to this size.
    pub tail_bytes_max: usize,
    /// Values that were read from the disk are kept in memory for readers up to this size; 0 keeps none.
    pub cache_bytes_max: usize,
    /// Free slots kept pre-written ahead of need, besides the reserve; 1 or more.
    pub slots_ready: usize,
    /// The cleaner gives slots back while less than this much of those that hold nothing but values is live, in
    /// hundredths; at most 70, and 0 turns it off.
    pub clean_below_percent: u8,
    /// What the cleaner copies in a second when nobody writes, in bytes. Writers let it copy more.
    pub clean_bytes_per_second: u64,
    /// How fast sealed segments and checkpoints are read through for damage, in bytes a second; 0 is not at all.
    pub scrub_bytes_per_second: u64,
    /// Free slots that no entry takes before the file system is known to be full: those for what frees space.
    pub slots_to_free: usize,
    /// Free slots that no entry takes at all: those for hard state, resets and the cleaner.
    pub slots_to_keep: usize,
    /// What the files of the directory may have together, in bytes; 0 is what the file system has. Reaching it is like
    /// a full file system.
    pub space_bytes_max: u64,
    /// What an open does with damaged entries.
    pub on_damage: OnDamage,
    /// Seeds the salts of segments. Must differ between any two opens of a directory.
    pub seed: [u64; 2],
}

impl Default for Options {
    fn default() -> Options {
        Options {
            slot_bytes: 64 << 20,
            inflight_frames_max: 4,
            further_frame_bytes: 64 << 10,
            frame_bytes_max: 1 << 20,
            overdue_us: 2_000,
            note_after_us: 5_000,
            tail_bytes_max: 32 << 20,
            cache_bytes_max: 64 << 20,
            slots_ready: 2,
            clean_below_percent: 60,
            clean_bytes_per_second: 8 << 20,
            scrub_bytes_per_second: 0,
            slots_to_free: 2,
            slots_to_keep: 2,
            space_bytes_max: 0,
            on_damage: OnDamage::Refuse,
            seed: [0, 0],
        }
    }
}

impl Options {
    /// The largest payload of one entry: its frame fills a quarter of a slot.
    pub fn entry_bytes_max(&self) -> usize {
        self.frame_limit() - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES - RECORD_ALIGN_BYTES
    }

    /// The least that a limit may be: the segment that is open, what is kept ready and in reserve, and as much again
    /// as one slot for checkpoints.
    pub fn space_bytes_min(&self) -> u64 {
        let slots = self.slots_ready + self.slots_to_free + self.slots_to_keep + 2;
        self.slot_bytes.saturating_mul(slots as u64)
    }

    /// The largest frame in bytes.
    pub(crate) fn frame_limit(&self) -> usize {
        let quarter = usize::try_from(self.slot_bytes / 4).expect("a quarter of at most 1 GiB");
        quarter / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Batches stop growing at this many bytes.
    pub(crate) fn batch_limit(&self) -> usize {
        self.frame_bytes_max.clamp(BLOCK_BYTES, self.frame_limit())
    }

    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let bad = |what: &str| Err(OpenError::Options { what: what.to_owned() });
        if !(SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&self.slot_bytes) {
            return bad("slot_bytes must be between 1 MiB and 1 GiB");
        }
        if !self.slot_bytes.is_multiple_of(SLOT_BYTES_MIN) {
            return bad("slot_bytes must be a multiple of 1 MiB");
        }
        if self.inflight_frames_max == 0 {
            return bad("inflight_frames_max must be at least 1");
        }
        if self.clean_below_percent > CLEAN_BELOW_PERCENT_MAX {
            return bad("clean_below_percent must be at most 70");
        }
        if self.slots_ready == 0 {
            return bad("slots_ready must be at least 1");
        }
        if self.space_bytes_max != 0 && self.space_bytes_max < self.space_bytes_min() {
            return bad(
                "space_bytes_max must be 0 or leave room for the open segment, the slots that are kept free and a checkpoint",
            );
        }
        Ok(())
    }
}
