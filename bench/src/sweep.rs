//! Once over all keys: delete them, write them, or read them, each until it is done.

use std::sync::Arc;

use client::Connection;
use protocol::{Consistency, Origin, Request, Response};
use tests::history::{Op, Reply};

use crate::error::{Error, Failure};
use crate::job::{Done, Job, Next};
use crate::material::{Values, key};
use crate::random::Random;
use crate::scribe::{Asked, Scribe, Told};

/// How long a sweep may go without getting a key done, in seconds.
const STUCK_SECONDS: u64 = 30;

/// What is done with each key.
#[derive(Debug, Clone)]
pub enum Act {
    /// Delete it.
    Delete,
    /// Write it.
    Put(Arc<Values>, Random),
    /// Read it, and record that.
    Get(Scribe),
}

/// One lane's part of a sweep.
#[derive(Debug)]
pub struct Sweep {
    act: Act,
    next: u64,
    step: usize,
    keys: u64,
    /// Keys to be tried again.
    again: Vec<u64>,
    /// The key of each slot, and its record.
    under_way: Vec<Option<(u64, Option<Asked>)>>,
    progress_ns: u64,
    problem: String,
    is_stuck: bool,
}

impl Sweep {
    /// Every `lanes`th of `keys` keys, from number `lane`. `now` is the time in nanoseconds.
    pub fn new(act: Act, keys: u64, lane: u32, lanes: u32, inflight: u32, now: u64) -> Sweep {
        Sweep {
            act,
            next: u64::from(lane),
            step: lanes as usize,
            keys,
            again: Vec::new(),
            under_way: vec![None; inflight as usize],
            progress_ns: now,
            problem: "none".to_owned(),
            is_stuck: false,
        }
    }

    /// Whether every key was done.
    ///
    /// # Errors
    /// When nothing got done for half a minute.
    pub fn finish(self) -> Result<(), Error> {
        let what = match self.act {
            Act::Delete => "deleting the keys",
            Act::Put(..) => "writing the keys",
            Act::Get(_) => "reading the keys",
        };
        if self.is_stuck || self.is_left() {
            return Err(Error::Stuck { what, seconds: STUCK_SECONDS, problem: self.problem });
        }
        Ok(())
    }

    fn is_left(&self) -> bool {
        !self.again.is_empty() || self.next < self.keys
    }

    fn is_stuck(&self, now: u64) -> bool {
        now.saturating_sub(self.progress_ns) > STUCK_SECONDS * 1_000_000_000
    }

    fn take_index(&mut self) -> Option<u64> {
        if let Some(index) = self.again.pop() {
            return Some(index);
        }
        let index = self.next;
        (index < self.keys).then(|| {
            self.next += self.step as u64;
            index
        })
    }
}

impl Job for Sweep {
    fn next(&mut self, slot: u32, now: u64, connection: &mut Connection) -> Next {
        if self.is_stuck(now) {
            self.is_stuck = true;
            return Next::AllRest;
        }
        let Some(index) = self.take_index() else { return Next::AllRest };
        let key = key(index);
        let mut asked = None;
        let id = match &mut self.act {
            Act::Delete => {
                let key = bytes::Bytes::copy_from_slice(&key);
                connection.submit(&Request::Delete { origin: Origin::NONE, key })
            }
            Act::Put(values, random) => {
                connection.submit_put(Origin::NONE, &key, values.draw(random))
            }
            Act::Get(scribe) => {
                asked = Some(scribe.ask(slot, &key, |_, _| Op::Get));
                connection.submit_get(Consistency::Linearizable, &key)
            }
        };
        self.under_way[slot as usize] = Some((index, asked));
        Next::Sent { id, start_ns: now }
    }

    fn finished(&mut self, done: Done) -> u64 {
        let Done { slot, sent_ns, end_ns, node, result, .. } = done;
        let (index, asked) =
            self.under_way[slot as usize].take().expect("the slot had a key under way");
        let answer = match result {
            Ok(Response::Put { .. } | Response::Deleted { .. }) => Ok((Reply::Put, None)),
            Ok(Response::Get { revision, item }) => {
                let value = item.map(|item| String::from_utf8_lossy(&item.value).into_owned());
                Ok((Reply::Get { value }, Some(revision)))
            }
            Ok(other) => Err(Failure::unexpected(&other)),
            Err(failure) => Err(failure),
        };
        match &answer {
            Ok(_) => self.progress_ns = end_ns,
            Err(failure) => {
                self.problem = format!("{}: {}", failure.code, failure.message);
                self.again.push(index);
            }
        }
        let is_done = answer.is_ok();
        if let (Act::Get(scribe), Some(asked)) = (&self.act, asked) {
            let revision = answer.as_ref().ok().and_then(|(_, revision)| *revision);
            let reply = answer.map(|(reply, _)| reply);
            scribe.tell(asked, Told { reply, revision, node, call_ns: sent_ns, return_ns: end_ns });
        }
        u64::from(is_done)
    }

    fn is_over(&self, now: u64) -> bool {
        self.is_stuck || self.is_stuck(now) || !self.is_left()
    }
}
