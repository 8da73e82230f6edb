//! The checkpoints that are kept: the two newest, and those that somebody still reads.
//!
//! Invariant: the log reaches back to the oldest of them, and as far before it as it states: a bad newest one costs
//! nothing, and a peer that is sent one finds in the log what follows it (P40). None keeps more than an older one. Neither does a slot go that holds a value of one of them.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use crate::checkpoint::file_bytes_of;
use crate::error::Fault;
use crate::format::checkpoint_path;
use crate::io::{Class, Disk, Done, FileId, Op};
use crate::mutant::{self, Mutant};
use crate::slots::is_full;
use crate::tags::Owner;
use crate::types::{CheckpointInfo, Position, ValueSlots};

/// How many are kept although nobody reads them.
pub(crate) const KEPT_COUNT: usize = 2;

/// A durable, verified checkpoint, open for reading.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    info: CheckpointInfo,
    salt: u64,
    file: FileId,
    /// Those that hold values of it, ascending.
    slots: Vec<u32>,
    /// The number of its state among those that were shown since the open; 0 if it is older.
    shown: u64,
    pins: u32,
    readers: u32,
}

impl Kept {
    pub(crate) fn new(info: CheckpointInfo, salt: u64, file: FileId, slots: ValueSlots) -> Kept {
        let ValueSlots { slots, shown } = slots;
        Kept { info, salt, file, slots, shown, pins: 0, readers: 0 }
    }

    /// The slots that hold values of it.
    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// The number of its state.
    pub(crate) fn shown(&self) -> u64 {
        self.shown
    }

    pub(crate) fn info(&self) -> CheckpointInfo {
        self.info
    }

    pub(crate) fn salt(&self) -> u64 {
        self.salt
    }

    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    fn is_read(&self) -> bool {
        self.pins > 0 || self.readers > 0
    }
}

/// A step of one that goes: its name first, then its blocks a few at a time, because a device that is told to discard
/// half a gigabyte at once stands still for tens of milliseconds; commits beside it, too.
#[derive(Debug)]
enum Removal {
    Remove(String),
    Shrink(FileId, u64),
    Close(FileId),
}

/// Bytes of a file without a name that are given up in one step.
const SHRINK_BYTES: u64 = 8 << 20;

/// All of them, newest first.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    kept: Vec<Kept>,
    infos: Vec<CheckpointInfo>,
    removals: VecDeque<Removal>,
    is_removing: bool,
    has_changed: bool,
}

impl Retained {
    /// Requires: newest first.
    pub(crate) fn new(kept: Vec<Kept>) -> Retained {
        let mut retained = Retained { kept, ..Retained::default() };
        retained.list();
        retained
    }

    pub(crate) fn infos(&self) -> &[CheckpointInfo] {
        &self.infos
    }

    pub(crate) fn newest(&self) -> Option<CheckpointInfo> {
        self.infos.first().copied()
    }

    /// Everything up to here is in every checkpoint that is kept, and none of them keeps it in the log; none while there
    /// are not two.
    pub(crate) fn covered(&self) -> Option<Position> {
        if mutant::is(Mutant::SlotFreedEarly) {
            return self.newest().map(|info| info.keeps_after);
        }
        self.infos.last().filter(|_| self.infos.len() >= KEPT_COUNT).map(|info| info.keeps_after)
    }

    /// The number of the oldest state in them; none while there are not two.
    pub(crate) fn oldest_shown(&self) -> Option<u64> {
        let oldest = self.kept.iter().map(|kept| kept.shown).min();
        oldest.filter(|_| self.kept.len() >= KEPT_COUNT)
    }

    /// The slots that hold values of any of them.
    pub(crate) fn slots(&self) -> BTreeSet<u32> {
        self.kept.iter().flat_map(|kept| kept.slots.iter().copied()).collect()
    }

