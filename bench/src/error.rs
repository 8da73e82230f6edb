//! What ends a run.

use std::io;
use std::path::PathBuf;

/// Why a run could not be made, or its figures not be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options do not make sense together. The caller's mistake.
    #[error("{0}")]
    Usage(String),
    /// No leader could be reached at the start.
    #[error("no leader can be reached at {endpoints}: {problem}; is the cluster up?")]
    Unreachable {
        /// The endpoints, separated by commas.
        endpoints: String,
        /// The last problem.
        problem: String,
    },
    /// The keys could not be written or read back before or after the run.
    #[error("{what} made no progress for {seconds} s; last error: {problem}")]
    Stuck {
        /// What was to be done.
        what: &'static str,
        /// For how long nothing had been done, in seconds.
        seconds: u64,
        /// The last problem.
        problem: String,
    },
    /// No operation was done.
    #[error("no operation was done in the time that counts; errors: {errors}")]
    NothingDone {
        /// The errors by code.
        errors: String,
    },
    /// The history could not be written or read.
    #[error("history {path}: {source}", path = path.display())]
    History {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The history is not one.
    #[error("{path}: {source}", path = path.display())]
    BadHistory {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: tests::history::HistoryError,
    },
    /// The report could not be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
    /// The runtime could not be started.
    #[error("the runtime cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// What the program exits with: 2 for options that make no sense, else 1.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Usage(_)) { 2 } else { 1 }
    }
}

/// Why one operation has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error's code: the server's, or `disconnected` or `no_answer`.
    pub code: String,
    /// Whether it may have been done.
    pub is_unknown: bool,
    /// The error's message.
    pub message: String,
}

impl Failure {
    /// The connection broke, or was given up, while the answer was awaited.
    pub fn lost(code: &str, message: &str) -> Failure {
        Failure { code: code.to_owned(), is_unknown: true, message: message.to_owned() }
    }

    /// The server's refusal.
    pub fn refused(error: &protocol::Error) -> Failure {
        Failure {
            code: error.code.to_string(),
            is_unknown: error.certainty != protocol::Certainty::NotDone,
            message: error.message.clone(),
        }
    }

    /// An answer that does not belong to the request.
    pub fn unexpected(response: &protocol::Response) -> Failure {
        Failure {
            code: "unexpected_reply".to_owned(),
            is_unknown: true,
            message: format!("{response:?}"),
        }
    }
}
