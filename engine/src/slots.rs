//! The slot files: making them ahead of need, and who uses which.
//!
//! A slot is made under a temporary name: allocated, filled with zeros, synced, renamed, its directory synced. So a
//! file with a slot's constant name is pre-written for ever, and a later write to it changes bytes alone.
//!
//! The last free slots are a reserve, so that a full file system can be cleaned out of and a vote still be cast:
//!
//! ```text
//! free slots   slots_to_keep            slots_to_free       slots_ready
//!              Upkeep; when it is       Entries, Cleaning   Entries
//!              full, Cleaning too but   but only when it    Cleaning, but for one
//!              for the last one         is full             if there are two or more
//! ```
//!
//! The reserve is filled before entries take what is above it, so it is there before the file system is full. While a
//! directory is young it grows with it, one for every second slot, so that the first entries need not wait for all of it.
//!
//! Invariants: slot numbers are dense from 0; a free slot is handed out only when no reader of its last life is left.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::buffer::AlignedBuf;
use crate::error::Fault;
use crate::format::{SLOT_DIR, slot_path, slot_temporary_path};
use crate::io::{Class, Disk, Done, FileId, Op, OpenMode, WriteBuf, WriteSync};
use crate::mutant::{self, Mutant};
use crate::options::Options;
use crate::tags::Owner;

/// Zeros written at once: a commit may have to wait for them.
const ZERO_BYTES: u64 = 256 << 10;
/// How long after a full file system the next attempt to take space follows.
pub(crate) const RETRY_US: u64 = 1_000_000;

/// What a free slot is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Entries, and values of a snapshot. Which entries are written on a full file system, their proposer decides by
    /// the room it is told ([`crate::Room`]).
    Entries,
    /// The cleaner, which gives back more than it takes; but later, so it leaves one slot to hard state.
    Cleaning,
    /// What must go on whatever the room: hard state and resets.
    Upkeep,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Free,
    InUse,
}

#[derive(Debug)]
struct Slot {
    file: FileId,
    usage: Use,
    readers: u32,
    /// How often it has been opened as a segment since the open.
    life: u64,
}

/// A slot in the making: each step is submitted when the one before has completed.
#[derive(Debug)]
struct Making {
    slot: u32,
    file: Option<FileId>,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Creating,
    Allocating,
    Zeroing {
        offset: u64,
    },
    Syncing,
    Renaming,
    SyncingDir,
    /// The file system was full: what was made is taken back.
    Closing,
    Removing,
}

/// All slots of a directory.
#[derive(Debug)]
pub(crate) struct SlotTable {
    slots: Vec<Slot>,
    /// Those that are free and not read.
    ready: BTreeSet<u32>,
    making: Option<Making>,
    slot_bytes: u64,
    /// How many are free when all is well.
    ready_target: usize,
    to_free: usize,
    to_keep: usize,
    /// Not for the cleaner: entries would wait until another one is made.
    to_entries: usize,
    zeros: Arc<AlignedBuf>,
    /// No attempt before this time, after the file system was full.
    retry_at_us: Option<u64>,
    /// What comes before slots finds no space.
    is_held_up: bool,
    zeroed_bytes: u64,
}

