//! What an open found, for the caller and for people.

use std::fmt;

use crate::error::Check;
use crate::holes::{FaultyRange, Hole, HoleFate};
use crate::recovery::TornTail;
use crate::types::{CheckpointInfo, HardState, Position};

/// What a directory held. Everything in it is durable.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The directory was new.
    pub created: bool,
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest good checkpoint.
    pub checkpoint: Option<CheckpointInfo>,
    /// The entry before the first stored one; (0, 0) at the beginning.
    pub log_start: Position,
    /// The last entry.
    pub last: Position,
    /// (term, first index) of each run of stored entries.
    pub terms: Vec<(u64, u64)>,
    /// Entries that are damaged, in order; only with [`crate::OnDamage::HandUp`]. They count in everything above;
    /// [`crate::format::TERM_UNKNOWN`] stands in `terms` where nothing states the term of one.
    pub faulty: Vec<FaultyRange>,
    /// How it was found.
    pub report: Report,
}

/// How recovery went.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Slots in the directory.
    pub slots: usize,
    /// Segments that were replayed.
    pub segments: usize,
    /// Frames in them.
    pub frames: u64,
    /// Bytes that were read from slots.
    pub bytes_scanned: u64,
    /// The tail that was cut.
    pub torn: Option<TornTail>,
    /// Damaged frames that had been durable, in order, and what becomes of each.
    pub holes: Vec<(Hole, HoleFate)>,
    /// A checkpoint from a peer replaced the log.
    pub was_reset: bool,
    /// Damaged checkpoints that were moved aside: the new path and what they failed.
    pub quarantined: Vec<(String, Check)>,
    /// Files that recovery does not know and left alone.
    pub unknown: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { slots, segments, frames, bytes_scanned, .. } = self;
        write!(f, "{frames} frames in {segments} segments of {slots} slots, ")?;
        write!(f, "{bytes_scanned} bytes read")?;
        if let Some(TornTail { slot, offset, seq, check }) = self.torn {
            write!(f, "; torn tail cut in seg/{slot:08x}.seg at byte {offset} before frame {seq}")?;
            write!(f, " ({check}), nothing of it had been acknowledged")?;
        }
        for (hole, fate) in &self.holes {
            write!(f, "; {hole}, {fate}")?;
        }
        if self.was_reset {
            write!(f, "; a checkpoint from a peer replaced the log")?;
        }
        for (path, check) in &self.quarantined {
            write!(f, "; damaged checkpoint kept as {path} ({check})")?;
        }
        for path in &self.unknown {
            write!(f, "; unknown file {path} left alone")?;
        }
        Ok(())
    }
}
