//! The segments of values that lie in no entry: those that the cleaner moved, and those of a peer's snapshot.
//!
//! They are written beside the log, one frame at a time, and nobody reads them at an open: what a checkpoint does not
//! name is lost with a crash, and had its source still there.
//!
//! Each owner has a lane: its own queue and its own open segment. So nobody waits for the slot of another, and nobody
//! fills a segment that another has paid for: on a full disk the cleaner has a slot in reserve, a snapshot has none.
//!
//! ```text
//! owner      goes    its slots are    its open segment is sealed
//! cleaner    first   Cleaning         when it is full
//! snapshot   then    Entries          when it is full, and when the snapshot is settled or dropped
//! ```
//!
//! One frame is in flight, of one lane. The cleaner has one batch at a time, so going first it holds nobody up.
//!
//! Invariants:
//! - Values are announced when they are durable, never before; nobody looks for them in a frame that is in flight.
//! - A segment is given up to the checkpoints only when it is sealed, when all of its values are settled, and when every
//!   checkpoint that is kept shows the caller's state after that: what then is in none of them is nobody's.
//! - A segment of which every value was dropped is nobody's at once; its slot goes when no write to it is in flight.
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
use crate::types::{HardState, Location, Position, ValuesOwner};
use crate::write::{EncodedWrite, payload_places};

/// Values that wait for a frame.
#[derive(Debug)]
struct Queued {
    id: u64,
    payload: Bytes,
}

/// Values that have a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlacedValues {
    pub(crate) id: u64,
    pub(crate) owner: ValuesOwner,
    pub(crate) location: Location,
}

/// The newest segment of a lane while it is written.
#[derive(Clone, Copy, Debug)]
struct OpenSegment {
    number: u64,
    slot: u32,
    salt: u64,
    /// The first byte after the last frame.
    end: u64,
    seq: u64,
    prev: Predecessor,
}

impl OpenSegment {
    /// The segment, when no frame follows.
    fn sealed(self) -> recovery::Segment {
        let OpenSegment { number, slot, end, seq: last_seq, prev, .. } = self;
        let (first_seq, last_crc, has_records) = (1, prev.crc, true);
        recovery::Segment { number, slot, first_seq, last_seq, last_crc, end, has_records }
    }
}

/// What one owner writes.
#[derive(Default, Debug)]
struct Lane {
    queue: VecDeque<Queued>,
    open: Option<OpenSegment>,
}

/// A segment that checkpoints alone do not keep yet.
#[derive(Debug)]
struct Segment {
    slot: u32,
    owner: ValuesOwner,
    /// Values that their owner has neither settled nor dropped.
    unsettled: Vec<u64>,
    /// Whether some were settled, so that a state may have them.
    has_settled: bool,
    since: Since,
}

/// What a segment waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Since {
    /// It is open, or its owner has not decided on all of its values.
    Needed,
    /// It was sealed and settled when so many states had been shown.
    Settled(u64),
    /// It was sealed, and nobody needs anything in it.
    Dropped,
}

