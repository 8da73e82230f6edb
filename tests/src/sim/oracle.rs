//! What must hold at every moment, seen from outside: each check knows what nodes say and do, not how.
//!
//! - Election safety: one leader a term, by role and by what is sent.
//! - A node votes once a term, across restarts, and never speaks of a term below one it has voted or
//!   acknowledged in.
//! - Log matching: one payload for each (term, index) that is ever sent.
//! - State machine safety: nodes that have applied the same index have the same state.
//! - What is committed is durable on a majority, the committing node or not.
//! - A leader that hears no majority for long does not lead, nor does one whose disk hangs; who hears a leader
//!   does not vote.
//! - Commit and applied index never go back within a process; the state hash of a start is the one of before.
//! - Queues keep their bounds.

use std::collections::BTreeMap;

use raft::{AppendOutcome, Message, NodeId};
use server::peer_message::PeerMessage;

use super::trace::digest;

/// A leader that has heard no majority, or whose disk has completed nothing, for so long must have stepped down:
/// several election timeouts, for clocks that drift and turns that are late. In microseconds.
const PATIENCE_US: u64 = 3_000_000;

/// Nobody votes within this time of hearing a leader: less than an election timeout, for clocks that run fast.
/// In microseconds.
const STICKY_US_MIN: u64 = 150_000;

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
    /// Its last index, durable or not.
    pub last_index: u64,
    /// The last index that is durable on it.
    pub durable_index: u64,
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
    /// The highest commit index that anybody has claimed.
    committed: u64,
    voters: usize,
    looks: BTreeMap<NodeId, Look>,
    /// When the second was last heard by the first.
    heard: BTreeMap<(NodeId, NodeId), u64>,
    begun: BTreeMap<NodeId, u64>,
    /// When a node last heard the leader of which term.
    led: BTreeMap<NodeId, (u64, u64)>,
    /// Votes that were asked for shortly after the voter had heard a leader, and how shortly.
    sticky: BTreeMap<(NodeId, NodeId, u64), u64>,
    /// Since when a leader's disk has completed nothing, and at which durable index.
    stalled: BTreeMap<NodeId, (u64, u64)>,
    now_us: u64,
    failure: Option<String>,
}

impl Oracle {
    /// Nothing has been seen of a cluster of `voters`.
    pub fn new(voters: usize) -> Oracle {
        Oracle { voters, ..Oracle::default() }
    }

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

