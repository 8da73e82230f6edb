//! What a leader knows of one peer, and what it may send to it next.
//!
//! ```text
//!          accepted                    rejected, link lost, window stuck
//! Probe ─────────────▶ Replicate ───────────────────────────────────────▶ Probe
//!   │ ▲                                                                     ▲
//!   │ └─ rejected: lower next_index                                         │
//!   └─ next_index is no longer in the log ─▶ Snapshot ─ failed, link lost ──┘
//!                                               └─ acknowledged up to the log's start ─▶ Replicate
//! ```
//!
//! Invariants: `match_index < next_index`; the window lives in `Replicate` and dies with it, so no
//! exit from that state can leave it behind.

use std::collections::VecDeque;

use crate::inflight::Inflight;
use crate::{Batch, LoadId, LogIndex, NodeId, Round, SendId};

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Progress {
    pub(crate) id: NodeId,
    match_index: LogIndex,
    next_index: LogIndex,
    pub(crate) state: State,
    /// The peer's room for entries, as it said last.
    pub(crate) credit_bytes: u32,
    /// The peer's last index, durable or not, as it said last.
    pub(crate) last_index: LogIndex,
    /// The tick of its newest message.
    pub(crate) heard: u64,
    /// The newest read round it answered.
    pub(crate) round: Round,
    /// The newest commit index it was told.
    pub(crate) commit_sent: LogIndex,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum State {
    /// Looking for the point up to which the logs agree: one empty append at a time.
    Probe {
        /// When the last one was sent.
        asked: Option<u64>,
    },
    /// The logs agree up to `next_index`; entries stream.
    Replicate(Replicate),
    /// The peer needs entries from before the start of the log.
    Snapshot {
        send: SendId,
        /// The last index of the snapshot that was offered.
        offered: Option<LogIndex>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Replicate {
    pub(crate) window: Inflight,
    /// The tick since which the head of the window has not moved.
    pub(crate) waiting_since: u64,
    /// Whether to ask for the acknowledgement again.
    pub(crate) nudge: bool,
    /// The outstanding request for entries that are not in memory.
    pub(crate) load: Option<LoadId>,
    /// Entries read back, next to be sent.
    pub(crate) loaded: VecDeque<Batch>,
}

impl Progress {
    /// A peer of a leader whose log ends at `last`.
    pub(crate) fn new(id: NodeId, last: LogIndex, ticks: u64) -> Progress {
        Progress {
            id,
            match_index: LogIndex(0),
            next_index: last.next(),
            state: State::Probe { asked: None },
            credit_bytes: u32::MAX,
            last_index: LogIndex(0),
            heard: ticks,
            round: Round(0),
            commit_sent: LogIndex(0),
        }
    }

    pub(crate) fn match_index(&self) -> LogIndex {
        self.match_index
    }

    pub(crate) fn next_index(&self) -> LogIndex {
        self.next_index
    }

    /// Entries up to `last` are on their way.
    pub(crate) fn sent(&mut self, last: LogIndex) {
        assert!(last >= self.next_index);
        self.next_index = last.next();
    }

    /// The peer durably holds everything up to `match_index`; returns whether that is news.
    pub(crate) fn acknowledged(&mut self, match_index: LogIndex, ticks: u64) -> bool {
        let news = match_index > self.match_index;
        self.match_index = self.match_index.max(match_index);
        self.next_index = self.next_index.max(self.match_index.next());
        if let State::Replicate(replicate) = &mut self.state {
            if replicate.window.acknowledge(match_index) {
                replicate.waiting_since = ticks;
            }
            replicate.loaded.retain(|batch| batch.last() > match_index);
        }
        news
    }

    /// The peer does not hold what comes before `next_index`; try `next`. Returns whether that is
    /// lower, as each refusal must make it.
    pub(crate) fn back_up(&mut self, next: LogIndex) -> bool {
        let next = next.max(self.match_index.next());
        let lower = next < self.next_index;
        self.next_index = self.next_index.min(next);
        lower
    }

    /// Searches anew from `next`; nothing counts as being on its way. With `asked`, a heartbeat
    /// interval after that tick. Returns the snapshot transfer that ends with this.
    pub(crate) fn become_probe(&mut self, next: LogIndex, asked: Option<u64>) -> Option<SendId> {
        self.next_index = next.max(self.match_index.next());
        match std::mem::replace(&mut self.state, State::Probe { asked }) {
            State::Snapshot { send, .. } => Some(send),
            State::Probe { .. } | State::Replicate(_) => None,
        }
    }

    /// Streams from behind what is acknowledged. Returns the snapshot transfer that ends with this.
    pub(crate) fn become_replicate(&mut self, ticks: u64) -> Option<SendId> {
        self.next_index = self.match_index.next();
        let replicate = Replicate { waiting_since: ticks, ..Replicate::default() };
        match std::mem::replace(&mut self.state, State::Replicate(replicate)) {
            State::Snapshot { send, .. } => Some(send),
            State::Probe { .. } | State::Replicate(_) => None,
        }
    }

    /// Bytes of entries on their way.
    pub(crate) fn inflight_bytes(&self) -> u64 {
        match &self.state {
            State::Replicate(replicate) => replicate.window.bytes(),
            State::Probe { .. } | State::Snapshot { .. } => 0,
        }
    }

    pub(crate) fn assert_invariants(&self) {
        assert!(self.match_index < self.next_index);
    }
}
