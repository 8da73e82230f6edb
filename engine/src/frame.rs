//! One frame: header, record table, payloads. Encoding and decoding, no I/O and no decisions.
//!
//! ```text
//!    0  header (128)        what it is, where it belongs, what it promises
//!  128  record table        32 bytes for each record
//!    …  payloads            each starting at a multiple of 16, in the order of the table
//!    …  zeros               to the next multiple of 4,096
//! ```
//!
//! Invariants: a decoded header has lengths that fit its frame, and a decoded record lies within its frame.

#![deny(clippy::indexing_slicing)]

use bytes::Bytes;
use crc32fast::Hasher;

use crate::codec::{Reader, Writer, crc};
use crate::error::Check;
use crate::format::{
    BLOCK_BYTES, FRAME_FLAG_REPLACES, FRAME_HEADER_BYTES, FRAME_KIND_DATA, FRAME_KIND_NOTE,
    FRAME_KIND_VALUES, FRAME_MAGIC, NUMBER_MAX, RECORD_ALIGN_BYTES, RECORD_ENTRY,
    RECORD_HEADER_BYTES, RECORD_REPAIR, RECORD_RESET, RECORD_VALUES, TERM_UNKNOWN,
};
use crate::mutant::{self, Mutant};
use crate::segment::SegmentKind;
use crate::types::{Entry, HardState, Position};

/// What a log's frames have mixed into their header checksums, so that no other log's frame passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogTag(u32);

impl LogTag {
    pub(crate) fn of(log_id: u128) -> LogTag {
        LogTag(crc(&log_id.to_le_bytes()))
    }

