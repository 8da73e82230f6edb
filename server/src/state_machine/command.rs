//! What clients and the driver may ask of the state, and the limits a request must keep.

use bytes::Bytes;

/// The longest key and the longest lock name or session label, in bytes.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The longest value, in bytes. Servers may be configured to accept less.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// The shortest time to live of a session, in milliseconds; a shorter wish is raised to it.
pub const SESSION_TTL_MS_MIN: u64 = 1_000;
/// The longest time to live of a session, in milliseconds; a longer wish is lowered to it.
pub const SESSION_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How many sequences, from the lowest unanswered one on, a session may use.
pub const SESSION_WINDOW: u64 = 1_024;

/// Who sent a command, and which of the sender's requests it is.
///
/// A command with a session is executed at most once: its retry, under the same sequence, answers
/// what the first execution answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The session, or 0 for none: then the sequence is only repeated in the answer.
    pub session: u64,
    /// The number of the request within its session, from 1.
    pub sequence: u64,
    /// The lowest sequence whose answer the client has not seen, at most `sequence`. The state
    /// forgets answers below it and withdraws the client's queued acquires below it.
    pub lowest_unanswered: u64,
}

impl Origin {
    /// No session: not protected against being executed twice, therefore never retried.
    pub const NONE: Origin = Origin { session: 0, sequence: 0, lowest_unanswered: 0 };
}

/// What a compare-and-set demands of the key before it changes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and holds exactly these bytes.
    Value(Bytes),
    /// The key was last changed at this revision; 0 means that it does not exist.
    Revision(u64),
}

/// What an acquire does when the lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// It answers [`NotAcquired`](super::Outcome::NotAcquired) at once.
    Try,
    /// It stands in the queue until it is granted, cancelled or its session ends.
    Queue,
}

/// One request, as its connection makes it of what a client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Sets a key.
    Put {
        /// The key, 1 to [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// Its new value, at most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key, 1 to [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
    },
    /// Removes every key of a range.
    DeleteRange {
        /// The first key of the range; empty for the first of all.
        start: Bytes,
        /// The key that ends the range and is not in it; `None` for no end.
        end: Option<Bytes>,
    },
    /// Changes a key if it is what the sender expects.
    CompareAndSet {
        /// The key, 1 to [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// The condition.
        expect: Expect,
        /// The new value, or `None` to remove the key.
        value: Option<Bytes>,
    },
    /// Opens a session, or finds the living one that an earlier try with the same nonce opened.
    SessionOpen {
        /// The wished time to live in milliseconds; the answer names the one in force.
        ttl_ms: u64,
        /// A random number that the client draws for this session and repeats when it retries.
        nonce: u128,
        /// A name for people, at most [`KEY_BYTES_MAX`] bytes, may be empty.
        label: Bytes,
    },
    /// Ends a session by its owner's wish.
    SessionClose {
        /// The session.
        session: u64,
    },
    /// Ends a session whose deadline passed. Only a leader's driver sends it.
    SessionExpire {
        /// The session.
        session: u64,
        /// The generation whose deadline passed; with any other the command does nothing.
        generation: u64,
    },
    /// Asks for a lock. It makes one claim, named by its session and sequence; two claims exclude
    /// each other even when they are of one session.
    LockAcquire {
        /// The lock's name, 1 to [`KEY_BYTES_MAX`] bytes.
        name: Bytes,
        /// What to do when the lock is taken.
        wait: Wait,
    },
    /// Gives a lock back.
    LockRelease {
        /// The lock's name, 1 to [`KEY_BYTES_MAX`] bytes.
        name: Bytes,
        /// The fencing token under which the sender's session holds it.
        token: u64,
    },
    /// Takes a queued acquire out of its queue. Only a leader's driver sends it.
    LockCancel {
        /// The lock's name, 1 to [`KEY_BYTES_MAX`] bytes.
        name: Bytes,
        /// The waiting session.
        session: u64,
        /// The sequence of the acquire.
        sequence: u64,
    },
}

/// [`Expect`], borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Expect`")]
pub enum ExpectRef<'a> {
    Absent,
    Value(&'a [u8]),
    Revision(u64),
}

