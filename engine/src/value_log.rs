//! The segments of values that lie in no entry: those that the cleaner moved, and those of a peer's snapshot.
//!
//! They are written beside the log, one frame at a time, and nobody reads them at an open: what a checkpoint does not
//! name is lost with a crash, and had its source still there.
//!
//! Invariants:
//! - Values are announced when they are durable, never before; nobody looks for them in a frame that is in flight.
//! - A segment is given up to the checkpoints only when it is sealed, when all of its values are settled, and when every
//!   checkpoint that is kept shows the caller's state after that: what then is in none of them is nobody's.
//! - A block of a segment is written once, and after an open nothing is appended to an older segment.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::buffer::FramePool;
use crate::format::{RECORD_COUNT_MAX, SEGMENT_HEADER_BYTES};
use crate::frame::{
    FrameHeader, FrameKind, LogTag, Predecessor, Staged, padded_frame_bytes, record_bytes,
};
use crate::log::Built;
use crate::mutant::{self, Mutant};
use crate::options::Options;
use crate::random::Random;
use crate::recovery;
use crate::scan::block_of;
use crate::segment::{SegmentHeader, SegmentKind, ValidEnd};
use crate::slots::Purpose;
use crate::types::{HardState, Location, Position, ValuesOwner};
use crate::write::{EncodedWrite, payload_places};

/// Values that wait for a frame.
#[derive(Debug)]
struct Queued {
    id: u64,
    owner: ValuesOwner,
    payload: Bytes,
}

/// Values that have a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlacedValues {
    pub(crate) id: u64,
    pub(crate) owner: ValuesOwner,
    pub(crate) location: Location,
}

/// The newest segment while it is written.
#[derive(Clone, Copy, Debug)]
struct OpenSegment {
    slot: u32,
    salt: u64,
    /// The first byte after the last frame.
    end: u64,
    seq: u64,
    prev: Predecessor,
}

impl OpenSegment {
    /// The segment of this number, when no frame follows.
    fn sealed(self, number: u64) -> recovery::Segment {
        let OpenSegment { slot, end, seq: last_seq, prev, .. } = self;
        let (first_seq, last_crc, has_records) = (1, prev.crc, true);
        recovery::Segment { number, slot, first_seq, last_seq, last_crc, end, has_records }
    }
}

/// A segment that checkpoints alone do not keep yet.
#[derive(Debug)]
struct Segment {
    slot: u32,
    /// Values whose owner has not settled them.
    unsettled: Vec<(ValuesOwner, u64)>,
    /// How many states had been shown when it was sealed and settled.
    settled_after: Option<u64>,
}

/// All of them.
pub(crate) struct ValueLog {
    tag: LogTag,
    log_id: u128,
    slot_bytes: u64,
    frame_bytes_max: usize,
    epoch: u64,
    random: Random,
    pool: FramePool,
    queue: VecDeque<Queued>,
    /// The newest id.
    named: u64,
    /// Of the newest segment.
    number: u64,
    open: Option<OpenSegment>,
    /// What the frame in flight holds; empty when none is.
    in_flight: Vec<PlacedValues>,
    frame_bytes: u64,
    /// Oldest first; the last one may be open.
    segments: VecDeque<Segment>,
    /// What was sealed by the last roll, until somebody asks.
    sealed: Option<recovery::Segment>,
}

impl ValueLog {
    /// `number` is that of the newest segment of values there is; `epoch` counts the opens.
    pub(crate) fn new(log_id: u128, options: &Options, number: u64, epoch: u64) -> ValueLog {
        let [seed, stream] = options.seed;
        ValueLog {
            tag: LogTag::of(log_id),
            log_id,
            slot_bytes: options.slot_bytes,
            frame_bytes_max: options.batch_limit(),
            epoch,
            // Salts of another stream than the log's.
            random: Random::new([seed, !stream]),
            pool: FramePool::default(),
            queue: VecDeque::new(),
            named: 0,
            number,
            open: None,
            in_flight: Vec::new(),
            frame_bytes: 0,
            segments: VecDeque::new(),
            sealed: None,
        }
    }

