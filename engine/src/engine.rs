//! The engine as its caller's loop sees it: `append` and the `begin` calls take in, `turn` moves everything on.
//!
//! The caller's loop: append any number of writes, then `turn`, then act on the events, then `wait`.
//!
//! Invariants:
//! - Nothing here waits for the device, except `wait` and the two calls that say so.
//! - Any error of a write, sync, rename or directory sync is final: nothing is acknowledged any more (P4).
//! - A background job does one small step for each completion, so a turn stays short.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::blocking::Blocking;
use crate::checkpoint::{CheckpointHeader, Verifier, file_bytes_of};
use crate::checkpoint_writer::{CheckpointWriter, Outcome};
use crate::cleaner::ValueIndex;
use crate::cleaning::{CleanContext, Cleaning};
use crate::error::{Check, CheckpointError, EngineError, Fault, OpenError, Unusable};
use crate::format::{CHECKPOINT_HEADER_BYTES, META_APPLICATION_BYTES_MAX, TERM_UNKNOWN, slot_path};
use crate::holes::FaultyRange;
use crate::io::{Class, Completion, Disk, Done, FileId, Op, Wake, WriteBuf, WriteSync};
use crate::log::{Acknowledged, Built, Log};
use crate::meta;
use crate::mutant::{self, Mutant};
use crate::opening::verify;
use crate::pins::Limbo;
use crate::reads::{Context, Reads};
use crate::retained::{self, KEPT_COUNT, Retained};
use crate::room::{Gauge, Reading as RoomReading};
use crate::scrub::{self, Scrub};
use crate::slots::{Purpose, SlotTable};
use crate::space::Limited;
use crate::spare::Spare;
use crate::tags::Owner;
use crate::types::{
    Append, CheckpointInfo, CheckpointOrigin, Event, Location, Meta, Position, Room, Status,
    ValueSlots, ValuesOwner, Wanted,
};
use crate::value_batch::ValueBatch;
use crate::value_log::{PlacedValues, ValueLog};
use crate::values::{Reader, Reading};

/// The most that is reserved for a checkpoint on the word of whoever announces it: 4 TiB.
const CHECKPOINT_RESERVED_BYTES_MAX: u64 = 1 << 42;

/// A frame that takes this long is worth a word to the operator.
const SLOW_WRITE_US: u64 = 100_000;

/// The log and the checkpoints of one directory.
pub struct Engine<D: Disk> {
    disk: Limited<D>,
    /// Names the directory in messages.
    dir: String,
    meta: Meta,
    log: Log,
    slots: SlotTable,
    retained: Retained,
    values: ValueLog,
    /// How many states have been shown for a checkpoint.
    shown: u64,
    cleaning: Cleaning,
    /// Slots without a live entry that hold values of a checkpoint, and how much had been written when they became so.
    held: BTreeMap<u32, u64>,
    spare: Spare,
    /// Whose checkpoint has taken the spare file over.
    spare_lent_to: Option<CheckpointOrigin>,
    /// What the caller expects of the next checkpoint, in bytes of its body.
    expected_bytes: u64,
    /// Checkpoints keep the log from this entry on.
    kept_from: u64,
    /// Slots that nobody needs, until nobody reads them either.
    limbo: Limbo,
    reader: Reader,
    reads: Reads,
    scrub: Scrub,
    /// Local, installed.
    writers: [Option<CheckpointWriter>; 2],
    /// The newest name of the values of the installed checkpoint in progress.
    installed_upto: u64,
    /// Values that are dropped when the installed checkpoint in progress has ended, by their newest name.
    drop_after: Option<u64>,
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
    gauge: Gauge,
    halted: Option<EngineError>,
}

