//! What a caller gets instead of an answer.

use protocol::{Certainty, ErrorCode};

/// Why a request has no answer. [`Error::certainty`] says whether it may have taken effect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No endpoint was given. The caller's mistake.
    #[error("no endpoints given; name at least one node as host:port")]
    NoEndpoints,
    /// An endpoint is not `host:port`. The caller's mistake.
    #[error("endpoint `{endpoint}` is not host:port")]
    BadEndpoint {
        /// What was given.
        endpoint: String,
    },
    /// The system gave no random number to start from.
    #[error("the system gives no random numbers: {problem}")]
    NoRandomNumber {
        /// What the system said.
        problem: String,
    },
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] protocol::Error),
    /// The deadline passed.
    #[error("no answer in time ({certainty}); last problem: {problem}")]
    Timeout {
        /// Whether the request took effect.
        certainty: Certainty,
        /// What stood in the way last, as far as known.
        problem: String,
    },
    /// The connection broke, or could not be made, and the request is not one to be sent again.
    #[error("{problem} ({certainty})")]
    Disconnected {
        /// Whether the request took effect.
        certainty: Certainty,
        /// Which node, and what happened.
        problem: String,
    },
    /// The session has ended, or must be taken to have ended; its locks are lost.
    #[error("the session is lost: {reason} ({certainty})")]
    SessionLost {
        /// Whether the request took effect.
        certainty: Certainty,
        /// Why the session is lost.
        reason: String,
    },
    /// The server sent something that does not belong here. A fault of the server.
    #[error("the server sent an answer that does not belong to the request: {problem}")]
    UnexpectedReply {
        /// What is wrong with it.
        problem: String,
    },
    /// The client was closed.
    #[error("the client is closed ({certainty})")]
    Closed {
        /// Whether the request took effect.
        certainty: Certainty,
    },
}

impl Error {
    /// Whether the request took effect. A read never does: its errors are always "not done".
    pub fn certainty(&self) -> Certainty {
        match self {
            Error::NoEndpoints | Error::BadEndpoint { .. } | Error::NoRandomNumber { .. } => {
                Certainty::NotDone
            }
            Error::Refused(error) => error.certainty,
            Error::Timeout { certainty, .. }
            | Error::Disconnected { certainty, .. }
            | Error::SessionLost { certainty, .. }
            | Error::Closed { certainty } => *certainty,
            Error::UnexpectedReply { .. } => Certainty::Unknown,
        }
    }

    /// The protocol's code for it: stable, fit for scripts and counters.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::NoEndpoints | Error::BadEndpoint { .. } => ErrorCode::BadRequest,
            Error::Refused(error) => error.code,
            Error::Timeout { .. } => ErrorCode::Timeout,
            Error::Disconnected { .. } => ErrorCode::Unavailable,
            Error::SessionLost { .. } => ErrorCode::SessionExpired,
            Error::UnexpectedReply { .. } | Error::NoRandomNumber { .. } => ErrorCode::Internal,
            Error::Closed { .. } => ErrorCode::ShuttingDown,
        }
    }
}
