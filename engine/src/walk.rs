//! The frames of one segment, verified one after the other as its bytes are read in pieces. Unlike an open, which keeps
//! a segment whole, it holds little more than a frame.

#![deny(clippy::indexing_slicing)]

use crate::format::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};
use crate::frame::{FrameHeader, LogTag, Record};
use crate::scan::{Chain, check_frame};
use crate::segment::{Head, SegmentHeader};
use crate::window::Window;

/// Where the walk over a slot has come to.
#[derive(Debug)]
pub(crate) struct Walk {
    log_id: u128,
    tag: LogTag,
    slot: u32,
    slot_bytes: u64,
    /// What was read, from the next frame on.
    window: Window,
    /// None before the header is known.
    chain: Option<Chain>,
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
            window: Window::default(),
            chain: None,
        }
    }

    /// The slot.
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// The first byte that is not there yet.
    pub(crate) fn read_offset(&self) -> u64 {
        self.window.end()
    }

    /// Whether more bytes should be on their way: there are fewer ahead than this, and the slot has more.
    pub(crate) fn wants(&self, ahead_bytes: usize) -> bool {
        self.window.rest().len() < ahead_bytes && self.read_offset() < self.slot_bytes
    }

    /// The bytes at [`Walk::read_offset`].
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.window.push(bytes);
    }

    /// The payload of a record of the frame that was just given.
    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        let payload = self.window.rest().get(record.start..record.start + record.bytes);
        payload.expect("a verified record lies within its frame")
    }

    /// The frame that was just given is done with.
    pub(crate) fn pass(&mut self, frame: &WalkedFrame) {
        self.window.skip(frame.bytes);
    }

    /// The next frame, if it is there whole.
    pub(crate) fn step(&mut self) -> Step {
        let Some(chain) = self.chain else { return self.begin() };
        let (offset, rest) = (self.window.start(), self.window.rest());
        let is_all = self.read_offset() >= self.slot_bytes;
        let frame_bytes = match FrameHeader::decode(self.tag, rest) {
            Ok((header, _)) => header.frame_bytes(),
            Err(_) if rest.len() < BLOCK_BYTES && !is_all => return Step::Read,
            Err(_) => return Step::End,
        };
        let fits = offset + frame_bytes as u64 <= self.slot_bytes;
        if frame_bytes > rest.len() && !is_all && fits {
            return Step::Read;
        }
        let expected = chain.expected(self.slot, offset, rest);
        let mut records = Vec::new();
        let Ok((header, crc)) = check_frame(self.tag, &expected, rest, &mut records) else {
            return Step::End;
        };
        self.chain = Some(chain.after(&header, crc));
        Step::Frame(WalkedFrame { offset, records, bytes: header.frame_bytes() })
    }

    /// Reads the header of the segment.
    fn begin(&mut self) -> Step {
        let Some(block) = self.window.rest().get(..SEGMENT_HEADER_BYTES) else {
            return Step::Read;
        };
        match SegmentHeader::classify(block, self.log_id, self.slot, self.slot_bytes) {
            Head::Blank | Head::Bad(_) => Step::End,
            Head::Segment(header) => {
                self.chain = Some(Chain::of(&header));
                self.window.skip(SEGMENT_HEADER_BYTES);
                self.step()
            }
        }
    }
}