/// What becomes of values that their owner has decided on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Decision {
    Settle,
    Drop,
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
    /// By owner.
    lanes: [Lane; 2],
    /// The newest id.
    named: u64,
    /// Of the newest segment.
    number: u64,
    /// What the frame in flight holds; empty when none is.
    in_flight: Vec<PlacedValues>,
    frame_bytes: u64,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// What has been sealed, until somebody asks.
    sealed: Vec<recovery::Segment>,
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
            lanes: Default::default(),
            named: 0,
            number,
            in_flight: Vec::new(),
            frame_bytes: 0,
            segments: VecDeque::new(),
            sealed: Vec::new(),
        }
    }

    /// Queues values and names them.
    pub(crate) fn append(&mut self, owner: ValuesOwner, payload: Bytes) -> u64 {
        self.named += 1;
        let id = self.named;
        self.lane(owner).queue.push_back(Queued { id, payload });
        id
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

    /// The slots that further checkpoints alone keep from being left to checkpoints, while state `shown` stays the
    /// oldest that is kept.
    pub(crate) fn settled_before(&self, shown: u64) -> impl Iterator<Item = u32> {
        let is_settled =
            move |segment: &&Segment| matches!(segment.since, Since::Settled(at) if at < shown);
        self.segments.iter().filter(is_settled).map(|segment| segment.slot)
    }

    /// Whether this slot holds a segment that is sealed, not dropped and not left to checkpoints.
    pub(crate) fn has_sealed(&self, slot: u32) -> bool {
        let holds = |segment: &Segment| segment.slot == slot && segment.since != Since::Dropped;
        !self.is_open(slot) && self.segments.iter().any(holds)
    }

    fn is_open(&self, slot: u32) -> bool {
        self.lanes.iter().filter_map(|lane| lane.open).any(|open| open.slot == slot)
    }

    fn lane(&mut self, owner: ValuesOwner) -> &mut Lane {
        &mut self.lanes[lane_of(owner)]
    }

    /// Whether values of this owner wait for a frame.
    pub(crate) fn has_waiting(&self, owner: ValuesOwner) -> bool {
        !self.lanes[lane_of(owner)].queue.is_empty()
    }

    /// Whether the next values of this owner need a slot.
    pub(crate) fn needs_slot(&self, owner: ValuesOwner) -> bool {
        let Lane { queue, open } = &self.lanes[lane_of(owner)];
        let Some(first) = queue.front() else { return false };
        let needed = padded_frame_bytes(record_bytes(first.payload.len())) as u64;
        open.is_none_or(|open| open.end + needed > self.slot_bytes)
    }

    /// Builds the next frame of this owner if one is due. A roll takes `ready_slot`; without one the values wait. `shown`
    /// is how many states have been shown.
    pub(crate) fn next_frame(
        &mut self,
        owner: ValuesOwner,
        ready_slot: Option<u32>,
        shown: u64,
    ) -> Option<Built> {
        if !self.has_waiting(owner) || !self.in_flight.is_empty() {
            return None;
        }
        let opened =
            if self.needs_slot(owner) { Some(self.roll(owner, ready_slot?, shown)) } else { None };
        let open = self.lane(owner).open.expect("it was there or has just been opened");
        let staged = self.stage(owner, &open);
        Some(self.build(owner, open, opened.as_ref(), &staged))
    }

    /// Seals the open segment of this owner and opens a new one in `slot`.
    fn roll(&mut self, owner: ValuesOwner, slot: u32, shown: u64) -> SegmentHeader {
        self.seal(owner);
        self.leave_sealed(shown);
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
        self.lane(owner).open = Some(OpenSegment {
            number: self.number,
            slot,
            salt: header.salt,
            end: SEGMENT_HEADER_BYTES as u64,
            seq: 0,
            prev: Predecessor::default(),
        });
        self.segments.push_back(Segment {
            slot,
            owner,
            unsettled: Vec::new(),
            has_settled: false,
            since: Since::Needed,
        });
        header
    }

    /// Moves from the queue what fits one frame.
    fn stage(&mut self, owner: ValuesOwner, open: &OpenSegment) -> Vec<Staged> {
        let left = usize::try_from(self.slot_bytes - open.end).expect("a slot is at most 1 GiB");
        let limit = left.min(self.frame_bytes_max);
        let queue = &mut self.lanes[lane_of(owner)].queue;
        let (mut staged, mut body_bytes) = (Vec::new(), 0);
        while let Some(Queued { payload, .. }) = queue.front() {
            body_bytes += record_bytes(payload.len());
            let fits = padded_frame_bytes(body_bytes) <= limit && staged.len() < RECORD_COUNT_MAX;
            if !fits && !staged.is_empty() {
                break;
            }
            let Queued { id, payload } = queue.pop_front().expect("just seen");
            self.in_flight.push(PlacedValues { id, owner, location: Location::new(open.slot, 0) });
            staged.push(Staged::Values(payload));
        }
        staged
    }

    fn build(
        &mut self,
        owner: ValuesOwner,
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
        self.lane(owner).open = Some(OpenSegment {
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
        let mut segments = self.segments.iter_mut();
        let segment = segments.find(|segment| segment.slot == open.slot);
        let segment = segment.expect("the open segment is among them");
        let locations = payload_places(Location::new(open.slot, open.end), staged);
        for (placed, location) in self.in_flight.iter_mut().zip(locations) {
            placed.location = location;
            segment.unsettled.push(placed.id);
        }
    }

    /// Segments that were sealed since the last call. All of their frames are durable.
    pub(crate) fn take_sealed(&mut self) -> Vec<recovery::Segment> {
        std::mem::take(&mut self.sealed)
    }

    /// No frame follows in the open segment of this owner. One in flight has been dropped: nobody looks at that segment.
    fn seal(&mut self, owner: ValuesOwner) {
        let is_durable = !self.in_flight.iter().any(|placed| placed.owner == owner);
        let open = self.lane(owner).open.take();
        self.sealed.extend(open.filter(|_| is_durable).map(OpenSegment::sealed));
    }

    /// The salt of this owner's open segment.
    pub(crate) fn open_salt(&self, owner: ValuesOwner) -> u64 {
        self.lanes[lane_of(owner)].open.map_or(0, |open| open.salt)
    }

    /// The frame in flight is durable: what it holds.
    pub(crate) fn complete(&mut self) -> Vec<PlacedValues> {
        std::mem::take(&mut self.in_flight)
    }

    /// This owner's values up to `id` are where the caller's state says. `shown` is how many states have been shown.
    /// What still waits is dropped.
    pub(crate) fn settle(&mut self, owner: ValuesOwner, id: u64, shown: u64) {
        self.decide(owner, id, Decision::Settle, shown);
    }

    /// This owner's values up to `id`, but for those that it has settled, are nobody's.
    ///
    /// Requires: no checkpoint names them, not even one that a power cut would bring back.
    pub(crate) fn drop_values(&mut self, owner: ValuesOwner, id: u64, shown: u64) {
        self.decide(owner, id, Decision::Drop, shown);
    }

    fn decide(&mut self, owner: ValuesOwner, id: u64, decision: Decision, shown: u64) {
        self.lane(owner).queue.retain(|queued| queued.id > id);
        for segment in self.segments.iter_mut().filter(|segment| segment.owner == owner) {
            let before = segment.unsettled.len();
            segment.unsettled.retain(|named| *named > id);
            let has_decided = segment.unsettled.len() < before;
            segment.has_settled |= has_decided && decision == Decision::Settle;
        }
        if owner == ValuesOwner::Snapshot {
            self.seal_decided();
        }
        self.leave_sealed(shown);
    }

    /// A segment of a snapshot ends with it: the next one comes late or never.
    fn seal_decided(&mut self) {
        let Lane { queue, open } = &self.lanes[lane_of(ValuesOwner::Snapshot)];
        let Some(OpenSegment { slot, .. }) = *open else { return };
        let is_decided = |segment: &Segment| segment.slot == slot && segment.unsettled.is_empty();
        if queue.is_empty() && self.segments.iter().any(is_decided) {
            self.seal(ValuesOwner::Snapshot);
        }
    }

    /// Notes which segments nobody writes to and nobody has to decide on any more.
    fn leave_sealed(&mut self, shown: u64) {
        let open = self.lanes.each_ref().map(|lane| lane.open.map(|open| open.slot));
        for segment in &mut self.segments {
            let is_sealed = !open.contains(&Some(segment.slot));
            if is_sealed && segment.unsettled.is_empty() && segment.since == Since::Needed {
                segment.since =
                    if segment.has_settled { Since::Settled(shown) } else { Since::Dropped };
            }
        }
    }

    /// The slots that from now on only checkpoints keep, if any do. `oldest` is the number of the state in the oldest
    /// checkpoint that is kept; none while there are not enough.
    pub(crate) fn give_up_slots(&mut self, oldest: Option<u64>, freed: &mut Vec<u32>) {
        let in_flight = self.in_flight.first().map(|placed| placed.location.slot());
        self.segments.retain(|segment| {
            let is_left = match segment.since {
                Since::Needed => false,
                Since::Settled(shown) => oldest.is_some_and(|oldest| {
                    shown < oldest || mutant::is(Mutant::ValuesLeftToCheckpoints)
                }),
                Since::Dropped => true,
            };
            let is_written =
                in_flight == Some(segment.slot) && !mutant::is(Mutant::DroppedInFlight);
            let goes = is_left && !is_written;
            if goes {
                freed.push(segment.slot);
            }
            !goes
        });
    }
}

fn lane_of(owner: ValuesOwner) -> usize {
    match owner {
        ValuesOwner::Cleaner => 0,
        ValuesOwner::Snapshot => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scrubber that came to it before its first frame had arrived called it damaged.
    #[test]
    fn a_segment_that_is_dropped_while_its_first_frame_is_in_flight_is_not_scrubbed() {
        let mut values = ValueLog::new(1, &Options::default(), 0, 1);
        let id = values.append(ValuesOwner::Snapshot, Bytes::from_static(&[7; 64]));
        assert!(values.next_frame(ValuesOwner::Snapshot, Some(3), 0).is_some());
        values.drop_values(ValuesOwner::Snapshot, id, 0);
        assert!(!values.has_sealed(3) && values.take_sealed().is_empty());
        assert_eq!(values.complete().len(), 1);
        let mut freed = Vec::new();
        values.give_up_slots(None, &mut freed);
        assert_eq!(freed, [3]);
    }
}
