//! A cluster in one value: nodes, their disks, the wire, and a checker that sees everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use raft::{
    Batch, Config, Envelope, Event, HardState, InstallId, Kind, Link, Load, LogId, LogIndex,
    Membership, Message, Micros, More, NodeId, PeerState, Raft, ReadReady, ReadToken, Ready,
    RoleKind, SendId, SnapshotMeta, SnapshotOrder, StepError, Stored, Term,
};

use super::checker::Checker;
use super::disk::{Disk, Entry, Image, Snapshot};

/// A message under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flying {
    pub(crate) from: NodeId,
    pub(crate) envelope: Envelope,
}

/// A snapshot that one node sends to another.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) id: SendId,
    pub(crate) peer: NodeId,
    /// What was offered.
    pub(crate) snapshot: Option<Snapshot>,
}

/// A snapshot that a node receives.
#[derive(Clone, Debug)]
pub(crate) struct Installing {
    pub(crate) id: InstallId,
    pub(crate) meta: SnapshotMeta,
    pub(crate) from: NodeId,
    pub(crate) send: SendId,
}

/// What must never fall while a node runs.
#[derive(Clone, Copy, Default)]
struct Marks {
    term: Term,
    commit: LogIndex,
    applied: LogIndex,
    led: Option<Term>,
}

/// One member, running or not.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    pub(crate) links: BTreeMap<NodeId, Link>,
    pub(crate) to_apply: VecDeque<Batch>,
    pub(crate) state: u64,
    pub(crate) loads: Vec<Load>,
    pub(crate) sendings: Vec<Sending>,
    pub(crate) installing: Option<Installing>,
    pub(crate) read: Vec<ReadReady>,
    pub(crate) events: Vec<Event>,
    pub(crate) ticks: u64,
    /// Snapshots installed.
    pub(crate) installs: u64,
    /// Leaderships given up because the disk hung.
    pub(crate) stalls: u64,
    out: Ready,
    /// Each read not yet answered, with the commit index of the cluster when it was asked.
    reads: BTreeMap<ReadToken, LogIndex>,
    /// The tick at which each unacknowledged write was issued.
    issued: VecDeque<u64>,
    /// The tick of each peer's newest message in the present term.
    heard: BTreeMap<NodeId, u64>,
    /// The newest term that this node led, and the tick at which it began to.
    led_since: (Term, u64),
    /// The term and tick of the newest message of a leader.
    contact: Option<(Term, u64)>,
    marks: Marks,
}

impl Node {
    pub(crate) fn raft(&mut self) -> &mut Raft {
        self.raft.as_mut().expect("the node runs")
    }

    pub(crate) fn is_up(&self) -> bool {
        self.raft.is_some()
    }

    /// How many reads have not been answered.
    pub(crate) fn open_reads(&self) -> usize {
        self.reads.len()
    }

    pub(crate) fn role(&self) -> RoleKind {
        self.raft.as_ref().map_or(RoleKind::Follower, Raft::role)
    }

    /// Notes when a leadership begins.
    fn note_role(&mut self) {
        let Some(raft) = &self.raft else { return };
        if raft.role() == RoleKind::Leader && raft.term() > self.led_since.0 {
            self.led_since = (raft.term(), self.ticks);
        }
    }

    /// Whether this node must not take part in an election now.
    fn is_sticky(&self) -> bool {
        let Some(raft) = &self.raft else { return false };
        let timeout = u64::from(self.config.election_ticks);
        let hears = self
            .contact
            .is_some_and(|(term, tick)| term == raft.term() && self.ticks - tick < timeout);
        raft.role() == RoleKind::Leader
            || (raft.role() == RoleKind::Follower && raft.leader().is_some() && hears)
    }
}

/// See the module.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) wire: Vec<Flying>,
    pub(crate) checker: Checker,
    /// Whether committed entries are applied, and loads answered, as soon as they appear.
    pub(crate) is_prompt: bool,
    trace: DefaultHasher,
    last_link: u64,
    last_token: u64,
    last_payload: u64,
    seed: u64,
}

