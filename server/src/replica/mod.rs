//! The replica: one consensus core, one log, one state, driven by one thread.
//!
//! A turn takes what has arrived, lets time pass, and carries out what the core asks for. It never waits and reads
//! no clock, so that the simulator drives the same code, byte for byte. The order within a turn follows
//! from three rules: what the disk finished comes first, as it unlocks acknowledgements and commits; time comes after messages, so that a
//! pause of the process does not look like a silent leader; whatever was committed is applied, and visible to every
//! connection, before a reply leaves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::io::Disk;
use engine::{
    CheckpointError, CheckpointOrigin, Engine, EngineError, Event as EngineEvent, Recovered,
};
use parking_lot::RwLock;
use protocol::{Certainty, ErrorCode, LeaderHint};
use raft::{
    Batch, Event as RaftEvent, InstallId, Kind, LoadId, LogId, LogIndex, Membership, Micros, More,
    NodeId, ProposeError, Raft, ReadError, Ready, RecoverError, RoleKind, SendId, SnapshotMeta,
    SnapshotOrder, WriteSeq,
};
use thiserror::Error;

use crate::identity::ClusterId;
use crate::log_store::{UnknownKind, append_of, batches_of, log_id_of, stored_of};
use crate::peer_message::PeerMessage;
use crate::state_machine::{
    Applied, ApplyError, Command, EntryBuilder, Origin, Outcome, RESOLVED, State, encode_command,
};

mod checkpoints;
mod cleanable;
mod input;
mod peers;
mod reads;
mod rescue;
mod restore;
mod sessions;
mod snapshots;
mod space;
mod status;
mod values;
mod waiters;

pub use input::{AcquireWait, Answer, ClientId, Input, Outbox, Proposal, ReplyTo, Room};
pub use restore::{BodyError, BodyReader, Loader};

use checkpoints::Checkpointer;
pub use cleanable::Cleanable;
use peers::Peers;
use reads::{Reader, Reads};
use rescue::{Read, Rescues};
use sessions::Deadlines;
use snapshots::{Means, Patience, Progress, Receiver, Senders, lack_of_room};
use space::Space;
use values::{Purpose, Values};
use waiters::{Fate, Waiter, Waiters};

/// A finished entry holds about this many bytes of commands; more go into the next one.
const ENTRY_BYTES_TARGET: usize = 256 << 10;

/// About so many bytes of old entries are applied in one turn after a start.
const REPLAY_BYTES: u64 = 1 << 20;

/// How long a stopping node waits for what it has proposed.
const DRAIN_US: u64 = 500_000;

/// Values that are read for peers at a time; whoever asks for more asks another.
const LENT_MAX: usize = 16;

/// What the loop is built with.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// The consensus core's limits and ticks.
    pub raft: raft::Config,
    /// Log bytes between two checkpoints.
    pub checkpoint_interval_bytes: u64,
    /// Where this node's clients reach it.
    pub advertise: String,
    /// The cluster, for status.
    pub cluster_id: ClusterId,
    /// For the core's election timeouts.
    pub seed: u64,
}

/// The replica cannot go on. Nothing that was not acknowledged before will be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The log or the disk.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is stored does not fit together.
    #[error("the stored state cannot be this node's: {0}")]
    Recover(#[from] RecoverError),
    /// A committed entry does not decode.
    #[error("committed entry {index} cannot be applied: {source}")]
    Apply {
        /// The entry.
        index: LogIndex,
        /// Why.
        source: ApplyError,
    },
    /// A value that an entry compares cannot be read.
    #[error(
        "entry {index} compares a value that cannot be read, so it cannot be applied here: {source}"
    )]
    Value {
        /// The entry.
        index: u64,
        /// Why.
        source: engine::ReadError,
    },
    /// A stored entry cannot be read back.
    #[error("a stored entry cannot be read back: {0}")]
    Read(String),
    /// A stored entry is of no known kind.
    #[error(transparent)]
    Kind(#[from] UnknownKind),
    /// The checkpoint cannot be read.
    #[error("checkpoint at index {index}: {reason}")]
    Checkpoint {
        /// Its index.
        index: u64,
        /// Why.
        reason: String,
    },
}

/// One node's replica. See the module's head.
pub struct Replica<D: Disk, O: Outbox> {
    options: ReplicaOptions,
    raft: Raft,
    engine: Engine<D>,
    state: Arc<RwLock<State>>,
    out: O,
    /// The last applied entry.
    applied: LogId,
    /// What the log held when it was opened: until it is applied, this node only catches up.
    replay_upto: LogIndex,
    /// The last turn has applied some of that.
    has_replayed: bool,
    /// Committed and not applied yet: their place in the log or a value that they compare is not known.
    committed: VecDeque<Batch>,
    values: Values,
    rescues: Rescues,
    membership: Membership,
    next_tick: Micros,
    now: Micros,
    wall_ms: u64,
    entry: EntryBuilder,
    entry_waiters: Vec<Option<Waiter>>,
    waiters: Waiters,
    reads: Reads,
    deadlines: Deadlines,
    peers: Peers,
    checkpointer: Checkpointer,
    senders: Senders,
    receiver: Option<Receiver>,
    /// Until there may be room for a snapshot again.
    patience: Patience,
    space: Space,
    ready: Ready,
    events: Vec<EngineEvent>,
    outcomes: Vec<Applied>,
    stop: Stop,
}

