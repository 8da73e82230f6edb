//! The verdict on a history that a run has written.

use std::fs::File;
use std::io::BufReader;

use tests::check::{Verdict, linearizable, lock};
use tests::history::{self, Op, Record};

use crate::error::Error;
use crate::options::CheckOptions;

/// A history's verdict, and how many operations it has.
#[derive(Debug)]
pub struct Judgement {
    /// Operations in the history.
    pub operations: usize,
    /// Those of which the outcome is unknown.
    pub unknown: usize,
    /// The verdict.
    pub verdict: Verdict,
}

/// Reads a history and judges its operations on keys and on locks, whichever it has.
pub fn judge(options: &CheckOptions) -> Result<Judgement, Error> {
    let path = options.file.clone();
    let file = File::open(&path).map_err(|source| Error::History { path: path.clone(), source })?;
    let history = history::read(BufReader::new(file));
    let history = history.map_err(|source| Error::BadHistory { path, source })?;
    let unknown = history.iter().filter(|record| record.outcome == history::Outcome::Unknown);
    Ok(Judgement {
        operations: history.len(),
        unknown: unknown.count(),
        verdict: verdict(&history, options),
    })
}

fn verdict(history: &[Record], options: &CheckOptions) -> Verdict {
    let is_lock = |record: &Record| matches!(record.op, Op::Lock | Op::Unlock { .. });
    if history.iter().any(is_lock) {
        let locks = lock::check(history, options.ops_min);
        if !locks.is_ok() || history.iter().all(is_lock) {
            return locks;
        }
    }
    let demands = linearizable::Options {
        ops_min: options.ops_min,
        final_reads: !options.no_final_reads,
        ..linearizable::Options::default()
    };
    linearizable::check(history, &demands)
}
