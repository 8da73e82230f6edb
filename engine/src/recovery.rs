//! What a set of slots means: the decision about the first bad frame, the walk back over the segments, the replay.
//! Pure over bytes: a [`Slots`] gives them, nothing is written and nothing is deleted.
//!
//! Invariants: what is recovered is a prefix, in frames, of what was written; every acknowledged frame counts in it, or
//! the recovery refuses; it is the same however often it is repeated. An acknowledged frame that is damaged counts where
//! it is certain which entries it added: these are there, and faulty until a REPAIR record holds them. Nothing is
//! cut because of what was read once and is not there: see [`confirm`].

use std::collections::{BTreeMap, VecDeque};

use crate::error::{Check, Damage, OpenError, Proof};
use crate::format::{BLOCK_BYTES, SEGMENT_HEADER_BYTES, TERM_UNKNOWN, slot_path};
use crate::frame::{FrameHeader, FrameKind, LogTag, Predecessor, Record, RecordKind};
use crate::holes::{Hole, HoleFate};
use crate::index::{FramePlace, LogIndex};
use crate::mutant::{self, Mutant};
use crate::options::OnDamage;
use crate::places::Places;
use crate::scan::{
    Failure, Scan, ScannedFrame, ScannedHole, Scanner, StatedEnd, first_frame_is_there, log_headers,
};
use crate::segment::{Head, SegmentHeader, SegmentKind, ValidEnd};
use crate::types::{CheckpointInfo, HardState, Location, Position};

mod confirm;
mod holes;

/// The bytes of the slots.
pub(crate) trait Slots {
    /// How many there are; they are numbered from 0.
    fn count(&self) -> u32;
    /// So many bytes of a slot from `offset` on, from the device, replacing what `into` held. Blocks that cannot be read
    /// are filled with bytes that pass no check; their offsets are given.
    ///
    /// Requires: `offset` and `bytes` are multiples of the block size, and within the slot.
    fn read(&mut self, slot: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Vec<u64>;
    /// Likewise from the slot's first byte on; `seen` is given what is there as it comes in, at last all of it.
    fn read_along(
        &mut self,
        slot: u32,
        bytes: u64,
        into: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Vec<u64> {
        let unreadable = self.read(slot, 0, bytes, into);
        seen(into);
        unreadable
    }
}

/// What recovery knows before it looks at a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// Names the directory in messages.
    pub(crate) dir: &'a str,
    pub(crate) log_id: u128,
    pub(crate) slot_bytes: u64,
    /// Good checkpoints, newest first, at most two.
    pub(crate) checkpoints: &'a [CheckpointInfo],
    /// Slots that a kept checkpoint needs: none of them has been free since it was durable.
    pub(crate) held: &'a [u32],
    pub(crate) on_damage: OnDamage,
}

/// A segment that holds live entries, or the newest one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) slot: u32,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) last_crc: u32,
    /// The first byte after the last frame.
    pub(crate) end: u64,
    /// Whether a frame in it changed the log: without one nothing needs it once its successor's header is durable.
    pub(crate) has_records: bool,
}

impl Segment {
    pub(crate) fn valid_end(&self) -> ValidEnd {
        let Segment { number, end, last_seq, last_crc, .. } = *self;
        ValidEnd { number, end, last_seq, last_crc }
    }
}

/// A tail that was cut because nobody had promised it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TornTail {
    /// The slot.
    pub slot: u32,
    /// The first byte that was cut.
    pub offset: u64,
    /// The sequence number of the first frame that was cut.
    pub seq: u64,
    /// What it failed.
    pub check: Check,
}

/// The log as its slots hold it.
#[derive(Clone, Debug)]
pub(crate) struct RecoveredLog {
    pub(crate) hard_state: HardState,
    pub(crate) index: LogIndex,
    /// Of the entries after the newest checkpoint.
    pub(crate) places: Places,
    /// Oldest first; the last one was open.
    pub(crate) chain: VecDeque<Segment>,
    pub(crate) last_seq: u64,
    /// The newest frame that holds more than a promise, and what has been promised.
    pub(crate) data_seq: u64,
    pub(crate) promised_seq: u64,
    pub(crate) prev: Predecessor,
    pub(crate) number: u64,
    /// The highest number of a segment of values.
    pub(crate) values_number: u64,
    pub(crate) epoch: u64,
    pub(crate) frames: u64,
    pub(crate) bytes_scanned: u64,
    pub(crate) torn: Option<TornTail>,
    /// Damaged frames that count, in order, and what becomes of them.
    pub(crate) holes: Vec<(Hole, HoleFate)>,
    /// Whether a checkpoint from a peer replaced the log.
    pub(crate) was_reset: bool,
}

