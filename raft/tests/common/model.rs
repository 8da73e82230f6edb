//! Random inputs: one seed is one cluster, one set of limits, one mix of faults, one schedule.
//!
//! Each seed turns whole kinds of faults on or off and draws how often the others come, so that
//! rare combinations are met in some seeds rather than drowned in all. After the faults comes a
//! calm phase in which the cluster must elect a leader, commit, and bring everybody up to date.

use std::ops::AddAssign;

use raft::{Config, Event, Micros, NodeId, Raft, RoleKind};

use super::random::Random;
use super::world::World;

/// What has happened, by which a run proves that it was worth something.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) committed: u64,
    pub(crate) leaders: u64,
    pub(crate) truncations: u64,
    pub(crate) lost: u64,
    pub(crate) installs: u64,
    pub(crate) loads: u64,
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
    pub(crate) crashes: u64,
    pub(crate) torn: u64,
    pub(crate) stalls: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.committed += other.committed;
        self.leaders += other.leaders;
        self.truncations += other.truncations;
        self.lost += other.lost;
        self.installs += other.installs;
        self.loads += other.loads;
        self.reads += other.reads;
        self.reads_failed += other.reads_failed;
        self.crashes += other.crashes;
        self.torn += other.torn;
        self.stalls += other.stalls;
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Tick,
    TickAll,
    Flow,
    Deliver,
    Drop,
    Duplicate,
    Sync,
    Ready,
    Propose,
    Read,
    Cut,
    LoseOneSide,
    Connect,
    Partition,
    Heal,
    Crash,
    Start,
    Hang,
    Pause,
    Snapshot,
    Apply,
    Load,
    Offer,
    Install,
    Credit,
}

/// How often each action comes; what is not listed never does.
type Mix = Vec<(Action, u64)>;

struct Model {
    random: Random,
    world: World,
    mix: Mix,
    /// In percent: how often a message overtakes others.
    reorder: u64,
    /// In percent: how often a node is asked for its output after an input.
    eager: u64,
    /// Nodes on the other side of a partition.
    apart: Vec<bool>,
    hangs: Vec<bool>,
    counts: Counts,
}

/// Runs one seed and returns a hash of everything the nodes said, and what happened.
pub(crate) fn run(seed: u64, configure: impl Fn(&mut Config)) -> (u64, Counts) {
    let mut model = Model::new(seed, configure);
    let steps = 400 + model.random.below(1_600);
    for _ in 0..steps {
        model.step();
    }
    model.calm_down();
    (model.world.trace_hash(), model.finish())
}

