//! What must hold whatever happens, checked from the outside: on messages, writes and disk images,
//! not on what a node believes of itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{
    AppendOutcome, Batch, HardState, Kind, LogId, LogIndex, Message, NodeId, RoleKind, Term, Write,
};

use super::disk::{Disk, Entry};

/// The history of the whole cluster, as far as the invariants need it.
#[derive(Default)]
pub(crate) struct Checker {
    /// What each entry ever written was, and which one came before it.
    identity: BTreeMap<LogId, (Kind, Bytes, LogId)>,
    /// Every committed entry, from index 1 on.
    pub(crate) committed: Vec<LogId>,
    /// The term of the leader that committed it.
    committed_in: Vec<Term>,
    /// The state after each applied entry, from index 0 on.
    states: Vec<u64>,
    /// Whether a test has put words into a node's mouth: then nobody need hold what was committed
    /// on the strength of them.
    pub(crate) hears_fakes: bool,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
}

impl Checker {
    pub(crate) fn new() -> Checker {
        Checker { states: vec![0], ..Checker::default() }
    }

    pub(crate) fn commit_index(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    fn committed_id(&self, index: LogIndex) -> Option<LogId> {
        let at = usize::try_from(index.0.checked_sub(1)?).unwrap();
        self.committed.get(at).copied()
    }

    /// Log matching over everything ever written, and no truncation of what is committed.
    /// `disk` is as it was before the write.
    pub(crate) fn wrote(&mut self, node: NodeId, disk: &Disk, write: &Write) {
        let was = disk.volatile.hard_state;
        if let Some(now) = write.hard_state {
            assert!(now.term > was.term || (now.term == was.term && was.vote.is_none()));
        }
        if let Some(from) = write.truncate_from
            && let Some(committed) = self.committed_id(from)
        {
            let held = disk.volatile.id(from);
            assert_ne!(held, Some(committed), "node {node} cuts committed entry {from}");
        }
        if let Some(meta) = &write.reset {
            assert_eq!(self.committed_id(meta.last.index), Some(meta.last));
        }
        let before = |index: LogIndex| disk.volatile.id(index.prev());
        let reset = write.reset.as_ref().map(|meta| meta.last);
        let mut prev = match (reset, write.batches.first()) {
            (Some(last), _) => Some(last),
            (None, Some(batch)) => before(batch.first()),
            (None, None) => None,
        };
        for batch in &write.batches {
            for (index, payload) in batch.entries() {
                let id = LogId { term: batch.term(), index };
                let came_before = prev.expect("the write continues the log");
                assert_eq!(came_before.index, index.prev());
                let known = (batch.kind(), payload, came_before);
                let first = self.identity.entry(id).or_insert_with(|| known.clone());
                assert_eq!(*first, known, "two entries are {id:?}");
                prev = Some(id);
            }
        }
    }

    /// An entry that was there before the test began.
    pub(crate) fn found(&mut self, id: LogId, entry: &Entry, prev: LogId) {
        self.identity.insert(id, (entry.kind, entry.payload.clone(), prev));
    }

    /// What a node says must rest on what its disk holds for certain.
    pub(crate) fn said(&mut self, from: NodeId, to: NodeId, message: &Message, disk: &Disk) {
        assert_ne!(from, to);
        let term = message.term();
        let durable = disk.durable.hard_state;
        match message {
            Message::Vote { .. } => {
                let promise = HardState { term, vote: Some(from) };
                assert_eq!(durable, promise, "node {from} asks for votes too early");
                self.voted(from, term, from);
            }
            Message::VoteReply { granted: true, .. } => {
                let promise = HardState { term, vote: Some(to) };
                assert_eq!(durable, promise, "node {from} grants a vote too early");
                self.voted(from, term, to);
            }
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. } => {
                assert!(durable.term >= term, "node {from} leads a term it may forget");
                assert_eq!(*self.leaders.entry(term).or_insert(from), from);
            }
            Message::AppendReply { outcome: AppendOutcome::Accepted { match_index }, .. } => {
                assert!(durable.term >= term, "node {from} acknowledges in a term it may forget");
                acknowledged(from, *match_index, disk);
            }
            Message::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }
            | Message::HeartbeatReply { .. }
            | Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::VoteReply { granted: false, .. } => {}
        }
    }

    fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(first, candidate, "node {voter} votes twice in term {term}");
    }

    /// At most one leader per term; it holds everything that was committed in earlier ones. It may
    /// learn of its votes late, when the leader of a later term has committed more.
    pub(crate) fn leads(&mut self, node: NodeId, term: Term, disk: &Disk) {
        if let Some(&leader) = self.leaders.get(&term) {
            assert_eq!(leader, node, "two leaders in term {term}");
            return;
        }
        self.leaders.insert(term, node);
        let start = disk.volatile.start.index;
        let committed = self.committed.iter().zip(&self.committed_in);
        let earlier = committed.filter(|(id, by)| id.index > start && **by <= term);
        for (id, _) in earlier {
            assert!(disk.volatile.contains(*id), "leader {node} of term {term} lacks {id:?}");
        }
    }

    /// Everything a node takes for committed is kept by a quorum whatever crashes, and is the same
    /// everywhere.
    pub(crate) fn committed(&mut self, node: NodeId, upto: LogIndex, disks: &[&Disk]) {
        let own = disks[usize::try_from(node.0 - 1).unwrap()];
        // Seen first at the leader, whose commit index stands at an entry of its own term.
        let by = own.volatile.id(upto).map(|id| id.term);
        while self.commit_index() < upto {
            let index = self.commit_index().next();
            let id = own.volatile.id(index).expect("a node holds what it commits first");
            let keepers = disks.iter().filter(|disk| disk.keeps(id)).count();
            let is_kept = keepers * 2 > disks.len() || self.hears_fakes;
            assert!(is_kept, "{id:?} is committed, but {keepers} nodes keep it");
            self.committed.push(id);
            self.committed_in.push(by.expect("a node holds what it commits first"));
        }
        if upto > own.volatile.start.index {
            assert_eq!(own.volatile.id(upto), self.committed_id(upto), "node {node} commits else");
        }
    }

    /// State machine safety: the same entry at each index everywhere. Returns the new state.
    pub(crate) fn applied(&mut self, node: NodeId, batch: &Batch, mut state: u64) -> u64 {
        for (index, payload) in batch.entries() {
            let id = LogId { term: batch.term(), index };
            assert_eq!(self.committed_id(index), Some(id), "node {node} applies another entry");
            let known = self.identity.get(&id).expect("every entry was written somewhere first");
            assert_eq!((known.0, &known.1), (batch.kind(), &payload));
            state = mix(state, index, &payload);
            let at = usize::try_from(index.0).unwrap();
            if at == self.states.len() {
                self.states.push(state);
            }
            assert_eq!(self.states[at], state, "node {node} has another state at {index}");
        }
        state
    }

    /// A leader moves its commit index only over an entry of its own term (paper, 5.4.2).
    pub(crate) fn leader_committed(&self, term: Term, upto: LogIndex) {
        assert_eq!(self.committed_id(upto).map(|id| id.term), Some(term));
    }

    pub(crate) fn role(&mut self, node: NodeId, role: RoleKind, term: Term, disk: &Disk) {
        if role == RoleKind::Leader {
            self.leads(node, term, disk);
        }
    }
}

fn acknowledged(from: NodeId, index: LogIndex, disk: &Disk) {
    if index <= disk.snapshot.meta.last.index {
        return;
    }
    let held = disk.durable.id(index);
    assert!(held.is_some(), "node {from} acknowledges {index}, which it may forget");
    assert_eq!(held, disk.volatile.id(index), "node {from} vouches for a replaced {index}");
}

fn mix(state: u64, index: LogIndex, payload: &Bytes) -> u64 {
    let mut hash = state ^ index.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for &byte in payload {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash
}
