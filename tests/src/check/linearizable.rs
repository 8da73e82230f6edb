//! Are the single-key operations of a history strictly serializable?
//!
//! First the order that the revisions claim is held against real time, over all keys (`revision`). Then
//! each key by itself must be a register that was absent at first: where every answer carries a revision, the
//! claimed order is the only one to try and just operations of unknown outcome have to be placed in it; where
//! one does not, the order is searched (`wgl`).
//!
//! Failed operations are dropped (so a read of a failed write is illegal), and so are reads that got no answer.
//! A write of unknown outcome may take effect at any time after its call, or never. `lock` and `unlock` are
//! the business of [`super::lock`].

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Verdict;
use super::revision::{self, Claim, Position};
use super::wgl::{self, ABSENT, Action, Found, NEVER, Operation, Value};
use crate::history::{Op, Outcome, Record, Reply};

/// How many operations an explanation shows.
const WINDOW_OPERATIONS: usize = 16;

/// What a history must have for its check to mean something.
#[derive(Debug, Clone)]
pub struct Options {
    /// The least number of operations with outcome `ok`; at least 1.
    pub ops_min: usize,
    /// Whether every key that was written must be read once more after its last acknowledged write. Without
    /// that, the loss of the last write shows nowhere (pitfall rule P55).
    pub final_reads: bool,
    /// Budget of the search, in operations placed, per key.
    pub steps_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { ops_min: 1, final_reads: true, steps_max: 10_000_000 }
    }
}

/// Checks `history`, which must begin on an empty store.
pub fn check(history: &[Record], options: &Options) -> Verdict {
    let ops_ok = history.iter().filter(|record| is_register(record) && record.reply().is_some());
    let (ops_ok, ops_min) = (ops_ok.count(), options.ops_min.max(1));
    if ops_ok < ops_min {
        let reason = format!("{ops_ok} operations were done, at least {ops_min} are needed");
        return Verdict::Unknown { reason };
    }
    if history.iter().any(|record| matches!(record.op, Op::Txn { .. })) {
        let reason =
            "it has operations on several keys, which this checker does not judge".to_owned();
        return Verdict::Unknown { reason };
    }
    let keys = by_key(history);
    check_claims(&keys).unwrap_or_else(|| check_keys(&keys, options))
}

/// One operation of one key, as the checks see it.
#[derive(Clone, Copy)]
struct Step<'a> {
    record: &'a Record,
    operation: Operation,
    /// Where the answer's revision puts it; `None` without an answer or without a revision.
    position: Option<Position>,
}

/// The operations of one key that can have had an effect or have seen one, and the number of distinct values.
struct Register<'a> {
    key: &'a str,
    steps: Vec<Step<'a>>,
    values: usize,
}

fn is_register(record: &Record) -> bool {
    matches!(record.op, Op::Put { .. } | Op::Get | Op::Del | Op::Cas { .. })
}

fn by_key(history: &[Record]) -> Vec<Register<'_>> {
    let mut keys: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in history.iter().filter(|record| is_register(record)) {
        keys.entry(&record.key).or_default().push(record);
    }
    keys.into_iter().map(|(key, records)| register(key, &records)).collect()
}

fn register<'a>(key: &'a str, records: &[&'a Record]) -> Register<'a> {
    let mut numbers = Numbers::default();
    let steps = records.iter().filter_map(|record| step(record, &mut numbers)).collect();
    Register { key, steps, values: numbers.0.len() + 1 }
}

fn step<'a>(record: &'a Record, numbers: &mut Numbers<'a>) -> Option<Step<'a>> {
    let (action, ret) = match &record.outcome {
        Outcome::Ok { return_ns, reply } => (done(&record.op, reply, numbers), *return_ns),
        Outcome::Unknown => (perhaps(&record.op, numbers)?, NEVER),
        Outcome::Fail { .. } => return None,
    };
    let position = record.revision.filter(|_| ret != NEVER);
    Some(Step {
        record,
        operation: Operation { call: record.call_ns, ret, action },
        position: position.map(|revision| Position::new(revision, action)),
    })
}

/// What an operation with an answer saw and did. Requires: the answer belongs to the operation, as it does in
/// every history that was read from a file.
fn done<'a>(op: &'a Op, reply: &'a Reply, numbers: &mut Numbers<'a>) -> Action {
    match (op, reply) {
        (Op::Put { value }, Reply::Put) => Action::Write(numbers.of(Some(value))),
        (Op::Get, Reply::Get { value }) => Action::Read(numbers.of(value.as_deref())),
        (Op::Del, Reply::Del { deleted: 0 }) => Action::Read(ABSENT),
        (Op::Del, Reply::Del { .. }) => Action::Remove,
        (Op::Cas { expect, value }, Reply::Cas { swapped: true }) => {
            Action::Swap { expect: numbers.of(expect.as_deref()), value: numbers.of(Some(value)) }
        }
        (Op::Cas { expect, .. }, Reply::Cas { swapped: false }) => {
            Action::ReadOther(numbers.of(expect.as_deref()))
        }
        (op, reply) => panic!("{reply:?} is not an answer to {op:?}"),
    }
}