/// What the first bad frame of the newest segment means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It had been durable.
    Corrupt(Proof),
    /// Its write, or one before it in flight, had not ended: it and everything after it is cut.
    Torn,
}

/// How much of a slot is read to know what it holds: its header and the header of its first frame.
const START_BYTES: u64 = (SEGMENT_HEADER_BYTES + BLOCK_BYTES) as u64;

/// Decides about a frame, of sequence number `seq`, that failed a check.
///
/// | where it lies                                   | who promises `>= seq`                   | decision      |
/// |-------------------------------------------------|-----------------------------------------|---------------|
/// | below the end that the next segment states      | that header: a roll waits for all before | corrupt       |
/// | in the newest segment                           | a later frame of the same segment       | corrupt       |
/// | in the newest segment                           | a frame in a slot outside of the chain  | corrupt       |
/// | in the newest segment                           | a checkpoint taken on this node         | corrupt       |
/// | in the newest segment                           | nobody; valid frames may follow it      | torn: cut     |
///
/// Which check failed, header or payload, plays no part: a write can tear anywhere (P10, P12, P13).
///
/// Corrupt frames that lie in a row are a hole if it is certain what they did to the log ([`ScannedHole`]), and if all
/// of them are promised by their own segment or its successor. What a checkpoint or another slot promises may be frames
/// of the same numbers in a segment whose header is lost, and those that lie here were torn before it was opened. A hole
/// is no reason to refuse if every entry of it that is needed is held by REPAIR records; else the caller chooses
/// ([`OnDamage`]). Any other corrupt frame is one.
pub(crate) fn decide(seq: u64, witnesses: &[Proof]) -> Verdict {
    let promises = |proof: &&Proof| match proof {
        Proof::Successor => true,
        Proof::LaterFrame { durable_seq }
        | Proof::OtherSlot { durable_seq, .. }
        | Proof::Checkpoint { durable_seq, .. } => *durable_seq >= seq,
    };
    match witnesses.iter().find(promises) {
        Some(_) if mutant::is(Mutant::BadFrameIsEnd) => Verdict::Torn,
        Some(proof) => Verdict::Corrupt(*proof),
        None => Verdict::Torn,
    }
}

/// Recovers the log. Where two readings differ, all is read once more, and what has verified then counts.
pub(crate) fn recover(slots: &mut dyn Slots, known: &Known<'_>) -> Result<RecoveredLog, OpenError> {
    match recover_doubting(slots, known, None) {
        Err(OpenError::Unsteady { slot, offset, .. }) => {
            recover_doubting(slots, known, Some((slot, offset)))
        }
        result => result,
    }
}

/// Recovers the log; refuses it where two readings differ, or where what lies at `doubted` does not verify.
fn recover_doubting(
    slots: &mut dyn Slots,
    known: &Known<'_>,
    doubted: Option<(u32, u64)>,
) -> Result<RecoveredLog, OpenError> {
    let mut recovery = Recovery::new(slots, known, doubted);
    let heads = recovery.heads()?;
    let newest = heads.last_key_value().map(|(_, header)| *header);
    let mut segments = VecDeque::new();
    if let Some(newest) = newest {
        segments.push_back(recovery.scan_segment(newest, None)?);
        recovery.walk_back(&heads, newest, &mut segments)?;
    }
    recovery.judge_tail(&mut segments, newest)?;
    if let Some(newest) = newest {
        // A record that made an older segment superfluous may have been cut.
        recovery.walk_back(&heads, newest, &mut segments)?;
    }
    let log = recovery.replay(&segments, newest)?;
    match log.index.faulty().into_iter().next() {
        Some(faulty)
            if known.on_damage == OnDamage::Refuse && !mutant::is(Mutant::FaultyOpened) =>
        {
            let (dir, damage) = (known.dir.to_owned(), Box::new(faulty.hole.damage));
            Err(OpenError::Damaged { dir, damage })
        }
        _ => Ok(log),
    }
}

