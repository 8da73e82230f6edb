//! What became of a command.

/// One outcome, addressed to whoever waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The session of the command's origin, or 0.
    pub session: u64,
    /// The sequence of the command's origin.
    pub sequence: u64,
    /// The number of the command within its entry, from 0; [`RESOLVED`] when this answers an
    /// acquire that was queued by an earlier command.
    pub position: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// The [`Applied::position`] of a queued acquire's late outcome, which is named by its session and
/// sequence alone.
pub const RESOLVED: u32 = u32::MAX;

/// What a command did, or why it did nothing.
///
/// A `revision` is the store's after the command, whether or not the command raised it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The key was set.
    Put {
        /// The revision of this change.
        revision: u64,
    },
    /// The keys that were there are gone.
    Deleted {
        /// The store's revision.
        revision: u64,
        /// How many keys were removed.
        deleted: u64,
    },
    /// The condition was looked at, and the key changed if it held.
    CompareAndSet {
        /// The store's revision.
        revision: u64,
        /// Whether the condition held.
        swapped: bool,
        /// When the key was last changed, as the command leaves it; 0 when it does not exist.
        mod_revision: u64,
    },
    /// The session lives.
    SessionOpened {
        /// Its number, never used again.
        session: u64,
        /// Its generation: raised when an open is retried, so that an expiry proposed before that
        /// does nothing.
        generation: u64,
        /// Its time to live, in milliseconds.
        ttl_ms: u64,
    },
    /// The session does not exist any more (answer to a close or an expiry).
    SessionClosed {
        /// The session that was named.
        session: u64,
        /// Whether this command ended it.
        existed: bool,
    },
    /// The lock is held by the sender's claim.
    Granted {
        /// The fencing token of this grant: greater than every token granted before it, by any
        /// lock.
        token: u64,
    },
    /// The lock was taken and the acquire does not wait, or not any longer.
    NotAcquired,
    /// The acquire stands in the queue; its outcome follows with position [`RESOLVED`].
    Queued,
    /// The lock was given back.
    Released,
    /// The session does not hold the lock under that token.
    NotHolder,
    /// The queued acquire was withdrawn, or was not in the queue any more (answer to a cancel).
    Cancelled {
        /// Whether this command withdrew it.
        existed: bool,
    },
    /// There is no such session, or it has ended; the command was not executed.
    SessionUnknown,
    /// The session ended while this acquire was queued.
    SessionEnded,
    /// The sequence lies below the client's own lowest unanswered one; whether the command was
    /// executed is no longer known.
    SequenceStale,
    /// The sequence lies [`SESSION_WINDOW`](super::SESSION_WINDOW) or more above the lowest
    /// unanswered one; the command was not executed.
    SequenceTooFar,
}

impl Outcome {
    /// The outcome as a session's window stores it: a tag and two numbers. `None` for outcomes of
    /// commands that were not executed, and of those that need no window.
    pub(super) fn to_words(self) -> Option<[u64; 3]> {
        match self {
            Outcome::Put { revision } => Some([1, revision, 0]),
            Outcome::Deleted { revision, deleted } => Some([2, revision, deleted]),
            Outcome::CompareAndSet { revision, swapped: false, mod_revision } => {
                Some([3, revision, mod_revision])
            }
            Outcome::CompareAndSet { revision, swapped: true, mod_revision } => {
                Some([4, revision, mod_revision])
            }
            Outcome::Granted { token } => Some([5, token, 0]),
            Outcome::NotAcquired => Some([6, 0, 0]),
            Outcome::Queued => Some([7, 0, 0]),
            Outcome::Released => Some([8, 0, 0]),
            Outcome::NotHolder => Some([9, 0, 0]),
            Outcome::SessionOpened { .. }
            | Outcome::SessionClosed { .. }
            | Outcome::Cancelled { .. }
            | Outcome::SessionUnknown
            | Outcome::SessionEnded
            | Outcome::SequenceStale
            | Outcome::SequenceTooFar => None,
        }
    }

    /// The inverse of [`Outcome::to_words`]; `None` for words that it never makes.
    pub(super) fn from_words(words: [u64; 3]) -> Option<Outcome> {
        let [tag, first, second] = words;
        let outcome = match tag {
            1 => Outcome::Put { revision: first },
            2 => Outcome::Deleted { revision: first, deleted: second },
            3 | 4 => {
                Outcome::CompareAndSet { revision: first, swapped: tag == 4, mod_revision: second }
            }
            5 => Outcome::Granted { token: first },
            6 => Outcome::NotAcquired,
            7 => Outcome::Queued,
            8 => Outcome::Released,
            9 => Outcome::NotHolder,
            _ => return None,
        };
        (outcome.to_words() == Some(words)).then_some(outcome)
    }
}