impl Model {
    fn new(seed: u64, configure: impl Fn(&mut Config)) -> Model {
        let mut random = Random::new(seed);
        let count = random.one_of(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5]);
        let mut config = draw_config(&mut random);
        configure(&mut config);
        let mut world = World::new(count, seed, |id| Config { id, ..config.clone() });
        world.is_prompt = false;
        let nodes = usize::try_from(count).unwrap();
        Model {
            mix: draw_mix(&mut random),
            reorder: random.one_of(&[0, 0, 5, 50]),
            eager: random.one_of(&[40, 80, 100]),
            random,
            world,
            apart: vec![false; nodes],
            hangs: vec![false; nodes],
            counts: Counts::default(),
        }
    }

    fn step(&mut self) {
        let total: u64 = self.mix.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(total);
        let chosen = self.mix.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let action = chosen.expect("weights sum to the total").0;
        self.act(action);
        if self.world.wire.len() > 400 {
            self.world.wire.drain(..200);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::TickAll => self.tick_all(),
            Action::Flow => self.flow(),
            Action::Deliver => self.deliver(false),
            Action::Duplicate => self.deliver(true),
            Action::Drop => {
                if let Some(at) = self.pick_message() {
                    self.world.wire.remove(at);
                }
            }
            Action::Cut => {
                let (a, b) = self.pair();
                self.world.cut(a, b);
            }
            Action::LoseOneSide => {
                let (a, b) = self.pair();
                self.world.lose(a, b);
            }
            Action::Connect => {
                let (a, b) = self.pair();
                self.connect(a, b);
            }
            Action::Partition => self.partition(),
            Action::Pause => self.pause_leader(),
            Action::Heal => {
                self.apart.fill(false);
                self.connect_all();
            }
            Action::Start => {
                let down = |id: &u64| !self.world.nodes[at(*id)].is_up();
                if let Some(id) = self.world.ids().into_iter().find(down) {
                    self.start(id);
                }
            }
            Action::Tick
            | Action::Sync
            | Action::Ready
            | Action::Propose
            | Action::Read
            | Action::Crash
            | Action::Hang
            | Action::Snapshot
            | Action::Apply
            | Action::Load
            | Action::Offer
            | Action::Install
            | Action::Credit => {
                let id = self.pick_node();
                if self.world.node(id).is_up() {
                    self.act_on(action, id);
                    self.maybe_ready(id);
                }
            }
        }
    }

    fn act_on(&mut self, action: Action, id: u64) {
        match action {
            Action::Tick => {
                let count = self.random.one_of(&[1, 1, 1, 3, 8]);
                self.world.ticks(id, count);
            }
            Action::Sync if !self.hangs[at(id)] => {
                let count = self.random.one_of(&[1, 1, 2, usize::MAX]);
                self.world.sync(id, count);
            }
            Action::Ready => self.world.ready(id),
            Action::Propose => {
                let to = self.leader_or(id);
                self.world.propose(to);
                self.maybe_ready(to);
            }
            Action::Read => {
                let to = self.reader_or(id);
                self.world.read(to);
                self.maybe_ready(to);
            }
            Action::Crash => self.crash(id),
            Action::Hang => self.hangs[at(id)] = !self.hangs[at(id)],
            Action::Snapshot => {
                let keep = self.random.below(6);
                self.world.snapshot(id, keep);
            }
            Action::Apply => {
                let count = self.random.one_of(&[1, 3, usize::MAX]);
                self.world.apply(id, count);
            }
            Action::Load => {
                self.counts.loads += u64::from(!self.world.node(id).loads.is_empty());
                self.world.answer_load(id);
            }
            Action::Offer => self.world.offer_snapshots(id),
            Action::Install => {
                let ok = self.random.chance(70);
                self.world.finish_install(id, ok);
            }
            Action::Credit => {
                let bytes = self.random.one_of(&[0, 10, 100, u32::MAX]);
                self.world.raft(id).set_credit(bytes);
            }
            Action::Sync
            | Action::TickAll
            | Action::Flow
            | Action::Deliver
            | Action::Drop
            | Action::Duplicate
            | Action::Cut
            | Action::LoseOneSide
            | Action::Connect
            | Action::Partition
            | Action::Pause
            | Action::Heal
            | Action::Start => {}
        }
    }

    fn tick_all(&mut self) {
        for id in self.world.ids() {
            if self.world.node(id).is_up() {
                self.world.tick(id);
                self.maybe_ready(id);
            }
        }
    }

    /// For a while, messages arrive and disks answer as they should.
    fn flow(&mut self) {
        for _ in 0..self.random.below(40) {
            for id in self.world.ids() {
                if self.world.node(id).is_up() {
                    self.world.ready(id);
                    self.act_on(Action::Sync, id);
                    self.world.ready(id);
                }
            }
            self.deliver(false);
        }
    }

    /// The leader's process stands still while the others go on. They may have another leader, and
    /// commit under it, when it wakes up and knows nothing of that.
    fn pause_leader(&mut self) {
        let Some(paused) = self.world.leader() else { return };
        for _ in 0..self.random.below(60) {
            for id in self.world.ids().into_iter().filter(|&id| id != paused) {
                if self.world.node(id).is_up() {
                    self.world.tick(id);
                    self.act_on(Action::Sync, id);
                    self.world.ready(id);
                }
            }
            while let Some(at) = self.world.wire.iter().position(|f| f.envelope.to.0 != paused) {
                self.world.deliver_at(at);
            }
            if let Some(leader) = self.world.leader().filter(|&leader| leader != paused) {
                self.world.propose(leader);
            }
        }
    }

    fn deliver(&mut self, keep: bool) {
        let Some(at) = self.pick_message() else { return };
        let flying = if keep { self.world.wire[at].clone() } else { self.world.wire.remove(at) };
        let to = flying.envelope.to.0;
        self.world.deliver(flying);
        if self.world.node(to).is_up() {
            self.maybe_ready(to);
        }
    }

    fn crash(&mut self, id: u64) {
        let open = self.world.node(id).disk.unacknowledged.len();
        let writes = self.random.index(open + 1);
        let steps = self.random.index(5);
        self.counts.crashes += 1;
        self.counts.torn += u64::from(steps > 0 && writes < open);
        self.note_events(id);
        self.world.crash(id, writes, steps);
        if self.random.chance(50) {
            self.start(id);
        }
    }

    fn start(&mut self, id: u64) {
        self.world.start(id);
        for peer in self.world.ids() {
            self.connect(id, peer);
        }
    }

    fn connect(&mut self, a: u64, b: u64) {
        if self.apart[at(a)] == self.apart[at(b)] {
            self.world.connect(a, b);
        }
    }

    fn connect_all(&mut self) {
        for a in self.world.ids() {
            for b in self.world.ids() {
                self.connect(a, b);
            }
        }
    }

    fn partition(&mut self) {
        for side in &mut self.apart {
            *side = self.random.chance(40);
        }
        for a in self.world.ids() {
            for b in self.world.ids() {
                if self.apart[at(a)] != self.apart[at(b)] {
                    self.world.cut(a, b);
                }
            }
        }
        self.connect_all();
    }

    fn maybe_ready(&mut self, id: u64) {
        if self.random.chance(self.eager) {
            self.world.ready(id);
        }
    }

    fn pick_node(&mut self) -> u64 {
        1 + self.random.below(self.world.nodes.len() as u64)
    }

    fn pair(&mut self) -> (u64, u64) {
        (self.pick_node(), self.pick_node())
    }

    /// Mostly the leader, or one of those who take themselves for it.
    fn leader_or(&mut self, id: u64) -> u64 {
        if self.random.chance(20) || self.world.node(id).role() == RoleKind::Leader {
            return id;
        }
        self.world.leader().unwrap_or(id)
    }

    /// Of several leaders the one of the oldest term: it has been replaced and does not know.
    fn reader_or(&mut self, id: u64) -> u64 {
        let leaders = self.world.nodes.iter().filter(|node| node.role() == RoleKind::Leader);
        let oldest = leaders.min_by_key(|node| node.raft.as_ref().map(Raft::term));
        let oldest = oldest.map_or(id, |node| node.id.0);
        if self.random.chance(20) { id } else { oldest }
    }

    fn pick_message(&mut self) -> Option<usize> {
        let count = self.world.wire.len();
        if count == 0 {
            return None;
        }
        let overtakes = self.random.chance(self.reorder);
        Some(if overtakes { self.random.index(count) } else { 0 })
    }

    /// What is on the wire is lost one last time, with the connections or, unlike on a stream,
    /// without them; then there are no more faults.
    fn end_faults(&mut self) {
        self.world.is_prompt = true;
        self.world.wire.clear();
        let with_connections = self.random.chance(60);
        for id in self.world.ids() {
            if !self.world.node(id).is_up() {
                self.world.start(id);
            }
            self.world.raft(id).set_credit(u32::MAX);
            self.world.break_transfers(id);
            for peer in self.world.ids().into_iter().filter(|_| with_connections) {
                self.world.cut(id, peer);
            }
        }
        self.world.connect_all();
    }

    /// A leader must come, an entry commit, and everybody have everything.
    fn calm_down(&mut self) {
        self.end_faults();
        let timeout = u64::from(self.world.nodes[0].config.election_ticks);
        let mut wanted = None;
        for _ in 0..100 * timeout {
            for id in self.world.ids() {
                self.world.tick(id);
                self.world.ready(id);
            }
            self.world.settle();
            if wanted.is_some() && self.is_level() {
                return;
            }
            let ready = self.world.leader().filter(|&id| self.world.raft(id).is_leader_ready());
            if let Some(id) = ready.filter(|_| wanted.is_none()) {
                wanted = self.world.propose(id);
                self.world.read(id); // Refused only if as many as allowed wait already.
            }
        }
        panic!("the cluster does not recover:\n{}", self.world.describe());
    }

    /// Whether every node has applied the whole log, and every read is answered.
    fn is_level(&mut self) -> bool {
        let last = self.world.checker.commit_index();
        self.world.nodes.iter().all(|node| {
            let raft = node.raft.as_ref().expect("all run");
            raft.applied_index() == last && raft.last_index() == last && node.open_reads() == 0
        })
    }

    fn note_events(&mut self, id: u64) {
        let node = self.world.node(id);
        let counts = &mut self.counts;
        for event in node.events.drain(..) {
            match event {
                Event::RoleChanged { role, .. } => {
                    counts.leaders += u64::from(role == RoleKind::Leader);
                }
                Event::Truncated { .. } => counts.truncations += 1,
                Event::ProposalsLost { .. } => counts.lost += 1,
                Event::LeaderReady { .. } | Event::SteppedDown { .. } => {}
            }
        }
        for read in node.read.drain(..) {
            counts.reads += u64::from(read.outcome.is_ok());
            counts.reads_failed += u64::from(read.outcome.is_err());
        }
        counts.installs += std::mem::take(&mut node.installs);
        counts.stalls += std::mem::take(&mut node.stalls);
    }

    fn finish(mut self) -> Counts {
        for id in self.world.ids() {
            self.note_events(id);
        }
        self.counts.committed = self.world.checker.commit_index().0;
        self.counts
    }
}

