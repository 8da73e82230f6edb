//! Small logs in memory: every torn subset of sectors, every flipped bit, every order of frames in flight.

use bytes::Bytes;

use super::*;
use crate::format::BLOCK_BYTES;
use crate::index::FrameRef;
use crate::log::{Acknowledged, Built, Log};
use crate::options::{OnDamage, Options};
use crate::types::{Append, Entry};

mod lies;

const SLOT_BYTES: usize = 64 << 10;
const SLOTS: usize = 3;
const LOG_ID: u128 = 0xABCD;
const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
struct Memory(Vec<Vec<u8>>);

impl Slots for Memory {
    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn read(&mut self, slot: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Vec<u64> {
        let at = |offset| usize::try_from(offset).unwrap();
        into.clear();
        into.extend_from_slice(&self.0[slot as usize][at(offset)..at(offset + bytes)]);
        Vec::new()
    }

    /// In pieces that end anywhere in a frame or its header.
    fn read_along(
        &mut self,
        slot: u32,
        bytes: u64,
        into: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Vec<u64> {
        let unreadable = self.read(slot, 0, bytes, into);
        (0..into.len()).step_by(5_003).for_each(|count| seen(&into[..count]));
        seen(into);
        unreadable
    }
}

impl Memory {
    fn recover(&mut self) -> Result<RecoveredLog, OpenError> {
        self.recover_with(&[])
    }

    fn recover_with(&mut self, held: &[u32]) -> Result<RecoveredLog, OpenError> {
        self.recover_as(OnDamage::Refuse, held)
    }

    fn hand_up(&mut self) -> Result<RecoveredLog, OpenError> {
        self.recover_as(OnDamage::HandUp, &[])
    }

    fn recover_as(&mut self, on_damage: OnDamage, held: &[u32]) -> Result<RecoveredLog, OpenError> {
        let slot_bytes = SLOT_BYTES as u64;
        let known =
            Known { dir: "data", log_id: LOG_ID, slot_bytes, checkpoints: &[], held, on_damage };
        recover(self, &known)
    }
}

/// What a log is after a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    voted: HardState,
    last: Position,
    runs: Vec<(u64, u64)>,
    places: Vec<(u64, u64, FramePlace)>,
}

fn state_of(hard_state: HardState, index: &LogIndex) -> State {
    let frames = index.frames_from(0).map(|frame| (frame.first, frame.last, frame.place));
    State { voted: hard_state, last: index.last(), runs: index.runs(), places: frames.collect() }
}

/// A log, its slots, and its state after each frame.
struct Model {
    log: Log,
    slots: Memory,
    used: Vec<bool>,
    states: BTreeMap<u64, State>,
    hard_state: HardState,
    writes: u64,
    opens: u64,
    now_us: u64,
}

impl Model {
    fn new() -> Model {
        let slots = Memory(vec![vec![0; SLOT_BYTES]; SLOTS]);
        let empty = slots.clone().recover().unwrap();
        let mut model = Model {
            log: Log::new(LOG_ID, options(1), empty.clone()),
            slots,
            used: vec![false; SLOTS],
            states: BTreeMap::new(),
            hard_state: HardState::default(),
            writes: 0,
            opens: 1,
            now_us: 0,
        };
        model.remember(empty.last_seq);
        model
    }

    fn remember(&mut self, seq: u64) {
        self.states.insert(seq, state_of(self.hard_state, self.log.index()));
    }

    fn append(&mut self, vote: Option<u64>, first: u64, count: u64, bytes: usize) {
        self.writes += 1;
        let term = self.opens;
        let hard_state = vote.map(|vote| HardState { term, vote });
        let entries = (first..first + count).map(|index| {
            let byte = u8::try_from((index * 7 + self.writes) % 250).unwrap() + 1;
            Entry { index, term, kind: 2, payload: Bytes::from(vec![byte; bytes]) }
        });
        let entries = entries.collect();
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        self.log.append(Append { write: self.writes, hard_state, entries, ..Append::default() });
    }

    /// Frames that can start now, with their slots taken.
    fn build(&mut self) -> Vec<Built> {
        let mut frames = Vec::new();
        loop {
            let ready = self.used.iter().position(|used| !used);
            let ready = ready.map(|slot| u32::try_from(slot).unwrap());
            let mut acknowledged = Acknowledged::default();
            let built = self.log.next_frame(self.now_us, ready, &mut acknowledged);
            let Some(built) = built else { return frames };
            if built.opens_slot {
                self.used[built.slot as usize] = true;
            }
            self.remember(built.seq);
            frames.push(built);
        }
    }

