//! One seed, one schedule: the cluster, its clients, what is done to them, and the end at which everything must
//! be well again.
//!
//! A seed has five acts. While the first lasts, clients ask and faults strike. Then nothing is injected any more,
//! every machine runs, every cut is healed, and within a bounded time: every request is answered, every session is
//! closed, every key is read once more, and all nodes hold the same state. Then the history is judged.

use engine::io::simulated::SimFaults;
use raft::{NodeId, RoleKind};

use super::book::Book;
use super::client::{Client, Mood};
use super::ground::{Event, Ground};
use super::links::host_of;
use super::mutant::Mutant;
use super::nemesis::{Blow, Nemesis};
use super::network::{Host, NetEvent, NetFaults, NetOutput, Network, Power};
use super::node::{End, Node};
use super::profile::{Plan, Profile};
use super::random::Random;
use super::report::Report;
use super::trace::Trace;

/// Each act of the end may last this long, in simulated microseconds.
const ACT_US: u64 = 20_000_000;
/// How often the end of an act is looked for, in microseconds.
const LOOK_US: u64 = 100_000;
/// More turns than this in a simulated second are a loop that does not wait for anything.
const TURNS_PER_SECOND_MAX: u64 = 40_000;

/// What to run, and what to show of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// The profile.
    pub profile: Profile,
    /// Whether every event is printed.
    pub trace: bool,
    /// A deliberate bug to run with.
    pub mutant: Option<Mutant>,
}

/// Why a seed failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// When, in simulated microseconds.
    pub at_us: u64,
    /// What did not hold.
    pub reason: String,
}

/// The acts of a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Faults,
    Answers,
    Leaving,
    Audit,
    Convergence,
    Over,
}

struct World {
    plan: Plan,
    ground: Ground,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    nemesis: Nemesis,
    random: Random,
    book: Book,
    act: Act,
    act_ends_us: u64,
    /// No fault strikes before.
    truce_ends_us: u64,
}

/// Runs one seed to its end. The report says what it did in any case.
pub fn run(options: Options) -> (Report, Result<(), Failure>) {
    let mut world = World::new(options);
    let result = world.run().and_then(|()| world.judge());
    let failure = result.map_err(|reason| Failure { at_us: world.ground.now_us(), reason });
    (world.report(options), failure)
}

