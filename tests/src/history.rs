//! Histories: what clients asked of a cluster and what they were told, one JSON object a line.
//!
//! `holdfast-bench --history`, the simulator and the process tests write them; the checkers in
//! [`crate::check`] judge them. A line has `client` (sequential: one request at a time), `seq`, `op`, `key`,
//! `args`, `call_ns`, `return_ns` (one monotonic clock for all clients; absent when unknown), `outcome`
//! (`ok`; `fail`: certainly not done; `unknown`), `result`, `revision`, `node` and `error`. Values are unique
//! strings, so that a value that is read names the operation that wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// The longest line that is read, in bytes. The largest value is 8 MiB, at most six bytes each when escaped.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub struct Record {
    /// Who asked. A client has at most one request under way.
    pub client: u64,
    /// Number of the request at its client.
    pub seq: u64,
    /// The key, or the name of the lock.
    pub key: String,
    /// What was asked.
    pub op: Op,
    /// When it was asked, in nanoseconds of the history's clock.
    pub call_ns: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// The store's revision that came with the answer: the one a write made, or the one a read saw.
    pub revision: Option<u64>,
    /// The node that answered.
    pub node: Option<u64>,
    /// The error's code and message, for people.
    pub error: Option<String>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Set the key to `value`.
    Put {
        /// The new value.
        value: String,
    },
    /// Read the key.
    Get,
    /// Delete the key.
    Del,
    /// Set the key to `value` if it now holds `expect` (`None`: if it is absent).
    Cas {
        /// What the key must hold.
        expect: Option<String>,
        /// The new value.
        value: String,
    },
    /// Acquire the lock.
    Lock,
    /// Release the lock.
    Unlock {
        /// The token under which it was held, when the client knew one.
        token: Option<u64>,
    },
    /// Read and write several keys at once; `key` says nothing then.
    Txn {
        /// The keys to read.
        reads: Vec<String>,
        /// The keys to write, with their new values.
        writes: BTreeMap<String, String>,
    },
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok {
        /// When the answer arrived.
        return_ns: u64,
        /// The answer.
        reply: Reply,
    },
    /// It certainly was not done.
    Fail {
        /// When that became known.
        return_ns: Option<u64>,
    },
    /// It may have been done, may still be done, or may never be.
    Unknown,
}

/// The answer to an operation that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The value was set.
    Put,
    /// The key was read.
    Get {
        /// What it held; `None`: it was absent.
        value: Option<String>,
    },
    /// The key is absent now.
    Del {
        /// How many keys that removed: 0 or 1.
        deleted: u64,
    },
    /// The comparison was made.
    Cas {
        /// Whether it held and the value was set.
        swapped: bool,
    },
    /// The lock was granted.
    Lock {
        /// The fencing token of the grant.
        token: u64,
    },
    /// The lock was released.
    Unlock {
        /// The token under which it was held.
        token: u64,
    },
    /// The transaction was committed.
    Txn {
        /// What each key that was read held.
        reads: BTreeMap<String, Option<String>>,
    },
}

/// Why a history was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The file could not be read.
    #[error("history line {line}: cannot be read: {source}")]
    Read {
        /// Line number, from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not a record.
    #[error("history line {line}: {reason}")]
    BadLine {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Record {
    /// When the answer arrived; `None` where there was none.
    pub fn return_ns(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Ok { return_ns, .. } => Some(return_ns),
            Outcome::Fail { return_ns } => return_ns,
            Outcome::Unknown => None,
        }
    }

    /// The answer, if the operation was done.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.outcome {
            Outcome::Ok { reply, .. } => Some(reply),
            Outcome::Fail { .. } | Outcome::Unknown => None,
        }
    }

    /// Writes this record as one line.
    pub fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self).map_err(io::Error::from)?;
        out.write_all(b"\n")
    }
}

/// Reads a whole history.
///
/// # Errors
/// A line that is not a record, or that repeats a client's sequence number, is refused by its number; empty
/// lines are passed over.
pub fn read(mut input: impl BufRead) -> Result<Vec<Record>, HistoryError> {
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let mut limited = input.by_ref().take(LINE_BYTES_MAX);
        let bytes = limited
            .read_until(b'\n', &mut text)
            .map_err(|source| HistoryError::Read { line, source })?;
        if bytes == 0 {
            break;
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let bad = |reason: String| HistoryError::BadLine { line, reason };
        let record: Record =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if !seen.insert((record.client, record.seq)) {
            return Err(bad(format!("client {} used seq {} before", record.client, record.seq)));
        }
        records.push(record);
    }
    Ok(records)
}

/// The names of operations in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Put,
    Get,
    Del,
    Cas,
    Lock,
    Unlock,
    Txn,
}

/// The names of outcomes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fate {
    Ok,
    Fail,
    Unknown,
}

/// One line as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Line {
    client: u64,
    seq: u64,
    op: Name,
    key: String,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    args: Json,
    call_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    return_ns: Option<u64>,
    outcome: Fate,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    result: Json,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `args` of `put`.