    /// Queues values and names them.
    pub(crate) fn append(&mut self, owner: ValuesOwner, payload: Bytes) -> u64 {
        self.named += 1;
        self.queue.push_back(Queued { id: self.named, owner, payload });
        self.named
    }

    /// The id of the values that were appended last.
    pub(crate) fn newest_id(&self) -> u64 {
        self.named
    }

    /// Bytes of frames of values written since the open.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// Segments that checkpoints alone do not keep.
    pub(crate) fn segments_count(&self) -> usize {
        self.segments.len()
    }

    /// The slots that further checkpoints alone keep from being left to checkpoints.
    pub(crate) fn settled_slots(&self) -> impl Iterator<Item = u32> {
        let settled = self.segments.iter().filter(|segment| segment.settled_after.is_some());
        settled.map(|segment| segment.slot)
    }

    /// Whether this slot holds a segment that is sealed and not left to checkpoints.
    pub(crate) fn has_sealed(&self, slot: u32) -> bool {
        let is_open = self.open.is_some_and(|open| open.slot == slot);
        !is_open && self.segments.iter().any(|segment| segment.slot == slot)
    }

    /// What a slot is wanted for, if one is.
    pub(crate) fn purpose(&self) -> Purpose {
        match self.queue.front() {
            Some(Queued { owner: ValuesOwner::Cleaner, .. }) => Purpose::Cleaning,
            Some(Queued { owner: ValuesOwner::Snapshot, .. }) | None => Purpose::Entries,
        }
    }

    /// Builds the next frame if one is due. A roll takes `ready_slot`; without one the values wait. `shown` is how many
    /// states have been shown.
    pub(crate) fn next_frame(&mut self, ready_slot: Option<u32>, shown: u64) -> Option<Built> {
        let first = self.queue.front()?;
        if !self.in_flight.is_empty() {
            return None;
        }
        let needed = padded_frame_bytes(record_bytes(first.payload.len())) as u64;
        let has_room = |open: &OpenSegment| open.end + needed <= self.slot_bytes;
        let opened = match &self.open {
            Some(open) if has_room(open) => None,
            _ => Some(self.roll(ready_slot?, shown)),
        };
        let open = self.open.expect("it was there or has just been opened");
        let staged = self.stage(&open);
        Some(self.build(open, opened.as_ref(), &staged))
    }

    /// Seals the open segment and opens a new one in `slot`.
    fn roll(&mut self, slot: u32, shown: u64) -> SegmentHeader {
        self.sealed = self.open.take().map(|open| open.sealed(self.number));
        self.settle_sealed(shown);
        self.number += 1;
        let header = SegmentHeader {
            log_id: self.log_id,
            slot,
            kind: SegmentKind::Values,
            number: self.number,
            salt: self.random.nonzero(),
            slot_bytes: self.slot_bytes,
            epoch: self.epoch,
            first_seq: 1,
            before: ValidEnd::default(),
            prev: Predecessor::default(),
            hard_state: HardState::default(),
            log_start: Position::default(),
        };
        self.open = Some(OpenSegment {
            slot,
            salt: header.salt,
            end: SEGMENT_HEADER_BYTES as u64,
            seq: 0,
            prev: Predecessor::default(),
        });
        self.segments.push_back(Segment { slot, unsettled: Vec::new(), settled_after: None });
        header
    }

    /// Moves from the queue what fits one frame.
    fn stage(&mut self, open: &OpenSegment) -> Vec<Staged> {
        let left = usize::try_from(self.slot_bytes - open.end).expect("a slot is at most 1 GiB");
        let limit = left.min(self.frame_bytes_max);
        let (mut staged, mut body_bytes) = (Vec::new(), 0);
        while let Some(Queued { payload, .. }) = self.queue.front() {
            body_bytes += record_bytes(payload.len());
            let fits = padded_frame_bytes(body_bytes) <= limit && staged.len() < RECORD_COUNT_MAX;
            if !fits && !staged.is_empty() {
                break;
            }
            let Queued { id, owner, payload } = self.queue.pop_front().expect("just seen");
            self.in_flight.push(PlacedValues { id, owner, location: Location::new(open.slot, 0) });
            staged.push(Staged::Values(payload));
        }
        staged
    }

