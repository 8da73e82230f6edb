//! The node: its state, its inputs, and the one output.
//!
//! Invariants, asserted at the end of every [`Raft::ready`]:
//!
//! ```text
//! log start ≤ applied ≤ handed ≤ commit_index ≤ last_index        durable.index ≤ last_index
//! durable term ≤ term                                             match_index < next_index per peer
//! ```
//!
//! Data that belongs to a role lives in its variant of [`Role`], so that it cannot survive a
//! change of role; `set_term` is the only place that clears a vote.

use std::collections::VecDeque;

use crate::candidate::{Candidate, PreCandidate};
use crate::follower::{Contact, Follower};
use crate::install::Install;
use crate::leader::Leader;
use crate::log::Log;
use crate::mutant::Mutant;
use crate::progress::State;
use crate::rng::Rng;
use crate::{
    Batch, Config, Envelope, Event, HardState, Lane, Link, Load, LoadId, LogId, LogIndex,
    Membership, Message, Micros, More, NodeId, ReadError, Ready, RoleKind, Round, SnapshotOrder,
    StepError, Term, WriteSeq,
};

/// Terms and indices above this are no history but garbage; below it, adding cannot overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 4;

/// One member of a replicated log. See the [crate documentation](crate) for the contract.
#[derive(Clone, Hash, Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) rng: Rng,
    pub(crate) now: Micros,
    /// Calls of `tick` so far; all timing is counted in it.
    pub(crate) ticks: u64,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) role: Role,
    pub(crate) log: Log,
    pub(crate) membership: Membership,
    pub(crate) peers: Vec<Peer>,
    pub(crate) commit_index: LogIndex,
    /// Up to here, entries were given to the caller for applying.
    pub(crate) handed_index: LogIndex,
    pub(crate) applied_index: LogIndex,
    /// The tick at which this node asks for an election, unless it leads.
    pub(crate) election_at: u64,
    /// Who waits for this node's vote, which is not durable yet.
    pub(crate) vote_reply_due: Option<NodeId>,
    pub(crate) install: Option<Install>,
    pub(crate) replay: Replay,
    /// This node's own room for entries.
    pub(crate) credit_bytes: u32,
    pub(crate) round: Round,
    /// The last number given to a load, a send or an install.
    pub(crate) last_number: u64,
    /// Outputs that wait for nothing but the next `ready`.
    pub(crate) queued: Ready,
    /// Role, term and leader as last reported.
    pub(crate) reported: (RoleKind, Term, Option<NodeId>),
}

/// Another member.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// The connection to it that is up.
    pub(crate) link: Option<Link>,
}

/// What this node is, with what only that role knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Leader),
}

/// Committed entries that are no longer in memory, on their way back from the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) load: Option<LoadId>,
    pub(crate) loaded: VecDeque<Batch>,
}

/// One peer as this node sees it. Only a leader knows more than whether it is connected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub id: NodeId,
    /// What it durably holds, as far as the leader knows; 0 unless this node leads.
    pub match_index: LogIndex,
    /// The next entry to send to it; 0 unless this node leads.
    pub next_index: LogIndex,
    /// Its last index, durable or not, as it said last; 0 unless this node leads.
    pub last_index: LogIndex,
    /// How it is fed.
    pub state: PeerState,
    /// Bytes of entries sent to it and not acknowledged.
    pub inflight_bytes: u64,
    /// Whether it is connected and, if this node leads, was heard within an election timeout.
    pub active: bool,
}

/// How a leader feeds a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerState {
    /// Looking for the point up to which the logs agree.
    Probe,
    /// Entries stream.
    Replicate,
    /// It needs a snapshot.
    Snapshot,
}

// Inputs.
impl Raft {
    /// Time has passed. Call it every [`Config::tick`], at most once per turn of the caller's
    /// loop and after the messages of that turn: then a pause of the process is not taken for the
    /// silence of a leader. `now` is the caller's monotonic clock; an earlier one is ignored.
    pub fn tick(&mut self, now: Micros) {
        self.now = self.now.max(now);
        self.ticks += 1;
        match self.role {
            Role::Leader(_) => self.tick_leader(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                if self.ticks >= self.election_at {
                    self.campaign();
                }
            }
        }
    }

