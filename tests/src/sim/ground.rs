//! What everything in a seed stands on: the schedule, the network, the oracle, the trace and the counters.

use std::collections::BTreeMap;

use raft::{Message, NodeId, Raft};
use server::peer_message::PeerMessage;

use super::links::LinkEvent;
use super::network::{ConnId, NetEvent, Network};
use super::oracle::{Look, Oracle};
use super::schedule::Schedule;
use super::trace::{Trace, digest};

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// In the network.
    Net(NetEvent),
    /// A node starts a process, unless one runs.
    Boot {
        /// Which.
        node: NodeId,
    },
    /// A node's process makes a turn.
    Turn {
        /// Which.
        node: NodeId,
        /// Of which process.
        start: u64,
    },
    /// A connection sends the answers that it was given.
    Answers {
        /// Of which node.
        node: NodeId,
        /// Of which process.
        start: u64,
        /// Which.
        conn: ConnId,
    },
    /// Of a node's peer links.
    Links {
        /// Which.
        node: NodeId,
        /// Of which process.
        start: u64,
        /// What.
        event: LinkEvent,
    },
    /// Time passes for a client process.
    Client {
        /// Which.
        client: usize,
    },
    /// Another fault.
    Fault,
    /// A paused process goes on.
    Resume {
        /// Which.
        node: NodeId,
        /// Of which process.
        start: u64,
    },
    /// A cut of the network is over.
    Heal {
        /// Which, in the order of their making.
        cut: usize,
    },
    /// A full disk has room again.
    Room {
        /// Whose.
        node: NodeId,
    },
    /// Nothing strikes for a while.
    Truce,
    /// The end of the seed is looked at.
    Look,
}

/// What has happened, by numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests by kind and outcome.
    pub ops: BTreeMap<(&'static str, &'static str), u64>,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Turns of all processes.
    pub turns: u64,
    /// The most inputs that a turn found.
    pub inbox_max: u64,
    /// Snapshots that were offered to a peer.
    pub snapshots_offered: u64,
    /// Chunks of snapshots that were sent.
    pub snapshot_chunks: u64,
    /// Entries that were refused by a follower.
    pub appends_rejected: u64,
    /// Processes that ended by themselves, after an injected disk error.
    pub failures: u64,
    /// Starts of processes.
    pub starts: u64,
    /// Starts that lost power before they were done.
    pub crashed_starts: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Sessions that were lost.
    pub sessions_lost: u64,
}

impl Counters {
    /// A request has ended.
    pub fn count_op(&mut self, kind: &'static str, outcome: &'static str) {
        *self.ops.entry((kind, outcome)).or_default() += 1;
    }

    /// A fault was injected.
    pub fn count_fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    /// A message was sent.
    pub fn count_message(&mut self, message: &PeerMessage) {
        match message {
            PeerMessage::Raft(Message::Snapshot { .. }) => self.snapshots_offered += 1,
            PeerMessage::SnapshotChunk { .. } => self.snapshot_chunks += 1,
            PeerMessage::Raft(Message::AppendReply {
                outcome: raft::AppendOutcome::Rejected { .. },
                ..
            }) => self.appends_rejected += 1,
            PeerMessage::Raft(_)
            | PeerMessage::Hello(_)
            | PeerMessage::Refused { .. }
            | PeerMessage::SnapshotPull { .. }
            | PeerMessage::SnapshotGone { .. }
            | PeerMessage::ValuePull { .. }
            | PeerMessage::Value { .. } => {}
        }
    }

    /// Requests with this outcome.
    pub fn ops_with(&self, outcome: &str) -> u64 {
        self.ops.iter().filter(|((_, of), _)| *of == outcome).map(|(_, count)| count).sum()
    }

    /// All faults.
    pub fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// The ground of one seed.
pub struct Ground {
    /// What happens next.
    pub schedule: Schedule<Event>,
    /// The network.
    pub network: Network,
    /// What must hold.
    pub oracle: Oracle,
    /// What has happened.
    pub trace: Trace,
    /// What has happened, by numbers.
    pub counters: Counters,
    /// No fault is injected any more.
    pub is_calm: bool,
}

impl Ground {
    /// Nothing has happened.
    pub fn new(network: Network, trace: Trace, voters: usize) -> Ground {
        Ground {
            schedule: Schedule::default(),
            network,
            oracle: Oracle::new(voters),
            trace,
            counters: Counters::default(),
            is_calm: false,
        }
    }

    /// Simulated microseconds since the seed began.
    pub fn now_us(&self) -> u64 {
        self.schedule.now_us()
    }

    /// Notes an event in the trace.
    pub fn note(&mut self, numbers: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.schedule.now_us(), numbers, text);
    }

    /// A process has made a turn.
    pub fn look(&mut self, look: Look, raft: &Raft) {
        let hash = digest(&look.state_hash.to_le_bytes());
        let numbers = [
            look.node.0,
            look.term,
            u64::from(look.leads),
            look.commit_index,
            look.applied_index,
            hash,
        ];
        self.trace.note(self.schedule.now_us(), &numbers, || {
            format!(
                "node {} turned: {:?} of term {} under {:?}, last {}, durable {}, commit {}, applied {}, state {:016x}",
                look.node,
                raft.role(),
                look.term,
                raft.leader().map(|leader| leader.0),
                look.last_index,
                look.durable_index,
                look.commit_index,
                look.applied_index,
                hash,
            )
        });
        self.oracle.look(look);
        self.check_bounds(raft);
    }

    /// What a leader has sent to a peer and not heard of stays within its window.
    fn check_bounds(&mut self, raft: &Raft) {
        const ENTRY_BYTES_MAX: u64 = 1 << 20;
        for peer in raft.peers() {
            let bytes_max = raft::Config::new(raft.id()).window_bytes_max + ENTRY_BYTES_MAX;
            if peer.inflight_bytes > bytes_max {
                let bytes = peer.inflight_bytes;
                self.oracle.fail(|| format!("{bytes} bytes are in flight to node {}", peer.id));
            }
        }
    }
}
