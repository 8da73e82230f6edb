//! Deliberate bugs, each a line somewhere in the core, that the tests must catch.
//!
//! Without the feature `mutants` every question is answered `false` at compile time.

/// One deliberate bug.
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "only the feature makes it part of the interface")
)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Mutant {
    /// A truncation leaves the marks of writes in flight where they were.
    NoClampOnTruncate,
    /// An append is acknowledged although the term it was accepted in is not durable.
    AckWithoutDurableTerm,
    /// An append is acknowledged although its entries are not durable.
    AckWithoutDurableEntries,
    /// A vote is requested although the candidate's own is not durable.
    VoteRequestAtOnce,
    /// A vote is granted although it is not durable.
    VoteGrantAtOnce,
    /// A leader counts its last index instead of its durable one.
    LeaderCountsLastIndex,
    /// A leader commits an entry of an earlier term by counting.
    CommitsPriorTerm,
    /// A follower commits whatever it holds, matched or not.
    CommitsBeyondMatched,
    /// An append without entries cuts what lies behind its `prev`.
    EmptyAppendTruncates,
    /// An append whose entries are all there cuts what lies behind them.
    DuplicateAppendTruncates,
    /// A second candidate gets a vote in the same term.
    VotesTwice,
    /// A vote is granted to a candidate with an older log.
    VotesForOldLog,
    /// Votes are considered although a leader is alive.
    NoStickiness,
    /// A leader without a quorum goes on.
    NoCheckQuorum,
    /// A leader whose disk hangs goes on.
    NoStallStepDown,
    /// A read is served before an entry of the leader's own term has committed.
    ReadBeforeNoop,
    /// A read is served without asking the others.
    ReadWithoutRound,
    /// Losing a connection does not empty the window.
    WindowKeptOnPeerLost,
    /// An installed snapshot leaves entries behind it that contradict it.
    InstallKeepsConflictingTail,
    /// An answer to a request for entries of an earlier connection is used.
    StaleLoadAccepted,
}

impl Mutant {
    /// Every mutant.
    #[cfg(feature = "mutants")]
    pub const ALL: [Mutant; 20] = [
        Mutant::NoClampOnTruncate,
        Mutant::AckWithoutDurableTerm,
        Mutant::AckWithoutDurableEntries,
        Mutant::VoteRequestAtOnce,
        Mutant::VoteGrantAtOnce,
        Mutant::LeaderCountsLastIndex,
        Mutant::CommitsPriorTerm,
        Mutant::CommitsBeyondMatched,
        Mutant::EmptyAppendTruncates,
        Mutant::DuplicateAppendTruncates,
        Mutant::VotesTwice,
        Mutant::VotesForOldLog,
        Mutant::NoStickiness,
        Mutant::NoCheckQuorum,
        Mutant::NoStallStepDown,
        Mutant::ReadBeforeNoop,
        Mutant::ReadWithoutRound,
        Mutant::WindowKeptOnPeerLost,
        Mutant::InstallKeepsConflictingTail,
        Mutant::StaleLoadAccepted,
    ];
}
