//! The term-run index: which term each entry has, without touching entries or the disk.
//!
//! One element per distinct term in the log, usually fewer than ten. It answers `term(index)` and
//! the conflict hints of both sides, so that finding the point where two logs agree takes at most
//! one round trip per distinct term.
//!
//! Invariants: runs are sorted by index and, strictly, by term; the first begins right after
//! `start`; none is empty; `start.index <= last`.

use crate::{LogId, LogIndex, Term};

/// The shape of the log after `start`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct TermRuns {
    /// The entry before the first of the log; its term is known, its payload gone.
    start: LogId,
    /// Each term with the first index that has it.
    runs: Vec<(Term, LogIndex)>,
    last: LogIndex,
}

impl TermRuns {
    pub(crate) fn new(start: LogId) -> TermRuns {
        TermRuns { start, runs: Vec::new(), last: start.index }
    }

    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.last
    }

    pub(crate) fn last_id(&self) -> LogId {
        let term = self.runs.last().map_or(self.start.term, |run| run.0);
        LogId { term, index: self.last }
    }

    /// The term of the entry at `index`; `None` before `start` and after the last.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            Some(self.start.term)
        } else if self.start.index < index && index <= self.last {
            Some(self.runs[self.run_of(index)].0)
        } else {
            None
        }
    }

    pub(crate) fn contains(&self, id: LogId) -> bool {
        self.term(id.index) == Some(id.term)
    }

    /// Continues the log with entries of `term` up to and including `last`.
    pub(crate) fn extend(&mut self, term: Term, last: LogIndex) {
        assert!(last > self.last);
        let newest = self.runs.last().map(|run| run.0);
        assert!(newest.unwrap_or(self.start.term) <= term);
        if newest != Some(term) {
            self.runs.push((term, self.last.next()));
        }
        self.last = last;
    }

    /// Forgets the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: LogIndex) {
        assert!(from > self.start.index);
        self.runs.retain(|run| run.1 < from);
        self.last = self.last.min(from.prev());
    }

    /// Forgets the entries up to and including `start`.
    pub(crate) fn purge(&mut self, start: LogId) {
        assert!(self.contains(start));
        let gone = self.runs.partition_point(|run| run.1 <= start.index);
        let keeps_on = gone > 0 && self.run_last(start.index) > start.index;
        let first_kept = if keeps_on { gone - 1 } else { gone };
        self.runs.drain(..first_kept);
        if keeps_on {
            self.runs[0].1 = start.index.next();
        }
        self.start = start;
    }

    /// The first entry of `first..=last`, all of `term`, that this log holds with another term, its
    /// start included.
    pub(crate) fn conflict(&self, term: Term, first: LogIndex, last: LogIndex) -> Option<LogIndex> {
        let first = first.max(self.start.index);
        let last = last.min(self.last);
        if first > last {
            return None;
        }
        if first == self.start.index {
            let is_same = self.start.term == term;
            return if is_same { self.conflict(term, first.next(), last) } else { Some(first) };
        }
        let run = self.run_of(first);
        if self.runs[run].0 != term {
            return Some(first);
        }
        self.runs.get(run + 1).map(|next| next.1).filter(|&next| next <= last)
    }

    /// The last entry, `start` included, whose index and term are both at most those of `bound`.
    pub(crate) fn last_at_most(&self, bound: LogId) -> Option<LogId> {
        if self.start.index > bound.index || self.start.term > bound.term {
            return None;
        }
        let runs = self.runs.partition_point(|run| run.0 <= bound.term);
        let end = if runs == 0 {
            self.start.index
        } else {
            self.runs.get(runs).map_or(self.last, |next| next.1.prev())
        };
        let index = end.min(bound.index);
        let term = self.term(index).expect("the index lies between the start and the last");
        Some(LogId { term, index })
    }

    /// The last index of the run that holds `index`.
    fn run_last(&self, index: LogIndex) -> LogIndex {
        let next = self.runs.get(self.run_of(index) + 1);
        next.map_or(self.last, |run| run.1.prev())
    }

    /// The run that holds `index`.
    fn run_of(&self, index: LogIndex) -> usize {
        assert!(self.start.index < index);
        assert!(index <= self.last);
        self.runs.partition_point(|run| run.1 <= index) - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term: Term(term), index: LogIndex(index) }
    }

    /// A log that starts after `start`, with one term per entry, and its runs.
    fn build(start: LogId, terms: &[u64]) -> TermRuns {
        let mut runs = TermRuns::new(start);
        for &term in terms {
            runs.extend(Term(term), runs.last_index().next());
        }
        runs
    }

    /// The same log as a list of (term, index), the start included.
    fn listed(start: LogId, terms: &[u64]) -> Vec<LogId> {
        let entries = (start.index.0 + 1..).zip(terms).map(|(index, &term)| id(term, index));
        std::iter::once(start).chain(entries).collect()
    }

    fn log() -> impl Strategy<Value = (LogId, Vec<u64>)> {
        (0_u64..3, 0_u64..4, prop::collection::vec(0_u64..3, 0..12)).prop_map(
            |(term, index, steps)| {
                let terms = steps.iter().scan(term, |term, step| {
                    *term += step;
                    Some(*term)
                });
                (id(term, index), terms.collect())
            },
        )
    }

    proptest! {
        #[test]
        fn every_answer_equals_that_of_a_plain_list(
            (start, terms) in log(), bound in (0_u64..12, 0_u64..18),
        ) {
            let (runs, list) = (build(start, &terms), listed(start, &terms));
            let bound = id(bound.0, bound.1);
            let of = |index| list.iter().find(|e| e.index == index).map(|e| e.term);
            prop_assert_eq!(runs.term(bound.index), of(bound.index));
            prop_assert_eq!(Some(&runs.last_id()), list.last());
            let at_most =
                list.iter().rev().find(|e| e.index <= bound.index && e.term <= bound.term);
            prop_assert_eq!(runs.last_at_most(bound), at_most.copied());
        }

        #[test]
        fn conflict_is_the_first_entry_of_another_term(
            (start, terms) in log(), term in 0_u64..12, first in 1_u64..18, more in 0_u64..6,
        ) {
            let (runs, list) = (build(start, &terms), listed(start, &terms));
            let (first, last) = (LogIndex(first), LogIndex(first + more));
            let naive = list
                .iter()
                .find(|e| first <= e.index && e.index <= last && e.term != Term(term));
            prop_assert_eq!(runs.conflict(Term(term), first, last), naive.map(|e| e.index));
        }

        #[test]
        fn truncated_and_purged_runs_equal_those_built_from_what_is_left(
            (start, terms) in log(), cut in any::<prop::sample::Index>(),
        ) {
            let at = cut.index(terms.len() + 1);
            let list = listed(start, &terms);
            let mut truncated = build(start, &terms);
            truncated.truncate(list[at].index.next());
            prop_assert_eq!(truncated, build(start, &terms[..at]));
            let mut purged = build(start, &terms);
            purged.purge(list[at]);
            prop_assert_eq!(purged, build(list[at], &terms[at..]));
        }
    }
}