/// What an open has put together.
pub(crate) struct Parts {
    pub(crate) meta: Meta,
    pub(crate) slots: SlotTable,
    pub(crate) log: Log,
    pub(crate) values: ValueLog,
    pub(crate) cleaning: Cleaning,
    pub(crate) retained: Retained,
    pub(crate) spare: Spare,
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
    pub(crate) fn new(disk: Limited<D>, dir: String, parts: Parts) -> Engine<D> {
        let Parts { meta, mut slots, log, values, cleaning, retained, spare } = parts;
        let in_log: BTreeSet<u32> = log.slots_in_use().collect();
        let held = retained.slots().difference(&in_log).map(|slot| (*slot, 0)).collect();
        in_log.union(&retained.slots()).for_each(|slot| slots.take(*slot));
        let limbo = Limbo::default();
        let reader = Reader::new(log.shared_tail(), log.options().cache_bytes_max, limbo.pins());
        let seq = retained.newest().map_or(0, |newest| newest.durable_seq);
        let before = log.bytes_after(seq);
        let scrub = Scrub::new(log.options().scrub_bytes_per_second);
        let gauge = Gauge::new(meta.slot_bytes);
        Engine {
            disk,
            dir,
            meta,
            log,
            slots,
            retained,
            values,
            shown: 0,
            cleaning,
            spare,
            spare_lent_to: None,
            expected_bytes: 0,
            kept_from: u64::MAX,
            held,
            limbo,
            reader,
            reads: Reads::default(),
            scrub,
            writers: [None, None],
            installed_upto: 0,
            drop_after: None,
            attempts: 0,
            checkpoint_bytes: 0,
            log_bytes_at_checkpoint: LogBytes { before, consumed: 0 },
            log_bytes_at_begin: [0; 2],
            completions: Vec::new(),
            freed: Vec::new(),
            early: Vec::new(),
            gauge,
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
        let has_ready_slot = self.slots.ready_for(Purpose::Entries).is_some();
        let dues = [
            self.log.next_due_us(has_ready_slot),
            self.slots.next_due_us().filter(|_| self.spare.leaves_room()),
            self.spare.next_due_us(),
            self.cleaning.next_due_us(),
            self.scrub.next_due_us(),
        ];
        dues.into_iter().flatten().min()
    }

    /// Whether every write is durable and the newest promise says so: the moment for a clean stop.
    pub fn is_idle(&self) -> bool {
        self.log.is_settled(self.slots.ready_for(Purpose::Entries).is_some())
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

    /// Queues values that lie in no entry of this log: those of a snapshot. Returns their name;
    /// [`Event::ValuesPlaced`] says where the batch lies, once it is durable. They are those of the next installed checkpoint,
    /// and stay until one is durable or `values_dropped`.
    ///
    /// Requires: at most [`crate::Options::entry_bytes_max`] bytes.
    pub fn append_values(&mut self, mut batch: ValueBatch) -> u64 {
        assert!(batch.len() <= self.entry_bytes_max(), "values are too large");
        self.values.append(ValuesOwner::Snapshot, batch.take())
    }

    /// Names the slots that hold the values of the caller's state as it is now, for the checkpoint of it. Values that
    /// the cleaner moves from now on are not where this state says.
    pub fn value_slots(&mut self, slots: Vec<u32>) -> ValueSlots {
        self.shown += 1;
        ValueSlots { slots, shown: self.shown }
    }

    /// The values that were appended so far, but for those of a durable checkpoint, are nobody's: their slots are free
    /// at once. While an installed checkpoint ends, having been aborted, its values are kept: until its name is gone for
    /// good a power cut may bring it back.
    pub fn values_dropped(&mut self) {
        let upto = self.values.newest_id();
        let is_in_progress = self.writers[slot_of(CheckpointOrigin::Installed)].is_some();
        if is_in_progress && !mutant::is(Mutant::DroppedBeforeItsFile) {
            self.drop_after = Some(upto);
        } else {
            self.values.drop_values(ValuesOwner::Snapshot, upto, self.shown);
        }
    }

    /// Whether values of a snapshot wait for a slot that they do not get before one is freed or made.
    pub fn values_starve(&self) -> bool {
        self.values.needs_slot(ValuesOwner::Snapshot) && self.slots.is_exhausted()
    }

    /// Log bytes after the newest checkpoint, whole slots where a segment has been sealed.
    pub fn log_bytes_since_checkpoint(&self) -> u64 {
        let LogBytes { before, consumed } = self.log_bytes_at_checkpoint;
        before + (self.log.consumed_bytes() - consumed)
    }

    /// Whether there is room, and for which entries.
    pub fn room(&self) -> Room {
        self.gauge.room()
    }

    /// Payload bytes of entries that may be appended now. More might find the file system full, and then wait for slots
    /// that only entries behind them would free.
    pub fn appendable_bytes(&self) -> u64 {
        let slot_bytes = self.meta.slot_bytes;
        let bytes = match self.room() {
            Room::Plenty => {
                let slots = self.slots.ready_for_entries() as u64;
                // A large entry may leave a quarter of a slot unused. The first slots of a directory are not waited for.
                let bytes = self.log.open_bytes_left() + slots * (slot_bytes / 4 * 3);
                bytes.max(slot_bytes / 2)
            }
            Room::Low => self.gauge.pace_bytes_left(self.log.consumed_bytes()),
            Room::Full => 0,
        };
        bytes.saturating_sub(self.log.queued_bytes() as u64)
    }

    /// Whether the file system is full, and few slots are free although there may still be room.
    pub fn is_short_of_slots(&self) -> bool {
        self.slots.is_starved() || self.slots.is_soon_starved()
    }

    /// Bytes that two more checkpoints would give back, the first of them of the state at entry `at`: whole slots in
    /// which nothing is live, and what is dead in those that the cleaner may only look at after them. `live_bytes` tells
    /// what is live in a slot. What a checkpoint keeps that is being read is not among them.
    pub fn freeable_bytes(&self, at: u64, live_bytes: &dyn Fn(u32) -> u64) -> u64 {
        let pinned = self.retained.pinned();
        let at = at.min(self.kept_from.saturating_sub(1));
        let upto = pinned.map_or(at, |kept| at.min(kept.info().keeps_after.index));
        let shown = pinned.map_or(u64::MAX, retained::Kept::shown);
        let is_pinned = |slot| self.retained.is_pinned(slot);
        let waiting = self.log.sealed_upto(upto).chain(self.values.settled_before(shown));
        let dead = |slot: u32, is_victim: bool| match live_bytes(slot) {
            _ if is_pinned(slot) => 0,
            0 => self.meta.slot_bytes,
            live if is_victim => self.meta.slot_bytes.saturating_sub(live),
            _ => 0,
        };
        let waiting = waiting.map(|slot| dead(slot, self.cleaning.is_on()));
        waiting.chain(self.held.keys().map(|slot| dead(*slot, false))).sum()
    }

    /// Entries from `index` on stay in the log although checkpoints hold what they did, for whoever asks what happened:
    /// checkpoints that are begun from now on keep them as long as they are kept themselves. At first none are; after an
    /// open the caller states it anew.
    pub fn keep_log_from(&mut self, index: u64) {
        self.kept_from = index;
    }

    /// The next checkpoint will have about so many bytes of body: space for it is held from now on.
    pub fn expect_checkpoint(&mut self, body_bytes: u64) {
        self.expected_bytes = body_bytes;
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
            slots_held: self.held.len() + self.limbo.count() + self.values.segments_count(),
            slots_values: self.values.segments_count(),
            slots_spared: self.cleaning.spared_count(),
            value_bytes: self.values.frame_bytes(),
            values_moved: self.cleaning.moved().0,
            moved_bytes: self.cleaning.moved().1,
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
            spare_bytes: self.spare.bytes(),
            checkpoint_in_progress: self.writers.iter().any(Option::is_some),
            scrub: self.scrub.status(),
            room: self.gauge.room(),
            faulty: self.log.index().unrepaired(self.log.durable_seq()),
        }
    }

    // Checkpoints.

    /// Begins a checkpoint of the state at `at`, whose values lie in `slots`; these are kept as long as the checkpoint.
    /// `bytes_announced` is reserved first, more is taken if it is needed.
    ///
    /// Errors: another one of this origin is in progress, `at` is not durable here (local), or not newer than the newest.
    pub fn checkpoint_begin(
        &mut self,
        at: Position,
        origin: CheckpointOrigin,
        bytes_announced: u64,
        slots: ValueSlots,
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
            // A peer's entries need not be in this log, and its values were announced when they were durable.
            CheckpointOrigin::Installed => true,
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
        let slots_count = u32::try_from(slots.slots.len()).expect("slots are numbered in 32 bits");
        let header = self.checkpoint_header(at, origin, slots_count);
        // No more is reserved than any file system holds; the rest shows when it is written.
        let announced = bytes_announced.min(CHECKPOINT_RESERVED_BYTES_MAX);
        let spare = self.spare.take();
        if spare.is_some() {
            self.spare_lent_to = Some(origin);
        }
        let (disk, attempt) = (&mut self.disk, self.attempts);
        let writer =
            CheckpointWriter::begin(origin, header, slots, (announced, spare), attempt, disk);
        self.writers[slot_of(origin)] = Some(writer);
        if origin == CheckpointOrigin::Installed {
            self.installed_upto = self.values.newest_id();
        }
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
        let keeps_after = if installed { at } else { self.keeps_after(at) };
        let durable_seq = self.log.durable_seq();
        CheckpointHeader {
            log_id: self.meta.log_id,
            node: self.meta.node,
            info: CheckpointInfo {
                at,
                installed,
                keeps_after,
                body_bytes: 0,
                durable_seq,
                slots_count,
            },
            salt: self.log.next_salt(),
            blocks_crc: 0,
        }
    }

    /// What a checkpoint of the state at `at` keeps of the log: never more than there is, nor than the one before it.
    fn keeps_after(&self, at: Position) -> Position {
        let index = self.kept_from.saturating_sub(1);
        let before = self.retained.newest().map_or(Position::default(), |info| info.keeps_after);
        let start = self.log.index().start().max(before);
        match self.log.index().term_at(index) {
            _ if index >= at.index || mutant::is(Mutant::HistoryDropped) => at,
            Some(term) if index > start.index && term != TERM_UNKNOWN => Position { index, term },
            _ => start,
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
            Owner::Spare => self.spare.complete(now_us, result, &mut self.disk),
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
            Owner::Values => self.values_written(result, events),
            Owner::Cleaner(slot) => {
                self.slots.end_read(slot);
                self.cleaning.arrived(result);
                Ok(())
            }
            Owner::Scrub => {
                let (scrub, mut context) = self.scrubbing();
                scrub.complete(result, &mut context, events);
                Ok(())
            }
            Owner::Blocking(_) => unreachable!("a blocking call takes its own completions"),
        }
    }

    /// A frame of values is durable.
    fn values_written(
        &mut self,
        result: std::io::Result<Done>,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if let Err(source) = result {
            return Err(Fault { what: "write values".to_owned(), source });
        }
        self.announce_values(events);
        Ok(())
    }

    fn announce_values(&mut self, events: &mut Vec<Event>) {
        for PlacedValues { id, owner, location } in self.values.complete() {
            match owner {
                ValuesOwner::Snapshot => events.push(Event::ValuesPlaced { id, location }),
                ValuesOwner::Cleaner => self.cleaning.placed(id, location),
            }
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
        if self.spare_lent_to.take_if(|to| *to == origin).is_some() {
            self.spare.take_back();
        }
        if origin == CheckpointOrigin::Installed {
            self.decide_on_values(&outcome);
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
                self.gauge.checkpoint_begun_at(consumed);
                events.push(Event::CheckpointDurable { origin, info });
            }
        }
    }

    /// The installed checkpoint has ended, and with it what its values waited for. A durable one has them, even if another
    /// was faster: its name is there until its removal is.
    fn decide_on_values(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Durable(_)) {
            self.values.settle(ValuesOwner::Snapshot, self.installed_upto, self.shown);
        }
        if let Some(upto) = self.drop_after.take() {
            self.values.drop_values(ValuesOwner::Snapshot, upto, self.shown);
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
        let has_sent = self.send_frames(now_us, events) | self.send_values(events);
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
        let (scrub, mut context) = self.scrubbing();
        scrub.advance(now_us, &mut context);
        self.hold_space(now_us);
        self.observe_room(events);
        has_sent
    }

    fn scrubbing(&mut self) -> (&mut Scrub, scrub::Context<'_>) {
        let Engine { disk, meta, log, slots, retained, values, held, scrub, .. } = self;
        (scrub, scrub::Context { meta, log, slots, held, values, retained, disk })
    }

    /// The one freeing condition. A slot is needed by the log while a live entry lies in it, by the segments of values
    /// until every checkpoint shows what was moved into it; then it is held while a checkpoint has values in it; then it
    /// waits for its readers. What was written since the oldest checkpoint lies in the log or in a segment of values
    /// that is not given up, so values that are live now are in one of the three.
    fn free_slots(&mut self) {
        self.values.take_sealed().into_iter().for_each(|sealed| self.log.know_sealed(sealed));
        self.log.give_up_slots(&mut self.freed);
        self.values.give_up_slots(self.retained.oldest_shown(), &mut self.freed);
        let is_news = !self.freed.is_empty() || self.retained.take_changed();
        if is_news {
            let since = self.log.consumed_bytes();
            self.held.extend(self.freed.drain(..).map(|slot| (slot, since)));
            self.cleaning.look_again();
            let needed = if mutant::is(Mutant::HeldSlotFreed) {
                BTreeSet::new()
            } else {
                self.retained.slots()
            };
            let unneeded = self.held.keys().copied().filter(|slot| !needed.contains(slot));
            let unneeded: Vec<u32> = unneeded.collect();
            self.held.retain(|slot, _| needed.contains(slot));
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
            let ready_slot = self.slots.ready_for(self.log.purpose());
            let built = self.log.next_frame(now_us, ready_slot, &mut acknowledged);
            self.report(acknowledged, events);
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

    /// Sends the next frame of values, if there is one: the cleaner's first, since what it writes gives slots back.
    /// Whether there was.
    fn send_values(&mut self, events: &mut Vec<Event>) -> bool {
        let waits_behind_snapshot = mutant::is(Mutant::CleanerBehindSnapshot)
            && self.values.has_waiting(ValuesOwner::Snapshot);
        (!waits_behind_snapshot && self.send_values_of(ValuesOwner::Cleaner, events))
            || self.send_values_of(ValuesOwner::Snapshot, events)
    }

    fn send_values_of(&mut self, owner: ValuesOwner, events: &mut Vec<Event>) -> bool {
        let purpose = match owner {
            ValuesOwner::Cleaner => Purpose::Cleaning,
            ValuesOwner::Snapshot => Purpose::Entries,
        };
        let ready_slot = self.slots.ready_for(purpose);
        let Some(built) = self.values.next_frame(owner, ready_slot, self.shown) else {
            return false;
        };
        let Built { slot, offset, frame, opens_slot, .. } = built;
        if opens_slot {
            self.slots.take(slot);
            self.log.begin_life(slot, self.values.open_salt(owner));
        }
        let (file, buf) = (self.slots.file(slot), WriteBuf::Frame(frame));
        let op = Op::Write { file, offset, buf, sync: WriteSync::Durable };
        self.disk.submit(Class::Cleaning, Owner::Values.tag(), op);
        if mutant::is(Mutant::ValuesAnnouncedInFlight) {
            self.announce_values(events);
        }
        true
    }

    // The cleaner.

    /// Whether the cleaner has something to do. It is asked before each [`Engine::clean`].
    pub fn cleans(&mut self, now_us: u64) -> bool {
        let is_starved = self.slots.is_starved();
        self.halted.is_none() && self.cleaning.is_due(now_us, self.log.consumed_bytes(), is_starved)
    }

    /// Lets the cleaner do a little. `index` is the caller's state.
    pub fn clean(&mut self, index: &mut dyn ValueIndex) {
        let mut context = CleanContext {
            slots: &mut self.slots,
            values: &mut self.values,
            held: &self.held,
            written_bytes: self.log.consumed_bytes(),
            shown: self.shown,
            disk: &mut self.disk,
        };
        self.cleaning.work(index, &mut context);
    }

    /// Whether the cleaner would go on at once, so that the caller need not wait.
    pub fn is_cleaning_busy(&self) -> bool {
        self.cleaning.is_busy()
    }

    // Space.

    /// Makes what is needed ahead: space for the next checkpoint, then slots.
    fn hold_space(&mut self, now_us: u64) {
        self.spare.need(self.spare_bytes_needed());
        if !self.retained.is_removing() {
            // What is being removed gives back about as much as is needed.
            self.spare.advance(now_us, &mut self.disk);
        }
        self.slots.hold_up(self.spare.is_starved());
        if self.spare.leaves_room() {
            self.slots.replenish(now_us, &mut self.disk);
        }
    }

    /// What the next checkpoint may take: as much as the newest one, or as the caller expects. While fewer are kept than
    /// should be, nothing goes when it is durable, so what those that are missing take is held as well.
    fn spare_bytes_needed(&self) -> u64 {
        let newest = self.retained.newest().map_or(0, |info| info.stored_bytes());
        let bytes = match newest.max(self.expected_bytes) {
            0 => 0,
            bytes => file_bytes_of(bytes).unwrap_or(u64::MAX),
        };
        let missing = KEPT_COUNT.saturating_sub(self.retained.infos().len());
        bytes.saturating_mul(1 + missing as u64)
    }

    fn observe_room(&mut self, events: &mut Vec<Event>) {
        let reading = RoomReading {
            is_starved: self.slots.is_starved(),
            is_exhausted: self.slots.is_exhausted(),
            open_bytes_left: self.log.open_bytes_left(),
            consumed_bytes: self.log.consumed_bytes(),
        };
        if let Some(room) = self.gauge.observe(reading) {
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
