//! Requests: one variant per operation.

#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{DecodeError, Reader, put_bytes, put_optional};
use crate::error::{Error, ErrorCode};
use crate::limits::{
    LABEL_BYTES_MAX, Limits, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN, SESSION_WINDOW,
};
use crate::range::KeyRange;
use crate::{frame, kind};

/// Whose write it is. Makes a repeated write take effect once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Origin {
    /// The session; 0 is none, and then a write must not be repeated after an unknown outcome.
    pub session: u64,
    /// The number of the write within its session, from 1; 0 without a session.
    pub sequence: u64,
    /// No sequence below this one will be sent again; the server forgets what it answered to them.
    /// At most `sequence`; 0 without a session.
    pub lowest_unanswered: u64,
}

/// How fresh a read is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Consistency {
    /// Sees every write that was answered before the read was sent.
    #[default]
    Linearizable,
    /// What the answering node has applied, however old; the reply's revision says how old.
    Stale,
}

/// What a key must be for a compare-and-set to change it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Expect {
    /// There is no such key.
    Absent,
    /// It has this value.
    Value(Bytes),
    /// Its last change was at this revision.
    Revision(u64),
}

/// How long an acquire waits for its lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// Not at all.
    Try,
    /// At most this many milliseconds, from the request's arrival; neither 0 nor `u64::MAX`.
    Millis(u64),
    /// As long as the session lives.
    Forever,
}

/// What a client asks for, after the handshake.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// Asks for a [`Response::Pong`](crate::Response::Pong) from whichever node is asked.
    Ping,
    /// Asks for a [`Response::Status`](crate::Response::Status) of whichever node is asked.
    Status,
    /// Sets a key's value.
    Put {
        /// Whose write it is.
        origin: Origin,
        /// The key.
        key: Bytes,
        /// The value; may be empty.
        value: Bytes,
    },
    /// Deletes a key, if it is there.
    Delete {
        /// Whose write it is.
        origin: Origin,
        /// The key.
        key: Bytes,
    },
    /// Deletes all keys of a range, as one change.
    DeleteRange {
        /// Whose write it is.
        origin: Origin,
        /// Which keys.
        range: KeyRange,
    },
    /// Sets or deletes a key if it is as expected.
    CompareAndSet {
        /// Whose write it is.
        origin: Origin,
        /// The key.
        key: Bytes,
        /// What it must be.
        expect: Expect,
        /// The new value; `None` deletes the key. Together with an expected value at most as long
        /// as one value may be.
        value: Option<Bytes>,
    },
    /// Reads a key.
    Get {
        /// How fresh.
        consistency: Consistency,
        /// The key.
        key: Bytes,
    },
    /// Reads the keys of a range in byte order, one page.
    Range {
        /// How fresh.
        consistency: Consistency,
        /// Which keys.
        range: KeyRange,
        /// The most items to answer; 0 leaves it to the page's size in bytes.
        limit: u32,
        /// Leaves the values out (they come as empty).
        keys_only: bool,
    },
    /// Opens a session.
    SessionOpen {
        /// Random, chosen by the client: an open repeated with the same nonce answers the same
        /// session.
        nonce: u128,
        /// How long the session outlives its last keep-alive, in milliseconds.
        ttl_ms: u64,
        /// For people who look at sessions; at most 255 bytes.
        label: Bytes,
    },
    /// Keeps a session alive for its time to live, counted by the client from when it sent this.
    SessionKeepAlive {
        /// Which session.
        session: u64,
    },
    /// Ends a session and releases all its locks. May be repeated.
    SessionClose {
        /// Which session.
        session: u64,
    },
    /// Acquires a lock for the origin's session. Needs a session. The reply may take as long as
    /// `wait`.
    LockAcquire {
        /// Whose lock it will be.
        origin: Origin,
        /// The lock's name.
        name: Bytes,
        /// How long to queue for it.
        wait: Wait,
    },
    /// Releases a lock that the origin's session holds. Needs a session.
    LockRelease {
        /// Whose lock it is.
        origin: Origin,
        /// The lock's name.
        name: Bytes,
        /// The token under which it is held.
        token: u64,
    },
    /// Looks at a lock.
    LockQuery {
        /// How fresh.
        consistency: Consistency,
        /// The lock's name.
        name: Bytes,
    },
}

