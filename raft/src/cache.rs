//! The newest entries, kept in memory for peers and for applying.
//!
//! Invariants: batches are contiguous and end at the last index of the log; sums are differences
//! of running totals, so that none can go stale when the log is cut.

use std::collections::VecDeque;

use crate::batch::take_front;
use crate::{Batch, LogIndex};

/// What a batch costs in memory besides its payloads. A round figure; it keeps entries without
/// payload from being free.
const BATCH_OVERHEAD_BYTES: u64 = 128;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cached {
    batch: Batch,
    /// The cost of everything ever cached, up to and including this batch.
    total: u64,
}

/// A suffix of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Cache {
    batches: VecDeque<Cached>,
    /// The running total before the first batch.
    base: u64,
    /// The running total up to the commit index.
    committed: u64,
}

impl Cache {
    /// The first index held, if any is.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        self.batches.front().map(|cached| cached.batch.first())
    }

    pub(crate) fn push(&mut self, batch: Batch) {
        if let Some(newest) = self.batches.back() {
            assert_eq!(newest.batch.last().next(), batch.first());
        }
        let total = self.total() + cost(&batch);
        self.batches.push_back(Cached { batch, total });
    }

    /// Forgets the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        while let Some(newest) = self.batches.pop_back() {
            if newest.batch.last() < from {
                self.batches.push_back(newest);
                return;
            }
            if newest.batch.first() < from {
                let total = newest.total - cost(&newest.batch);
                let batch = newest.batch.slice(newest.batch.first(), from.prev());
                self.batches.push_back(Cached { total: total + cost(&batch), batch });
                return;
            }
        }
    }

    /// Forgets whole batches up to and including `upto`.
    pub(crate) fn purge(&mut self, upto: LogIndex) {
        while self.front_ends_by(upto) {
            self.pop_front();
        }
    }

    /// Forgets whole batches up to and including `upto` while the cache is above `bytes_max`.
    pub(crate) fn evict(&mut self, upto: LogIndex, bytes_max: u64) {
        while self.total() - self.base > bytes_max && self.front_ends_by(upto) {
            self.pop_front();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Cache::default();
    }

    /// Notes that everything up to `index` is committed. Entries that are not held count nothing.
    pub(crate) fn commit(&mut self, index: LogIndex) {
        let after = self.batches.partition_point(|cached| cached.batch.first() <= index);
        let Some(cached) = after.checked_sub(1).map(|at| &self.batches[at]) else { return };
        let rest = match cached.batch.last() {
            last if last <= index => 0,
            last => u64::from(cached.batch.slice(index.next(), last).bytes()),
        };
        self.committed = cached.total - rest;
    }

    /// What the entries above the commit index cost.
    pub(crate) fn uncommitted_bytes(&self) -> u64 {
        self.total() - self.committed.max(self.base)
    }

    /// Entries `first..=upto` as far as they fit into `bytes_max`, at least one; returns their size.
    ///
    /// Requires: the cache holds `first`.
    pub(crate) fn take(
        &self,
        first: LogIndex,
        upto: LogIndex,
        bytes_max: u64,
        taken: &mut Vec<Batch>,
    ) -> u64 {
        assert!(self.first().is_some_and(|held| held <= first));
        let at = self.batches.partition_point(|cached| cached.batch.last() < first);
        let batches = self.batches.range(at..).map(|cached| &cached.batch);
        take_front(batches, first, upto, bytes_max, taken)
    }

    fn total(&self) -> u64 {
        self.batches.back().map_or(self.base, |cached| cached.total)
    }

    fn front_ends_by(&self, upto: LogIndex) -> bool {
        self.batches.front().is_some_and(|cached| cached.batch.last() <= upto)
    }

    fn pop_front(&mut self) {
        if let Some(cached) = self.batches.pop_front() {
            self.base = cached.total;
        }
    }
}

fn cost(batch: &Batch) -> u64 {
    u64::from(batch.bytes()) + BATCH_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Kind, Term};

    fn batch(first: u64, sizes: &[usize]) -> Batch {
        let payloads: Vec<Bytes> = sizes.iter().map(|&n| Bytes::from(vec![0; n])).collect();
        Batch::new(Term(1), LogIndex(first), Kind::Normal, &payloads)
    }

    fn cache() -> Cache {
        let mut cache = Cache::default();
        cache.push(batch(5, &[10, 20]));
        cache.push(batch(7, &[30]));
        cache.push(batch(8, &[40, 50, 60]));
        cache
    }

    #[test]
    fn uncommitted_bytes_are_those_above_the_commit_index() {
        let mut cache = cache();
        assert_eq!(cache.uncommitted_bytes(), 210 + 3 * BATCH_OVERHEAD_BYTES);
        cache.commit(LogIndex(6));
        assert_eq!(cache.uncommitted_bytes(), 180 + 2 * BATCH_OVERHEAD_BYTES);
        cache.commit(LogIndex(9));
        assert_eq!(cache.uncommitted_bytes(), 60);
        cache.commit(LogIndex(10));
        assert_eq!(cache.uncommitted_bytes(), 0);
    }

    #[test]
    fn truncation_gives_back_what_the_cut_entries_cost() {
        let mut cache = cache();
        cache.commit(LogIndex(7));
        cache.truncate(LogIndex(9));
        assert_eq!(cache.uncommitted_bytes(), 40 + BATCH_OVERHEAD_BYTES);
        cache.truncate(LogIndex(8));
        assert_eq!(cache.uncommitted_bytes(), 0);
    }

    #[test]
    fn eviction_stops_at_the_limit_and_at_upto() {
        let mut cache = cache();
        cache.evict(LogIndex(10), 500);
        assert_eq!(cache.first(), Some(LogIndex(7)));
        cache.evict(LogIndex(9), 0);
        assert_eq!(cache.first(), Some(LogIndex(8)));
        cache.evict(LogIndex(10), 0);
        assert_eq!(cache.first(), None);
        assert_eq!(cache.uncommitted_bytes(), 0);
    }

    #[test]
    fn take_crosses_batches_and_cuts_inside_them() {
        let mut taken = Vec::new();
        assert_eq!(cache().take(LogIndex(6), LogIndex(10), 100, &mut taken), 90);
        let borders: Vec<(u64, u64)> = taken.iter().map(|b| (b.first().0, b.last().0)).collect();
        assert_eq!(borders, [(6, 6), (7, 7), (8, 8)]);
    }
}
