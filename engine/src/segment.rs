//! A segment: one life of a slot, from the roll that opens it until the slot is opened again.
//!
//! Its header restates everything that frames before it could have told: hard state, last entry, start of the log,
//! and where the segment before it validly ends. It is written together with the first frame.
//!
//! Invariant: a valid header proves that everything up to the stated end of its predecessor is durable, because a
//! roll waits for the frames in flight and an open syncs every slot first.

#![deny(clippy::indexing_slicing)]

use crate::codec::{Reader, Writer, crc};
use crate::error::Check;
use crate::format::{
    ALIGN_SHIFT, BLOCK_BYTES, CHECKSUM_CRC32_IEEE, FORMAT_VERSION, NUMBER_MAX,
    SEGMENT_HEADER_BYTES, SEGMENT_KIND_LOG, SEGMENT_KIND_VALUES, SEGMENT_MAGIC,
};
use crate::frame::{FrameKind, Predecessor};
use crate::mutant::{self, Mutant};
use crate::types::{HardState, Position};

/// Where the segment before this one validly ends. All zero when none is needed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct ValidEnd {
    /// Its number; 0 is none.
    pub(crate) number: u64,
    /// The first byte after its last valid frame.
    pub(crate) end: u64,
    /// Its last valid frame.
    pub(crate) last_seq: u64,
    /// That frame's header checksum.
    pub(crate) last_crc: u32,
}

/// What the frames of a segment hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SegmentKind {
    /// Entries, in one chain over all segments of this kind.
    Log,
    /// Values that lie in no entry. Its frames are a chain of their own, numbered from 1, and it has no predecessor.
    Values,
}

impl SegmentKind {
    /// The kind of segment that such a frame lies in.
    pub(crate) fn that_takes(frame: FrameKind) -> SegmentKind {
        match frame {
            FrameKind::Data | FrameKind::Note => SegmentKind::Log,
            FrameKind::Values => SegmentKind::Values,
        }
    }

    /// Whether such a frame may lie in it.
    pub(crate) fn takes(self, frame: FrameKind) -> bool {
        SegmentKind::that_takes(frame) == self
    }

    fn code(self) -> u32 {
        u32::from(match self {
            SegmentKind::Log => SEGMENT_KIND_LOG,
            SegmentKind::Values => SEGMENT_KIND_VALUES,
        })
    }

    fn of(code: u32) -> Option<SegmentKind> {
        [SegmentKind::Log, SegmentKind::Values].into_iter().find(|kind| kind.code() == code)
    }
}

/// The first block of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u128,
    pub(crate) slot: u32,
    pub(crate) kind: SegmentKind,
    /// Rises with every segment of its kind, never reused once its header is durable.
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) slot_bytes: u64,
    /// How many opens have written a segment, this one included.
    pub(crate) epoch: u64,
    pub(crate) first_seq: u64,
    pub(crate) before: ValidEnd,
    /// The frame before `first_seq`, whichever segment it lies in.
    pub(crate) prev: Predecessor,
    pub(crate) hard_state: HardState,
    /// The entry before the first one that is logically present.
    pub(crate) log_start: Position,
}

/// What block 0 of a slot says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Head {
    /// Zeros: pre-written and never used, as far as this block tells.
    Blank,
    /// A segment.
    Segment(SegmentHeader),
    /// Neither.
    Bad(Check),
}

/// All fields lie within the first sector, which a device writes whole or not at all.
const FIELDS_BYTES: usize = 512 - 12;

/// The checksum of a header whose padding is what it was written as, zeros. If other bytes there made a header bad, the
/// next write to the slot could mend it without replacing it, and bring a segment back that was taken for lost.
fn crc_as_written(checked: &[u8]) -> u32 {
    if mutant::is(Mutant::HeaderPaddingCounts) {
        return crc(checked);
    }
    let mut written = [0; SEGMENT_HEADER_BYTES - 12];
    for (to, from) in written.iter_mut().zip(checked).take(FIELDS_BYTES) {
        *to = *from;
    }
    crc(&written)
}

