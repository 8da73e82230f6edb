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
    use crate::{Kind, Term};

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

    /// A naive disk: the list of all writes, of which the first `acknowledged` are durable.
    #[derive(Default)]
    struct Disk {
        writes: Vec<Write>,
        acknowledged: usize,
    }

    impl Disk {
        fn terms(&self, writes: usize) -> Vec<Term> {
            let mut log = Vec::new();
            for write in &self.writes[..writes] {
                if let Some(from) = write.truncate_from {
                    log.truncate(usize::try_from(from.0).unwrap() - 1);
                }
                for batch in &write.batches {
                    assert_eq!(batch.first().0, log.len() as u64 + 1);
                    log.push(batch.term());
                }
            }
            log
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64),
        Replace { keep: prop::sample::Index, count: u64 },
        Seal,
        Wrote(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_u64..4).prop_map(Step::Append),
            (any::<prop::sample::Index>(), 1_u64..4)
                .prop_map(|(keep, count)| Step::Replace { keep, count }),
            Just(Step::Seal),
            any::<prop::sample::Index>().prop_map(Step::Wrote),
        ]
    }

    proptest! {
        /// Against the list of all writes: the durable index never exceeds the prefix of the log
        /// that is on disk after every write that may survive a crash.
        #[test]
        fn durable_index_is_on_disk_after_every_legal_crash(
            steps in prop::collection::vec(step(), 1..40),
        ) {
            let (mut stream, mut disk) = (stream(), Disk::default());
            let (mut log, mut term): (Vec<Term>, u64) = (Vec::new(), 1);
            for step in steps {
                match step {
                    Step::Append(count) => {
                        for _ in 0..count {
                            log.push(Term(term));
                            stream.append(entry(term, log.len() as u64));
                        }
                    }
                    Step::Replace { keep, count } => {
                        term += 1;
                        let keep = keep.index(log.len() + 1);
                        if keep < log.len() {
                            stream.truncate(LogIndex(keep as u64 + 1));
                            stream.clamp(LogIndex(keep as u64));
                        }
                        log.truncate(keep);
                        for _ in 0..count {
                            log.push(Term(term));
                            stream.append(entry(term, log.len() as u64));
                        }
                    }
                    Step::Seal => {
                        let last = LogIndex(log.len() as u64);
                        disk.writes.extend(stream.seal(at_term(term), last, 0));
                    }
                    Step::Wrote(upto) => {
                        let open = disk.writes.len() - disk.acknowledged;
                        if open > 0 {
                            disk.acknowledged += upto.index(open) + 1;
                            stream.wrote(WriteSeq(disk.acknowledged as u64));
                        }
                    }
                }
                let durable = usize::try_from(stream.durable().index.0).unwrap();
                for survived in disk.acknowledged..=disk.writes.len() {
                    let image = disk.terms(survived);
                    prop_assert!(image.len() >= durable);
                    prop_assert_eq!(&image[..durable], &log[..durable]);
                }
            }
            let last = LogIndex(log.len() as u64);
            disk.writes.extend(stream.seal(at_term(term), last, 0));
            prop_assert_eq!(disk.terms(disk.writes.len()), log);
        }
    }
}