impl World {
    /// `count` members, running and connected.
    pub(crate) fn new(count: u64, seed: u64, config: impl Fn(NodeId) -> Config) -> World {
        let voters: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let membership = Membership { voters: voters.clone() };
        let node = |&id| Node {
            id,
            config: config(id),
            raft: None,
            disk: Disk::new(membership.clone()),
            links: BTreeMap::new(),
            to_apply: VecDeque::new(),
            state: 0,
            loads: Vec::new(),
            sendings: Vec::new(),
            installing: None,
            read: Vec::new(),
            events: Vec::new(),
            ticks: 0,
            installs: 0,
            stalls: 0,
            out: Ready::default(),
            reads: BTreeMap::new(),
            issued: VecDeque::new(),
            heard: BTreeMap::new(),
            led_since: (Term(0), 0),
            contact: None,
            marks: Marks::default(),
        };
        let mut world = World {
            nodes: voters.iter().map(node).collect(),
            wire: Vec::new(),
            checker: Checker::new(),
            is_prompt: true,
            trace: DefaultHasher::new(),
            last_link: 0,
            last_token: 0,
            last_payload: 0,
            seed,
        };
        for id in 1..=count {
            world.start(id);
        }
        world.connect_all();
        world
    }

    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(id - 1).unwrap()]
    }

    pub(crate) fn raft(&mut self, id: u64) -> &mut Raft {
        self.node(id).raft()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        (1..=self.nodes.len() as u64).collect()
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    /// A node that leads, in the newest term in which one does.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter(|node| node.role() == RoleKind::Leader);
        let newest = leaders.max_by_key(|node| node.raft.as_ref().map(Raft::term));
        newest.map(|node| node.id.0)
    }

    /// Replaces what a node has on disk, and starts it from that.
    pub(crate) fn restore(&mut self, id: u64, hard_state: HardState, terms: &[u64]) {
        self.crash(id, 0, 0);
        let at = usize::try_from(id - 1).unwrap();
        let disk = &mut self.nodes[at].disk;
        disk.durable = Image { hard_state, ..Image::default() };
        for (&term, index) in terms.iter().zip(1..) {
            let payload = Bytes::from(format!("t{term} i{index}"));
            let entry = Entry { term: Term(term), kind: Kind::Normal, payload };
            let prev = disk.durable.id(LogIndex(index - 1)).unwrap();
            let id = LogId { term: Term(term), index: LogIndex(index) };
            self.checker.found(id, &entry, prev);
            disk.durable.entries.push(entry);
        }
        disk.volatile = disk.durable.clone();
        self.start(id);
        self.connect_all();
    }
}

// Starting, stopping, connecting.
impl World {
    pub(crate) fn start(&mut self, id: u64) {
        self.seed = self.seed.wrapping_add(0x9E37_79B9);
        let seed = self.seed ^ id;
        let node = self.node(id);
        let stored: Stored = node.disk.stored();
        let raft = Raft::recover(node.config.clone(), stored, seed).expect("a disk of our own");
        node.state = node.disk.snapshot.state;
        node.marks = Marks {
            term: raft.term(),
            commit: raft.commit_index(),
            applied: raft.applied_index(),
            led: None,
        };
        node.raft = Some(raft);
    }

    /// Stops a node at once. Its disk keeps `writes` unacknowledged writes and `steps` more steps.
    pub(crate) fn crash(&mut self, id: u64, writes: usize, steps: usize) {
        for peer in self.ids() {
            self.cut(id, peer);
        }
        let node = self.node(id);
        node.raft = None;
        node.disk.crash(writes, steps);
        node.to_apply.clear();
        node.loads.clear();
        node.sendings.clear();
        node.installing = None;
        node.reads.clear();
        node.issued.clear();
        node.heard.clear();
        node.contact = None;
    }

    pub(crate) fn is_connected(&mut self, a: u64, b: u64) -> bool {
        let link = self.node(a).links.get(&NodeId(b)).copied();
        link.is_some() && link == self.node(b).links.get(&NodeId(a)).copied()
    }

    pub(crate) fn connect(&mut self, a: u64, b: u64) {
        if a == b || !self.node(a).is_up() || !self.node(b).is_up() || self.is_connected(a, b) {
            return;
        }
        self.cut(a, b);
        self.last_link += 1;
        let link = Link(self.last_link);
        for (from, to) in [(a, b), (b, a)] {
            self.node(from).links.insert(NodeId(to), link);
            self.raft(from).peer_up(NodeId(to), link);
        }
    }

