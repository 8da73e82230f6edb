//! What a node says about itself.

use engine::io::Disk;
use protocol::{DiskStatus, NodeStatus, PeerState, PeerStatus, Role};
use raft::RoleKind;

use super::{Outbox, Replica};

impl<D: Disk, O: Outbox> Replica<D, O> {
    /// A snapshot of counters; `connections` is left for the edge, which knows them.
    pub fn node_status(&self) -> NodeStatus {
        let disk = self.engine.status();
        let state = self.state.read();
        NodeStatus {
            node: self.raft.id().0,
            cluster_id: self.options.cluster_id.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role_of(self.raft.role()),
            term: self.raft.term().0,
            leader: self.leader_hint(),
            commit_index: self.raft.commit_index().0,
            applied_index: self.applied.index.0,
            last_index: self.raft.last_index().0,
            durable_index: disk.durable.index,
            revision: state.revision(),
            keys: state.keys() as u64,
            sessions: state.sessions_count() as u64,
            locks: state.locks_count() as u64,
            connections: 0,
            disk: DiskStatus {
                backend: disk.backend.to_owned(),
                direct: disk.direct,
                damaged: disk.scrub.damaged,
            },
            peers: self.peer_status(),
        }
    }

    fn peer_status(&self) -> Vec<PeerStatus> {
        let last = self.raft.last_index().0;
        let leads = self.raft.role() == RoleKind::Leader;
        let peers = self.raft.peers().map(|peer| PeerStatus {
            node: peer.id.0,
            addr: self.peers.advertise(peer.id).to_owned(),
            match_index: peer.match_index.0,
            lag_entries: if leads { last.saturating_sub(peer.match_index.0) } else { 0 },
            state: match peer.state {
                _ if !leads => PeerState::Unknown,
                raft::PeerState::Probe => PeerState::Probe,
                raft::PeerState::Replicate => PeerState::Replicate,
                raft::PeerState::Snapshot => PeerState::Snapshot,
            },
            connected: self.peers.link(peer.id).is_some(),
        });
        peers.collect()
    }
}

fn role_of(role: RoleKind) -> Role {
    match role {
        RoleKind::Follower => Role::Follower,
        RoleKind::PreCandidate | RoleKind::Candidate => Role::Candidate,
        RoleKind::Leader => Role::Leader,
    }
}
