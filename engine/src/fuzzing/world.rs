//! One engine on one simulated disk, driven step by step, with the oracle beside it.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::cabinet::{Cabinet, Value};
use super::census::Census;
use super::fuse::{Fuse, FusedDisk, PowerCut};
use super::oracle::{Content, Oracle, payload};
use super::points::{Recorder, Truth};
use crate::engine::Engine;
use crate::error::{CheckpointError, EngineError, OpenError, ReadError};
use crate::io::simulated::{SimDisk, SimFaults};
use crate::opening::{Opened, open};
use crate::options::Options;
use crate::report::Recovered;
use crate::types::{
    Append, CheckpointInfo, CheckpointOrigin, Entry, Event, HardState, Identity, Location,
    Position, Wanted,
};
use crate::value_batch::ValueBatch;
use crate::values::Reading;

/// How long a test lets simulated time run before it calls the engine stuck, in turns.
const TURNS_MAX: usize = 200_000;

/// Options with the smallest slots and little waiting.
pub fn small_options() -> Options {
    Options {
        slot_bytes: 1 << 20,
        frame_bytes_max: 64 << 10,
        further_frame_bytes: 8 << 10,
        overdue_us: 200,
        note_after_us: 5_000,
        tail_bytes_max: 128 << 10,
        cache_bytes_max: 256 << 10,
        slots_ready: 1,
        slots_to_free: 0,
        slots_to_keep: 0,
        ..Options::default()
    }
}

/// The node that all worlds are.
pub const IDENTITY: Identity = Identity { node: 1, incarnation: 11, log_id: 0x5151 };

/// An engine, its disk and what it must hold.
pub struct World {
    /// The device; it outlives the process.
    pub disk: SimDisk,
    /// When its power goes.
    pub fuse: Fuse,
    /// The process, while it runs.
    pub engine: Option<Engine<FusedDisk>>,
    /// What must be there.
    pub oracle: Oracle,
    /// Used at the next open.
    pub options: Options,
    /// The newest checkpoint that was reported durable.
    pub checkpoint: Option<CheckpointInfo>,
    /// The slots that hold the values of the next checkpoint.
    pub slots: Vec<u32>,
    /// Events that no driver has consumed.
    pub events: Vec<Event>,
    /// The state of a caller of the engine, as far as scripts apply it.
    pub(super) cabinet: Cabinet,
    /// The state in each checkpoint that was begun, by its index.
    pub(super) cabinets: BTreeMap<u64, Cabinet>,
    /// Notes the moments at which the power may be cut.
    pub(super) recorder: Option<Recorder>,
    /// What has become of slots.
    pub(super) census: Census,
    opens: u64,
    seed: u64,
}

impl World {
    /// A new directory, not opened yet.
    pub fn new(seed: u64, options: Options, faults: SimFaults) -> World {
        World {
            disk: SimDisk::new(seed, faults),
            fuse: Fuse::default(),
            engine: None,
            oracle: Oracle::default(),
            options,
            checkpoint: None,
            slots: Vec::new(),
            events: Vec::new(),
            cabinet: Cabinet::default(),
            cabinets: BTreeMap::new(),
            recorder: None,
            census: Census::default(),
            opens: 0,
            seed,
        }
    }

    /// A new directory on a healthy disk, opened.
    pub fn opened(seed: u64) -> World {
        let mut world = World::new(seed, small_options(), SimFaults::none());
        world.open_and_check("first open");
        world
    }

    /// The running engine.
    ///
    /// Panics when there is none.
    pub fn engine(&mut self) -> &mut Engine<FusedDisk> {
        self.engine.as_mut().expect("the engine runs")
    }

