//! How a command ends.

use std::fmt;
use std::process::ExitCode;

use client::Error;
use protocol::{Certainty, ErrorCode};

/// The exit codes that scripts rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0: it is done.
    Done,
    /// 1: it failed.
    Failed,
    /// 2: it was not asked for in a way that can be understood.
    Usage,
    /// 3: there is no such thing.
    NotFound,
    /// 4: the condition was false, or the lock was taken.
    ConditionFalse,
    /// 5: the cluster cannot be reached, has no leader, or did not answer in time.
    Unavailable,
    /// Whatever the command that ran under a lock said.
    Of(u8),
}

impl Exit {
    /// The code that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::ConditionFalse => 4,
            Exit::Unavailable => 5,
            Exit::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command was not done, for the person who gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None }
    }

    /// Bad usage.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// It failed.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| writeln!(f, "hint: {hint}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(exit_of(&error), error.to_string());
        match hint_of(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn exit_of(error: &Error) -> Exit {
    if matches!(error, Error::NoEndpoints | Error::BadEndpoint { .. }) {
        return Exit::Usage;
    }
    let unavailable = matches!(
        error.code(),
        ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::Timeout
            | ErrorCode::LeadershipLost
            | ErrorCode::ShuttingDown
            | ErrorCode::TooManyRequests
            | ErrorCode::SessionUnknown
            | ErrorCode::SessionExpired
    );
    if unavailable { Exit::Unavailable } else { Exit::Failed }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "about most codes, present or future, there is nothing to do that the message does not say"
)]
fn hint_of(error: &Error) -> Option<&'static str> {
    if error.certainty() == Certainty::Unknown {
        return Some("it may have been done: look at the key before you do it again");
    }
    match error.code() {
        ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::NotLeader => Some(
            "`holdfast status` shows which nodes answer; a majority of the cluster has to; \
             --endpoints or HOLDFAST_ENDPOINTS says where it is",
        ),
        ErrorCode::UnsupportedVersion | ErrorCode::BadFrame => {
            Some("is that the port for clients, and is it a holdfast node of this release")
        }
        ErrorCode::TooLarge => Some("the limits of a node are set with `serve --value-bytes-max`"),
        ErrorCode::ResourceExhausted => Some("free disk space on the nodes; deletes still work"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(certainty: Certainty) -> Failure {
        Failure::from(Error::Timeout { certainty, problem: "nobody answers".to_owned() })
    }

    #[test]
    fn what_is_unavailable_ends_with_5_and_points_to_status() {
        let failure = timeout(Certainty::NotDone);
        assert_eq!(failure.exit.code(), 5);
        let text = failure.to_string();
        assert!(text.starts_with("error: no answer in time"), "{text}");
        assert!(text.contains("\nhint: `holdfast status`"), "{text}");
    }

    #[test]
    fn unknown_outcome_says_that_it_may_have_been_done() {
        assert!(timeout(Certainty::Unknown).to_string().contains("hint: it may have been done"));
    }

    #[test]
    fn refusals_that_no_retry_cures_end_with_1() {
        let refused = protocol::Error::not_done(ErrorCode::TooLarge, "value of 9 B, at most 8 B");
        assert_eq!(Failure::from(Error::Refused(refused)).exit, Exit::Failed);
    }

    #[test]
    fn bad_endpoint_is_bad_usage() {
        let error = Error::BadEndpoint { endpoint: "here".to_owned() };
        assert_eq!(Failure::from(error).exit, Exit::Usage);
    }
}
