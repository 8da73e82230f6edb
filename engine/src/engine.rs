//! The engine as its caller's loop sees it: `append` and the `begin` calls take in, `turn` moves everything on.
//!
//! The caller's loop: append any number of writes, then `turn`, then act on the events, then `wait`.
//!
//! Invariants:
//! - Nothing here waits for the device, except `wait` and the two calls that say so.
//! - Any error of a write, sync, rename or directory sync is final: nothing is acknowledged any more (P4).
//! - A background job does one small step for each completion, so a turn stays short.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::blocking::Blocking;
use crate::checkpoint::{CheckpointHeader, Verifier};
use crate::checkpoint_writer::{CheckpointWriter, Outcome};
use crate::error::{Check, CheckpointError, EngineError, Fault, OpenError, Unusable};
use crate::format::{CHECKPOINT_HEADER_BYTES, META_APPLICATION_BYTES_MAX, TERM_UNKNOWN, slot_path};
use crate::holes::FaultyRange;
use crate::io::{Class, Completion, Disk, FileId, Op, Wake, WriteBuf, WriteSync};
use crate::log::{Acknowledged, Built, Log};
use crate::meta;
use crate::mutant::{self, Mutant};
use crate::opening::verify;
use crate::pins::Limbo;
use crate::reads::{Context, Reads};
use crate::retained::Retained;
use crate::slots::SlotTable;
use crate::tags::Owner;
use crate::types::{
    Append, CheckpointInfo, CheckpointOrigin, Event, Location, Meta, Position, Room, Status, Wanted,
};
use crate::values::{Reader, Reading};

/// The most that is reserved for a checkpoint on the word of whoever announces it: 4 TiB.
const CHECKPOINT_RESERVED_BYTES_MAX: u64 = 1 << 42;

/// A frame that takes this long is worth a word to the operator.
const SLOW_WRITE_US: u64 = 100_000;

/// The log and the checkpoints of one directory.
pub struct Engine<D: Disk> {
    disk: D,
    /// Names the directory in messages.
    dir: String,
    meta: Meta,
    log: Log,
    slots: SlotTable,
    retained: Retained,
    /// Slots without a live entry that hold values of a checkpoint.
    held: BTreeSet<u32>,
    /// Slots that nobody needs, until nobody reads them either.
    limbo: Limbo,
    reader: Reader,
    reads: Reads,
    /// Local, installed.
    writers: [Option<CheckpointWriter>; 2],
    /// Values that are settled when the installed checkpoint in progress has ended, by their newest name.
    settle_after: Option<u64>,
    attempts: u64,
    checkpoint_bytes: u64,
    /// Bytes of the log after the newest checkpoint that the open found, and since when newer ones count.
    log_bytes_at_checkpoint: LogBytes,
    /// The same for each checkpoint in progress.
    log_bytes_at_begin: [u64; 2],
    completions: Vec<Completion>,
    freed: Vec<u32>,
    /// Events of calls between two turns.
    early: Vec<Event>,
    room: Room,
    halted: Option<EngineError>,
}

#[derive(Clone, Copy, Debug)]
struct LogBytes {
    /// What the open found.
    before: u64,
    /// What the log had consumed when the newest checkpoint began.
    consumed: u64,
}

impl<D: Disk> std::fmt::Debug for Engine<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<D: Disk> Engine<D> {
    pub(crate) fn new(
        disk: D,
        dir: String,
        meta: Meta,
        mut slots: SlotTable,
        log: Log,
        retained: Retained,
        cache_bytes_max: usize,
    ) -> Engine<D> {
        let in_log: BTreeSet<u32> = log.slots_in_use().collect();
        let held: BTreeSet<u32> = retained.slots().difference(&in_log).copied().collect();
        in_log.iter().chain(&held).for_each(|slot| slots.take(*slot));
        let limbo = Limbo::default();
        let reader = Reader::new(log.shared_tail(), cache_bytes_max, limbo.pins());
        let seq = retained.newest().map_or(0, |newest| newest.durable_seq);
        let before = log.bytes_after(seq);
        Engine {
            disk,
            dir,
            meta,
            log,
            slots,
            retained,
            held,
            limbo,
            reader,
            reads: Reads::default(),
            writers: [None, None],
            settle_after: None,
            attempts: 0,
            checkpoint_bytes: 0,
            log_bytes_at_checkpoint: LogBytes { before, consumed: 0 },
            log_bytes_at_begin: [0; 2],
            completions: Vec::new(),
            freed: Vec::new(),
            early: Vec::new(),
            room: Room::Plenty,
            halted: None,
        }
    }

