//! Leading: proposals, replication, commit, read rounds, and giving up in time.
//!
//! Invariants: (term, self) has been durable since before the election; the leader sends what its
//! own disk does not hold yet, but counts itself only up to `durable.index`; only an entry of the
//! leader's own term moves `commit_index`, and takes all earlier ones along; at most one load per
//! peer is outstanding, and at most one snapshot transfer.

use bytes::Bytes;

use crate::mutant::Mutant;
use crate::progress::{Progress, State};
use crate::quorum::{VOTERS_MAX, reached_by_majority};
use crate::raft::Role;
use crate::read::Reads;
use crate::{
    AppendOutcome, Batch, Config, Event, Kind, Load, LoadId, LogId, LogIndex, Message, NodeId,
    PeerState, PeerStatus, ProposeError, Raft, ReadError, ReadToken, Round, SendId, SnapshotMeta,
    SnapshotOrder, StepDownCause, StepError,
};

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    /// One per peer, in the order of `Raft::peers`.
    pub(crate) progress: Vec<Progress>,
    pub(crate) reads: Reads,
    /// The first entry of this term.
    noop: LogIndex,
    /// The tick of the next heartbeats.
    beat_at: u64,
}

impl Leader {
    pub(crate) fn new(peers: &[NodeId], last: LogIndex, ticks: u64) -> Leader {
        Leader {
            progress: peers.iter().map(|&id| Progress::new(id, last, ticks)).collect(),
            reads: Reads::default(),
            noop: last.next(),
            beat_at: ticks,
        }
    }

    pub(crate) fn is_ready(&self, committed: LogIndex) -> bool {
        committed >= self.noop
    }

    pub(crate) fn oldest_offer(&self) -> Option<LogIndex> {
        let offers = self.progress.iter().filter_map(|progress| match progress.state {
            State::Snapshot { offered, .. } => offered,
            State::Probe { .. } | State::Replicate(_) => None,
        });
        offers.min()
    }

    pub(crate) fn status(&self, at: usize, is_up: bool, ticks: u64, config: &Config) -> PeerStatus {
        let progress = &self.progress[at];
        let state = match progress.state {
            State::Probe { .. } => PeerState::Probe,
            State::Replicate(_) => PeerState::Replicate,
            State::Snapshot { .. } => PeerState::Snapshot,
        };
        PeerStatus {
            id: progress.id,
            match_index: progress.match_index(),
            next_index: progress.next_index(),
            state,
            last_index: progress.last_index,
            inflight_bytes: progress.inflight_bytes(),
            active: is_up && ticks - progress.heard < u64::from(config.election_ticks),
        }
    }

    fn peer(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|progress| progress.id == id)
    }
}

// Clients.
impl Raft {
    /// Appends one entry. Its (term, index) names the proposal: when an entry with that identity
    /// is handed out as committed the proposal has happened; when another one is handed out at
    /// that index it certainly has not; after [`Event::ProposalsLost`] it is unknown until then.
    pub fn propose(&mut self, payload: Bytes) -> Result<LogId, ProposeError> {
        let leader = self.leader();
        let Role::Leader(_) = &self.role else { return Err(ProposeError::NotLeader { leader }) };
        let bytes = payload.len() as u64;
        let bytes_max = u64::from(self.config.entry_bytes_max);
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        let uncommitted_bytes = self.log.uncommitted_bytes();
        let limit = self.config.uncommitted_bytes_max;
        if uncommitted_bytes > 0 && uncommitted_bytes.saturating_add(bytes) > limit {
            return Err(ProposeError::Full { uncommitted_bytes });
        }
        let id = LogId { term: self.term, index: self.log.last_index().next() };
        self.log.append(Batch::single(id.term, id.index, Kind::Normal, payload));
        Ok(id)
    }