fn at(id: u64) -> usize {
    usize::try_from(id - 1).unwrap()
}

/// Small limits, so that every limit is met.
fn draw_config(random: &mut Random) -> Config {
    let heartbeat_ticks = random.one_of(&[1, 2]);
    let append_bytes_max = random.one_of(&[1, 16, 64, 4096]);
    Config {
        tick: Micros(10_000),
        heartbeat_ticks,
        election_ticks: 3 * heartbeat_ticks + random.one_of(&[0, 2, 6]),
        append_bytes_max,
        window_bytes_max: u64::from(append_bytes_max) + random.one_of(&[0, 30, 300, 100_000]),
        window_count_max: random.one_of(&[1, 2, 3, 8]),
        cache_bytes_max: random.one_of(&[0, 0, 400, 100_000]),
        uncommitted_bytes_max: random.one_of(&[300, 1_000, 100_000]),
        entry_bytes_max: 64,
        committed_bytes_per_ready: random.one_of(&[1, 50, 4096]),
        reads_max: 8,
        load_bytes_max: random.one_of(&[1, 50, 4096]),
        ..Config::new(NodeId(1))
    }
}

fn draw_mix(random: &mut Random) -> Mix {
    let mut mix = vec![
        (Action::Deliver, 60 + random.below(120)),
        (Action::Tick, random.below(10)),
        (Action::TickAll, 4 + random.below(40)),
        (Action::Flow, random.one_of(&[0, 1, 5])),
        (Action::Sync, 20 + random.below(80)),
        (Action::Ready, 10),
        (Action::Propose, 5 + random.below(30)),
        (Action::Apply, 5 + random.below(20)),
        (Action::Connect, 2 + random.below(8)),
        (Action::Start, 2 + random.below(4)),
        (Action::Load, 10 + random.below(20)),
        (Action::Offer, 10),
    ];
    let sometimes = [
        (Action::Drop, 20),
        (Action::Duplicate, 20),
        (Action::Read, 20),
        (Action::Cut, 4),
        (Action::LoseOneSide, 4),
        (Action::Partition, 3),
        (Action::Heal, 4),
        (Action::Crash, 4),
        (Action::Hang, 3),
        (Action::Pause, 2),
        (Action::Snapshot, 12),
        (Action::Install, 10),
        (Action::Credit, 4),
    ];
    for (action, most) in sometimes {
        if random.chance(60) {
            mix.push((action, 1 + random.below(most)));
        }
    }
    mix
}
