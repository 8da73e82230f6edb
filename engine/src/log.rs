//! The writer's side of the log: what waits, what is in flight, what is durable. It builds frames and does no I/O.
//!
//! Watermarks, as sequence numbers of frames: `promised_seq <= durable_seq <= built_seq`. A frame is built and handed
//! to the disk in one step. Promises speak of frames whose completion has arrived, never of frames in flight.
//!
//! Invariants:
//! - Acknowledgements leave in order: a frame that completes before an older one waits for it.
//! - A segment is opened only when no frame is in flight, so its header may speak for everything before it.
//! - After an open nothing is appended to an older segment: the first frame opens a new one.
//! - A slot is given up only when the frame that opened the newest segment is durable, and then only if no live
//!   entry lies in it or before it.
//! - A block of a segment is written once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use crate::buffer::{Frame, FramePool};
use crate::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_COUNT_MAX, SEGMENT_HEADER_BYTES, TERM_UNKNOWN,
};
use crate::frame::{
    FrameHeader, FrameKind, LogTag, Predecessor, Staged, padded_frame_bytes, record_bytes,
};
use crate::index::{FramePlace, LogIndex};
use crate::mutant::{self, Mutant};
use crate::options::Options;
use crate::places::Places;
use crate::random::Random;
use crate::recovery::{RecoveredLog, Segment};
use crate::scan::block_of;
use crate::segment::{SegmentHeader, SegmentKind, ValidEnd};
use crate::slots::Purpose;
use crate::tail::{SharedTail, Tail, TailFrame};
use crate::types::{Append, Entry, HardState, Location, Position};
use crate::write::{EncodedWrite, body_bytes, payload_places};

/// What waits for a frame, in order.
#[derive(Debug)]
enum Queued {
    HardState(HardState),
    Reset(Position),
    Entry(Entry),
    /// A faulty entry once more.
    Repair(Entry),
    /// The write of this number is complete with what is before.
    End(u64),
}

impl Queued {
    /// Whether a full file system does not hold it up.
    fn is_upkeep(&self) -> bool {
        matches!(self, Queued::HardState(_) | Queued::Reset(_))
    }
}

#[derive(Debug)]
struct InFlight {
    seq: u64,
    submitted_us: u64,
    is_done: bool,
    /// The last write that is complete with this frame.
    write: Option<u64>,
    /// A reset is among its records.
    resets: bool,
    /// A repair is.
    repairs: bool,
}

/// The newest segment while it is written.
#[derive(Clone, Copy, Debug)]
struct OpenSegment {
    segment: Segment,
    salt: u64,
}

/// A frame ready to be written.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
    pub(crate) offset: u64,
    pub(crate) frame: Arc<Frame>,
    /// Whether it opens the slot as a new segment.
    pub(crate) opens_slot: bool,
}

/// What became durable.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Acknowledged {
    /// Every write up to this one.
    pub(crate) write: Option<u64>,
    /// The log starts after the last reset.
    pub(crate) reset: bool,
    /// Faulty entries are held by a durable frame.
    pub(crate) repaired: bool,
    /// The longest that one of the frames took, from its submission to its completion.
    pub(crate) slowest_us: u64,
}

impl Acknowledged {
    /// This and then `more`.
    pub(crate) fn extend(&mut self, more: Acknowledged) {
        self.write = more.write.or(self.write);
        self.reset |= more.reset;
        self.repaired |= more.repaired;
        self.slowest_us = self.slowest_us.max(more.slowest_us);
    }
}

/// Counts since the open.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct LogCounters {
    pub(crate) frames: u64,
    pub(crate) entries: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) frame_bytes: u64,
    pub(crate) padding_bytes: u64,
}

/// What in the queue replaces what is before it in the queue: an entry that goes into its frame only to be replaced by
/// one that waits behind it has no place, for its index is the other's.
#[derive(Debug, Default)]
struct Replacements {
    /// Entries and resets that were queued, and that went into a frame.
    queued: u64,
    staged: u64,
    /// The number of each that replaces others and waits, and the first index that it replaces.
    waiting: VecDeque<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Stays,
    IsReplaced,
}

impl Replacements {
    fn queue(&mut self) {
        self.queued += 1;
    }

    fn queue_replacing(&mut self, from: u64) {
        self.queued += 1;
        self.waiting.push_back((self.queued, from));
    }