    pub(crate) fn checksum(self, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a frame says of the one before it in the chain.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Predecessor {
    /// Its header's checksum; 0 before the first frame.
    pub(crate) crc: u32,
    /// The first index it holds; 0 when it holds none.
    pub(crate) first_index: u64,
    /// The last entry of the log after it.
    pub(crate) last: Position,
    /// The newest frame up to it, itself included, that replaced entries or reset the log; 0 is none. Between two frames
    /// that state the same one, entries have only been added: so it is known what damaged frames between them held.
    pub(crate) replaced_seq: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameKind {
    /// It changes the log.
    Data,
    /// It carries its promise alone.
    Note,
    /// It holds values, and lies in a segment of values.
    Values,
}

/// A frame's header, except its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) salt: u64,
    pub(crate) seq: u64,
    /// The promise: every frame up to this one was durable when this header was built.
    pub(crate) durable_seq: u64,
    pub(crate) slot: u32,
    /// Its offset in blocks.
    pub(crate) block: u32,
    /// Record table and payloads.
    pub(crate) body_bytes: u32,
    pub(crate) table_crc: u32,
    pub(crate) record_count: u16,
    pub(crate) kind: FrameKind,
    /// Whether it replaces entries of frames before it, or of its own, or resets the log.
    pub(crate) replaces: bool,
    pub(crate) hard_state: HardState,
    /// The first index it holds that it does not replace itself; 0 when it holds none. Repairs do not count.
    pub(crate) first_index: u64,
    /// The last entry of the log after it.
    pub(crate) last: Position,
    pub(crate) prev: Predecessor,
}

impl FrameHeader {
    /// Writes the header and returns its checksum.
    pub(crate) fn encode_into(&self, tag: LogTag, out: &mut [u8]) -> u32 {
        let (out, _) = out.split_at_mut(FRAME_HEADER_BYTES);
        let (magic, checked) = out.split_at_mut(8);
        Writer::new(checked)
            .u64(self.salt)
            .u64(self.seq)
            .u64(self.durable_seq)
            .u32(self.slot)
            .u32(self.block)
            .u32(self.body_bytes)
            .u32(self.table_crc)
            .u32(self.prev.crc)
            .u16(self.record_count)
            .u8(match self.kind {
                FrameKind::Data => FRAME_KIND_DATA,
                FrameKind::Note => FRAME_KIND_NOTE,
                FrameKind::Values => FRAME_KIND_VALUES,
            })
            .u8(if self.replaces { FRAME_FLAG_REPLACES } else { 0 })
            .u64(self.hard_state.term)
            .u64(self.hard_state.vote)
            .u64(self.first_index)
            .u64(self.last.index)
            .u64(self.last.term)
            .u64(self.prev.first_index)
            .u64(self.prev.last.index)
            .u64(self.prev.last.term)
            .u64(self.prev.replaced_seq);
        let checksum = tag.checksum(checked);
        Writer::new(magic).bytes(&FRAME_MAGIC).u32(checksum);
        checksum
    }

    /// Reads a header whose own checksum is right. Whether it belongs where it was found is [`Expected`]'s question.
    pub(crate) fn decode(tag: LogTag, bytes: &[u8]) -> Result<(FrameHeader, u32), Check> {
        let (bytes, _) = bytes.split_at_checked(FRAME_HEADER_BYTES).ok_or(Check::Length)?;
        let (magic, checked) = bytes.split_at_checked(8).ok_or(Check::Length)?;
        let mut reader = Reader::new(magic);
        if reader.bytes(4) != Some(&FRAME_MAGIC) {
            return Err(Check::Magic);
        }
        let checksum = reader.u32().ok_or(Check::Length)?;
        if checksum != tag.checksum(checked) {
            return Err(Check::HeaderChecksum);
        }
        Ok((FrameHeader::decode_fields(checked).ok_or(Check::Kind)?, checksum))
    }

    fn decode_fields(bytes: &[u8]) -> Option<FrameHeader> {
        let reader = &mut Reader::new(bytes);
        let salt = reader.u64()?;
        let seq = reader.u64()?;
        let durable_seq = reader.u64()?;
        let slot = reader.u32()?;
        let block = reader.u32()?;
        let body_bytes = reader.u32()?;
        let table_crc = reader.u32()?;
        let prev_crc = reader.u32()?;
        let record_count = reader.u16()?;
        let (kind, replaces) = match (reader.u8()?, reader.u8()?) {
            (FRAME_KIND_DATA, 0) => (FrameKind::Data, false),
            (FRAME_KIND_DATA, FRAME_FLAG_REPLACES) => (FrameKind::Data, true),
            (FRAME_KIND_NOTE, 0) => (FrameKind::Note, false),
            (FRAME_KIND_VALUES, 0) => (FrameKind::Values, false),
            _ => return None,
        };
        Some(FrameHeader {
            salt,
            seq,
            durable_seq,
            slot,
            block,
            body_bytes,
            table_crc,
            record_count,
            kind,
            replaces,
            hard_state: HardState { term: reader.u64()?, vote: reader.u64()? },
            first_index: reader.u64()?,
            last: position(reader)?,
            prev: Predecessor {
                crc: prev_crc,
                first_index: reader.u64()?,
                last: position(reader)?,
                replaced_seq: reader.u64()?,
            },
        })
    }

    /// What the next frame says of this one, whose header has this checksum.
    pub(crate) fn as_predecessor(&self, crc: u32) -> Predecessor {
        let replaced_seq = if self.replaces { self.seq } else { self.prev.replaced_seq };
        Predecessor { crc, first_index: self.first_index, last: self.last, replaced_seq }
    }

    /// The whole frame with its padding.
    pub(crate) fn frame_bytes(&self) -> usize {
        padded_frame_bytes(self.body_bytes as usize)
    }

    /// The indices it holds, as reports state them.
    pub(crate) fn indices(&self) -> (u64, u64) {
        indices(self.first_index, self.last)
    }
}

impl Predecessor {
    pub(crate) fn indices(&self) -> (u64, u64) {
        indices(self.first_index, self.last)
    }
}

fn indices(first_index: u64, last: Position) -> (u64, u64) {
    if first_index == 0 { (0, 0) } else { (first_index, last.index) }
}

fn position(reader: &mut Reader<'_>) -> Option<Position> {
    Some(Position { index: reader.u64()?, term: reader.u64()? })
}

/// What the next frame at a place must say for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) segment: SegmentKind,
    pub(crate) salt: u64,
    pub(crate) slot: u32,
    pub(crate) block: u32,
    pub(crate) seq: u64,
    /// The promise of the frame before; promises never go backwards.
    pub(crate) durable_seq_min: u64,
    pub(crate) prev: Predecessor,
    /// How many bytes the frame may take.
    pub(crate) room_bytes: usize,
}

impl Expected {
    pub(crate) fn check(&self, header: &FrameHeader) -> Result<(), Check> {
        let promised = self.durable_seq_min..header.seq;
        let largest = header.seq.max(header.last.index);
        let checks = [
            (header.salt == self.salt, Check::Salt),
            (self.segment.takes(header.kind), Check::Kind),
            (header.slot == self.slot && header.block == self.block, Check::Address),
            (header.seq == self.seq, Check::Sequence),
            (header.prev == self.prev, Check::Chain),
            (largest <= NUMBER_MAX, Check::Range),
            (promised.contains(&header.durable_seq), Check::Promise),
            (header.frame_bytes() <= self.room_bytes, Check::Length),
        ];
        match checks.into_iter().find(|(passed, check)| !passed && !is_overlooked(*check)) {
            Some((_, check)) => Err(check),
            None => Ok(()),
        }
    }
}

/// Whether a deliberate bug lets frames pass that fail this check.
fn is_overlooked(check: Check) -> bool {
    let is_of_a_life = matches!(check, Check::Salt | Check::Sequence | Check::Chain);
    is_of_a_life && mutant::is(Mutant::EarlierLifeAccepted)
}

/// What a record does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordKind {
    /// One entry and the kind its writer gave it.
    Entry(u8),
    /// The same once more, of an entry whose own frame is damaged.
    Repair(u8),
    /// The log continues after the record's position.
    Reset,
    /// Values with their keys.
    Values,
}

