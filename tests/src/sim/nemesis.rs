//! What is done to the cluster, and when it ends.

use std::io;

use engine::io::simulated::OpKind as DiskOp;
use raft::NodeId;

use super::ground::{Event, Ground};
use super::links::host_of;
use super::network::{Host, Port, Power};
use super::node::Node;
use super::profile::{Fault, Plan};
use super::random::Random;

/// Chooses faults.
#[derive(Debug)]
pub struct Nemesis {
    random: Random,
    plan: Plan,
}

/// What the world does for a fault that concerns more than one node's inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// These nodes lose their process; `true`: and their power.
    Down(NodeId, bool),
    /// A client process dies.
    Client(usize),
}

impl Nemesis {
    /// Follows the plan.
    pub fn new(plan: &Plan, random: Random) -> Nemesis {
        Nemesis { random, plan: plan.clone() }
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
        let at = self.random.index(nodes.len());
        let id = NodeId(at as u64 + 1);
        let node = nodes.get_mut(at).expect("an index below the length");
        if needs_process(fault) && !node.is_up() {
            return Vec::new();
        }
        ground.counters.count_fault(fault.name());
        ground.note(&[fault as u64, id.0], || format!("fault: {} (node {id})", fault.name()));
        match fault {
            Fault::Crash => vec![Blow::Down(id, true)],
            Fault::Kill => vec![Blow::Down(id, false)],
            Fault::CrashAll => all(nodes.len(), true),
            Fault::KillAll => all(nodes.len(), false),
            Fault::ClientDeath => vec![Blow::Client(self.random.index(self.plan.clients))],
            Fault::CrashSoon => {
                node.burn_fuse(self.random.skewed(&(1..=100)));
                Vec::new()
            }
            Fault::Stop => {
                node.stop(ground);
                Vec::new()
            }
            Fault::Pause => {
                self.pause(id, node, ground);
                Vec::new()
            }
            Fault::Stall => {
                node.disk().stall(self.random.skewed(&(1_000..=3_000_000)));
                Vec::new()
            }
            Fault::DiskError => {
                self.disk_error(node);
                Vec::new()
            }
            Fault::WallJump => {
                let by_ms = i64::try_from(self.random.below(7_200_000)).expect("it is small");
                node.jump_wall(by_ms - 3_600_000);
                Vec::new()
            }
            Fault::Isolate
            | Fault::OneWay
            | Fault::Halves
            | Fault::Pair
            | Fault::ClientCut
            | Fault::Reset
            | Fault::Clog => {
                self.cut(fault, at, ground);
                Vec::new()
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
        node.expect_failure();
    }

    fn cut(&mut self, fault: Fault, at: usize, ground: &mut Ground) {
        let count = self.plan.nodes;
        let other = (at + 1 + self.random.index(count.max(2) - 1)) % count;
        let all = 0..count;
        match fault {
            Fault::Isolate => {
                all.filter(|peer| *peer != at).for_each(|peer| both_ways(at, peer, ground));
            }
            Fault::OneWay => ground.network.block(Host::Node(at), Host::Node(other)),
            Fault::Halves => {
                let (left, right): (Vec<usize>, Vec<usize>) =
                    all.partition(|_| self.random.chance(500_000));
                for one in left {
                    right.iter().for_each(|other| both_ways(one, *other, ground));
                }
            }
            Fault::Pair => both_ways(at, other, ground),
            Fault::ClientCut => {
                for client in 0..self.plan.clients {
                    ground.network.block(Host::Client(client), Host::Node(at));
                    ground.network.block(Host::Node(at), Host::Client(client));
                }
            }
            Fault::Reset => {
                let port = *self.random.pick(&[Port::Peers, Port::Peers, Port::Clients]);
                let conns = ground.network.conns_on(port);
                if !conns.is_empty() {
                    ground.network.reset(*self.random.pick(&conns));
                }
                return;
            }
            Fault::Clog => {
                let (extra_us, for_us) = (self.random.skewed(&(1_000..=500_000)), self.fault_us());
                return ground.network.clog(Host::Node(at), Host::Node(other), extra_us, for_us);
            }
            _ => unreachable!("not a fault of the network"),
        }
        let for_us = self.fault_us();
        ground.schedule.after(for_us, Event::Heal);
    }
}

fn needs_process(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Crash | Fault::CrashSoon | Fault::Kill | Fault::Stop | Fault::Pause | Fault::DiskError
    )
}

fn all(nodes: usize, is_power: bool) -> Vec<Blow> {
    (1..=nodes as u64).map(|id| Blow::Down(NodeId(id), is_power)).collect()
}

fn both_ways(one: usize, other: usize, ground: &mut Ground) {
    ground.network.block(Host::Node(one), Host::Node(other));
    ground.network.block(Host::Node(other), Host::Node(one));
}