    /// Whether what waits replaces the entry of this index.
    fn will_replace(&self, index: u64) -> bool {
        self.waiting.iter().any(|(number, from)| *number > self.staged && *from <= index)
    }

    /// The next one goes into a frame: whether what waits behind it replaces the entry of this index.
    fn stage(&mut self, index: u64) -> Fate {
        self.staged += 1;
        while self.waiting.front().is_some_and(|(number, _)| *number <= self.staged) {
            self.waiting.pop_front();
        }
        if self.will_replace(index) { Fate::IsReplaced } else { Fate::Stays }
    }
}

/// The log that is written.
pub(crate) struct Log {
    tag: LogTag,
    identity: u128,
    options: Options,
    random: Random,
    pool: FramePool,

    queue: VecDeque<Queued>,
    /// Hard states and resets in it.
    queued_upkeep: usize,
    queued_bytes: usize,
    queued_start: Position,
    queued_last: Position,
    queued_hard_state: HardState,
    /// The records of the frame that is being built; kept for its memory.
    staged: Vec<Staged>,

    index: LogIndex,
    tail: SharedTail,
    places: Places,
    replacements: Replacements,
    hard_state: HardState,
    prev: Predecessor,
    built_seq: u64,
    durable_seq: u64,
    /// What the newest frame or segment header has promised.
    promised_seq: u64,
    /// The newest frame that holds more than a promise.
    data_seq: u64,
    in_flight: VecDeque<InFlight>,
    idle_since_us: u64,

    /// Sealed segments with records, oldest first.
    chain: VecDeque<Segment>,
    open: Option<OpenSegment>,
    /// Every segment whose end is known, also those that hold no entry any more, or values, by slot until it is opened
    /// anew.
    sealed: BTreeMap<u32, Segment>,
    /// Sealed without a record: free when the segment after them is durable.
    retired: Vec<u32>,
    number: u64,
    epoch: u64,
    /// Bytes of segments filled since the open, the rest of a sealed one included.
    consumed_bytes: u64,
    counters: LogCounters,
}

impl Log {
    pub(crate) fn new(log_id: u128, options: Options, recovered: RecoveredLog) -> Log {
        let RecoveredLog { hard_state, index, mut chain, last_seq, prev, number, epoch, .. } =
            recovered;
        let RecoveredLog { promised_seq, data_seq, .. } = recovered;
        // A snapshot alone says that the log was dropped: the header of the next segment says so, too, before long.
        let reset = recovered.was_reset.then_some(Queued::HardState(hard_state));
        let sealed = chain.iter().map(|segment| (segment.slot, *segment)).collect();
        let retired = match chain.back() {
            Some(newest) if !newest.has_records => {
                let slot = newest.slot;
                chain.pop_back();
                vec![slot]
            }
            _ => Vec::new(),
        };
        Log {
            tag: LogTag::of(log_id),
            identity: log_id,
            random: Random::new(options.seed),
            pool: FramePool::default(),
            queued_upkeep: usize::from(reset.is_some()),
            queue: reset.into_iter().collect(),
            queued_bytes: 0,
            queued_start: index.start(),
            queued_last: index.last(),
            queued_hard_state: hard_state,
            staged: Vec::new(),
            tail: Arc::new(RwLock::new(Tail::new(options.tail_bytes_max))),
            places: recovered.places,
            replacements: Replacements::default(),
            hard_state,
            prev,
            built_seq: last_seq,
            durable_seq: last_seq,
            promised_seq,
            data_seq,
            in_flight: VecDeque::new(),
            idle_since_us: 0,
            chain,
            open: None,
            sealed,
            retired,
            number,
            epoch: epoch + 1,
            consumed_bytes: 0,
            counters: LogCounters::default(),
            index,
            options,
        }
    }

    // What is known.

    pub(crate) fn index(&self) -> &LogIndex {
        &self.index
    }