impl SegmentHeader {
    pub(crate) fn encode_into(&self, out: &mut [u8]) {
        let (out, _) = out.split_at_mut(SEGMENT_HEADER_BYTES);
        let (magic, checked) = out.split_at_mut(12);
        Writer::new(checked)
            .u16(FORMAT_VERSION)
            .u8(ALIGN_SHIFT)
            .u8(CHECKSUM_CRC32_IEEE)
            .u128(self.log_id)
            .u32(self.slot)
            .u32(self.kind.code())
            .u64(self.number)
            .u64(self.salt)
            .u64(self.slot_bytes)
            .u64(self.epoch)
            .u64(self.first_seq)
            .u64(self.before.number)
            .u64(self.before.end)
            .u64(self.before.last_seq)
            .u32(self.before.last_crc)
            .u32(self.prev.crc)
            .u64(self.prev.first_index)
            .u64(self.prev.last.index)
            .u64(self.prev.last.term)
            .u64(self.hard_state.term)
            .u64(self.hard_state.vote)
            .u64(self.log_start.index)
            .u64(self.log_start.term)
            .u64(self.prev.replaced_seq)
            .zeros();
        let checksum = crc(checked);
        Writer::new(magic).bytes(&SEGMENT_MAGIC).u32(checksum);
    }