    /// A message has arrived over `link`. One that did not come over the connection last named in
    /// [`Raft::peer_up`] belongs to the past and is dropped. After an error the caller closes the
    /// link: no correct peer causes one.
    pub fn step(&mut self, from: NodeId, link: Link, message: Message) -> Result<(), StepError> {
        if self.peers.iter().all(|peer| peer.id != from) {
            return Err(StepError::NotAPeer { from });
        }
        if largest_number(&message) > NUMBER_MAX {
            return Err(StepError::OutOfRange { from });
        }
        if self.link_to(from) != Some(link) {
            return Ok(());
        }
        if self.settles_term(from, &message) { self.dispatch(from, message) } else { Ok(()) }
    }

    /// Compares terms, once for all messages: a newer one is adopted, an older one is told of the
    /// newer. Returns whether the message is to be handled.
    fn settles_term(&mut self, from: NodeId, message: &Message) -> bool {
        let term = message.term();
        if matches!(message, Message::PreVote { .. } | Message::PreVoteReply { .. }) {
            return true; // Their term is only proposed.
        }
        if term < self.term {
            self.answer_outdated(from, message);
            return false;
        }
        if term > self.term {
            let is_vote = matches!(message, Message::Vote { transfer: false, .. });
            if is_vote && self.hears_a_leader() {
                return false; // A member that cannot hear the leader must not unseat it.
            }
            self.become_follower(term, None);
        }
        true
    }

    fn dispatch(&mut self, from: NodeId, message: Message) -> Result<(), StepError> {
        match message {
            Message::Append { prev, commit, batches, .. } => {
                return self.handle_append(from, prev, commit, &batches);
            }
            Message::AppendReply { outcome, last_index, credit_bytes, .. } => {
                return self.handle_append_reply(from, outcome, last_index, credit_bytes);
            }
            Message::Heartbeat { commit, round, sent_at, .. } => {
                return self.handle_heartbeat(from, commit, round, sent_at);
            }
            Message::HeartbeatReply { round, last_index, credit_bytes, .. } => {
                return self.handle_heartbeat_reply(from, round, last_index, credit_bytes);
            }
            Message::Snapshot { meta, send, .. } => return self.handle_snapshot(from, meta, send),
            Message::PreVote { term, last } => self.handle_pre_vote(from, term, last),
            Message::PreVoteReply { term, granted } => {
                self.handle_pre_vote_reply(from, term, granted);
            }
            Message::Vote { last, .. } => self.handle_vote(from, last),
            Message::VoteReply { granted, .. } => self.handle_vote_reply(from, granted),
        }
        Ok(())
    }

    /// A connection to `peer` is up; until it is lost, everything to `peer` goes over it.
    /// Requires: `link` was never used before for this peer.
    pub fn peer_up(&mut self, peer: NodeId, link: Link) {
        if let Some(old) = self.link_to(peer) {
            self.peer_lost(peer, old);
        }
        let Some(known) = self.peers.iter_mut().find(|known| known.id == peer) else { return };
        known.link = Some(link);
        self.greet(peer);
    }