    /// Whose directory this is.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Replaces the application's part of `META`; durable on return. Blocks: only before the loop runs.
    pub fn set_application_meta(&mut self, bytes: Vec<u8>) -> Result<(), EngineError> {
        self.check()?;
        let max = META_APPLICATION_BYTES_MAX;
        if bytes.len() > max {
            return Err(EngineError::MetaTooLarge { bytes: bytes.len(), max });
        }
        let slots_min = u32::try_from(self.slots.count()).expect("slots are numbered in 32 bits");
        let meta = Meta { application: bytes, slots_min, ..self.meta.clone() };
        let mut io = Blocking::new(&mut self.disk);
        let stored = meta::store(&mut io, &meta);
        self.completions.extend(io.into_strays());
        match stored {
            Ok(()) => {
                self.meta = meta;
                Ok(())
            }
            Err(OpenError::Io { what, source }) => Err(self.halt(EngineError::Io { what, source })),
            Err(other) => unreachable!("storing META only fails on the device: {other}"),
        }
    }

    /// Streams the body of a checkpoint, verified, in pieces of at most 64 KiB. Blocks: only before the loop runs.
    ///
    /// Errors: [`OpenError::CheckpointUnusable`] if the bytes or the sink refuse.
    pub fn load_checkpoint(
        &mut self,
        info: &CheckpointInfo,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), OpenError> {
        let index = info.at.index;
        let mut refusal = None;
        let result = self.stream(index, &mut |body| {
            sink(body).map_err(|what| {
                refusal = Some(what);
                Check::BodyChecksum
            })
        });
        result.map_err(|check| OpenError::CheckpointUnusable {
            dir: self.dir.clone(),
            index,
            what: refusal.unwrap_or_else(|| format!("it fails its {check} check")),
        })
    }

    fn stream(
        &mut self,
        index: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Check>,
    ) -> Result<(), Check> {
        let kept = self.retained.find(index).ok_or(Check::Unreadable)?;
        let (file, log_id) = (kept.file(), self.meta.log_id);
        let mut io = Blocking::new(&mut self.disk);
        let result = stream(&mut io, file, log_id, sink);
        self.completions.extend(io.into_strays());
        result.map_err(|unusable| match unusable {
            Unusable::Damaged(check) => check,
            Unusable::Unreadable(_) => Check::Unreadable,
        })
    }

    // The log.

    /// Queues a write. [`Event::Durable`] tells when it is durable, in order.
    ///
    /// Requires: entries are consecutive, follow the log or replace a part of it after its start, and are at most
    /// [`crate::Options::entry_bytes_max`] long; a reset names a durable checkpoint; repairs are of faulty entries that no
    /// write before replaces, each in its term where that is known.
    pub fn append(&mut self, append: Append) {
        if let Some(at) = append.reset {
            let is_backed = self.retained.infos().iter().any(|info| info.at == at);
            assert!(is_backed, "a reset to {at} without a checkpoint there would lose the state");
        }
        self.log.append(append);
    }

    /// The entries that are damaged and that nothing holds once more, in order.
    pub fn faulty(&self) -> Vec<FaultyRange> {
        self.log.index().faulty()
    }