    /// Proposes an entry that changes nothing: everybody's log and applied index move on by one.
    pub fn propose_noop(&mut self) -> Result<LogId, ProposeError> {
        let leader = self.leader();
        let Role::Leader(_) = &self.role else { return Err(ProposeError::NotLeader { leader }) };
        let id = LogId { term: self.term, index: self.log.last_index().next() };
        self.log.append(Batch::single(id.term, id.index, Kind::Noop, Bytes::new()));
        Ok(id)
    }

    /// What a majority with the most room has room for, this node included; see [`Raft::set_credit`]. None unless this
    /// node leads.
    pub fn majority_credit_bytes(&self) -> Option<u32> {
        let Role::Leader(leader) = &self.role else { return None };
        let mut credits = [self.credit_bytes; VOTERS_MAX];
        credits[1..].iter_mut().zip(&leader.progress).for_each(|(c, p)| *c = p.credit_bytes);
        Some(reached_by_majority(&mut credits[..self.membership.voters.len()]))
    }

    /// Asks for an index at or above which a read is linearizable. Answered exactly once through
    /// [`Ready::reads`](crate::Ready::reads), unless this returns an error. Waits while no entry
    /// of this leader's term has committed.
    pub fn read(&mut self, token: ReadToken) -> Result<(), ReadError> {
        let leader = self.leader();
        let reads_max = self.config.reads_max as usize;
        let Role::Leader(role) = &mut self.role else {
            return Err(ReadError::NotLeader { leader });
        };
        if role.reads.count() >= reads_max {
            return Err(ReadError::Full);
        }
        role.reads.push(token);
        Ok(())
    }
}

// Answers of peers.
impl Raft {
    pub(crate) fn handle_append_reply(
        &mut self,
        from: NodeId,
        outcome: AppendOutcome,
        last_index: LogIndex,
        credit_bytes: u32,
    ) -> Result<(), StepError> {
        let own_last = self.log.last_index();
        let ticks = self.ticks;
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        let Some(progress) = leader.peer(from) else { return Ok(()) };
        progress.heard = ticks;
        progress.credit_bytes = credit_bytes;
        progress.last_index = last_index;
        match outcome {
            AppendOutcome::Accepted { match_index } if match_index > own_last => {
                Err(StepError::AcknowledgesUnknown { from, index: match_index })
            }
            AppendOutcome::Accepted { match_index } => {
                self.handle_accepted(from, match_index);
                Ok(())
            }
            AppendOutcome::Rejected { prev, hint } => {
                self.handle_rejected(from, prev, hint);
                Ok(())
            }
        }
    }

    fn handle_accepted(&mut self, from: NodeId, match_index: LogIndex) {
        let (start, search) = (self.log.start().index, self.log.last_index().next());
        let ticks = self.ticks;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peer(from) else { return };
        let is_news = progress.acknowledged(match_index, ticks);
        let stopped = match progress.state {
            State::Probe { .. } => progress.become_replicate(ticks),
            // Not which message says so, but how far the peer is decides whether the log will do.
            State::Snapshot { .. } if progress.match_index() >= start => {
                progress.become_replicate(ticks)
            }
            State::Snapshot { offered: Some(offered), .. } if match_index >= offered => {
                progress.become_probe(search, None) // The log moved on meanwhile.
            }
            State::Replicate(_) | State::Snapshot { .. } => None,
        };
        self.stop_sending(stopped);
        if is_news {
            self.maybe_commit();
        }
    }

    fn handle_rejected(&mut self, from: NodeId, prev: LogId, hint: LogId) {
        let next = self.agreement_upto(hint).next();
        let search = self.log.last_index().next();
        let (start, ticks) = (self.log.start().index, self.ticks);
        let prev_is_ours = self.log.contains(prev);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peer(from) else { return };
        let answers_probe = prev_is_ours && prev.index.next() == progress.next_index();
        let stopped = match progress.state {
            // Only the answer to the last question counts; each must lower the next one.
            State::Probe { .. } if answers_probe => {
                if progress.back_up(next) {
                    progress.state = State::Probe { asked: None };
                }
                None
            }
            State::Replicate(_) if prev.index > progress.match_index() => {
                progress.become_probe(start.next(), None)
            }
            State::Snapshot { offered, .. } if offered == Some(prev.index) => {
                progress.become_probe(search, Some(ticks))
            }
            State::Probe { .. } | State::Replicate(_) | State::Snapshot { .. } => None,
        };
        self.stop_sending(stopped);
    }

