//! Who gets a completion: the kind of job in the upper byte of a tag, the job's own number below.

use crate::io::Tag;
use crate::types::CheckpointOrigin;

/// The owner of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// The frame of this sequence number.
    Frame(u64),
    /// The slot that is being made.
    Slot,
    /// The checkpoint that is being written, and which of its steps.
    Checkpoint(CheckpointOrigin, u64),
    /// A read of entries or of a checkpoint.
    Read(u64),
    /// The removal of a checkpoint nobody needs.
    Removal,
    /// The piece that the scrubber reads.
    Scrub,
    /// A call that waits for it.
    Blocking(u64),
    /// A frame of values.
    Values,
    /// A read of the cleaner from this slot.
    Cleaner(u32),
    /// The spare file for a checkpoint.
    Spare,
}

const SHIFT: u32 = 56;
const NUMBER: u64 = (1 << SHIFT) - 1;

impl Owner {
    pub(crate) fn tag(self) -> Tag {
        let (kind, number) = match self {
            Owner::Frame(seq) => (1, seq),
            Owner::Slot => (2, 0),
            Owner::Checkpoint(CheckpointOrigin::Local, step) => (3, step),
            Owner::Checkpoint(CheckpointOrigin::Installed, step) => (4, step),
            Owner::Read(number) => (5, number),
            Owner::Removal => (6, 0),
            Owner::Blocking(number) => (7, number),
            Owner::Values => (8, 0),
            Owner::Cleaner(slot) => (9, u64::from(slot)),
            Owner::Scrub => (10, 0),
            Owner::Spare => (11, 0),
        };
        assert!(number <= NUMBER);
        Tag(kind << SHIFT | number)
    }

    pub(crate) fn of(tag: Tag) -> Owner {
        let number = tag.0 & NUMBER;
        match tag.0 >> SHIFT {
            1 => Owner::Frame(number),
            2 => Owner::Slot,
            3 => Owner::Checkpoint(CheckpointOrigin::Local, number),
            4 => Owner::Checkpoint(CheckpointOrigin::Installed, number),
            5 => Owner::Read(number),
            6 => Owner::Removal,
            7 => Owner::Blocking(number),
            8 => Owner::Values,
            9 => Owner::Cleaner(u32::try_from(number).expect("slots are numbered in 32 bits")),
            10 => Owner::Scrub,
            11 => Owner::Spare,
            kind => unreachable!("no operation was submitted with kind {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_leads_back_to_its_owner() {
        for owner in [
            Owner::Frame(7),
            Owner::Slot,
            Owner::Checkpoint(CheckpointOrigin::Local, 3),
            Owner::Checkpoint(CheckpointOrigin::Installed, 4),
            Owner::Read(NUMBER),
            Owner::Removal,
            Owner::Scrub,
            Owner::Blocking(0),
            Owner::Values,
            Owner::Cleaner(u32::MAX),
            Owner::Spare,
        ] {
            assert_eq!(Owner::of(owner.tag()), owner);
        }
    }
}