struct Recovery<'a> {
    slots: &'a mut dyn Slots,
    known: &'a Known<'a>,
    tag: LogTag,
    bytes: Vec<u8>,
    bytes_scanned: u64,
    /// For each slot, whether its first frame is that of the segment which its header states.
    starts_whole: Vec<bool>,
    /// The highest number of a segment of values.
    values_number: u64,
    torn: Option<TornTail>,
    /// The blocks of the newest segment that cannot be read, ascending.
    unreadable: Vec<u64>,
    /// A frame, or the header of a slot, that an attempt before this one read twice and found different.
    doubted: Option<(u32, u64)>,
}

/// A segment and what its bytes hold.
struct Scanned {
    header: SegmentHeader,
    scan: Scan,
    /// Why each of its holes had been durable.
    proofs: Vec<Proof>,
}

impl<'a> Recovery<'a> {
    fn new(
        slots: &'a mut dyn Slots,
        known: &'a Known<'a>,
        doubted: Option<(u32, u64)>,
    ) -> Recovery<'a> {
        let tag = LogTag::of(known.log_id);
        Recovery {
            slots,
            known,
            tag,
            bytes: Vec::new(),
            bytes_scanned: 0,
            starts_whole: Vec::new(),
            values_number: 0,
            torn: None,
            unreadable: Vec::new(),
            doubted,
        }
    }

    /// Reads the first bytes of a slot; gives the offsets of blocks that cannot be read.
    fn read(&mut self, slot: u32, bytes: u64) -> Vec<u64> {
        self.bytes_scanned += bytes;
        self.slots.read(slot, 0, bytes, &mut self.bytes)
    }

    /// The segments of the log by number.
    fn heads(&mut self) -> Result<BTreeMap<u64, SegmentHeader>, OpenError> {
        let mut heads: BTreeMap<u64, SegmentHeader> = BTreeMap::new();
        for slot in 0..self.slots.count() {
            if self.read(slot, START_BYTES).contains(&0) {
                return Err(self.unreadable(slot, 0));
            }
            let head = SegmentHeader::classify(
                &self.bytes,
                self.known.log_id,
                slot,
                self.known.slot_bytes,
            );
            let is_whole = matches!(&head, Head::Segment(header)
                if first_frame_is_there(&self.bytes, header, self.tag));
            self.starts_whole.push(is_whole);
            let Head::Segment(header) = head else { continue };
            if header.kind == SegmentKind::Values {
                self.values_number = self.values_number.max(header.number);
                continue;
            }
            if let Some(other) = heads.insert(header.number, header) {
                return Err(OpenError::SegmentTwice {
                    dir: self.known.dir.to_owned(),
                    number: header.number,
                    first: other.slot,
                    second: slot,
                });
            }
        }
        Ok(heads)
    }

    /// Adds the segments before the newest, oldest first, as far back as an entry is needed from them.
    fn walk_back(
        &mut self,
        heads: &BTreeMap<u64, SegmentHeader>,
        newest: SegmentHeader,
        segments: &mut VecDeque<Scanned>,
    ) -> Result<(), OpenError> {
        let log_start = self.log_start(Some(newest));
        while let Some(oldest) = segments.front()
            && !oldest.covers(log_start)
        {
            let ValidEnd { number, .. } = oldest.header.before;
            let Some(header) = heads.get(&number) else {
                return Err(OpenError::SegmentMissing {
                    dir: self.known.dir.to_owned(),
                    number,
                    successor: oldest.header.number,
                    log_start,
                });
            };
            let successor = oldest.header;
            segments.push_front(self.scan_segment(*header, Some(successor))?);
        }
        Ok(())
    }

    /// Entries up to here are in every checkpoint, none of which keeps them in the log, or were dropped by a reset.
    fn log_start(&self, newest: Option<SegmentHeader>) -> Position {
        let stated = newest.map(|header| header.log_start).unwrap_or_default();
        match self.known.checkpoints {
            [_, older] if older.keeps_after.index > stated.index => older.keeps_after,
            _ => stated,
        }
    }

    /// Reads a segment. Where its successor states its end, its frames and holes must reach to exactly there.
    fn scan_segment(
        &mut self,
        header: SegmentHeader,
        successor: Option<SegmentHeader>,
    ) -> Result<Scanned, OpenError> {
        let stated = successor.map(|successor| {
            let ValidEnd { end, last_seq, last_crc, .. } = successor.before;
            // Segments between the two held no records, so the log is what it was at the end of this one.
            StatedEnd { end, last_seq, last: Predecessor { crc: last_crc, ..successor.prev } }
        });
        let read_bytes = stated.map_or(self.known.slot_bytes, |stated| stated.end);
        self.bytes_scanned += read_bytes;
        let mut scanner = Scanner::new(&header, self.tag, read_bytes, stated);
        let mut advance = |bytes: &[u8]| scanner.advance(bytes);
        let unreadable =
            self.slots.read_along(header.slot, read_bytes, &mut self.bytes, &mut advance);
        let scan = scanner.end(&self.bytes);
        let failures = scan.holes.iter().map(|hole| hole.failure).chain(scan.failure);
        failures.into_iter().try_for_each(|failure| self.confirm_bad(&header, failure))?;
        let Some(stated) = stated else {
            self.unreadable = unreadable;
            return Ok(Scanned { header, scan, proofs: Vec::new() });
        };
        if let Some(failure) = scan.failure {
            return Err(self.damaged(header.slot, failure, Proof::Successor));
        }
        if (scan.last_seq, scan.last.crc) != (stated.last_seq, stated.last.crc) {
            let failure = Failure {
                offset: scan.frames.last().map_or(scan.end, |frame| frame.offset),
                seq: stated.last_seq,
                check: Check::Chain,
                indices: None,
                traces: true,
                promised_seq: 0,
            };
            return Err(self.damaged(header.slot, failure, Proof::Successor));
        }
        let proofs = vec![Proof::Successor; scan.holes.len()];
        Ok(Scanned { header, scan, proofs })
    }

    /// Decides about the bad frames of the newest segment, in order: which of them are holes, and where the log ends.
    fn judge_tail(
        &mut self,
        segments: &mut VecDeque<Scanned>,
        newest: Option<SegmentHeader>,
    ) -> Result<(), OpenError> {
        let first = match segments.back() {
            Some(Scanned { scan, .. }) => scan.first_failure().unwrap_or(end_of(scan)),
            None => Failure { seq: 1, ..NOTHING },
        };
        let witnesses = self.witnesses(segments, newest, first)?;
        let Some(Scanned { header, scan, proofs }) = segments.back_mut() else {
            return self.judge_end(0, first, &witnesses);
        };
        let own =
            if mutant::is(Mutant::HoleProvenElsewhere) { &witnesses } else { &witnesses[..1] };
        for hole in 0..scan.holes.len() {
            let ScannedHole { failure, last_seq, .. } = &scan.holes[hole];
            let proven_upto =
                if mutant::is(Mutant::HoleUnproven) { failure.seq } else { *last_seq };
            match decide(proven_upto, own) {
                Verdict::Corrupt(proof) => proofs.push(proof),
                Verdict::Torn => {
                    scan.cut_before(hole);
                    break;
                }
            }
        }
        let failure = scan.failure.unwrap_or(end_of(scan));
        self.judge_end(header.slot, failure, &witnesses)
    }

    /// Decides about the first bad frame after the end of the log.
    fn judge_end(
        &mut self,
        slot: u32,
        failure: Failure,
        witnesses: &[Proof],
    ) -> Result<(), OpenError> {
        if let Verdict::Corrupt(proof) = decide(failure.seq, witnesses) {
            return Err(self.damaged(slot, failure, proof));
        }
        let Failure { offset, seq, check, traces, .. } = failure;
        if let Some(unreadable) = self.unreadable.iter().find(|unreadable| **unreadable >= offset) {
            return Err(self.unreadable(slot, *unreadable));
        }
        self.torn = traces.then_some(TornTail { slot, offset, seq, check });
        Ok(())
    }

    /// Whoever promises something that `first`, the first bad frame, may contradict; the frames of its segment first.
    fn witnesses(
        &mut self,
        segments: &VecDeque<Scanned>,
        newest: Option<SegmentHeader>,
        first: Failure,
    ) -> Result<Vec<Proof>, OpenError> {
        let mut witnesses = vec![Proof::LaterFrame { durable_seq: first.promised_seq }];
        for checkpoint in self.known.checkpoints {
            if mutant::is(Mutant::CheckpointProvesNothing) {
                break;
            }
            let CheckpointInfo { at, durable_seq, .. } = *checkpoint;
            witnesses.push(Proof::Checkpoint { index: at.index, durable_seq });
        }
        if !mutant::is(Mutant::OtherSlotProvesNothing) {
            self.promises_elsewhere(segments, newest, first.seq, &mut witnesses)?;
        }
        Ok(witnesses)
    }

    /// A slot outside of the chain may be the newest segment whose header was lost; its first frame is then `seq`.
    ///
    /// Header and first frame are one write, which takes at most a block and a quarter of the slot. So much is read:
    ///
    /// | the slot's first two blocks             | what it may be                             | read          |
    /// |-----------------------------------------|--------------------------------------------|---------------|
    /// | a header and the first frame of its life | in use since then: a checkpoint needs it   | no more       |
    /// | likewise, and no checkpoint needs it    | an old life, under a new one whose first   | as far as the |
    /// |                                         | write was lost: the second follows it      | second starts |
    /// | likewise, and that shows a frame        | the new life                               | all of it     |
    /// | `>= seq`                                |                                            |               |
    /// | anything else                           | a life whose header was lost               | all of it     |
    ///
    /// This is the second time that the start of the slot is read, but in the first case. There a wrong first reading
    /// does no harm: the checkpoint promises what the slot holds.
    fn promises_elsewhere(
        &mut self,
        segments: &VecDeque<Scanned>,
        newest: Option<SegmentHeader>,
        seq: u64,
        witnesses: &mut Vec<Proof>,
    ) -> Result<(), OpenError> {
        for slot in 0..self.slots.count() {
            if segments.iter().any(|segment| segment.header.slot == slot) {
                continue;
            }
            let starts_whole = self.starts_whole[slot as usize];
            if starts_whole && self.known.held.contains(&slot) {
                continue;
            }
            if starts_whole {
                let may_hold_newer = self.may_hold_newer(slot, seq);
                self.confirm_older(slot, newest)?;
                if !may_hold_newer {
                    continue;
                }
            }
            // Blocks that cannot be read here are no reason to refuse: only a device that lies makes them matter.
            self.read(slot, self.known.slot_bytes);
            self.confirm_older(slot, newest)?;
            let promises = log_headers(&self.bytes, slot, self.tag).map(|frame| frame.durable_seq);
            if let Some(durable_seq) = promises.max() {
                witnesses.push(Proof::OtherSlot { slot, durable_seq });
            }
        }
        Ok(())
    }

    /// Whether the second frame of a life that began with frame `seq`, or one after it, lies where it can only lie; or
    /// may lie there, where a block cannot be read.
    fn may_hold_newer(&mut self, slot: u32, seq: u64) -> bool {
        let second_max = SEGMENT_HEADER_BYTES as u64 + self.known.slot_bytes / 4;
        let unreadable = self.read(slot, second_max + BLOCK_BYTES as u64);
        let mut frames = log_headers(&self.bytes, slot, self.tag);
        !unreadable.is_empty() || frames.any(|frame| frame.seq >= seq)
    }

    /// What cannot be read is not known to be torn.
    fn unreadable(&self, slot: u32, offset: u64) -> OpenError {
        let (dir, path) = (self.known.dir.to_owned(), slot_path(slot));
        OpenError::Unreadable { dir, path, offset }
    }

    fn damaged(&self, slot: u32, failure: Failure, proof: Proof) -> OpenError {
        let Failure { offset, seq, check, indices, .. } = failure;
        let proof = Some(proof);
        let damage = Box::new(Damage { slot, offset, seq, indices, check, proof });
        OpenError::Damaged { dir: self.known.dir.to_owned(), damage }
    }

    /// Tells every record in order, then applies what the checkpoints say.
    fn replay(
        self,
        segments: &VecDeque<Scanned>,
        newest: Option<SegmentHeader>,
    ) -> Result<RecoveredLog, OpenError> {
        let mut log = RecoveredLog {
            hard_state: newest.map(|header| header.hard_state).unwrap_or_default(),
            index: LogIndex::default(),
            places: Places::starting_after(self.applied()),
            chain: VecDeque::new(),
            last_seq: newest.map_or(0, |header| header.first_seq - 1),
            data_seq: 0,
            promised_seq: 0,
            prev: newest.map(|header| header.prev).unwrap_or_default(),
            number: newest.map_or(0, |header| header.number),
            values_number: self.values_number,
            epoch: newest.map_or(0, |header| header.epoch),
            frames: 0,
            bytes_scanned: self.bytes_scanned,
            torn: self.torn,
            holes: Vec::new(),
            was_reset: false,
        };
        if let Some(oldest) = segments.front() {
            log.index = LogIndex::starting_after(oldest.header.prev.last);
        }
        for segment in segments {
            self.replay_segment(segment, &mut log)?;
        }
        self.settle_start(&mut log, newest)?;
        for (hole, fate) in &mut log.holes {
            *fate = match log.index.is_live_hole(hole.last_seq) {
                Some(true) => HoleFate::Faulty,
                Some(false) => HoleFate::Repaired,
                None => HoleFate::Unneeded,
            };
        }
        Ok(log)
    }

    fn replay_segment(&self, segment: &Scanned, log: &mut RecoveredLog) -> Result<(), OpenError> {
        let Scanned { header, scan, proofs } = segment;
        if header.prev.last != log.index.last() {
            // An open that found a newer checkpoint from a peer restated the log as empty after it.
            if header.log_start != header.prev.last {
                return Err(self.misplaced(
                    header.slot,
                    SEGMENT_HEADER_BYTES as u64,
                    header.first_seq,
                ));
            }
            log.index.restart_after(header.log_start);
        }
        log.hard_state = header.hard_state;
        log.promised_seq = header.first_seq - 1;
        // What a hole held may have been records.
        let mut has_records = !scan.holes.is_empty();
        let mut holes = scan.holes.iter().zip(proofs).peekable();
        for frame in &scan.frames {
            while let Some((hole, proof)) =
                holes.next_if(|(hole, _)| hole.last_seq < frame.header.seq)
            {
                self.replay_hole(header, scan, hole, *proof, log)?;
            }
            let records = scan.records_of(frame);
            has_records |= !records.is_empty();
            replay_frame(frame, records, &mut log.index, &mut log.places)
                .map_err(|_| self.misplaced(header.slot, frame.offset, frame.header.seq))?;
            log.hard_state = frame.header.hard_state;
            log.promised_seq = log.promised_seq.max(frame.header.durable_seq);
            if frame.header.kind == FrameKind::Data {
                log.data_seq = frame.header.seq;
            }
            log.frames += 1;
        }
        for (hole, proof) in holes {
            self.replay_hole(header, scan, hole, *proof, log)?;
        }
        log.last_seq = scan.last_seq;
        log.prev = scan.last;
        log.chain.push_back(Segment {
            number: header.number,
            slot: header.slot,
            first_seq: header.first_seq,
            last_seq: scan.last_seq,
            last_crc: scan.last.crc,
            end: scan.end,
            has_records,
        });
        Ok(())
    }

    fn misplaced(&self, slot: u32, offset: u64, seq: u64) -> OpenError {
        let failure = Failure { offset, seq, check: Check::Indices, ..NOTHING };
        self.damaged(slot, failure, Proof::Successor)
    }

    /// Where the log starts, and whether a checkpoint reaches that.
    fn settle_start(
        &self,
        log: &mut RecoveredLog,
        newest: Option<SegmentHeader>,
    ) -> Result<(), OpenError> {
        let checkpoint = self.known.checkpoints.first().copied();
        let log_start = self.log_start(newest);
        let stored = log.index.start().index..=log.index.last().index;
        if stored.contains(&log_start.index) {
            log.index.purge_upto(log_start);
        }
        if let Some(CheckpointInfo { at, installed: true, .. }) = checkpoint
            && log.index.term_at(at.index) == Some(TERM_UNKNOWN)
        {
            // Whether the log goes on after it or is replaced by it cannot be told.
            let faulty = log.index.faulty_in(&log.index.frame_of(at.index));
            let (dir, damage) = (self.known.dir.to_owned(), Box::new(faulty.hole.damage));
            return Err(OpenError::Damaged { dir, damage });
        }
        if let Some(CheckpointInfo { at, installed: true, .. }) = checkpoint
            && at.index >= log.index.start().index
            && log.index.term_at(at.index) != Some(at.term)
        {
            log.index.restart_after(at);
            log.prev.last = at;
            log.was_reset = true;
            return Ok(());
        }
        let (start, last) = (log.index.start().index, log.index.last().index);
        let reached = checkpoint.map_or(0, |info| info.at.index);
        if start > reached || start < log_start.index {
            return Err(self.gap(start.max(log_start.index)));
        }
        if reached > last {
            let dir = self.known.dir.to_owned();
            return Err(OpenError::Short { dir, last, checkpoint: reached });
        }
        Ok(())
    }

    /// What the newest checkpoint holds need not be applied again.
    fn applied(&self) -> u64 {
        self.known.checkpoints.first().map_or(0, |info| info.at.index)
    }

    fn gap(&self, log_start: u64) -> OpenError {
        let checkpoint = self.known.checkpoints.first().map_or(0, |info| info.at.index);
        OpenError::Gap { dir: self.known.dir.to_owned(), log_start, checkpoint }
    }
}