impl SlotTable {
    /// The slots that exist, by number; all free until told otherwise.
    pub(crate) fn new(files: Vec<FileId>, options: &Options) -> SlotTable {
        let Options { slot_bytes, slots_ready, slots_to_free, slots_to_keep, .. } = *options;
        let zeros = usize::try_from(ZERO_BYTES.min(slot_bytes)).expect("at most 256 KiB");
        SlotTable {
            ready: (0..).take(files.len()).collect(),
            slots: files.into_iter().map(Slot::free).collect(),
            making: None,
            slot_bytes,
            ready_target: slots_ready + slots_to_free + slots_to_keep,
            to_free: slots_to_free,
            to_keep: slots_to_keep,
            to_entries: (slots_ready - 1).min(1),
            zeros: Arc::new(AlignedBuf::zeroed(zeros)),
            retry_at_us: None,
            is_held_up: false,
            zeroed_bytes: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    pub(crate) fn zeroed_bytes(&self) -> u64 {
        self.zeroed_bytes
    }

    pub(crate) fn file(&self, slot: u32) -> FileId {
        self.slots[slot as usize].file
    }

    /// A slot that can be opened as a segment for this purpose.
    pub(crate) fn ready_for(&self, purpose: Purpose) -> Option<u32> {
        let is_reserved = self.ready_count() <= self.reserved_from(purpose);
        let is_free = !is_reserved || mutant::is(Mutant::ReserveTaken);
        self.ready.first().copied().filter(|_| is_free)
    }

    /// How many free slots are not for this purpose.
    fn reserved_from(&self, purpose: Purpose) -> usize {
        let reserved = match purpose {
            Purpose::Upkeep => 0,
            Purpose::Cleaning if self.is_starved() => self.to_keep.min(1),
            Purpose::Entries if self.is_starved() => self.to_keep,
            Purpose::Entries => self.to_keep + self.to_free,
            Purpose::Cleaning => self.to_keep + self.to_free + self.to_entries,
        };
        reserved.min(self.slots.len().saturating_sub(1) / 2)
    }

    /// How many slots entries may take before they must wait, although the file system is full.
    pub(crate) fn ready_for_entries(&self) -> usize {
        let kept = self.to_keep.min(self.slots.len().saturating_sub(1) / 2);
        self.ready_count().saturating_sub(kept)
    }

    /// Whether entries get no further slot until one is freed or made.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_starved() && self.ready_for(Purpose::Entries).is_none()
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn take(&mut self, slot: u32) {
        self.change(slot, |slot| {
            assert!(slot.usage == Use::Free);
            slot.usage = Use::InUse;
            slot.life += 1;
        });
    }

    /// Tells the uses of a slot apart: another one after it has been opened anew.
    pub(crate) fn life(&self, slot: u32) -> u64 {
        self.slots[slot as usize].life
    }

    pub(crate) fn free(&mut self, slot: u32) {
        self.change(slot, |slot| {
            assert!(slot.usage == Use::InUse);
            slot.usage = Use::Free;
        });
    }

    pub(crate) fn begin_read(&mut self, slot: u32) {
        self.change(slot, |slot| slot.readers += 1);
    }

    pub(crate) fn end_read(&mut self, slot: u32) {
        self.change(slot, |slot| {
            assert!(slot.readers > 0);
            slot.readers -= 1;
        });
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut Slot)) {
        let slot = &mut self.slots[number as usize];
        change(slot);
        if slot.is_ready() {
            self.ready.insert(number);
        } else {
            self.ready.remove(&number);
        }
    }

    /// Whether the file system was full when the last slot was to be made, and too few are ready; or if what comes
    /// before slots finds no space.
    pub(crate) fn is_starved(&self) -> bool {
        self.is_held_up || self.is_short()
    }

    fn is_short(&self) -> bool {
        self.retry_at_us.is_some() && self.ready_count() < self.ready_target
    }

    /// Whether the file system was full, and fewer than twice as many slots are free as should be.
    pub(crate) fn is_soon_starved(&self) -> bool {
        self.retry_at_us.is_some() && self.ready_count() < 2 * self.ready_target
    }

    /// Whether what comes before slots finds no space.
    pub(crate) fn hold_up(&mut self, is_held_up: bool) {
        self.is_held_up = is_held_up;
    }

    /// When the next attempt is due, if one is needed.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        self.retry_at_us.filter(|_| self.making.is_none() && self.is_short())
    }

    /// Begins to make a slot if too few are ready.
    pub(crate) fn replenish(&mut self, now_us: u64, disk: &mut dyn Disk) {
        let is_early = self.retry_at_us.is_some_and(|at| now_us < at);
        if self.making.is_some() || is_early || self.ready_count() >= self.ready_target {
            return;
        }
        let slot = u32::try_from(self.slots.len()).expect("slots are numbered in 32 bits");
        self.making = Some(Making { slot, file: None, step: Step::Creating });
        let mode = OpenMode::CreateNew;
        self.submit(disk, Op::Open { path: slot_temporary_path(slot), mode });
    }

    /// The step in progress has ended.
    pub(crate) fn complete(
        &mut self,
        now_us: u64,
        result: io::Result<Done>,
        disk: &mut dyn Disk,
    ) -> Result<(), Fault> {
        let mut making =
            self.making.take().expect("a completion belongs to the slot in the making");
        match result {
            Ok(done) => self.proceed(making, &done, disk),
            Err(_) if making.step == Step::Syncing && mutant::is(Mutant::SyncErrorIgnored) => {
                self.proceed(making, &Done::Nothing, disk);
            }
            Err(error) if making.may_be_full() && is_full(&error) => {
                self.retry_at_us = Some(now_us.saturating_add(RETRY_US));
                making.step = match making.file {
                    Some(_) => Step::Closing,
                    None => return Ok(()),
                };
                self.submit(disk, making.op());
                self.making = Some(making);
            }
            Err(source) => {
                let what = format!("{} {}", making.verb(), slot_path(making.slot));
                return Err(Fault { what, source });
            }
        }
        Ok(())
    }

