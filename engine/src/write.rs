//! One write of a segment: its header, if the write opens it, and a frame.

use std::sync::Arc;

use crate::buffer::{Frame, FramePool};
use crate::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::frame::{FrameHeader, LogTag, Staged, encode, padded_frame_bytes};
use crate::segment::SegmentHeader;
use crate::types::Location;

/// The bytes of a write.
pub(crate) struct EncodedWrite {
    pub(crate) bytes: Arc<Frame>,
    /// Where the frame starts in them: the header of its segment may precede it.
    pub(crate) start: usize,
    /// What the buffer takes in memory.
    pub(crate) held_bytes: usize,
    /// The checksum of the frame's header.
    pub(crate) crc: u32,
}

impl EncodedWrite {
    /// Encodes the frame, after the header of the segment that it opens. Completes `header`.
    pub(crate) fn new(
        pool: &FramePool,
        tag: LogTag,
        opened: Option<&SegmentHeader>,
        header: &mut FrameHeader,
        staged: &[Staged],
    ) -> EncodedWrite {
        let frame_bytes = padded_frame_bytes(body_bytes(staged));
        let start = if opened.is_some() { SEGMENT_HEADER_BYTES } else { 0 };
        let mut buf = pool.take(start + frame_bytes);
        let (head, rest) = buf.as_mut_slice().split_at_mut(start);
        if let Some(segment) = opened {
            segment.encode_into(head);
        }
        let crc = encode(tag, header, staged, &mut rest[..frame_bytes]);
        // A buffer takes one block more than it holds, to be aligned.
        let held_bytes = buf.len() + BLOCK_BYTES;
        EncodedWrite { bytes: pool.freeze(buf, start + frame_bytes), start, held_bytes, crc }
    }
}

/// What these records add to a body.
pub(crate) fn body_bytes(staged: &[Staged]) -> usize {
    staged.iter().map(Staged::body_bytes).sum()
}

/// Where the payload of each of these records lies, if their frame starts here.
pub(crate) fn payload_places(
    frame: Location,
    staged: &[Staged],
) -> impl Iterator<Item = Location> + '_ {
    let first = FRAME_HEADER_BYTES + staged.len() * RECORD_HEADER_BYTES;
    staged.iter().scan(frame.plus(first), |next, record| {
        let place = *next;
        *next = place.plus(record.body_bytes() - RECORD_HEADER_BYTES);
        Some(place)
    })
}