/// [`Command`], borrowed: what an entry's bytes decode to without a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the variants and fields are those of `Command`")]
pub enum CommandRef<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    DeleteRange { start: &'a [u8], end: Option<&'a [u8]> },
    CompareAndSet { key: &'a [u8], expect: ExpectRef<'a>, value: Option<&'a [u8]> },
    SessionOpen { ttl_ms: u64, nonce: u128, label: &'a [u8] },
    SessionClose { session: u64 },
    SessionExpire { session: u64, generation: u64 },
    LockAcquire { name: &'a [u8], wait: Wait },
    LockRelease { name: &'a [u8], token: u64 },
    LockCancel { name: &'a [u8], session: u64, sequence: u64 },
}

/// A command that breaks a limit. The sender's mistake: nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// A key or a lock name of no bytes.
    #[error("the {what} is empty; give it at least one byte")]
    Empty {
        /// Which part of the command.
        what: &'static str,
    },
    /// A part that exceeds its limit.
    #[error("the {what} has {bytes} bytes, more than the limit of {max}")]
    TooLong {
        /// Which part of the command.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A lock command outside any session.
    #[error("locks are held by sessions; open one and send the command with it")]
    SessionRequired,
}

impl Command {
    /// The command, borrowed.
    pub fn to_ref(&self) -> CommandRef<'_> {
        match self {
            Command::Put { key, value } => CommandRef::Put { key, value },
            Command::Delete { key } => CommandRef::Delete { key },
            Command::DeleteRange { start, end } => {
                CommandRef::DeleteRange { start, end: end.as_deref() }
            }
            Command::CompareAndSet { key, expect, value } => {
                let expect = match expect {
                    Expect::Absent => ExpectRef::Absent,
                    Expect::Value(bytes) => ExpectRef::Value(bytes),
                    Expect::Revision(revision) => ExpectRef::Revision(*revision),
                };
                CommandRef::CompareAndSet { key, expect, value: value.as_deref() }
            }
            Command::SessionOpen { ttl_ms, nonce, label } => {
                CommandRef::SessionOpen { ttl_ms: *ttl_ms, nonce: *nonce, label }
            }
            Command::SessionClose { session } => CommandRef::SessionClose { session: *session },
            Command::SessionExpire { session, generation } => {
                CommandRef::SessionExpire { session: *session, generation: *generation }
            }
            Command::LockAcquire { name, wait } => CommandRef::LockAcquire { name, wait: *wait },
            Command::LockRelease { name, token } => CommandRef::LockRelease { name, token: *token },
            Command::LockCancel { name, session, sequence } => {
                CommandRef::LockCancel { name, session: *session, sequence: *sequence }
            }
        }
    }

    /// Checks the limits. To be called on every client's command before it is encoded: a command
    /// that breaks one would make its whole entry invalid.
    pub fn check(&self, origin: Origin) -> Result<(), CommandError> {
        self.to_ref().check(origin)
    }
}

impl CommandRef<'_> {
    /// See [`Command::check`].
    pub fn check(&self, origin: Origin) -> Result<(), CommandError> {
        match *self {
            CommandRef::Put { key, value } => {
                check_name("key", key)?;
                at_most("value", value, VALUE_BYTES_MAX)
            }
            CommandRef::Delete { key } => check_name("key", key),
            CommandRef::DeleteRange { start, end } => {
                at_most("start of the range", start, KEY_BYTES_MAX)?;
                at_most("end of the range", end.unwrap_or_default(), KEY_BYTES_MAX)
            }
            CommandRef::CompareAndSet { key, expect, value } => {
                check_name("key", key)?;
                if let ExpectRef::Value(expected) = expect {
                    at_most("expected value", expected, VALUE_BYTES_MAX)?;
                }
                at_most("value", value.unwrap_or_default(), VALUE_BYTES_MAX)
            }
            CommandRef::SessionOpen { label, .. } => at_most("label", label, KEY_BYTES_MAX),
            CommandRef::SessionClose { .. } | CommandRef::SessionExpire { .. } => Ok(()),
            CommandRef::LockAcquire { name, .. } | CommandRef::LockRelease { name, .. } => {
                if origin.session == 0 {
                    return Err(CommandError::SessionRequired);
                }
                check_name("lock name", name)
            }
            CommandRef::LockCancel { name, .. } => check_name("lock name", name),
        }
    }
}

fn check_name(what: &'static str, name: &[u8]) -> Result<(), CommandError> {
    if name.is_empty() {
        return Err(CommandError::Empty { what });
    }
    at_most(what, name, KEY_BYTES_MAX)
}

fn at_most(what: &'static str, part: &[u8], max: usize) -> Result<(), CommandError> {
    if part.len() > max {
        return Err(CommandError::TooLong { what, bytes: part.len(), max });
    }
    Ok(())
}