    /// The last index at which a peer whose log ends, or at least continues, with `hint` may still
    /// agree. Below the start of the log when only a snapshot can help.
    fn agreement_upto(&self, hint: LogId) -> LogIndex {
        let before_start = LogIndex(self.log.start().index.0.saturating_sub(1));
        self.log.last_at_most(hint).map_or(before_start.min(hint.index), |id| id.index)
    }

    fn stop_sending(&mut self, send: Option<SendId>) {
        if let Some(id) = send {
            self.queued.snapshots.push(SnapshotOrder::StopSending { id });
        }
    }

    pub(crate) fn handle_heartbeat_reply(
        &mut self,
        from: NodeId,
        round: Round,
        last_index: LogIndex,
        credit_bytes: u32,
    ) -> Result<(), StepError> {
        let (newest, ticks, voters) = (self.round, self.ticks, self.membership.voters.len());
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        if round > newest {
            return Err(StepError::UnknownRound { from });
        }
        let Some(progress) = leader.peer(from) else { return Ok(()) };
        progress.heard = ticks;
        progress.credit_bytes = credit_bytes;
        progress.last_index = last_index;
        progress.round = progress.round.max(round);
        let mut rounds = [newest; VOTERS_MAX];
        rounds[1..].iter_mut().zip(&leader.progress).for_each(|(r, p)| *r = p.round);
        let answered = reached_by_majority(&mut rounds[..voters]);
        leader.reads.complete(answered, &mut self.queued.reads);
        Ok(())
    }
}

// Commit.
impl Raft {
    /// Commits what a quorum durably holds. Entries of earlier terms are never counted, they
    /// follow an entry of this one (paper, section 5.4.2). There is no special case for a single
    /// voter: its quorum is its own disk.
    pub(crate) fn maybe_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let counts_last = self.config.mutant(Mutant::LeaderCountsLastIndex);
        let own = if counts_last { self.log.last_index() } else { self.log.durable().index };
        let mut matched = [own; VOTERS_MAX];
        matched[1..].iter_mut().zip(&leader.progress).for_each(|(m, p)| *m = p.match_index());
        let index = reached_by_majority(&mut matched[..self.membership.voters.len()]);
        let is_own_term = self.log.term(index) == Some(self.term);
        let was_ready = leader.is_ready(self.commit_index);
        if index > self.commit_index
            && (is_own_term || self.config.mutant(Mutant::CommitsPriorTerm))
        {
            self.commit_to(index);
            if !was_ready && self.is_leader_ready() {
                self.queued.events.push(Event::LeaderReady { term: self.term });
            }
        }
    }
}

// Time.
impl Raft {
    pub(crate) fn tick_leader(&mut self) {
        if let Some(cause) = self.step_down_cause() {
            self.queued.events.push(Event::SteppedDown { term: self.term, cause });
            self.become_follower(self.term, None);
            return;
        }
        self.nudge_silent_windows();
        let Role::Leader(leader) = &mut self.role else { return };
        if self.ticks >= leader.beat_at {
            self.send_heartbeats();
        }
    }

    fn step_down_cause(&self) -> Option<StepDownCause> {
        if self.disk_is_stalled() {
            return Some(StepDownCause::DiskStalled);
        }
        (!self.has_quorum()).then_some(StepDownCause::QuorumSilent)
    }