    /// The connection is gone, and with it everything that was under way on it. One that is not
    /// the current one is ignored.
    pub fn peer_lost(&mut self, peer: NodeId, link: Link) {
        let Some(known) = self.peers.iter_mut().find(|known| known.id == peer) else { return };
        if known.link != Some(link) {
            return;
        }
        known.link = None;
        self.queued.messages.retain(|envelope| envelope.to != peer);
        self.vote_reply_due = self.vote_reply_due.filter(|&candidate| candidate != peer);
        match &mut self.role {
            Role::Leader(_) => self.leader_lost_peer(peer),
            Role::Follower(follower) => follower.lost(peer),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// Everything up to and including write `upto` is durable.
    ///
    /// Requires: `upto` was handed out in a [`Ready::write`] and is above every earlier `upto`.
    pub fn wrote(&mut self, upto: WriteSeq) {
        self.log.wrote(upto);
        self.maybe_ask_for_votes();
        self.maybe_commit();
    }

    /// The state machine has applied everything up to and including `upto`. An index at or below
    /// an earlier one, or below an installed snapshot, says nothing.
    ///
    /// Requires: `upto` was handed out in [`Ready::committed`].
    pub fn applied(&mut self, upto: LogIndex) {
        assert!(upto <= self.handed_index);
        self.applied_index = self.applied_index.max(upto);
    }

    /// The answer to a [`Load`]: contiguous entries from the first wanted one on, at least one,
    /// or `None` when they are no longer in the log. An answer that nobody waits for any more is
    /// ignored.
    pub fn loaded(&mut self, load: LoadId, batches: Option<Vec<Batch>>) {
        if self.replay.load == Some(load) {
            self.replay.load = None;
            let next = self.handed_index.next();
            self.replay.loaded = self.checked_load(next, batches).into();
        } else {
            self.leader_loaded(load, batches);
        }
    }

    /// How many bytes of entries this node has room for; the leader is told in every answer.
    /// Starts without a limit. 0 stops the leader from sending entries.
    pub fn set_credit(&mut self, bytes: u32) {
        let grows_from_nothing = self.credit_bytes == 0 && bytes > 0;
        self.credit_bytes = bytes;
        if let Role::Follower(follower) = &mut self.role
            && grows_from_nothing
        {
            follower.owe_answer(LogIndex(0));
        }
    }

    /// The log now starts after `log_start`. A start at or before the present one says nothing.
    ///
    /// Requires: the entry is applied and durable here, and in the log.
    pub fn purged(&mut self, log_start: LogId) {
        if log_start.index <= self.log.start().index {
            return;
        }
        assert!(log_start.index <= self.applied_index);
        assert!(log_start.index <= self.log.durable().index);
        self.log.purge(log_start);
    }
}

// The output.
impl Raft {
    /// Fills `out`, which is cleared first, with everything there is to do. Cheap when there is
    /// nothing; never proportional to the log.
    pub fn ready(&mut self, out: &mut Ready) -> More {
        self.stop_outdated_install();
        self.leader_ready();
        self.emit_gated();
        out.clear();
        std::mem::swap(out, &mut self.queued);
        let more = self.hand_out(out);
        let hard_state = HardState { term: self.term, vote: self.vote };
        out.write = self.log.seal(hard_state, self.ticks);
        out.messages.sort_by_key(|envelope| envelope.lane);
        self.report_role(&mut out.events);
        self.log.evict(self.handed_index, self.config.cache_bytes_max);
        self.assert_invariants();
        more
    }

    /// What may be said only when something is durable. Nothing of it was stored: each question is
    /// asked of the state and of the disk as they are now.
    fn emit_gated(&mut self) {
        self.maybe_ask_for_votes();
        let durable = self.log.durable().hard_state;
        if let Some(candidate) = self.vote_reply_due {
            assert_eq!(self.vote, Some(candidate));
            let promise = HardState { term: self.term, vote: Some(candidate) };
            if durable == promise || self.config.mutant(Mutant::VoteGrantAtOnce) {
                self.vote_reply_due = None;
                let granted = true;
                self.send(candidate, Message::VoteReply { term: self.term, granted });
            }
        }
        self.maybe_acknowledge();
    }

    /// Gives committed entries to the caller, from memory or from what was read back.
    fn hand_out(&mut self, out: &mut Ready) -> More {
        let mut room = self.config.committed_bytes_per_ready;
        while self.handed_index < self.commit_index {
            let (next, upto) = (self.handed_index.next(), self.commit_index);
            let before = out.committed.len();
            let bytes = if let Some(newest) = self.replay.loaded.back() {
                let upto = upto.min(newest.last());
                let loaded = self.replay.loaded.iter().filter(|batch| batch.last() >= next);
                crate::batch::take_front(loaded, next, upto, room, &mut out.committed)
            } else if self.log.cached_from() <= next {
                self.log.take(next, upto, room, &mut out.committed)
            } else {
                self.request_replay(next, &mut out.loads);
                return More::No;
            };
            if out.committed.len() == before {
                return More::Yes;
            }
            self.handed_index = out.committed.last().expect("just grown").last();
            self.replay.loaded.retain(|batch| batch.last() > self.handed_index);
            room = room.saturating_sub(bytes);
        }
        More::No
    }

    fn request_replay(&mut self, first: LogIndex, loads: &mut Vec<Load>) {
        if self.replay.load.is_some() {
            return;
        }
        let last = self.log.cached_from().prev().min(self.commit_index);
        let id = LoadId(self.fresh_number());
        self.replay = Replay { load: Some(id), loaded: VecDeque::new() };
        loads.push(Load { id, first, last, bytes_max: self.config.load_bytes_max });
    }

    /// Checks that what was read back is what the log says is there: the log answers for its own
    /// bytes, so anything else is a mistake of the caller.
    pub(crate) fn checked_load(&self, next: LogIndex, batches: Option<Vec<Batch>>) -> Vec<Batch> {
        let batches = batches.unwrap_or_default();
        let mut expected = batches.first().map_or(next, Batch::first);
        assert!(expected <= next);
        for batch in &batches {
            assert_eq!(batch.first(), expected);
            if batch.first() > self.log.start().index {
                assert_eq!(self.log.term(batch.first()), Some(batch.term()));
                assert_eq!(self.log.term(batch.last()), Some(batch.term()));
            }
            expected = batch.last().next();
        }
        batches
    }

    fn report_role(&mut self, events: &mut Vec<Event>) {
        let now = (self.role(), self.term, self.leader());
        if now != self.reported {
            self.reported = now;
            let (role, term, leader) = now;
            events.push(Event::RoleChanged { role, term, leader });
        }
    }

    fn assert_invariants(&self) {
        let durable = self.log.durable();
        assert!(self.log.start().index <= self.applied_index);
        assert!(self.applied_index <= self.handed_index);
        assert!(self.handed_index <= self.commit_index);
        assert!(self.commit_index <= self.log.last_index());
        assert!(durable.index <= self.log.last_index());
        assert!(durable.hard_state.term <= self.term);
        if let Role::Leader(leader) = &self.role {
            assert!(durable.hard_state.term == self.term);
            assert!(self.vote == Some(self.config.id));
            leader.progress.iter().for_each(crate::progress::Progress::assert_invariants);
        }
    }
}

// What roles share.
impl Raft {
    /// Steps into `term`, or down within it. The only place where a vote is forgotten.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<Contact>) {
        if term > self.term {
            self.set_term(term, None);
        }
        let follower = Follower::new(leader, self.commit_index);
        let previous = std::mem::replace(&mut self.role, Role::Follower(follower));
        if let Role::Leader(previous) = previous {
            self.reset_election_timer();
            self.end_leadership(previous);
        }
    }

    /// Enters a newer term; whatever was owed in the old one is void.
    pub(crate) fn set_term(&mut self, term: Term, vote: Option<NodeId>) {
        assert!(term > self.term);
        self.term = term;
        self.vote = vote;
        self.vote_reply_due = None;
        if let Some(install) = &mut self.install {
            install.is_outdated = true;
        }
    }

    /// A leader's own affairs, once it leads no more: every read is answered, every transfer
    /// stopped, and whoever proposed here is told.
    fn end_leadership(&mut self, leader: Leader) {
        let error = ReadError::NotLeader { leader: self.leader() };
        leader.reads.fail(error, &mut self.queued.reads);
        for progress in &leader.progress {
            if let State::Snapshot { send, .. } = progress.state {
                self.queued.snapshots.push(SnapshotOrder::StopSending { id: send });
            }
        }
        if self.log.last_index() > self.commit_index {
            let first = self.commit_index.next();
            self.queued.events.push(Event::ProposalsLost { first });
        }
    }

    /// Whether a leader is alive, so that elections are none of our business.
    pub(crate) fn hears_a_leader(&self) -> bool {
        if self.config.mutant(Mutant::NoStickiness) {
            return false;
        }
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                let timeout = u64::from(self.config.election_ticks);
                let heard = follower.leader.as_ref().map(|leader| leader.heard);
                heard.is_some_and(|heard| self.ticks - heard < timeout)
            }
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Whether the oldest write has been in flight for two election timeouts: this node's
    /// promises would come too late to be of use.
    pub(crate) fn disk_is_stalled(&self) -> bool {
        let limit = 2 * u64::from(self.config.election_ticks);
        let issued = self.log.oldest_write_issued();
        issued.is_some_and(|issued| self.ticks - issued >= limit)
            && !self.config.mutant(Mutant::NoStallStepDown)
    }

    pub(crate) fn reset_election_timer(&mut self) {
        let timeout = u64::from(self.config.election_ticks);
        self.election_at = self.ticks + self.rng.within(timeout, timeout);
    }

    /// Moves the commit index forward to `index`, never back.
    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        if index > self.commit_index {
            assert!(index <= self.log.last_index());
            self.commit_index = index;
            self.log.commit(index);
        }
    }

