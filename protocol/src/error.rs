//! What a server answers when it does not do what was asked.

#![deny(clippy::indexing_slicing)]

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{DecodeError, Reader, put_bytes, put_optional};
use crate::frame::{self, FrameError};
use crate::kind;

/// Whether the request took effect. Decides what may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Certainty {
    /// It certainly did not take effect and never will: it may be sent again.
    NotDone,
    /// It certainly took effect: it must not be sent again.
    Done,
    /// It may have taken effect, or may do so later: only the same (session, sequence) may be sent
    /// again.
    Unknown,
}

/// What went wrong. The numbers are stable; `docs/protocol.md` has the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The bytes are not a frame; the server closes the connection.
    BadFrame,
    /// The frame's body is not a valid message, or a message that is not allowed here.
    BadRequest,
    /// No protocol version is common to client and server.
    UnsupportedVersion,
    /// The client wants another cluster than this one.
    WrongCluster,
    /// A key, value, name or label of a session is longer than the server takes.
    TooLarge,
    /// The server is not the leader; the error names the leader if it is known.
    NotLeader,
    /// There is no leader, or it has lost its quorum.
    Unavailable,
    /// The server gave up waiting.
    Timeout,
    /// The server lost its leadership while the request was under way.
    LeadershipLost,
    /// The server is shutting down.
    ShuttingDown,
    /// The connection or the server has too many requests or bytes in flight.
    TooManyRequests,
    /// There is no room to store the write.
    ResourceExhausted,
    /// There is no such session: it ended, or never was.
    SessionUnknown,
    /// The session ended while the request waited.
    SessionExpired,
    /// The sequence lies below the lowest unanswered one that the session has stated.
    SequenceStale,
    /// The sequence lies beyond the session's window.
    SequenceTooFar,
    /// The session does not hold the lock under this token.
    NotHolder,
    /// The server found itself in a state that it does not understand.
    Internal,
    /// Stored bytes are damaged.
    Corrupt,
    /// A code that this version does not know.
    Other(u16),
}

/// The leader as far as the answering node knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LeaderHint {
    /// Its id.
    pub node: u64,
    /// The address that it advertises to clients, `host:port`.
    pub addr: String,
}

/// A request's failure.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} ({code}, {certainty})")]
pub struct Error {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// Whether the request took effect.
    pub certainty: Certainty,
    /// What went wrong, for people.
    pub message: String,
    /// Who leads, if it is another node and known.
    pub leader: Option<LeaderHint>,
    /// When to try again, in milliseconds from now, if the server can tell.
    pub retry_after_ms: Option<u32>,
}

impl Error {
    /// An error with the given code, certainty and message, and nothing else.
    pub fn new(code: ErrorCode, certainty: Certainty, message: impl Into<String>) -> Error {
        Error { code, certainty, message: message.into(), leader: None, retry_after_ms: None }
    }

    /// An error about a request that certainly was not and will not be done.
    pub fn not_done(code: ErrorCode, message: impl Into<String>) -> Error {
        Error::new(code, Certainty::NotDone, message)
    }

    /// An error about a request that may have been done.
    pub fn unknown(code: ErrorCode, message: impl Into<String>) -> Error {
        Error::new(code, Certainty::Unknown, message)
    }

    /// "Not leader", with the leader if it is known. The request was not done.
    pub fn not_leader(leader: Option<LeaderHint>) -> Error {
        let message = match &leader {
            Some(leader) => format!("node {} at {} leads", leader.node, leader.addr),
            None => "this node does not lead, and knows no leader".to_owned(),
        };
        Error { leader, ..Error::not_done(ErrorCode::NotLeader, message) }
    }

    /// The same error with a time to wait before the next attempt, in milliseconds.
    #[must_use]
    pub fn with_retry_after_ms(self, retry_after_ms: u32) -> Error {
        Error { retry_after_ms: Some(retry_after_ms), ..self }
    }

    /// Appends a whole frame with this error.
    pub fn encode_into(&self, request_id: u64, out: &mut BytesMut) {
        frame::encode(kind::ERROR, request_id, out, |out| self.encode_body(out));
    }

    pub(crate) fn encode_body(&self, out: &mut BytesMut) {
        out.put_u16_le(self.code.to_u16());
        out.put_u8(self.certainty.to_u8());
        put_bytes(out, self.message.as_bytes());
        put_optional(out, self.leader.as_ref(), |out, leader| {
            leader.encode_body(out);
        });
        put_optional(out, self.retry_after_ms, BufMut::put_u32_le);
    }