    pub(crate) fn find(&self, index: u64) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.info.at.index == index)
    }

    /// The one of the lowest index from `index` on.
    pub(crate) fn first_from(&self, index: u64) -> Option<&Kept> {
        self.kept.iter().rev().find(|kept| kept.info.at.index >= index)
    }

    fn find_mut(&mut self, index: u64) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|kept| kept.info.at.index == index)
    }

    /// Requires: it is newer than all others.
    pub(crate) fn publish(&mut self, kept: Kept) {
        assert!(self.newest().is_none_or(|newest| newest.at.index < kept.info.at.index));
        // The log starts where the oldest one says: a newer one that kept more could not.
        assert!(self.newest().is_none_or(|newest| newest.keeps_after <= kept.info.keeps_after));
        self.kept.insert(0, kept);
        self.collect();
    }

    pub(crate) fn pin(&mut self, index: u64) -> Option<CheckpointInfo> {
        let kept = self.find_mut(index)?;
        kept.pins += 1;
        Some(kept.info)
    }

    pub(crate) fn unpin(&mut self, index: u64) {
        if let Some(kept) = self.find_mut(index) {
            assert!(kept.pins > 0, "checkpoint {index} is not pinned");
            kept.pins -= 1;
        }
        self.collect();
    }

    /// The oldest that somebody keeps. What it holds is not freed before.
    pub(crate) fn pinned(&self) -> Option<&Kept> {
        self.kept.iter().rev().find(|kept| kept.pins > 0)
    }

    /// Whether a checkpoint that somebody keeps has values in this slot.
    pub(crate) fn is_pinned(&self, slot: u32) -> bool {
        let mut pinned = self.kept.iter().filter(|kept| kept.pins > 0);
        pinned.any(|kept| kept.slots.binary_search(&slot).is_ok())
    }

    pub(crate) fn begin_read(&mut self, index: u64) {
        self.find_mut(index).expect("a read is begun of a kept checkpoint").readers += 1;
    }

    pub(crate) fn end_read(&mut self, index: u64) {
        self.find_mut(index).expect("a checkpoint stays while it is read").readers -= 1;
        self.collect();
    }

    /// Removes one that was never published.
    pub(crate) fn discard(&mut self, kept: &Kept) {
        self.remove(kept.info, kept.file);
    }

    fn remove(&mut self, info: CheckpointInfo, file: FileId) {
        self.removals.push_back(Removal::Remove(checkpoint_path(info.at.index)));
        let mut bytes = file_bytes_of(info.stored_bytes()).unwrap_or(0);
        while bytes > SHRINK_BYTES {
            bytes = (bytes - 1) / SHRINK_BYTES * SHRINK_BYTES;
            self.removals.push_back(Removal::Shrink(file, bytes));
        }
        self.removals.push_back(Removal::Close(file));
    }

    fn collect(&mut self) {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.kept)
            .into_iter()
            .enumerate()
            .partition(|(at, kept)| *at < KEPT_COUNT || kept.is_read());
        self.kept = kept.into_iter().map(|(_, kept)| kept).collect();
        for (_, Kept { info, file, .. }) in gone {
            self.remove(info, file);
        }
        self.list();
    }

    /// Whether one came or went since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    fn list(&mut self) {
        self.has_changed = true;
        self.infos = self.kept.iter().map(|kept| kept.info).collect();
    }

    /// Whether what was removed still has space to give back.
    pub(crate) fn is_removing(&self) -> bool {
        self.is_removing || !self.removals.is_empty()
    }

    /// Submits the next step of a removal.
    pub(crate) fn advance(&mut self, disk: &mut dyn Disk) {
        if self.is_removing {
            return;
        }
        let Some(removal) = self.removals.pop_front() else { return };
        let op = match removal {
            Removal::Remove(path) => Op::Remove { path },
            Removal::Shrink(file, bytes) => Op::Allocate { file, bytes },
            Removal::Close(file) => Op::Close { file },
        };
        self.is_removing = true;
        disk.submit(Class::Background, Owner::Removal.tag(), op);
    }

    /// That step has ended. A file that is gone already is as good; and where a file system wants room to make a file
    /// shorter and has none, closing it frees all of it.
    pub(crate) fn complete(&mut self, result: io::Result<Done>) -> Result<(), Fault> {
        self.is_removing = false;
        match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound && !is_full(&source) => {
                Err(Fault { what: "remove an old checkpoint".to_owned(), source })
            }
            _ => Ok(()),
        }
    }
}