impl Origin {
    /// No session: at most once, and never repeated after an unknown outcome.
    pub const NONE: Origin = Origin { session: 0, sequence: 0, lowest_unanswered: 0 };

    fn encode_body(self, out: &mut BytesMut) {
        out.put_u64_le(self.session);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.lowest_unanswered);
    }

    fn read(reader: &mut Reader) -> Result<Origin, DecodeError> {
        Ok(Origin {
            session: reader.u64("session")?,
            sequence: reader.u64("sequence")?,
            lowest_unanswered: reader.u64("lowest_unanswered")?,
        })
    }

    fn validate(self) -> Result<(), Error> {
        if self.session == 0 {
            return require(self == Origin::NONE, || {
                "a write without a session has no sequence".to_owned()
            });
        }
        require(self.sequence > 0, || "the sequences of a session start at 1".to_owned())?;
        let Origin { sequence, lowest_unanswered, .. } = self;
        require((1..=sequence).contains(&lowest_unanswered), || {
            format!("the lowest unanswered sequence {lowest_unanswered} is not in 1..={sequence}")
        })?;
        if sequence - lowest_unanswered < SESSION_WINDOW {
            return Ok(());
        }
        let message = format!(
            "sequence {sequence} is {SESSION_WINDOW} or more above the lowest unanswered \
             one, {lowest_unanswered}"
        );
        Err(Error::not_done(ErrorCode::SequenceTooFar, message))
    }
}

impl Request {
    /// Appends a whole frame with this request. The request id must not be 0.
    pub fn encode_into(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(self.kind(), request_id, out, |out| self.encode_body(out));
    }

    /// The type of this request's frame.
    pub fn kind(&self) -> u8 {
        match self {
            Request::Ping => kind::PING,
            Request::Status => kind::STATUS,
            Request::Put { .. } => kind::PUT,
            Request::Delete { .. } => kind::DELETE,
            Request::DeleteRange { .. } => kind::DELETE_RANGE,
            Request::CompareAndSet { .. } => kind::COMPARE_AND_SET,
            Request::Get { .. } => kind::GET,
            Request::Range { .. } => kind::RANGE,
            Request::SessionOpen { .. } => kind::SESSION_OPEN,
            Request::SessionKeepAlive { .. } => kind::SESSION_KEEP_ALIVE,
            Request::SessionClose { .. } => kind::SESSION_CLOSE,
            Request::LockAcquire { .. } => kind::LOCK_ACQUIRE,
            Request::LockRelease { .. } => kind::LOCK_RELEASE,
            Request::LockQuery { .. } => kind::LOCK_QUERY,
        }
    }

    /// The origin of a write or a lock request; `None` for everything else.
    pub fn origin(&self) -> Option<Origin> {
        match self {
            Request::Put { origin, .. }
            | Request::Delete { origin, .. }
            | Request::DeleteRange { origin, .. }
            | Request::CompareAndSet { origin, .. }
            | Request::LockAcquire { origin, .. }
            | Request::LockRelease { origin, .. } => Some(*origin),
            Request::Ping
            | Request::Status
            | Request::Get { .. }
            | Request::Range { .. }
            | Request::SessionOpen { .. }
            | Request::SessionKeepAlive { .. }
            | Request::SessionClose { .. }
            | Request::LockQuery { .. } => None,
        }
    }

