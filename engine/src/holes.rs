//! Holes in the log: frames that had been durable and cannot be read, and the entries that lie in them.
//!
//! An entry in a hole is *faulty*: it has its index and counts as present, but nobody can read it. A REPAIR record in a
//! later frame holds it once more; from then on that frame is where it is read. Corrupt is never treated as absent.
//!
//! Invariants: a repair belongs to a live entry that lies in a hole, and a hole is known here while a live entry lies in
//! it. Neither changes which segments are needed: a repair is newer than its hole, which stays in the index as the frame
//! that its entries were written in, and slots are given up oldest first.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Damage;
use crate::index::FramePlace;
use crate::types::Position;

/// Frames in a row that had been durable and are not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Where its first frame starts, what that fails, why it is not a torn tail; and the entries of all of them.
    pub damage: Damage,
    /// The first byte after it in the slot's file.
    pub end: u64,
    /// The sequence number of its last frame.
    pub last_seq: u64,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hole { damage, end, last_seq } = self;
        write!(f, "{damage}")?;
        if *last_seq > damage.seq {
            write!(f, "; likewise everything up to frame {last_seq}, before byte {end}")?;
        }
        Ok(())
    }
}

/// What becomes of a hole when a log is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HoleFate {
    /// Entries that are needed lie in it, and nothing else holds them.
    Faulty,
    /// REPAIR records hold every entry of it that is needed.
    Repaired,
    /// The log needs nothing of it: it held no entries, or others have replaced them, or checkpoints hold them.
    Unneeded,
}

impl fmt::Display for HoleFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HoleFate::Faulty => "entries of it are faulty",
            HoleFate::Repaired => "repaired: later frames hold its entries once more",
            HoleFate::Unneeded => "the log needs nothing of it",
        })
    }
}

/// Entries that are there and cannot be read, all in one hole. They are repaired by [`crate::Append::repairs`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultyRange {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// (term, first index) of each run of them; [`crate::format::TERM_UNKNOWN`] where nothing states the term.
    pub terms: Vec<(u64, u64)>,
    /// The nearest entry before them whose term is known.
    pub before: Position,
    /// The nearest entry whose term is known, from `last` on.
    pub after: Position,
    /// What they lie in.
    pub hole: Hole,
}

/// The holes in which live entries lie, and the repairs.
#[derive(Clone, Default, Debug)]
pub(crate) struct Holes {
    /// By the number of their last frame, which is that of their place in the index.
    by_seq: BTreeMap<u64, Hole>,
    /// Where each repaired entry is read, by its index.
    repairs: BTreeMap<u64, FramePlace>,
}

impl Holes {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_seq.is_empty()
    }

    pub(crate) fn insert(&mut self, hole: Hole) {
        self.by_seq.insert(hole.last_seq, hole);
    }

    pub(crate) fn find(&self, seq: u64) -> Option<&Hole> {
        self.by_seq.get(&seq)
    }

    /// The numbers that name them.
    pub(crate) fn seqs(&self) -> impl Iterator<Item = u64> {
        self.by_seq.keys().copied()
    }

    pub(crate) fn repair(&mut self, index: u64, place: FramePlace) {
        self.repairs.insert(index, place);
    }

    pub(crate) fn repair_of(&self, index: u64) -> Option<FramePlace> {
        self.repairs.get(&index).copied()
    }

    /// The last entry up to `last` that is repaired by the same frame as `index` without a gap.
    pub(crate) fn repaired_together(&self, index: u64, last: u64) -> u64 {
        let place = self.repair_of(index);
        let more = (index + 1..=last).take_while(|next| self.repair_of(*next) == place);
        index + more.count() as u64
    }

    /// The entries among `first..=last` that nothing has repaired.
    pub(crate) fn faulty_within(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut next = first;
        for (repaired, _) in self.repairs.range(first..=last) {
            if next < *repaired {
                ranges.push((next, repaired - 1));
            }
            next = repaired + 1;
        }
        if next <= last {
            ranges.push((next, last));
        }
        ranges
    }

    /// How many repairs lie in frames after this one.
    pub(crate) fn repairs_after(&self, seq: u64) -> u64 {
        self.repairs.values().filter(|place| place.seq > seq).count() as u64
    }

    /// Entries from `index` on are no longer live.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        self.repairs.split_off(&index);
    }

    /// Entries up to `index` are no longer live.
    pub(crate) fn purge_upto(&mut self, index: u64) {
        self.repairs = self.repairs.split_off(&(index + 1));
    }

    /// Forgets those that hold no live entry.
    pub(crate) fn keep(&mut self, mut is_live: impl FnMut(u64) -> bool) {
        self.by_seq.retain(|seq, _| is_live(*seq));
    }
}