    fn build(
        &mut self,
        open: OpenSegment,
        opened: Option<&SegmentHeader>,
        staged: &[Staged],
    ) -> Built {
        self.place(&open, staged);
        let mut header = FrameHeader {
            salt: open.salt,
            seq: open.seq + 1,
            // One frame is in flight at a time.
            durable_seq: open.seq,
            slot: open.slot,
            block: block_of(open.end),
            body_bytes: 0,
            table_crc: 0,
            record_count: 0,
            kind: FrameKind::Values,
            replaces: false,
            hard_state: HardState::default(),
            first_index: 0,
            last: Position::default(),
            prev: open.prev,
        };
        let EncodedWrite { bytes: frame, start, crc, .. } =
            EncodedWrite::new(&self.pool, self.tag, opened, &mut header, staged);
        self.open = Some(OpenSegment {
            end: open.end + header.frame_bytes() as u64,
            seq: header.seq,
            prev: header.as_predecessor(crc),
            ..open
        });
        self.frame_bytes += frame.as_slice().len() as u64;
        let (offset, opens_slot) = (open.end - start as u64, opened.is_some());
        Built { seq: header.seq, slot: open.slot, offset, frame, opens_slot }
    }

    /// Where each record's payload will lie.
    fn place(&mut self, open: &OpenSegment, staged: &[Staged]) {
        let segment = self.segments.back_mut().expect("the open segment is among them");
        let locations = payload_places(Location::new(open.slot, open.end), staged);
        for (placed, location) in self.in_flight.iter_mut().zip(locations) {
            placed.location = location;
            segment.unsettled.push((placed.owner, placed.id));
        }
    }

    /// The segment that was sealed when the open one was opened; once. All of its frames are durable.
    pub(crate) fn take_sealed(&mut self) -> Option<recovery::Segment> {
        self.sealed.take()
    }

    /// The salt of the open segment.
    pub(crate) fn open_salt(&self) -> u64 {
        self.open.map_or(0, |open| open.salt)
    }

    /// The frame in flight is durable: what it holds.
    pub(crate) fn complete(&mut self) -> Vec<PlacedValues> {
        std::mem::take(&mut self.in_flight)
    }

    /// This owner's values up to `id` are where the caller's state says, or nobody's. `shown` is how many states have
    /// been shown. What still waits is dropped.
    pub(crate) fn settle(&mut self, owner: ValuesOwner, id: u64, shown: u64) {
        let stays = |(whose, named): (ValuesOwner, u64)| whose != owner || named > id;
        self.queue.retain(|queued| stays((queued.owner, queued.id)));
        for segment in &mut self.segments {
            segment.unsettled.retain(|values| stays(*values));
        }
        self.settle_sealed(shown);
    }

    fn settle_sealed(&mut self, shown: u64) {
        let open = self.open.map(|open| open.slot);
        for segment in &mut self.segments {
            let is_settled = segment.unsettled.is_empty() && open != Some(segment.slot);
            if is_settled && segment.settled_after.is_none() {
                segment.settled_after = Some(shown);
            }
        }
    }

    /// The slots that from now on only checkpoints keep. `oldest` is the number of the state in the oldest checkpoint
    /// that is kept; none while there are not enough.
    pub(crate) fn give_up_slots(&mut self, oldest: Option<u64>, freed: &mut Vec<u32>) {
        let Some(oldest) = oldest else { return };
        self.segments.retain(|segment| {
            let is_shown = segment
                .settled_after
                .is_some_and(|shown| shown < oldest || mutant::is(Mutant::ValuesLeftToCheckpoints));
            if is_shown {
                freed.push(segment.slot);
            }
            !is_shown
        });
    }
}