    /// The same, to be changed.
    pub fn origin_mut(&mut self) -> Option<&mut Origin> {
        match self {
            Request::Put { origin, .. }
            | Request::Delete { origin, .. }
            | Request::DeleteRange { origin, .. }
            | Request::CompareAndSet { origin, .. }
            | Request::LockAcquire { origin, .. }
            | Request::LockRelease { origin, .. } => Some(origin),
            Request::Ping
            | Request::Status
            | Request::Get { .. }
            | Request::Range { .. }
            | Request::SessionOpen { .. }
            | Request::SessionKeepAlive { .. }
            | Request::SessionClose { .. }
            | Request::LockQuery { .. } => None,
        }
    }

    /// Whether sending it again can do no harm whatever became of it before.
    pub fn is_idempotent(&self) -> bool {
        self.origin().is_none_or(|origin| origin.session != 0)
    }

    /// Checks what the types leave open: lengths against `limits`, the origin, times to live.
    ///
    /// A server does this before it acts, a client before it sends.
    pub fn validate(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(origin) = self.origin() {
            origin.validate()?;
        }
        match self {
            Request::Ping | Request::Status => Ok(()),
            Request::Put { key, value, .. } => {
                check_key(key, limits)?;
                check_value(value.len(), limits)
            }
            Request::Delete { key, .. } | Request::Get { key, .. } => check_key(key, limits),
            Request::DeleteRange { range, .. } => check_range(range, limits.key_bytes_max),
            // The start of a next page is one byte longer than the key before it.
            Request::Range { range, .. } => {
                check_range(range, limits.key_bytes_max.saturating_add(1))
            }
            Request::CompareAndSet { key, expect, value, .. } => {
                check_key(key, limits)?;
                check_value(expect.value_bytes() + value.as_ref().map_or(0, Bytes::len), limits)
            }
            Request::SessionOpen { ttl_ms, label, .. } => check_session(*ttl_ms, label),
            Request::SessionKeepAlive { session } | Request::SessionClose { session } => {
                check_session_id(*session)
            }
            Request::LockAcquire { origin, name, .. }
            | Request::LockRelease { origin, name, .. } => {
                check_session_id(origin.session)?;
                check_key(name, limits)
            }
            Request::LockQuery { name, .. } => check_key(name, limits),
        }
    }

    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Request::Ping | Request::Status => {}
            Request::Put { origin, key, value } => encode_put_body(*origin, key, value, out),
            Request::Delete { origin, key } => {
                origin.encode_body(out);
                put_bytes(out, key);
            }
            Request::DeleteRange { origin, range } => {
                origin.encode_body(out);
                range.encode_body(out);
            }
            Request::CompareAndSet { origin, key, expect, value } => {
                origin.encode_body(out);
                put_bytes(out, key);
                expect.encode_body(out);
                put_optional(out, value.as_ref(), |out, value| put_bytes(out, value));
            }
            Request::Get { consistency, key } => encode_get_body(*consistency, key, out),
            Request::Range { consistency, range, limit, keys_only } => {
                out.put_u8(consistency.to_u8());
                range.encode_body(out);
                out.put_u32_le(*limit);
                out.put_u8(u8::from(*keys_only));
            }
            Request::SessionOpen { nonce, ttl_ms, label } => {
                out.put_u128_le(*nonce);
                out.put_u64_le(*ttl_ms);
                put_bytes(out, label);
            }
            Request::SessionKeepAlive { session } | Request::SessionClose { session } => {
                out.put_u64_le(*session);
            }
            Request::LockAcquire { origin, name, wait } => {
                origin.encode_body(out);
                put_bytes(out, name);
                out.put_u64_le(wait.to_millis());
            }
            Request::LockRelease { origin, name, token } => {
                origin.encode_body(out);
                put_bytes(out, name);
                out.put_u64_le(*token);
            }
            Request::LockQuery { consistency, name } => encode_get_body(*consistency, name, out),
        }
    }

    /// Reads the body of a frame whose type is `kind`. Keys and values are slices of the body.
    pub fn decode(kind: u8, body: Bytes) -> Result<Request, DecodeError> {
        let mut reader = Reader::new(body);
        let request = Request::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(request)
    }

    fn read(kind: u8, reader: &mut Reader) -> Result<Request, DecodeError> {
        match kind {
            kind::PING => Ok(Request::Ping),
            kind::STATUS => Ok(Request::Status),
            kind::PUT => Ok(Request::Put {
                origin: Origin::read(reader)?,
                key: reader.bytes("key")?,
                value: reader.bytes("value")?,
            }),
            kind::DELETE => {
                Ok(Request::Delete { origin: Origin::read(reader)?, key: reader.bytes("key")? })
            }
            kind::DELETE_RANGE => Ok(Request::DeleteRange {
                origin: Origin::read(reader)?,
                range: KeyRange::read(reader)?,
            }),
            kind::COMPARE_AND_SET => Ok(Request::CompareAndSet {
                origin: Origin::read(reader)?,
                key: reader.bytes("key")?,
                expect: Expect::read(reader)?,
                value: reader.optional("value", |reader| reader.bytes("value"))?,
            }),
            kind::GET => Ok(Request::Get {
                consistency: Consistency::read(reader)?,
                key: reader.bytes("key")?,
            }),
            kind::RANGE => Ok(Request::Range {
                consistency: Consistency::read(reader)?,
                range: KeyRange::read(reader)?,
                limit: reader.u32("limit")?,
                keys_only: reader.bool("keys_only")?,
            }),
            kind::SESSION_OPEN
            | kind::SESSION_KEEP_ALIVE
            | kind::SESSION_CLOSE
            | kind::LOCK_ACQUIRE
            | kind::LOCK_RELEASE
            | kind::LOCK_QUERY => Request::read_session_or_lock(kind, reader),
            _ => Err(DecodeError::UnknownKind { kind }),
        }
    }

    fn read_session_or_lock(kind: u8, reader: &mut Reader) -> Result<Request, DecodeError> {
        match kind {
            kind::SESSION_OPEN => Ok(Request::SessionOpen {
                nonce: reader.u128("nonce")?,
                ttl_ms: reader.u64("ttl")?,
                label: reader.bytes("label")?,
            }),
            kind::SESSION_KEEP_ALIVE => {
                Ok(Request::SessionKeepAlive { session: reader.u64("session")? })
            }
            kind::SESSION_CLOSE => Ok(Request::SessionClose { session: reader.u64("session")? }),
            kind::LOCK_ACQUIRE => Ok(Request::LockAcquire {
                origin: Origin::read(reader)?,
                name: reader.bytes("name")?,
                wait: Wait::from_millis(reader.u64("wait")?),
            }),
            kind::LOCK_RELEASE => Ok(Request::LockRelease {
                origin: Origin::read(reader)?,
                name: reader.bytes("name")?,
                token: reader.u64("token")?,
            }),
            kind::LOCK_QUERY => Ok(Request::LockQuery {
                consistency: Consistency::read(reader)?,
                name: reader.bytes("name")?,
            }),
            _ => Err(DecodeError::UnknownKind { kind }),
        }
    }
}

