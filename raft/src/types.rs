//! The words of the paper as types: each newtype keeps one kind of number from being taken for another.

use std::fmt;

/// A member's label, chosen by its operator. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// A term (Raft paper, section 5.1). 0 is "before the first election".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Term(pub u64);

/// The position of an entry in the log. The first entry has index 1; 0 is "before the log".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The index before this one.
    ///
    /// Requires: `self > LogIndex(0)`.
    #[must_use]
    pub fn prev(self) -> LogIndex {
        assert!(self.0 > 0);
        LogIndex(self.0 - 1)
    }
}

/// An entry's identity: no two different entries share it (Log Matching, paper section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogId {
    /// The term of the leader that created the entry. First, so that the derived order is the
    /// "more up-to-date" order of the paper's section 5.4.1.
    pub term: Term,
    /// Its position.
    pub index: LogIndex,
}

/// What must survive a crash besides the log (paper, figure 2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// The candidate that got this node's vote in `term`.
    pub vote: Option<NodeId>,
}

/// The number of one [`Write`](crate::Write); dense, from 1 at every start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WriteSeq(pub u64);

/// The number of one read round; strictly increasing within a node's run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Round(pub u64);

/// One connection's epoch: a reply that arrives over an older link is not mistaken for a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Link(pub u64);

/// The caller's monotonic clock in microseconds since any fixed point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Micros(pub u64);

/// Names one read of the caller; comes back in [`Ready::reads`](crate::Ready::reads).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadToken(pub u64);

/// Names one [`Load`](crate::Load).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LoadId(pub u64);

/// Names one attempt to send a snapshot to a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SendId(pub u64);

/// Names one attempt to install a snapshot on this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstallId(pub u64);

/// Who is a member. Part of every snapshot; sorted and without duplicates.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Membership {
    /// The voters.
    pub voters: Vec<NodeId>,
}

/// What a snapshot stands for: the state after `last`, and the membership in force there.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub last: LogId,
    /// The membership at `last`.
    pub membership: Membership,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
