//! One worker: its session, its locks, and what it makes of the answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::Error;
use client::core::{SessionKey, Ticket};
use protocol::{Certainty, ErrorCode, Expect, Item, Origin, Request, Response, Wait};

use super::asking::key_of;
use crate::history::{Op, Reply};
use crate::sim::book::{Asked, Book};
use crate::sim::ground::Ground;
use crate::sim::profile::{OpKind, Plan};
use crate::sim::random::Random;
use crate::sim::values::{expand, recognise};

/// The session of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Session {
    /// It works without one.
    None,
    /// It has to open one.
    Wanted,
    /// It is being opened.
    Opening(SessionKey),
    /// It is open.
    Open(SessionKey),
    /// It is being closed.
    Closing,
}

/// What a worker waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) what: What,
    /// It gives up then, whatever the deadline says.
    pub(super) abandon_us: Option<u64>,
}

#[derive(Debug)]
pub(super) enum What {
    /// Nothing that the history holds.
    Session,
    /// A record of the history.
    Recorded(Asked),
    /// All keys at once.
    Range { call_ns: u64 },
    /// A key as it was some time ago.
    Stale { key: String },
    /// Something that is only counted.
    Counted(OpKind),
}

#[derive(Debug)]
pub(super) struct Worker {
    /// Its name in the history; another one for each life of its process.
    pub(super) id: u64,
    pub(super) seq: u64,
    pub(super) random: Random,
    pub(super) session: Session,
    pub(super) waiting: Option<Waiting>,
    pub(super) next_us: u64,
    /// The locks that it holds, as far as it knows: name and token.
    pub(super) held: Vec<(String, u64)>,
    /// The last value it has seen of each key, and the revision that wrote it.
    pub(super) seen: BTreeMap<String, Option<(String, u64)>>,
}

pub(super) fn outcome_of(result: &Result<Response, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) if error.certainty() == Certainty::NotDone => "fail",
        Err(_) => "unknown",
    }
}

impl Worker {
    /// The session for a request: only writes have one.
    pub(super) fn session_of(&self, request: &Request) -> Option<SessionKey> {
        match (self.session, request) {
            (_, Request::Get { .. }) => None,
            (Session::Open(key), _) => Some(key),
            (_, _) => None,
        }
    }

    pub(super) fn compare_and_set(
        &mut self,
        key: &str,
        name: Bytes,
        value: String,
    ) -> (Request, Op) {
        let expected = self.seen.get(key).cloned().flatten();
        let expect = match &expected {
            // Values are unique, so that both ask the same.
            Some((_, revision)) if self.random.chance(300_000) => Expect::Revision(*revision),
            Some((expected, _)) => Expect::Value(expand(expected)),
            None => Expect::Absent,
        };
        let expected = expected.map(|(value, _)| value);
        let (origin, new) = (Origin::NONE, Some(expand(&value)));
        let request = Request::CompareAndSet { origin, key: name, expect, value: new };
        (request, Op::Cas { expect: expected, value })
    }

    pub(super) fn wait(&mut self) -> Wait {
        match self.random.below(4) {
            0 => Wait::Try,
            1 => Wait::Forever,
            _ => Wait::Millis(self.random.within(&(1..=1_500))),
        }
    }

    pub(super) fn session_done(&mut self, result: &Result<Response, Error>) {
        match (self.session, result) {
            (Session::Closing, _) => self.session = Session::None,
            (Session::Opening(_), Err(_)) => self.session = Session::Wanted,
            _ => {}
        }
    }

    pub(super) fn recorded(
        &mut self,
        asked: Asked,
        result: Result<Response, Error>,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let (kind, now_us) = (asked.kind.name(), ground.now_us());
        ground.counters.count_op(kind, outcome_of(&result));
        ground.note(&[self.id, self.seq, u64::from(result.is_ok())], || {
            format!("client {}: {asked:?}: {}", self.id, brief(&result))
        });
        match result {
            Ok(response) => match self.reply_to(&asked, response) {
                Ok(Some((reply, revision))) => book.ok(asked, reply, revision, now_us),
                Ok(None) => book.fail(asked, "not acquired", now_us),
                Err(wrong) => {
                    ground.oracle.fail(|| format!("client {}: {asked:?}: {wrong}", self.id));
                }
            },
            Err(error) => {
                self.check_refused_release(&asked, &error, ground);
                match error.certainty() {
                    Certainty::NotDone => book.fail(asked, &error.to_string(), now_us),
                    Certainty::Done | Certainty::Unknown => {
                        book.unknown(asked, &error.to_string());
                    }
                }
            }
        }
    }

