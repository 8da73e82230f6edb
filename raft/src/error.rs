//! Why an input was refused.

use thiserror::Error;

use crate::{LogIndex, NodeId, Term};

/// The stored state cannot be the state of this node. The caller must not start.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// There is no default membership.
    #[error("the stored membership has no voters")]
    NoVoters,
    /// The configuration names a node that is not a member.
    #[error("node {id} is not in the stored membership")]
    NotAMember {
        /// This node.
        id: NodeId,
    },
    /// The log does not continue where the snapshot ends.
    #[error("the log starts at {first} but the snapshot ends at {snapshot}")]
    Gap {
        /// The first stored index.
        first: LogIndex,
        /// The snapshot's last index.
        snapshot: LogIndex,
    },
    /// An entry has a term above the stored one, or terms go backwards.
    #[error("entry {index} has term {term}, which the stored terms do not allow")]
    TermOutOfOrder {
        /// The entry.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The log ends before the snapshot does; such a log must be dropped before recovery.
    #[error("the log ends at {last} but the snapshot at {snapshot}")]
    EndsBelowSnapshot {
        /// The last stored index.
        last: LogIndex,
        /// The snapshot's last index.
        snapshot: LogIndex,
    },
    /// The log and the snapshot hold different entries at the snapshot's last index.
    #[error("the log contradicts the snapshot at entry {index}")]
    ContradictsSnapshot {
        /// The entry.
        index: LogIndex,
    },
    /// The state machine says it has applied entries that are not there, or fewer than the
    /// snapshot covers.
    #[error(
        "entry {applied} is applied, but the log ends at {last} and the snapshot at {snapshot}"
    )]
    Applied {
        /// The applied index.
        applied: LogIndex,
        /// The last stored index.
        last: LogIndex,
        /// The snapshot's last index.
        snapshot: LogIndex,
    },
    /// The list of term runs does not describe a log.
    #[error("the stored term runs do not describe a log: {0}")]
    Runs(&'static str),
    /// The stored membership cannot be one.
    #[error("the stored membership: {0}")]
    Membership(&'static str),
    /// A limit of the configuration is out of range.
    #[error("configuration: {0}")]
    Config(&'static str),
}

/// A message broke a rule that no correct peer with fitting limits breaks. The caller closes the link.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum StepError {
    /// The sender is not a member, or is this node.
    #[error("node {from} is not a peer")]
    NotAPeer {
        /// Who it claims to be.
        from: NodeId,
    },
    /// The entries of an append do not follow each other.
    #[error("append after {prev} is not contiguous or has falling terms")]
    NotContiguous {
        /// The index before them.
        prev: LogIndex,
    },
    /// Two leaders claim one term.
    #[error("node {from} and node {leader} both lead term {term}")]
    TwoLeaders {
        /// The sender.
        from: NodeId,
        /// The leader known so far.
        leader: NodeId,
        /// The term.
        term: Term,
    },
    /// The message asks to replace an entry that is known to be committed.
    #[error("an append replaces committed entry {index}")]
    ReplacesCommitted {
        /// The entry.
        index: LogIndex,
    },
    /// The message contradicts what the same leader sent before in the same term.
    #[error("an append replaces entry {index}, which the leader of this term sent before")]
    ReplacesMatched {
        /// The entry.
        index: LogIndex,
    },
    /// The message contradicts what is known to equal the log of its sender.
    #[error("an append follows another entry {index} than the one that is known to match")]
    ContradictsMatched {
        /// The entry before those of the append.
        index: LogIndex,
    },
    /// The sender has higher limits than this node, which cannot store what it sends.
    #[error(
        "an append holds an entry of {bytes} bytes, above the limit of {bytes_max} of this node"
    )]
    TooLarge {
        /// The size of its payload.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// A term or an index is beyond what any history could reach, or a snapshot's term beyond its
    /// sender's.
    #[error("node {from} sends a term or an index that is out of range")]
    OutOfRange {
        /// The sender.
        from: NodeId,
    },
    /// A peer answers a read round that has not begun.
    #[error("node {from} answers a read round that has not begun")]
    UnknownRound {
        /// The sender.
        from: NodeId,
    },
    /// A snapshot has another membership than this node, whose membership is fixed.
    #[error("the snapshot offered by node {from} has another membership")]
    OtherMembership {
        /// The sender.
        from: NodeId,
    },
    /// A peer claims to hold entries that do not exist.
    #[error("node {from} acknowledges {index}, beyond the last index")]
    AcknowledgesUnknown {
        /// The sender.
        from: NodeId,
        /// What it acknowledged.
        index: LogIndex,
    },
}

/// A proposal was not taken; it certainly did not and will not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Retry at the leader.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much is waiting for its commit; retry later.
    #[error("{uncommitted_bytes} bytes are waiting for their commit")]
    Full {
        /// How much.
        uncommitted_bytes: u64,
    },
    /// The payload can never be accepted.
    #[error("a payload of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// A read has no index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Retry at the leader.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too many reads wait; retry later.
    #[error("too many reads are waiting")]
    Full,
}