    /// Whether a majority, this node included, was heard within an election timeout. A leader
    /// without it must fall silent: its heartbeats would keep its followers from a better one.
    fn has_quorum(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let mut heard = [self.ticks; VOTERS_MAX];
        heard[1..].iter_mut().zip(&leader.progress).for_each(|(h, p)| *h = p.heard);
        let heard = reached_by_majority(&mut heard[..self.membership.voters.len()]);
        self.ticks - heard < u64::from(self.config.election_ticks)
            || self.config.mutant(Mutant::NoCheckQuorum)
    }

    /// The safety net under lost messages, which on a stream mean a lost connection anyway: when
    /// nothing was acknowledged for an election timeout, an empty append after the last entry sent
    /// asks again. If the entries have arrived, it is acknowledged; if not, it is refused. What the
    /// peer says of its last index would not do: it may hold entries that it has not compared.
    fn nudge_silent_windows(&mut self) {
        let ticks = self.ticks;
        let timeout = u64::from(self.config.election_ticks);
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in &mut leader.progress {
            let State::Replicate(replicate) = &mut progress.state else { continue };
            if !replicate.window.is_empty() && ticks - replicate.waiting_since >= timeout {
                replicate.waiting_since = ticks;
                replicate.nudge = true;
            }
        }
    }

    fn send_heartbeats(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.beat_at = self.ticks + u64::from(self.config.heartbeat_ticks);
        for at in 0..self.peers.len() {
            self.send_heartbeat(self.peers[at].id);
        }
    }

    /// Tells one peer that the leader is alive, and of no commit that it might not hold.
    pub(crate) fn send_heartbeat(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peer(to) else { return };
        let commit = self.commit_index.min(progress.match_index());
        let (term, round, sent_at) = (self.term, self.round, self.now);
        self.send(to, Message::Heartbeat { term, commit, round, sent_at });
    }

    /// A connection is gone, and with it whatever was on its way.
    pub(crate) fn leader_lost_peer(&mut self, peer: NodeId) {
        if self.config.mutant(Mutant::WindowKeptOnPeerLost) {
            return;
        }
        let (start, search) = (self.log.start().index, self.log.last_index().next());
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peer(peer) else { return };
        let next = match progress.state {
            State::Probe { .. } => progress.next_index(),
            State::Replicate(_) => start.next(),
            State::Snapshot { .. } => search,
        };
        let stopped = progress.become_probe(next, None);
        self.stop_sending(stopped);
    }
}

// Output.
impl Raft {
    /// Everything a leader has to say now.
    pub(crate) fn leader_ready(&mut self) {
        self.begin_round();
        for at in 0..self.peers.len() {
            if self.peers[at].link.is_some() {
                self.feed(at);
            }
        }
    }

    /// One heartbeat per peer confirms every read that has arrived since the last `Ready`.
    fn begin_round(&mut self) {
        let is_alone = self.peers.is_empty() || self.config.mutant(Mutant::ReadWithoutRound);
        let is_ready = self.is_leader_ready() || self.config.mutant(Mutant::ReadBeforeNoop);
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.reads.are_waiting() || !is_ready {
            return;
        }
        self.round = Round(self.round.0 + 1);
        leader.reads.begin(self.round, self.commit_index);
        if is_alone {
            leader.reads.complete(self.round, &mut self.queued.reads);
        }
        self.send_heartbeats();
    }

    /// Sends one peer what its state allows.
    fn feed(&mut self, at: usize) {
        let Role::Leader(leader) = &self.role else { return };
        let progress = &leader.progress[at];
        let lacks_log = self.log.term(progress.next_index().prev()).is_none();
        match &progress.state {
            State::Snapshot { .. } => {}
            State::Probe { asked } => {
                let interval = u64::from(self.config.heartbeat_ticks);
                if asked.is_some_and(|asked| self.ticks - asked < interval) {
                    return;
                }
                if lacks_log { self.order_snapshot(at) } else { self.probe(at) }
            }
            State::Replicate(_) if lacks_log => self.order_snapshot(at),
            State::Replicate(_) => self.replicate(at),
        }
    }

