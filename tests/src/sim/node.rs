//! One node: a disk that stays, and processes that come and go on it.
//!
//! A process starts as the real one does: the log is opened, the founding is read or made with the peers, the
//! replica is built, and then it turns whenever something has arrived, a disk operation has completed or its own
//! due time has come. Its clock starts anywhere and runs a little fast or slow.

use std::path::Path;

use engine::io::simulated::{SimDisk, SimImage};
use engine::{Engine, Identity, Recovered};
use protocol::LeaderHint;
use raft::{Lane, Link, Micros, NodeId, RoleKind};
use server::bytes_reader::Reader;
use server::founding::Founder;
use server::identity::{Founding, Member};
use server::peer_message::PeerMessage;
use server::replica::{Answer, Input, Loader, Outbox, Replica, ReplicaOptions, ReplyTo};

use super::edge::{Edge, Serving};
use super::ground::{Event, Ground};
use super::links::{LinkEvent, Links, News, host_of, order_of};
use super::mutant::Mutant;
use super::network::{ConnId, Host, NetOutput, Port, Power as NetPower};
use super::oracle::Look;
use super::power::{Fuse, Power};
use super::profile::Plan;
use super::random::Random;

/// What a turn of the replica has queued.
#[derive(Debug, Default)]
pub struct Sent {
    messages: Vec<(NodeId, Link, Lane, PeerMessage)>,
    answers: Vec<(ReplyTo, Answer)>,
    /// Who leads, and whether the connections have not been told yet.
    leader: Option<LeaderHint>,
    is_leader_news: bool,
}

impl Outbox for Sent {
    fn send(&mut self, to: NodeId, link: Link, lane: Lane, message: PeerMessage) {
        self.messages.push((to, link, lane, message));
    }

    /// No fault of the simulator makes a node break the protocol.
    fn close(&mut self, peer: NodeId, _: Link) {
        panic!("node {peer} broke the protocol");
    }

    fn answer(&mut self, to: ReplyTo, answer: Answer) {
        self.answers.push((to, answer));
    }

    fn leader(&mut self, leader: Option<LeaderHint>) {
        self.leader = leader;
        self.is_leader_news = true;
    }

    fn flush(&mut self) {}
}

/// The monotonic clock of one process.
#[derive(Clone, Copy, Debug)]
struct Clock {
    boot_us: u64,
    base_us: u64,
    /// Its microseconds in a million of the world's.
    rate_ppm: u64,
}

impl Clock {
    fn now(&self, world_us: u64) -> Micros {
        let passed = world_us.saturating_sub(self.boot_us);
        Micros(self.base_us + passed * self.rate_ppm / 1_000_000)
    }

    /// When the clock will show `at`, or later.
    fn world_us(&self, at: Micros) -> u64 {
        if at.0 == u64::MAX {
            return u64::MAX;
        }
        let passed = u128::from(at.0.saturating_sub(self.base_us)) * 1_000_000;
        let world = passed.div_ceil(u128::from(self.rate_ppm));
        self.boot_us.saturating_add(u64::try_from(world).unwrap_or(u64::MAX))
    }
}

enum Phase {
    /// The log is open; the cluster is not founded yet.
    Founding { engine: Box<Engine<Power>>, recovered: Box<Recovered>, loader: Loader },
    /// It serves.
    Serving { replica: Box<Replica<Power, Sent>>, serving: Serving },
    /// Between two phases.
    Ended,
}

struct Process {
    fuse: Fuse,
    clock: Clock,
    links: Links,
    edge: Edge,
    phase: Phase,
    inbox: Vec<Input>,
    /// When the next turn is scheduled.
    turn_us: Option<u64>,
    /// No turn begins before: the last one has taken until then.
    busy_us: u64,
    /// Clients are served from then on.
    open_us: u64,
    is_stopping: bool,
}

/// Why a process is no more.
#[derive(Debug)]
pub enum End {
    /// The power failed.
    Power,
    /// It had been asked to stop, and did.
    Stopped,
    /// It could not go on.
    Failed(String),
}

/// One node.
pub struct Node {
    id: NodeId,
    peers: Vec<NodeId>,
    disk: SimDisk,
    process: Option<Process>,
    /// Counts its processes.
    start: u64,
    random: Random,
    wall_ms: u64,
    is_paused: bool,
    plan: Plan,
    /// Errors that its disk had been made to report when its process started.
    errors_before: u64,
    /// A sync was made to fail: what a process reads from here on may never reach the medium.
    must_cycle: bool,
    mutant: Option<Mutant>,
    /// What the disk held when the process started, for a mutant.
    before: Option<SimImage>,
}

