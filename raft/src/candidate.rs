//! Elections: pre-vote (thesis, section 9.6), vote, and who gets one.
//!
//! Invariants: a pre-vote, asked or granted, changes no state that matters; a vote is asked for,
//! and a candidate's own counted, only when (term, self) is durable, and since writes are one
//! stream the whole log is durable then too; a vote never moves within a term.

use crate::leader::Leader;
use crate::mutant::Mutant;
use crate::quorum::majority;
use crate::raft::Role;
use crate::{Batch, HardState, Kind, LogId, Message, NodeId, Raft, Term};

/// Asks whether an election could be won. Knows no leader, and so stands in nobody's way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PreCandidate {
    granted: Vec<NodeId>,
}

/// Asks for votes in its term, or waits for its own to be durable.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Candidate {
    pub(crate) has_asked: bool,
    granted: Vec<NodeId>,
}

impl Raft {
    /// The leader was silent for too long, or the last attempt came to nothing.
    pub(crate) fn campaign(&mut self) {
        self.reset_election_timer();
        if self.disk_is_stalled() {
            return;
        }
        self.role = Role::PreCandidate(PreCandidate::default());
        let (term, last) = (Term(self.term.0 + 1), self.log.last_id());
        self.send_to_all(&Message::PreVote { term, last });
        self.count_pre_vote(self.config.id);
    }

    fn count_pre_vote(&mut self, from: NodeId) {
        let needed = majority(self.membership.voters.len());
        let Role::PreCandidate(candidate) = &mut self.role else { return };
        if count(&mut candidate.granted, from) >= needed {
            self.become_candidate();
        }
    }

    fn become_candidate(&mut self) {
        self.reset_election_timer();
        self.set_term(Term(self.term.0 + 1), Some(self.config.id));
        self.role = Role::Candidate(Candidate::default());
    }

    /// Asks for votes once this candidate's own is durable: asked before, others could elect a
    /// leader that a crash makes forget its term and stand in it a second time.
    pub(crate) fn maybe_ask_for_votes(&mut self) {
        let durable = self.log.durable();
        let promise = HardState { term: self.term, vote: Some(self.config.id) };
        let is_promised = durable.hard_state == promise;
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.has_asked || !(is_promised || self.config.mutant(Mutant::VoteRequestAtOnce)) {
            return;
        }
        assert!(!is_promised || durable.index == self.log.last_index());
        candidate.has_asked = true;
        let last = self.log.last_id();
        self.send_to_all(&Message::Vote { term: self.term, last, transfer: false });
        self.count_vote(self.config.id);
    }

    fn count_vote(&mut self, from: NodeId) {
        let needed = majority(self.membership.voters.len());
        let Role::Candidate(candidate) = &mut self.role else { return };
        if count(&mut candidate.granted, from) >= needed {
            self.become_leader();
        }
    }

    /// Elected. The first entry of the new term carries nothing; its commit is what makes all
    /// earlier entries committed (paper, section 5.4.2).
    fn become_leader(&mut self) {
        let peers: Vec<NodeId> = self.peers.iter().map(|peer| peer.id).collect();
        let last = self.log.last_index();
        self.role = Role::Leader(Leader::new(&peers, last, self.ticks));
        self.log.append(Batch::single(self.term, last.next(), Kind::Noop, bytes::Bytes::new()));
    }

    /// Grants iff the proposed term is news, the log is good and no leader is alive. A refusal
    /// carries this node's term, which a pre-candidate that is behind adopts: so a long log in a
    /// low term and a short one in a high term cannot block each other for ever.
    pub(crate) fn handle_pre_vote(&mut self, from: NodeId, term: Term, last: LogId) {
        let granted = term > self.term && self.is_up_to_date(last) && !self.hears_a_leader();
        let term = if granted { term } else { self.term };
        self.send(from, Message::PreVoteReply { term, granted });
    }

    pub(crate) fn handle_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        if granted && term.0 == self.term.0 + 1 {
            self.count_pre_vote(from);
        } else if !granted && term > self.term {
            self.become_follower(term, None);
        }
    }

    /// One vote per term, for a log at least as good (paper, section 5.4.1).
    pub(crate) fn handle_vote(&mut self, from: NodeId, last: LogId) {
        let is_free =
            self.vote.is_none_or(|vote| vote == from) || self.config.mutant(Mutant::VotesTwice);
        if !is_free || !self.is_up_to_date(last) {
            self.send(from, Message::VoteReply { term: self.term, granted: false });
            return;
        }
        self.vote = Some(from);
        self.vote_reply_due = Some(from);
        self.reset_election_timer();
    }

    pub(crate) fn handle_vote_reply(&mut self, from: NodeId, granted: bool) {
        if granted {
            self.count_vote(from);
        }
    }

    /// Whether a log that ends at `last` is at least as up-to-date as this one.
    fn is_up_to_date(&self, last: LogId) -> bool {
        last >= self.log.last_id() || self.config.mutant(Mutant::VotesForOldLog)
    }
}

/// Adds `from`, once, and says how many there are.
fn count(granted: &mut Vec<NodeId>, from: NodeId) -> usize {
    if !granted.contains(&from) {
        granted.push(from);
    }
    granted.len()
}