/// One line of a record table whose payload has been verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) kind: RecordKind,
    pub(crate) at: Position,
    /// Where its payload starts, from the start of the frame.
    pub(crate) start: usize,
    /// The length of its payload.
    pub(crate) bytes: usize,
}

/// What goes into a frame.
#[derive(Clone, Debug)]
pub(crate) enum Staged {
    Entry(Entry),
    Repair(Entry),
    Reset(Position),
    /// Values with their keys.
    Values(Bytes),
}

impl Staged {
    fn payload(&self) -> &[u8] {
        match self {
            Staged::Entry(entry) | Staged::Repair(entry) => &entry.payload,
            Staged::Values(payload) => payload,
            Staged::Reset(_) => &[],
        }
    }

    /// What it adds to a body.
    pub(crate) fn body_bytes(&self) -> usize {
        record_bytes(self.payload().len())
    }
}

/// What a record with this payload adds to a body.
pub(crate) fn record_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes.next_multiple_of(RECORD_ALIGN_BYTES)
}

/// A frame around this body.
pub(crate) fn padded_frame_bytes(body_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(BLOCK_BYTES)
}

/// Fills `frame` with the records and the header, whose lengths, count and table checksum are set here.
/// Returns the header's checksum. Every byte of `frame` is written.
///
/// Requires: `frame` is exactly as long as [`padded_frame_bytes`] says.
pub(crate) fn encode(
    tag: LogTag,
    header: &mut FrameHeader,
    records: &[Staged],
    frame: &mut [u8],
) -> u32 {
    let body_bytes: usize = records.iter().map(Staged::body_bytes).sum();
    assert!(frame.len() == padded_frame_bytes(body_bytes));
    let (head, body) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let (table, mut payloads) = body.split_at_mut(records.len() * RECORD_HEADER_BYTES);
    for (line, record) in table.chunks_exact_mut(RECORD_HEADER_BYTES).zip(records) {
        let bytes = record.payload().len();
        let (payload, rest) = payloads.split_at_mut(bytes.next_multiple_of(RECORD_ALIGN_BYTES));
        let (payload, padding) = payload.split_at_mut(bytes);
        payload.copy_from_slice(record.payload());
        padding.fill(0);
        encode_line(line, record, payload);
        payloads = rest;
    }
    payloads.fill(0);
    header.body_bytes = u32::try_from(body_bytes).expect("a frame is at most a quarter of 1 GiB");
    header.record_count = u16::try_from(records.len()).expect("the batch is limited");
    header.table_crc = crc(table);
    header.encode_into(tag, head)
}

