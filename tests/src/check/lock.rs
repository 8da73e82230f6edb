//! Do the locks of a history exclude each other, and do their fencing tokens only grow?
//!
//! A token counts grants of the whole store, so tokens are unique, and a grant that was known before another was
//! asked for has the lower one, whatever the locks' names. Between the answer to an acquire and the call of a
//! release *that succeeded* its client held the lock for certain: the release speaks of the token, and a token
//! that was lost can not be released. No other grant of that lock may fall between the two.
//!
//! A grant without such a release proves nothing about its end (its session may have ended at any time), so only
//! its token is checked.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Op, Outcome, Record, Reply};

/// A grant that its client knows of.
struct Grant<'a> {
    record: &'a Record,
    token: u64,
    call: u64,
    ret: u64,
    /// The last acquire that was answered with this grant: a holder that asks again is told its own token.
    confirmed: &'a Record,
    /// The release that ended it, when that succeeded.
    released: Option<&'a Record>,
}

/// Checks the `lock` and `unlock` operations of `history`, of which at least `grants_min` (and at least one) must
/// have been granted.
pub fn check(history: &[Record], grants_min: usize) -> Verdict {
    let grants = match grants(history) {
        Ok(grants) => grants,
        Err(verdict) => return verdict,
    };
    let grants_min = grants_min.max(1);
    if grants.len() < grants_min {
        let reason =
            format!("{} locks were granted, at least {grants_min} are needed", grants.len());
        return Verdict::Unknown { reason };
    }
    tokens_against_real_time(&grants).or_else(|| overlap(&grants)).unwrap_or(Verdict::Ok)
}

/// All grants in order of their tokens, each with its release.
fn grants(history: &[Record]) -> Result<Vec<Grant<'_>>, Verdict> {
    let mut grants: BTreeMap<u64, Grant<'_>> = BTreeMap::new();
    let mut by_call: Vec<&Record> = history.iter().collect();
    by_call.sort_by_key(|record| record.call_ns);
    for record in &by_call {
        let Outcome::Ok { return_ns: ret, reply: Reply::Lock { token } } = record.outcome else {
            continue;
        };
        let grant =
            Grant { record, token, call: record.call_ns, ret, confirmed: record, released: None };
        let grant = grants.entry(token).or_insert(grant);
        if !is_same_holder(grant.record, record) {
            return Err(illegal("one token was granted to two holders", grant.record, record));
        }
        grant.confirmed = record;
    }
    for record in &by_call {
        if let Some(Reply::Unlock { token }) = record.reply() {
            release(&mut grants, *token, record, &by_call)?;
        }
    }
    Ok(grants.into_values().collect())
}

/// Notes the release of `token`, which must have been granted to its client, must not have been released before,
/// and must never be granted again.
fn release<'a>(
    grants: &mut BTreeMap<u64, Grant<'a>>,
    token: u64,
    record: &'a Record,
    by_call: &[&'a Record],
) -> Result<(), Verdict> {
    let Some(grant) = grants.get_mut(&token).filter(|grant| is_release_of(record, grant)) else {
        let unheard = |other: &&Record| {
            let is_acquire = other.op == Op::Lock && other.outcome == Outcome::Unknown;
            is_acquire && is_same_holder(other, record) && other.call_ns <= record.call_ns
        };
        if by_call.iter().any(unheard) {
            return Ok(());
        }
        return Err(illegal("a release succeeded without its grant", record, record));
    };
    if let Some(earlier) = grant.released.replace(record) {
        return Err(illegal("one grant was released twice", earlier, record));
    }
    if record.return_ns().is_some_and(|ret| ret < grant.confirmed.call_ns) {
        return Err(illegal(
            "a token was granted again after its release",
            record,
            grant.confirmed,
        ));
    }
    Ok(())
}

fn is_same_holder(a: &Record, b: &Record) -> bool {
    a.client == b.client && a.key == b.key
}

fn is_release_of(record: &Record, grant: &Grant<'_>) -> bool {
    let Op::Unlock { token } = record.op else {
        return false;
    };
    is_same_holder(record, grant.record)
        && token.is_none_or(|token| token == grant.token)
        && grant.ret <= record.call_ns
}

/// In order of tokens: nobody may have heard of a grant before an earlier one was even asked for.
fn tokens_against_real_time(grants: &[Grant<'_>]) -> Option<Verdict> {
    let mut latest: Option<&Grant<'_>> = None;
    for grant in grants {
        if let Some(earlier) = latest.filter(|earlier| grant.ret < earlier.call) {
            let reason =
                "the first was called after the second had been granted, and has the lower token";
            return Some(illegal(reason, earlier.record, grant.record));
        }
        if latest.is_none_or(|latest| latest.call < grant.call) {
            latest = Some(grant);
        }
    }
    None
}

/// In order of tokens, per lock: a grant must not be heard of before an earlier holder called its release.
fn overlap(grants: &[Grant<'_>]) -> Option<Verdict> {
    let mut held: BTreeMap<&str, &Record> = BTreeMap::new();
    for grant in grants {
        let key = grant.record.key.as_str();
        if let Some(release) = held.get(key).filter(|release| grant.ret < release.call_ns) {
            let reason = "the second was granted the lock while the first held it and had not called its release";
            return Some(illegal(reason, release, grant.record));
        }
        let Some(release) = grant.released else {
            continue;
        };
        let latest = held.entry(key).or_insert(release);
        if latest.call_ns < release.call_ns {
            *latest = release;
        }
    }
    None
}

fn illegal(reason: &str, first: &Record, second: &Record) -> Verdict {
    let line = |record| serde_json::to_string(record).expect("a record always has a line");
    let explanation = format!("{reason}:\n  {}\n  {}", line(first), line(second));
    Verdict::Illegal { key: second.key.clone(), explanation }
}
