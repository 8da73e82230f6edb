//! Reads the frames of one segment out of its bytes. It says where bad ones are, and decides nothing.
//!
//! Behind bad frames it goes on where it is certain what they did to the log: see [`ScannedHole`]. Whether they had been
//! durable is for others to say, and only then does what lies behind them count.

#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use crate::error::Check;
use crate::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, FRAME_MAGIC, SEGMENT_HEADER_BYTES};
use crate::frame::{
    Expected, FrameHeader, FrameKind, LogTag, Predecessor, Record, RecordKind, decode_records_into,
};
use crate::segment::{SegmentHeader, SegmentKind};

mod holes;
pub(crate) use holes::ScannedHole;

/// A frame that passed every check.
#[derive(Clone, Debug)]
pub(crate) struct ScannedFrame {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    /// Its records among those of the scan.
    records: Range<usize>,
}

/// The first frame that did not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) offset: u64,
    /// The sequence number that belongs there.
    pub(crate) seq: u64,
    pub(crate) check: Check,
    /// The indices it held, as far as its own header or its successor's tells.
    pub(crate) indices: Option<(u64, u64)>,
    /// Whether something of this segment's life lies at or after it: a write that did not end.
    pub(crate) traces: bool,
    /// The highest promise of a later frame of this segment.
    pub(crate) promised_seq: u64,
}

/// Where a segment validly ends, as the one after it states it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatedEnd {
    pub(crate) end: u64,
    pub(crate) last_seq: u64,
    pub(crate) last: Predecessor,
}

/// What the bytes of a segment hold.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) frames: Vec<ScannedFrame>,
    /// Between them, in order.
    pub(crate) holes: Vec<ScannedHole>,
    /// Of all frames, one after the other.
    records: Vec<Record>,
    /// The first byte after the last frame.
    pub(crate) end: u64,
    pub(crate) last_seq: u64,
    /// The last frame, or what the segment's header says of the one before the first.
    pub(crate) last: Predecessor,
    /// What lies at `end` and is neither a frame nor a hole; absent when that is the stated end.
    pub(crate) failure: Option<Failure>,
}

/// Reads frames as the bytes of a segment come in, until one fails or, where the end is stated, until that end.
pub(crate) struct Scanner<'a> {
    segment: &'a SegmentHeader,
    tag: LogTag,
    /// How many bytes there will be.
    bytes: u64,
    stated: Option<StatedEnd>,
    durable_seq_min: u64,
    scan: Scan,
    refused: Option<Refused>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(
        segment: &'a SegmentHeader,
        tag: LogTag,
        bytes: u64,
        stated: Option<StatedEnd>,
    ) -> Scanner<'a> {
        let scan = Scan {
            frames: Vec::new(),
            holes: Vec::new(),
            records: Vec::new(),
            end: SEGMENT_HEADER_BYTES as u64,
            last_seq: segment.first_seq - 1,
            last: segment.prev,
            failure: None,
        };
        Scanner { segment, tag, bytes, stated, durable_seq_min: 0, scan, refused: None }
    }

    /// Goes as far as the first `bytes` of the segment reach.
    pub(crate) fn advance(&mut self, bytes: &[u8]) {
        while self.refused.is_none()
            && self.stated.is_none_or(|stated| stated.end != self.scan.end)
            && self.reaches_next_frame(bytes)
        {
            match self.next_frame(bytes) {
                Ok((frame, crc)) => {
                    self.durable_seq_min = frame.header.durable_seq;
                    self.scan.accept(frame, crc);
                }
                Err(refused) => self.refused = Some(refused),
            }
        }
    }

    /// What there is, now that all of its bytes are there.
    pub(crate) fn end(mut self, bytes: &[u8]) -> Scan {
        self.advance(bytes);
        while let Some((check, indices)) = self.refused.take() {
            let failure = failure(bytes, self.segment, self.tag, &self.scan, check, indices);
            let Some(hole) = self.hole(bytes, failure) else {
                self.scan.failure = Some(failure);
                break;
            };
            if let Some(header) = hole.header {
                self.durable_seq_min = header.durable_seq;
            }
            self.scan.pass(hole);
            self.advance(bytes);
        }
        self.scan
    }

    fn expected(&self, rest: &[u8]) -> Expected {
        let Scanner { segment, scan, durable_seq_min, .. } = self;
        let (last_seq, last, durable_seq_min) = (scan.last_seq, scan.last, *durable_seq_min);
        let chain = Chain { last_seq, last, durable_seq_min, ..Chain::of(segment) };
        chain.expected(segment.slot, scan.end, rest)
    }

    /// Whether the next frame, as its header has it, is there whole, or will never be.
    fn reaches_next_frame(&self, bytes: &[u8]) -> bool {
        let rest = tail(bytes, self.scan.end);
        if bytes.len() as u64 >= self.bytes {
            return true;
        }
        match FrameHeader::decode(self.tag, rest) {
            Ok((header, _)) => header.frame_bytes() <= rest.len(),
            Err(_) => rest.len() >= FRAME_HEADER_BYTES,
        }
    }

    fn next_frame(&mut self, bytes: &[u8]) -> Result<(ScannedFrame, u32), Refused> {
        let rest = tail(bytes, self.scan.end);
        let expected = self.expected(rest);
        let scan = &mut self.scan;
        let first = scan.records.len();
        let (header, crc) = check_frame(self.tag, &expected, rest, &mut scan.records)?;
        let records = first..scan.records.len();
        Ok((ScannedFrame { offset: scan.end, header, records }, crc))
    }
}