    pub(crate) fn connect_all(&mut self) {
        for a in self.ids() {
            for b in a + 1..=self.nodes.len() as u64 {
                self.connect(a, b);
            }
        }
    }

    /// Breaks the connection; both sides notice. What was under way may still be delivered, and
    /// is then of the past.
    pub(crate) fn cut(&mut self, a: u64, b: u64) {
        self.lose(a, b);
        self.lose(b, a);
    }

    /// `id` notices that its connection to `peer` is gone.
    pub(crate) fn lose(&mut self, id: u64, peer: u64) {
        let node = self.node(id);
        let Some(link) = node.links.remove(&NodeId(peer)) else { return };
        let Some(raft) = &mut node.raft else { return };
        raft.peer_lost(NodeId(peer), link);
        let status = raft.peers().find(|status| status.id.0 == peer).unwrap();
        assert_eq!(status.inflight_bytes, 0, "a lost connection still carries entries");
        assert_eq!(status.state, PeerState::Probe);
        if raft.role() == RoleKind::Leader {
            let known = status.match_index.max(raft.log_start().index);
            assert!(status.next_index <= known.next().max(raft.last_index().next()));
        }
    }
}

// Inputs.
impl World {
    pub(crate) fn tick(&mut self, id: u64) {
        let node = self.node(id);
        node.ticks += 1;
        let now = Micros(node.ticks * 10_000);
        let raft = node.raft.as_mut().expect("the node runs");
        let was = raft.role();
        raft.tick(now);
        self.check_after_tick(id, was);
    }

    /// A leader that a quorum is silent to, or whose disk hangs, is none any more; nor does a
    /// node whose disk hangs begin an election.
    fn check_after_tick(&mut self, id: u64, was: RoleKind) {
        let voters = self.nodes.len();
        let node = self.node(id);
        let timeout = u64::from(node.config.election_ticks);
        let hangs = node.issued.front().is_some_and(|issued| node.ticks - issued >= 2 * timeout);
        let role = node.role();
        if role == RoleKind::Leader {
            assert!(!hangs, "node {id} leads although its disk hangs");
            let heard = |tick: &&u64| node.ticks - **tick < timeout;
            let count = if node.ticks - node.led_since.1 < timeout {
                voters
            } else {
                1 + node.heard.values().filter(heard).count()
            };
            assert!(count * 2 > voters, "node {id} leads although a quorum is silent");
        }
        self.node(id).stalls += u64::from(hangs && was == RoleKind::Leader);
        if was == RoleKind::Follower && role != RoleKind::Follower {
            assert!(!hangs, "node {id} campaigns although its disk hangs");
        }
    }

    pub(crate) fn ticks(&mut self, id: u64, count: u64) {
        (0..count).for_each(|_| self.tick(id));
    }

    /// Delivers message `at` of the wire.
    pub(crate) fn deliver_at(&mut self, at: usize) {
        let flying = self.wire.remove(at);
        self.deliver(flying);
    }

    pub(crate) fn deliver(&mut self, flying: Flying) {
        let result = self.step(flying);
        assert_eq!(result, Ok(()), "a correct node is refused");
    }

    /// Gives a message to its receiver, if that runs.
    pub(crate) fn step(&mut self, flying: Flying) -> Result<(), StepError> {
        let Flying { from, envelope } = flying;
        let Envelope { to, link, message, .. } = envelope;
        if !self.node(to.0).is_up() {
            return Ok(());
        }
        let asks = matches!(message, Message::PreVote { .. } | Message::Vote { .. });
        if asks {
            self.ready(to.0);
        }
        let node = self.node(to.0);
        let is_current = node.links.get(&from) == Some(&link);
        let is_sticky = node.is_sticky();
        let term = node.raft().term();
        let is_leaders = matches!(
            message,
            Message::Append { .. } | Message::Heartbeat { .. } | Message::Snapshot { .. }
        );
        let message_term = message.term();
        let said = self.wire.len();
        let node = self.node(to.0);
        let result = node.raft().step(from, link, message);
        if is_current && message_term >= term {
            if is_leaders && result.is_ok() {
                node.contact = Some((message_term, node.ticks));
            }
            node.heard.insert(from, node.ticks);
        }
        node.note_role();
        // A vote in the leader's own term cannot unseat it.
        if asks && is_sticky && message_term > term {
            assert_eq!(self.raft(to.0).term(), term, "node {to} lets a candidate unseat a leader");
            self.ready(to.0);
            let granted = self.wire[said..].iter().any(|flying| {
                matches!(
                    flying.envelope.message,
                    Message::PreVoteReply { granted: true, .. }
                        | Message::VoteReply { granted: true, .. }
                )
            });
            assert!(!granted, "node {to} helps to unseat a leader that it hears");
        }
        result
    }