/// How far a clean shutdown is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// Nobody asked for one.
    No,
    /// Nothing new is taken; what was proposed may still be decided until then.
    Draining { until: Micros },
    /// Everybody is answered and no peer is heard any more: what is queued becomes durable.
    Settling,
}

impl<D: Disk, O: Outbox> Replica<D, O> {
    /// Goes on from what an open found; `loader` was its sink. `membership` is the founding one.
    pub fn new(
        options: ReplicaOptions,
        engine: Engine<D>,
        (recovered, loader): (&Recovered, Loader),
        membership: Membership,
        out: O,
    ) -> Result<Replica<D, O>, ReplicaError> {
        let (snapshot, state) = load_state(loader, recovered, membership.clone())?;
        let applied = snapshot.last;
        let stored = stored_of(recovered, snapshot);
        let raft = Raft::recover(options.raft.clone(), stored, options.seed)?;
        Ok(Replica {
            raft,
            engine,
            state: Arc::new(RwLock::new(state)),
            out,
            applied,
            replay_upto: LogIndex(recovered.last.index),
            has_replayed: false,
            committed: VecDeque::new(),
            values: Values::default(),
            rescues: Rescues::default(),
            membership,
            next_tick: Micros(0),
            now: Micros(0),
            wall_ms: 0,
            entry: EntryBuilder::default(),
            entry_waiters: Vec::new(),
            waiters: Waiters::default(),
            reads: Reads::default(),
            deadlines: Deadlines::default(),
            peers: Peers::default(),
            checkpointer: Checkpointer::new(options.checkpoint_interval_bytes),
            senders: Senders::default(),
            receiver: None,
            patience: Patience::default(),
            space: Space::default(),
            ready: Ready::default(),
            events: Vec::new(),
            outcomes: Vec::new(),
            stop: Stop::No,
            options,
        })
    }

    /// The state that connections read.
    pub fn state(&self) -> Arc<RwLock<State>> {
        Arc::clone(&self.state)
    }

    /// The consensus core, to look at.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The log, to look at.
    pub fn engine(&self) -> &Engine<D> {
        &self.engine
    }

    /// Reads recent values, for connections.
    pub fn reader(&self) -> engine::Reader {
        self.engine.reader()
    }

    /// Where the loop sends.
    pub fn outbox(&mut self) -> &mut O {
        &mut self.out
    }

    /// Blocks until something is there to do: a disk completion, a wake-up, a due time.
    pub fn wait(&mut self, now: Micros) {
        let timeout = self.next_due().0.saturating_sub(now.0);
        self.engine.wait(Some(Duration::from_micros(timeout)));
    }

    /// When the next turn is due even if nothing arrives.
    pub fn next_due(&self) -> Micros {
        if self.has_work() {
            return self.now;
        }
        let engine_due = self.engine.next_due_us().unwrap_or(u64::MAX);
        Micros(self.next_tick.0.min(engine_due))
    }

    /// Whether everything is durable and nothing is queued: a stopping replica may end.
    pub fn is_stopped(&self) -> bool {
        self.stop == Stop::Settling && self.engine.is_idle() && !self.values.has_fetches()
    }

    /// One turn at time `now`, with everything that has arrived. `wall_ms` is what entries carry.
    pub fn turn(
        &mut self,
        now: Micros,
        wall_ms: u64,
        inputs: &mut Vec<Input>,
    ) -> Result<(), ReplicaError> {
        self.now = now;
        self.wall_ms = wall_ms;
        self.handle_engine_events()?;
        for input in inputs.drain(..) {
            self.handle_input(input);
        }
        self.maybe_tick();
        self.propose_entry();
        self.ask_reads();
        self.carry_out()?;
        self.work_on_checkpoint();
        self.clean();
        self.maybe_settle();
        self.out.flush();
        self.engine.turn(self.now.0, &mut self.events)?;
        let before = self.applied.index;
        if self.is_replaying() {
            // After the turn of the log: the next entries are read while these are applied.
            self.apply_committed(REPLAY_BYTES)?;
        }
        self.has_replayed = self.applied.index > before;
        Ok(())
    }

    /// Whether entries that the log held when it was opened are still to be applied.
    fn is_replaying(&self) -> bool {
        self.applied.index < self.replay_upto
    }