impl Scan {
    /// The records of a frame of this scan.
    pub(crate) fn records_of(&self, frame: &ScannedFrame) -> &[Record] {
        self.records.get(frame.records.clone()).unwrap_or_default()
    }

    /// The records of a hole, where they are known.
    pub(crate) fn records_in(&self, hole: &ScannedHole) -> Option<&[Record]> {
        self.records.get(hole.records.clone()?)
    }

    /// What failed first; absent where everything up to the stated end is sound.
    pub(crate) fn first_failure(&self) -> Option<Failure> {
        self.holes.first().map(|hole| hole.failure).or(self.failure)
    }

    /// The log ends before the hole of this number and all that follows it.
    pub(crate) fn cut_before(&mut self, hole: usize) {
        let Some(cut) = self.holes.get(hole).cloned() else { return };
        self.holes.truncate(hole);
        self.frames.retain(|frame| frame.header.seq < cut.failure.seq);
        let of_frames = self.frames.last().map_or(0, |frame| frame.records.end);
        let of_holes = self.holes.iter().filter_map(|hole| hole.records.as_ref());
        let end = of_holes.map(|records| records.end).max().unwrap_or(0).max(of_frames);
        self.records.truncate(end);
        self.end = cut.failure.offset;
        self.last_seq = cut.failure.seq - 1;
        self.last = cut.before;
        self.failure = Some(cut.failure);
    }

    /// Every record, in order.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    fn accept(&mut self, frame: ScannedFrame, crc: u32) {
        self.end += frame.header.frame_bytes() as u64;
        self.last_seq = frame.header.seq;
        self.last = frame.header.as_predecessor(crc);
        self.frames.push(frame);
    }

    fn pass(&mut self, hole: ScannedHole) {
        self.end = hole.end;
        self.last_seq = hole.last_seq;
        self.last = hole.after;
        self.holes.push(hole);
    }
}

/// What the next frame of a segment must follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) segment: SegmentKind,
    pub(crate) salt: u64,
    pub(crate) last_seq: u64,
    pub(crate) last: Predecessor,
    /// The promise of the last frame.
    pub(crate) durable_seq_min: u64,
}

impl Chain {
    /// As the segment's header has it, before its first frame.
    pub(crate) fn of(header: &SegmentHeader) -> Chain {
        let SegmentHeader { kind, salt, first_seq, prev, .. } = *header;
        let last_seq = first_seq - 1;
        Chain { segment: kind, salt, last_seq, last: prev, durable_seq_min: 0 }
    }

    /// As this frame says of what is before it.
    pub(crate) fn before(header: &FrameHeader) -> Chain {
        let FrameHeader { kind, salt, seq, prev, .. } = *header;
        let segment = SegmentKind::that_takes(kind);
        Chain { segment, salt, last_seq: seq - 1, last: prev, durable_seq_min: 0 }
    }

    /// After this frame, whose header has this checksum.
    pub(crate) fn after(self, header: &FrameHeader, crc: u32) -> Chain {
        let FrameHeader { seq, durable_seq, .. } = *header;
        let last = header.as_predecessor(crc);
        Chain { last_seq: seq, last, durable_seq_min: durable_seq, ..self }
    }

    /// What the frame that `rest` begins with, at `offset` of this slot, must say for itself.
    pub(crate) fn expected(&self, slot: u32, offset: u64, rest: &[u8]) -> Expected {
        Expected {
            segment: self.segment,
            salt: self.salt,
            slot,
            block: block_of(offset),
            seq: self.last_seq + 1,
            durable_seq_min: self.durable_seq_min,
            prev: self.last,
            room_bytes: rest.len(),
        }
    }
}

/// What a frame did not pass, and the indices it held if its header tells.
pub(crate) type Refused = (Check, Option<(u64, u64)>);

