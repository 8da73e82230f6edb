//! Who waits for the outcome of which command.
//!
//! Every proposal ends in exactly one answer (P38): its outcome, "certainly not" when another leader's entry took its index, or
//! "unknown" when this leadership ended first.

use std::collections::{BTreeMap, VecDeque};

use raft::{LogId, LogIndex};

use super::input::{AcquireWait, ReplyTo};

/// One command's client, by its position in the entry.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) reply_to: ReplyTo,
    pub(super) wait: Option<AcquireWait>,
}

/// The clients of one entry; `None` for commands of the driver itself.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: LogId,
    pub(super) waiters: Vec<Option<Waiter>>,
}

/// What became of the clients of an index.
#[derive(Debug)]
pub(super) enum Fate {
    /// Nobody here waits for this entry.
    NotOurs,
    /// Their entry is the committed one.
    Applied(Vec<Option<Waiter>>),
    /// Another entry is: theirs certainly did not happen.
    Replaced(Vec<Option<Waiter>>),
}

/// Everyone who waits for a command.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    pending: VecDeque<Pending>,
    /// Acquires that were applied and are in a lock's queue, by (session, sequence).
    queued: BTreeMap<(u64, u64), ReplyTo>,
}

impl Waiters {
    /// Requires: ids arrive in log order.
    pub(super) fn proposed(&mut self, id: LogId, waiters: Vec<Option<Waiter>>) {
        assert!(self.pending.back().is_none_or(|last| last.id.index < id.index));
        self.pending.push_back(Pending { id, waiters });
    }

    /// The entry `id` is committed and about to be applied.
    pub(super) fn committed(&mut self, id: LogId) -> Fate {
        match self.pending.pop_front_if(|pending| pending.id.index <= id.index) {
            None => Fate::NotOurs,
            Some(pending) if pending.id == id => Fate::Applied(pending.waiters),
            Some(pending) => Fate::Replaced(pending.waiters),
        }
    }

    /// The acquire is in a queue; `reply_to` gets its end. A retry takes the place of the first
    /// try, which is returned.
    pub(super) fn queue(
        &mut self,
        session: u64,
        sequence: u64,
        reply_to: ReplyTo,
    ) -> Option<ReplyTo> {
        self.queued.insert((session, sequence), reply_to)
    }

    /// Whether a command of a client is proposed and not decided.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The queued acquire has ended; who waits for it?
    pub(super) fn unqueue(&mut self, session: u64, sequence: u64) -> Option<ReplyTo> {
        self.queued.remove(&(session, sequence))
    }

    /// This leadership is over: everyone whose command is not known to be committed.
    pub(super) fn lost(&mut self, first: LogIndex) -> Vec<ReplyTo> {
        let kept = self.pending.partition_point(|pending| pending.id.index < first);
        let lost = self.pending.drain(kept..).flat_map(|pending| pending.waiters).flatten();
        lost.map(|waiter| waiter.reply_to).collect()
    }

    /// A snapshot has taken the place of every entry up to this one: everyone who waited for one of them.
    pub(super) fn passed(&mut self, last: LogIndex) -> Vec<ReplyTo> {
        let passed = self.pending.partition_point(|pending| pending.id.index <= last);
        let passed = self.pending.drain(..passed).flat_map(|pending| pending.waiters).flatten();
        passed.map(|waiter| waiter.reply_to).collect()
    }

    /// This leadership is over: everyone who is in a lock's queue must ask the next leader.
    pub(super) fn lost_queued(&mut self) -> Vec<ReplyTo> {
        std::mem::take(&mut self.queued).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use raft::Term;

    use super::*;
    use crate::replica::ClientId;

    fn id(term: u64, index: u64) -> LogId {
        LogId { term: Term(term), index: LogIndex(index) }
    }

    fn waiter(request: u64) -> Waiter {
        Waiter { reply_to: ReplyTo { client: ClientId(1), request }, wait: None }
    }

    /// A node that fell behind as a leader and was sent a snapshot never answered those who waited for what that held.
    #[test]
    fn whoever_waits_for_what_a_snapshot_holds_is_told() {
        let mut waiters = Waiters::default();
        for index in 5..9 {
            waiters.proposed(id(3, index), vec![Some(waiter(index)), None]);
        }
        let mut passed = || -> Vec<u64> {
            waiters.passed(LogIndex(7)).iter().map(|reply_to| reply_to.request).collect()
        };
        assert_eq!((passed(), passed()), (vec![5, 6, 7], vec![]));
        assert!(waiters.has_pending());
    }

    #[test]
    fn entry_replaced_by_another_leader_is_told_from_an_applied_one() {
        let mut waiters = Waiters::default();
        waiters.proposed(id(2, 5), vec![Some(waiter(1))]);
        waiters.proposed(id(2, 6), vec![Some(waiter(2))]);
        assert!(matches!(waiters.committed(id(1, 4)), Fate::NotOurs));
        assert!(matches!(waiters.committed(id(2, 5)), Fate::Applied(_)));
        assert!(matches!(waiters.committed(id(3, 6)), Fate::Replaced(_)));
        assert!(matches!(waiters.committed(id(3, 7)), Fate::NotOurs));
    }

    #[test]
    fn lost_leadership_answers_only_what_is_not_committed() {
        let mut waiters = Waiters::default();
        waiters.proposed(id(2, 5), vec![Some(waiter(1)), None]);
        waiters.proposed(id(2, 6), vec![Some(waiter(2))]);
        let lost = waiters.lost(LogIndex(6));
        assert_eq!(lost.iter().map(|to| to.request).collect::<Vec<_>>(), [2]);
        assert!(matches!(waiters.committed(id(2, 5)), Fate::Applied(_)));
    }

    #[test]
    fn retried_acquire_takes_the_place_of_the_first_try() {
        let mut waiters = Waiters::default();
        let first = ReplyTo { client: ClientId(1), request: 1 };
        assert_eq!(waiters.queue(7, 3, first), None);
        assert_eq!(waiters.queue(7, 3, ReplyTo { client: ClientId(2), request: 9 }), Some(first));
        assert_eq!(waiters.unqueue(7, 3).unwrap().client, ClientId(2));
        assert!(waiters.unqueue(7, 3).is_none());
    }
}