/// Where clients reach a node.
pub fn address_of(node: NodeId) -> String {
    format!("node-{node}:7400")
}

/// The node at an address.
pub fn node_at(address: &str) -> Option<Host> {
    let label = address.strip_prefix("node-")?.strip_suffix(":7400")?;
    label.parse().ok().map(|label| host_of(NodeId(label)))
}

impl Node {
    /// A machine with an empty disk.
    pub fn new(at: usize, plan: &Plan, mutant: Option<Mutant>, mut random: Random) -> Node {
        let peers: Vec<NodeId> = (1..=plan.nodes as u64).map(NodeId).collect();
        Node {
            id: NodeId(at as u64 + 1),
            peers,
            disk: SimDisk::new(random.number(), plan.disk.clone()),
            process: None,
            start: 0,
            wall_ms: 1_700_000_000_000 + random.below(1_000_000),
            random,
            is_paused: false,
            plan: plan.clone(),
            errors_before: 0,
            must_cycle: false,
            mutant,
            before: None,
        }
    }

    /// Its disk.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Which of its processes this is, counted from 1.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether a process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process gets no time.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// A sync will fail: from then on the machine is switched off and on whenever its process has ended with an error.
    /// Without that, what a process reads and what the disk keeps may differ, and no software can tell.
    pub fn must_cycle(&mut self) {
        self.must_cycle = true;
    }

    /// Whether its process has an error of the disk to end with.
    pub fn may_fail(&self) -> bool {
        self.errors() > self.errors_before
    }

    fn errors(&self) -> u64 {
        let counters = self.disk.counters();
        counters.errors_injected + counters.short_writes
    }

    /// Its process is gone: what becomes of the disk. Returns whether the machine lost its power.
    pub fn end_process(&mut self, is_power: bool, disk_knows: bool) -> bool {
        self.process = None;
        self.is_paused = false;
        let is_cycled = self.must_cycle && self.may_fail();
        match (is_power || is_cycled, disk_knows && !is_cycled) {
            (_, true) => {}
            (true, false) => self.disk.crash(),
            (false, false) => self.disk.kill(),
        }
        if let (true, Some(before)) = (is_power, &self.before) {
            self.disk.restore(before);
        }
        is_power || is_cycled
    }

    /// Makes its wall clock jump.
    pub fn jump_wall(&mut self, by_ms: i64) {
        self.wall_ms = self.wall_ms.saturating_add_signed(by_ms);
    }

    /// Requests of clients that its process has not answered.
    pub fn requests(&self) -> usize {
        self.process.as_ref().map_or(0, |process| process.edge.requests())
    }

    /// Its replica, if it serves.
    pub fn replica(&self) -> Option<&Replica<Power, Sent>> {
        match &self.process.as_ref()?.phase {
            Phase::Serving { replica, .. } => Some(replica),
            Phase::Founding { .. } | Phase::Ended => None,
        }
    }

    /// Lets the power fail within the next operations of the disk.
    pub fn burn_fuse(&mut self, operations: u64) {
        if let Some(process) = &self.process {
            process.fuse.set(operations);
        }
    }

    // The life of a process.

    /// Starts a process.
    pub fn boot(&mut self, ground: &mut Ground) -> Result<(), End> {
        assert!(self.process.is_none());
        self.start += 1;
        self.is_paused = false;
        self.disk.advance(ground.now_us());
        self.errors_before = self.errors();
        if self.mutant == Some(Mutant::DiskForgetsAtCrash) {
            self.before = Some(self.disk.snapshot());
        }
        let crashes = self.random.chance(self.plan.crash_in_start_ppm) && !ground.is_calm;
        let operations = crashes.then(|| self.random.skewed(&(1..=400)));
        let fuse = Fuse::new(operations);
        let mut loader = Loader::inline();
        let opened = self.open(&fuse, &mut loader);
        let opened = opened.map_err(|error| end_of(&fuse, &error))?;
        let host = host_of(self.id);
        ground.network.set_power(host, NetPower::Up);
        let started_us = self.disk.now_us().max(ground.now_us());
        let founder = self.founder(&opened.engine)?;
        let links_random = self.random.split();
        let founding = founder.founding().cloned().or_else(|| founder.alone());
        let links = Links::new(founder, address_of(self.id), &self.peers, started_us, links_random);
        ground.oracle.started(self.id, opened.recovered.hard_state.term);
        self.process = Some(Process {
            fuse,
            clock: Clock {
                boot_us: started_us,
                base_us: self.random.below(1 << 40),
                rate_ppm: 1_000_000 - self.plan.drift_ppm
                    + self.random.below(2 * self.plan.drift_ppm + 1),
            },
            links,
            edge: Edge::new(host, self.id.0),
            phase: Phase::Founding {
                engine: Box::new(opened.engine),
                recovered: Box::new(opened.recovered),
                loader,
            },
            inbox: Vec::new(),
            turn_us: None,
            busy_us: started_us,
            open_us: started_us,
            is_stopping: false,
        });
        match founding {
            Some(founding) => self.serve(&founding, ground)?,
            None => self.after_links(ground)?,
        }
        Ok(())
    }

