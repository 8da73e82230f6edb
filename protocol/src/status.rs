//! How a node says it is.

#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, BytesMut};

use crate::codec::{DecodeError, Reader, put_bytes, put_optional};
use crate::error::LeaderHint;

/// What a node does in its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes, or whether it would get them.
    Candidate,
    /// It leads.
    Leader,
}

/// How a leader feeds a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerState {
    /// Unknown: the answering node does not lead.
    Unknown,
    /// The leader looks for the place where the peer's log ends.
    Probe,
    /// The leader streams entries.
    Replicate,
    /// The leader sends a snapshot.
    Snapshot,
}

/// One peer as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerStatus {
    /// Its id.
    pub node: u64,
    /// Where its clients reach it, `host:port`, as it told the answering node; empty until it has.
    pub addr: String,
    /// The highest entry known to be durable there; 0 when the answering node does not lead.
    pub match_index: u64,
    /// How many entries it lacks; 0 when the answering node does not lead.
    pub lag_entries: u64,
    /// How it is fed.
    pub state: PeerState,
    /// Whether there is a connection to it.
    pub connected: bool,
}

/// How a node writes to its disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DiskStatus {
    /// The backend: `uring`, `syscall` or `simulated`.
    pub backend: String,
    /// Whether writes bypass the page cache.
    pub direct: bool,
    /// Damaged places that were found in its files since it started, those that are found again counted again.
    pub damaged: u64,
}

/// How a node is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NodeStatus {
    /// Its id.
    pub node: u64,
    /// Its cluster.
    pub cluster_id: u128,
    /// The release that it runs.
    pub version: String,
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows; may be itself.
    pub leader: Option<LeaderHint>,
    /// The highest entry that it knows to be committed.
    pub commit_index: u64,
    /// The highest entry that it has applied.
    pub applied_index: u64,
    /// The highest entry of its log.
    pub last_index: u64,
    /// The highest entry that is durable on its own disk.
    pub durable_index: u64,
    /// The store's revision at the applied index.
    pub revision: u64,
    /// How many keys it holds.
    pub keys: u64,
    /// How many sessions live.
    pub sessions: u64,
    /// How many locks are held.
    pub locks: u64,
    /// How many client connections it has.
    pub connections: u64,
    /// How it writes.
    pub disk: DiskStatus,
    /// Its peers, by id.
    pub peers: Vec<PeerStatus>,
}

impl NodeStatus {
    pub(crate) fn encode_body(&self, out: &mut BytesMut) {
        out.put_u64_le(self.node);
        out.put_u128_le(self.cluster_id);
        put_bytes(out, self.version.as_bytes());
        out.put_u8(self.role.to_u8());
        out.put_u64_le(self.term);
        put_optional(out, self.leader.as_ref(), |out, leader| {
            leader.encode_body(out);
        });
        for counter in [
            self.commit_index,
            self.applied_index,
            self.last_index,
            self.durable_index,
            self.revision,
            self.keys,
            self.sessions,
            self.locks,
            self.connections,
        ] {
            out.put_u64_le(counter);
        }
        put_bytes(out, self.disk.backend.as_bytes());
        out.put_u8(u8::from(self.disk.direct));
        out.put_u64_le(self.disk.damaged);
        let count = u32::try_from(self.peers.len()).expect("a cluster has few peers");
        out.put_u32_le(count);
        for peer in &self.peers {
            peer.encode_body(out);
        }
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<NodeStatus, DecodeError> {
        Ok(NodeStatus {
            node: reader.u64("node")?,
            cluster_id: reader.u128("cluster_id")?,
            version: reader.text("version")?,
            role: Role::read(reader)?,
            term: reader.u64("term")?,
            leader: reader.optional("leader", LeaderHint::read)?,
            commit_index: reader.u64("commit_index")?,
            applied_index: reader.u64("applied_index")?,
            last_index: reader.u64("last_index")?,
            durable_index: reader.u64("durable_index")?,
            revision: reader.u64("revision")?,
            keys: reader.u64("keys")?,
            sessions: reader.u64("sessions")?,
            locks: reader.u64("locks")?,
            connections: reader.u64("connections")?,
            disk: DiskStatus {
                backend: reader.text("disk backend")?,
                direct: reader.bool("disk direct")?,
                damaged: reader.u64("disk damaged")?,
            },
            peers: read_peers(reader)?,
        })
    }
}

fn read_peers(reader: &mut Reader) -> Result<Vec<PeerStatus>, DecodeError> {
    let count = reader.u32("peer count")?;
    (0..count).map(|_| PeerStatus::read(reader)).collect()
}

impl PeerStatus {
    fn encode_body(&self, out: &mut BytesMut) {
        out.put_u64_le(self.node);
        put_bytes(out, self.addr.as_bytes());
        out.put_u64_le(self.match_index);
        out.put_u64_le(self.lag_entries);
        out.put_u8(self.state.to_u8());
        out.put_u8(u8::from(self.connected));
    }

    fn read(reader: &mut Reader) -> Result<PeerStatus, DecodeError> {
        Ok(PeerStatus {
            node: reader.u64("peer node")?,
            addr: reader.text("peer address")?,
            match_index: reader.u64("match_index")?,
            lag_entries: reader.u64("lag_entries")?,
            state: PeerState::read(reader)?,
            connected: reader.bool("connected")?,
        })
    }
}

impl Role {
    fn to_u8(self) -> u8 {
        match self {
            Role::Follower => 0,
            Role::Candidate => 1,
            Role::Leader => 2,
        }
    }

    fn read(reader: &mut Reader) -> Result<Role, DecodeError> {
        match reader.u8("role")? {
            0 => Ok(Role::Follower),
            1 => Ok(Role::Candidate),
            2 => Ok(Role::Leader),
            value => Err(DecodeError::BadField { field: "role", value: u64::from(value) }),
        }
    }
}

impl PeerState {
    fn to_u8(self) -> u8 {
        match self {
            PeerState::Unknown => 0,
            PeerState::Probe => 1,
            PeerState::Replicate => 2,
            PeerState::Snapshot => 3,
        }
    }

    fn read(reader: &mut Reader) -> Result<PeerState, DecodeError> {
        match reader.u8("peer state")? {
            0 => Ok(PeerState::Unknown),
            1 => Ok(PeerState::Probe),
            2 => Ok(PeerState::Replicate),
            3 => Ok(PeerState::Snapshot),
            value => Err(DecodeError::BadField { field: "peer state", value: u64::from(value) }),
        }
    }
}