    /// Moves the oracle's time.
    pub fn advance(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// A process has made a turn.
    pub fn look(&mut self, look: Look) {
        if look.leads {
            self.leads(look.term, look.node);
        }
        self.look_at_state(&look);
        let before = self.looks.insert(look.node, look);
        self.look_at_commit(&look);
        if look.leads {
            self.look_at_quorum(look.node);
        }
        self.look_at_stall(&look);
        let Some(before) = before else { return };
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

    /// What is committed is durable on a majority, by what each node has shown last.
    fn look_at_commit(&mut self, look: &Look) {
        if look.commit_index <= self.committed {
            return;
        }
        self.committed = look.commit_index;
        let durable = self.looks.values().filter(|of| of.durable_index >= look.commit_index);
        let count = durable.count();
        self.expect(2 * count > self.voters, || {
            format!(
                "node {} commits {} which is durable on {count} nodes only",
                look.node, look.commit_index
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
            Message::VoteReply { granted: true, .. } => self.granted(from, to, term),
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

    /// Something of `from` has arrived at `to`.
    pub fn heard(&mut self, to: NodeId, from: NodeId, message: &PeerMessage) {
        self.heard.insert((to, from), self.now_us);
        let PeerMessage::Raft(message) = message else { return };
        let term = message.term().0;
        match message {
            Message::Append { .. } | Message::Heartbeat { .. } => {
                self.led.insert(to, (term, self.now_us));
            }
            Message::Vote { .. } => self.asked(to, from, term),
            Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. } => {}
            // A higher term in any other message ends the rule of the leader that was heard.
            Message::AppendReply { .. }
            | Message::HeartbeatReply { .. }
            | Message::PreVoteReply { granted: false, .. }
            | Message::VoteReply { .. }
            | Message::Snapshot { .. } => {
                if self.led.get(&to).is_some_and(|(of, _)| *of < term) {
                    self.led.remove(&to);
                }
            }
        }
    }

    /// A process begins, or goes on after a pause: it could not hear anybody before.
    pub fn begins(&mut self, node: NodeId, at_us: u64) {
        self.begun.insert(node, at_us);
        self.led.remove(&node);
        self.stalled.remove(&node);
    }

    /// `node` leads: it must have heard a majority not long ago.
    fn look_at_quorum(&mut self, node: NodeId) {
        let since_us = self.now_us.saturating_sub(PATIENCE_US);
        let heard = self.heard.range((node, NodeId(0))..=(node, NodeId(u64::MAX)));
        let recent = 1 + heard.filter(|(_, at_us)| **at_us >= since_us).count();
        let begun_us = self.begun.get(&node).copied().unwrap_or(0);
        let voters = self.voters;
        self.expect(2 * recent > voters || begun_us >= since_us, || {
            format!("node {node} leads though it has heard only {recent} of {voters} for long")
        });
    }

    /// A leader whose disk hangs steps down.
    fn look_at_stall(&mut self, look: &Look) {
        if !look.leads || look.last_index == look.durable_index {
            self.stalled.remove(&look.node);
            return;
        }
        let now = (look.durable_index, self.now_us);
        let since = self.stalled.entry(look.node).or_insert(now);
        if since.0 != look.durable_index {
            *since = now;
        }
        let for_us = now.1 - since.1;
        self.expect(for_us <= PATIENCE_US, || {
            format!("node {} leads though its disk has hung for {for_us} us", look.node)
        });
    }

    /// A vote is asked for: whoever hears a leader must not give it.
    fn asked(&mut self, voter: NodeId, candidate: NodeId, term: u64) {
        let led = self.led.get(&voter).copied();
        let own = self.looks.get(&voter).map(|look| look.term);
        let now_us = self.now_us;
        let hears = led
            .filter(|(of, at_us)| *of < term && own == Some(*of) && now_us - at_us < STICKY_US_MIN);
        match hears {
            Some((_, at_us)) => self.sticky.insert((voter, candidate, term), now_us - at_us),
            None => self.sticky.remove(&(voter, candidate, term)),
        };
    }

    fn granted(&mut self, voter: NodeId, candidate: NodeId, term: u64) {
        if let Some(ago_us) = self.sticky.get(&(voter, candidate, term)).copied() {
            self.fail(|| {
                format!(
                    "node {voter} votes in term {term}, asked {ago_us} us after it heard a leader"
                )
            });
        }
        self.voted(voter, term, candidate);
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
    use raft::{LogId, LogIndex, Micros, Round, Term};

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
            last_index: applied_index,
            durable_index: applied_index,
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
    fn commit_that_is_not_durable_on_a_majority_is_seen() {
        let mut oracle = Oracle::new(3);
        oracle.look(look(1, 3, true, 0, 1));
        oracle.look(look(2, 3, false, 0, 1));
        oracle.look(look(1, 3, true, 5, 1));
        assert!(oracle.failure().is_some_and(|reason| reason.contains("durable on 1")));
    }

    fn heartbeat(term: u64) -> PeerMessage {
        let (commit, round, sent_at) = (LogIndex(0), Round(1), Micros(0));
        PeerMessage::Raft(Message::Heartbeat { term: Term(term), commit, round, sent_at })
    }

    #[test]
    fn leader_that_hears_nobody_is_seen() {
        let mut oracle = Oracle::new(3);
        oracle.advance(1_000_000);
        oracle.heard(NodeId(1), NodeId(2), &heartbeat(3));
        oracle.advance(2_000_000);
        oracle.look(look(1, 3, true, 0, 1));
        assert_eq!(oracle.failure(), None);
        oracle.advance(1_000_001 + PATIENCE_US);
        oracle.look(look(1, 3, true, 0, 1));
        assert!(oracle.failure().is_some_and(|reason| reason.contains("only 1 of 3")));
    }

    #[test]
    fn leader_whose_disk_hangs_is_seen() {
        let mut oracle = Oracle::new(1);
        for at_us in [0, PATIENCE_US + 1] {
            oracle.advance(at_us);
            oracle.look(Look { last_index: 9, ..look(1, 3, true, 0, 1) });
        }
        assert!(oracle.failure().is_some_and(|reason| reason.contains("has hung")));
    }

    #[test]
    fn vote_against_a_leader_that_is_heard_is_seen() {
        let granted = Message::VoteReply { term: Term(4), granted: true };
        let reason = failure(|oracle| {
            oracle.look(look(1, 3, false, 0, 1));
            oracle.heard(NodeId(1), NodeId(2), &heartbeat(3));
            oracle.advance(1_000);
            let (term, last, transfer) = (Term(4), LogId::default(), false);
            let ask = PeerMessage::Raft(Message::Vote { term, last, transfer });
            oracle.heard(NodeId(1), NodeId(3), &ask);
            oracle.sent(NodeId(1), NodeId(3), &granted);
        });
        assert!(reason.contains("asked 1000 us after"), "{reason}");
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
