//! Checkers of histories, one per property. None of them knows how the cluster works: what clients asked and
//! what they were told is all they see.

pub mod linearizable;
pub mod lock;

mod revision;
mod wgl;

/// What a checker says of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The history keeps the promise.
    Ok,
    /// The history breaks the promise.
    Illegal {
        /// The key, or the name of the lock.
        key: String,
        /// What cannot be, with the operations that show it.
        explanation: String,
    },
    /// Nothing was shown: too few operations, no final read, or the search was given up. Callers take it for a
    /// failure (pitfall rule P55).
    Unknown {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Whether the history was shown to keep the promise.
    pub fn is_ok(&self) -> bool {
        matches!(self, Verdict::Ok)
    }

    /// Requires: the history was shown to keep the promise. Panics with the explanation otherwise; for tests.
    #[track_caller]
    pub fn expect_ok(&self) {
        match self {
            Verdict::Ok => {}
            Verdict::Illegal { key, explanation } => {
                panic!("illegal history of {key:?}: {explanation}")
            }
            Verdict::Unknown { reason } => panic!("nothing shown: {reason}"),
        }
    }
}
