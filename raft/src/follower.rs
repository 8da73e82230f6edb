//! Following a leader: appends, heartbeats, and the acknowledgement that waits for the disk.
//!
//! Invariants: `commit_index ≤ matched ≤ last_index`, where everything up to `matched` is known to
//! equal the log of this term's leader; an acknowledgement speaks of nothing above
//! `min(matched, durable.index)` and of no term that is not durable.

use crate::mutant::Mutant;
use crate::raft::Role;
use crate::{
    AppendOutcome, Batch, Event, LogId, LogIndex, Message, Micros, NodeId, Raft, Round, StepError,
    Term,
};

/// The leader of the current term, as its follower knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Contact {
    pub(crate) id: NodeId,
    /// The tick at which it was last heard.
    pub(crate) heard: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Follower {
    pub(crate) leader: Option<Contact>,
    /// Up to here the log equals the leader's.
    matched: LogIndex,
    /// What was acknowledged last over the present connection to the leader.
    acknowledged: Option<LogIndex>,
    /// An answer is owed as soon as everything up to here is durable.
    answer_from: Option<LogIndex>,
}

impl Follower {
    /// Committed entries are in every later leader's log, hence in this one's.
    pub(crate) fn new(leader: Option<Contact>, committed: LogIndex) -> Follower {
        Follower { leader, matched: committed, acknowledged: None, answer_from: None }
    }

    /// Up to here the log equals the leader's, as far as is known.
    pub(crate) fn matched(&self) -> LogIndex {
        self.matched
    }

    /// Owes the leader an answer as soon as everything up to `from` is durable.
    pub(crate) fn owe_answer(&mut self, from: LogIndex) {
        self.answer_from = Some(self.answer_from.map_or(from, |owed| owed.min(from)));
    }

    /// Everything up to `index` is known to equal the leader's log.
    pub(crate) fn matches_upto(&mut self, index: LogIndex) {
        self.matched = self.matched.max(index);
    }

    /// A connection is gone; if it was the leader's, so is every answer given over it.
    pub(crate) fn lost(&mut self, peer: NodeId) {
        if self.leader.as_ref().is_some_and(|leader| leader.id == peer) {
            self.acknowledged = None;
            self.answer_from = None;
        }
    }
}

impl Raft {
    /// Takes `from` for the leader of the current term, and notes that it is alive.
    pub(crate) fn follow(&mut self, from: NodeId) -> Result<&mut Follower, StepError> {
        if let Some(leader) = self.leader().filter(|&leader| leader != from) {
            return Err(StepError::TwoLeaders { from, leader, term: self.term });
        }
        self.reset_election_timer();
        let contact = Contact { id: from, heard: self.ticks };
        let committed = self.commit_index;
        let has_missed_it = matches!(self.role, Role::PreCandidate(_));
        if self.leader().is_none() {
            self.become_follower(self.term, Some(contact.clone()));
        }
        match &mut self.role {
            Role::Follower(follower) => {
                follower.leader = Some(contact);
                if has_missed_it {
                    // What was owed is forgotten with the role, and a leader that has sent a
                    // snapshot waits for the answer alone.
                    follower.owe_answer(committed);
                }
                Ok(follower)
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                unreachable!("a node that is no leader and knows none has just become a follower")
            }
        }
    }

    /// `AppendEntries` (paper, section 5.3). Entries that are already there stay: an append that
    /// is late or comes twice never shortens the log.
    pub(crate) fn handle_append(
        &mut self,
        from: NodeId,
        prev: LogId,
        commit: LogIndex,
        batches: &[Batch],
    ) -> Result<(), StepError> {
        check_contiguous(self.term, prev, batches)?;
        self.check_sizes(batches)?;
        let conflict = self.log.first_conflict(batches);
        if let Some(index) = conflict.filter(|&index| index <= self.commit_index) {
            return Err(StepError::ReplacesCommitted { index });
        }
        let matched = self.follow(from)?.matched;
        if !self.log.contains(prev) {
            if prev.index > matched {
                self.reject_append(from, prev);
                return Ok(());
            }
            // What lies before the log is committed, and no longer known.
            if prev.index >= self.log.start().index {
                return Err(StepError::ContradictsMatched { index: prev.index });
            }
        }
        if let Some(index) = conflict.filter(|&index| index <= matched) {
            return Err(StepError::ReplacesMatched { index });
        }
        let upto = batches.last().map_or(prev.index, Batch::last);
        self.check_against_install(upto, batches)?;
        self.merge(conflict, upto, batches);
        self.owe_answer_to_append(prev.index, upto, commit, batches);
        self.commit_matched(upto, commit);
        Ok(())
    }

    /// The log takes no larger entry. Nor can it be given one later: a leader with higher limits must
    /// be told by its operator.
    fn check_sizes(&self, batches: &[Batch]) -> Result<(), StepError> {
        let bytes_max = self.config.entry_bytes_max;
        for batch in batches.iter().filter(|batch| batch.bytes() > bytes_max) {
            let bytes = batch.largest_bytes();
            if bytes > bytes_max {
                return Err(StepError::TooLarge { bytes, bytes_max });
            }
        }
        Ok(())
    }

    /// Cuts off what contradicts `batches` and appends what is missing.
    fn merge(&mut self, conflict: Option<LogIndex>, upto: LogIndex, batches: &[Batch]) {
        let past = upto < self.log.last_index();
        let wrong = (batches.is_empty() && self.config.mutant(Mutant::EmptyAppendTruncates))
            || (!batches.is_empty() && self.config.mutant(Mutant::DuplicateAppendTruncates));
        if let Some(from) = conflict.or((wrong && past).then(|| upto.next())) {
            self.truncate_suffix(from);
        }
        for batch in batches {
            let next = self.log.last_index().next();
            if batch.last() >= next {
                self.log.append(batch.slice(batch.first().max(next), batch.last()));
            }
        }
    }