/// What an operation of unknown outcome may have done; `None` for one that changes nothing.
fn perhaps<'a>(op: &'a Op, numbers: &mut Numbers<'a>) -> Option<Action> {
    match op {
        Op::Put { value } => Some(Action::Write(numbers.of(Some(value)))),
        Op::Del => Some(Action::Write(ABSENT)),
        Op::Cas { expect, value } => Some(Action::Swap {
            expect: numbers.of(expect.as_deref()),
            value: numbers.of(Some(value)),
        }),
        Op::Get | Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => None,
    }
}

/// Numbers for values, in order of first use.
#[derive(Default)]
struct Numbers<'a>(BTreeMap<&'a str, Value>);

impl<'a> Numbers<'a> {
    fn of(&mut self, value: Option<&'a str>) -> Value {
        let Some(value) = value else { return ABSENT };
        let next = Value::try_from(self.0.len() + 1).expect("a history fits in memory");
        *self.0.entry(value).or_insert(next)
    }
}

/// Holds the order of the revisions against real time; `None` when nothing contradicts it.
fn check_claims(keys: &[Register<'_>]) -> Option<Verdict> {
    let steps = keys.iter().flat_map(|register| &register.steps);
    let claims: Vec<Claim<'_>> = steps.filter_map(claim).collect();
    let found = revision::check(&claims)?;
    let mut explanation = format!("{}:", found.reason);
    list(&mut explanation, [found.first, found.second]);
    Some(Verdict::Illegal { key: found.second.key.clone(), explanation })
}

fn claim<'a>(step: &Step<'a>) -> Option<Claim<'a>> {
    let Operation { call, ret, .. } = step.operation;
    step.position.map(|position| Claim { record: step.record, position, call, ret })
}

