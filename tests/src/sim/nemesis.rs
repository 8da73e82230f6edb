//! What is done to the cluster, and when it ends.

use std::io;
use std::ops::RangeInclusive;

use engine::io::simulated::OpKind as DiskOp;
use raft::{NodeId, RoleKind};

use super::ground::{Event, Ground};
use super::links::host_of;
use super::network::{Host, Port, Power};
use super::node::Node;
use super::profile::{Cut, Down, Fault, Machine, Plan};
use super::random::Random;
use super::trace::digest;

/// How long a fault lasts that is meant to leave a node far behind, in microseconds.
const LONG_US: RangeInclusive<u64> = 2_500_000..=9_000_000;

/// Chooses faults.
#[derive(Debug)]
pub struct Nemesis {
    random: Random,
    plan: Plan,
    cuts: Vec<Vec<(Host, Host)>>,
}

/// What the world does for a fault that concerns more than one node's inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// A node loses its process, perhaps with its power.
    Down {
        /// Which.
        node: NodeId,
        /// Whether its machine loses power.
        is_power: bool,
        /// When it starts again, in microseconds from now.
        for_us: u64,
    },
    /// A client process dies.
    Client(usize),
}

impl Nemesis {
    /// Follows the plan.
    pub fn new(plan: &Plan, random: Random) -> Nemesis {
        Nemesis { random, plan: plan.clone(), cuts: Vec::new() }
    }

    /// When the next fault comes, if any ever does.
    pub fn pause_us(&mut self) -> Option<u64> {
        if self.plan.faults.is_empty() {
            return None;
        }
        Some(self.random.skewed(&self.plan.fault_pause_us))
    }

    /// How long a fault lasts.
    pub fn fault_us(&mut self) -> u64 {
        self.random.skewed(&self.plan.fault_us)
    }

    /// Injects one fault. What it cannot do by itself it returns.
    pub fn strike(&mut self, nodes: &mut [Node], ground: &mut Ground) -> Vec<Blow> {
        let fault = self.random.weighted(&self.plan.faults);
        let at = self.target(nodes);
        let id = NodeId(at as u64 + 1);
        let node = nodes.get_mut(at).expect("an index below the length");
        // A node needs room to be founded; after that it must do without.
        let is_full = fault == Fault::Machine(Machine::DiskFull);
        let is_refused =
            (fault.needs_process() && !node.is_up()) || (is_full && node.replica().is_none());
        if is_refused {
            return Vec::new();
        }
        ground.counters.count_fault(fault.name());
        ground.note(&[digest(fault.name().as_bytes()), id.0], || {
            format!("fault: {} (node {id})", fault.name())
        });
        match fault {
            Fault::Down(down) => self.down(down, id, nodes.len()),
            Fault::Machine(machine) => {
                self.hit(machine, node, id, ground);
                Vec::new()
            }
            Fault::Net(cut) => {
                self.cut(cut, at, ground);
                Vec::new()
            }
            Fault::ClientDeath => vec![Blow::Client(self.random.index(self.plan.clients))],
        }
    }

    /// Any node; the one that leads more often than the others.
    fn target(&mut self, nodes: &[Node]) -> usize {
        let any = self.random.index(nodes.len());
        let leader = nodes.iter().position(|node| {
            node.replica().is_some_and(|replica| replica.raft().role() == RoleKind::Leader)
        });
        leader.filter(|_| self.random.chance(self.plan.leader_ppm)).unwrap_or(any)
    }

    fn down(&mut self, down: Down, node: NodeId, nodes: usize) -> Vec<Blow> {
        let is_power = matches!(down, Down::Crash | Down::CrashAll | Down::Absence);
        let hit = match down {
            Down::Crash | Down::Kill | Down::Absence => vec![node],
            Down::CrashAll | Down::KillAll => (1..=nodes as u64).map(NodeId).collect(),
        };
        let for_us = |nemesis: &mut Nemesis| match down {
            Down::Absence => nemesis.random.within(&LONG_US),
            Down::Crash | Down::CrashAll | Down::Kill | Down::KillAll => nemesis.fault_us(),
        };
        hit.into_iter().map(|node| Blow::Down { node, is_power, for_us: for_us(self) }).collect()
    }

