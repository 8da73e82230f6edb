//! The log as this node sees it: its shape, its newest entries, and what of it is durable.
//!
//! ```text
//! start.index ≤ applied ≤ handed ≤ commit_index ≤ last_index      durable.index ≤ last_index
//! ```
//!
//! `durable.index` and `commit_index` are not ordered: a quorum of others may commit an entry
//! before this node's disk has answered.

use crate::cache::Cache;
use crate::terms::TermRuns;
use crate::writes::{Durable, WriteStream};
use crate::{Batch, HardState, LogId, LogIndex, SnapshotMeta, Term, Write, WriteSeq};

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Log {
    terms: TermRuns,
    cache: Cache,
    writes: WriteStream,
}

impl Log {
    /// A log of which everything is durable and nothing is in memory.
    pub(crate) fn recovered(terms: TermRuns, hard_state: HardState) -> Log {
        let durable = Durable { hard_state, index: terms.last_index() };
        Log { terms, cache: Cache::default(), writes: WriteStream::new(durable) }
    }

    /// The entry before the first one of the log.
    pub(crate) fn start(&self) -> LogId {
        self.terms.start()
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.terms.last_index()
    }

    pub(crate) fn last_id(&self) -> LogId {
        self.terms.last_id()
    }

    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        self.terms.term(index)
    }

    /// The identity of the entry at `index`, if it is in the log or right before it.
    pub(crate) fn id(&self, index: LogIndex) -> Option<LogId> {
        self.term(index).map(|term| LogId { term, index })
    }

    pub(crate) fn contains(&self, id: LogId) -> bool {
        self.terms.contains(id)
    }

    /// See [`TermRuns::last_at_most`].
    pub(crate) fn last_at_most(&self, bound: LogId) -> Option<LogId> {
        self.terms.last_at_most(bound)
    }

    /// The first entry of `batches` in whose place the log holds another one.
    pub(crate) fn first_conflict(&self, batches: &[Batch]) -> Option<LogIndex> {
        let conflict = |b: &Batch| self.terms.conflict(b.term(), b.first(), b.last());
        batches.iter().find_map(conflict)
    }

    pub(crate) fn durable(&self) -> Durable {
        self.writes.durable()
    }

    pub(crate) fn oldest_write_issued(&self) -> Option<u64> {
        self.writes.oldest_issued()
    }

    /// The first index that is in memory.
    pub(crate) fn cached_from(&self) -> LogIndex {
        self.cache.first().unwrap_or(self.last_index().next())
    }

    /// See [`Cache::take`].
    pub(crate) fn take(
        &self,
        first: LogIndex,
        upto: LogIndex,
        bytes_max: u64,
        taken: &mut Vec<Batch>,
    ) -> u64 {
        self.cache.take(first, upto, bytes_max, taken)
    }

    pub(crate) fn uncommitted_bytes(&self) -> u64 {
        self.cache.uncommitted_bytes()
    }

    pub(crate) fn commit(&mut self, index: LogIndex) {
        self.cache.commit(index);
    }

    pub(crate) fn append(&mut self, batch: Batch) {
        assert_eq!(batch.first(), self.last_index().next());
        self.terms.extend(batch.term(), batch.last());
        self.cache.push(batch.clone());
        self.writes.append(batch);
    }

    /// Cuts off everything from `from` on. [`Log::clamp`] must follow.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        self.terms.truncate(from);
        self.cache.truncate(from);
        self.writes.truncate(from);
    }

    /// See [`WriteStream::clamp`].
    pub(crate) fn clamp(&mut self, index: LogIndex) {
        self.writes.clamp(index);
    }

    /// Drops everything and starts anew after a durable snapshot. Until that is written, writes in
    /// flight vouch for nothing above `committed`.
    pub(crate) fn reset(&mut self, meta: SnapshotMeta, committed: LogIndex) {
        self.terms = TermRuns::new(meta.last);
        self.cache.clear();
        self.writes.clamp(committed);
        self.writes.reset(meta);
    }

    /// See [`WriteStream::covered_by_snapshot`].
    pub(crate) fn covered_by_snapshot(&mut self, index: LogIndex) {
        self.writes.covered_by_snapshot(index);
    }

    pub(crate) fn purge(&mut self, start: LogId) {
        self.terms.purge(start);
        self.cache.purge(start.index);
    }

    /// Shrinks the memory to `bytes_max` as far as everything up to `upto` allows.
    pub(crate) fn evict(&mut self, upto: LogIndex, bytes_max: u64) {
        self.cache.evict(upto.min(self.durable().index), bytes_max);
    }

    pub(crate) fn seal(&mut self, hard_state: HardState, ticks: u64) -> Option<Write> {
        self.writes.seal(hard_state, self.terms.last_index(), ticks)
    }

    pub(crate) fn wrote(&mut self, upto: WriteSeq) {
        self.writes.wrote(upto);
    }
}