/// Everything that can be checked about the frame that `rest` begins with: its header, its place in the chain, each of
/// its records, which are added to `records`. Gives the header and its checksum.
pub(crate) fn check_frame(
    tag: LogTag,
    expected: &Expected,
    rest: &[u8],
    records: &mut Vec<Record>,
) -> Result<(FrameHeader, u32), Refused> {
    let (header, crc) = FrameHeader::decode(tag, rest).map_err(|check| (check, None))?;
    expected.check(&header).map_err(|check| (check, None))?;
    let refused = |check| (check, Some(header.indices()));
    let frame = rest.get(..header.frame_bytes()).ok_or(refused(Check::Length))?;
    let first = records.len();
    decode_records_into(&header, frame, records).map_err(refused)?;
    if !records.iter().skip(first).all(|record| may_hold(header.kind, record.kind)) {
        records.truncate(first);
        return Err(refused(Check::Kind));
    }
    Ok((header, crc))
}

/// Whether such a record may lie in such a frame.
fn may_hold(frame: FrameKind, record: RecordKind) -> bool {
    match frame {
        FrameKind::Data => record != RecordKind::Values,
        FrameKind::Note => false,
        FrameKind::Values => record == RecordKind::Values,
    }
}

/// Where a frame header has its salt and its number.
const SALT_AT: usize = 8;
const SEQ_AT: usize = 16;
const SEQ_END: usize = 24;

fn failure(
    bytes: &[u8],
    segment: &SegmentHeader,
    tag: LogTag,
    scan: &Scan,
    check: Check,
    indices: Option<(u64, u64)>,
) -> Failure {
    let seq = scan.last_seq + 1;
    let mut failure =
        Failure { offset: scan.end, seq, check, indices, traces: false, promised_seq: 0 };
    // A segment's header is written together with its first frame: alone it is half of that write.
    failure.traces = scan.frames.is_empty() || is_trace(tail(bytes, scan.end), segment, seq);
    for (_, header) in headers(bytes, scan.end, segment.slot, tag) {
        if header.salt != segment.salt {
            continue;
        }
        failure.traces = true;
        failure.promised_seq = failure.promised_seq.max(header.durable_seq);
        if header.seq == seq + 1 {
            failure.indices = failure.indices.or(Some(header.prev.indices()));
        }
    }
    failure
}

/// Whether these bytes were once a header of this segment: a broken one still shows its salt or its number, or, in a
/// slot that was never used, its first bytes and then nothing.
fn is_trace(bytes: &[u8], segment: &SegmentHeader, seq: u64) -> bool {
    let field = |at: usize| bytes.get(at..at + 8);
    let is_start = || {
        let block = bytes.get(..BLOCK_BYTES).unwrap_or(bytes);
        let used = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let magic = block.get(..used.min(FRAME_MAGIC.len())).unwrap_or_default();
        (1..SEQ_END).contains(&used) && FRAME_MAGIC.starts_with(magic)
    };
    field(SALT_AT) == Some(&segment.salt.to_le_bytes())
        || field(SEQ_AT) == Some(&seq.to_le_bytes())
        || is_start()
}

/// Every header of a frame of the log at a block boundary from `offset` on that is whole and says that it belongs there.
/// Frames of values are of chains of their own and promise nothing about the log.
pub(crate) fn log_headers(
    bytes: &[u8],
    slot: u32,
    tag: LogTag,
) -> impl Iterator<Item = FrameHeader> {
    let all = headers(bytes, 0, slot, tag).map(|(_, header)| header);
    all.filter(|header| header.kind != FrameKind::Values)
}

/// Every frame header at a block boundary from `offset` on that is whole and says that it belongs there.
pub(crate) fn headers(
    bytes: &[u8],
    offset: u64,
    slot: u32,
    tag: LogTag,
) -> impl Iterator<Item = (u64, FrameHeader)> {
    let blocks = tail(bytes, offset).chunks(BLOCK_BYTES);
    let offsets = (offset..).step_by(BLOCK_BYTES);
    offsets.zip(blocks).filter_map(move |(offset, block)| {
        let (header, _) = FrameHeader::decode(tag, block).ok()?;
        (header.slot == slot && header.block == block_of(offset)).then_some((offset, header))
    })
}

/// Whether the first frame of this segment lies where it belongs. It is of one write with the segment's header, so
/// nothing has been opened in this slot since whose first write was kept.
pub(crate) fn first_frame_is_there(bytes: &[u8], segment: &SegmentHeader, tag: LogTag) -> bool {
    let offset = SEGMENT_HEADER_BYTES as u64;
    let is_it = |frame: &FrameHeader| {
        let place = (frame.salt, frame.slot, frame.block, frame.seq);
        place == (segment.salt, segment.slot, block_of(offset), segment.first_seq)
    };
    FrameHeader::decode(tag, tail(bytes, offset)).is_ok_and(|(frame, _)| is_it(&frame))
}

fn tail(bytes: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or(&[])
}

/// The block that starts at `offset`.
pub(crate) fn block_of(offset: u64) -> u32 {
    u32::try_from(offset / BLOCK_BYTES as u64).expect("a slot is at most 1 GiB")
}
