//! The frames of one segment, verified one after the other as its bytes are read in pieces. Unlike an open, which keeps
//! a segment whole, it holds little more than a frame.

#![deny(clippy::indexing_slicing)]

use crate::format::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use crate::frame::{Expected, FrameHeader, LogTag, Predecessor, Record};
use crate::scan::check_frame;
use crate::segment::{Head, SegmentHeader};

/// Where the walk over a slot has come to.
#[derive(Debug)]
pub(crate) struct Walk {
    log_id: u128,
    tag: LogTag,
    slot: u32,
    slot_bytes: u64,
    segment: Option<SegmentHeader>,
    /// Bytes that are there; those from `start` on are the ones from `offset` on.
    window: Vec<u8>,
    start: usize,
    /// Where the next frame starts; before the header is known, 0.
    offset: u64,
    seq: u64,
    durable_seq: u64,
    prev: Predecessor,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// A frame that passed every check. Its bytes are dropped by [`Walk::pass`].
    Frame(WalkedFrame),
    /// Nothing before the next bytes.
    Read,
    /// No sound frame follows: the end, or damage.
    End,
}

/// A verified frame.
#[derive(Debug)]
pub(crate) struct WalkedFrame {
    pub(crate) offset: u64,
    pub(crate) records: Vec<Record>,
    bytes: usize,
}

impl Walk {
    pub(crate) fn new(log_id: u128, slot: u32, slot_bytes: u64) -> Walk {
        Walk {
            log_id,
            tag: LogTag::of(log_id),
            slot,
            slot_bytes,
            segment: None,
            window: Vec::new(),
            start: 0,
            offset: 0,
            seq: 0,
            durable_seq: 0,
            prev: Predecessor::default(),
        }
    }

    /// The slot.
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// The first byte that is not there yet.
    pub(crate) fn read_offset(&self) -> u64 {
        self.offset + self.rest().len() as u64
    }

    /// Whether more bytes should be on their way: there are fewer ahead than this, and the slot has more.
    pub(crate) fn wants(&self, ahead_bytes: usize) -> bool {
        self.rest().len() < ahead_bytes && self.read_offset() < self.slot_bytes
    }

    fn rest(&self) -> &[u8] {
        self.window.get(self.start..).unwrap_or_default()
    }

    fn skip(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// The bytes at [`Walk::read_offset`].
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.window.drain(..self.start);
        self.start = 0;
        self.window.extend_from_slice(bytes);
    }

    /// The payload of a record of the frame that was just given.
    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        let payload = self.rest().get(record.start..record.start + record.bytes);
        payload.expect("a verified record lies within its frame")
    }

    /// The frame that was just given is done with.
    pub(crate) fn pass(&mut self, frame: &WalkedFrame) {
        self.skip(frame.bytes);
    }

    /// The next frame, if it is there whole.
    pub(crate) fn step(&mut self) -> Step {
        let Some(segment) = self.segment else { return self.begin() };
        let is_all = self.read_offset() >= self.slot_bytes;
        let frame_bytes = match FrameHeader::decode(self.tag, self.rest()) {
            Ok((header, _)) => header.frame_bytes(),
            Err(_) if self.rest().len() < BLOCK_BYTES && !is_all => return Step::Read,
            Err(_) => return Step::End,
        };
        if frame_bytes > self.rest().len() && !is_all && self.reaches(frame_bytes) {
            return Step::Read;
        }
        let expected = Expected {
            salt: segment.salt,
            slot: self.slot,
            block: u32::try_from(self.offset / BLOCK_BYTES as u64).expect("at most 1 GiB"),
            seq: self.seq,
            durable_seq_min: self.durable_seq,
            prev: self.prev,
            room_bytes: self.rest().len(),
        };
        let mut records = Vec::new();
        match check_frame(self.tag, &expected, self.rest(), &mut records) {
            Ok((header, crc)) if segment.kind.takes(header.kind) => {
                self.seq += 1;
                self.durable_seq = header.durable_seq;
                self.prev = header.as_predecessor(crc);
                let (offset, bytes) = (self.offset, header.frame_bytes());
                Step::Frame(WalkedFrame { offset, records, bytes })
            }
            Ok(_) | Err(_) => Step::End,
        }
    }

    /// Whether a frame of this length fits the slot.
    fn reaches(&self, frame_bytes: usize) -> bool {
        self.offset + frame_bytes as u64 <= self.slot_bytes
    }

    /// Reads the header of the segment.
    fn begin(&mut self) -> Step {
        let Some(block) = self.rest().get(..SEGMENT_HEADER_BYTES) else { return Step::Read };
        match SegmentHeader::classify(block, self.log_id, self.slot, self.slot_bytes) {
            Head::Blank | Head::Bad(_) => Step::End,
            Head::Segment(header) => {
                self.segment = Some(header);
                self.skip(SEGMENT_HEADER_BYTES);
                self.seq = header.first_seq;
                self.prev = header.prev;
                self.step()
            }
        }
    }
}