    fn write(&mut self, built: &Built) {
        let start = usize::try_from(built.offset).unwrap();
        let bytes = built.frame.as_slice();
        self.slots.0[built.slot as usize][start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn settle(&mut self) {
        loop {
            let frames = self.build();
            for built in &frames {
                self.write(built);
                self.log.complete(built.seq, self.now_us);
            }
            if frames.is_empty() && self.log.is_settled(true) {
                return;
            }
            self.now_us += 10_000;
        }
    }

    fn reopen(&mut self) {
        let recovered = self.slots.recover().unwrap();
        self.opens += 1;
        self.used = vec![false; SLOTS];
        for segment in &recovered.chain {
            self.used[segment.slot as usize] = true;
        }
        self.log = Log::new(LOG_ID, options(self.opens), recovered);
    }

    /// Checks that these slots hold the state after some frame from `acknowledged` on; gives its number.
    fn check(&self, slots: &mut Memory, acknowledged: u64) -> u64 {
        let found = slots.recover().unwrap();
        assert!(found.last_seq >= acknowledged, "{} < {acknowledged}", found.last_seq);
        let state = state_of(found.hard_state, &found.index);
        assert_eq!(&state, &self.states[&found.last_seq]);
        found.last_seq
    }
}

fn options(open: u64) -> Options {
    Options {
        slot_bytes: SLOT_BYTES as u64,
        frame_bytes_max: 2 * BLOCK_BYTES,
        further_frame_bytes: 1,
        seed: [9, open],
        ..Options::default()
    }
}

/// A log of three segments, each with a few frames; the newest frame is not promised.
fn small_log() -> Model {
    let mut model = Model::new();
    model.append(Some(1), 1, 2, 20);
    model.settle();
    model.append(None, 3, 3, 300);
    model.settle();
    model.reopen();
    model.append(None, 4, 2, 100);
    model.settle();
    model.reopen();
    model.append(Some(3), 6, 1, 33);
    model.settle();
    model.append(None, 7, 1, 700);
    for built in model.build() {
        model.write(&built);
        model.log.complete(built.seq, 0);
    }
    model
}

#[test]
fn every_flipped_bit_is_harmless_or_refused_with_its_place_or_an_unpromised_tail_and_reported() {
    let model = small_log();
    let sound = model.slots.clone().recover().unwrap();
    let expected = state_of(sound.hard_state, &sound.index);
    let last_seq = sound.last_seq;
    assert!(sound.torn.is_none());
    let newest = sound.chain.back().unwrap();
    let (mut harmless, mut refused, mut cut) = (0u32, 0u32, 0u32);
    for slot in 0..SLOTS {
        let used = model.slots.0[slot].iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let end = (used.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES).min(SLOT_BYTES);
        let mut flipped = model.slots.clone();
        for bit in 0..end * 8 {
            // Zeros after a block's content are tried at one bit in each byte.
            let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
            if model.slots.0[slot][byte] == 0 && byte % 8 != bit % 8 {
                continue;
            }
            flipped.0[slot][byte] ^= mask;
            match flipped.recover() {
                Ok(found) if found.last_seq == last_seq => {
                    assert_eq!(state_of(found.hard_state, &found.index), expected);
                    harmless += 1;
                }
                Ok(found) => {
                    assert_eq!(found.last_seq, last_seq - 1, "slot {slot} byte {byte}");
                    let torn = found.torn.unwrap();
                    assert_eq!((torn.slot, torn.seq), (newest.slot, last_seq));
                    assert_eq!(slot, newest.slot as usize);
                    cut += 1;
                }
                Err(OpenError::Damaged { damage, .. }) => {
                    assert!(damage.proof.is_some());
                    refused += 1;
                }
                Err(OpenError::SegmentMissing { .. }) => refused += 1,
                Err(other) => panic!("slot {slot} byte {byte}: {other}"),
            }
            flipped.0[slot][byte] ^= mask;
        }
    }
    // The newest frame has 128 + 32 + 700 bytes; of a header of the log most bits are zeros, each byte tried once.
    assert!(cut > 5_000 && refused > 10_000 && harmless > 10_000, "{cut} {refused} {harmless}");
}

#[test]
fn a_flipped_bit_of_a_promised_frame_names_the_frame_that_it_is_in() {
    let model = small_log();
    let frames: Vec<_> = {
        let found = model.slots.clone().recover().unwrap();
        found.index.frames_from(0).copied().collect()
    };
    let (newest, promised) = frames.split_last().unwrap();
    assert!(newest.place.seq > promised.last().unwrap().place.seq);
    for frame in promised {
        let offset = frame.place.block as usize * BLOCK_BYTES;
        for byte in [4, 20, 60, 130, 170] {
            let mut flipped = model.slots.clone();
            flipped.0[frame.place.slot as usize][offset + byte] ^= 4;
            let error = flipped.recover().unwrap_err();
            let OpenError::Damaged { damage, .. } = error else { panic!("{error}") };
            assert_eq!((damage.slot, damage.offset), (frame.place.slot, offset as u64));
            assert_eq!(damage.seq, frame.place.seq);
        }
    }
}

/// What a state is, but for the terms of entries that are faulty.
fn but_for_terms(found: &RecoveredLog) -> (HardState, Position, Vec<(u64, u64, FramePlace)>) {
    let State { voted, last, places, .. } = state_of(found.hard_state, &found.index);
    (voted, last, places)
}

#[test]
fn every_flipped_bit_that_is_handed_up_leaves_all_but_the_entries_of_its_frame_as_they_were() {
    let model = small_log();
    let sound = model.slots.clone().recover().unwrap();
    let frames: Vec<_> = sound.index.frames_from(0).copied().collect();
    let terms = sound.index.runs();
    let term_of = |runs: &[(u64, u64)], index| {
        runs.iter().rev().find(|run| run.1 <= index).map_or(0, |run| run.0)
    };
    let (mut handed_up, mut harmless, mut refused, mut cut) = (0u32, 0u32, 0u32, 0u32);
    let mut flipped = model.slots.clone();
    for slot in 0..SLOTS {
        for bit in (0..SLOT_BYTES * 8).step_by(11) {
            let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
            if model.slots.0[slot][byte] == 0 && byte % BLOCK_BYTES > 256 {
                continue;
            }
            flipped.0[slot][byte] ^= mask;
            match flipped.hand_up() {
                Ok(found) if found.last_seq == sound.last_seq => {
                    assert_eq!(but_for_terms(&found), but_for_terms(&sound));
                    for faulty in found.index.faulty() {
                        let hit = |frame: &&FrameRef| {
                            let start = frame.place.block as usize * BLOCK_BYTES;
                            frame.place.slot as usize == slot
                                && (start..start + frame.place.bytes as usize).contains(&byte)
                        };
                        let frame = frames.iter().find(hit).unwrap();
                        assert_eq!((faulty.first, faulty.last), (frame.first, frame.last));
                        handed_up += 1;
                    }
                    harmless += u32::from(found.index.faulty().is_empty());
                    let last = found.index.last().index;
                    for index in (1..=last).filter(|index| !found.index.is_faulty(*index)) {
                        assert_eq!(term_of(&found.index.runs(), index), term_of(&terms, index));
                        assert!(found.places.find(index).is_some());
                    }
                }
                Ok(found) => {
                    assert_eq!(found.last_seq, sound.last_seq - 1);
                    cut += 1;
                }
                Err(OpenError::Damaged { .. } | OpenError::SegmentMissing { .. }) => refused += 1,
                Err(other) => panic!("slot {slot} byte {byte}: {other}"),
            }
            flipped.0[slot][byte] ^= mask;
        }
    }
    let counts = (handed_up, harmless, refused, cut);
    assert!(handed_up > 500 && harmless > 500 && refused > 500 && cut > 100, "{counts:?}");
}

/// Overlays the chosen sectors of unacknowledged frames with old bytes, garbage or zeros.
fn tear(before: &Memory, frames: &[Built], mut fate: impl FnMut(usize) -> u8) -> Memory {
    let mut slots = before.clone();
    let mut number = 0;
    for built in frames {
        let start = usize::try_from(built.offset).unwrap();
        let slot = &mut slots.0[built.slot as usize];
        for (at, sector) in built.frame.as_slice().chunks(SECTOR_BYTES).enumerate() {
            let place = start + at * SECTOR_BYTES..start + (at + 1) * SECTOR_BYTES;
            match fate(number) {
                0 => {}
                1 => slot[place].copy_from_slice(sector),
                2 => slot[place].fill(0),
                _ => slot[place].fill(0x5A),
            }
            number += 1;
        }
    }
    slots
}

#[test]
fn one_torn_frame_is_cut_for_each_of_the_fates_of_its_sectors() {
    let mut model = small_log();
    let acknowledged = model.log.durable_seq();
    model.append(Some(2), 8, 1, 1_500);
    let frames = model.build();
    assert_eq!(frames.iter().map(|built| built.frame.as_slice().len()).sum::<usize>(), 4096);
    let mut whole = 0;
    for draw in 0..4u32.pow(8) {
        let fate = |sector: usize| u8::try_from(draw >> (2 * sector) & 3).unwrap();
        let mut slots = tear(&model.slots, &frames, fate);
        whole += u64::from(model.check(&mut slots, acknowledged) > acknowledged);
    }
    // Four sectors hold bytes; whatever becomes of the padding after them changes nothing.
    assert_eq!(whole, 4u64.pow(4));
}

#[test]
fn a_torn_roll_is_cut_for_each_subset_of_its_sectors() {
    let mut model = small_log();
    model.slots.0.push(vec![0x77; SLOT_BYTES]);
    model.used.push(false);
    // Fill the open segment up, until a frame opens the next one.
    let mut rolls = Vec::new();
    let mut next = model.log.index().last().index;
    while rolls.is_empty() {
        next += 1;
        assert!(next < 40);
        model.append(None, next, 1, 3_900);
        let frames = model.build();
        if frames.iter().any(|built| built.opens_slot) {
            rolls = frames;
        } else {
            for built in frames {
                model.write(&built);
                model.log.complete(built.seq, 0);
            }
        }
    }
    let acknowledged = model.log.durable_seq();
    let mut found = BTreeMap::<u64, u32>::new();
    for mask in 0..1u32 << 16 {
        if mask.count_ones() % 3 != 0 && mask & 0xFF00 != 0xFF00 {
            continue;
        }
        let fate = |sector: usize| u8::from(mask >> sector & 1 == 1);
        let mut slots = tear(&model.slots, &rolls, fate);
        *found.entry(model.check(&mut slots, acknowledged)).or_default() += 1;
    }
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_segment_header_alone_restates_the_hard_state_of_a_segment_left_out() {
    let mut model = Model::new();
    model.append(Some(1), 1, 2, 20);
    model.settle();
    model.reopen();
    // A segment of votes only is left out of the chain.
    model.append(Some(7), 3, 0, 0);
    model.settle();
    model.reopen();
    let voted = model.hard_state;
    model.append(Some(2), 3, 1, 20);
    let frames = model.build();
    assert!(frames[0].opens_slot);
    // The header of the new segment survives, its first frame does not.
    let mut slots = tear(&model.slots, &frames, |sector| u8::from(sector < 8));
    let found = slots.recover().unwrap();
    assert_eq!(found.chain.len(), 2, "the segment of votes is not needed");
    assert_eq!(found.chain.back().unwrap().last_seq, frames[0].seq - 1);
    assert_eq!((found.hard_state, found.index.last().index), (voted, 2));
}

#[test]
fn a_frame_of_a_torn_roll_is_not_found_behind_the_same_frame_of_the_next_one() {
    let mut model = Model::new();
    model.append(Some(1), 1, 2, 20);
    model.settle();
    let before = model.slots.clone();
    let roll = |model: &mut Model, entries: u64| {
        model.reopen();
        // The same bytes in both lives: a leader sends its entries again.
        (model.opens, model.writes) = (9, 9);
        let mut frames = Vec::new();
        for index in 3..3 + entries {
            model.append(None, index, 1, 20);
            model.writes = 9;
            frames.extend(model.build());
        }
        assert_eq!(frames.len() as u64, entries);
        model.opens = 2;
        frames
    };
    let first = roll(&mut model, 2);
    // The roll is lost, the frame behind it survives.
    model.slots = tear(&before, &first, |sector| u8::from(sector >= 16));
    model.opens = 3;
    let second = roll(&mut model, 1);
    assert_eq!((first[0].slot, first[0].seq), (second[0].slot, second[0].seq));
    let mut slots = tear(&model.slots, &second, |_| 1);
    let found = slots.recover().unwrap();
    assert_eq!((found.last_seq, found.index.last().index), (second[0].seq, 3));
}

#[test]
fn frames_in_flight_end_the_log_before_the_first_that_is_not_whole() {
    let mut model = small_log();
    let acknowledged = model.log.durable_seq();
    let mut frames = Vec::new();
    for index in 8..12 {
        model.append(None, index, 1, 100);
        frames.extend(model.build());
    }
    assert_eq!(frames.len(), 4);
    for kept in 0..16u32 {
        let mut slots =
            tear(&model.slots, &frames, |sector| u8::from(kept >> (sector / 8) & 1 == 1));
        let end = acknowledged + u64::from(kept.trailing_ones());
        assert_eq!(model.check(&mut slots, acknowledged), end);
    }
    // Some of them complete, in any order: those before the first gap are acknowledged and must be found.
    for done in 0..16u32 {
        let prefix = done.trailing_ones();
        for draw in 0..300u32 {
            let word = draw.wrapping_mul(0x9E37_79B9) ^ done;
            let fate = |sector: usize| {
                let is_done = done >> (sector / 8) & 1 == 1;
                if is_done { 1 } else { u8::try_from(word >> (sector % 30) & 3).unwrap() }
            };
            let mut slots = tear(&model.slots, &frames, fate);
            model.check(&mut slots, acknowledged + u64::from(prefix));
        }
    }
}

#[test]
fn a_segment_that_is_no_longer_needed_may_be_gone() {
    let mut model = Model::new();
    model.append(None, 1, 3, 20);
    model.settle();
    model.reopen();
    // Everything is replaced: nothing of the first segment is live.
    model.append(None, 1, 2, 20);
    model.settle();
    let first = model.log.slots_in_use().next().unwrap();
    let before = model.slots.clone().recover().unwrap();
    model.slots.0[first as usize].fill(0);
    let after = model.slots.recover().unwrap();
    assert_eq!(before.index.last(), after.index.last());
    assert_eq!(before.index.runs(), after.index.runs());
}

/// A log of one segment, in slot 1; slot 0 holds the first segment, which nothing needs any more.
fn log_with_a_used_slot() -> Model {
    let mut model = Model::new();
    model.append(None, 1, 3, 20);
    model.settle();
    model.reopen();
    model.append(None, 1, 2, 20);
    model.settle();
    model.reopen();
    assert_eq!(model.used, [false, true, false]);
    model
}

/// The first two blocks of a used slot agree, and so they do when the write that opened it anew was acknowledged and
/// lost. Whoever looked no further cut acknowledged entries.
#[test]
fn a_lost_write_that_opened_a_used_slot_is_found_however_long_it_was() {
    for bytes in [20, 5_000, 10_000, 16_000] {
        let mut model = log_with_a_used_slot();
        model.append(None, 3, 1, bytes);
        let lost = model.build();
        assert_eq!((lost.len(), lost[0].slot, lost[0].opens_slot), (1, 0, true));
        model.log.complete(lost[0].seq, 0);
        model.append(None, 4, 1, 20);
        for built in model.build() {
            model.write(&built);
        }
        let error = model.slots.recover().unwrap_err();
        let OpenError::Damaged { damage, .. } = &error else { panic!("{error}") };
        let proof = Proof::OtherSlot { slot: 0, durable_seq: lost[0].seq };
        assert_eq!((damage.seq, damage.proof), (lost[0].seq, Some(proof)), "{bytes} bytes");
    }
}

#[test]
fn a_slot_outside_of_the_chain_is_read_no_further_than_a_lost_life_would_show() {
    let mut model = log_with_a_used_slot();
    let (start, slot) = (START_BYTES, SLOT_BYTES as u64);
    let second = START_BYTES + slot / 4;
    let scanned = |slots: &mut Memory, held| slots.recover_with(held).unwrap().bytes_scanned;
    // The starts of all, the chain and the block at its end once more, the used slot, and the one that was never used.
    let chain = slot + BLOCK_BYTES as u64;
    let each = [3 * start, chain, second, slot];
    assert_eq!(scanned(&mut model.slots, &[]), each.iter().sum());
    assert_eq!(scanned(&mut model.slots, &[0]), 3 * start + chain + slot);
    // Without its header, or with another life's first frame, it may be anything.
    for byte in [20, BLOCK_BYTES + 20] {
        let mut slots = model.slots.clone();
        slots.0[0][byte] ^= 1;
        assert_eq!(scanned(&mut slots, &[]), 3 * start + chain + 2 * slot);
        assert_eq!(scanned(&mut slots, &[0]), 3 * start + chain + 2 * slot);
    }
}

#[test]
fn the_promise_alone_tells_torn_from_corrupt() {
    let later = |durable_seq| Proof::LaterFrame { durable_seq };
    assert_eq!(decide(9, &[]), Verdict::Torn);
    assert_eq!(decide(9, &[later(8)]), Verdict::Torn);
    assert_eq!(decide(9, &[later(8), later(9)]), Verdict::Corrupt(later(9)));
    assert_eq!(decide(9, &[Proof::Successor]), Verdict::Corrupt(Proof::Successor));
    let slot = Proof::OtherSlot { slot: 1, durable_seq: 30 };
    assert_eq!(decide(9, &[later(0), slot]), Verdict::Corrupt(slot));
    let checkpoint = Proof::Checkpoint { index: 4, durable_seq: 9 };
    assert_eq!(decide(9, &[checkpoint]), Verdict::Corrupt(checkpoint));
}