impl World {
    fn new(options: Options) -> World {
        let mut plan = Plan::new(options.profile, options.seed);
        if options.mutant == Some(Mutant::DiskLosesWrites) {
            plan.disk.lost_write_ppm = 5_000;
        }
        let mut random = Random::new(options.seed);
        let network = Network::new(plan.net.clone(), random.split());
        let mut ground = Ground::new(network, Trace::new(options.trace), plan.nodes);
        let nodes: Vec<Node> = (0..plan.nodes)
            .map(|at| Node::new(at, &plan, options.mutant, random.split()))
            .collect();
        for id in 1..=nodes.len() as u64 {
            let node = NodeId(id);
            ground.network.set_power(host_of(node), Power::Off);
            ground.schedule.at(random.below(500_000), Event::Boot { node });
        }
        let mut clients: Vec<Client> =
            (0..plan.clients).map(|at| Client::new(at, &plan, random.split(), 0)).collect();
        for client in &mut clients {
            client.begin(&mut ground);
        }
        let mut nemesis = Nemesis::new(&plan, random.split());
        if let Some(pause_us) = nemesis.pause_us() {
            ground.schedule.at(pause_us, Event::Fault);
        }
        if let Some(truce) = &plan.truce {
            ground.schedule.at(random.within(&truce.pause_us), Event::Truce);
        }
        ground.schedule.at(plan.duration_us, Event::Look);
        ground.note(&[options.seed], || format!("{plan:#?}"));
        World {
            act_ends_us: plan.duration_us,
            act: Act::Faults,
            truce_ends_us: 0,
            plan,
            ground,
            nodes,
            clients,
            nemesis,
            random,
            book: Book::default(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let (mut second, mut turns) = (0, 0);
        while self.act != Act::Over {
            let event = self.ground.schedule.pop().ok_or("nothing is left to happen")?;
            self.ground.network.advance(self.ground.now_us());
            self.ground.oracle.advance(self.ground.now_us());
            self.handle(event)?;
            self.take_scheduled();
            if let Some(reason) = self.ground.oracle.failure() {
                return Err(reason.to_owned());
            }
            if self.ground.now_us() / 1_000_000 != second {
                second = self.ground.now_us() / 1_000_000;
                turns = self.ground.counters.turns;
            }
            if self.ground.counters.turns - turns > TURNS_PER_SECOND_MAX {
                return Err("a replica turns without end and never waits".to_owned());
            }
        }
        Ok(())
    }

    fn take_scheduled(&mut self) {
        let Ground { schedule, network, .. } = &mut self.ground;
        for (at_us, event) in network.scheduled() {
            schedule.at(at_us, Event::Net(event));
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Net(event) => self.handle_net(event),
            Event::Boot { node } => self.boot(node),
            Event::Turn { node, start } => self.with_process(node, start, Node::turn),
            Event::Links { node, start, event } => {
                self.with_process(node, start, |process, ground| process.link_event(event, ground))
            }
            Event::Answers { node, start, conn } => {
                self.with_process(node, start, |process, ground| {
                    process.answers(conn, ground);
                    Ok(())
                })
            }
            Event::Client { client } => {
                let (ground, book) = (&mut self.ground, &mut self.book);
                self.clients.get_mut(client).expect("it exists").tick(ground, book);
                Ok(())
            }
            Event::Fault => {
                self.strike();
                Ok(())
            }
            Event::Resume { node, start } => self.with_process(node, start, |process, ground| {
                if process.is_paused() {
                    ground.note(&[node.0], || format!("node {node} goes on"));
                    ground.network.set_power(host_of(node), Power::Up);
                    process.resume(ground);
                }
                Ok(())
            }),
            Event::Heal { cut } => {
                self.ground.note(&[cut as u64], || format!("cut {cut} is healed"));
                self.nemesis.heal(cut, &mut self.ground);
                Ok(())
            }
            Event::Room { node } => {
                self.ground.note(&[node.0], || format!("node {node} has room again"));
                self.node(node).disk().set_capacity(None);
                Ok(())
            }
            Event::Truce => {
                self.begin_truce();
                Ok(())
            }
            Event::Look => self.look(),
        }
    }

    fn handle_net(&mut self, event: NetEvent) -> Result<(), String> {
        let mut outputs = Vec::new();
        self.ground.network.handle(event, &mut outputs);
        for output in outputs {
            let to = note_output(&output, &mut self.ground);
            match to {
                Host::Client(at) => {
                    let (ground, book) = (&mut self.ground, &mut self.book);
                    self.clients.get_mut(at).expect("it exists").receive(output, ground, book);
                }
                Host::Node(at) => {
                    let id = NodeId(at as u64 + 1);
                    let start = self.nodes.get(at).expect("it exists").start();
                    self.with_process(id, start, |process, ground| {
                        process.receive(output, ground)
                    })?;
                }
            }
        }
        Ok(())
    }

    // Nodes.

    fn node(&mut self, id: NodeId) -> &mut Node {
        let at = usize::try_from(id.0 - 1).expect("labels are small");
        self.nodes.get_mut(at).expect("it exists")
    }

    /// Lets a process do something, unless it is no more; and clears up if it ends by that.
    fn with_process(
        &mut self,
        id: NodeId,
        start: u64,
        act: impl FnOnce(&mut Node, &mut Ground) -> Result<(), End>,
    ) -> Result<(), String> {
        let at = usize::try_from(id.0 - 1).expect("labels are small");
        let node = self.nodes.get_mut(at).expect("it exists");
        if !node.is_up() || node.start() != start {
            return Ok(());
        }
        match act(node, &mut self.ground) {
            Ok(()) => Ok(()),
            Err(end) => self.ended(id, &end),
        }
    }

    fn boot(&mut self, id: NodeId) -> Result<(), String> {
        let at = usize::try_from(id.0 - 1).expect("labels are small");
        let node = self.nodes.get_mut(at).expect("it exists");
        if node.is_up() {
            return Ok(());
        }
        self.ground.counters.starts += 1;
        let start = node.start() + 1;
        self.ground.note(&[id.0, start], || format!("node {id} starts (process {start})"));
        match node.boot(&mut self.ground) {
            Ok(()) => Ok(()),
            Err(end) => {
                self.ground.counters.crashed_starts += u64::from(matches!(end, End::Power));
                self.ended(id, &end)
            }
        }
    }

    fn ended(&mut self, id: NodeId, end: &End) -> Result<(), String> {
        self.ground.note(&[id.0], || format!("node {id} ends: {end:?}"));
        let node = self.node(id);
        let may_fail = node.may_fail();
        match end {
            End::Power => self.ended_down(id, true, true),
            End::Stopped => self.ended_down(id, false, false),
            End::Failed(reason) if may_fail => {
                self.ground.counters.failures += 1;
                self.ground.note(&[], || format!("node {id} could not go on: {reason}"));
                self.ended_down(id, false, false);
            }
            End::Failed(reason) => return Err(format!("node {id} ended by itself: {reason}")),
        }
        Ok(())
    }

    /// A process has come to its end by itself; another one starts later.
    fn ended_down(&mut self, id: NodeId, is_power: bool, disk_knows: bool) {
        let for_us = if self.ground.is_calm { 100_000 } else { self.nemesis.fault_us() };
        self.down(id, (is_power, disk_knows), for_us);
    }

    /// The process of a node is gone; another one starts after `for_us`.
    fn down(&mut self, id: NodeId, (is_power, disk_knows): (bool, bool), for_us: u64) {
        let is_power = self.node(id).end_process(is_power, disk_knows);
        let power = if is_power { Power::Off } else { Power::NoProcess };
        self.ground.network.set_power(host_of(id), power);
        let disk_us = self.node(id).disk().now_us();
        let boot_us = (self.ground.now_us() + for_us).max(disk_us);
        self.ground.schedule.at(boot_us, Event::Boot { node: id });
    }

    // Faults.

    fn strike(&mut self) {
        if self.ground.is_calm {
            return;
        }
        if let Some(pause_us) = self.nemesis.pause_us() {
            self.ground.schedule.after(pause_us, Event::Fault);
        }
        if self.ground.now_us() < self.truce_ends_us {
            return;
        }
        for blow in self.nemesis.strike(&mut self.nodes, &mut self.ground) {
            match blow {
                Blow::Down { node, is_power, for_us } => {
                    if self.node(node).is_up() {
                        self.down(node, (is_power, false), for_us);
                    }
                }
                Blow::Client(at) => {
                    let (ground, book) = (&mut self.ground, &mut self.book);
                    self.clients.get_mut(at).expect("it exists").die(ground, book);
                }
            }
        }
    }

    /// For a while nothing new happens, and everything runs that can: without that, the worst seeds would ask nothing
    /// but whether nothing is answered wrongly.
    fn begin_truce(&mut self) {
        let Some(truce) = &self.plan.truce else { return };
        if self.ground.is_calm {
            return;
        }
        let now_us = self.ground.now_us();
        self.truce_ends_us = now_us + self.random.within(&truce.length_us);
        let pause_us = self.random.within(&truce.pause_us);
        self.ground.schedule.at(self.truce_ends_us + pause_us, Event::Truce);
        let until_us = self.truce_ends_us;
        self.ground.note(&[until_us], || "truce".to_owned());
        self.revive();
    }

    /// Heals every cut and gives every node a process that runs.
    fn revive(&mut self) {
        self.ground.network.heal();
        for at in 0..self.nodes.len() {
            let id = NodeId(at as u64 + 1);
            let node = self.nodes.get_mut(at).expect("it exists");
            node.disk().set_capacity(None);
            if node.is_paused() {
                self.ground.network.set_power(host_of(id), Power::Up);
                node.resume(&mut self.ground);
            }
            if !node.is_up() {
                let soon_us = self.random.below(500_000);
                self.ground.schedule.after(soon_us, Event::Boot { node: id });
            }
        }
    }

    fn calm_down(&mut self) {
        self.ground.is_calm = true;
        let faults = NetFaults { loss_ppm: 0, reset_ppm: 0, ..self.plan.net.clone() };
        self.ground.network.set_faults(faults);
        let faults = SimFaults { stall_ppm: 0, ..self.plan.disk.clone() };
        for node in &self.nodes {
            node.disk().set_faults(faults.clone());
        }
        self.revive();
    }

    // Acts.

    fn look(&mut self) -> Result<(), String> {
        if self.is_act_done() {
            self.next_act();
        } else if self.ground.now_us() >= self.act_ends_us {
            return Err(format!("{:?} did not end in time: {}", self.act, self.what_is_missing()));
        }
        if self.act != Act::Over {
            self.ground.schedule.after(LOOK_US, Event::Look);
        }
        Ok(())
    }

    fn is_act_done(&self) -> bool {
        match self.act {
            Act::Faults => self.ground.now_us() >= self.plan.duration_us,
            Act::Answers | Act::Audit => self.clients.iter().all(Client::is_done),
            Act::Leaving => {
                self.clients.iter().all(Client::is_done)
                    && self.nodes.iter().all(|node| node.requests() == 0)
            }
            Act::Convergence => self.has_converged(),
            Act::Over => true,
        }
    }

    fn next_act(&mut self) {
        self.act_ends_us = self.ground.now_us() + ACT_US;
        self.act = match self.act {
            Act::Faults => {
                self.calm_down();
                self.set_mood(Mood::Finishing);
                Act::Answers
            }
            Act::Answers => {
                self.set_mood(Mood::Leaving);
                Act::Leaving
            }
            Act::Leaving => {
                self.set_mood(Mood::Finishing);
                if self.plan.final_crash {
                    self.crash_all();
                }
                let auditor = self.clients.first_mut().expect("there is a client");
                auditor.set_mood(Mood::Auditing, &mut self.ground);
                Act::Audit
            }
            Act::Audit => Act::Convergence,
            Act::Convergence | Act::Over => Act::Over,
        };
        let act = self.act;
        self.ground.note(&[act as u64], || format!("act: {act:?}"));
    }

    /// What was acknowledged must be on the disks, and nowhere else.
    fn crash_all(&mut self) {
        for id in (1..=self.nodes.len() as u64).map(NodeId) {
            if self.node(id).is_up() {
                let for_us = self.random.below(1_000_000);
                self.down(id, (true, false), for_us);
            }
        }
    }

    fn set_mood(&mut self, mood: Mood) {
        for client in &mut self.clients {
            client.set_mood(mood, &mut self.ground);
        }
    }

    /// One leader serves, and every node holds the same state.
    fn has_converged(&self) -> bool {
        let mut looks = Vec::new();
        let mut leaders = 0;
        for node in &self.nodes {
            let Some(replica) = node.replica() else { return false };
            let state = replica.state();
            let state = state.read();
            looks.push((state.applied_index(), state.hash(), state.recompute_hash()));
            leaders += u64::from(replica.raft().role() == RoleKind::Leader);
            if replica.raft().commit_index().0 != state.applied_index() {
                return false;
            }
        }
        let first = looks.first().copied();
        leaders == 1 && looks.iter().all(|look| Some(*look) == first && look.1 == look.2)
    }

    fn what_is_missing(&self) -> String {
        let mut text: Vec<String> = self.clients.iter().flat_map(Client::unanswered).collect();
        for (at, node) in self.nodes.iter().enumerate() {
            let requests = node.requests();
            let state = match node.replica() {
                Some(replica) => {
                    let raft = replica.raft();
                    let state = replica.state();
                    let state = state.read();
                    format!(
                        "{:?} of term {}, last {}, commit {}, applied {}, state {:032x}",
                        raft.role(),
                        raft.term(),
                        raft.last_index(),
                        raft.commit_index(),
                        state.applied_index(),
                        state.hash()
                    )
                }
                None => "no replica".to_owned(),
            };
            text.push(format!("node {}: {requests} requests unanswered, {state}", at + 1));
        }
        text.join("; ")
    }

    // The end.

    fn judge(&self) -> Result<(), String> {
        self.book.check()
    }

    fn report(&self, options: Options) -> Report {
        let disks: Vec<_> = self.nodes.iter().map(|node| node.disk().counters()).collect();
        Report::new(options.seed, &self.plan, &self.ground, &self.book, &disks)
    }
}

fn note_output(output: &NetOutput, ground: &mut Ground) -> Host {
    let (conn, to, what, bytes) = match output {
        NetOutput::Accepted { conn, to, .. } => (conn, to, (1, "accepted"), 0),
        NetOutput::Connected { conn, to } => (conn, to, (2, "connected"), 0),
        NetOutput::Closed { conn, to } => (conn, to, (3, "closed"), 0),
        NetOutput::Data { conn, to, bytes } => (conn, to, (4, "bytes:"), bytes.len() as u64),
    };
    let (number, word) = what;
    ground.note(&[conn.0, number, bytes], || format!("conn {} at {to:?}: {word} {bytes}", conn.0));
    *to
}