/// Appends a whole frame with a [`Request::Put`] of borrowed bytes, for programs that count every
/// copy.
pub fn encode_put_request(
    request_id: u64,
    origin: Origin,
    key: &[u8],
    value: &[u8],
    out: &mut BytesMut,
) {
    frame::encode(kind::PUT, request_id, out, |out| {
        encode_put_body(origin, key, value, out);
    });
}

/// Appends a whole frame with a [`Request::Get`] of a borrowed key.
pub fn encode_get_request(
    request_id: u64,
    consistency: Consistency,
    key: &[u8],
    out: &mut BytesMut,
) {
    frame::encode(kind::GET, request_id, out, |out| {
        encode_get_body(consistency, key, out);
    });
}

fn encode_put_body(origin: Origin, key: &[u8], value: &[u8], out: &mut BytesMut) {
    origin.encode_body(out);
    put_bytes(out, key);
    put_bytes(out, value);
}

fn encode_get_body(consistency: Consistency, key: &[u8], out: &mut BytesMut) {
    out.put_u8(consistency.to_u8());
    put_bytes(out, key);
}

impl Consistency {
    fn to_u8(self) -> u8 {
        match self {
            Consistency::Linearizable => 0,
            Consistency::Stale => 1,
        }
    }

    fn read(reader: &mut Reader) -> Result<Consistency, DecodeError> {
        match reader.u8("consistency")? {
            0 => Ok(Consistency::Linearizable),
            1 => Ok(Consistency::Stale),
            value => Err(DecodeError::BadField { field: "consistency", value: u64::from(value) }),
        }
    }
}

