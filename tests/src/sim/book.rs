//! What the clients of a seed asked and were told: the history that the checkers judge.

use std::collections::BTreeMap;
use std::fmt;

use super::profile::OpKind;
use crate::check::{Verdict, linearizable, lock};
use crate::history::{Op, Outcome, Record, Reply};

/// A request on its way.
pub struct Asked {
    /// What the history will hold.
    pub record: Record,
    /// For the counters.
    pub kind: OpKind,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?} {:?}", self.record.seq, self.record.key, self.record.op)
    }
}

/// A read that may be old, and says how old.
#[derive(Clone, PartialEq, Eq, Debug)]
struct StaleRead {
    key: String,
    revision: u64,
    /// The revision that wrote what it found, and the value.
    written: Option<(u64, String)>,
}

/// All that clients were told.
#[derive(Debug, Default)]
pub struct Book {
    records: Vec<Record>,
    stale: Vec<StaleRead>,
    last_ns: u64,
    ranges: u64,
}

impl Book {
    /// A moment of the history's clock: later than every one before.
    pub fn stamp(&mut self, now_us: u64) -> u64 {
        self.last_ns = (self.last_ns + 1).max(now_us * 1_000);
        self.last_ns
    }

    /// Everything so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A request begins.
    pub fn ask(
        &mut self,
        client: u64,
        seq: u64,
        (key, op): (String, Op),
        kind: OpKind,
        now_us: u64,
    ) -> Asked {
        let call_ns = self.stamp(now_us);
        let record = Record {
            client,
            seq,
            key,
            op,
            call_ns,
            outcome: Outcome::Unknown,
            revision: None,
            node: None,
            error: None,
        };
        Asked { record, kind }
    }

    /// It was done.
    pub fn ok(&mut self, asked: Asked, reply: Reply, revision: Option<u64>, now_us: u64) {
        let return_ns = self.stamp(now_us);
        let outcome = Outcome::Ok { return_ns, reply };
        self.records.push(Record { outcome, revision, ..asked.record });
    }

    /// It certainly was not done.
    pub fn fail(&mut self, asked: Asked, reason: &str, now_us: u64) {
        let outcome = Outcome::Fail { return_ns: Some(self.stamp(now_us)) };
        self.records.push(Record { outcome, error: Some(reason.to_owned()), ..asked.record });
    }

    /// It may have been done, or may still be.
    pub fn unknown(&mut self, asked: Asked, reason: &str) {
        self.records.push(Record { error: Some(reason.to_owned()), ..asked.record });
    }

    /// All keys that a page covers, read at one moment: to the checker a read of each by a client of its own.
    pub fn range(
        &mut self,
        client: u64,
        call_ns: u64,
        revision: u64,
        values: BTreeMap<String, Option<String>>,
        now_us: u64,
    ) {
        let return_ns = self.stamp(now_us);
        self.ranges += 1;
        for (at, (key, value)) in (1..).zip(values) {
            self.records.push(Record {
                client: client * 100 + at,
                seq: self.ranges,
                key,
                op: Op::Get,
                call_ns,
                outcome: Outcome::Ok { return_ns, reply: Reply::Get { value } },
                revision: Some(revision),
                node: None,
                error: None,
            });
        }
    }

    /// A read that may be old.
    pub fn stale(&mut self, key: String, revision: u64, written: Option<(u64, String)>) {
        self.stale.push(StaleRead { key, revision, written });
    }

    /// How many requests were answered well.
    pub fn acknowledged(&self) -> usize {
        self.records.iter().filter(|record| record.reply().is_some()).count()
    }

    /// Whether everything that clients were told can be true together.
    pub fn check(&self) -> Result<(), String> {
        let options = linearizable::Options { ops_min: 1, final_reads: true, steps_max: 5_000_000 };
        verdict("linearizable", linearizable::check(&self.records, &options))?;
        let is_grant = |record: &&Record| matches!(record.reply(), Some(Reply::Lock { .. }));
        if self.records.iter().any(|record| is_grant(&record)) {
            verdict("lock", lock::check(&self.records, 1))?;
        }
        self.check_stale()
    }

    /// A stale read at revision R finds what the last write of its key up to R left there.
    fn check_stale(&self) -> Result<(), String> {
        let mut writes: BTreeMap<(&str, u64), &Record> = BTreeMap::new();
        for record in &self.records {
            if let (true, Some(revision)) = (changes(record), record.revision) {
                writes.insert((&record.key, revision), record);
            }
        }
        for read in &self.stale {
            let key = read.key.as_str();
            let written = read.written.as_ref().map(|(revision, value)| (*revision, value));
            let from = written.map_or(0, |(revision, _)| revision);
            let mut after = writes.range((key, from)..(key, read.revision + 1));
            let later = after.rfind(|((_, revision), _)| *revision > from);
            let is_contradicted = match (written, later) {
                (Some(_), Some(_)) => true,
                (Some((revision, value)), None) => writes
                    .get(&(key, revision))
                    .is_some_and(|record| value_of(&record.op) != Some(value)),
                // Nothing is there: then no acknowledged write may be the last, unless an unheard delete followed.
                (None, Some((_, record))) => {
                    value_of(&record.op).is_some() && !self.has_unheard_delete(key)
                }
                (None, None) => false,
            };
            if is_contradicted {
                return Err(format!("stale read {read:?} contradicts {later:?}"));
            }
        }
        Ok(())
    }

    fn has_unheard_delete(&self, key: &str) -> bool {
        self.records.iter().any(|record| {
            record.key == key && record.op == Op::Del && record.outcome == Outcome::Unknown
        })
    }
}

/// Whether the answer says that the key was changed.
fn changes(record: &Record) -> bool {
    match record.reply() {
        Some(Reply::Put) => true,
        Some(Reply::Del { deleted }) => *deleted > 0,
        Some(Reply::Cas { swapped }) => *swapped,
        Some(Reply::Get { .. } | Reply::Lock { .. } | Reply::Unlock { .. } | Reply::Txn { .. })
        | None => false,
    }
}

fn value_of(op: &Op) -> Option<&String> {
    match op {
        Op::Put { value } | Op::Cas { value, .. } => Some(value),
        Op::Get | Op::Del | Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => None,
    }
}

fn verdict(name: &str, verdict: Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Ok => Ok(()),
        Verdict::Illegal { key, explanation } => {
            Err(format!("the history is not {name}: {key:?}: {explanation}"))
        }
        Verdict::Unknown { reason } => Err(format!("nothing shown by {name}: {reason}")),
    }
}