#[derive(Deserialize)]
struct PutArgs {
    value: String,
}

/// `args` of `cas`. A field that is null must be there, or a slip of the pen would read as "absent".
#[derive(Deserialize)]
struct CasArgs {
    #[serde(deserialize_with = "Option::deserialize")]
    expect: Option<String>,
    value: String,
}

/// `args` of `unlock`.
#[derive(Deserialize, Default)]
struct UnlockArgs {
    token: Option<u64>,
}

/// `args` of `txn`.
#[derive(Deserialize)]
struct TxnArgs {
    reads: Vec<String>,
    writes: BTreeMap<String, String>,
}

/// `result` of `get`.
#[derive(Deserialize)]
struct GetResult {
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<String>,
}

/// `result` of `del`.
#[derive(Deserialize)]
struct DelResult {
    deleted: u64,
}

/// `result` of `cas`.
#[derive(Deserialize)]
struct CasResult {
    swapped: bool,
}

/// `result` of `lock` and `unlock`.
#[derive(Deserialize)]
struct TokenResult {
    token: u64,
}

/// `result` of `txn`.
#[derive(Deserialize)]
struct TxnResult {
    reads: BTreeMap<String, Option<String>>,
}

impl TryFrom<Line> for Record {
    type Error = String;

    fn try_from(line: Line) -> Result<Record, String> {
        if line.return_ns.is_some_and(|at| at < line.call_ns) {
            return Err("return_ns lies before call_ns".to_owned());
        }
        let op = op_from(line.op, line.args)?;
        let outcome = match (line.outcome, line.return_ns) {
            (Fate::Ok, None) => return Err("outcome ok needs a return_ns".to_owned()),
            (Fate::Ok, Some(return_ns)) => {
                Outcome::Ok { return_ns, reply: reply_from(line.op, line.result)? }
            }
            (Fate::Fail, return_ns) => Outcome::Fail { return_ns },
            (Fate::Unknown, _) => Outcome::Unknown,
        };
        Ok(Record {
            client: line.client,
            seq: line.seq,
            key: line.key,
            op,
            call_ns: line.call_ns,
            outcome,
            revision: line.revision,
            node: line.node,
            error: line.error,
        })
    }
}

impl From<Record> for Line {
    fn from(record: Record) -> Line {
        let (op, args) = op_into(record.op);
        let return_ns = match record.outcome {
            Outcome::Ok { return_ns, .. } => Some(return_ns),
            Outcome::Fail { return_ns } => return_ns,
            Outcome::Unknown => None,
        };
        let (outcome, result) = match record.outcome {
            Outcome::Ok { reply, .. } => (Fate::Ok, reply_into(reply)),
            Outcome::Fail { .. } => (Fate::Fail, Json::Null),
            Outcome::Unknown => (Fate::Unknown, Json::Null),
        };
        Line {
            client: record.client,
            seq: record.seq,
            op,
            key: record.key,
            args,
            call_ns: record.call_ns,
            return_ns,
            outcome,
            result,
            revision: record.revision,
            node: record.node,
            error: record.error,
        }
    }
}

/// The operation that a name and its `args` state.
fn op_from(name: Name, args: Json) -> Result<Op, String> {
    Ok(match name {
        Name::Put => {
            let PutArgs { value } = fields("args", args)?;
            Op::Put { value }
        }
        Name::Get => Op::Get,
        Name::Del => Op::Del,
        Name::Cas => {
            let CasArgs { expect, value } = fields("args", args)?;
            Op::Cas { expect, value }
        }
        Name::Lock => Op::Lock,
        Name::Unlock if args.is_null() => Op::Unlock { token: None },
        Name::Unlock => {
            let UnlockArgs { token } = fields("args", args)?;
            Op::Unlock { token }
        }
        Name::Txn => {
            let TxnArgs { reads, writes } = fields("args", args)?;
            Op::Txn { reads, writes }
        }
    })
}

/// The answer that the `result` of an operation states.
fn reply_from(name: Name, result: Json) -> Result<Reply, String> {
    Ok(match name {
        Name::Put => Reply::Put,
        Name::Get => Reply::Get { value: fields::<GetResult>("result", result)?.value },
        Name::Del => Reply::Del { deleted: fields::<DelResult>("result", result)?.deleted },
        Name::Cas => Reply::Cas { swapped: fields::<CasResult>("result", result)?.swapped },
        Name::Lock => Reply::Lock { token: fields::<TokenResult>("result", result)?.token },
        Name::Unlock => Reply::Unlock { token: fields::<TokenResult>("result", result)?.token },
        Name::Txn => Reply::Txn { reads: fields::<TxnResult>("result", result)?.reads },
    })
}

