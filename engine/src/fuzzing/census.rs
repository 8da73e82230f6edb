//! What became of slots in the course of a script, as the device shows it: so that it is known what its images are
//! images of.

use std::collections::{BTreeMap, BTreeSet};

use super::images::Tally;
use super::world::IDENTITY;
use crate::format::{SEGMENT_HEADER_BYTES, slot_path};
use crate::io::simulated::SimDisk;
use crate::segment::{Head, SegmentHeader, SegmentKind};

/// The present life of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Life {
    kind: SegmentKind,
    salt: u64,
}

/// The slots of one world.
#[derive(Clone, Default, Debug)]
pub(super) struct Census {
    lives: BTreeMap<u32, Life>,
    /// Those out of which the cleaner has moved all that was live.
    emptied: BTreeSet<u32>,
    slots_cleaned: u64,
    cleaned_reused: u64,
    values_reused: u64,
}

impl Census {
    /// The cleaner has moved the last live value out of these.
    pub(super) fn emptied(&mut self, slots: impl Iterator<Item = u32>) {
        let before = self.emptied.len();
        self.emptied.extend(slots);
        self.slots_cleaned += (self.emptied.len() - before) as u64;
    }

    /// Looks at every slot. In these something is live; where a crash has undone moves, in others than before.
    pub(super) fn take(&mut self, disk: &SimDisk, slot_bytes: u64, live: &BTreeSet<u32>) {
        self.emptied.retain(|slot| !live.contains(slot));
        for slot in 0.. {
            let Some(file) = disk.read_file(&slot_path(slot)) else { return };
            let block = &file[..SEGMENT_HEADER_BYTES];
            let head = SegmentHeader::classify(block, IDENTITY.log_id, slot, slot_bytes);
            let Head::Segment(SegmentHeader { kind, salt, .. }) = head else { continue };
            let present = Life { kind, salt };
            if let Some(before) =
                self.lives.insert(slot, present).filter(|before| *before != present)
            {
                self.values_reused += u64::from(before.kind == SegmentKind::Values);
                self.cleaned_reused += u64::from(self.emptied.remove(&slot));
            }
        }
    }

    /// Adds what was counted.
    pub(super) fn add_to(&self, tally: &mut Tally) {
        tally.scenarios_cleaned += u64::from(self.slots_cleaned > 0);
        tally.slots_cleaned += self.slots_cleaned;
        tally.cleaned_reused += self.cleaned_reused;
        tally.values_reused += self.values_reused;
    }
}
