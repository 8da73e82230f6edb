//! The one stream of writes, and the mirror of what is durable.
//!
//! Every change of persistent state becomes part of the pending write. Sealing numbers it and puts
//! its effect into the queue of writes in flight; an acknowledgement moves that effect into
//! [`Durable`]. Nothing that depends on durability is stored waiting for a write: it is computed
//! from [`Durable`] when that moves.
//!
//! Cutting the log at `from` clamps the mark of every write in flight, and the durable index, to
//! `from - 1`. That is the whole protection against a write of an earlier leader's entries
//! vouching for the entries that replaced them.
//!
//! Invariants: sequence numbers are dense; the marks of writes in flight never fall along the
//! queue; a pending truncation is followed by the batches that replace what it cut.

use std::collections::VecDeque;

use crate::{Batch, HardState, LogIndex, SnapshotMeta, Write, WriteSeq};

/// What the disk is known to hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Durable {
    pub(crate) hard_state: HardState,
    /// Everything up to here in the log as it is now.
    pub(crate) index: LogIndex,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct InFlight {
    seq: WriteSeq,
    hard_state: HardState,
    /// The last index of the log after this write, as far as it is still in the log.
    high: LogIndex,
    /// The tick at which it was handed out.
    issued: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WriteStream {
    durable: Durable,
    in_flight: VecDeque<InFlight>,
    reset: Option<SnapshotMeta>,
    truncate_from: Option<LogIndex>,
    batches: Vec<Batch>,
    /// The hard state after everything handed out.
    sealed_hard_state: HardState,
    /// The last index on disk before `batches` are appended, once everything handed out is written.
    sealed_last: LogIndex,
    last_seq: WriteSeq,
}

impl WriteStream {
    pub(crate) fn new(durable: Durable) -> WriteStream {
        WriteStream {
            durable,
            in_flight: VecDeque::new(),
            reset: None,
            truncate_from: None,
            batches: Vec::new(),
            sealed_hard_state: durable.hard_state,
            sealed_last: durable.index,
            last_seq: WriteSeq(0),
        }
    }

    pub(crate) fn durable(&self) -> Durable {
        self.durable
    }

    /// The tick at which the oldest write in flight was handed out.
    pub(crate) fn oldest_issued(&self) -> Option<u64> {
        self.in_flight.front().map(|write| write.issued)
    }

    pub(crate) fn append(&mut self, batch: Batch) {
        self.batches.push(batch);
    }

    /// The entries from `from` on are no longer in the log.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.batches.retain(|batch| batch.first() < from);
        if let Some(newest) = self.batches.last_mut()
            && newest.last() >= from
        {
            *newest = newest.slice(newest.first(), from.prev());
        }
        if from <= self.sealed_last {
            self.truncate_from = Some(from);
            self.sealed_last = from.prev();
        }
    }

    /// No write handed out so far vouches for anything above `index` any more.
    pub(crate) fn clamp(&mut self, index: LogIndex) {
        self.durable.index = self.durable.index.min(index);
        for write in &mut self.in_flight {
            write.high = write.high.min(index);
        }
    }

    /// The log starts anew after a snapshot that is already durable.
    pub(crate) fn reset(&mut self, meta: SnapshotMeta) {
        self.batches.clear();
        self.truncate_from = None;
        self.sealed_last = meta.last.index;
        self.reset = Some(meta);
    }

    /// A durable snapshot covers the log up to `index`.
    pub(crate) fn covered_by_snapshot(&mut self, index: LogIndex) {
        self.durable.index = self.durable.index.max(index);
    }

    /// Numbers what is pending. `hard_state` and `last` are those of this moment.
    pub(crate) fn seal(
        &mut self,
        hard_state: HardState,
        last: LogIndex,
        ticks: u64,
    ) -> Option<Write> {
        let changed = (hard_state != self.sealed_hard_state).then_some(hard_state);
        if changed.is_none() && self.reset.is_none() && self.batches.is_empty() {
            assert!(self.truncate_from.is_none());
            return None;
        }
        if let Some(from) = self.truncate_from {
            assert_eq!(self.batches.first().map(Batch::first), Some(from));
        }
        self.last_seq = WriteSeq(self.last_seq.0 + 1);
        self.sealed_hard_state = hard_state;
        self.sealed_last = last;
        let write = InFlight { seq: self.last_seq, hard_state, high: last, issued: ticks };
        self.in_flight.push_back(write);
        Some(Write {
            seq: self.last_seq,
            hard_state: changed,
            reset: self.reset.take(),
            truncate_from: self.truncate_from.take(),
            batches: std::mem::take(&mut self.batches),
        })
    }

    /// Everything up to `upto` is durable.
    ///
    /// Requires: `upto` was handed out, and is above all acknowledged before.
    pub(crate) fn wrote(&mut self, upto: WriteSeq) {
        assert!(upto <= self.last_seq);
        assert!(self.in_flight.front().is_some_and(|oldest| oldest.seq <= upto));
        while let Some(write) = self.in_flight.pop_front_if(|write| write.seq <= upto) {
            let index = self.durable.index.max(write.high);
            self.durable = Durable { hard_state: write.hard_state, index };
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{Kind, LogId, Term};

    fn entry(term: u64, index: u64) -> Batch {
        Batch::new(Term(term), LogIndex(index), Kind::Normal, &[Bytes::new()])
    }

    fn at_term(term: u64) -> HardState {
        HardState { term: Term(term), vote: None }
    }

    fn stream() -> WriteStream {
        WriteStream::new(Durable { hard_state: at_term(1), index: LogIndex(0) })
    }

    #[test]
    fn nothing_pending_makes_no_write() {
        assert_eq!(stream().seal(at_term(1), LogIndex(0), 0), None);
    }

    #[test]
    fn entries_cut_before_they_were_handed_out_need_no_truncation() {
        let mut stream = stream();
        stream.append(entry(1, 1));
        stream.append(entry(1, 2));
        stream.truncate(LogIndex(2));
        let write = stream.seal(at_term(1), LogIndex(1), 0).unwrap();
        assert_eq!((write.truncate_from, write.batches), (None, vec![entry(1, 1)]));
    }

    #[test]
    fn two_truncations_in_one_write_become_the_lower_one() {
        let mut stream = stream();
        (1..=5).for_each(|index| stream.append(entry(1, index)));
        stream.seal(at_term(1), LogIndex(5), 0).unwrap();
        stream.truncate(LogIndex(4));
        stream.append(entry(2, 4));
        stream.truncate(LogIndex(3));
        stream.append(entry(3, 3));
        let write = stream.seal(at_term(3), LogIndex(3), 0).unwrap();
        assert_eq!(write.truncate_from, Some(LogIndex(3)));
        assert_eq!(write.batches, [entry(3, 3)]);
    }

    #[test]
    fn acknowledgement_of_an_old_write_says_nothing_about_what_replaced_its_entries() {
        let mut stream = stream();
        (1..=5).for_each(|index| stream.append(entry(1, index)));
        stream.seal(at_term(1), LogIndex(5), 0).unwrap();
        stream.truncate(LogIndex(3));
        stream.clamp(LogIndex(2));
        (3..=5).for_each(|index| stream.append(entry(2, index)));
        stream.seal(at_term(2), LogIndex(5), 0).unwrap();
        stream.wrote(WriteSeq(1));
        assert_eq!(stream.durable(), Durable { hard_state: at_term(1), index: LogIndex(2) });
        stream.wrote(WriteSeq(2));
        assert_eq!(stream.durable(), Durable { hard_state: at_term(2), index: LogIndex(5) });
    }

    /// A log as a plain list.
    #[derive(Clone, PartialEq, Eq, Debug, Default)]
    struct Plain {
        start: LogId,
        terms: Vec<Term>,
    }

    impl Plain {
        fn last(&self) -> u64 {
            self.start.index.0 + self.terms.len() as u64
        }

        fn term(&self, index: u64) -> Option<Term> {
            if index == self.start.index.0 {
                return Some(self.start.term);
            }
            let at = index.checked_sub(self.start.index.0 + 1)?;
            self.terms.get(usize::try_from(at).unwrap()).copied()
        }

        fn truncate(&mut self, last: u64) {
            self.terms.truncate(usize::try_from(last - self.start.index.0).unwrap());
        }

        fn reset(&mut self, start: LogId) {
            *self = Plain { start, terms: Vec::new() };
        }

        fn apply(&mut self, write: &Write) {
            if let Some(meta) = &write.reset {
                self.reset(meta.last);
            }
            if let Some(from) = write.truncate_from {
                self.truncate(from.prev().0);
            }
            for batch in &write.batches {
                assert_eq!(batch.first().0, self.last() + 1);
                self.terms.push(batch.term());
            }
        }
    }

    /// A naive disk: the list of all writes, of which the first `acknowledged` are durable, and the
    /// newest snapshot, which is.
    #[derive(Default)]
    struct Disk {
        writes: Vec<Write>,
        acknowledged: usize,
        snapshot: LogId,
    }

    impl Disk {
        /// What recovery makes of the first `writes` writes.
        fn recovered(&self, writes: usize) -> Plain {
            let mut log = Plain::default();
            self.writes[..writes].iter().for_each(|write| log.apply(write));
            if log.term(self.snapshot.index.0) != Some(self.snapshot.term) {
                log.reset(self.snapshot);
            }
            log
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Append(u64),
        /// Keeps some of what is not committed.
        Replace {
            keep: prop::sample::Index,
            count: u64,
        },
        Commit(prop::sample::Index),
        /// Takes a snapshot that the log does not hold, this far after the commit index.
        Reset(u64),
        /// Takes a snapshot at an entry of the log that is not known to be committed.
        Cover(prop::sample::Index),
        Seal,
        Wrote(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = any::<prop::sample::Index>;
        prop_oneof![
            3 => (1_u64..4).prop_map(Step::Append),
            3 => (place(), 1_u64..4).prop_map(|(keep, count)| Step::Replace { keep, count }),
            1 => place().prop_map(Step::Commit),
            1 => (1_u64..6).prop_map(Step::Reset),
            1 => place().prop_map(Step::Cover),
            4 => Just(Step::Seal),
            4 => place().prop_map(Step::Wrote),
        ]
    }

    /// The stream and, in lists, what it is told.
    struct Model {
        stream: WriteStream,
        disk: Disk,
        log: Plain,
        term: u64,
        committed: u64,
    }

    impl Model {
        fn new() -> Model {
            let (disk, log) = (Disk::default(), Plain::default());
            Model { stream: stream(), disk, log, term: 1, committed: 0 }
        }

        fn append(&mut self, count: u64) {
            for _ in 0..count {
                self.log.terms.push(Term(self.term));
                self.stream.append(entry(self.term, self.log.last()));
            }
        }

        /// An index from the commit index to the last.
        fn uncommitted(&self, place: prop::sample::Index) -> u64 {
            let count = usize::try_from(self.log.last() - self.committed).unwrap() + 1;
            self.committed + place.index(count) as u64
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Append(count) => self.append(count),
                Step::Replace { keep, count } => {
                    self.term += 1;
                    let keep = self.uncommitted(keep);
                    if keep < self.log.last() {
                        self.stream.truncate(LogIndex(keep + 1));
                        self.stream.clamp(LogIndex(keep));
                    }
                    self.log.truncate(keep);
                    self.append(count);
                }
                Step::Commit(upto) => self.committed = self.uncommitted(upto),
                Step::Reset(ahead) => self.reset(ahead),
                Step::Cover(at) => self.cover(at),
                Step::Seal => self.seal(),
                Step::Wrote(upto) => {
                    let open = self.disk.writes.len() - self.disk.acknowledged;
                    if open > 0 {
                        self.disk.acknowledged += upto.index(open) + 1;
                        self.stream.wrote(WriteSeq(self.disk.acknowledged as u64));
                    }
                }
            }
        }

        fn reset(&mut self, ahead: u64) {
            self.term += 1;
            let last = LogId { term: Term(self.term), index: LogIndex(self.committed + ahead) };
            self.disk.snapshot = last;
            self.stream.clamp(LogIndex(self.committed));
            self.stream.reset(SnapshotMeta { last, ..SnapshotMeta::default() });
            self.log.reset(last);
            self.committed = last.index.0;
        }

        fn cover(&mut self, at: prop::sample::Index) {
            let index = self.uncommitted(at);
            if index > self.committed {
                let term = self.log.term(index).unwrap();
                self.disk.snapshot = LogId { term, index: LogIndex(index) };
                self.stream.covered_by_snapshot(LogIndex(index));
                self.committed = index;
            }
        }

        fn seal(&mut self) {
            let last = LogIndex(self.log.last());
            self.disk.writes.extend(self.stream.seal(at_term(self.term), last, 0));
        }
    }

    proptest! {
        /// Against the list of all writes: the durable index never exceeds the prefix of the log
        /// that is there after every write that may survive a crash, in a snapshot or on its own.
        #[test]
        fn durable_index_is_on_disk_after_every_legal_crash(
            steps in prop::collection::vec(step(), 1..40),
        ) {
            let mut model = Model::new();
            for step in steps {
                model.step(step);
                let Model { stream, disk, log, .. } = &model;
                let durable = stream.durable().index.0;
                prop_assert!(durable <= log.last());
                for survived in disk.acknowledged..=disk.writes.len() {
                    let found = disk.recovered(survived);
                    prop_assert!(found.last() >= durable);
                    let known = found.start.index.0.max(log.start.index.0);
                    for index in known..=durable {
                        prop_assert_eq!(found.term(index), log.term(index));
                    }
                }
            }
            model.seal();
            prop_assert_eq!(model.disk.recovered(model.disk.writes.len()), model.log);
        }
    }
}
