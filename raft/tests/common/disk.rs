//! A disk that keeps the contract of the write stream and nothing more.
//!
//! Fault model: a crash leaves the state after some write at or above the last acknowledged one,
//! plus any prefix of the steps (hard state, reset, truncation, entries) of the write after it.
//! A snapshot is durable when it is stored, on its own, in no order with the writes.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{
    Batch, HardState, Kind, LogId, LogIndex, Membership, SnapshotMeta, Stored, Term, Write,
    WriteSeq,
};

/// One stored entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// What the log holds at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) start: LogId,
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.start.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let at = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(usize::try_from(at).unwrap())
    }

    pub(crate) fn id(&self, index: LogIndex) -> Option<LogId> {
        if index == self.start.index {
            return Some(self.start);
        }
        self.entry(index).map(|entry| LogId { term: entry.term, index })
    }

    pub(crate) fn contains(&self, id: LogId) -> bool {
        self.id(id.index) == Some(id)
    }

    fn purge(&mut self, start: LogId) {
        assert!(self.contains(start));
        let gone = start.index.0 - self.start.index.0;
        self.entries.drain(..usize::try_from(gone).unwrap());
        self.start = start;
    }

    fn restart_after(&mut self, start: LogId) {
        self.start = start;
        self.entries.clear();
    }

    /// Carries out at most `steps` steps of `write`; returns how many there were.
    fn apply(&mut self, write: &Write, steps: usize) -> usize {
        let mut left = steps;
        let mut step = || {
            let goes_on = left > 0;
            left -= usize::from(goes_on);
            goes_on
        };
        if let Some(hard_state) = write.hard_state
            && step()
        {
            self.hard_state = hard_state;
        }
        if let Some(meta) = &write.reset
            && step()
        {
            self.restart_after(meta.last);
        }
        if let Some(from) = write.truncate_from
            && step()
        {
            assert!(from > self.start.index);
            self.entries.truncate(usize::try_from(from.0 - self.start.index.0 - 1).unwrap());
        }
        for batch in &write.batches {
            for (index, payload) in batch.entries() {
                if step() {
                    assert_eq!(index, self.last_index().next(), "entries leave a gap");
                    self.entries.push(Entry { term: batch.term(), kind: batch.kind(), payload });
                }
            }
        }
        steps - left
    }
}

/// A state machine's state at an index, with what a member must know of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Disk {
    pub(crate) snapshot: Snapshot,
    /// What every crash leaves at least.
    pub(crate) durable: Image,
    /// What is there as long as nothing crashes.
    pub(crate) volatile: Image,
    pub(crate) unacknowledged: VecDeque<Write>,
    /// Entries up to here may be gone.
    pub(crate) purged: LogId,
    last_seq: WriteSeq,
}

impl Disk {
    pub(crate) fn new(membership: Membership) -> Disk {
        let meta = SnapshotMeta { last: LogId::default(), membership };
        Disk {
            snapshot: Snapshot { meta, state: 0 },
            durable: Image::default(),
            volatile: Image::default(),
            unacknowledged: VecDeque::new(),
            purged: LogId::default(),
            last_seq: WriteSeq(0),
        }
    }

    pub(crate) fn write(&mut self, write: Write) {
        assert_eq!(write.seq.0, self.last_seq.0 + 1, "write numbers are dense");
        if let (Some(from), batches) = (write.truncate_from, &write.batches) {
            assert_eq!(batches.first().map(Batch::first), Some(from));
        }
        self.last_seq = write.seq;
        self.volatile.apply(&write, usize::MAX);
        self.unacknowledged.push_back(write);
    }

    /// Makes the oldest `count` writes durable; returns the number of the last.
    pub(crate) fn sync(&mut self, count: usize) -> Option<WriteSeq> {
        let mut upto = None;
        for _ in 0..count {
            let Some(write) = self.unacknowledged.pop_front() else { break };
            self.durable.apply(&write, usize::MAX);
            upto = Some(write.seq);
        }
        self.purge(self.purged);
        upto
    }

    /// A durable snapshot of this node's own state, or one that was received.
    pub(crate) fn store_snapshot(&mut self, snapshot: Snapshot) {
        if snapshot.meta.last.index > self.snapshot.meta.last.index {
            self.snapshot = snapshot;
        }
    }

    pub(crate) fn purge(&mut self, start: LogId) {
        self.purged = self.purged.max(start);
        for image in [&mut self.durable, &mut self.volatile] {
            if image.start.index < start.index && image.contains(start) {
                image.purge(start);
            }
        }
    }

    /// Keeps the first `writes` unacknowledged writes and `steps` steps of the one after them.
    pub(crate) fn crash(&mut self, writes: usize, steps: usize) {
        let kept: Vec<Write> = self.unacknowledged.drain(..).collect();
        for write in kept.iter().take(writes) {
            self.durable.apply(write, usize::MAX);
        }
        if let Some(write) = kept.get(writes) {
            self.durable.apply(write, steps);
        }
        self.last_seq = WriteSeq(0);
        if !self.durable.contains(self.snapshot.meta.last) {
            self.durable.restart_after(self.snapshot.meta.last);
        }
        self.purge(self.purged);
        self.volatile = self.durable.clone();
    }

    /// What recovery finds after [`Disk::crash`].
    pub(crate) fn stored(&self) -> Stored {
        let image = &self.durable;
        let mut terms: Vec<(Term, LogIndex)> = Vec::new();
        for (at, entry) in image.entries.iter().enumerate() {
            if terms.last().is_none_or(|run| run.0 != entry.term) {
                terms.push((entry.term, LogIndex(image.start.index.0 + 1 + at as u64)));
            }
        }
        Stored {
            hard_state: image.hard_state,
            snapshot: self.snapshot.meta.clone(),
            log_start: image.start,
            terms,
            last_index: image.last_index(),
            applied: self.snapshot.meta.last.index,
        }
    }

    /// Whether the entry, or a snapshot of what it led to, survives every crash.
    pub(crate) fn keeps(&self, id: LogId) -> bool {
        id.index <= self.snapshot.meta.last.index || self.durable.contains(id)
    }

    /// Reads entries back; `None` if the first is gone.
    pub(crate) fn read(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: u64,
    ) -> Option<Vec<Batch>> {
        self.volatile.entry(first)?;
        let mut batches: Vec<Batch> = Vec::new();
        let mut run: Vec<Bytes> = Vec::new();
        let (mut bytes, mut index) = (0, first);
        let mut run_first = first;
        while index <= last {
            let Some(entry) = self.volatile.entry(index) else { break };
            if index > first && bytes + entry.payload.len() as u64 > bytes_max {
                break;
            }
            bytes += entry.payload.len() as u64;
            run.push(entry.payload.clone());
            let goes_on = self.volatile.entry(index.next()).is_some_and(|next| {
                next.term == entry.term && next.kind == Kind::Normal && entry.kind == Kind::Normal
            });
            if !goes_on {
                batches.push(Batch::new(entry.term, run_first, entry.kind, &run));
                run.clear();
                run_first = index.next();
            }
            index = index.next();
        }
        if !run.is_empty() {
            let entry = self.volatile.entry(run_first).unwrap();
            batches.push(Batch::new(entry.term, run_first, entry.kind, &run));
        }
        Some(batches)
    }
}