    /// A fault of one machine.
    fn hit(&mut self, machine: Machine, node: &mut Node, id: NodeId, ground: &mut Ground) {
        match machine {
            Machine::CrashSoon => node.burn_fuse(self.random.skewed(&(1..=100))),
            Machine::Stop => node.stop(ground),
            Machine::Pause => self.pause(id, node, ground),
            Machine::Stall => node.disk().stall(self.random.skewed(&(1_000..=8_000_000))),
            Machine::DiskError => self.disk_error(node),
            Machine::DiskFull => {
                let room = self.random.below(3 << 20);
                node.disk().set_capacity(Some(node.disk().used_bytes() + room));
                let for_us = self.random.within(&LONG_US);
                ground.schedule.after(for_us, Event::Room { node: id });
            }
            Machine::WallJump => {
                let by_ms = i64::try_from(self.random.below(7_200_000)).expect("it is small");
                node.jump_wall(by_ms - 3_600_000);
            }
        }
    }

    fn pause(&mut self, id: NodeId, node: &mut Node, ground: &mut Ground) {
        node.pause();
        ground.network.set_power(host_of(id), Power::Paused);
        let for_us = self.fault_us();
        ground.schedule.after(for_us, Event::Resume { node: id, start: node.start() });
    }

    fn disk_error(&mut self, node: &mut Node) {
        let kinds = [
            (DiskOp::Write, 5),
            (DiskOp::Sync, 2),
            (DiskOp::SyncDir, 1),
            (DiskOp::Rename, 1),
            (DiskOp::Allocate, 1),
        ];
        let kind = self.random.weighted(&kinds);
        let errors = [io::ErrorKind::Other, io::ErrorKind::Other, io::ErrorKind::WriteZero];
        let error = if kind == DiskOp::Write { *self.random.pick(&errors) } else { errors[0] };
        node.disk().fail_after(kind, self.random.below(20), error);
        if matches!(kind, DiskOp::Sync | DiskOp::SyncDir) {
            node.must_cycle();
        }
    }

    fn cut(&mut self, cut: Cut, at: usize, ground: &mut Ground) {
        let count = self.plan.nodes;
        let other = (at + 1 + self.random.index(count.max(2) - 1)) % count;
        let (one, other) = (Host::Node(at), Host::Node(other));
        let directions = match cut {
            Cut::Isolate | Cut::Exile => {
                let others = (0..count).filter(|peer| *peer != at);
                others.flat_map(|peer| both_ways(one, Host::Node(peer))).collect()
            }
            Cut::OneWay => vec![(one, other)],
            Cut::Halves => self.halves(),
            Cut::Pair => both_ways(one, other).to_vec(),
            Cut::Clients => {
                let clients = (0..self.plan.clients).map(Host::Client);
                clients.flat_map(|client| both_ways(client, one)).collect()
            }
            Cut::Reset => return self.reset(ground),
            Cut::Clog => {
                let (extra_us, for_us) = (self.random.skewed(&(1_000..=500_000)), self.fault_us());
                return ground.network.clog(one, other, extra_us, for_us);
            }
        };
        ground.network.block(&directions);
        let for_us = if cut == Cut::Exile { self.random.within(&LONG_US) } else { self.fault_us() };
        ground.schedule.after(for_us, Event::Heal { cut: self.cuts.len() });
        self.cuts.push(directions);
    }

    fn halves(&mut self) -> Vec<(Host, Host)> {
        let nodes = 0..self.plan.nodes;
        let (left, right): (Vec<usize>, Vec<usize>) =
            nodes.partition(|_| self.random.chance(500_000));
        let pairs = left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other)));
        pairs.flat_map(|(one, other)| both_ways(Host::Node(one), Host::Node(other))).collect()
    }

    fn reset(&mut self, ground: &mut Ground) {
        let port = *self.random.pick(&[Port::Peers, Port::Peers, Port::Clients]);
        let conns = ground.network.conns_on(port);
        if !conns.is_empty() {
            ground.network.reset(*self.random.pick(&conns));
        }
    }

    /// A cut is over.
    pub fn heal(&self, cut: usize, ground: &mut Ground) {
        let cut = self.cuts.get(cut).expect("only cuts that were made are healed");
        ground.network.unblock(cut);
    }
}

fn both_ways(one: Host, other: Host) -> [(Host, Host); 2] {
    [(one, other), (other, one)]
}
