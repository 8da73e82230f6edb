//! The load on keys: puts, gets, ranges and mixes of them.

use std::sync::Arc;

use bytes::Bytes;
use client::Connection;
use protocol::{Consistency, Expect, KeyRange, Origin, Request, Response};
use tests::history::{Op, Reply};

use crate::error::Failure;
use crate::job::{Done, Job, Next};
use crate::material::{KEY_BYTES, Values, key, unique_value};
use crate::options::{OpKind, Plan};
use crate::pace::Pace;
use crate::random::Random;
use crate::scribe::{Asked, Scribe, Told};
use crate::tally::Tally;

/// One lane's load.
#[derive(Debug)]
pub struct Load {
    op: OpKind,
    keys: u64,
    range_limit: u32,
    pace: Pace,
    random: Random,
    values: Arc<Values>,
    tally: Tally,
    recorded: Option<Recorded>,
}

/// What a recorded load remembers besides.
#[derive(Debug)]
struct Recorded {
    scribe: Scribe,
    value_bytes: usize,
    /// What each slot has asked, and for which key.
    asked: Vec<Option<(usize, Asked)>>,
    /// What this lane last saw in each key: what a compare-and-set expects.
    seen: Vec<Option<String>>,
}

impl Load {
    /// The load of lane `lane`, without a record.
    pub fn new(plan: &Plan, lane: u32, pace: Pace, values: Arc<Values>) -> Load {
        Load {
            op: plan.op,
            keys: plan.keys,
            range_limit: plan.range_limit,
            pace,
            random: Random::new(plan.seed, u64::from(lane)),
            values,
            tally: Tally::default(),
            recorded: None,
        }
    }

    /// The same load, every operation of which `scribe` records.
    #[must_use]
    pub fn recorded(self, plan: &Plan, scribe: Scribe) -> Load {
        let recorded = Recorded {
            scribe,
            value_bytes: plan.value_bytes,
            asked: vec![None; plan.inflight as usize],
            seen: vec![None; usize::try_from(self.keys).expect("a history's keys fit in memory")],
        };
        Load { recorded: Some(recorded), ..self }
    }

    /// What was counted, and the scribe.
    pub fn finish(mut self) -> (Tally, Option<Scribe>) {
        self.tally.add_errors("never_started", self.pace.unstarted());
        (self.tally, self.recorded.map(|recorded| recorded.scribe))
    }

    fn submit(&mut self, key: &[u8; KEY_BYTES], connection: &mut Connection) -> u64 {
        let is_put = match self.op {
            OpKind::Put => true,
            OpKind::Mixed => self.random.below(2) == 0,
            OpKind::Get => false,
            OpKind::Range => return connection.submit(&range(key, self.range_limit)),
            OpKind::Lock => unreachable!("locks are another load"),
        };
        if is_put {
            connection.submit_put(Origin::NONE, key, self.values.draw(&mut self.random))
        } else {
            connection.submit_get(Consistency::Linearizable, key)
        }
    }
}

impl Job for Load {
    fn next(&mut self, slot: u32, now: u64, connection: &mut Connection) -> Next {
        let Some(start_ns) = self.pace.take(now) else { return Next::AllRest };
        let index = self.random.below(self.keys);
        let key = key(index);
        let id = match &mut self.recorded {
            None => self.submit(&key, connection),
            Some(recorded) => {
                let request = recorded.ask(slot, index, &key, self.op, &mut self.random);
                connection.submit(&request)
            }
        };
        Next::Sent { id, start_ns }
    }

    fn finished(&mut self, done: Done) -> u64 {
        let Done { start_ns, end_ns, .. } = done;
        let counts = self.pace.counts(start_ns, end_ns);
        match &done.result {
            Ok(response) if counts => {
                self.tally.done(end_ns - start_ns);
                if let Response::Range { items, .. } = response {
                    self.tally.items += items.len() as u64;
                }
            }
            Err(failure) if counts => self.tally.failed(&failure.code, failure.is_unknown),
            Ok(_) | Err(_) => {}
        }
        let ops = u64::from(done.result.is_ok());
        if let Some(recorded) = &mut self.recorded {
            recorded.tell(done);
        }
        ops
    }

