//! What members say to each other. The caller frames, authenticates and delivers; order is not assumed.

use crate::{Batch, LogId, LogIndex, Micros, Round, SendId, SnapshotMeta, Term};

/// One message between members. Every variant carries its sender's term (a pre-vote: the proposed one).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// `AppendEntries` (paper, section 5.3). `batches` are contiguous and start at `prev.index + 1`.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first of `batches`.
        prev: LogId,
        /// The leader's commit index.
        commit: LogIndex,
        /// The entries; empty as a probe or as a commit notice.
        batches: Vec<Batch>,
    },
    /// The follower's answer to an append.
    AppendReply {
        /// The follower's term.
        term: Term,
        /// Whether the entry before the batches was there.
        outcome: AppendOutcome,
        /// The follower's last index, durable or not.
        last_index: LogIndex,
        /// How many bytes of entries the follower has room for now.
        credit_bytes: u32,
    },
    /// The leader is alive; carries the newest read round. Never carries entries.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// The commit index, at most what this follower is known to hold.
        commit: LogIndex,
        /// The newest read round.
        round: Round,
        /// The leader's clock when it was sent; comes back unchanged.
        sent_at: Micros,
    },
    /// The follower's answer to a heartbeat, at once: nothing waits for the disk.
    HeartbeatReply {
        /// The follower's term.
        term: Term,
        /// The round of the heartbeat.
        round: Round,
        /// `sent_at` of the heartbeat.
        sent_at: Micros,
        /// The follower's last index, durable or not.
        last_index: LogIndex,
        /// How many bytes of entries the follower has room for now.
        credit_bytes: u32,
    },
    /// Would you vote for me in `term`? Changes no state (thesis, section 9.6).
    PreVote {
        /// The proposed term: the sender's plus one.
        term: Term,
        /// The sender's last entry.
        last: LogId,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// Granted: the proposed term. Refused: the replier's own.
        term: Term,
        /// Whether the replier would vote.
        granted: bool,
    },
    /// `RequestVote` (paper, section 5.2). Sent only after (term, self) is durable.
    Vote {
        /// The candidate's term.
        term: Term,
        /// The candidate's last entry.
        last: LogId,
        /// Whether the old leader asked for this election: then stickiness does not apply.
        transfer: bool,
    },
    /// The answer to a vote request. A grant is sent only after it is durable.
    VoteReply {
        /// The replier's term.
        term: Term,
        /// Whether the vote was given.
        granted: bool,
    },
    /// The leader offers a snapshot; its bytes travel beside it, from driver to driver.
    Snapshot {
        /// The leader's term.
        term: Term,
        /// What the snapshot stands for.
        meta: SnapshotMeta,
        /// The attempt, by which both drivers name the transfer.
        send: SendId,
    },
}

/// How an append ended on the follower.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AppendOutcome {
    /// Everything up to `match_index` equals the leader's log and is durable here.
    Accepted {
        /// The last such index.
        match_index: LogIndex,
    },
    /// `prev` is not in the follower's log.
    Rejected {
        /// The `prev` of the refused append, by which a stale rejection is told.
        prev: LogId,
        /// Where the logs may still agree: the last entry of the follower's log whose term is at
        /// most `prev.term`.
        hint: LogId,
    },
}

impl Message {
    /// The term the message speaks of.
    pub fn term(&self) -> Term {
        match self {
            Message::Append { term, .. }
            | Message::AppendReply { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::HeartbeatReply { term, .. }
            | Message::PreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::Vote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Snapshot { term, .. } => *term,
        }
    }
}