    fn proceed(&mut self, mut making: Making, done: &Done, disk: &mut dyn Disk) {
        if let Done::Opened { file, .. } = done {
            making.file = Some(*file);
        }
        let next = match making.step {
            Step::Creating => Step::Allocating,
            Step::Allocating => Step::Zeroing { offset: 0 },
            Step::Zeroing { offset } => {
                self.zeroed_bytes += ZERO_BYTES;
                let offset = offset + ZERO_BYTES;
                if offset < self.slot_bytes { Step::Zeroing { offset } } else { Step::Syncing }
            }
            Step::Syncing => Step::Renaming,
            Step::Renaming if !mutant::is(Mutant::SlotDirNotSynced) => Step::SyncingDir,
            Step::Renaming | Step::SyncingDir => {
                let file = making.file.expect("the first step opened it");
                self.ready.insert(making.slot);
                self.slots.push(Slot::free(file));
                self.retry_at_us = None;
                return;
            }
            Step::Closing => Step::Removing,
            Step::Removing => return,
        };
        making.step = next;
        let op = match next {
            Step::Allocating => Op::Allocate { file: making.open_file(), bytes: self.slot_bytes },
            Step::Zeroing { offset } => {
                let buf = WriteBuf::Owned(Arc::clone(&self.zeros));
                Op::Write { file: making.open_file(), offset, buf, sync: WriteSync::Deferred }
            }
            Step::Creating
            | Step::Syncing
            | Step::Renaming
            | Step::SyncingDir
            | Step::Closing
            | Step::Removing => making.op(),
        };
        self.submit(disk, op);
        self.making = Some(making);
    }

    /// A step of the slot in the making. If no other one is ready, entries will wait for it when theirs is full: then
    /// it goes before what merely has to be done sometime.
    fn submit(&self, disk: &mut dyn Disk, op: Op) {
        let is_needed = self.ready_for(Purpose::Entries).is_none();
        let class = if is_needed { Class::Growth } else { Class::Background };
        disk.submit(class, Owner::Slot.tag(), op);
    }
}

impl Slot {
    fn free(file: FileId) -> Slot {
        Slot { file, usage: Use::Free, readers: 0, life: 0 }
    }

    fn is_ready(&self) -> bool {
        self.usage == Use::Free && self.readers == 0
    }
}

impl Making {
    fn open_file(&self) -> FileId {
        self.file.expect("the first step opened it")
    }

    /// Whether this step may find the file system full. A sync that reports it is as final as any.
    fn may_be_full(&self) -> bool {
        matches!(self.step, Step::Creating | Step::Allocating | Step::Zeroing { .. })
    }

    fn verb(&self) -> &'static str {
        match self.step {
            Step::Creating => "create",
            Step::Allocating => "allocate",
            Step::Zeroing { .. } => "write",
            Step::Syncing => "sync",
            Step::Renaming => "rename",
            Step::SyncingDir => "sync directory of",
            Step::Closing => "close",
            Step::Removing => "remove",
        }
    }

    /// The operation of a step that needs nothing but the slot's number and file.
    fn op(&self) -> Op {
        match self.step {
            Step::Syncing => Op::Sync { file: self.open_file() },
            Step::Renaming => {
                Op::Rename { from: slot_temporary_path(self.slot), to: slot_path(self.slot) }
            }
            Step::SyncingDir => Op::SyncDir { path: SLOT_DIR.to_owned() },
            Step::Closing => Op::Close { file: self.open_file() },
            Step::Removing => Op::Remove { path: slot_temporary_path(self.slot) },
            Step::Creating | Step::Allocating | Step::Zeroing { .. } => {
                unreachable!("these steps are submitted where they begin")
            }
        }
    }
}

/// Whether the file system or a quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cleaner took the last slot that was ready, and what was appended next waited until another one was made.
    #[test]
    fn each_purpose_leaves_what_is_reserved_from_it() {
        let options =
            Options { slots_ready: 2, slots_to_free: 2, slots_to_keep: 2, ..Options::default() };
        let mut slots = SlotTable::new((0..14).map(FileId).collect(), &options);
        let mut left_by = |purpose| {
            while let Some(slot) = slots.ready_for(purpose) {
                slots.take(slot);
            }
            slots.ready_count()
        };
        let order = [Purpose::Cleaning, Purpose::Entries, Purpose::Upkeep];
        assert_eq!(order.map(&mut left_by), [5, 4, 0]);
    }
}