    fn is_over(&self, now: u64) -> bool {
        self.pace.is_over(now)
    }
}

impl Recorded {
    /// The next operation of a slot: a kind, and a value that nobody else writes.
    fn ask(
        &mut self,
        slot: u32,
        index: u64,
        key: &[u8],
        kind: OpKind,
        random: &mut Random,
    ) -> Request {
        let value_bytes = self.value_bytes;
        let draw = match kind {
            OpKind::Put => 0,
            OpKind::Get => 4,
            OpKind::Mixed | OpKind::Range | OpKind::Lock => random.below(10),
        };
        let index = usize::try_from(index).expect("a history's keys fit in memory");
        let expect = self.seen[index].clone();
        let asked = self.scribe.ask(slot, key, |client, seq| {
            let value = unique_value(client, seq, value_bytes);
            match draw {
                0..4 => Op::Put { value },
                4..7 => Op::Get,
                7..9 => Op::Cas { expect, value },
                _ => Op::Del,
            }
        });
        let request = request(&asked.op, key);
        self.asked[slot as usize] = Some((index, asked));
        request
    }

    fn tell(&mut self, done: Done) {
        let Done { slot, sent_ns, end_ns, node, result, .. } = done;
        let (index, asked) =
            self.asked[slot as usize].take().expect("the slot had an operation under way");
        let (reply, revision) = match result.and_then(|response| reply(&asked.op, response)) {
            Ok((reply, revision)) => (Ok(reply), Some(revision)),
            Err(failure) => (Err(failure), None),
        };
        if let Ok(reply) = &reply {
            note(&mut self.seen[index], &asked.op, reply);
        }
        let told = Told { reply, revision, node, call_ns: sent_ns, return_ns: end_ns };
        self.scribe.tell(asked, told);
    }
}

fn range(key: &[u8], limit: u32) -> Request {
    let start = Bytes::copy_from_slice(key);
    Request::Range {
        consistency: Consistency::Linearizable,
        range: KeyRange { start, end: None },
        limit,
        keys_only: false,
    }
}

/// The request of a recorded operation. Without a session, so that nothing is done twice behind the history's back.
fn request(op: &Op, key: &[u8]) -> Request {
    let key = Bytes::copy_from_slice(key);
    let origin = Origin::NONE;
    match op {
        Op::Put { value } => Request::Put { origin, key, value: value.clone().into() },
        Op::Get => Request::Get { consistency: Consistency::Linearizable, key },
        Op::Del => Request::Delete { origin, key },
        Op::Cas { expect, value } => {
            let expect = expect.clone().map_or(Expect::Absent, |text| Expect::Value(text.into()));
            Request::CompareAndSet { origin, key, expect, value: Some(value.clone().into()) }
        }
        Op::Lock | Op::Unlock { .. } | Op::Txn { .. } => unreachable!("operations on keys only"),
    }
}

/// The answer as the history has it, with its revision.
fn reply(op: &Op, response: Response) -> Result<(Reply, u64), Failure> {
    match (op, response) {
        (Op::Put { .. }, Response::Put { revision }) => Ok((Reply::Put, revision)),
        (Op::Get, Response::Get { revision, item }) => {
            let value = item.map(|item| String::from_utf8_lossy(&item.value).into_owned());
            Ok((Reply::Get { value }, revision))
        }
        (Op::Del, Response::Deleted { revision, deleted }) => {
            Ok((Reply::Del { deleted }, revision))
        }
        (Op::Cas { .. }, Response::CompareAndSet { revision, swapped, .. }) => {
            Ok((Reply::Cas { swapped }, revision))
        }
        (_, other) => Err(Failure::unexpected(&other)),
    }
}

/// Notes what the key holds after `op`, if that is known.
fn note(seen: &mut Option<String>, op: &Op, reply: &Reply) {
    match (op, reply) {
        (Op::Put { value }, _) | (Op::Cas { value, .. }, Reply::Cas { swapped: true }) => {
            *seen = Some(value.clone());
        }
        (_, Reply::Get { value }) => seen.clone_from(value),
        (Op::Del, _) => *seen = None,
        _ => {}
    }
}