/// Name and `args` of an operation.
fn op_into(op: Op) -> (Name, Json) {
    match op {
        Op::Put { value } => (Name::Put, json!({ "value": value })),
        Op::Get => (Name::Get, Json::Null),
        Op::Del => (Name::Del, Json::Null),
        Op::Cas { expect, value } => (Name::Cas, json!({ "expect": expect, "value": value })),
        Op::Lock => (Name::Lock, Json::Null),
        Op::Unlock { token: None } => (Name::Unlock, Json::Null),
        Op::Unlock { token } => (Name::Unlock, json!({ "token": token })),
        Op::Txn { reads, writes } => (Name::Txn, json!({ "reads": reads, "writes": writes })),
    }
}

/// The `result` of an answer.
fn reply_into(reply: Reply) -> Json {
    match reply {
        Reply::Put => Json::Null,
        Reply::Get { value } => json!({ "value": value }),
        Reply::Del { deleted } => json!({ "deleted": deleted }),
        Reply::Cas { swapped } => json!({ "swapped": swapped }),
        Reply::Lock { token } | Reply::Unlock { token } => json!({ "token": token }),
        Reply::Txn { reads } => json!({ "reads": reads }),
    }
}

/// The fields of one object of a line.
fn fields<T: for<'de> Deserialize<'de>>(name: &str, object: Json) -> Result<T, String> {
    serde_json::from_value(object).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(op: Op, reply: Reply) -> Record {
        Record {
            client: 3,
            seq: 9,
            key: "k".to_owned(),
            op,
            call_ns: 10,
            outcome: Outcome::Ok { return_ns: 20, reply },
            revision: Some(7),
            node: Some(1),
            error: None,
        }
    }

    fn line_of(record: &Record) -> String {
        let mut out = Vec::new();
        record.write_line(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn reason(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_line_has_the_documented_fields() {
        let record =
            ok(Op::Cas { expect: None, value: "b".to_owned() }, Reply::Cas { swapped: true });
        assert_eq!(
            line_of(&record),
            "{\"client\":3,\"seq\":9,\"op\":\"cas\",\"key\":\"k\",\"args\":{\"expect\":null,\"value\":\"b\"},\
             \"call_ns\":10,\"return_ns\":20,\"outcome\":\"ok\",\"result\":{\"swapped\":true},\
             \"revision\":7,\"node\":1}\n"
        );
    }

    #[test]
    fn an_unknown_outcome_has_no_return_and_no_result() {
        let mut record = ok(Op::Put { value: "b".to_owned() }, Reply::Put);
        record.outcome = Outcome::Unknown;
        record.revision = None;
        record.node = None;
        assert_eq!(
            line_of(&record),
            "{\"client\":3,\"seq\":9,\"op\":\"put\",\"key\":\"k\",\"args\":{\"value\":\"b\"},\
             \"call_ns\":10,\"outcome\":\"unknown\"}\n"
        );
    }

    #[test]
    fn every_operation_reads_back_as_written() {
        let a = || "a".to_owned();
        let mut records = vec![
            ok(Op::Put { value: a() }, Reply::Put),
            ok(Op::Get, Reply::Get { value: Some(a()) }),
            ok(Op::Get, Reply::Get { value: None }),
            ok(Op::Del, Reply::Del { deleted: 1 }),
            ok(Op::Cas { expect: Some(a()), value: a() }, Reply::Cas { swapped: false }),
            ok(Op::Lock, Reply::Lock { token: 5 }),
            ok(Op::Unlock { token: Some(5) }, Reply::Unlock { token: 5 }),
            ok(Op::Unlock { token: None }, Reply::Unlock { token: 5 }),
            ok(
                Op::Txn { reads: vec![a()], writes: BTreeMap::from([(a(), a())]) },
                Reply::Txn { reads: BTreeMap::from([(a(), None)]) },
            ),
        ];
        records[1].outcome = Outcome::Fail { return_ns: Some(30) };
        let mut text = Vec::new();
        for (seq, record) in records.iter_mut().enumerate() {
            record.seq = seq as u64;
            record.write_line(&mut text).unwrap();
        }
        assert_eq!(read(text.as_slice()).unwrap(), records);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let good = line_of(&ok(Op::Get, Reply::Get { value: None }));
        assert_eq!(reason(&format!("{good}\n{{}}\n")).split(": ").next(), Some("history line 3"));
        assert!(reason(&format!("{good}{good}")).ends_with("line 2: client 3 used seq 9 before"));
        assert!(reason(good.trim_end_matches("}\n")).starts_with("history line 1: EOF"));
    }

    #[test]
    fn a_read_without_its_value_is_not_taken_for_a_read_of_nothing() {
        let line = line_of(&ok(Op::Get, Reply::Get { value: None }));
        let text = line.replace("{\"value\":null}", "{}");
        assert!(reason(&text).contains("result: missing field `value`"), "{}", reason(&text));
    }

    #[test]
    fn an_answer_before_its_call_and_an_ok_without_return_are_refused() {
        let line = line_of(&ok(Op::Get, Reply::Get { value: None }));
        assert!(reason(&line.replace(":20,", ":9,")).contains("before call_ns"));
        assert!(reason(&line.replace("\"return_ns\":20,", "")).contains("needs a return_ns"));
    }
}