impl Expect {
    fn value_bytes(&self) -> usize {
        match self {
            Expect::Value(value) => value.len(),
            Expect::Absent | Expect::Revision(_) => 0,
        }
    }

    fn encode_body(&self, out: &mut BytesMut) {
        match self {
            Expect::Absent => out.put_u8(0),
            Expect::Value(value) => {
                out.put_u8(1);
                put_bytes(out, value);
            }
            Expect::Revision(revision) => {
                out.put_u8(2);
                out.put_u64_le(*revision);
            }
        }
    }

    fn read(reader: &mut Reader) -> Result<Expect, DecodeError> {
        match reader.u8("expect")? {
            0 => Ok(Expect::Absent),
            1 => Ok(Expect::Value(reader.bytes("expected value")?)),
            2 => Ok(Expect::Revision(reader.u64("expected revision")?)),
            value => Err(DecodeError::BadField { field: "expect", value: u64::from(value) }),
        }
    }
}

impl Wait {
    /// The wait as milliseconds: 0 is not at all, `u64::MAX` is for ever.
    pub fn to_millis(self) -> u64 {
        match self {
            Wait::Try => 0,
            Wait::Millis(millis) => millis,
            Wait::Forever => u64::MAX,
        }
    }

    /// The wait of so many milliseconds: 0 is not at all, `u64::MAX` is for ever.
    pub fn from_millis(millis: u64) -> Wait {
        match millis {
            0 => Wait::Try,
            u64::MAX => Wait::Forever,
            millis => Wait::Millis(millis),
        }
    }
}

fn require(condition: bool, message: impl FnOnce() -> String) -> Result<(), Error> {
    if condition { Ok(()) } else { Err(Error::not_done(ErrorCode::BadRequest, message())) }
}

fn check_length(what: &str, length: usize, max: u32) -> Result<(), Error> {
    if length <= max as usize {
        return Ok(());
    }
    let message = format!("{what} of {length} bytes exceeds the limit of {max} bytes");
    Err(Error::not_done(ErrorCode::TooLarge, message))
}

fn check_key(key: &[u8], limits: &Limits) -> Result<(), Error> {
    require(!key.is_empty(), || "a key or lock name has at least one byte".to_owned())?;
    check_length("a key or lock name", key.len(), limits.key_bytes_max)
}

fn check_value(bytes: usize, limits: &Limits) -> Result<(), Error> {
    check_length("a value, with the value it is compared to,", bytes, limits.value_bytes_max)
}

fn check_range(range: &KeyRange, bound_bytes_max: u32) -> Result<(), Error> {
    check_length("the start of a range", range.start.len(), bound_bytes_max)?;
    let end_bytes = range.end.as_ref().map_or(0, Bytes::len);
    check_length("the end of a range", end_bytes, bound_bytes_max)
}

fn check_session_id(session: u64) -> Result<(), Error> {
    require(session != 0, || "this request needs a session".to_owned())
}

fn check_session(ttl_ms: u64, label: &[u8]) -> Result<(), Error> {
    require((SESSION_TTL_MS_MIN..=SESSION_TTL_MS_MAX).contains(&ttl_ms), || {
        format!(
            "a session's ttl of {ttl_ms} ms is not in {SESSION_TTL_MS_MIN}..={SESSION_TTL_MS_MAX}"
        )
    })?;
    let label_bytes_max = u32::try_from(LABEL_BYTES_MAX).expect("a label is short");
    check_length("a label", label.len(), label_bytes_max)
}
