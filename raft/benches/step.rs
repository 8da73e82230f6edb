//! What the core costs: from proposal to commit, without disk and network.
//!
//! A batch is 64 commands of 256 bytes: once as 64 entries of one command, once as one entry of 64
//! commands, which is how the server uses it. `cluster` is the work of all three nodes, `leader`
//! that of the leader alone. Time per element is time per command.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use raft::{
    AppendOutcome, Config, Envelope, Link, LogIndex, Membership, Message, Micros, NodeId, Raft,
    ReadToken, Ready, RoleKind, Stored,
};

const COMMANDS: usize = 64;
const COMMAND_BYTES: usize = 256;
const LEADER: usize = 0;

struct Cluster {
    nodes: Vec<Raft>,
    out: Ready,
    wire: Vec<(NodeId, Envelope)>,
}

impl Cluster {
    /// Three members of which the first leads.
    fn new() -> Cluster {
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let stored = || Stored::founding(Membership { voters: voters.clone() });
        let recover = |&id: &NodeId| Raft::recover(Config::new(id), stored(), id.0);
        let nodes: Result<Vec<Raft>, _> = voters.iter().map(recover).collect();
        let nodes = nodes.expect("a founding state is sound");
        let mut cluster = Cluster { nodes, out: Ready::default(), wire: Vec::new() };
        for node in &mut cluster.nodes {
            for &peer in &voters {
                node.peer_up(peer, Link(1));
            }
        }
        while cluster.nodes[LEADER].role() != RoleKind::Leader {
            cluster.nodes[LEADER].tick(Micros(0));
            cluster.run();
        }
        cluster
    }

    /// Takes what a node has to say; its disk and its state machine answer at once.
    fn turn(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.ready(&mut self.out);
        let from = node.id();
        self.wire.extend(self.out.messages.drain(..).map(|envelope| (from, envelope)));
        if let Some(last) = self.out.committed.last() {
            node.applied(last.last());
        }
        if let Some(write) = self.out.write.take() {
            node.wrote(write.seq);
            self.turn(at);
        }
    }

    /// Until nothing is left to say.
    fn run(&mut self) {
        (0..3).for_each(|at| self.turn(at));
        while !self.wire.is_empty() {
            for (from, envelope) in std::mem::take(&mut self.wire) {
                let to = (0..3).find(|&at| self.nodes[at].id() == envelope.to);
                let node = &mut self.nodes[to.expect("a member")];
                node.step(from, envelope.link, envelope.message).expect("a sound message");
            }
            (0..3).for_each(|at| self.turn(at));
        }
    }

    fn propose(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            self.nodes[LEADER].propose(payload.clone()).expect("it leads and has room");
        }
    }

    /// The leader's part of it: its followers acknowledge without having been asked.
    fn lead(&mut self, payloads: &[Bytes]) {
        self.propose(payloads);
        let leader = &mut self.nodes[LEADER];
        leader.ready(&mut self.out);
        black_box(&self.out);
        let write = self.out.write.as_ref().expect("entries to write").seq;
        for from in [2, 3] {
            let reply = acknowledge(leader, leader.last_index());
            leader.step(NodeId(from), Link(1), reply).expect("a sound message");
        }
        leader.wrote(write);
        leader.ready(&mut self.out);
        let committed = self.out.committed.last().expect("all is acknowledged").last();
        leader.applied(committed);
    }
}

fn acknowledge(leader: &Raft, match_index: LogIndex) -> Message {
    Message::AppendReply {
        term: leader.term(),
        outcome: AppendOutcome::Accepted { match_index },
        last_index: match_index,
        credit_bytes: u32::MAX,
    }
}

fn commit(criterion: &mut Criterion) {
    let entries = vec![Bytes::from(vec![7; COMMAND_BYTES]); COMMANDS];
    let grouped = vec![Bytes::from(vec![7; COMMAND_BYTES * COMMANDS])];
    let mut group = criterion.benchmark_group("step");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for (name, payloads) in [("64_entries_of_1", &entries), ("1_entry_of_64", &grouped)] {
        let mut cluster = Cluster::new();
        group.bench_function(format!("cluster/{name}"), |bencher| {
            bencher.iter(|| {
                cluster.propose(payloads);
                cluster.run();
            });
        });
        let commit = cluster.nodes[LEADER].commit_index();
        assert!(cluster.nodes.iter().all(|node| node.applied_index() == commit));
        let mut cluster = Cluster::new();
        group.bench_function(format!("leader/{name}"), |bencher| {
            bencher.iter(|| cluster.lead(payloads));
        });
    }
    group.finish();
}

fn idle(criterion: &mut Criterion) {
    let mut cluster = Cluster::new();
    criterion.bench_function("step/ready_with_nothing_to_do", |bencher| {
        bencher.iter(|| cluster.turn(black_box(LEADER)));
    });
    criterion.bench_function("step/read_round_of_one", |bencher| {
        bencher.iter(|| {
            cluster.nodes[LEADER].read(ReadToken(1)).expect("it leads");
            cluster.run();
        });
    });
}

criterion_group!(benches, commit, idle);
criterion_main!(benches);
