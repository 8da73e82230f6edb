//! What must hold at every moment, seen from outside: each check knows what nodes say and do, not how.
//!
//! - Election safety: one leader a term, by role and by what is sent.
//! - A node votes once a term, across restarts, and never speaks of a term below one it has voted or
//!   acknowledged in.
//! - Log matching: one payload for each (term, index) that is ever sent.
//! - State machine safety: nodes that have applied the same index have the same state.
//! - Commit and applied index never go back within a process; the state hash of a start is the one of before.
//! - Queues keep their bounds.

use std::collections::BTreeMap;

use raft::{AppendOutcome, Message, NodeId};

use super::trace::digest;

/// What a process looks like after a turn.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Which node.
    pub node: NodeId,
    /// Which of its processes, counted from its first.
    pub start: u64,
    /// Its term.
    pub term: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Its commit index.
    pub commit_index: u64,
    /// Its applied index.
    pub applied_index: u64,
    /// The hash of its state.
    pub state_hash: u128,
    /// The store's revision.
    pub revision: u64,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Oracle {
    leaders: BTreeMap<u64, NodeId>,
    votes: BTreeMap<(NodeId, u64), NodeId>,
    /// The highest term in which a node has voted or acknowledged.
    promised: BTreeMap<NodeId, u64>,
    payloads: BTreeMap<(u64, u64), u64>,
    states: BTreeMap<u64, (u128, u64, NodeId)>,
    looks: BTreeMap<NodeId, Look>,
    failure: Option<String>,
}

impl Oracle {
    /// The first thing that did not hold.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// In how many terms somebody led.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// At how many applied indices states were seen.
    pub fn states_seen(&self) -> u64 {
        self.states.len() as u64
    }

    /// Something does not hold.
    pub fn fail(&mut self, reason: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(reason());
        }
    }

    fn expect(&mut self, holds: bool, reason: impl FnOnce() -> String) {
        if !holds {
            self.fail(reason);
        }
    }

    /// A process has made a turn.
    pub fn look(&mut self, look: Look) {
        if look.leads {
            self.leads(look.term, look.node);
        }
        self.look_at_state(&look);
        let Some(before) = self.looks.insert(look.node, look) else { return };
        if before.start == look.start {
            let goes_back = look.commit_index < before.commit_index
                || look.applied_index < before.applied_index
                || look.term < before.term;
            self.expect(!goes_back, || format!("went back: {before:?}, then {look:?}"));
        }
    }

    fn look_at_state(&mut self, look: &Look) {
        let seen = (look.state_hash, look.revision, look.node);
        let known = *self.states.entry(look.applied_index).or_insert(seen);
        self.expect(known.0 == look.state_hash && known.1 == look.revision, || {
            format!(
                "at index {} node {} has state {:032x} at revision {}, node {} has {:032x} at {}",
                look.applied_index,
                look.node,
                look.state_hash,
                look.revision,
                known.2,
                known.0,
                known.1
            )
        });
    }

    fn leads(&mut self, term: u64, node: NodeId) {
        let leader = *self.leaders.entry(term).or_insert(node);
        self.expect(leader == node, || format!("nodes {leader} and {node} both led term {term}"));
    }

    /// A process sends a message.
    pub fn sent(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let term = message.term().0;
        match message {
            Message::Append { batches, .. } => {
                self.leads(term, from);
                for batch in batches {
                    for (index, payload) in batch.entries() {
                        self.entry(batch.term().0, index.0, digest(&payload), from);
                    }
                }
            }
            Message::Heartbeat { .. } | Message::Snapshot { .. } => self.leads(term, from),
            Message::Vote { .. } => self.voted(from, term, from),
            Message::VoteReply { granted: true, .. } => self.voted(from, term, to),
            Message::AppendReply { outcome: AppendOutcome::Accepted { .. }, .. } => {
                self.promises(from, term);
            }
            Message::AppendReply { .. }
            | Message::VoteReply { granted: false, .. }
            | Message::HeartbeatReply { .. }
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. } => {}
        }
    }

    fn entry(&mut self, term: u64, index: u64, payload: u64, from: NodeId) {
        let known = *self.payloads.entry((term, index)).or_insert(payload);
        self.expect(known == payload, || {
            format!("node {from} sends another entry {index} of term {term} than was sent before")
        });
    }

    fn voted(&mut self, voter: NodeId, term: u64, candidate: NodeId) {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        self.expect(first == candidate, || {
            format!("node {voter} voted for {first} and for {candidate} in term {term}")
        });
        self.promises(voter, term);
    }

    fn promises(&mut self, node: NodeId, term: u64) {
        let highest = self.promised.entry(node).or_insert(term);
        let before = *highest;
        *highest = before.max(term);
        self.expect(before <= term, || {
            format!("node {node} votes or acknowledges in term {term} after doing so in {before}")
        });
    }

    /// A process has started and holds this much from before.
    pub fn started(&mut self, node: NodeId, term: u64) {
        let promised = self.promised.get(&node).copied().unwrap_or(0);
        self.expect(promised <= term, || {
            format!("node {node} starts in term {term} though it had voted or acknowledged in {promised}")
        });
    }
}

#[cfg(test)]
mod tests {
    use raft::Term;

    use super::*;

    fn look(node: u64, term: u64, leads: bool, applied_index: u64, state_hash: u128) -> Look {
        let node = NodeId(node);
        Look {
            node,
            start: 1,
            term,
            leads,
            commit_index: applied_index,
            applied_index,
            state_hash,
            revision: 1,
        }
    }

    fn failure(act: impl FnOnce(&mut Oracle)) -> String {
        let mut oracle = Oracle::default();
        act(&mut oracle);
        oracle.failure().expect("the oracle must object").to_owned()
    }

    #[test]
    fn two_leaders_of_one_term_are_seen() {
        let reason = failure(|oracle| {
            oracle.look(look(1, 3, true, 1, 1));
            oracle.look(look(2, 3, true, 1, 1));
        });
        assert!(reason.contains("both led term 3"), "{reason}");
    }

    #[test]
    fn different_states_at_one_index_are_seen() {
        let reason = failure(|oracle| {
            oracle.look(look(1, 3, false, 5, 1));
            oracle.look(look(2, 3, false, 5, 2));
        });
        assert!(reason.contains("at index 5"), "{reason}");
    }

    #[test]
    fn applied_index_that_goes_back_is_seen() {
        let reason = failure(|oracle| {
            oracle.look(look(1, 3, false, 5, 1));
            oracle.look(look(1, 3, false, 4, 2));
        });
        assert!(reason.contains("went back"), "{reason}");
    }

    #[test]
    fn second_vote_in_a_term_is_seen() {
        let granted = Message::VoteReply { term: Term(4), granted: true };
        let reason = failure(|oracle| {
            oracle.sent(NodeId(1), NodeId(2), &granted);
            oracle.sent(NodeId(1), NodeId(3), &granted);
        });
        assert!(reason.contains("voted for 2 and for 3"), "{reason}");
    }

    #[test]
    fn forgotten_term_is_seen_at_the_start() {
        let granted = Message::VoteReply { term: Term(4), granted: true };
        let reason = failure(|oracle| {
            oracle.sent(NodeId(1), NodeId(2), &granted);
            oracle.started(NodeId(1), 3);
        });
        assert!(reason.contains("starts in term 3"), "{reason}");
    }
}