    fn open(&mut self, fuse: &Fuse, loader: &mut Loader) -> Result<engine::Opened<Power>, String> {
        let options = engine::Options {
            slot_bytes: self.plan.slot_bytes,
            inflight_frames_max: self.random.index(4) + 1,
            tail_bytes_max: *self.random.pick(&[64 << 10, 1 << 20]),
            cache_bytes_max: *self.random.pick(&[0, 32 << 10, 1 << 20]),
            slots_ready: self.random.index(2) + 1,
            clean_below_percent: *self.random.pick(&[0, 60, 70]),
            clean_bytes_per_second: *self.random.pick(&[64 << 10, 8 << 20, 1 << 30]),
            scrub_bytes_per_second: 4 << 20,
            seed: [self.random.number(), self.random.number()],
            ..engine::Options::default()
        };
        let identity = Identity {
            node: self.id.0,
            incarnation: self.random.next_u128(),
            log_id: self.random.next_u128(),
        };
        let power = Power::new(&self.disk, fuse.clone());
        engine::open_with(power, Path::new("simulated"), options, identity, loader)
            .map_err(|error| format!("open: {error}"))
    }

    fn founder(&self, engine: &Engine<Power>) -> Result<Founder, End> {
        let meta = engine.meta();
        let founding = if meta.application.is_empty() {
            None
        } else {
            let founding = Founding::decode(&mut Reader::new(&meta.application));
            Some(founding.map_err(|error| End::Failed(format!("founding: {error}")))?)
        };
        let me = Member { id: self.id, incarnation: meta.incarnation };
        Ok(Founder::new(me, self.peers.iter().copied(), founding))
    }