    /// Makes the oldest `count` writes of a node durable.
    pub(crate) fn sync(&mut self, id: u64, count: usize) {
        let node = self.node(id);
        let synced = count.min(node.disk.unacknowledged.len());
        node.issued.drain(..synced);
        if let Some(seq) = node.disk.sync(count) {
            node.raft().wrote(seq);
            node.note_role();
        }
    }

    /// Proposes a new payload.
    pub(crate) fn propose(&mut self, id: u64) -> Option<LogId> {
        self.last_payload += 1;
        let size = usize::try_from(self.last_payload % 40).unwrap();
        let payload = format!("{:>size$}", self.last_payload);
        self.raft(id).propose(Bytes::from(payload)).ok()
    }

    /// Asks for a read; returns its token if it was taken.
    pub(crate) fn read(&mut self, id: u64) -> Option<ReadToken> {
        self.last_token += 1;
        let token = ReadToken(self.last_token);
        let committed = self.checker.commit_index();
        let node = self.node(id);
        node.raft().read(token).ok()?;
        node.reads.insert(token, committed);
        Some(token)
    }

    /// Applies the oldest `count` batches that a node was given.
    pub(crate) fn apply(&mut self, id: u64, count: usize) {
        for _ in 0..count {
            let Some(batch) = self.node(id).to_apply.pop_front() else { return };
            let state = self.node(id).state;
            let state = self.checker.applied(NodeId(id), &batch, state);
            let node = self.node(id);
            node.state = state;
            node.raft().applied(batch.last());
        }
    }

    /// Answers the oldest load of a node.
    pub(crate) fn answer_load(&mut self, id: u64) {
        let node = self.node(id);
        if node.loads.is_empty() {
            return;
        }
        let load = node.loads.remove(0);
        let batches = node.disk.read(load.first, load.last, u64::from(load.bytes_max));
        node.raft().loaded(load.id, batches);
    }

    /// Makes a snapshot of what is applied and durable, and purges the log up to `keep` before it.
    pub(crate) fn snapshot(&mut self, id: u64, keep: u64) {
        let node = self.node(id);
        let raft = node.raft.as_ref().expect("the node runs");
        let applied = raft.applied_index();
        if !node.to_apply.is_empty() || applied > raft.durable_index() {
            return;
        }
        let Some(last) = node.disk.durable.id(applied) else { return };
        let membership = raft.membership().clone();
        let meta = SnapshotMeta { last, membership };
        node.disk.store_snapshot(Snapshot { meta, state: node.state });
        let start = LogIndex(applied.0.saturating_sub(keep));
        if let Some(start) = node.disk.durable.id(start) {
            node.disk.purge(start);
            node.raft().purged(start);
        }
    }

    /// Offers the newest snapshot for each order to send one.
    pub(crate) fn offer_snapshots(&mut self, id: u64) {
        let node = self.node(id);
        let snapshot = node.disk.snapshot.clone();
        let raft = node.raft.as_mut().expect("the node runs");
        for sending in node.sendings.iter_mut().filter(|sending| sending.snapshot.is_none()) {
            sending.snapshot = Some(snapshot.clone());
            raft.snapshot_offered(sending.id, snapshot.meta.clone());
        }
    }

    /// Ends the install of a node: with the snapshot if it can be had and `ok`, else without.
    pub(crate) fn finish_install(&mut self, id: u64, ok: bool) {
        let Some(install) = self.node(id).installing.take() else { return };
        let sender = self.node(install.from.0);
        let wanted = |s: &&Sending| (s.id, s.peer) == (install.send, NodeId(id));
        let snapshot = sender.sendings.iter().find(wanted).and_then(|s| s.snapshot.clone());
        let snapshot = snapshot.filter(|snapshot| ok && snapshot.meta == install.meta);
        let sent = snapshot.is_some();
        if sender.is_up() {
            sender.raft().snapshot_sent(NodeId(id), install.send, sent);
            sender.sendings.retain(|s| s.id != install.send || sent);
        }
        let node = self.node(id);
        if let Some(snapshot) = snapshot {
            node.state = snapshot.state;
            node.to_apply.clear();
            node.disk.store_snapshot(snapshot);
            node.installs += 1;
        }
        node.raft().snapshot_received(install.id, sent);
        if self.is_prompt {
            self.ready(id);
        }
    }
}

