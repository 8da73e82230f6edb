//! The replay of holes: what damaged frames did to the log, as far as that is certain.

use super::{RecoveredLog, Recovery, check_frame};
use crate::error::{Check, Damage, OpenError, Proof};
use crate::format::BLOCK_BYTES;
use crate::frame::{FrameHeader, Record, RecordKind};
use crate::holes::{Hole, HoleFate};
use crate::index::{FramePlace, LogIndex};
use crate::mutant::{self, Mutant};
use crate::places::Places;
use crate::scan::{Failure, Scan, ScannedHole};
use crate::segment::SegmentHeader;

impl Recovery<'_> {
    /// Tells what damaged frames did to the log, and which of its entries lie in them.
    pub(super) fn replay_hole(
        &self,
        segment: &SegmentHeader,
        scan: &Scan,
        hole: &ScannedHole,
        proof: Proof,
        log: &mut RecoveredLog,
    ) -> Result<(), OpenError> {
        let slot = segment.slot;
        let Failure { offset, seq, check, .. } = hole.failure;
        let misplaced = || self.misplaced(slot, offset, seq);
        if hole.before.last != log.index.last() {
            return Err(misplaced());
        }
        let (indices, proof) = (Some(hole.indices()), Some(proof));
        let damage = Damage { slot, offset, seq, indices, check, proof };
        let found = Hole { damage, end: hole.end, last_seq: hole.last_seq };
        let place = hole_place(segment, hole);
        if let (Some(header), Some(records)) = (hole.header, scan.records_in(hole)) {
            replay_damaged_frame(&header, records, &mut log.index, &mut log.places)
                .map_err(|_| misplaced())?;
            log.index.end_damaged_frame(place, found.clone());
        } else if !mutant::is(Mutant::HoleSkipped) {
            (hole.first_index()..=hole.after.last.index)
                .for_each(|index| log.places.push_faulty(index));
            log.index.lose_upto(hole.after.last, place, found.clone());
        }
        if let Some(header) = hole.header {
            log.hard_state = header.hard_state;
            log.promised_seq = log.promised_seq.max(header.durable_seq);
        }
        log.data_seq = hole.last_seq;
        log.frames += hole.last_seq + 1 - seq;
        log.holes.push((found, HoleFate::Faulty));
        Ok(())
    }
}

/// Tells the records of a frame whose payloads are damaged: its entries are faulty, and what it repaired is not repaired.
fn replay_damaged_frame(
    header: &FrameHeader,
    records: &[Record],
    index: &mut LogIndex,
    places: &mut Places,
) -> Result<(), Check> {
    for record in records {
        match record.kind {
            RecordKind::Entry(_) => {
                index.entry(record.at)?;
                places.push_faulty(record.at.index);
            }
            RecordKind::Reset => index.reset(record.at),
            RecordKind::Repair(_) | RecordKind::Values => {}
        }
    }
    check_frame(header, index)
}

fn hole_place(segment: &SegmentHeader, hole: &ScannedHole) -> FramePlace {
    let blocks = |bytes: u64| u32::try_from(bytes).expect("a slot is at most 1 GiB");
    FramePlace {
        seq: hole.last_seq,
        slot: segment.slot,
        block: blocks(hole.failure.offset / BLOCK_BYTES as u64),
        bytes: blocks(hole.end - hole.failure.offset),
        salt: segment.salt,
    }
}