    /// Does `work`, whose power goes in place of the operation number `operations`; whether it got to its end.
    pub fn with_power_for(&mut self, operations: u64, work: impl FnOnce(&mut World)) -> bool {
        self.fuse.set(operations);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(self)));
        self.fuse.disarm();
        match ended {
            Ok(()) => true,
            Err(payload) if payload.is::<PowerCut>() => {
                self.engine = None;
                self.events.clear();
                false
            }
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Opens without looking at what was found. A process that still ran is killed.
    pub fn try_open(&mut self) -> Result<Recovered, OpenError> {
        self.engine = None;
        self.events.clear();
        self.opens += 1;
        let options = Options { seed: [self.seed, self.opens], ..self.options.clone() };
        self.tell_recorder(true);
        let disk = FusedDisk::new(&self.disk, &self.fuse, self.recorder.clone());
        let opened = open(disk, Path::new("data"), options, IDENTITY);
        self.tell_recorder(false);
        let Opened { engine, recovered } = opened?;
        self.engine = Some(engine);
        Ok(recovered)
    }

    fn tell_recorder(&self, in_open: bool) {
        if let Some(recorder) = &self.recorder {
            recorder.expect(self.truth(), in_open);
        }
    }

    pub(super) fn truth(&self) -> Truth {
        let (oracle, cabinets) = (self.oracle.clone(), self.cabinets.clone());
        Truth { oracle, checkpoint: self.checkpoint, cabinets }
    }

    /// This must be found by the next open, and no other.
    pub(super) fn believe(&mut self, truth: &Truth) {
        let Truth { oracle, checkpoint, cabinets } = truth.clone();
        self.oracle = oracle;
        self.checkpoint = checkpoint;
        self.cabinets = cabinets;
        self.events.clear();
    }

    /// Opens and checks everything that was found against the oracle.
    ///
    /// Panics if it is refused or wrong.
    pub fn open_and_check(&mut self, what: &str) -> Recovered {
        let recovered = match self.try_open() {
            Ok(recovered) => recovered,
            Err(error) => panic!("{what}: refused: {error}"),
        };
        self.check(&recovered, what);
        recovered
    }

    /// Checks what an open found: the log, read back whole, and the checkpoint, loaded.
    pub fn check(&mut self, recovered: &Recovered, what: &str) {
        let known = self.checkpoint.map_or(0, |info| info.at.index);
        let found = recovered.checkpoint.map_or(0, |info| info.at.index);
        assert!(found >= known, "{what}: checkpoint {known} was durable, {found} is found");
        if let Some(info) = recovered.checkpoint {
            self.check_body(&info);
        }
        let content = self.read_content(recovered);
        assert_eq!(content.last(), recovered.last, "{what}");
        if let Some(CheckpointInfo { at, .. }) = recovered.checkpoint {
            assert_eq!(
                content.term_at(at.index),
                Some(at.term),
                "{what}: the log contradicts {at}"
            );
        }
        check_runs(&content, &recovered.terms);
        self.oracle.recovered(&content, recovered.checkpoint, what);
        self.checkpoint = recovered.checkpoint;
        let applied = self.checkpoint.map_or(0, |info| info.at.index);
        self.cabinet = self.cabinet_at(applied);
    }

    /// The state in a checkpoint of this index. What a test began without one has no values.
    fn cabinet_at(&self, index: u64) -> Cabinet {
        let known = self.cabinets.get(&index).cloned();
        known.unwrap_or_else(|| Cabinet::of_snapshot(index, Vec::new()))
    }

    fn check_body(&mut self, info: &CheckpointInfo) {
        let mut body = Vec::new();
        let engine = self.engine();
        engine
            .load_checkpoint(info, &mut |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })
            .expect("a checkpoint that was recovered can be loaded");
        assert_eq!(body, body_of(info.at, body.len()), "the body of {info:?}");
    }

    /// Whether this entry survives a power cut at this moment that takes everything that is not durable.
    pub fn surely_holds(&self, at: Position) -> bool {
        let copy = SimDisk::new(self.seed, SimFaults::none());
        copy.restore(&self.disk.snapshot());
        copy.crash_drop_all();
        let options = Options { seed: [self.seed, u64::MAX], ..self.options.clone() };
        let opened = open(copy.handle(), Path::new("data"), options, IDENTITY);
        let Recovered { log_start, last, terms, .. } = opened.expect("a sound disk").recovered;
        let run = terms.iter().rev().find(|run| run.1 <= at.index);
        at == log_start || at.index <= last.index && run.is_some_and(|run| run.0 == at.term)
    }

    /// Reads every entry that an open found.
    pub fn read_content(&mut self, recovered: &Recovered) -> Content {
        let mut content = Content {
            hard_state: recovered.hard_state,
            start: recovered.log_start,
            ..Content::default()
        };
        let mut next = recovered.log_start.index + 1;
        while next <= recovered.last.index {
            let entries = self.read(next, recovered.last.index, 300_000).expect("a stored entry");
            next = entries.last().expect("never empty").index + 1;
            content.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
        }
        content
    }

    /// Reads entries and waits for the answer.
    pub fn read(&mut self, first: u64, last: u64, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        self.engine().read_entries(77, first, last, bytes);
        loop {
            let at = self.events.iter().position(|event| matches!(event, Event::Entries { .. }));
            if let Some(at) = at
                && let Event::Entries { result, .. } = self.events.remove(at)
            {
                return result;
            }
            self.turn().expect("a read does not halt the engine");
        }
    }

    /// Values, waited for.
    pub fn read_values(&mut self, wanted: Vec<Wanted>) -> Vec<Result<Bytes, ReadError>> {
        self.engine().read_values(79, wanted, Reading::Again);
        loop {
            let is_it = |event: &Event| matches!(event, Event::Values { .. });
            if let Some(at) = self.events.iter().position(is_it)
                && let Event::Values { results, .. } = self.events.remove(at)
            {
                return results;
            }
            self.turn().expect("a read does not halt the engine");
        }
    }

    /// The state after the entry at `index`, if every entry up to it has a place.
    ///
    /// Requires: it is not before what is applied.
    pub(super) fn cabinet_after(&mut self, index: u64) -> Option<Cabinet> {
        let mut cabinet = self.cabinet.clone();
        let entries = self.oracle.newest().entries;
        for next in cabinet.applied + 1..=index {
            cabinet.apply(self.engine().place(next)?, &entries.get(&next)?.payload);
        }
        Some(cabinet)
    }

    /// Counts what has become of slots, if anybody asks for it.
    pub(super) fn count_slots(&mut self) {
        if self.recorder.is_some() {
            self.census.take(&self.disk, self.options.slot_bytes, &self.cabinet.slots());
        }
    }

    /// Lets the cleaner do a little, if it has anything to do. What it moves is moved in the state.
    pub(super) fn clean(&mut self) {
        let now_us = self.disk.now_us();
        let engine = self.engine.as_mut().expect("the engine runs");
        if engine.cleans(now_us) {
            let before = self.cabinet.slots();
            engine.clean(&mut self.cabinet);
            let after = self.cabinet.slots();
            self.census.emptied(before.difference(&after).copied());
        }
    }

    /// Checks that every value of the state and of every checkpoint that is kept is where that says (I9), and that every
    /// entry after it has its place, which is all that the replay of a log gives a state machine (I8).
    pub(super) fn check_values(&mut self, what: &str) {
        let kept = self.engine().checkpoints().to_vec();
        let kept = kept.iter().map(|info| self.cabinet_at(info.at.index));
        let cabinets: Vec<Cabinet> = kept.chain([self.cabinet.clone()]).collect();
        let mut values: Vec<Value> = cabinets.iter().flat_map(Cabinet::values).cloned().collect();
        let entries = self.oracle.certain().entries;
        for (index, Entry { payload, .. }) in entries.range(self.cabinet.applied + 1..) {
            let Some(place) = self.engine().place(*index) else {
                panic!("{what}: entry {index} after {} has no place", self.cabinet.applied);
            };
            values.extend(Value::of(place, payload));
        }
        let wanted = values.iter().map(|value| value.wanted.clone()).collect();
        for (result, value) in self.read_values(wanted).into_iter().zip(&values) {
            match result {
                Ok(bytes) => assert!(bytes == value.bytes, "{what}: {:?}", value.wanted),
                Err(error) => panic!("{what}: {:?}: {error}", value.wanted),
            }
        }
    }

    /// Appends values that lie in no entry, and waits for their place.
    pub fn place_values(&mut self, batch: ValueBatch) -> Location {
        let appended = self.engine().append_values(batch);
        loop {
            let is_it = |event: &Event| matches!(event, Event::ValuesPlaced { .. });
            if let Some(at) = self.events.iter().position(is_it)
                && let Event::ValuesPlaced { id, location } = self.events.remove(at)
            {
                assert_eq!(id, appended, "batches get their places in order");
                return location;
            }
            self.turn().expect("values do not halt the engine");
        }
    }

    /// Body bytes of a checkpoint, waited for.
    pub fn read_body(&mut self, index: u64, offset: u64, bytes: usize) -> Result<Bytes, ReadError> {
        self.engine().read_checkpoint(78, index, offset, bytes);
        loop {
            let is_it = |event: &Event| matches!(event, Event::CheckpointBytes { .. });
            if let Some(at) = self.events.iter().position(is_it)
                && let Event::CheckpointBytes { result, .. } = self.events.remove(at)
            {
                return result;
            }
            self.turn().expect("a read does not halt the engine");
        }
    }

    /// Lets simulated time run to the next thing that happens, then turns.
    pub fn turn(&mut self) -> Result<(), EngineError> {
        let now_us = self.disk.now_us();
        let due = [self.disk.next_due(), self.engine().next_due_us()];
        match due.into_iter().flatten().min() {
            Some(due) => self.disk.advance(due.max(now_us)),
            None => self.disk.advance(now_us + 1),
        }
        self.turn_now()
    }

    /// Turns at this moment.
    pub fn turn_now(&mut self) -> Result<(), EngineError> {
        let now_us = self.disk.now_us();
        let mut events = Vec::new();
        let result = self.engine().turn(now_us, &mut events);
        for event in events {
            self.note(&event);
            self.events.push(event);
        }
        if let Some(recorder) = &self.recorder {
            recorder.expect(self.truth(), false);
            recorder.note(&self.disk);
        }
        result
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Durable { write } => self.oracle.durable(*write),
            Event::CheckpointDurable { info, .. } => self.checkpoint = Some(*info),
            Event::Entries { .. }
            | Event::Values { .. }
            | Event::ValuesPlaced { .. }
            | Event::CheckpointFailed { .. }
            | Event::CheckpointBytes { .. }
            | Event::LogStart { .. }
            | Event::Repaired { .. }
            | Event::RoomChanged(_)
            | Event::Damaged(_)
            | Event::SlowWrite { .. } => {}
        }
    }

    /// Turns until everything is durable and promised.
    pub fn settle(&mut self) {
        self.turn_until("settle", |world| world.engine().is_idle());
        assert!(self.oracle.is_settled());
    }

    /// Turns until `done`.
    ///
    /// Panics if that never comes or the engine halts.
    pub fn turn_until(&mut self, what: &str, mut done: impl FnMut(&mut World) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            if let Err(error) = self.turn() {
                panic!("{what}: {error}");
            }
        }
        panic!("{what}: the engine is stuck");
    }

    /// Appends a write.
    pub fn append(
        &mut self,
        hard_state: Option<HardState>,
        reset: Option<Position>,
        entries: Vec<Entry>,
    ) {
        let write = self.oracle.next_write();
        let append = Append { write, hard_state, reset, repairs: Vec::new(), entries };
        self.oracle.append(&append);
        self.engine().append(append);
    }

    /// Appends faulty entries once more. They change nothing in what the log must hold.
    pub fn repair(&mut self, repairs: Vec<Entry>) {
        let append = Append { write: self.oracle.next_write(), repairs, ..Append::default() };
        self.oracle.append(&append);
        self.engine().append(append);
    }

    /// Appends `count` entries of `bytes` each after index `after`, in `term`.
    pub fn append_after(&mut self, after: u64, term: u64, count: u64, bytes: usize) {
        let write = self.oracle.next_write();
        let entries = (after + 1..=after + count).map(|index| {
            let payload = payload(write, Position { index, term }, bytes);
            Entry { index, term, kind: 1, payload }
        });
        self.append(None, None, entries.collect());
    }

    /// Appends to the end of the log.
    pub fn append_entries(&mut self, term: u64, count: u64, bytes: usize) {
        let after = self.engine().status().last.index;
        self.append_after(after, term, count, bytes);
    }

    /// Changes the hard state.
    pub fn vote(&mut self, term: u64, vote: u64) {
        self.append(Some(HardState { term, vote }), None, Vec::new());
    }

    /// Begins a checkpoint and pushes its whole body as room allows; the end of it is awaited elsewhere.
    pub fn checkpoint_begin(
        &mut self,
        at: Position,
        origin: CheckpointOrigin,
    ) -> Result<(), CheckpointError> {
        let slots = self.slots.clone();
        let slots = self.engine().value_slots(slots);
        self.engine().checkpoint_begin(at, origin, 1 << 16, slots)
    }

    /// Pushes what there is room for; whether the body is complete.
    pub fn checkpoint_push(
        &mut self,
        at: Position,
        origin: CheckpointOrigin,
        pushed: &mut usize,
        body_bytes: usize,
    ) -> bool {
        let body = body_of(at, body_bytes);
        let count = self.engine().checkpoint_room(origin).min(body_bytes - *pushed);
        let part = &body[*pushed..*pushed + count];
        self.engine().checkpoint_push(origin, part);
        *pushed += count;
        if *pushed == body_bytes {
            self.engine().checkpoint_finish(origin);
        }
        *pushed == body_bytes
    }

    /// Writes a checkpoint to its end.
    pub fn checkpoint(
        &mut self,
        at: Position,
        origin: CheckpointOrigin,
        body_bytes: usize,
    ) -> Result<CheckpointInfo, CheckpointError> {
        self.checkpoint_begin(at, origin)?;
        let (mut pushed, mut is_complete) = (0, false);
        for _ in 0..TURNS_MAX {
            is_complete = is_complete || self.checkpoint_push(at, origin, &mut pushed, body_bytes);
            self.turn().expect("the disk is sound");
            let ended = self.events.iter().position(|event| {
                matches!(event, Event::CheckpointDurable { .. } | Event::CheckpointFailed { .. })
            });
            if let Some(ended) = ended {
                if let Event::CheckpointFailed { error, .. } = self.events.remove(ended) {
                    return Err(error);
                }
                return Ok(self.checkpoint.expect("it was reported"));
            }
        }
        panic!("the checkpoint at {at} never ends");
    }

    /// A checkpoint of this node at the last durable entry.
    pub fn checkpoint_here(&mut self) -> CheckpointInfo {
        self.settle();
        let at = self.oracle.certain().last();
        self.checkpoint(at, CheckpointOrigin::Local, 5_000).expect("the disk has room")
    }

    /// A snapshot arrives, is installed, and the log is reset to it.
    pub fn install(&mut self, at: Position, body_bytes: usize) -> CheckpointInfo {
        let info = self.checkpoint(at, CheckpointOrigin::Installed, body_bytes).expect("room");
        self.append(None, Some(at), Vec::new());
        info
    }
}

fn check_runs(content: &Content, runs: &[(u64, u64)]) {
    let mut expected: Vec<(u64, u64)> = Vec::new();
    for entry in content.entries.values() {
        if expected.last().is_none_or(|run| run.0 != entry.term) {
            expected.push((entry.term, entry.index));
        }
    }
    assert_eq!(runs, expected, "runs of terms");
}

/// The body of the checkpoint at a position.
pub fn body_of(at: Position, bytes: usize) -> Vec<u8> {
    payload(0, at, bytes).to_vec()
}
