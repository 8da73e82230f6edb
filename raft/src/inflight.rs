//! The window of entries sent to one peer and not yet acknowledged.
//!
//! Invariant: last indices rise along the list. Its size in bytes is summed when asked for, so it
//! cannot drift from the list.

use std::collections::VecDeque;

use crate::LogIndex;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Sent {
    last: LogIndex,
    bytes: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Inflight {
    sent: VecDeque<Sent>,
}

impl Inflight {
    pub(crate) fn push(&mut self, last: LogIndex, bytes: u64) {
        assert!(self.sent.back().is_none_or(|newest| newest.last < last));
        self.sent.push_back(Sent { last, bytes });
    }

    /// Removes what `match_index` acknowledges; returns whether that was anything.
    pub(crate) fn acknowledge(&mut self, match_index: LogIndex) -> bool {
        let before = self.sent.len();
        while self.sent.front().is_some_and(|oldest| oldest.last <= match_index) {
            self.sent.pop_front();
        }
        self.sent.len() < before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.sent.iter().map(|sent| sent.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledging_a_middle_index_removes_all_up_to_it() {
        let mut window = Inflight::default();
        window.push(LogIndex(3), 10);
        window.push(LogIndex(7), 20);
        window.push(LogIndex(9), 40);
        assert_eq!((window.count(), window.bytes()), (3, 70));
        assert!(!window.acknowledge(LogIndex(2)));
        assert!(window.acknowledge(LogIndex(8)));
        assert_eq!((window.count(), window.bytes()), (1, 40));
        assert!(window.acknowledge(LogIndex(9)));
        assert!(window.is_empty());
    }
}