    /// Queues a message to a peer, if it is connected.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        let Some(link) = self.link_to(to) else { return };
        let lane = lane_of(&message);
        self.queued.messages.push(Envelope { to, link, lane, message });
    }

    pub(crate) fn send_to_all(&mut self, message: &Message) {
        for at in 0..self.peers.len() {
            self.send(self.peers[at].id, message.clone());
        }
    }

    pub(crate) fn link_to(&self, peer: NodeId) -> Option<Link> {
        self.peers.iter().find(|known| known.id == peer).and_then(|known| known.link)
    }

    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// What a peer that has just connected must hear.
    fn greet(&mut self, peer: NodeId) {
        let last = self.log.last_id();
        match &self.role {
            Role::Leader(_) => self.send_heartbeat(peer),
            Role::PreCandidate(_) => {
                let term = Term(self.term.0 + 1);
                self.send(peer, Message::PreVote { term, last });
            }
            Role::Candidate(candidate) if candidate.has_asked => {
                self.send(peer, Message::Vote { term: self.term, last, transfer: false });
            }
            Role::Candidate(_) | Role::Follower(_) => {}
        }
    }
}

// What can be asked.
impl Raft {
    /// This node.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The current term; may not be durable yet.
    pub fn term(&self) -> Term {
        self.term
    }