fn encode_line(line: &mut [u8], record: &Staged, payload: &[u8]) {
    let (kind, entry_kind, at) = match record {
        Staged::Entry(Entry { index, term, kind, .. }) => {
            (RECORD_ENTRY, *kind, Position { index: *index, term: *term })
        }
        Staged::Repair(Entry { index, term, kind, .. }) => {
            (RECORD_REPAIR, *kind, Position { index: *index, term: *term })
        }
        Staged::Reset(at) => (RECORD_RESET, 0, *at),
        Staged::Values(_) => (RECORD_VALUES, 0, Position::default()),
    };
    let length = u32::try_from(payload.len()).expect("a frame is at most a quarter of 1 GiB");
    Writer::new(line)
        .u32(length)
        .u32(crc(payload))
        .u64(at.index)
        .u64(at.term)
        .u8(kind)
        .u8(entry_kind)
        .zeros();
}

/// Reads and verifies every record of a frame.
///
/// Requires: `header` is that frame's and its length was checked against the bytes at hand.
pub(crate) fn decode_records(header: &FrameHeader, frame: &[u8]) -> Result<Vec<Record>, Check> {
    let mut records = Vec::with_capacity(usize::from(header.record_count));
    decode_records_into(header, frame, &mut records)?;
    Ok(records)
}

/// Likewise, adding them to `records`; nothing is added if one is refused.
pub(crate) fn decode_records_into(
    header: &FrameHeader,
    frame: &[u8],
    records: &mut Vec<Record>,
) -> Result<(), Check> {
    let before = records.len();
    let result = records_of(header, frame, Verify::Everything, records);
    if result.is_err() {
        records.truncate(before);
    }
    result
}

/// Reads and verifies the table of a frame whose payloads are not what was written.
pub(crate) fn decode_table_into(
    header: &FrameHeader,
    frame: &[u8],
    records: &mut Vec<Record>,
) -> Result<(), Check> {
    let before = records.len();
    let result = records_of(header, frame, Verify::Table, records);
    if result.is_err() {
        records.truncate(before);
    }
    result
}

/// Reads the record table of a frame of our own that never left memory.
pub(crate) fn trusted_records(header: &FrameHeader, frame: &[u8]) -> Result<Vec<Record>, Check> {
    let mut records = Vec::with_capacity(usize::from(header.record_count));
    records_of(header, frame, Verify::Bounds, &mut records)?;
    Ok(records)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verify {
    Everything,
    Table,
    Bounds,
}

fn records_of(
    header: &FrameHeader,
    frame: &[u8],
    verify: Verify,
    records: &mut Vec<Record>,
) -> Result<(), Check> {
    let body_bytes = header.body_bytes as usize;
    let table_bytes = usize::from(header.record_count) * RECORD_HEADER_BYTES;
    let table = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + table_bytes);
    let table = table.filter(|_| table_bytes <= body_bytes).ok_or(Check::Length)?;
    if verify != Verify::Bounds && crc(table) != header.table_crc {
        return Err(Check::TableChecksum);
    }
    let mut start = FRAME_HEADER_BYTES + table_bytes;
    for line in table.chunks_exact(RECORD_HEADER_BYTES) {
        let (record, checksum) = decode_line(line, start).ok_or(Check::Kind)?;
        if record.at.index > NUMBER_MAX || record.at.term == TERM_UNKNOWN {
            return Err(Check::Range);
        }
        let payload = frame.get(start..start + record.bytes).ok_or(Check::Length)?;
        let is_verified = verify == Verify::Everything && !mutant::is(Mutant::PayloadNotVerified);
        if is_verified && checksum != crc(payload) {
            return Err(Check::RecordChecksum);
        }
        start += record.bytes.next_multiple_of(RECORD_ALIGN_BYTES);
        records.push(record);
    }
    if start == FRAME_HEADER_BYTES + body_bytes { Ok(()) } else { Err(Check::Length) }
}

