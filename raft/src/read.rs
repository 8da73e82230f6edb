//! Linearizable reads by rounds (thesis, section 6.4).
//!
//! Reads that arrive between two `Ready`s share one round: one heartbeat per peer confirms them
//! all. Rounds are numbered by the node, strictly rising over all its terms, and an answer echoes
//! (term, round), so an answer to anything earlier can confirm nothing.
//!
//! Invariants: every token leaves exactly once; rounds rise along the queue; no round begins
//! before an entry of the leader's own term has committed.

use std::collections::VecDeque;

use crate::{LogIndex, ReadError, ReadReady, ReadToken, Round};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ReadRound {
    round: Round,
    /// The commit index when it began.
    index: LogIndex,
    tokens: Vec<ReadToken>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<ReadToken>,
    rounds: VecDeque<ReadRound>,
}

impl Reads {
    /// How many reads have not been answered.
    pub(crate) fn count(&self) -> usize {
        let confirming: usize = self.rounds.iter().map(|round| round.tokens.len()).sum();
        self.waiting.len() + confirming
    }

    pub(crate) fn push(&mut self, token: ReadToken) {
        self.waiting.push(token);
    }

    pub(crate) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Everything that waits is answered by `round`, with `index`.
    pub(crate) fn begin(&mut self, round: Round, index: LogIndex) {
        assert!(self.rounds.back().is_none_or(|newest| newest.round < round));
        let tokens = std::mem::take(&mut self.waiting);
        self.rounds.push_back(ReadRound { round, index, tokens });
    }

    /// A quorum has answered `upto`: it had no newer leader when that round began.
    pub(crate) fn complete(&mut self, upto: Round, out: &mut Vec<ReadReady>) {
        while let Some(round) = self.rounds.pop_front_if(|round| round.round <= upto) {
            let outcome = Ok(round.index);
            out.extend(round.tokens.into_iter().map(|token| ReadReady { token, outcome }));
        }
    }

    /// Nobody will answer these any more.
    pub(crate) fn fail(self, error: ReadError, out: &mut Vec<ReadReady>) {
        let confirming = self.rounds.into_iter().flat_map(|round| round.tokens);
        let failed = confirming.chain(self.waiting);
        out.extend(failed.map(|token| ReadReady { token, outcome: Err(error) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_completes_every_round_up_to_it_and_no_later_one() {
        let mut reads = Reads::default();
        let mut out = Vec::new();
        for (token, round) in [(1, 4), (2, 7), (3, 8)] {
            reads.push(ReadToken(token));
            reads.begin(Round(round), LogIndex(10 + token));
        }
        reads.complete(Round(7), &mut out);
        let answered: Vec<u64> = out.iter().map(|read| read.token.0).collect();
        assert_eq!(answered, [1, 2]);
        assert_eq!(out[1].outcome, Ok(LogIndex(12)));
        assert_eq!(reads.count(), 1);
    }

    #[test]
    fn failing_answers_waiting_and_confirming_reads_once_each() {
        let mut reads = Reads::default();
        let mut out = Vec::new();
        reads.push(ReadToken(1));
        reads.begin(Round(1), LogIndex(1));
        reads.push(ReadToken(2));
        reads.fail(ReadError::NotLeader { leader: None }, &mut out);
        let failed: Vec<u64> = out.iter().map(|read| read.token.0).collect();
        assert_eq!(failed, [1, 2]);
        assert!(out.iter().all(|read| read.outcome.is_err()));
    }
}
