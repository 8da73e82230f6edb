//! What the core asks of its caller, as one reusable buffer.

use crate::{
    Batch, HardState, InstallId, Link, LoadId, LogIndex, Message, NodeId, ReadError, ReadToken,
    SendId, SnapshotMeta, Term, WriteSeq,
};

/// What the caller must do. Nothing here waits for anything else here.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ready {
    /// Hand to the log, in the order of the `Ready`s. Its completion comes back through
    /// [`Raft::wrote`](crate::Raft::wrote).
    pub write: Option<Write>,
    /// Send at once, urgent ones first; nothing here waits for `write`.
    pub messages: Vec<Envelope>,
    /// Apply in order, up to and including the last of them; then call
    /// [`Raft::applied`](crate::Raft::applied). Contiguous with the previous `Ready`'s.
    pub committed: Vec<Batch>,
    /// Serve each when the applied index has reached its index.
    pub reads: Vec<ReadReady>,
    /// Entries to read back from the log; answer with [`Raft::loaded`](crate::Raft::loaded).
    pub loads: Vec<Load>,
    /// Snapshot transfers to start or stop.
    pub snapshots: Vec<SnapshotOrder>,
    /// Facts for waiters, metrics and logs. Safety never depends on them.
    pub events: Vec<Event>,
}

impl Ready {
    /// Empties every list and keeps its memory.
    pub fn clear(&mut self) {
        self.write = None;
        self.messages.clear();
        self.committed.clear();
        self.reads.clear();
        self.loads.clear();
        self.snapshots.clear();
        self.events.clear();
    }
}

/// Whether [`Raft::ready`](crate::Raft::ready) must be called again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum More {
    /// Nothing is left.
    No,
    /// Call again after handling this one.
    Yes,
}

/// One change of persistent state: any prefix of (hard state, reset, truncation, batches) is legal after a crash.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Write {
    /// Its number.
    pub seq: WriteSeq,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// The log is now empty and starts after this snapshot, which is already durable.
    pub reset: Option<SnapshotMeta>,
    /// Everything from here on is gone; `batches` then begin exactly here.
    pub truncate_from: Option<LogIndex>,
    /// Entries to append.
    pub batches: Vec<Batch>,
}

/// A message with its destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    /// The receiver; never this node.
    pub to: NodeId,
    /// The connection it belongs to; drop the message when that one is gone.
    pub link: Link,
    /// Which queue it goes to.
    pub lane: Lane,
    /// What to send.
    pub message: Message,
}

/// Heartbeats and elections never wait behind entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Small and time-critical.
    Urgent,
    /// Entries and their answers.
    Bulk,
}

/// The end of one read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadReady {
    /// Which read.
    pub token: ReadToken,
    /// The index at or above which it is linearizable, or why there is none.
    pub outcome: Result<LogIndex, ReadError>,
}

/// A request for entries that are no longer in the core's cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Load {
    /// Which request.
    pub id: LoadId,
    /// The first wanted index.
    pub first: LogIndex,
    /// The last wanted index.
    pub last: LogIndex,
    /// Stop after this many payload bytes, but never before the first entry.
    pub bytes_max: u32,
}

/// What to do about snapshots.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotOrder {
    /// Send the newest durable snapshot to `peer`. First say which with
    /// [`Raft::snapshot_offered`](crate::Raft::snapshot_offered), then stream it; end with
    /// [`Raft::snapshot_sent`](crate::Raft::snapshot_sent).
    Send {
        /// The attempt.
        id: SendId,
        /// The receiver.
        peer: NodeId,
        /// Its connection.
        link: Link,
    },
    /// The attempt is over; stop streaming and unpin.
    StopSending {
        /// The attempt.
        id: SendId,
    },
    /// Receive the snapshot that `from` streams as `send`, make it durable and load it, then call
    /// [`Raft::snapshot_received`](crate::Raft::snapshot_received). Replaces an earlier install.
    Install {
        /// The attempt.
        id: InstallId,
        /// What will arrive.
        meta: SnapshotMeta,
        /// Who streams it.
        from: NodeId,
        /// The name of the transfer at the sender.
        send: SendId,
    },
    /// The leader changed or the snapshot is not needed: drop what has arrived.
    StopInstalling {
        /// The attempt.
        id: InstallId,
    },
}

/// What happened, for waiters, metrics and logs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// This node's role, the term or the known leader changed.
    RoleChanged {
        /// The new role.
        role: RoleKind,
        /// The current term.
        term: Term,
        /// The leader of that term, if known.
        leader: Option<NodeId>,
    },
    /// The first entry of this leader's own term has committed: reads and changes are possible.
    LeaderReady {
        /// Its term.
        term: Term,
    },
    /// This leader gave up its leadership of itself.
    SteppedDown {
        /// The term it led.
        term: Term,
        /// Why.
        cause: StepDownCause,
    },
    /// Proposals from `first` on that were made here will not be answered by this leadership;
    /// whether they happened is unknown.
    ProposalsLost {
        /// The first index that is not known to be committed.
        first: LogIndex,
    },
    /// The log was cut: everything from here on is replaced.
    Truncated {
        /// The first index that is gone.
        from: LogIndex,
    },
}

/// Why a leader steps down although nobody asked it to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StepDownCause {
    /// Its oldest write has been under way for two election timeouts.
    DiskStalled,
    /// No majority was heard within an election timeout.
    QuorumSilent,
}

/// A role without its data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads its term.
    Leader,
}