    fn probe(&mut self, at: usize) {
        let ticks = self.ticks;
        let Role::Leader(leader) = &mut self.role else { return };
        let progress = &mut leader.progress[at];
        progress.state = State::Probe { asked: Some(ticks) };
        let prev = progress.next_index().prev();
        self.send_append(at, prev, Vec::new());
    }

    /// The peer needs what is no longer in the log.
    fn order_snapshot(&mut self, at: usize) {
        let id = SendId(self.fresh_number());
        let Role::Leader(leader) = &mut self.role else { return };
        leader.progress[at].state = State::Snapshot { send: id, offered: None };
        let peer = self.peers[at].id;
        if let Some(link) = self.peers[at].link {
            self.queued.snapshots.push(SnapshotOrder::Send { id, peer, link });
        }
    }

    /// Fills the window. What has committed meanwhile rides along; when nothing else is sent, one
    /// empty append carries it.
    fn replicate(&mut self, at: usize) {
        let mut has_sent = false;
        while let Some(batches) = self.next_entries(at) {
            let Role::Leader(leader) = &mut self.role else { return };
            let progress = &mut leader.progress[at];
            let prev = progress.next_index().prev();
            progress.sent(batches.last().expect("never empty").last());
            self.send_append(at, prev, batches);
            has_sent = true;
            if self.lacks_log(at) {
                return; // Purged under a peer that is fed from what was read back.
            }
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let progress = &mut leader.progress[at];
        let (known, sent) = (progress.match_index(), progress.next_index().prev());
        let State::Replicate(replicate) = &mut progress.state else { return };
        if std::mem::take(&mut replicate.nudge) {
            self.send_append(at, sent, Vec::new());
        } else if !has_sent
            && leader.progress[at].commit_sent < self.commit_index
            && self.log.term(known).is_some()
        {
            self.send_append(at, known, Vec::new());
        }
    }

    fn lacks_log(&self, at: usize) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        self.log.term(leader.progress[at].next_index().prev()).is_none()
    }

    /// The next entries for a peer, if there are any and the window has room. Asks for them if
    /// they are not in memory.
    fn next_entries(&mut self, at: usize) -> Option<Vec<Batch>> {
        let last = self.log.last_index();
        let Role::Leader(leader) = &mut self.role else { return None };
        let progress = &mut leader.progress[at];
        let (next, credit) = (progress.next_index(), progress.credit_bytes);
        let State::Replicate(replicate) = &mut progress.state else { return None };
        let room = room(&self.config, &replicate.window, credit);
        if next > last || room == 0 {
            return None;
        }
        let bytes_max = room.min(u64::from(self.config.append_bytes_max));
        let mut batches = Vec::new();
        let is_loaded = replicate.loaded.back().is_some_and(|batch| batch.last() >= next);
        let bytes = if is_loaded {
            let loaded = replicate.loaded.iter().filter(|batch| batch.last() >= next);
            crate::batch::take_front(loaded, next, last, bytes_max, &mut batches)
        } else if self.log.cached_from() <= next {
            self.log.take(next, last, bytes_max, &mut batches)
        } else {
            self.request_load(at, next);
            return None;
        };
        if bytes > room && !replicate.window.is_empty() {
            return None; // A single entry above the room travels when nothing else does.
        }
        let sent = batches.last().expect("at least one entry is always taken").last();
        if replicate.window.is_empty() {
            replicate.waiting_since = self.ticks;
        }
        replicate.window.push(sent, bytes);
        replicate.loaded.retain(|batch| batch.last() > sent);
        Some(batches)
    }