    /// What this node is now.
    pub fn role(&self) -> RoleKind {
        match self.role {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// The leader of the current term, if known; may be this node.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.config.id),
            Role::Follower(follower) => follower.leader.as_ref().map(|leader| leader.id),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The last entry known to be committed.
    pub fn commit_index(&self) -> LogIndex {
        self.commit_index
    }

    /// The last entry that the caller has applied.
    pub fn applied_index(&self) -> LogIndex {
        self.applied_index
    }

    /// The last entry, durable or not.
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index()
    }

    /// The last entry that is durable here. Neither below nor above the commit index in general.
    pub fn durable_index(&self) -> LogIndex {
        self.log.durable().index
    }

    /// The entry before the first one of the log.
    pub fn log_start(&self) -> LogId {
        self.log.start()
    }

    /// The members.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Whether this node leads and an entry of its own term has committed.
    pub fn is_leader_ready(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.is_ready(self.commit_index),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Every other member, by rising id.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> + '_ {
        self.peers.iter().enumerate().map(|(at, peer)| {
            let is_up = peer.link.is_some();
            match &self.role {
                Role::Leader(leader) => leader.status(at, is_up, self.ticks, &self.config),
                Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => PeerStatus {
                    id: peer.id,
                    match_index: LogIndex(0),
                    next_index: LogIndex(0),
                    last_index: LogIndex(0),
                    state: PeerState::Probe,
                    inflight_bytes: 0,
                    active: is_up,
                },
            }
        })
    }

    /// The log may be purged up to here and no further: everything below is applied and durable,
    /// and no peer that receives a snapshot would find a gap behind it.
    pub fn purge_floor(&self) -> LogIndex {
        let own = self.applied_index.min(self.log.durable().index);
        match &self.role {
            Role::Leader(leader) => leader.oldest_offer().map_or(own, |offer| own.min(offer)),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => own,
        }
    }
}

/// Which queue a message belongs to.
fn lane_of(message: &Message) -> Lane {
    match message {
        Message::Append { .. } | Message::AppendReply { .. } | Message::Snapshot { .. } => {
            Lane::Bulk
        }
        Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. } => Lane::Urgent,
    }
}

/// The largest term or index in a message, by which garbage is told before anything is added to it.
fn largest_number(message: &Message) -> u64 {
    let of_id = |id: &LogId| id.term.0.max(id.index.0);
    let rest = match message {
        Message::Append { prev, commit, batches, .. } => {
            let last = batches.last().map_or(0, |batch| batch.last().0);
            of_id(prev).max(commit.0).max(last)
        }
        Message::AppendReply { outcome, last_index, .. } => match outcome {
            crate::AppendOutcome::Accepted { match_index } => match_index.0.max(last_index.0),
            crate::AppendOutcome::Rejected { prev, hint } => {
                of_id(prev).max(of_id(hint)).max(last_index.0)
            }
        },
        Message::Heartbeat { commit, .. } => commit.0,
        Message::HeartbeatReply { last_index, .. } => last_index.0,
        Message::PreVote { last, .. } | Message::Vote { last, .. } => of_id(last),
        Message::PreVoteReply { .. } | Message::VoteReply { .. } => 0,
        Message::Snapshot { meta, .. } => of_id(&meta.last),
    };
    rest.max(message.term().0)
}
