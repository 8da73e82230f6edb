//! The second reading. A device may give wrong bytes once, without an error: those of another place, zeros, or what lay
//! there before. A frame that was read so is bad like a torn one, and a segment whose header was read so is not there.
//! The disk holds both, and to cut them would lose what was acknowledged (P12, P13, P15).
//!
//! | first reading                         | second reading             | then                                     |
//! |---------------------------------------|----------------------------|------------------------------------------|
//! | a frame verifies                      | none                       | it counts                                |
//! | a frame, or the end of the log, fails | the same bytes             | it is bad: see [`super::decide`]         |
//! | likewise                              | refused where it was not   | [`OpenError::Unreadable`]                |
//! | likewise                              | other bytes                | all is read anew, see below              |
//! | no newer segment in a slot            | likewise                   | the newest one is the newest             |
//! | likewise                              | a newer one                | all is read anew, see below              |
//!
//! When all is read anew, what verifies then counts. Where it does not verify once more, at the same place, or two
//! readings differ again, nobody knows what is there: [`OpenError::Unsteady`].
//!
//! Invariant: nothing is cut that did not fail in two readings with the same bytes.

use super::Recovery;
use crate::error::OpenError;
use crate::format::BLOCK_BYTES;
use crate::frame::FrameHeader;
use crate::mutant::{self, Mutant};
use crate::scan::Failure;
use crate::segment::{Head, SegmentHeader, SegmentKind};

impl Recovery<'_> {
    /// Reads what failed again: its header's block, or all of the frame if that tells its length.
    ///
    /// Requires: `self.bytes` holds the segment.
    pub(super) fn confirm_bad(
        &mut self,
        segment: &SegmentHeader,
        failure: Failure,
    ) -> Result<(), OpenError> {
        if mutant::is(Mutant::ReadOnceIsCut) {
            return Ok(());
        }
        let (slot, offset) = (segment.slot, failure.offset);
        let start = usize::try_from(offset).expect("a slot is at most 1 GiB");
        let first = self.bytes.get(start..).unwrap_or_default();
        // A header of the slot's life before is bad whatever follows it.
        let header = FrameHeader::decode(self.tag, first).ok();
        let own = header.filter(|(header, _)| header.salt == segment.salt);
        let bytes = own.map_or(BLOCK_BYTES, |(header, _)| header.frame_bytes());
        let first = &first[..bytes.min(first.len())];
        if first.is_empty() {
            // The segment is full.
            return Ok(());
        }
        let mut second = Vec::new();
        self.bytes_scanned += first.len() as u64;
        let refused = self.slots.read(slot, offset, first.len() as u64, &mut second);
        match (first == second, refused.first()) {
            (true, _) if self.doubted != Some((slot, offset)) => Ok(()),
            (false, Some(refused)) => Err(self.unreadable(slot, *refused)),
            _ => Err(self.unsteady(slot, offset)),
        }
    }

    /// A slot outside of the chain, whose start has just been read again, holds no segment after the newest one.
    pub(super) fn confirm_older(
        &self,
        slot: u32,
        newest: Option<SegmentHeader>,
    ) -> Result<(), OpenError> {
        if mutant::is(Mutant::ReadOnceIsCut) {
            return Ok(());
        }
        let newest = newest.map_or(0, |header| header.number);
        let (log_id, slot_bytes) = (self.known.log_id, self.known.slot_bytes);
        let is_newer = match SegmentHeader::classify(&self.bytes, log_id, slot, slot_bytes) {
            Head::Segment(header) => header.kind == SegmentKind::Log && header.number > newest,
            Head::Blank | Head::Bad(_) => false,
        };
        let is_confirmed = !is_newer && self.doubted != Some((slot, 0));
        if is_confirmed { Ok(()) } else { Err(self.unsteady(slot, 0)) }
    }

    fn unsteady(&self, slot: u32, offset: u64) -> OpenError {
        OpenError::Unsteady { dir: self.known.dir.to_owned(), slot, offset }
    }
}