fn decode_line(line: &[u8], start: usize) -> Option<(Record, u32)> {
    let reader = &mut Reader::new(line);
    let bytes = reader.u32()? as usize;
    let checksum = reader.u32()?;
    let at = position(reader)?;
    let kind = match (reader.u8()?, reader.u8()?) {
        (RECORD_ENTRY, entry_kind) => RecordKind::Entry(entry_kind),
        (RECORD_REPAIR, entry_kind) => RecordKind::Repair(entry_kind),
        (RECORD_RESET, 0) => RecordKind::Reset,
        (RECORD_VALUES, 0) if at == Position::default() => RecordKind::Values,
        _ => return None,
    };
    (reader.u16()? == 0 && reader.u32()? == 0)
        .then_some((Record { kind, at, start, bytes }, checksum))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails, as it should")]
mod tests {
    use super::*;

    const TAG: LogTag = LogTag(7);

    fn header() -> FrameHeader {
        FrameHeader {
            salt: 11,
            seq: 5,
            durable_seq: 3,
            slot: 2,
            block: 9,
            body_bytes: 0,
            table_crc: 0,
            record_count: 0,
            kind: FrameKind::Data,
            replaces: false,
            hard_state: HardState { term: 4, vote: 1 },
            first_index: 8,
            last: Position { index: 9, term: 4 },
            prev: Predecessor {
                crc: 77,
                first_index: 0,
                last: Position { index: 7, term: 3 },
                replaced_seq: 2,
            },
        }
    }

    fn staged(index: u64, payload: &'static [u8]) -> Staged {
        Staged::Entry(Entry { index, term: 4, kind: 1, payload: Bytes::from_static(payload) })
    }

    fn frame_of(records: &[Staged]) -> Vec<u8> {
        let body: usize = records.iter().map(Staged::body_bytes).sum();
        let mut frame = vec![0xAA; padded_frame_bytes(body)];
        encode(TAG, &mut header(), records, &mut frame);
        frame
    }

    fn decode(frame: &[u8]) -> Result<(FrameHeader, Vec<Record>), Check> {
        let (header, _) = FrameHeader::decode(TAG, frame)?;
        if header.frame_bytes() > frame.len() {
            return Err(Check::Length);
        }
        let records = decode_records(&header, frame)?;
        Ok((header, records))
    }

    #[test]
    fn records_come_back_as_they_were_staged() {
        let frame = frame_of(&[staged(8, b"hello"), staged(9, b""), staged(10, &[3; 40])]);
        let (decoded, records) = decode(&frame).unwrap();
        assert_eq!(decoded.prev, header().prev);
        assert_eq!(decoded.hard_state, header().hard_state);
        assert_eq!(records.iter().map(|r| r.at.index).collect::<Vec<_>>(), [8, 9, 10]);
        assert_eq!(&frame[records[0].start..records[0].start + 5], b"hello");
        assert!(records.iter().all(|r| r.start.is_multiple_of(RECORD_ALIGN_BYTES)));
    }

    #[test]
    fn padding_is_zero_whatever_the_buffer_held() {
        let frame = frame_of(&[staged(8, b"x")]);
        let end = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + 1;
        assert!(frame[end..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn every_flipped_bit_is_noticed_or_lies_in_padding() {
        let Staged::Entry(lost) = staged(3, b"once more, ok.") else { unreachable!() };
        let reset = Staged::Reset(Position { index: 9, term: 1 });
        let records = [Staged::Repair(lost), reset, staged(8, b"hello")];
        let frame = frame_of(&records);
        // Two bytes of padding lie between the payloads.
        let used = FRAME_HEADER_BYTES + 3 * RECORD_HEADER_BYTES + 16 + 5;
        let padding = used - 7..used - 5;
        for bit in 0..used * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped).is_err(), !padding.contains(&(bit / 8)), "bit {bit}");
        }
    }

    #[test]
    fn a_repair_comes_back_with_its_index_its_term_and_its_kind() {
        let payload = Bytes::from_static(b"once more");
        let lost = Entry { index: 3, term: 2, kind: 7, payload };
        let (_, records) = decode(&frame_of(&[Staged::Repair(lost)])).unwrap();
        let Record { kind, at, bytes, .. } = records[0];
        assert_eq!((kind, bytes), (RecordKind::Repair(7), 9));
        assert_eq!(at, Position { index: 3, term: 2 });
    }

    #[test]
    fn the_table_is_read_without_the_payloads_and_never_unverified() {
        let records = [staged(8, b"hello"), staged(9, b"there")];
        let mut frame = frame_of(&records);
        let payload = FRAME_HEADER_BYTES + 2 * RECORD_HEADER_BYTES;
        frame[payload] ^= 1;
        let (header, _) = FrameHeader::decode(TAG, &frame).unwrap();
        let mut known = Vec::new();
        assert_eq!(decode_records(&header, &frame), Err(Check::RecordChecksum));
        assert_eq!(decode_table_into(&header, &frame, &mut known), Ok(()));
        assert_eq!(known.iter().map(|record| record.at.index).collect::<Vec<_>>(), [8, 9]);
        frame[FRAME_HEADER_BYTES + 8] ^= 1;
        let refused = decode_table_into(&header, &frame, &mut known);
        assert_eq!((refused, known.len()), (Err(Check::TableChecksum), 2));
    }

    #[test]
    fn a_frame_tells_the_next_one_which_was_the_last_that_replaced_something() {
        let header = header();
        assert_eq!(header.as_predecessor(1).replaced_seq, header.prev.replaced_seq);
        let replacing = FrameHeader { replaces: true, ..header };
        assert_eq!(replacing.as_predecessor(1).replaced_seq, header.seq);
    }

    #[test]
    fn a_record_of_a_term_that_stands_for_none_is_refused() {
        let frame = frame_of(&[Staged::Reset(Position { index: 3, term: TERM_UNKNOWN })]);
        assert_eq!(decode(&frame).unwrap_err(), Check::Range);
    }

    #[test]
    fn a_record_whose_index_cannot_be_counted_on_from_is_refused() {
        let reset = |index| frame_of(&[Staged::Reset(Position { index, term: 1 })]);
        assert_eq!(decode(&reset(NUMBER_MAX + 1)).unwrap_err(), Check::Range);
        assert_eq!(decode(&reset(NUMBER_MAX)).unwrap().1[0].at.index, NUMBER_MAX);
    }

    #[test]
    fn a_frame_of_another_log_does_not_pass() {
        let frame = frame_of(&[staged(8, b"hello")]);
        let other = FrameHeader::decode(LogTag(8), &frame);
        assert_eq!(other.unwrap_err(), Check::HeaderChecksum);
    }

    #[test]
    fn expected_names_the_first_check_that_fails() {
        let expected = Expected {
            segment: SegmentKind::Log,
            salt: 11,
            slot: 2,
            block: 9,
            seq: 5,
            durable_seq_min: 3,
            prev: header().prev,
            room_bytes: BLOCK_BYTES,
        };
        assert_eq!(expected.check(&header()), Ok(()));
        let cases = [
            (Expected { salt: 12, ..expected }, Check::Salt),
            (Expected { segment: SegmentKind::Values, ..expected }, Check::Kind),
            (Expected { block: 8, ..expected }, Check::Address),
            (Expected { seq: 6, ..expected }, Check::Sequence),
            (Expected { prev: Predecessor::default(), ..expected }, Check::Chain),
            (Expected { durable_seq_min: 4, ..expected }, Check::Promise),
            (Expected { room_bytes: 0, ..expected }, Check::Length),
        ];
        for (expected, check) in cases {
            assert_eq!(expected.check(&header()), Err(check));
        }
        let seq = u64::MAX;
        let endless = FrameHeader { seq, ..header() };
        assert_eq!(Expected { seq, ..expected }.check(&endless), Err(Check::Range));
        let last = Position { index: u64::MAX, term: 4 };
        assert_eq!(expected.check(&FrameHeader { last, ..header() }), Err(Check::Range));
    }
}