    /// What the answer says in the words of the history; `None` for a lock that was not acquired.
    fn reply_to(
        &mut self,
        asked: &Asked,
        response: Response,
    ) -> Result<Option<(Reply, Option<u64>)>, String> {
        let key = asked.record.key.clone();
        let (reply, revision) = match (&asked.record.op, response) {
            (Op::Put { value }, Response::Put { revision }) => {
                self.seen.insert(key, Some((value.clone(), revision)));
                (Reply::Put, Some(revision))
            }
            (Op::Del, Response::Deleted { revision, deleted }) => {
                self.seen.insert(key, None);
                (Reply::Del { deleted }, Some(revision))
            }
            (Op::Cas { value, .. }, Response::CompareAndSet { revision, swapped, .. }) => {
                if swapped {
                    self.seen.insert(key, Some((value.clone(), revision)));
                }
                (Reply::Cas { swapped }, Some(revision))
            }
            (Op::Get, Response::Get { revision, item }) => {
                let value = value_of(item.as_ref(), revision)?;
                let modified = item.map(|item| item.mod_revision);
                self.seen.insert(key, value.clone().zip(modified));
                (Reply::Get { value }, Some(revision))
            }
            (Op::Lock, Response::LockGranted { token }) => {
                self.held.push((key, token));
                (Reply::Lock { token }, None)
            }
            (Op::Lock, Response::LockNotAcquired) => return Ok(None),
            (Op::Unlock { token: Some(token) }, Response::LockReleased) => {
                (Reply::Unlock { token: *token }, None)
            }
            (_, other) => return Err(format!("answered with {other:?}")),
        };
        Ok(Some((reply, revision)))
    }

    /// A session that lives has what it was granted until it gives it back.
    fn check_refused_release(&self, asked: &Asked, error: &Error, ground: &mut Ground) {
        let lives = matches!(self.session, Session::Open(_));
        let is_release = matches!(asked.record.op, Op::Unlock { .. });
        if is_release && lives && error.code() == ErrorCode::NotHolder {
            ground.oracle.fail(|| {
                format!("client {} lost a lock though its session lives: {asked:?}", self.id)
            });
        }
    }

    /// Every key of the page, and every key that the page shows to be absent, was read at one revision.
    pub(super) fn range_read(
        &mut self,
        call_ns: u64,
        result: Result<Response, Error>,
        plan: &Plan,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        let kind = OpKind::Range;
        ground.counters.count_op(kind.name(), outcome_of(&result));
        let Ok(response) = result else { return };
        let Response::Range { revision, items, more } = response else {
            return ground.oracle.fail(|| format!("a range was answered with {response:?}"));
        };
        let mut found = BTreeMap::new();
        for item in &items {
            match value_of(Some(&item.item), revision) {
                Ok(value) => {
                    found.insert(String::from_utf8_lossy(&item.key).into_owned(), value);
                }
                Err(wrong) => return ground.oracle.fail(|| format!("a range held {wrong}")),
            }
        }
        let last = found.keys().next_back().cloned();
        let keys = (0..plan.keys)
            .map(key_of)
            .filter(|key| !more || last.as_ref().is_some_and(|last| key <= last));
        let values = keys.map(|key| (key.clone(), found.get(&key).cloned().flatten())).collect();
        book.range(self.id, call_ns, revision, values, ground.now_us());
    }

    pub(super) fn stale_read(
        key: String,
        result: Result<Response, Error>,
        ground: &mut Ground,
        book: &mut Book,
    ) {
        ground.counters.count_op(OpKind::StaleGet.name(), outcome_of(&result));
        let Ok(response) = result else { return };
        let Response::Get { revision, item } = response else {
            return ground.oracle.fail(|| format!("a stale read was answered with {response:?}"));
        };
        match value_of(item.as_ref(), revision) {
            Ok(value) => {
                let written = item.map(|item| item.mod_revision).zip(value);
                book.stale(key, revision, written);
            }
            Err(wrong) => ground.oracle.fail(|| format!("a stale read brought {wrong}")),
        }
    }
}

/// The name of the value that was read at `revision`.
fn value_of(item: Option<&Item>, revision: u64) -> Result<Option<String>, String> {
    let Some(item) = item else { return Ok(None) };
    let (created, modified) = (item.create_revision, item.mod_revision);
    if created > modified || modified > revision || item.version == 0 {
        return Err(format!("an item of revisions {created} to {modified} at revision {revision}"));
    }
    recognise(&item.value).map(Some)
}

fn brief(result: &Result<Response, Error>) -> String {
    match result {
        Ok(Response::Get { revision, item }) => {
            let value = item.as_ref().map(|item| recognise(&item.value));
            format!("revision {revision}, {value:?}")
        }
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}