impl Scanned {
    /// Whether nothing before this segment is needed: it writes every live entry after `log_start` itself.
    fn covers(&self, log_start: Position) -> bool {
        self.header.prev.last.index <= log_start.index
            || self.header.log_start == self.header.prev.last
            || self.scan.records().iter().any(|record| match record.kind {
                RecordKind::Entry(_) => record.at.index <= log_start.index + 1,
                RecordKind::Reset => true,
                RecordKind::Repair(_) | RecordKind::Values => false,
            })
    }
}

fn replay_frame(
    frame: &ScannedFrame,
    records: &[Record],
    index: &mut LogIndex,
    places: &mut Places,
) -> Result<(), Check> {
    for record in records {
        match record.kind {
            RecordKind::Entry(_) => {
                index.entry(record.at)?;
                places.push(record.at.index, record_place(frame, record));
            }
            RecordKind::Repair(_) if mutant::is(Mutant::RepairForgotten) => {}
            RecordKind::Repair(_) => {
                if index.repair(record.at, place(frame))? {
                    places.repair(record.at.index, record_place(frame, record));
                }
            }
            RecordKind::Reset => index.reset(record.at),
            RecordKind::Values => unreachable!("the log has no frame of values"),
        }
    }
    check_frame(&frame.header, index)?;
    index.end_frame(place(frame));
    Ok(())
}

/// What its header says of a frame must be what its records have done.
fn check_frame(header: &FrameHeader, index: &LogIndex) -> Result<(), Check> {
    let told = (index.last(), index.open_first_index(), index.open_replaces());
    if told == (header.last, header.first_index, header.replaces) {
        Ok(())
    } else {
        Err(Check::Indices)
    }
}

fn record_place(frame: &ScannedFrame, record: &Record) -> Location {
    Location::new(frame.header.slot, frame.offset + record.start as u64)
}

fn place(frame: &ScannedFrame) -> FramePlace {
    FramePlace {
        seq: frame.header.seq,
        slot: frame.header.slot,
        block: frame.header.block,
        bytes: u32::try_from(frame.header.frame_bytes()).expect("a frame fits a slot"),
        salt: frame.header.salt,
    }
}

const NOTHING: Failure = Failure {
    offset: SEGMENT_HEADER_BYTES as u64,
    seq: 0,
    check: Check::Magic,
    indices: None,
    traces: false,
    promised_seq: 0,
};

fn end_of(scan: &Scan) -> Failure {
    Failure { offset: scan.end, seq: scan.last_seq + 1, check: Check::Length, ..NOTHING }
}

#[cfg(test)]
mod tests;