    /// Moves everything on: takes in what the disk has done, sends what can go, advances the jobs by one step each.
    /// `now_us` never goes back. Events are added to `events`.
    ///
    /// Errors: final; every later call returns the same.
    pub fn turn(&mut self, now_us: u64, events: &mut Vec<Event>) -> Result<(), EngineError> {
        self.check()?;
        let before = events.len();
        events.append(&mut self.early);
        self.disk.poll(&mut self.completions);
        if let Err(fault) = self.take_completions(now_us, events) {
            // Nothing that came together with the fault is acknowledged either.
            events.truncate(before);
            return Err(self.halt(fault.into()));
        }
        if self.send(now_us, events) {
            // Hands the frames to the device now; what completes meanwhile is taken in by the next turn.
            self.disk.poll(&mut self.completions);
        }
        Ok(())
    }

    /// Blocks until there is something for `turn` to do: a completion, a wake-up, or the end of `timeout`.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        if self.completions.is_empty() && self.early.is_empty() && self.halted.is_none() {
            self.disk.wait(timeout);
        }
    }

    /// Whether another thread may use the engine from now on, see [`Disk::may_move`].
    pub fn may_move(&self) -> bool {
        self.disk.may_move()
    }

    /// Frames in flight.
    pub fn in_flight(&self) -> usize {
        self.log.in_flight()
    }

    /// The largest payload of an entry.
    pub fn entry_bytes_max(&self) -> usize {
        self.log.entry_bytes_max()
    }

    /// Ends a `wait`, from any thread.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.disk.waker()
    }

    /// When `turn` should be called although nothing else happens, on its own time scale.
    pub fn next_due_us(&self) -> Option<u64> {
        if !self.completions.is_empty() || !self.early.is_empty() {
            return Some(0);
        }
        let has_ready_slot = self.slots.ready().is_some();
        let dues = [self.log.next_due_us(has_ready_slot), self.slots.next_due_us()];
        dues.into_iter().flatten().min()
    }

    /// Whether every write is durable and the newest promise says so: the moment for a clean stop.
    pub fn is_idle(&self) -> bool {
        self.log.is_settled(self.slots.ready().is_some())
    }

    /// Ends the engine. What was not durable has an unknown outcome; stop cleanly by calling `turn` until `is_idle`.
    pub fn close(self) {
        drop(self);
    }

    /// Asks for the entries `first..=last`, from memory or from the disk: as many as fit `bytes_max`, and always the
    /// first one. [`Event::Entries`] answers with `id`.
    ///
    /// Requires: `1 <= first <= last`.
    pub fn read_entries(&mut self, id: u64, first: u64, last: u64, bytes_max: usize) {
        assert!(first > 0);
        assert!(first <= last);
        self.reads.begin_entries(id, first, last, bytes_max);
    }

    /// Where the payload of an entry lies. None until a frame that holds it has been handed to the disk, and after
    /// `forget_places_upto`; every entry after the newest checkpoint has a place when it is first read back.
    pub fn place(&self, index: u64) -> Option<Location> {
        self.log.place(index)
    }

    /// Places of entries up to this one are not asked for any more: they are applied.
    pub fn forget_places_upto(&mut self, index: u64) {
        self.log.forget_places_upto(index);
    }

    /// Looks values up on other threads, and pins slots.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Asks for values, from memory or from the disk. [`Event::Values`] answers with `id`.
    ///
    /// Requires: the caller holds a [`crate::Pin`] that is older than its look at the index. It may go when this returns:
    /// reads under way keep their slots.
    pub fn read_values(&mut self, id: u64, wanted: Vec<Wanted>, reading: Reading) {
        let mut context = Context {
            log: &self.log,
            reader: &self.reader,
            slots: &mut self.slots,
            retained: &mut self.retained,
            disk: &mut self.disk,
            events: &mut self.early,
        };
        self.reads.begin_values(id, wanted, reading, &mut context);
    }

    /// Queues values that belong to no entry of this log: those of a snapshot. Returns their name;
    /// [`Event::ValuesPlaced`] says where they lie. They stay until `values_settled`.
    ///
    /// Requires: at most [`crate::Options::entry_bytes_max`] bytes.
    pub fn append_values(&mut self, payload: Bytes) -> u64 {
        self.log.append_values(payload)
    }

    /// The values that were appended so far are those of a durable checkpoint, or nobody's any more. While an installed
    /// checkpoint ends, having been aborted, its values are kept: until its name is gone for good a power cut may bring
    /// it back.
    pub fn values_settled(&mut self) {
        let upto = self.log.newest_values();
        if self.writers[slot_of(CheckpointOrigin::Installed)].is_some() {
            self.settle_after = Some(upto);
        } else {
            self.log.release_values_upto(upto);
        }
    }

    /// Log bytes after the newest checkpoint, whole slots where a segment has been sealed.
    pub fn log_bytes_since_checkpoint(&self) -> u64 {
        let LogBytes { before, consumed } = self.log_bytes_at_checkpoint;
        before + (self.log.consumed_bytes() - consumed)
    }

    /// Whether there is room for entries that store bytes.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Watermarks and counters.
    pub fn status(&self) -> Status {
        let counters = self.log.counters();
        let slots_live = self.log.slots_in_use().count();
        let writing = self.writers.iter().flatten().map(CheckpointWriter::written_bytes);
        Status {
            backend: self.disk.backend(),
            direct: self.disk.is_direct(),
            log_start: self.log.index().start(),
            last: self.log.queued_last(),
            durable: self.log.durable(),
            durable_seq: self.log.durable_seq(),
            in_flight: self.log.in_flight(),
            queued_bytes: self.log.queued_bytes(),
            slots_live,
            slots_held: self.held.len() + self.limbo.count(),
            values_read: self.reads.values_read(),
            slots_ready: self.slots.ready_count(),
            slots: self.slots.count(),
            log_bytes: slots_live as u64 * self.meta.slot_bytes,
            tail_bytes: self.log.tail().held_bytes(),
            cached_bytes: self.reader.cached_bytes(),
            frames: counters.frames,
            entries: counters.entries,
            payload_bytes: counters.payload_bytes,
            frame_bytes: counters.frame_bytes,
            padding_bytes: counters.padding_bytes,
            prewrite_bytes: self.slots.zeroed_bytes(),
            checkpoint_bytes: self.checkpoint_bytes + writing.sum::<u64>(),
            checkpoint_in_progress: self.writers.iter().any(Option::is_some),
            faulty: self.log.index().unrepaired(self.log.durable_seq()),
            room: self.room,
        }
    }

    // Checkpoints.

    /// Begins a checkpoint of the state at `at`, whose values lie in `slots`; these are kept as long as the checkpoint.
    /// `bytes_announced` is reserved first, more is taken if it is needed.
    ///
    /// Errors: another one of this origin is in progress, `at` (local) or a value (installed) is not durable, or `at` is
    /// not newer than the newest.
    pub fn checkpoint_begin(
        &mut self,
        at: Position,
        origin: CheckpointOrigin,
        bytes_announced: u64,
        slots: Vec<u32>,
    ) -> Result<(), CheckpointError> {
        let is_same = |writer: &CheckpointWriter| writer.index() == at.index;
        if self.writers[slot_of(origin)].is_some() || self.writers.iter().flatten().any(is_same) {
            return Err(CheckpointError::InProgress);
        }
        let durable = self.log.durable();
        let is_its_term = |term: u64| term == at.term || term == TERM_UNKNOWN;
        let is_durable =
            at.index <= durable.index && self.log.index().term_at(at.index).is_none_or(is_its_term);
        let is_durable = match origin {
            CheckpointOrigin::Local => is_durable,
            CheckpointOrigin::Installed => self.log.has_durable_values(),
        };
        if !is_durable && !mutant::is(Mutant::CheckpointAheadOfDurable) {
            return Err(CheckpointError::NotDurable { at, durable });
        }
        if let Some(CheckpointInfo { at: newest, .. }) = self.retained.newest()
            && at.index <= newest.index
        {
            return Err(CheckpointError::NotNewer { at, newest });
        }
        self.attempts += 1;
        let slots_count = u32::try_from(slots.len()).expect("slots are numbered in 32 bits");
        let header = self.checkpoint_header(at, origin, slots_count);
        // No more is reserved than any file system holds; the rest shows when it is written.
        let announced = bytes_announced.min(CHECKPOINT_RESERVED_BYTES_MAX);
        let disk = &mut self.disk;
        let writer = CheckpointWriter::begin(origin, header, slots, announced, self.attempts, disk);
        self.writers[slot_of(origin)] = Some(writer);
        self.log_bytes_at_begin[slot_of(origin)] = self.log.consumed_bytes();
        Ok(())
    }

    fn checkpoint_header(
        &mut self,
        at: Position,
        origin: CheckpointOrigin,
        slots_count: u32,
    ) -> CheckpointHeader {
        let installed = origin == CheckpointOrigin::Installed;
        let durable_seq = self.log.durable_seq();
        CheckpointHeader {
            log_id: self.meta.log_id,
            node: self.meta.node,
            info: CheckpointInfo { at, installed, body_bytes: 0, durable_seq, slots_count },
            salt: self.log.next_salt(),
            blocks_crc: 0,
        }
    }

    /// How many bytes `checkpoint_push` takes now; 0 while the disk is behind, or when there is none in progress.
    pub fn checkpoint_room(&self, origin: CheckpointOrigin) -> usize {
        self.writers[slot_of(origin)].as_ref().map_or(0, CheckpointWriter::room)
    }

    /// Adds to the body of the checkpoint in progress.
    ///
    /// Requires: there is room. Without a checkpoint in progress, because it has failed, the bytes are dropped.
    pub fn checkpoint_push(&mut self, origin: CheckpointOrigin, bytes: &[u8]) {
        if let Some(writer) = &mut self.writers[slot_of(origin)] {
            writer.push(bytes, &mut self.disk);
        }
    }

    /// The body is complete; [`Event::CheckpointDurable`] follows when it is verified and in its
    /// place. Each checkpoint that is begun ends with exactly one event.
    pub fn checkpoint_finish(&mut self, origin: CheckpointOrigin) {
        if let Some(writer) = &mut self.writers[slot_of(origin)] {
            writer.finish(&mut self.disk);
        }
    }

    /// Gives the checkpoint in progress up. However far it is, [`Event::CheckpointFailed`] with
    /// [`CheckpointError::Aborted`] ends it and nothing of it is left. Without one in progress,
    /// because the event that ended it has come, this does nothing.
    pub fn checkpoint_abort(&mut self, origin: CheckpointOrigin) {
        if let Some(writer) = &mut self.writers[slot_of(origin)] {
            writer.abort(&mut self.disk);
        }
    }

    /// Durable checkpoints, newest first: at most two and those that are pinned.
    pub fn checkpoints(&self) -> &[CheckpointInfo] {
        self.retained.infos()
    }

    /// Keeps a checkpoint, and the log after it, until it is unpinned as often; none if it is not there.
    pub fn pin_checkpoint(&mut self, index: u64) -> Option<CheckpointInfo> {
        self.retained.pin(index)
    }

    /// Ends a pin. What it alone held goes with the next turns; [`Event::LogStart`] tells how far.
    pub fn unpin_checkpoint(&mut self, index: u64) {
        self.retained.unpin(index);
    }

    /// Asks for body bytes of a checkpoint, at most 1 MiB of them. [`Event::CheckpointBytes`] answers with `id`; empty
    /// bytes are the end.
    pub fn read_checkpoint(&mut self, id: u64, index: u64, offset: u64, bytes: usize) {
        let mut context = Context {
            log: &self.log,
            reader: &self.reader,
            slots: &mut self.slots,
            retained: &mut self.retained,
            disk: &mut self.disk,
            events: &mut self.early,
        };
        self.reads.begin_body(id, index, offset, bytes, &mut context);
    }

    // The turn.

    fn check(&self) -> Result<(), EngineError> {
        match &self.halted {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn halt(&mut self, error: EngineError) -> EngineError {
        self.halted.get_or_insert(error).clone()
    }

    fn take_completions(&mut self, now_us: u64, events: &mut Vec<Event>) -> Result<(), Fault> {
        let mut completions = std::mem::take(&mut self.completions);
        let mut acknowledged = Acknowledged::default();
        for completion in completions.drain(..) {
            self.take(completion, now_us, &mut acknowledged, events)?;
        }
        self.completions = completions;
        self.report(acknowledged, events);
        Ok(())
    }

    fn take(
        &mut self,
        completion: Completion,
        now_us: u64,
        acknowledged: &mut Acknowledged,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let Completion { tag, result } = completion;
        match Owner::of(tag) {
            Owner::Frame(seq) => {
                if let Err(source) = result
                    && !mutant::is(Mutant::WriteErrorIgnored)
                {
                    let slots = self.log.slots_in_use().last().map(slot_path);
                    let what = format!("write frame {seq} to {}", slots.unwrap_or_default());
                    return Err(Fault { what, source });
                }
                acknowledged.extend(self.log.complete(seq, now_us));
                Ok(())
            }
            Owner::Slot => self.slots.complete(now_us, result, &mut self.disk),
            Owner::Removal => self.retained.complete(result),
            Owner::Checkpoint(origin, _) => {
                let writer = self.writers[slot_of(origin)].as_mut();
                let writer = writer.expect("a writer stays while something of it is in flight");
                if let Some(outcome) = writer.complete(result, &mut self.disk)? {
                    self.end_checkpoint(origin, outcome, events);
                }
                Ok(())
            }
            Owner::Read(number) => {
                let mut context = Context {
                    log: &self.log,
                    reader: &self.reader,
                    slots: &mut self.slots,
                    retained: &mut self.retained,
                    disk: &mut self.disk,
                    events,
                };
                self.reads.complete(number, result, &mut context);
                Ok(())
            }
            Owner::Blocking(_) => unreachable!("a blocking call takes its own completions"),
        }
    }

    fn end_checkpoint(
        &mut self,
        origin: CheckpointOrigin,
        outcome: Outcome,
        events: &mut Vec<Event>,
    ) {
        let writer = self.writers[slot_of(origin)].take().expect("it has just ended");
        self.checkpoint_bytes += writer.written_bytes();
        if origin == CheckpointOrigin::Installed
            && let Some(upto) = self.settle_after.take()
        {
            self.log.release_values_upto(upto);
        }
        match outcome {
            Outcome::Failed(error) => events.push(Event::CheckpointFailed { origin, error }),
            Outcome::Durable(kept) => {
                let info = kept.info();
                if let Some(CheckpointInfo { at: newest, .. }) = self.retained.newest()
                    && newest.index >= info.at.index
                {
                    // The other origin was faster and further.
                    self.retained.discard(&kept);
                    let error = CheckpointError::NotNewer { at: info.at, newest };
                    events.push(Event::CheckpointFailed { origin, error });
                    return;
                }
                self.retained.publish(kept);
                let consumed = self.log_bytes_at_begin[slot_of(origin)];
                self.log_bytes_at_checkpoint = LogBytes { before: 0, consumed };
                events.push(Event::CheckpointDurable { origin, info });
            }
        }
    }

    fn report(&mut self, acknowledged: Acknowledged, events: &mut Vec<Event>) {
        if let Some(write) = acknowledged.write {
            events.push(Event::Durable { write });
        }
        if acknowledged.reset {
            events.push(Event::LogStart { log_start: self.log.index().start() });
        }
        if acknowledged.repaired {
            let faulty = self.log.index().unrepaired(self.log.durable_seq());
            events.push(Event::Repaired { faulty });
        }
        if acknowledged.slowest_us >= SLOW_WRITE_US {
            events.push(Event::SlowWrite { latency_us: acknowledged.slowest_us });
        }
    }

    /// Sends frames and advances the jobs. Whether a frame was sent.
    fn send(&mut self, now_us: u64, events: &mut Vec<Event>) -> bool {
        // News when a checkpoint is durable, or the last reader of an old one has gone.
        if self.retained.covered().is_some_and(|covered| self.log.maybe_purge_upto(covered)) {
            events.push(Event::LogStart { log_start: self.log.index().start() });
        }
        self.free_slots();
        let has_sent = self.send_frames(now_us, events);
        let mut context = Context {
            log: &self.log,
            reader: &self.reader,
            slots: &mut self.slots,
            retained: &mut self.retained,
            disk: &mut self.disk,
            events,
        };
        self.reads.advance(&mut context);
        self.retained.advance(&mut self.disk);
        self.slots.replenish(now_us, &mut self.disk);
        self.observe_room(events);
        has_sent
    }

    /// A slot without a live entry is held while a checkpoint has values in it, then waits for its readers. What was
    /// written since the oldest checkpoint lies in the log, so values that are live now are in one or the other.
    fn free_slots(&mut self) {
        self.log.give_up_slots(&mut self.freed);
        let is_news = !self.freed.is_empty() || self.retained.take_changed();
        if is_news {
            self.held.extend(self.freed.drain(..));
            let needed = if mutant::is(Mutant::HeldSlotFreed) {
                BTreeSet::new()
            } else {
                self.retained.slots()
            };
            let unneeded: Vec<u32> = self.held.difference(&needed).copied().collect();
            self.held.retain(|slot| needed.contains(slot));
            if !unneeded.is_empty() {
                self.limbo.give_up(unneeded);
            }
        }
        for slot in self.limbo.take_free() {
            self.slots.free(slot);
        }
    }

    fn send_frames(&mut self, now_us: u64, events: &mut Vec<Event>) -> bool {
        let mut has_sent = false;
        loop {
            let mut acknowledged = Acknowledged::default();
            let built = self.log.next_frame(now_us, self.slots.ready(), &mut acknowledged);
            self.report(acknowledged, events);
            let placed = self.log.take_placed();
            events.extend(placed.map(|(id, location)| Event::ValuesPlaced { id, location }));
            let Some(Built { seq, slot, offset, frame, opens_slot }) = built else {
                return has_sent;
            };
            if opens_slot {
                self.slots.take(slot);
            }
            let (file, buf) = (self.slots.file(slot), WriteBuf::Frame(frame));
            let op = Op::Write { file, offset, buf, sync: WriteSync::Durable };
            self.disk.submit(Class::Commit, Owner::Frame(seq).tag(), op);
            has_sent = true;
        }
    }

    fn observe_room(&mut self, events: &mut Vec<Event>) {
        let room = if self.slots.is_starved() { Room::Low } else { Room::Plenty };
        if room != self.room {
            self.room = room;
            events.push(Event::RoomChanged(room));
        }
    }
}

/// Reads a checkpoint from its header to its footer.
fn stream(
    io: &mut Blocking<'_>,
    file: FileId,
    log_id: u128,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Check>,
) -> Result<(), Unusable> {
    let mut bytes = Vec::new();
    io.read_whole(file, 0, CHECKPOINT_HEADER_BYTES as u64, &mut bytes)?;
    let (header, checksum) = CheckpointHeader::decode(&bytes, log_id, u64::MAX)?;
    let mut verifier = Verifier::new(header, checksum);
    verify(io, file, &mut verifier, header.info.stored_bytes(), sink)
}

fn slot_of(origin: CheckpointOrigin) -> usize {
    match origin {
        CheckpointOrigin::Local => 0,
        CheckpointOrigin::Installed => 1,
    }
}