    pub(crate) fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read()
    }

    pub(crate) fn shared_tail(&self) -> SharedTail {
        Arc::clone(&self.tail)
    }

    /// A segment of another kind is opened in this slot.
    pub(crate) fn begin_life(&mut self, slot: u32, salt: u64) {
        self.sealed.remove(&slot);
        self.tail.write().begin_life(slot, salt);
    }

    /// A segment of values ends here, and nothing is written to it any more.
    pub(crate) fn know_sealed(&mut self, segment: Segment) {
        self.sealed.insert(segment.slot, segment);
    }

    /// Where an entry's payload lies, if it has a place and was not forgotten.
    pub(crate) fn place(&self, index: u64) -> Option<Location> {
        self.places.find(index)
    }

    pub(crate) fn forget_places_upto(&mut self, index: u64) {
        self.places.forget_upto(index);
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn tag(&self) -> LogTag {
        self.tag
    }

    pub(crate) fn counters(&self) -> LogCounters {
        self.counters
    }

    /// The last entry of the log as it is built that lies in a durable frame. It is asked of the index each time:
    /// a frame that has been durable for long says nothing about the entries that replaced its own.
    pub(crate) fn durable(&self) -> Position {
        self.index.last_upto_frame(self.durable_seq)
    }

    pub(crate) fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The last entry, also of what waits.
    pub(crate) fn queued_last(&self) -> Position {
        self.queued_last
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn entry_bytes_max(&self) -> usize {
        self.options.entry_bytes_max()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn consumed_bytes(&self) -> u64 {
        self.consumed_bytes
    }

    /// Another number of the same stream that salts segments.
    pub(crate) fn next_salt(&mut self) -> u64 {
        self.random.nonzero()
    }

    /// The slots that hold something that is still needed.
    pub(crate) fn slots_in_use(&self) -> impl Iterator<Item = u32> {
        let sealed = self.chain.iter().map(|segment| segment.slot);
        let open = self.open.iter().map(|open| open.segment.slot);
        sealed.chain(self.retired.iter().copied()).chain(open)
    }

    /// Whether a slot holds something that is still needed and is not written any more.
    pub(crate) fn needs_sealed(&self, slot: u32) -> bool {
        self.chain.iter().any(|segment| segment.slot == slot)
    }

    /// The sealed segment in a slot, if its end is known.
    pub(crate) fn sealed_in(&self, slot: u32) -> Option<Segment> {
        self.sealed.get(&slot).copied()
    }

    /// The slots of sealed segments without an entry after this one.
    pub(crate) fn sealed_upto(&self, index: u64) -> impl Iterator<Item = u32> {
        let is_upto =
            move |segment: &&Segment| self.index.last_upto_frame(segment.last_seq).index <= index;
        self.chain.iter().take_while(is_upto).map(|segment| segment.slot)
    }

    /// Bytes of segments that hold frames after this one.
    pub(crate) fn bytes_after(&self, seq: u64) -> u64 {
        let sealed = self.chain.iter().filter(|segment| segment.last_seq > seq).count() as u64;
        let open = self.open.iter().filter(|open| open.segment.last_seq > seq);
        sealed * self.options.slot_bytes + open.map(|open| open.segment.end).sum::<u64>()
    }

    /// Whether nothing waits, nothing is in flight, and every frame with content is promised, or cannot be for want
    /// of a slot.
    pub(crate) fn is_settled(&self, has_ready_slot: bool) -> bool {
        let waits_for_note = self.needs_note() && self.can_note(has_ready_slot);
        self.queue.is_empty() && self.in_flight.is_empty() && !waits_for_note
    }

    /// What the next slot is for. The stream is one: what waits in front of a hard state or a reset goes with its right.
    pub(crate) fn purpose(&self) -> Purpose {
        if self.queued_upkeep > 0 { Purpose::Upkeep } else { Purpose::Entries }
    }

    /// Bytes that the open segment has left.
    pub(crate) fn open_bytes_left(&self) -> u64 {
        self.open.map_or(0, |open| self.options.slot_bytes - open.segment.end)
    }

    fn can_note(&self, has_ready_slot: bool) -> bool {
        has_ready_slot || self.has_room(BLOCK_BYTES)
    }

    // What comes in.

    /// Queues a write.
    ///
    /// Requires: its entries are consecutive, follow the log or replace a part of it that is after its start,
    /// and are not too large; its repairs are of faulty entries that nothing queued replaces, in their terms.
    pub(crate) fn append(&mut self, append: Append) {
        let Append { write, hard_state, reset, repairs, entries } = append;
        if let Some(hard_state) = hard_state
            && hard_state != self.queued_hard_state
        {
            self.queued_hard_state = hard_state;
            self.queued_upkeep += 1;
            self.queue.push_back(Queued::HardState(hard_state));
        }
        if let Some(at) = reset {
            self.queued_start = at;
            self.queued_last = at;
            self.places.truncate_from(at.index + 1);
            self.replacements.queue_replacing(0);
            self.queued_upkeep += 1;
            self.queue.push_back(Queued::Reset(at));
        }
        for entry in repairs {
            self.append_repair(entry);
        }
        for entry in entries {
            self.append_entry(entry);
        }
        self.queue.push_back(Queued::End(write));
    }

    fn append_entry(&mut self, entry: Entry) {
        let Entry { index, term, ref payload, .. } = entry;
        assert!(index <= self.queued_last.index + 1, "entry {index} leaves a gap");
        assert!(index > self.queued_start.index, "entry {index} is before the log's start");
        assert!(payload.len() <= self.options.entry_bytes_max(), "entry {index} is too large");
        assert!(term != TERM_UNKNOWN, "entry {index} has no term");
        if index <= self.queued_last.index {
            self.replacements.queue_replacing(index);
        } else {
            self.replacements.queue();
        }
        self.queued_last = Position { index, term };
        self.places.truncate_from(index);
        self.queued_bytes += record_bytes(payload.len());
        self.queue.push_back(Queued::Entry(entry));
    }

    fn append_repair(&mut self, entry: Entry) {
        let Entry { index, term, ref payload, .. } = entry;
        let known = self.index.term_at(index);
        assert!(self.index.is_faulty(index), "entry {index} is not faulty");
        assert!(!self.replacements.will_replace(index), "entry {index} is being replaced");
        assert!(
            known == Some(term) || known == Some(TERM_UNKNOWN),
            "entry {index} is of {known:?}"
        );
        assert!(term != TERM_UNKNOWN, "entry {index} has no term");
        assert!(payload.len() <= self.options.entry_bytes_max(), "entry {index} is too large");
        self.queued_bytes += record_bytes(payload.len());
        self.queue.push_back(Queued::Repair(entry));
    }

    /// The log starts after `start` from now on, if it reaches there durably: checkpoints hold what was before.
    /// Returns whether that is news.
    pub(crate) fn maybe_purge_upto(&mut self, start: Position) -> bool {
        let is_news = start.index > self.index.start().index && start.index <= self.durable().index;
        if is_news {
            self.index.purge_upto(start);
            self.queued_start = self.queued_start.max(start);
        }
        is_news
    }

    /// The disk has written this frame. Frames are acknowledged in order.
    pub(crate) fn complete(&mut self, seq: u64, now_us: u64) -> Acknowledged {
        let frame = self.in_flight.iter_mut().find(|frame| frame.seq == seq);
        let mut acknowledged = Acknowledged::default();
        match frame {
            Some(frame) => {
                frame.is_done = true;
                acknowledged.slowest_us = now_us.saturating_sub(frame.submitted_us);
            }
            None => assert!(acknowledges_early(), "a frame completes once"),
        }
        let is_done = |frame: &InFlight| {
            frame.is_done || (frame.seq < seq && mutant::is(Mutant::AckOutOfOrder))
        };
        while self.in_flight.front().is_some_and(is_done) {
            let frame = self.in_flight.pop_front().expect("it was just seen");
            assert!(frame.seq == self.durable_seq + 1);
            self.durable_seq = frame.seq;
            acknowledged.write = frame.write.or(acknowledged.write);
            acknowledged.reset |= frame.resets;
            acknowledged.repaired |= frame.repairs;
        }
        if self.in_flight.is_empty() {
            self.idle_since_us = now_us;
        }
        self.tail.write().trim(self.durable_seq);
        acknowledged
    }

    // What goes out.

    /// The next frame, if one should start now. `ready_slot` is where a new segment may be opened.
    /// A write that changes nothing needs no frame; `acknowledged` says when it is complete already.
    pub(crate) fn next_frame(
        &mut self,
        now_us: u64,
        ready_slot: Option<u32>,
        acknowledged: &mut Acknowledged,
    ) -> Option<Built> {
        self.skip_empty_writes(acknowledged);
        if self.should_start(now_us) {
            let needed = self.first_frame_bytes();
            let rolls = !self.has_room(needed + BLOCK_BYTES);
            return self.start(now_us, rolls, ready_slot, FrameKind::Data);
        }
        if self.note_is_due(now_us) {
            let rolls = !self.has_room(BLOCK_BYTES);
            return self.start(now_us, rolls, ready_slot, FrameKind::Note);
        }
        None
    }

    /// When `next_frame` has something to do although nothing else happens. What waits for a slot, or for the frames
    /// in flight before a roll, has no such time.
    pub(crate) fn next_due_us(&self, has_ready_slot: bool) -> Option<u64> {
        match self.in_flight.front() {
            Some(oldest) => {
                let may_start = !self.queue.is_empty()
                    && self.in_flight.len() < self.frames_max()
                    && self.has_room(self.first_frame_bytes() + BLOCK_BYTES);
                may_start.then(|| oldest.submitted_us.saturating_add(self.options.overdue_us))
            }
            None => {
                (self.needs_note() && self.can_note(has_ready_slot)).then(|| self.note_due_us())
            }
        }
    }

    fn frames_max(&self) -> usize {
        self.options.inflight_frames_max
    }

    /// One frame goes at once; a further one only if it is worth it or the device is slow.
    fn should_start(&self, now_us: u64) -> bool {
        if self.queue.is_empty() || self.in_flight.len() >= self.frames_max() {
            return false;
        }
        self.in_flight.front().is_none_or(|oldest| {
            self.queued_bytes >= self.options.further_frame_bytes
                || now_us >= oldest.submitted_us.saturating_add(self.options.overdue_us)
        })
    }

    fn needs_note(&self) -> bool {
        let is_promised = self.promised_seq >= self.data_seq || mutant::is(Mutant::NoNote);
        self.queue.is_empty() && self.in_flight.is_empty() && !is_promised
    }

    fn note_due_us(&self) -> u64 {
        self.idle_since_us.saturating_add(self.options.note_after_us)
    }

    fn note_is_due(&self, now_us: u64) -> bool {
        self.needs_note() && now_us >= self.note_due_us()
    }

    /// Writes at the front of the queue that change nothing are complete with what is before them.
    fn skip_empty_writes(&mut self, acknowledged: &mut Acknowledged) {
        while let Some(Queued::End(write)) = self.queue.front() {
            match self.in_flight.back_mut() {
                Some(frame) => frame.write = Some(*write),
                None => acknowledged.write = Some(*write),
            }
            self.queue.pop_front();
        }
    }

    /// The smallest frame that takes something from the queue.
    fn first_frame_bytes(&self) -> usize {
        let first = self.queue.iter().find_map(|queued| match queued {
            Queued::Entry(entry) | Queued::Repair(entry) => Some(record_bytes(entry.payload.len())),
            Queued::Reset(_) => Some(record_bytes(0)),
            Queued::HardState(_) | Queued::End(_) => None,
        });
        padded_frame_bytes(first.unwrap_or(0))
    }

    /// Whether the open segment has this many bytes left.
    fn has_room(&self, bytes: usize) -> bool {
        self.open.is_some_and(|open| open.segment.end + bytes as u64 <= self.options.slot_bytes)
    }

    fn start(
        &mut self,
        now_us: u64,
        rolls: bool,
        ready_slot: Option<u32>,
        kind: FrameKind,
    ) -> Option<Built> {
        let opened = if rolls {
            if !self.in_flight.is_empty() && !mutant::is(Mutant::RollInFlight) {
                return None;
            }
            Some(self.roll(ready_slot?))
        } else {
            None
        };
        let write = self.stage();
        let built = self.build(kind, opened.as_ref(), write, now_us);
        Some(built)
    }

    /// Seals the open segment and opens a new one in `slot`.
    fn roll(&mut self, slot: u32) -> SegmentHeader {
        self.seal();
        self.sealed.remove(&slot);
        self.number += 1;
        let before = self.chain.back().map_or(ValidEnd::default(), Segment::valid_end);
        let header = SegmentHeader {
            log_id: self.identity,
            slot,
            kind: SegmentKind::Log,
            number: self.number,
            salt: self.random.nonzero(),
            slot_bytes: self.options.slot_bytes,
            epoch: self.epoch,
            first_seq: self.built_seq + 1,
            before,
            prev: self.prev,
            hard_state: self.hard_state,
            log_start: self.index.start(),
        };
        let segment = Segment {
            number: header.number,
            slot,
            first_seq: header.first_seq,
            last_seq: self.built_seq,
            last_crc: self.prev.crc,
            end: SEGMENT_HEADER_BYTES as u64,
            has_records: false,
        };
        self.open = Some(OpenSegment { segment, salt: header.salt });
        self.consumed_bytes += SEGMENT_HEADER_BYTES as u64;
        header
    }

    fn seal(&mut self) {
        assert!(self.in_flight.is_empty() || mutant::is(Mutant::RollInFlight));
        let Some(OpenSegment { segment, .. }) = self.open.take() else { return };
        self.consumed_bytes += self.options.slot_bytes - segment.end;
        self.sealed.insert(segment.slot, segment);
        if segment.has_records {
            self.chain.push_back(segment);
        } else {
            self.retired.push(segment.slot);
        }
    }

    /// Moves from the queue what fits one frame; gives the last write that is complete with it.
    fn stage(&mut self) -> Option<u64> {
        assert!(self.staged.is_empty());
        let limit = self.stage_limit();
        let mut body_bytes = 0;
        let mut write = None;
        while let Some(queued) = self.queue.front() {
            let bytes = match queued {
                Queued::Entry(entry) | Queued::Repair(entry) => record_bytes(entry.payload.len()),
                Queued::Reset(_) => record_bytes(0),
                Queued::HardState(_) | Queued::End(_) => 0,
            };
            let fits = padded_frame_bytes(body_bytes + bytes) <= limit
                && self.staged.len() < RECORD_COUNT_MAX;
            if bytes > 0 && !fits && !self.staged.is_empty() {
                break;
            }
            body_bytes += bytes;
            self.queued_upkeep -= usize::from(queued.is_upkeep());
            match self.queue.pop_front().expect("it was just seen") {
                Queued::HardState(_) if mutant::is(Mutant::HardStateLost) => {}
                Queued::HardState(hard_state) => self.hard_state = hard_state,
                Queued::Reset(at) => self.staged.push(Staged::Reset(at)),
                Queued::Entry(entry) => {
                    self.queued_bytes -= bytes;
                    self.staged.push(Staged::Entry(entry));
                }
                Queued::Repair(entry) => {
                    self.queued_bytes -= bytes;
                    self.staged.push(Staged::Repair(entry));
                }
                Queued::End(number) => write = Some(number),
            }
        }
        write
    }

    /// Batches grow up to a limit and to the end of the segment, whose last block is kept for a NOTE.
    fn stage_limit(&self) -> usize {
        let open = self.open.expect("a frame is staged for an open segment");
        let left = self.options.slot_bytes - open.segment.end - BLOCK_BYTES as u64;
        usize::try_from(left).expect("a slot is at most 1 GiB").min(self.options.batch_limit())
    }

    /// Tells the index what is staged for `frame`, and where each record's payload will lie.
    fn tell_index(&mut self, frame: FramePlace) {
        let open = self.open.expect("a frame is built for an open segment").segment;
        let start = Location::new(open.slot, open.end);
        for (record, place) in self.staged.iter().zip(payload_places(start, &self.staged)) {
            match record {
                Staged::Entry(Entry { index, term, .. }) => {
                    let at = Position { index: *index, term: *term };
                    self.index.entry(at).expect("append has checked the indices");
                    if self.replacements.stage(*index) == Fate::Stays {
                        self.places.push(*index, place);
                    }
                }
                Staged::Repair(Entry { index, term, .. }) => {
                    let at = Position { index: *index, term: *term };
                    if self.index.repair(at, frame).expect("append has checked the term") {
                        self.places.repair(*index, place);
                    }
                }
                Staged::Values(_) => unreachable!("values have segments of their own"),
                Staged::Reset(at) => {
                    self.replacements.stage(at.index);
                    self.index.reset(*at);
                }
            }
        }
    }

    fn build(
        &mut self,
        kind: FrameKind,
        opened: Option<&SegmentHeader>,
        write: Option<u64>,
        now_us: u64,
    ) -> Built {
        let open = self.open.expect("a frame is built for an open segment");
        let body_bytes = body_bytes(&self.staged);
        let bytes = padded_frame_bytes(body_bytes);
        let place = FramePlace {
            seq: self.built_seq + 1,
            slot: open.segment.slot,
            block: block_of(open.segment.end),
            bytes: u32::try_from(bytes).expect("at most 1 GiB"),
            salt: open.salt,
        };
        self.tell_index(place);
        let mut header = self.header(kind, &place);
        let EncodedWrite { bytes: frame, start, held_bytes, crc } =
            EncodedWrite::new(&self.pool, self.tag, opened, &mut header, &self.staged);
        self.prev = header.as_predecessor(crc);
        self.count(body_bytes, bytes);
        self.advance(&header, place, write, now_us);
        if header.record_count != 0 {
            let frame = Arc::clone(&frame);
            self.tail.write().push(TailFrame { header, frame, start, held_bytes });
        }
        let (offset, opens_slot) = (open.segment.end - start as u64, opened.is_some());
        Built { seq: place.seq, slot: place.slot, offset, frame, opens_slot }
    }

    /// What a frame that is built now promises.
    fn promise(&self) -> u64 {
        if mutant::is(Mutant::PromiseInFlight) { self.built_seq } else { self.durable_seq }
    }

    fn header(&self, kind: FrameKind, place: &FramePlace) -> FrameHeader {
        FrameHeader {
            salt: place.salt,
            seq: place.seq,
            durable_seq: self.promise(),
            slot: place.slot,
            block: place.block,
            body_bytes: 0,
            table_crc: 0,
            record_count: 0,
            kind,
            replaces: self.index.open_replaces(),
            hard_state: self.hard_state,
            first_index: self.index.open_first_index(),
            last: self.index.last(),
            prev: self.prev,
        }
    }

    fn count(&mut self, body_bytes: usize, bytes: usize) {
        let payloads = self.staged.iter().filter_map(|record| match record {
            Staged::Entry(entry) => Some(entry.payload.len() as u64),
            Staged::Repair(_) | Staged::Values(_) | Staged::Reset(_) => None,
        });
        let counters = &mut self.counters;
        counters.frames += 1;
        counters.frame_bytes += bytes as u64;
        counters.padding_bytes += (bytes - FRAME_HEADER_BYTES - body_bytes) as u64;
        for payload_bytes in payloads {
            counters.entries += 1;
            counters.payload_bytes += payload_bytes;
        }
        self.consumed_bytes += bytes as u64;
    }

    /// The frame is built: everything that follows is after it.
    fn advance(
        &mut self,
        header: &FrameHeader,
        place: FramePlace,
        write: Option<u64>,
        now_us: u64,
    ) {
        let open = self.open.as_mut().expect("a frame is built for an open segment");
        open.segment.end += u64::from(place.bytes);
        open.segment.last_seq = place.seq;
        open.segment.last_crc = self.prev.crc;
        open.segment.has_records |= !self.staged.is_empty();
        assert!(open.segment.end <= self.options.slot_bytes);
        self.index.end_frame(place);
        self.built_seq = place.seq;
        self.promised_seq = header.durable_seq;
        if header.kind == FrameKind::Data {
            self.data_seq = place.seq;
        }
        let (seq, submitted_us) = (place.seq, now_us);
        let is_done = mutant::is(Mutant::AckInFlight);
        let resets = self.staged.iter().any(|record| matches!(record, Staged::Reset(_)));
        let repairs = self.staged.iter().any(|record| matches!(record, Staged::Repair(_)));
        let frame = InFlight { seq, submitted_us, is_done, write, resets, repairs };
        self.in_flight.push_back(frame);
        self.staged.clear();
    }

    // What is given up.

    /// The slots that nothing needs any more.
    pub(crate) fn give_up_slots(&mut self, freed: &mut Vec<u32>) {
        let Some(open) = self.open else { return };
        if self.durable_seq < open.segment.first_seq {
            return;
        }
        freed.append(&mut self.retired);
        let needed_from = match self.index.first_frame() {
            Some(frame) if frame.place.seq > self.durable_seq => return,
            Some(frame) => frame.place.seq,
            None if !self.in_flight.is_empty() => return,
            None => u64::MAX,
        };
        while self.chain.front().is_some_and(|segment| segment.last_seq < needed_from) {
            let segment = self.chain.pop_front().expect("it was just seen");
            freed.push(segment.slot);
        }
    }
}

/// Whether a frame may be acknowledged before its own write has ended.
fn acknowledges_early() -> bool {
    mutant::is(Mutant::AckInFlight) || mutant::is(Mutant::AckOutOfOrder)
}
