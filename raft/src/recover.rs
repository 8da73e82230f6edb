//! The start: what was stored, checked, becomes a node again.

use crate::follower::Follower;
use crate::log::Log;
use crate::quorum::VOTERS_MAX;
use crate::raft::{NUMBER_MAX, Peer, Replay, Role};
use crate::rng::Rng;
use crate::terms::TermRuns;
use crate::{
    Config, HardState, LogId, LogIndex, Membership, Micros, NodeId, Raft, Ready, RecoverError,
    RoleKind, Round, SnapshotMeta, Term,
};

/// What recovery found on disk. All of it is durable.
///
/// An installed snapshot that the log does not reach, or contradicts, replaces the log: the caller
/// drops every entry first, and `log_start` and `last_index` are the snapshot's.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stored {
    /// The newest term and vote.
    pub hard_state: HardState,
    /// The newest snapshot; its index is 0, with the founding membership, when there is none yet.
    pub snapshot: SnapshotMeta,
    /// The entry before the first one of the log; at or before the snapshot's last.
    pub log_start: LogId,
    /// Each term in the log with the first index that has it, in order.
    pub terms: Vec<(Term, LogIndex)>,
    /// The last entry of the log; `log_start.index` when it is empty.
    pub last_index: LogIndex,
    /// What the state machine has applied: at least the snapshot.
    pub applied: LogIndex,
}

impl Stored {
    /// The state of a member that has never run.
    pub fn founding(membership: Membership) -> Stored {
        let snapshot = SnapshotMeta { last: LogId::default(), membership };
        Stored { snapshot, ..Stored::default() }
    }

    fn validate(&self, id: NodeId) -> Result<TermRuns, RecoverError> {
        check_membership(&self.snapshot.membership, id)?;
        let snapshot = self.snapshot.last;
        if self.log_start.index > snapshot.index {
            let first = self.log_start.index.next();
            return Err(RecoverError::Gap { first, snapshot: snapshot.index });
        }
        let runs = self.term_runs()?;
        let last = self.last_index;
        if last < snapshot.index {
            return Err(RecoverError::EndsBelowSnapshot { last, snapshot: snapshot.index });
        }
        if !runs.contains(snapshot) {
            return Err(RecoverError::ContradictsSnapshot { index: snapshot.index });
        }
        let applied = self.applied;
        if applied < snapshot.index || last < applied {
            return Err(RecoverError::Applied { applied, last, snapshot: snapshot.index });
        }
        Ok(runs)
    }

    fn term_runs(&self) -> Result<TermRuns, RecoverError> {
        let largest = self.last_index.0.max(self.log_start.term.0).max(self.hard_state.term.0);
        if self.last_index < self.log_start.index || largest > NUMBER_MAX {
            return Err(RecoverError::Runs("a term or an index is out of range"));
        }
        let mut runs = TermRuns::new(self.log_start);
        let mut before = self.log_start.term;
        let mut expected = Some(self.log_start.index.next());
        let ends = self.terms.iter().skip(1).map(|run| run.1.0.saturating_sub(1));
        let ends = ends.chain(std::iter::once(self.last_index.0));
        for (at, (&(term, first), end)) in self.terms.iter().zip(ends).enumerate() {
            let is_late = at > 0 && term == before;
            if term < before || is_late || term > self.hard_state.term {
                return Err(RecoverError::TermOutOfOrder { index: first, term });
            }
            if expected.is_some_and(|expected| expected != first) || end < first.0 {
                return Err(RecoverError::Runs("a run is empty or begins in the wrong place"));
            }
            runs.extend(term, LogIndex(end));
            (before, expected) = (term, None);
        }
        if runs.last_index() != self.last_index {
            return Err(RecoverError::Runs("they do not reach the last index"));
        }
        Ok(runs)
    }
}

fn check_membership(membership: &Membership, id: NodeId) -> Result<(), RecoverError> {
    let voters = &membership.voters;
    if voters.is_empty() {
        return Err(RecoverError::NoVoters);
    }
    if voters.len() > VOTERS_MAX {
        return Err(RecoverError::Membership("more voters than are supported"));
    }
    if voters[0] == NodeId(0) || !voters.is_sorted_by(|a, b| a < b) {
        return Err(RecoverError::Membership("voters are not sorted, or one is 0 or listed twice"));
    }
    if !voters.contains(&id) {
        return Err(RecoverError::NotAMember { id });
    }
    Ok(())
}

impl Raft {
    /// Rebuilds a node from what recovery found. There is no default membership. `seed` decides
    /// nothing but election timeouts; give every node and every start another one.
    pub fn recover(config: Config, stored: Stored, seed: u64) -> Result<Raft, RecoverError> {
        config.validate()?;
        let runs = stored.validate(config.id)?;
        // A snapshot may become durable before the term of the leader that sent it does. In such a
        // term nothing was promised here, so it can be entered without a vote.
        let known = stored.hard_state.term.max(runs.last_id().term);
        let is_behind = known > stored.hard_state.term;
        let peers = stored.snapshot.membership.voters.iter().filter(|&&id| id != config.id);
        let mut raft = Raft {
            rng: Rng::new(seed),
            now: Micros(0),
            ticks: 0,
            term: known,
            vote: stored.hard_state.vote.filter(|_| !is_behind),
            role: Role::Follower(Follower::new(None, stored.applied)),
            log: Log::recovered(runs, stored.hard_state),
            peers: peers.map(|&id| Peer { id, link: None }).collect(),
            commit_index: stored.applied,
            handed_index: stored.applied,
            applied_index: stored.applied,
            election_at: 0,
            vote_reply_due: None,
            install: None,
            replay: Replay::default(),
            credit_bytes: u32::MAX,
            round: Round(0),
            last_number: 0,
            queued: Ready::default(),
            reported: (RoleKind::Follower, known, None),
            membership: stored.snapshot.membership,
            config,
        };
        raft.reset_election_timer();
        if raft.peers.is_empty() {
            // Nobody else can lead: there is nothing to wait for.
            raft.election_at = 0;
        }
        Ok(raft)
    }
}