    fn truncate_suffix(&mut self, from: LogIndex) {
        assert!(from > self.commit_index);
        self.log.truncate(from);
        if !self.config.mutant(Mutant::NoClampOnTruncate) {
            self.log.clamp(from.prev());
        }
        self.queued.events.push(Event::Truncated { from });
    }

    /// Answers are owed for entries and for probes, not for a mere commit notice. The two look
    /// alike; what tells nothing new about the commit index is a probe.
    fn owe_answer_to_append(
        &mut self,
        prev: LogIndex,
        upto: LogIndex,
        commit: LogIndex,
        batches: &[Batch],
    ) {
        let has_commit_news = commit.min(upto) > self.commit_index;
        let Role::Follower(follower) = &mut self.role else { return };
        let is_notice = batches.is_empty()
            && has_commit_news
            && follower.acknowledged.is_some_and(|acknowledged| prev <= acknowledged);
        if !is_notice {
            let acknowledged = follower.acknowledged.map(|index| index.next().min(upto));
            follower.owe_answer(acknowledged.unwrap_or(prev));
        }
    }

    /// Everything up to `upto` matches; of that, everything up to the leader's commit index is
    /// committed. What lies behind it may be another leader's.
    fn commit_matched(&mut self, upto: LogIndex, commit: LogIndex) {
        let last = self.log.last_index();
        let Role::Follower(follower) = &mut self.role else { return };
        follower.matches_upto(upto);
        let beyond = self.config.mutant(Mutant::CommitsBeyondMatched);
        let known = if beyond { last } else { follower.matched };
        self.commit_to(commit.min(known));
    }

    fn reject_append(&mut self, to: NodeId, prev: LogId) {
        let committed = self.log.id(self.commit_index);
        let committed = committed.expect("the log never starts above the commit index");
        // The leader holds all that is committed here, whatever the terms of what comes after.
        let hint = self.log.last_at_most(prev).map_or(committed, |hint| hint.max(committed));
        let outcome = AppendOutcome::Rejected { prev, hint };
        self.send(to, self.append_reply(outcome));
    }

    pub(crate) fn append_reply(&self, outcome: AppendOutcome) -> Message {
        Message::AppendReply {
            term: self.term,
            outcome,
            last_index: self.log.last_index(),
            credit_bytes: self.credit_bytes,
        }
    }

    /// Heartbeats are answered at once: nothing in the answer depends on the disk.
    pub(crate) fn handle_heartbeat(
        &mut self,
        from: NodeId,
        commit: LogIndex,
        round: Round,
        sent_at: Micros,
    ) -> Result<(), StepError> {
        let matched = self.follow(from)?.matched;
        self.commit_matched(matched, commit);
        self.send(from, self.heartbeat_reply(round, sent_at));
        Ok(())
    }

    fn heartbeat_reply(&self, round: Round, sent_at: Micros) -> Message {
        Message::HeartbeatReply {
            term: self.term,
            round,
            sent_at,
            last_index: self.log.last_index(),
            credit_bytes: self.credit_bytes,
        }
    }

    /// Acknowledges what is durable of what matches, if an answer is owed. Many appends covered
    /// by one write make one acknowledgement.
    pub(crate) fn maybe_acknowledge(&mut self) {
        let durable = self.log.durable();
        let Role::Follower(follower) = &mut self.role else { return };
        let (Some(leader), Some(from)) = (&follower.leader, follower.answer_from) else { return };
        let term_is_durable = durable.hard_state.term == self.term
            || self.config.mutant(Mutant::AckWithoutDurableTerm);
        let match_index = if self.config.mutant(Mutant::AckWithoutDurableEntries) {
            follower.matched
        } else {
            follower.matched.min(durable.index)
        };
        if !term_is_durable || match_index < from {
            return;
        }
        let to = leader.id;
        follower.acknowledged = Some(match_index);
        follower.answer_from = (match_index < follower.matched).then(|| match_index.next());
        self.send(to, self.append_reply(AppendOutcome::Accepted { match_index }));
    }

    /// Tells the sender of a message from an older term that there is a newer one. Answers from
    /// an older term need no answer.
    pub(crate) fn answer_outdated(&mut self, from: NodeId, message: &Message) {
        let reply = match message {
            Message::Append { prev, .. } => {
                let hint = LogId::default();
                self.append_reply(AppendOutcome::Rejected { prev: *prev, hint })
            }
            Message::Snapshot { meta, .. } => {
                let hint = LogId::default();
                self.append_reply(AppendOutcome::Rejected { prev: meta.last, hint })
            }
            Message::Heartbeat { round, sent_at, .. } => self.heartbeat_reply(*round, *sent_at),
            Message::Vote { .. } => Message::VoteReply { term: self.term, granted: false },
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::VoteReply { .. }
            | Message::AppendReply { .. }
            | Message::HeartbeatReply { .. } => return,
        };
        self.send(from, reply);
    }
}

/// Batches follow `prev` and each other without a gap, terms never fall and never pass the
/// leader's.
fn check_contiguous(term: Term, prev: LogId, batches: &[Batch]) -> Result<(), StepError> {
    let mut before = prev;
    for batch in batches {
        if batch.first() != before.index.next() || batch.term() < before.term {
            return Err(StepError::NotContiguous { prev: prev.index });
        }
        before = LogId { term: batch.term(), index: batch.last() };
    }
    if before.term > term {
        return Err(StepError::NotContiguous { prev: prev.index });
    }
    Ok(())
}