    fn decode(block: &[u8]) -> Result<SegmentHeader, Check> {
        let (magic, checked) = block.split_at_checked(12).ok_or(Check::Length)?;
        let mut reader = Reader::new(magic);
        if reader.bytes(8) != Some(&SEGMENT_MAGIC) {
            return Err(Check::Magic);
        }
        if reader.u32() != Some(crc_as_written(checked)) {
            return Err(Check::HeaderChecksum);
        }
        let mut reader = Reader::new(checked);
        let version = (reader.u16(), reader.u8(), reader.u8());
        if version != (Some(FORMAT_VERSION), Some(ALIGN_SHIFT), Some(CHECKSUM_CRC32_IEEE)) {
            return Err(Check::Version);
        }
        SegmentHeader::decode_fields(&mut reader).ok_or(Check::Kind)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Option<SegmentHeader> {
        let log_id = reader.u128()?;
        let slot = reader.u32()?;
        let kind = SegmentKind::of(reader.u32()?)?;
        let number = reader.u64()?;
        let salt = reader.u64()?;
        let slot_bytes = reader.u64()?;
        let epoch = reader.u64()?;
        let first_seq = reader.u64()?;
        let before_number = reader.u64()?;
        let end = reader.u64()?;
        let last_seq = reader.u64()?;
        let last_crc = reader.u32()?;
        let crc = reader.u32()?;
        let mut header = SegmentHeader {
            log_id,
            slot,
            kind,
            number,
            salt,
            slot_bytes,
            epoch,
            first_seq,
            before: ValidEnd { number: before_number, end, last_seq, last_crc },
            prev: Predecessor {
                crc,
                first_index: reader.u64()?,
                last: Position { index: reader.u64()?, term: reader.u64()? },
                replaced_seq: 0,
            },
            hard_state: HardState { term: reader.u64()?, vote: reader.u64()? },
            log_start: Position { index: reader.u64()?, term: reader.u64()? },
        };
        header.prev.replaced_seq = reader.u64()?;
        Some(header)
    }

    /// Reads block 0 of a slot and checks that it belongs there.
    pub(crate) fn classify(block: &[u8], log_id: u128, slot: u32, slot_bytes: u64) -> Head {
        let Some((block, _)) = block.split_at_checked(BLOCK_BYTES) else {
            return Head::Bad(Check::Length);
        };
        if block.iter().all(|byte| *byte == 0) {
            return Head::Blank;
        }
        match SegmentHeader::decode(block) {
            Err(check) => Head::Bad(check),
            Ok(header) => match header.misplaced(log_id, slot, slot_bytes) {
                Some(check) => Head::Bad(check),
                None => Head::Segment(header),
            },
        }
    }

    fn misplaced(&self, log_id: u128, slot: u32, slot_bytes: u64) -> Option<Check> {
        let block_bytes = BLOCK_BYTES as u64;
        let before_is_sound = self.before.number < self.number
            && self.before.last_seq < self.first_seq
            && self.before.end <= slot_bytes
            && self.before.end.is_multiple_of(block_bytes)
            && (self.before.number == 0 || self.before.end > block_bytes);
        // What is checked below to be at most one of these needs no limit of its own.
        let largest = self.number.max(self.epoch).max(self.first_seq).max(self.prev.last.index);
        let checks = [
            (self.log_id == log_id, Check::LogId),
            (self.slot == slot, Check::Address),
            (self.slot_bytes == slot_bytes, Check::Length),
            (self.number > 0 && self.first_seq > 0, Check::Sequence),
            (largest <= NUMBER_MAX, Check::Range),
            (before_is_sound && self.prev.replaced_seq < self.first_seq, Check::Chain),
            (self.log_start.index <= self.prev.last.index, Check::Indices),
        ];
        checks.into_iter().find(|(passed, _)| !passed).map(|(_, check)| check)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails, as it should")]
mod tests {
    use super::*;

    const SLOT_BYTES: u64 = 1 << 20;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: 99,
            slot: 3,
            kind: SegmentKind::Log,
            number: 7,
            salt: 5,
            slot_bytes: SLOT_BYTES,
            epoch: 2,
            first_seq: 40,
            before: ValidEnd { number: 6, end: 8192, last_seq: 39, last_crc: 1 },
            prev: Predecessor {
                crc: 1,
                first_index: 9,
                last: Position { index: 10, term: 2 },
                replaced_seq: 38,
            },
            hard_state: HardState { term: 2, vote: 3 },
            log_start: Position { index: 4, term: 1 },
        }
    }

    fn block_of(header: &SegmentHeader) -> Vec<u8> {
        let mut block = vec![0xAA; BLOCK_BYTES];
        header.encode_into(&mut block);
        block
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        let head = SegmentHeader::classify(&block_of(&header()), 99, 3, SLOT_BYTES);
        assert_eq!(head, Head::Segment(header()));
        let values = SegmentHeader { kind: SegmentKind::Values, ..header() };
        let head = SegmentHeader::classify(&block_of(&values), 99, 3, SLOT_BYTES);
        assert_eq!(head, Head::Segment(values));
    }

    #[test]
    fn zeros_are_blank_and_every_flipped_bit_but_those_of_the_padding_is_bad() {
        let blank = vec![0; BLOCK_BYTES];
        assert_eq!(SegmentHeader::classify(&blank, 99, 3, SLOT_BYTES), Head::Blank);
        let block = block_of(&header());
        for bit in 0..BLOCK_BYTES * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let head = SegmentHeader::classify(&flipped, 99, 3, SLOT_BYTES);
            let is_padding = bit / 8 >= 12 + FIELDS_BYTES;
            assert_eq!(head == Head::Segment(header()), is_padding, "bit {bit}");
            assert_eq!(matches!(head, Head::Bad(_)), !is_padding, "bit {bit}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_bad() {
        let last = Position { index: NUMBER_MAX + 1, term: 2 };
        for header in [
            SegmentHeader { number: u64::MAX, ..header() },
            SegmentHeader { epoch: u64::MAX, ..header() },
            SegmentHeader { first_seq: u64::MAX, ..header() },
            SegmentHeader { prev: Predecessor { last, ..header().prev }, ..header() },
        ] {
            let head = SegmentHeader::classify(&block_of(&header), 99, 3, SLOT_BYTES);
            assert_eq!(head, Head::Bad(Check::Range));
        }
        let header = SegmentHeader { number: NUMBER_MAX, ..header() };
        let head = SegmentHeader::classify(&block_of(&header), 99, 3, SLOT_BYTES);
        assert_eq!(head, Head::Segment(header));
    }

    #[test]
    fn a_header_of_another_log_or_slot_is_bad() {
        let block = block_of(&header());
        let classify = |log_id, slot, bytes| SegmentHeader::classify(&block, log_id, slot, bytes);
        assert_eq!(classify(98, 3, SLOT_BYTES), Head::Bad(Check::LogId));
        assert_eq!(classify(99, 4, SLOT_BYTES), Head::Bad(Check::Address));
        assert_eq!(classify(99, 3, 2 * SLOT_BYTES), Head::Bad(Check::Length));
    }
}