/// An illegal key outweighs one that could not be judged.
fn check_keys(keys: &[Register<'_>], options: &Options) -> Verdict {
    let mut doubt = None;
    for register in keys {
        match check_key(register, options) {
            Verdict::Ok => {}
            illegal @ Verdict::Illegal { .. } => return illegal,
            unknown @ Verdict::Unknown { .. } => doubt = doubt.or(Some(unknown)),
        }
    }
    doubt.unwrap_or(Verdict::Ok)
}

fn check_key(register: &Register<'_>, options: &Options) -> Verdict {
    let key = register.key;
    if let Some((first, second)) = disagreement(&register.steps) {
        let mut explanation = "two answers of one revision disagree:".to_owned();
        list(&mut explanation, [first, second]);
        return Verdict::Illegal { key: key.to_owned(), explanation };
    }
    match search(&register.steps, register.values, options) {
        Found::NoOrder => {
            Verdict::Illegal { key: key.to_owned(), explanation: explain(register, options) }
        }
        Found::GaveUp => Verdict::Unknown {
            reason: format!("key {key:?}: no verdict within {} steps", options.steps_max),
        },
        Found::Order if options.final_reads && !has_final_read(&register.steps) => {
            Verdict::Unknown { reason: format!("key {key:?} is not read after its last write") }
        }
        Found::Order => Verdict::Ok,
    }
}

fn search(steps: &[Step<'_>], values: usize, options: &Options) -> Found {
    let operations = in_revision_order(steps)
        .unwrap_or_else(|| steps.iter().map(|step| step.operation).collect());
    wgl::search(&operations, values, options.steps_max)
}

/// Two answers of one revision that cannot both be right: every change has a revision of its own, so within one
/// the key does not change. (Comparisons that did not hold say too little to be held against each other.)
fn disagreement<'a>(steps: &[Step<'a>]) -> Option<(&'a Record, &'a Record)> {
    let mut claimed: Vec<(Position, Step<'a>)> =
        steps.iter().filter_map(|step| step.position.map(|position| (position, *step))).collect();
    claimed.sort_by_key(|(position, step)| order(*position, &step.operation));
    let mut pinned: Option<(u64, Value, &Record)> = None;
    for (Position { revision, .. }, Step { record, operation, .. }) in claimed {
        let pin = pinned.filter(|(at, ..)| *at == revision);
        let (Action::Read(_) | Action::ReadOther(_)) = operation.action else {
            pinned = operation.action.makes().map(|value| (revision, value, record));
            continue;
        };
        match pin {
            Some((_, value, first)) if operation.action.step(value).is_none() => {
                return Some((first, record));
            }
            Some(_) => {}
            None => {
                let seen = operation.action.needs();
                pinned = seen.map(|value| (revision, value, record));
            }
        }
    }
    None
}

/// Sorts operations by their positions; in one revision, those that name the value they saw come first.
fn order(position: Position, operation: &Operation) -> (Position, bool, u64) {
    (position, matches!(operation.action, Action::ReadOther(_)), operation.call)
}

/// The same operations on a time scale on which those with an answer follow each other in order of their
/// revisions, so that nothing but the unknown ones is left to place. `None` where an answer has no revision.
///
/// The `i`th answer lies at `4 i + 1 ..= 4 i + 2`; an unknown operation begins at `4 i + 3` when the `i`th is the
/// last one that had returned before its call.
fn in_revision_order(steps: &[Step<'_>]) -> Option<Vec<Operation>> {
    let (unknown, known): (Vec<&Step<'_>>, Vec<&Step<'_>>) =
        steps.iter().partition(|step| step.operation.ret == NEVER);
    let mut ordered = Vec::with_capacity(known.len());
    for step in known {
        ordered.push((step.position?, step.operation));
    }
    ordered.sort_by_key(|(position, operation)| order(*position, operation));
    let latest = latest_by_return(&ordered);
    let answered = ordered.iter().zip(0u64..).map(|((_, operation), at)| Operation {
        call: 4 * at + 1,
        ret: 4 * at + 2,
        action: operation.action,
    });
    let pending = unknown.iter().map(|Step { operation, .. }| {
        let returned = latest.partition_point(|&(ret, _)| ret < operation.call);
        let call = if returned == 0 { 0 } else { 4 * latest[returned - 1].1 + 3 };
        Operation { call, ..*operation }
    });
    Some(answered.chain(pending).collect())
}

/// For each return, in order of time, the highest place among the operations returned by then.
fn latest_by_return(ordered: &[(Position, Operation)]) -> Vec<(u64, u64)> {
    let mut latest: Vec<(u64, u64)> =
        ordered.iter().zip(0u64..).map(|((_, operation), at)| (operation.ret, at)).collect();
    latest.sort_unstable();
    let mut highest = 0;
    for (_, at) in &mut latest {
        highest = highest.max(*at);
        *at = highest;
    }
    latest
}

/// Whether a read was called after the last acknowledged write had returned, if there was one.
fn has_final_read(steps: &[Step<'_>]) -> bool {
    let mut last_write = None;
    let mut last_read = None;
    for Step { record, operation, .. } in steps {
        match operation.action {
            Action::Read(_) if record.op == Op::Get => {
                last_read = last_read.max(Some(operation.call));
            }
            Action::Read(_) | Action::ReadOther(_) => {}
            Action::Write(_) | Action::Swap { .. } | Action::Remove => {
                let ret = Some(operation.ret).filter(|&ret| ret != NEVER);
                last_write = last_write.max(ret);
            }
        }
    }
    last_write.is_none_or(|write| last_read.is_some_and(|read| write <= read))
}

/// Says which operation cannot be explained, and shows what came before it: the shortest illegal prefix of
/// the history, by bisection, since every prefix of a legal history is legal.
fn explain(register: &Register<'_>, options: &Options) -> String {
    let mut returns: Vec<&Step<'_>> =
        register.steps.iter().filter(|step| step.operation.ret != NEVER).collect();
    returns.sort_by_key(|step| return_order(step));
    let last = returns.len() - 1; // It is an answer that cannot be explained, so there is one.
    let legal = (0..last).collect::<Vec<_>>().partition_point(|&at| {
        let prefix = prefix(&register.steps, returns[at]);
        search(&prefix, register.values, options) != Found::NoOrder
    });
    let culprit = returns[legal];
    let window = window(register, culprit, &returns[..legal]);
    let mut explanation = format!(
        "no order explains the first {} of {} answers; the last of them is\n  {}\nand before it, in order of return, \
         answers and then what has none:",
        legal + 1,
        returns.len(),
        describe(culprit.record),
    );
    list(&mut explanation, window);
    explanation
}

/// What had been called when `last` returned, as it was known then: what had not returned has an unknown outcome.
fn prefix<'a>(steps: &[Step<'a>], last: &Step<'_>) -> Vec<Step<'a>> {
    let end = return_order(last);
    let called = steps.iter().filter(|step| step.operation.call <= last.operation.ret);
    called
        .filter_map(|step| if return_order(step) <= end { Some(*step) } else { undecided(step) })
        .collect()
}

/// Sorts operations by their returns, and those that returned at one instant in some fixed order.
fn return_order(step: &Step<'_>) -> (u64, u64, u64) {
    (step.operation.ret, step.record.client, step.record.seq)
}

/// `step` before its answer arrived; `None` when it changes nothing.
fn undecided<'a>(step: &Step<'a>) -> Option<Step<'a>> {
    let action = match step.operation.action {
        Action::Read(_) | Action::ReadOther(_) => return None,
        Action::Remove => Action::Write(ABSENT),
        action @ (Action::Write(_) | Action::Swap { .. }) => action,
    };
    let operation = Operation { ret: NEVER, action, ..step.operation };
    Some(Step { operation, position: None, ..*step })
}