    fn request_load(&mut self, at: usize, first: LogIndex) {
        let id = LoadId(self.fresh_number());
        let last = self.log.cached_from().prev();
        let Role::Leader(leader) = &mut self.role else { return };
        let State::Replicate(replicate) = &mut leader.progress[at].state else { return };
        if replicate.load.is_none() {
            replicate.load = Some(id);
            let bytes_max = self.config.load_bytes_max;
            self.queued.loads.push(Load { id, first, last, bytes_max });
        }
    }

    /// Entries for a peer have been read back. An answer for an earlier leadership, connection or
    /// state of the peer finds nobody waiting under its id.
    pub(crate) fn leader_loaded(&mut self, load: LoadId, batches: Option<Vec<Batch>>) {
        let accepts_stale = self.config.mutant(Mutant::StaleLoadAccepted);
        let Role::Leader(leader) = &self.role else { return };
        let waiting = leader.progress.iter().position(|progress| {
            matches!(&progress.state, State::Replicate(r) if r.load == Some(load) || accepts_stale)
        });
        let Some(at) = waiting else { return };
        if batches.is_none() && !accepts_stale {
            // They are gone from the log, which the caller has not said yet. Asked again, it would
            // say the same.
            self.order_snapshot(at);
            return;
        }
        let next = leader.progress[at].next_index();
        let batches = if accepts_stale {
            batches.unwrap_or_default()
        } else {
            self.checked_load(next, batches)
        };
        let Role::Leader(leader) = &mut self.role else { return };
        if let State::Replicate(replicate) = &mut leader.progress[at].state {
            replicate.load = None;
            replicate.loaded = batches.into();
        }
    }

    fn send_append(&mut self, at: usize, prev: LogIndex, batches: Vec<Batch>) {
        let prev = self.log.id(prev).expect("the caller has checked that the log reaches there");
        let (term, commit) = (self.term, self.commit_index);
        if let Role::Leader(leader) = &mut self.role {
            leader.progress[at].commit_sent = commit;
        }
        self.send(self.peers[at].id, Message::Append { term, prev, commit, batches });
    }
}

// Snapshots.
impl Raft {
    /// The caller will stream the snapshot `meta` for `send`; the peer is told now. Ignored when
    /// `send` has been stopped.
    ///
    /// Requires: the snapshot is durable and reaches the start of the log.
    pub fn snapshot_offered(&mut self, send: SendId, meta: SnapshotMeta) {
        assert!(meta.last.index >= self.log.start().index);
        assert!(meta.last.index <= self.commit_index);
        let Role::Leader(leader) = &mut self.role else { return };
        let order = leader.progress.iter_mut().find_map(|progress| match &mut progress.state {
            State::Snapshot { send: id, offered } if *id == send => Some((progress.id, offered)),
            State::Probe { .. } | State::Replicate(_) | State::Snapshot { .. } => None,
        });
        let Some((peer, offered)) = order else { return };
        *offered = Some(meta.last.index);
        self.send(peer, Message::Snapshot { term: self.term, meta, send });
    }

    /// The caller has sent the whole snapshot, or has given up. After success the peer's
    /// acknowledgement ends the transfer; after a failure the leader tries again a heartbeat
    /// interval later. Ignored when `send` has been stopped.
    pub fn snapshot_sent(&mut self, peer: NodeId, send: SendId, ok: bool) {
        let (search, ticks) = (self.log.last_index().next(), self.ticks);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.peer(peer) else { return };
        if !ok && matches!(progress.state, State::Snapshot { send: id, .. } if id == send) {
            progress.become_probe(search, Some(ticks));
        }
    }
}

/// How many bytes may follow those on their way: within the window and the peer's own room.
/// A peer without any room gets nothing; one with some always gets one message.
fn room(config: &Config, window: &crate::inflight::Inflight, credit_bytes: u32) -> u64 {
    let limit = config.window_bytes_max.min(u64::from(credit_bytes));
    if window.count() >= config.window_count_max as usize {
        return 0;
    }
    limit.saturating_sub(window.bytes())
}