    /// Reads an error's body.
    pub(crate) fn decode(body: Bytes) -> Result<Error, DecodeError> {
        let mut reader = Reader::new(body);
        let error = Error {
            code: ErrorCode::from_u16(reader.u16("code")?),
            certainty: Certainty::from_u8(reader.u8("certainty")?)?,
            message: reader.text("message")?,
            leader: reader.optional("leader", LeaderHint::read)?,
            retry_after_ms: reader.optional("retry_after", |reader| reader.u32("retry_after"))?,
        };
        reader.finish()?;
        Ok(error)
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Error {
        Error::not_done(ErrorCode::BadRequest, error.to_string())
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Error {
        Error::not_done(ErrorCode::BadFrame, error.to_string())
    }
}

impl LeaderHint {
    pub(crate) fn encode_body(&self, out: &mut BytesMut) {
        out.put_u64_le(self.node);
        put_bytes(out, self.addr.as_bytes());
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<LeaderHint, DecodeError> {
        Ok(LeaderHint { node: reader.u64("leader node")?, addr: reader.text("leader address")? })
    }
}

impl Certainty {
    fn to_u8(self) -> u8 {
        match self {
            Certainty::NotDone => 0,
            Certainty::Done => 1,
            Certainty::Unknown => 2,
        }
    }

    fn from_u8(value: u8) -> Result<Certainty, DecodeError> {
        match value {
            0 => Ok(Certainty::NotDone),
            1 => Ok(Certainty::Done),
            2 => Ok(Certainty::Unknown),
            _ => Err(DecodeError::BadField { field: "certainty", value: u64::from(value) }),
        }
    }
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Certainty::NotDone => "certainly not done",
            Certainty::Done => "certainly done",
            Certainty::Unknown => "may or may not be done",
        })
    }
}

/// Every known code with its number and its name.
const CODES: [(ErrorCode, u16, &str); 19] = [
    (ErrorCode::BadFrame, 100, "bad_frame"),
    (ErrorCode::BadRequest, 101, "bad_request"),
    (ErrorCode::UnsupportedVersion, 102, "unsupported_version"),
    (ErrorCode::WrongCluster, 103, "wrong_cluster"),
    (ErrorCode::TooLarge, 104, "too_large"),
    (ErrorCode::NotLeader, 200, "not_leader"),
    (ErrorCode::Unavailable, 201, "unavailable"),
    (ErrorCode::Timeout, 202, "timeout"),
    (ErrorCode::LeadershipLost, 203, "leadership_lost"),
    (ErrorCode::ShuttingDown, 204, "shutting_down"),
    (ErrorCode::TooManyRequests, 205, "too_many_requests"),
    (ErrorCode::ResourceExhausted, 206, "resource_exhausted"),
    (ErrorCode::SessionUnknown, 300, "session_unknown"),
    (ErrorCode::SessionExpired, 301, "session_expired"),
    (ErrorCode::SequenceStale, 302, "sequence_stale"),
    (ErrorCode::SequenceTooFar, 303, "sequence_too_far"),
    (ErrorCode::NotHolder, 304, "not_holder"),
    (ErrorCode::Internal, 500, "internal"),
    (ErrorCode::Corrupt, 501, "corrupt"),
];

impl ErrorCode {
    /// Every code that this version knows, by number.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        CODES.iter().map(|(code, _, _)| *code)
    }

    /// The number on the wire.
    pub fn to_u16(self) -> u16 {
        if let ErrorCode::Other(number) = self {
            return number;
        }
        let known = CODES.iter().find(|(code, _, _)| *code == self);
        known.map_or(0, |(_, number, _)| *number)
    }

    /// The code of a number on the wire.
    pub fn from_u16(number: u16) -> ErrorCode {
        let known = CODES.iter().find(|(_, known, _)| *known == number);
        known.map_or(ErrorCode::Other(number), |(code, _, _)| *code)
    }

    /// The name, stable and fit for scripts; `other` for a code that this version does not know.
    pub fn name(self) -> &'static str {
        let known = CODES.iter().find(|(code, _, _)| *code == self);
        known.map_or("other", |(_, _, name)| name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ErrorCode::Other(number) = self {
            return write!(f, "code_{number}");
        }
        f.write_str(self.name())
    }
}
