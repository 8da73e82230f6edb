//! Going on behind bad frames, where it is certain what they did to the log.

use std::ops::Range;

use super::{Failure, Scanner, headers, tail};
use crate::format::{BLOCK_BYTES, RECORD_HEADER_BYTES};
use crate::frame::{FrameHeader, FrameKind, Predecessor, decode_table_into};
use crate::mutant::{self, Mutant};

/// Bad frames in a row behind which the scan goes on. What they did to the log is told by their own header, or by what
/// the next sound header says of the frame before it:
///
/// | sound of the bad frames          | what they did                                                        |
/// |----------------------------------|----------------------------------------------------------------------|
/// | header and table of the only one | what its records say; their payloads are not what was written        |
/// | its header                       | it added the entries up to its last one                              |
/// | nothing, a header follows        | they added the entries up to the last one before that header         |
/// | nothing, the segment ends        | likewise, up to the last one before the next segment                 |
///
/// In the last three they may have replaced entries or reset the log. Then it is not certain which entries are left, and
/// there is no hole: the scan ends. The headers say whether they have ([`Predecessor::replaced_seq`]).
#[derive(Clone, Debug)]
pub(crate) struct ScannedHole {
    /// Of its first frame.
    pub(crate) failure: Failure,
    /// The first byte after it.
    pub(crate) end: u64,
    pub(crate) last_seq: u64,
    /// The frame before it, and its own last one as the next frame must state it.
    pub(crate) before: Predecessor,
    pub(crate) after: Predecessor,
    /// The header of its only frame, if that is sound.
    pub(crate) header: Option<FrameHeader>,
    /// The records of its only frame among those of the scan, if header and table are sound.
    pub(super) records: Option<Range<usize>>,
}

impl Scanner<'_> {
    /// What lies at the end of the scan and failed, if it is certain what it did to the log.
    pub(super) fn hole(&mut self, bytes: &[u8], failure: Failure) -> Option<ScannedHole> {
        let own = self.own_header(bytes);
        let hole = match own {
            Some((header, crc)) => self.hole_of_one(bytes, failure, header, crc),
            None => self.hole_before_next(bytes, failure)?,
        };
        (hole.records.is_some() || hole.only_adds()).then_some(hole)
    }

    /// The header of the frame that failed, if that is the one which belongs there.
    fn own_header(&self, bytes: &[u8]) -> Option<(FrameHeader, u32)> {
        let rest = tail(bytes, self.scan.end);
        let (header, crc) = FrameHeader::decode(self.tag, rest).ok()?;
        self.expected(rest).check(&header).ok()?;
        Some((header, crc))
    }

    fn hole_of_one(
        &mut self,
        bytes: &[u8],
        failure: Failure,
        header: FrameHeader,
        crc: u32,
    ) -> ScannedHole {
        let scan = &mut self.scan;
        let first = scan.records.len();
        let table = match header.kind {
            FrameKind::Data => {
                decode_table_into(&header, tail(bytes, scan.end), &mut scan.records).ok()
            }
            // Whatever it has for a table should not be there.
            FrameKind::Note | FrameKind::Values => None,
        };
        let records = table.map(|()| first..scan.records.len());
        let end = scan.end + header.frame_bytes() as u64;
        let (before, after, last_seq) = (scan.last, header.as_predecessor(crc), header.seq);
        ScannedHole { failure, end, last_seq, before, after, header: Some(header), records }
    }

    /// Up to the next sound header of this life of the slot, or to the end of the segment.
    fn hole_before_next(&self, bytes: &[u8], failure: Failure) -> Option<ScannedHole> {
        let Scanner { segment, scan, .. } = self;
        let behind = failure.offset + BLOCK_BYTES as u64;
        let next = headers(bytes, behind, segment.slot, self.tag)
            .find(|(_, header)| header.salt == segment.salt);
        let (end, last_seq, after) = match (next, self.stated) {
            (Some((offset, next)), _) => {
                let is_sound = next.prev.replaced_seq < next.seq
                    && (self.durable_seq_min..next.seq).contains(&next.durable_seq);
                (offset, next.seq.checked_sub(1).filter(|_| is_sound)?, next.prev)
            }
            (None, Some(stated)) => (stated.end, stated.last_seq, stated.last),
            (None, None) => return None,
        };
        let frames = (last_seq + 1).checked_sub(failure.seq)?;
        let blocks = end.checked_sub(failure.offset)? / BLOCK_BYTES as u64;
        let (before, header, records) = (scan.last, None, None);
        (1..=blocks).contains(&frames).then_some(ScannedHole {
            failure,
            end,
            last_seq,
            before,
            after,
            header,
            records,
        })
    }
}

impl ScannedHole {
    /// The first entry that its frames may hold.
    pub(crate) fn first_index(&self) -> u64 {
        self.before.last.index + 1
    }

    /// Its entries, as reports state them.
    pub(crate) fn indices(&self) -> (u64, u64) {
        match self.header {
            Some(header) => header.indices(),
            None if self.after.last.index < self.first_index() => (0, 0),
            None => (self.first_index(), self.after.last.index),
        }
    }

    /// Whether it is certain that its frames have added entries and done nothing else to the log, and that as many
    /// entries fit them.
    fn only_adds(&self) -> bool {
        let (before, after) = (self.before.last, self.after.last);
        let replaces = self.after.replaced_seq >= self.failure.seq;
        let added = match after.index.checked_sub(before.index) {
            Some(0) if after != before => None,
            added => added,
        };
        let fits = (self.end - self.failure.offset) / RECORD_HEADER_BYTES as u64;
        let is_overlooked = mutant::is(Mutant::ReplacementOverlooked);
        (!replaces || is_overlooked) && added.is_some_and(|added| added <= fits)
    }
}