/// The operations that bear most on `culprit`: the last ones `before` it, whoever wrote the value it saw, and
/// writes that were under way.
fn window<'a>(
    register: &Register<'a>,
    culprit: &Step<'a>,
    before: &[&Step<'a>],
) -> Vec<&'a Record> {
    let (earlier, latest) = before.split_at(before.len().saturating_sub(WINDOW_OPERATIONS));
    let writers = earlier.iter().filter(|step| writes_what(step, culprit)).map(|step| step.record);
    let latest = latest.iter().map(|step| step.record);
    let Operation { call, ret, .. } = culprit.operation;
    let under_way = register.steps.iter().filter(|step| {
        let operation = step.operation;
        operation.call <= ret && operation.ret > ret && undecided(step).is_some()
    });
    let mut under_way: Vec<&Step<'_>> = under_way.collect();
    under_way.sort_by_key(|step| (!writes_what(step, culprit), call.abs_diff(step.operation.call)));
    under_way.truncate(WINDOW_OPERATIONS);
    writers.chain(latest).chain(under_way.into_iter().map(|step| step.record)).collect()
}

/// Whether `step` wrote the very value that `culprit` saw.
fn writes_what(step: &Step<'_>, culprit: &Step<'_>) -> bool {
    let (Action::Read(seen) | Action::Swap { expect: seen, .. }) = culprit.operation.action else {
        return false;
    };
    match step.operation.action {
        Action::Write(value) | Action::Swap { value, .. } => value == seen && value != ABSENT,
        Action::Read(_) | Action::ReadOther(_) | Action::Remove => false,
    }
}

/// Appends one indented line for each of `records`.
fn list<'a>(text: &mut String, records: impl IntoIterator<Item = &'a Record>) {
    for record in records {
        write!(text, "\n  {}", describe(record)).expect("a string takes every write");
    }
}

/// A record as its line in the file, which also finds it there.
fn describe(record: &Record) -> String {
    serde_json::to_string(record).expect("a record always has a line")
}