    /// The founding membership is known: makes it durable if it is new, and builds the replica.
    fn serve(&mut self, founding: &Founding, ground: &mut Ground) -> Result<(), End> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let Phase::Founding { mut engine, recovered, loader } =
            std::mem::replace(&mut process.phase, Phase::Ended)
        else {
            unreachable!("a process founds once");
        };
        let fuse = process.fuse.clone();
        if process.links.founder().founding().is_none() {
            let mut encoded = Vec::new();
            founding.encode_into(&mut encoded);
            engine.set_application_meta(encoded).map_err(|error| end_of(&fuse, &error))?;
            process.links.founder().founded(founding.clone());
        }
        let mut raft = raft::Config::new(self.id);
        raft.entry_bytes_max =
            u32::try_from(self.plan.slot_bytes / 4 - 8_192).expect("a slot is small");
        raft.cache_bytes_max = *self.random.pick(&[16 << 10, 256 << 10, 4 << 20]);
        raft.append_bytes_max = *self.random.pick(&[8 << 10, 64 << 10, 1 << 20]);
        raft.window_bytes_max = u64::from(raft.append_bytes_max) * (1 + self.random.below(8));
        if let Some(mutant) = self.mutant {
            mutant.arm(&mut raft);
        }
        let options = ReplicaOptions {
            raft,
            checkpoint_interval_bytes: self.plan.checkpoint_interval_bytes,
            advertise: address_of(self.id),
            cluster_id: founding.cluster_id(),
            seed: self.random.number(),
        };
        let membership = founding.membership();
        let stored = (recovered.as_ref(), loader);
        let replica = Replica::new(options, *engine, stored, membership, Sent::default());
        let replica = replica.map_err(|error| end_of(&fuse, &error))?;
        let (state, reader) = (replica.state(), replica.reader());
        let cluster_id = founding.cluster_id().0;
        let serving = Serving { state, reader, cluster_id, leader: None };
        process.phase = Phase::Serving { replica: Box::new(replica), serving };
        process.busy_us = process.busy_us.max(self.disk.now_us());
        process.open_us = process.busy_us;
        ground.oracle.begins(self.id, process.busy_us);
        self.after_links(ground)?;
        self.wake_at(ground.now_us(), ground);
        Ok(())
    }

    /// The process gets no time from now on.
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// The process goes on.
    pub fn resume(&mut self, ground: &mut Ground) {
        self.is_paused = false;
        ground.oracle.begins(self.id, ground.now_us());
        self.wake_at(ground.now_us(), ground);
    }

    /// Asks the process to stop.
    pub fn stop(&mut self, ground: &mut Ground) {
        if let Some(process) = &mut self.process {
            process.is_stopping = true;
            process.inbox.push(Input::Stop);
            self.wake_at(ground.now_us(), ground);
        }
    }

    // What arrives.

    /// The network brings something.
    pub fn receive(&mut self, output: NetOutput, ground: &mut Ground) -> Result<(), End> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let (links, edge) = (&mut process.links, &mut process.edge);
        links.advance(ground.now_us());
        match output {
            NetOutput::Accepted { conn, port: Port::Peers, .. } => links.accepted(conn),
            NetOutput::Accepted { conn, port: Port::Clients, .. } => edge.accepted(conn),
            NetOutput::Connected { conn, .. } => links.connected(conn, &mut ground.network),
            NetOutput::Closed { conn, .. } => {
                links.closed(conn);
                edge.closed(conn);
            }
            NetOutput::Data { conn, bytes, .. } if links.has(conn) => {
                links.data(conn, &bytes, &mut ground.network);
            }
            NetOutput::Data { conn, bytes, .. } => {
                let serving = match &process.phase {
                    Phase::Serving { serving, .. } if process.open_us <= ground.now_us() => {
                        Some(serving)
                    }
                    Phase::Serving { .. } | Phase::Founding { .. } | Phase::Ended => None,
                };
                edge.data(conn, &bytes, serving, &mut ground.network);
            }
        }
        self.after_links(ground)
    }

    /// A time that the links had set has come.
    pub fn link_event(&mut self, event: LinkEvent, ground: &mut Ground) -> Result<(), End> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.links.advance(ground.now_us());
        process.links.handle(event, &mut ground.network);
        self.after_links(ground)
    }

    /// Takes over what the links and connections have left for the process.
    fn after_links(&mut self, ground: &mut Ground) -> Result<(), End> {
        let (id, start) = (self.id, self.start);
        let Some(process) = &mut self.process else { return Ok(()) };
        for (at_us, event) in process.links.later.drain(..) {
            ground.schedule.at(at_us, Event::Links { node: id, start, event });
        }
        for input in &process.links.inputs {
            if let Input::Peer { from, message, .. } = input {
                ground.oracle.heard(id, *from, message);
            }
        }
        process.inbox.append(&mut process.links.inputs);
        process.inbox.append(&mut process.edge.inputs);
        let is_founding = matches!(process.phase, Phase::Founding { .. });
        for news in std::mem::take(&mut process.links.news) {
            match news {
                News::Found(founding) if is_founding => return self.serve(&founding, ground),
                News::Found(_) => {}
                News::Fatal(refusal) => return Err(End::Failed(refusal.to_string())),
            }
        }
        if !process.inbox.is_empty() {
            let soon_us = ground.now_us() + self.random.below(20);
            self.wake_at(soon_us, ground);
        }
        Ok(())
    }

    // Turns.

    fn wake_at(&mut self, at_us: u64, ground: &mut Ground) {
        let (node, start) = (self.id, self.start);
        let Some(process) = &mut self.process else { return };
        if !matches!(process.phase, Phase::Serving { .. }) {
            return;
        }
        let at_us = at_us.max(process.busy_us).max(ground.now_us());
        if process.turn_us.is_none_or(|turn_us| at_us < turn_us) {
            process.turn_us = Some(at_us);
            ground.schedule.at(at_us, Event::Turn { node, start });
        }
    }

    /// A turn is due, unless an earlier one has taken its place.
    pub fn turn(&mut self, ground: &mut Ground) -> Result<(), End> {
        let now_us = ground.now_us();
        let Some(process) = &mut self.process else { return Ok(()) };
        if process.turn_us != Some(now_us) {
            return Ok(());
        }
        process.turn_us = None;
        if self.is_paused {
            return Ok(());
        }
        let Phase::Serving { replica, .. } = &mut process.phase else { return Ok(()) };
        self.disk.advance(now_us);
        let wall_ms = self.wall_ms + now_us / 1_000;
        ground.counters.inbox_max = ground.counters.inbox_max.max(process.inbox.len() as u64);
        ground.counters.turns += 1;
        let turned = replica.turn(process.clock.now(now_us), wall_ms, &mut process.inbox);
        if process.fuse.is_blown() {
            return Err(End::Power);
        }
        turned.map_err(|error| End::Failed(error.to_string()))?;
        if replica.is_stopped() && process.is_stopping {
            self.deliver(ground);
            return Err(End::Stopped);
        }
        self.deliver(ground);
        self.look(ground);
        self.plan_next_turn(ground);
        Ok(())
    }

    fn plan_next_turn(&mut self, ground: &mut Ground) {
        let now_us = ground.now_us();
        let Some(process) = &mut self.process else { return };
        let Phase::Serving { replica, .. } = &process.phase else { return };
        let cost_us = if self.random.chance(self.plan.hiccup_ppm) && !ground.is_calm {
            self.random.skewed(&(100..=50_000))
        } else {
            self.random.below(15) + 1
        };
        process.busy_us = (now_us + cost_us).max(self.disk.now_us());
        let due_us = process.clock.world_us(replica.next_due());
        let disk_us = self.disk.next_due().unwrap_or(u64::MAX);
        ground
            .trace
            .say(now_us, format_args!("node {}: next turn due {due_us}, disk {disk_us}", self.id));
        let next_us = if process.inbox.is_empty() { due_us.min(disk_us) } else { now_us };
        self.wake_at(next_us, ground);
    }

    /// Sends what the turn has queued.
    fn deliver(&mut self, ground: &mut Ground) {
        let (node, start) = (self.id, self.start);
        let Some(process) = &mut self.process else { return };
        let Phase::Serving { replica, serving } = &mut process.phase else { return };
        let sent = replica.outbox();
        if std::mem::take(&mut sent.is_leader_news) {
            serving.leader.clone_from(&sent.leader);
        }
        let mut messages = std::mem::take(&mut sent.messages);
        let answers = std::mem::take(&mut sent.answers);
        messages.sort_by_key(|(to, _, lane, _)| (*to, order_of(*lane)));
        for (to, link, _, message) in &messages {
            if let PeerMessage::Raft(message) = message {
                ground.oracle.sent(node, *to, message);
            }
            ground.counters.count_message(message);
            process.links.send(*to, *link, message, &mut ground.network);
        }
        for (to, answer) in answers {
            if let Some(conn) = process.edge.answer(to, answer) {
                let soon_us = ground.now_us() + self.random.below(100);
                ground.schedule.at(soon_us, Event::Answers { node, start, conn });
            }
        }
    }

    /// A connection sends its answers.
    pub fn answers(&mut self, conn: ConnId, ground: &mut Ground) {
        let Some(process) = &mut self.process else { return };
        if self.is_paused {
            let (node, start) = (self.id, self.start);
            let later_us = ground.now_us() + 10_000;
            return ground.schedule.at(later_us, Event::Answers { node, start, conn });
        }
        if let Phase::Serving { serving, .. } = &process.phase {
            process.edge.wake(conn, serving, &mut ground.network);
        }
        process.inbox.append(&mut process.edge.inputs);
        if !process.inbox.is_empty() {
            let soon_us = ground.now_us() + self.random.below(20);
            self.wake_at(soon_us, ground);
        }
    }

    fn look(&self, ground: &mut Ground) {
        let Some(replica) = self.replica() else { return };
        let raft = replica.raft();
        let state = replica.state();
        let state = state.read();
        let look = Look {
            node: self.id,
            start: self.start,
            term: raft.term().0,
            leads: raft.role() == RoleKind::Leader,
            commit_index: raft.commit_index().0,
            applied_index: state.applied_index(),
            last_index: raft.last_index().0,
            durable_index: replica.engine().status().durable.index,
            state_hash: state.hash(),
            revision: state.revision(),
        };
        ground.look(look, raft);
    }
}

fn end_of(fuse: &Fuse, error: &impl ToString) -> End {
    if fuse.is_blown() { End::Power } else { End::Failed(error.to_string()) }
}