// More inputs: what drivers say of transfers that broke.
impl World {
    pub(crate) fn break_transfers(&mut self, id: u64) {
        self.finish_install(id, false);
        let node = self.node(id);
        for sending in node.sendings.drain(..) {
            let raft = node.raft.as_mut().expect("the node runs");
            raft.snapshot_sent(sending.peer, sending.id, false);
        }
    }
}

// Outputs.
impl World {
    /// Takes and checks everything that a node has to say.
    pub(crate) fn ready(&mut self, id: u64) {
        if !self.node(id).is_up() {
            return;
        }
        loop {
            let mut out = std::mem::take(&mut self.node(id).out);
            let more = self.raft(id).ready(&mut out);
            out.hash(&mut self.trace);
            self.take_write(id, &mut out);
            self.check_node(id);
            self.take_messages(id, &mut out);
            self.take_rest(id, &mut out);
            self.node(id).out = out;
            if self.is_prompt {
                self.apply(id, usize::MAX);
                while !self.node(id).loads.is_empty() {
                    self.answer_load(id);
                }
            }
            if more == More::No && !(self.is_prompt && self.has_more(id)) {
                return;
            }
        }
    }

    /// Whether an answered load has made more entries available.
    fn has_more(&mut self, id: u64) -> bool {
        let mut copy = self.raft(id).clone();
        let mut out = Ready::default();
        copy.ready(&mut out);
        out != Ready::default()
    }

    fn take_write(&mut self, id: u64, out: &mut Ready) {
        if let Some(write) = out.write.take() {
            let node = &mut self.nodes[usize::try_from(id - 1).unwrap()];
            self.checker.wrote(NodeId(id), &node.disk, &write);
            node.issued.push_back(node.ticks);
            node.disk.write(write);
        }
    }

    /// What can be asked of a node is consistent, and never goes back.
    fn check_node(&mut self, id: u64) {
        let disks: Vec<&Disk> = self.nodes.iter().map(|node| &node.disk).collect();
        let node = &self.nodes[usize::try_from(id - 1).unwrap()];
        let raft = node.raft.as_ref().expect("the node runs");
        assert!(raft.term() >= node.marks.term);
        assert!(raft.commit_index() >= node.marks.commit);
        assert!(raft.applied_index() >= node.marks.applied);
        assert_eq!(raft.last_index(), node.disk.volatile.last_index());
        self.checker.role(node.id, raft.role(), raft.term(), &node.disk);
        self.checker.committed(node.id, raft.commit_index(), &disks);
        let leads = (raft.role() == RoleKind::Leader).then(|| raft.term());
        if leads.is_some() && leads == node.marks.led && raft.commit_index() > node.marks.commit {
            self.checker.leader_committed(raft.term(), raft.commit_index());
        }
        for peer in raft.peers().filter(|_| leads.is_some()) {
            assert!(peer.match_index < peer.next_index);
            assert!(peer.state == PeerState::Replicate || peer.inflight_bytes == 0);
            let limit = node.config.window_bytes_max + u64::from(node.config.entry_bytes_max);
            assert!(peer.inflight_bytes <= limit);
        }
        let marks = Marks {
            term: raft.term(),
            commit: raft.commit_index(),
            applied: raft.applied_index(),
            led: leads,
        };
        let node = self.node(id);
        node.marks = marks;
    }

    fn take_messages(&mut self, id: u64, out: &mut Ready) {
        let from = NodeId(id);
        for envelope in out.messages.drain(..) {
            let node = &self.nodes[usize::try_from(id - 1).unwrap()];
            assert_eq!(node.links.get(&envelope.to), Some(&envelope.link), "the link is down");
            self.checker.said(from, envelope.to, &envelope.message, &node.disk);
            self.wire.push(Flying { from, envelope });
        }
    }