    fn has_work(&self) -> bool {
        !self.events.is_empty()
            || self.has_replayed
            || self.checkpointer.is_busy(&self.engine)
            || self.engine.is_cleaning_busy()
            || self.receiver.as_ref().is_some_and(|receiver| receiver.is_busy(&self.engine))
    }

    fn maybe_tick(&mut self) {
        if self.now < self.next_tick {
            return;
        }
        self.next_tick = Micros(self.now.0 + self.options.raft.tick.0);
        if self.stop == Stop::Settling {
            return;
        }
        self.mind_space();
        self.rescue(Rescues::tick);
        self.raft.tick(self.now);
        if self.raft.is_leader_ready() && self.stop == Stop::No {
            let mut due = Vec::new();
            self.deadlines.tick(self.now, |command| due.push(command));
            for command in due {
                self.push_own(&command);
            }
        }
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::Propose(proposal) => self.handle_proposal(proposal),
            Input::Read(reply_to) | Input::KeepAlive { reply_to, .. } if self.stop != Stop::No => {
                let error = shutting_down(Certainty::NotDone);
                self.out.answer(reply_to, Answer::Error(error));
            }
            Input::Read(reply_to) => self.reads.open(reply_to),
            Input::Fetch { reply_to, wanted, pin } => {
                self.values.read(&mut self.engine, Purpose::Fetch(reply_to), wanted);
                // What is read from here on keeps its slots itself.
                drop(pin);
            }
            Input::KeepAlive { reply_to, session } => self.reads.open_keep_alive(reply_to, session),
            Input::Status(reply_to) => {
                let status = Box::new(self.node_status());
                self.out.answer(reply_to, Answer::Status(status));
            }
            Input::PeerUp { peer, link, advertise } => {
                self.peers.up(peer, link, advertise);
                self.raft.peer_up(peer, link);
                self.out.leader(self.leader_hint());
            }
            Input::PeerLost { peer, link } => {
                self.peers.lost(peer, link);
                self.raft.peer_lost(peer, link);
            }
            // A leader under load would keep this node's log from ever coming to rest.
            Input::Peer { .. } if self.stop == Stop::Settling => {}
            Input::Peer { from, link, message } => self.handle_peer(from, link, message),
            Input::Stop => self.handle_stop(),
        }
    }

    fn handle_stop(&mut self) {
        if self.stop != Stop::No {
            return;
        }
        self.stop = Stop::Draining { until: Micros(self.now.0 + DRAIN_US) };
        for reply_to in self.waiters.lost_queued() {
            self.out.answer(reply_to, Answer::Error(shutting_down(Certainty::Unknown)));
        }
        for reply_to in self.reads.drain() {
            self.out.answer(reply_to, Answer::Error(shutting_down(Certainty::NotDone)));
        }
    }

    /// What was proposed before the stop is decided within milliseconds on a healthy cluster: its
    /// clients are told, and only the rest ends as unknown.
    fn maybe_settle(&mut self) {
        let Stop::Draining { until } = self.stop else { return };
        if self.waiters.has_pending() && self.now < until {
            return;
        }
        self.stop = Stop::Settling;
        // Peers are not heard any more.
        for read in self.rescues.give_up() {
            self.deliver(read);
        }
        for reply_to in self.waiters.lost(LogIndex(0)) {
            self.out.answer(reply_to, Answer::Error(shutting_down(Certainty::Unknown)));
        }
    }

    // Proposals.

    fn handle_proposal(&mut self, proposal: Proposal) {
        if let Some(error) = self.refusal(&proposal) {
            self.out.answer(proposal.reply_to, Answer::Error(error));
            return;
        }
        if self.entry.bytes() + proposal.command.len() > self.options.raft.entry_bytes_max as usize
        {
            self.propose_entry();
        }
        let (reply_to, wait) = (proposal.reply_to, proposal.wait);
        self.push_command(&proposal.command, Some(Waiter { reply_to, wait }));
        if self.entry.bytes() >= ENTRY_BYTES_TARGET {
            self.propose_entry();
        }
    }

    fn refusal(&self, proposal: &Proposal) -> Option<protocol::Error> {
        if self.stop != Stop::No {
            return Some(shutting_down(Certainty::NotDone));
        }
        if self.raft.role() != RoleKind::Leader {
            return Some(self.not_leader());
        }
        self.lack_of_room(proposal)
    }

    /// A command of the leader's own clockwork.
    fn push_own(&mut self, command: &Command) {
        let mut encoded = BytesMut::new();
        encode_command(Origin::NONE, command, &mut encoded);
        self.push_command(&encoded, None);
    }

    fn push_command(&mut self, encoded: &[u8], waiter: Option<Waiter>) {
        if self.entry_waiters.is_empty() {
            self.entry.begin(self.wall_ms);
        }
        self.space.take(encoded.len(), self.now);
        self.entry.push(encoded);
        self.entry_waiters.push(waiter);
    }

    fn propose_entry(&mut self) {
        if self.entry_waiters.is_empty() {
            return;
        }
        let waiters = std::mem::take(&mut self.entry_waiters);
        let payload = self.entry.finish();
        match self.raft.propose(payload) {
            Ok(id) => self.waiters.proposed(id, waiters),
            Err(error) => self.refuse(waiters, error),
        }
    }

    fn refuse(&mut self, waiters: Vec<Option<Waiter>>, error: ProposeError) {
        let error = if let ProposeError::NotLeader { .. } = error {
            self.not_leader()
        } else {
            let message = format!("the log is full for now: {error}");
            protocol::Error::not_done(ErrorCode::TooManyRequests, message)
        };
        for waiter in waiters.into_iter().flatten() {
            self.out.answer(waiter.reply_to, Answer::Error(error.clone()));
        }
    }

    // What the core asks for.

    fn carry_out(&mut self) -> Result<(), ReplicaError> {
        loop {
            let mut ready = std::mem::take(&mut self.ready);
            let more = self.raft.ready(&mut ready);
            if let Some(write) = ready.write.take() {
                self.prefetch(&write.batches);
                self.engine.append(append_of(write));
                self.space.handed_over();
            }
            for envelope in ready.messages.drain(..) {
                let message = PeerMessage::Raft(envelope.message);
                self.out.send(envelope.to, envelope.link, envelope.lane, message);
            }
            self.committed.extend(ready.committed.drain(..));
            if !self.is_replaying() {
                self.apply_committed(u64::MAX)?;
            }
            for read in ready.reads.drain(..) {
                self.reads.indexed(read);
            }
            for load in ready.loads.drain(..) {
                let bytes_max = load.bytes_max as usize;
                self.engine.read_entries(load.id.0, load.first.0, load.last.0, bytes_max);
            }
            for order in ready.snapshots.drain(..) {
                self.handle_snapshot_order(order);
            }
            for event in ready.events.drain(..) {
                self.handle_raft_event(&event);
            }
            ready.clear();
            self.ready = ready;
            if more == More::No {
                break;
            }
        }
        self.serve_reads();
        Ok(())
    }

    fn handle_raft_event(&mut self, event: &RaftEvent) {
        match event {
            RaftEvent::RoleChanged { role, term, leader } => {
                tracing::info!(?role, %term, leader = leader.map(|id| id.0), "role");
                if *role != RoleKind::Leader {
                    self.leadership_over();
                }
                self.out.leader(self.leader_hint());
            }
            RaftEvent::LeaderReady { .. } => self.leadership_begins(),
            RaftEvent::SteppedDown { term, cause } => {
                tracing::warn!(%term, ?cause, "gives up its leadership");
            }
            RaftEvent::ProposalsLost { first } => {
                for reply_to in self.waiters.lost(*first) {
                    self.out.answer(reply_to, Answer::Error(leadership_lost()));
                }
            }
            RaftEvent::Truncated { from } => tracing::info!(%from, "log suffix replaced"),
        }
    }

    fn leadership_begins(&mut self) {
        self.deadlines.begin(self.state.read().sessions());
    }

    fn leadership_over(&mut self) {
        self.deadlines.clear();
        for reply_to in self.waiters.lost_queued() {
            self.out.answer(reply_to, Answer::Error(leadership_lost()));
        }
    }

    // Applying.

    /// Asks for the values that new entries compare.
    fn prefetch(&mut self, batches: &[Batch]) {
        let state = Arc::clone(&self.state);
        let state = state.read();
        for batch in batches.iter().filter(|batch| batch.kind() == Kind::Normal) {
            for (index, payload) in batch.entries() {
                self.values.prefetch(&mut self.engine, &state, index.0, &payload);
            }
        }
    }

    /// Applies what is committed, up to the first entry that has no place in the log yet or compares a value that is
    /// still read, and up to about so many bytes.
    fn apply_committed(&mut self, bytes_max: u64) -> Result<(), ReplicaError> {
        if self.committed.is_empty() {
            return Ok(());
        }
        let before = self.applied.index;
        let state = Arc::clone(&self.state);
        let mut state = state.write();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(batch) = self.committed.front().cloned()
        {
            let last = batch.last();
            for (index, payload) in batch.entries() {
                let is_next = index == self.applied.index.next();
                if is_next && !self.apply_entry(&mut state, &batch, index, &payload)? {
                    break;
                }
            }
            if self.applied.index < last {
                break;
            }
            bytes += u64::from(batch.bytes());
            self.committed.pop_front();
        }
        drop(state);
        if self.applied.index > before {
            self.engine.forget_places_upto(self.applied.index.0);
            self.values.applied(self.applied.index.0);
            self.raft.applied(self.applied.index);
        }
        Ok(())
    }

    /// Whether it could be applied.
    fn apply_entry(
        &mut self,
        state: &mut State,
        batch: &Batch,
        index: LogIndex,
        payload: &[u8],
    ) -> Result<bool, ReplicaError> {
        if batch.kind() == Kind::Normal {
            let Some(place) = self.engine.place(index.0) else { return Ok(false) };
            let loaded = self.values.loaded(&mut self.engine, state, index.0, payload);
            let index_of = index.0;
            let loaded =
                loaded.map_err(|source| ReplicaError::Value { index: index_of, source })?;
            let Some(loaded) = loaded else { return Ok(false) };
            state
                .apply(index.0, payload, place, &loaded, &mut self.outcomes)
                .map_err(|source| ReplicaError::Apply { index, source })?;
        } else {
            state.set_applied_index(index.0);
        }
        self.applied = LogId { term: batch.term(), index };
        self.settle(self.applied);
        Ok(true)
    }

    /// Answers everyone whose command the entry held, and everyone whom it brought a lock.
    fn settle(&mut self, id: LogId) {
        let fate = self.waiters.committed(id);
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let mut waiters = match fate {
            Fate::Applied(waiters) => waiters,
            Fate::NotOurs => Vec::new(),
            Fate::Replaced(waiters) => {
                self.refuse(waiters, ProposeError::NotLeader { leader: self.raft.leader() });
                Vec::new()
            }
        };
        for applied in outcomes.drain(..) {
            self.note_session(&applied.outcome);
            let waiter = waiters.get_mut(applied.position as usize).and_then(Option::take);
            self.settle_one(applied, waiter);
        }
        self.outcomes = outcomes;
    }

    fn settle_one(&mut self, applied: Applied, waiter: Option<Waiter>) {
        let (session, sequence) = (applied.session, applied.sequence);
        if applied.position == RESOLVED {
            self.deadlines.wait_ended(session, sequence);
            if let Some(reply_to) = self.waiters.unqueue(session, sequence) {
                self.out.answer(reply_to, Answer::Outcome(applied.outcome));
            }
            return;
        }
        let Some(waiter) = waiter else { return };
        if matches!(applied.outcome, Outcome::Queued) && self.raft.role() != RoleKind::Leader {
            // It was proposed under a leadership that is over: who waits in a queue waits at the leader.
            self.out.answer(waiter.reply_to, Answer::Error(leadership_lost()));
            return;
        }
        if !matches!(applied.outcome, Outcome::Queued) {
            self.out.answer(waiter.reply_to, Answer::Outcome(applied.outcome));
            return;
        }
        if let Some(replaced) = self.waiters.queue(session, sequence, waiter.reply_to) {
            self.out.answer(replaced, Answer::Error(sent_again()));
        }
        if let Some(AcquireWait { name, wait_ms: Some(wait_ms), .. }) = waiter.wait {
            self.deadlines.wait(session, sequence, name, wait_ms);
        }
    }

    /// Deadlines are the leader's; a new one takes them from the state when it is ready.
    fn note_session(&mut self, outcome: &Outcome) {
        if !self.raft.is_leader_ready() {
            return;
        }
        if let Outcome::SessionOpened { session, generation, ttl_ms } = outcome {
            self.deadlines.opened(*session, *generation, *ttl_ms);
        }
        if let Outcome::SessionClosed { session, existed: true } = outcome {
            self.deadlines.ended(*session);
        }
    }

    // Disk.

    fn handle_engine_events(&mut self) -> Result<(), ReplicaError> {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.handle_engine_event(event)?;
        }
        self.events = events;
        let progress = self.receiver.as_mut().map(|receiver| receiver.advance(&mut self.engine));
        self.handle_progress(progress);
        Ok(())
    }

    fn handle_engine_event(&mut self, event: EngineEvent) -> Result<(), ReplicaError> {
        match event {
            EngineEvent::Durable { write } => self.raft.wrote(WriteSeq(write)),
            EngineEvent::Entries { id, result } => self.handle_entries(id, result)?,
            EngineEvent::Values { id, results } => self.handle_values(id, results),
            EngineEvent::ValuesPlaced { id, location } => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.placed(id, location);
                }
            }
            EngineEvent::CheckpointDurable { origin, info } => match origin {
                CheckpointOrigin::Installed => self.handle_installed(log_id_of(info.at)),
                CheckpointOrigin::Local => {
                    tracing::info!(
                        index = info.at.index,
                        bytes = info.body_bytes,
                        "checkpoint durable"
                    );
                    self.handle_checkpoint();
                }
            },
            // Whoever aborted it has moved on.
            EngineEvent::CheckpointFailed { error: CheckpointError::Aborted, .. } => {}
            EngineEvent::CheckpointFailed { origin: CheckpointOrigin::Installed, error } => {
                let reason = error.to_string();
                let is_full = matches!(error, CheckpointError::NoSpace { .. });
                let progress = if is_full { Progress::NoRoom } else { Progress::Failed }(reason);
                self.handle_progress(Some(progress));
            }
            EngineEvent::CheckpointFailed { error, .. } => {
                tracing::warn!(%error, "checkpoint failed");
                self.checkpointer.failed(&mut self.state.write(), self.now);
            }
            EngineEvent::CheckpointBytes { id, result } => {
                let Replica { senders, engine, values, out, .. } = self;
                senders.body_arrived(&mut Means { engine, values, out }, id, result);
            }
            EngineEvent::LogStart { log_start } => self.raft.purged(log_id_of(log_start)),
            EngineEvent::Repaired { faulty } => {
                tracing::info!(faulty, "damaged entries of the log are repaired");
            }
            EngineEvent::RoomChanged(room) => self.handle_room(room),
            EngineEvent::Damaged(rot) => {
                tracing::error!(
                    %rot,
                    "the scrubber has found damage; this node goes on, but keep its directory, look at it with `holdfast wal verify` while the node is stopped, and rebuild the node from its peers"
                );
            }
            EngineEvent::SlowWrite { latency_us } => {
                tracing::warn!(
                    latency_ms = latency_us / 1000,
                    "slow disk: a durable write took long"
                );
            }
        }
        Ok(())
    }

    fn handle_values(&mut self, id: u64, results: Vec<Result<Bytes, engine::ReadError>>) {
        let Some(read) = self.values.ended(id, results) else { return };
        let is_whole = read.results.iter().all(Result::is_ok);
        if is_whole || read.wanted.is_empty() || self.stop == Stop::Settling {
            self.deliver(read);
        } else {
            self.rescue(|rescues, means| rescues.begin(read, means));
        }
    }

    /// Lets values be asked for from the peers, and delivers the reads that this completes.
    fn rescue<R: IntoIterator<Item = Read>>(
        &mut self,
        ask: impl FnOnce(&mut Rescues, &mut rescue::Means<'_, O>) -> R,
    ) {
        let Replica { rescues, state, peers, out, now, .. } = self;
        let ended =
            ask(rescues, &mut rescue::Means { state: &state.read(), peers, out, now: *now });
        ended.into_iter().for_each(|read| self.deliver(read));
    }

    fn deliver(&mut self, Read { purpose, mut results, .. }: Read) {
        match purpose {
            Purpose::Fetch(reply_to) => self.out.answer(reply_to, Answer::Values(results)),
            Purpose::Snapshot(send) => self.senders.values_arrived(send, results, &mut self.out),
            Purpose::Compare(location) => {
                let value = results.pop().expect("each value to compare is read alone");
                self.values.compare_arrived(location, value);
            }
            Purpose::Peer(peer, link, id) => {
                let value = results.pop().and_then(Result::ok);
                let message = PeerMessage::Value { id, value };
                self.out.send(peer, link, raft::Lane::Bulk, message);
            }
        }
    }

    /// A peer cannot read the value of this key that this revision has set.
    fn lend_value(
        &mut self,
        (peer, link, id): (NodeId, raft::Link, u64),
        key: &[u8],
        revision: u64,
    ) {
        let found = self
            .state
            .read()
            .get(key)
            .filter(|item| item.mod_revision == revision)
            .and_then(|item| item.wanted(key));
        let purpose = Purpose::Peer(peer, link, id);
        match found.filter(|_| self.values.lent() < LENT_MAX) {
            Some(wanted) => self.values.read(&mut self.engine, purpose, vec![wanted]),
            None => self.deliver(Read { purpose, wanted: Vec::new(), results: Vec::new() }),
        }
    }

    fn handle_checkpoint(&mut self) {
        self.checkpointer.done();
        self.offer_waiting_snapshots();
    }

    fn handle_entries(
        &mut self,
        id: u64,
        result: Result<Vec<engine::Entry>, engine::ReadError>,
    ) -> Result<(), ReplicaError> {
        match result {
            Ok(entries) => self.raft.loaded(LoadId(id), Some(batches_of(entries)?)),
            Err(engine::ReadError::Gone { .. }) => self.raft.loaded(LoadId(id), None),
            Err(error) => return Err(ReplicaError::Read(error.to_string())),
        }
        Ok(())
    }

    fn work_on_checkpoint(&mut self) {
        if self.receiver.is_none()
            && (!self.is_replaying() || self.engine.room() != engine::Room::Plenty)
            && self.checkpointer.is_due(&self.engine, self.now)
            && self.applied.index.0 > self.newest_checkpoint()
        {
            let meta = SnapshotMeta { last: self.applied, membership: self.membership.clone() };
            self.checkpointer.begin(&mut self.engine, &mut self.state.write(), meta);
        }
        self.checkpointer.sweep();
        if self.checkpointer.is_active() {
            self.checkpointer.work(&mut self.engine, &mut self.state.write(), self.now);
        }
    }

    /// Lets the cleaner go on, if it has something to do.
    fn clean(&mut self) {
        if !self.is_replaying() && self.engine.cleans(self.now.0) {
            self.engine.clean(&mut Cleanable(&mut self.state.write()));
        }
    }

    /// The index of the newest checkpoint; 0 without one.
    fn newest_checkpoint(&self) -> u64 {
        self.engine.checkpoints().first().map_or(0, |info| info.at.index)
    }

    // Reads.

    fn ask_reads(&mut self) {
        self.reads.ask(|token| self.raft.read(token));
    }

    fn serve_reads(&mut self) {
        for reader in self.reads.served(self.applied.index) {
            let answer = match reader {
                Reader::State(_) => Answer::ReadNow,
                Reader::KeepAlive(_, session) => self.keep_alive(session),
            };
            self.out.answer(reader.reply_to(), answer);
        }
        for (reader, error) in self.reads.failed() {
            let error = if error == ReadError::Full {
                let message = "too many reads are waiting";
                protocol::Error::not_done(ErrorCode::TooManyRequests, message)
            } else {
                self.not_leader()
            };
            self.out.answer(reader.reply_to(), Answer::Error(error));
        }
    }

    /// The round of a keep-alive may complete in the very turn in which this leadership ends. Only
    /// a leader knows deadlines; what it does not know then says nothing about the session.
    fn keep_alive(&mut self, session: u64) -> Answer {
        if !self.raft.is_leader_ready() {
            return Answer::Error(self.not_leader());
        }
        match self.deadlines.keep_alive(session) {
            Some(ttl_ms) => Answer::Alive { ttl_ms },
            None => Answer::Error(protocol::Error::not_done(
                ErrorCode::SessionUnknown,
                format!("session {session} has ended, or is about to; open another one"),
            )),
        }
    }

    // Snapshots and peers.

    fn handle_peer(&mut self, from: NodeId, link: raft::Link, message: PeerMessage) {
        match message {
            PeerMessage::Raft(message) => {
                if let Err(error) = self.raft.step(from, link, message) {
                    tracing::warn!(%from, %error, "a peer broke the protocol; the link is closed");
                    self.out.close(from, link);
                }
            }
            PeerMessage::SnapshotPull { send, offset } => {
                let Replica { senders, engine, values, out, .. } = self;
                if !senders.pull(&mut Means { engine, values, out }, (from, send), offset) {
                    let gone = PeerMessage::SnapshotGone { send };
                    self.out.send(from, link, raft::Lane::Bulk, gone);
                }
            }
            PeerMessage::SnapshotChunk { send, offset, total, bytes } => {
                let receiver =
                    self.receiver.as_mut().filter(|to| to.from == from && to.send == send);
                let progress =
                    receiver.map(|to| to.chunk(&mut self.engine, (offset, total, bytes)));
                self.handle_progress(progress);
            }
            PeerMessage::SnapshotGone { send } => {
                if self.receiver.as_ref().is_some_and(|to| to.from == from && to.send == send) {
                    let reason = "the sender has dropped it".to_owned();
                    self.handle_progress(Some(Progress::Failed(reason)));
                }
            }
            PeerMessage::ValuePull { id, key, revision } => {
                self.lend_value((from, link, id), &key, revision);
            }
            PeerMessage::Value { id, value } => {
                self.rescue(|rescues, means| rescues.answered((from, id), value, means));
            }
            PeerMessage::Hello(_) | PeerMessage::Refused { .. } => {
                tracing::warn!(%from, "a handshake message on an open link is ignored");
            }
        }
    }

    fn handle_snapshot_order(&mut self, order: SnapshotOrder) {
        match order {
            SnapshotOrder::Send { id, peer, link } => {
                match self.senders.begin(&mut self.engine, (id, peer, link)) {
                    Some(info) => self.raft.snapshot_offered(id, self.meta_of(&info)),
                    None => self.checkpointer.want(),
                }
            }
            SnapshotOrder::StopSending { id } => self.senders.end(&mut self.engine, id),
            SnapshotOrder::Install { id, meta, from, send } => self.install(id, meta, (from, send)),
            SnapshotOrder::StopInstalling { id } => {
                if self.receiver.as_ref().is_some_and(|receiver| receiver.id == id) {
                    self.drop_receiver();
                }
            }
        }
    }

    fn install(&mut self, id: InstallId, meta: SnapshotMeta, (from, send): (NodeId, SendId)) {
        self.drop_receiver();
        if !self.patience.is_over(self.now) {
            return self.raft.snapshot_received(id, false);
        }
        tracing::info!(%from, index = %meta.last.index, "receiving a snapshot");
        let value_bytes_max = self.options.raft.entry_bytes_max as usize;
        self.receiver = Some(Receiver::new((id, meta), (from, send), value_bytes_max));
        let progress = match lack_of_room(&self.engine) {
            Some(reason) => Progress::NoRoom(reason),
            None => Progress::Pull(0),
        };
        self.handle_progress(Some(progress));
    }

    fn meta_of(&self, info: &engine::CheckpointInfo) -> SnapshotMeta {
        SnapshotMeta { last: log_id_of(info.at), membership: self.membership.clone() }
    }

    fn offer_waiting_snapshots(&mut self) {
        for (id, peer, link) in self.senders.take_waiting() {
            self.handle_snapshot_order(SnapshotOrder::Send { id, peer, link });
        }
    }

    fn handle_progress(&mut self, progress: Option<Progress>) {
        let Some(receiver) = &self.receiver else { return };
        match progress {
            None | Some(Progress::Wait) => {}
            Some(Progress::Pull(offset)) => {
                let (from, send) = (receiver.from, receiver.send);
                if let Some(link) = self.peers.link(from) {
                    let pull = PeerMessage::SnapshotPull { send, offset };
                    self.out.send(from, link, raft::Lane::Bulk, pull);
                }
            }
            Some(Progress::NoRoom(reason)) => {
                let from = receiver.from;
                if self.patience.begin(self.now) {
                    tracing::warn!(%from, reason, "there is no room for a snapshot that this node needs: it falls behind until space is free");
                } else {
                    tracing::debug!(%from, reason, "there is still no room for a snapshot");
                }
                self.refuse_snapshot();
            }
            Some(Progress::Failed(reason)) => {
                tracing::warn!(from = %receiver.from, reason, "snapshot refused");
                self.refuse_snapshot();
            }
        }
    }

    fn refuse_snapshot(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            receiver.abort(&mut self.engine);
            self.raft.snapshot_received(receiver.id, false);
        }
    }

    fn drop_receiver(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            receiver.abort(&mut self.engine);
        }
    }

    /// The received file is durable and verified: from here on it is this node's state.
    fn handle_installed(&mut self, at: LogId) {
        let Some(receiver) = self.receiver.take_if(|receiver| receiver.meta.last == at) else {
            return;
        };
        let (id, meta, new_state) = receiver.finish();
        self.patience.end();
        let state = Arc::clone(&self.state);
        let mut state = state.write();
        if meta.last.index > self.applied.index {
            self.checkpointer.cancel(&mut self.engine, &mut state);
            self.checkpointer.bury(std::mem::replace(&mut *state, new_state));
            self.applied = meta.last;
            self.engine.forget_places_upto(meta.last.index.0);
            self.values.applied(meta.last.index.0);
            // Their entries are passed over: what became of them is in the state, for their sessions to ask.
            for reply_to in self.waiters.passed(meta.last.index) {
                self.out.answer(reply_to, Answer::Error(leadership_lost()));
            }
            tracing::info!(index = %meta.last.index, "snapshot installed");
        }
        drop(state);
        self.raft.snapshot_received(id, true);
    }

    // Errors that several places answer with.

    fn not_leader(&self) -> protocol::Error {
        match self.leader_hint() {
            Some(hint) if hint.node != self.raft.id().0 => protocol::Error::not_leader(Some(hint)),
            _ => protocol::Error::not_done(
                ErrorCode::Unavailable,
                "no leader is known: an election is under way, or a majority of the nodes is down",
            ),
        }
    }

    fn leader_hint(&self) -> Option<LeaderHint> {
        let leader = self.raft.leader()?;
        let addr = if leader == self.raft.id() {
            &self.options.advertise
        } else {
            self.peers.advertise(leader)
        };
        Some(LeaderHint { node: leader.0, addr: addr.to_owned() })
    }
}

fn leadership_lost() -> protocol::Error {
    protocol::Error::unknown(
        ErrorCode::LeadershipLost,
        "the leader lost its leadership before the outcome was known",
    )
}

fn sent_again() -> protocol::Error {
    protocol::Error::unknown(
        ErrorCode::Unavailable,
        "this acquire was sent again: the answer goes to the later request",
    )
}

fn shutting_down(certainty: Certainty) -> protocol::Error {
    protocol::Error::new(ErrorCode::ShuttingDown, certainty, "this node is shutting down")
}

fn load_state(
    loader: Loader,
    recovered: &Recovered,
    membership: Membership,
) -> Result<(SnapshotMeta, State), ReplicaError> {
    let Some(info) = &recovered.checkpoint else {
        return Ok((SnapshotMeta { last: LogId::default(), membership }, State::new()));
    };
    let index = info.at.index;
    let failed = |error: BodyError| ReplicaError::Checkpoint { index, reason: error.to_string() };
    loader.finish(index).map_err(failed)
}