    fn take_rest(&mut self, id: u64, out: &mut Ready) {
        let node = self.node(id);
        node.to_apply.extend(out.committed.drain(..));
        for read in out.reads.drain(..) {
            let committed = node.reads.remove(&read.token).expect("each read is answered once");
            if let Ok(index) = read.outcome {
                assert!(index >= committed, "node {id} serves a stale read");
            }
            node.read.push(read);
        }
        node.loads.append(&mut out.loads);
        for order in out.snapshots.drain(..) {
            match order {
                SnapshotOrder::Send { id, peer, .. } => {
                    node.sendings.push(Sending { id, peer, snapshot: None });
                }
                SnapshotOrder::StopSending { id } => node.sendings.retain(|s| s.id != id),
                SnapshotOrder::Install { id, meta, from, send } => {
                    node.installing = Some(Installing { id, meta, from, send });
                }
                SnapshotOrder::StopInstalling { id } => {
                    node.installing.take_if(|installing| installing.id == id);
                }
            }
        }
        node.events.append(&mut out.events);
    }
}

// Stories.
impl World {
    /// Where everybody stands, for whoever must find out why they do not move.
    pub(crate) fn describe(&self) -> String {
        let describe = |node: &Node| {
            let Some(raft) = &node.raft else { return format!("{}: down", node.id) };
            let peers: Vec<_> = raft.peers().collect();
            format!(
                "{}: {:?} term {} start {} applied {} commit {} durable {} last {}\n   {peers:?}\n   \
                 loads {:?} sendings {:?} installing {:?} open reads {}",
                node.id,
                raft.role(),
                raft.term(),
                raft.log_start().index,
                raft.applied_index(),
                raft.commit_index(),
                raft.durable_index(),
                raft.last_index(),
                node.loads,
                node.sendings,
                node.installing,
                node.open_reads(),
            )
        };
        self.nodes.iter().map(describe).collect::<Vec<_>>().join("\n")
    }

    /// Everything happens at once and in order until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        self.settle_among(&self.ids());
    }

    /// As [`World::settle`], for some of the nodes; what they say to others stays on the wire.
    pub(crate) fn settle_among(&mut self, ids: &[u64]) {
        let among: BTreeSet<NodeId> = ids.iter().map(|&id| NodeId(id)).collect();
        for _ in 0..10_000 {
            for &id in ids {
                if !self.node(id).is_up() {
                    continue;
                }
                self.ready(id);
                self.sync(id, usize::MAX);
                self.ready(id);
                self.offer_snapshots(id);
                self.finish_install(id, true);
                self.ready(id);
            }
            let inside = |f: &Flying| among.contains(&f.from) && among.contains(&f.envelope.to);
            if let Some(at) = self.wire.iter().position(inside) {
                self.deliver_at(at);
            } else if ids.iter().all(|&id| self.node(id).disk.unacknowledged.is_empty()) {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Makes `id` campaign and win, with everybody's help.
    pub(crate) fn elect(&mut self, id: u64) {
        self.elect_among(id, &self.ids());
    }

    /// Makes `id` campaign and win, with the help of some: they no longer hear a leader, and what
    /// they say on their own is lost.
    pub(crate) fn elect_among(&mut self, id: u64, ids: &[u64]) {
        for &other in ids.iter().filter(|&&other| other != id) {
            let timeout = u64::from(self.node(other).config.election_ticks);
            self.ticks(other, timeout);
            self.ready(other);
            self.wire.retain(|flying| flying.from.0 != other);
        }
        for _ in 0..3 {
            self.campaign(id); // Once more where the first attempt only brings a newer term.
            self.settle_among(ids);
            if self.node(id).role() == RoleKind::Leader {
                return;
            }
        }
        panic!("node {id} does not win:\n{}", self.describe());
    }

    /// Lets time pass for `id` until it asks whether it could win.
    pub(crate) fn campaign(&mut self, id: u64) {
        let timeout = u64::from(self.node(id).config.election_ticks);
        for _ in 0..2 * timeout {
            self.tick(id);
            self.ready(id);
            let asks = |f: &Flying| {
                f.from.0 == id && matches!(f.envelope.message, Message::PreVote { .. })
            };
            if self.wire.iter().any(asks) || self.node(id).role() == RoleKind::Candidate {
                return;
            }
        }
        panic!("node {id} does not campaign:\n{}", self.describe());
    }
}
