//! A data set that can be told from its seed: every key written once, in order, or read back in order and compared.
//!
//! It answers what a load on random keys cannot: is everything there, byte for byte, and does the last tenth go as fast
//! as the first?

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use client::Connection;
use protocol::{Consistency, KeyRange, Origin, RangeItem, Request, Response};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::error::{Error, Failure};
use crate::job::{Done, Job, Next};
use crate::lane::{Lane, Shared};
use crate::material::{key, value_of};
use crate::options::WholePlan;
use crate::progress;

/// How long a lane may go without getting anything done, in seconds.
const STUCK_SECONDS: u64 = 60;

/// Keys that one slot reads on its own, page after page. Written are single keys, so that all of them come in order.
const STRETCH_KEYS: u64 = 4_096;

/// What is done with the keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Write them.
    Fill,
    /// Read them and compare.
    Verify,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WholeReport {
    /// Keys that were written, or read back as they should be.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Keys that are missing or hold something else; the first of them.
    pub wrong: u64,
    /// Which was the first.
    pub first_wrong: Option<u64>,
    /// How long it took.
    pub seconds: f64,
    /// Keys a second.
    pub keys_per_s: f64,
    /// MiB of keys and values a second.
    pub mib_per_s: f64,
    /// Keys a second in each tenth of the work.
    pub tenths: Vec<f64>,
}

impl fmt::Display for WholeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WholeReport { keys, value_bytes, wrong, seconds, keys_per_s, mib_per_s, .. } = self;
        writeln!(f, "keys        {keys} of {value_bytes} bytes, {wrong} wrong")?;
        if let Some(first) = self.first_wrong {
            writeln!(f, "first wrong {}", String::from_utf8_lossy(&key(first)))?;
        }
        writeln!(f, "took        {seconds:.1} s: {keys_per_s:.0} keys/s, {mib_per_s:.0} MiB/s")?;
        let tenths: Vec<String> = self.tenths.iter().map(|rate| format!("{rate:.0}")).collect();
        write!(f, "each tenth  {} keys/s", tenths.join(" "))
    }
}

/// What all slots share.
#[derive(Debug)]
struct Work {
    act: Act,
    keys: u64,
    value_bytes: usize,
    seed: u64,
    /// The first key of the next stretch.
    next: AtomicU64,
    wrong: AtomicU64,
    first_wrong: AtomicU64,
}

impl Work {
    fn take_stretch(&self) -> Option<Stretch> {
        let length = match self.act {
            Act::Fill => 1,
            Act::Verify => STRETCH_KEYS,
        };
        let first = self.next.fetch_add(length, Ordering::Relaxed);
        let end = first.saturating_add(length).min(self.keys);
        (first < end).then_some(Stretch { at: first, end })
    }

    fn note_wrong(&self, index: u64) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.first_wrong.fetch_min(index, Ordering::Relaxed);
    }
}

/// Keys `at..end`, in order.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    at: u64,
    end: u64,
}

/// One lane's part.
struct Part {
    work: Arc<Work>,
    slots: Vec<Option<Stretch>>,
    value: Vec<u8>,
    progress_ns: u64,
    problem: String,
    is_stuck: bool,
}

impl Part {
    fn new(work: Arc<Work>, inflight: u32, now: u64) -> Part {
        let slots = vec![None; inflight as usize];
        let (value, problem) = (Vec::new(), "none".to_owned());
        Part { work, slots, value, progress_ns: now, problem, is_stuck: false }
    }

    fn is_stuck(&self, now: u64) -> bool {
        now.saturating_sub(self.progress_ns) > STUCK_SECONDS * 1_000_000_000
    }

    fn finish(self) -> Result<(), Error> {
        let what = match self.work.act {
            Act::Fill => "writing the keys",
            Act::Verify => "reading the keys",
        };
        if self.is_stuck {
            return Err(Error::Stuck { what, seconds: STUCK_SECONDS, problem: self.problem });
        }
        Ok(())
    }

    /// Compares a page with the keys that should be in it. Says up to where it reaches.
    fn compare(&mut self, stretch: Stretch, items: &[RangeItem], more: bool) -> u64 {
        let mut items = items.iter().peekable();
        let mut index = stretch.at;
        while index < stretch.end {
            let expected = key(index);
            // What nobody wrote between two keys is passed over.
            while items.next_if(|found| found.key[..] < expected[..]).is_some() {}
            if items.peek().is_none() && more {
                return index;
            }
            let found = items.next_if(|found| found.key[..] == expected[..]);
            value_of(index, self.work.seed, self.work.value_bytes, &mut self.value);
            if found.is_none_or(|found| found.item.value != self.value[..]) {
                self.work.note_wrong(index);
            }
            index += 1;
        }
        index
    }

    fn take(&mut self, stretch: Stretch, response: &Response) -> Result<u64, Failure> {
        if let Response::Put { .. } = response {
            return Ok(stretch.at + 1);
        }
        let Response::Range { items, more, .. } = response else {
            return Err(Failure::unexpected(response));
        };
        Ok(self.compare(stretch, items, *more))
    }
}

impl Job for Part {
    fn next(&mut self, slot: u32, now: u64, connection: &mut Connection) -> Next {
        if self.is_stuck(now) {
            self.is_stuck = true;
            return Next::AllRest;
        }
        let place = &mut self.slots[slot as usize];
        if place.is_none() {
            *place = self.work.take_stretch();
        }
        let Some(Stretch { at, end }) = *place else { return Next::Rest };
        let id = match self.work.act {
            Act::Fill => {
                value_of(at, self.work.seed, self.work.value_bytes, &mut self.value);
                connection.submit_put(Origin::NONE, &key(at), &self.value)
            }
            Act::Verify => {
                let (start, end) = (Bytes::copy_from_slice(&key(at)), key(end));
                let range = KeyRange { start, end: Some(Bytes::copy_from_slice(&end)) };
                let consistency = Consistency::Linearizable;
                let request = Request::Range { consistency, range, limit: 0, keys_only: false };
                connection.submit(&request)
            }
        };
        Next::Sent { id, start_ns: now }
    }

    fn finished(&mut self, done: Done) -> u64 {
        let slot = done.slot as usize;
        let stretch = self.slots[slot].expect("the slot had a stretch under way");
        let reached = done.result.and_then(|response| self.take(stretch, &response));
        match reached {
            Ok(reached) => {
                self.progress_ns = done.end_ns;
                let rest = Stretch { at: reached, ..stretch };
                self.slots[slot] = (rest.at < rest.end).then_some(rest);
                reached - stretch.at
            }
            Err(failure) => {
                // Written again, a key holds the same as before.
                self.problem = format!("{}: {}", failure.code, failure.message);
                0
            }
        }
    }

    fn is_over(&self, now: u64) -> bool {
        let is_done = self.work.next.load(Ordering::Relaxed) >= self.work.keys
            && self.slots.iter().all(Option::is_none);
        self.is_stuck || self.is_stuck(now) || is_done
    }
}

/// Goes over all keys, on a runtime of its own.
pub fn run(plan: &WholePlan) -> Result<WholeReport, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::Runtime)?.block_on(go_over(plan))
}

async fn go_over(plan: &WholePlan) -> Result<WholeReport, Error> {
    let shared = Arc::new(Shared {
        clock: Clock::start(),
        directory: Directory::new(plan.endpoints.clone()),
        timeout_ns: plan.timeout_ns,
        ops: AtomicU64::new(0),
        reconnects: AtomicU64::new(0),
    });
    let work = Arc::new(Work {
        act: plan.act,
        keys: plan.keys,
        value_bytes: plan.value_bytes,
        seed: plan.seed,
        next: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
        first_wrong: AtomicU64::new(u64::MAX),
    });
    let began = shared.clock.now_ns();
    let mut tasks = JoinSet::new();
    for _ in 0..plan.lanes {
        let mut lane = Lane::new(Arc::clone(&shared), Arc::new(Notify::new()), plan.inflight);
        let mut part = Part::new(Arc::clone(&work), plan.inflight, began);
        tasks.spawn(async move {
            lane.run(&mut part).await?;
            part.finish()
        });
    }
    let what = if plan.act == Act::Fill { "writing" } else { "reading" };
    let keys = tokio::spawn(progress::show_keys(Arc::clone(&shared), what, plan.keys));
    let tenths = tokio::spawn(progress::tenths(Arc::clone(&shared), plan.keys));
    while let Some(result) = tasks.join_next().await {
        result.expect("no task panics or is cancelled")?;
    }
    keys.abort();
    let ended = shared.clock.now_ns();
    let tenths = tenths.await.expect("watching does not panic");
    Ok(report(plan, &work, (began, ended), &tenths))
}

#[expect(clippy::cast_precision_loss, reason = "rates are for people")]
fn report(
    plan: &WholePlan,
    work: &Work,
    (began, ended): (u64, u64),
    tenths: &[u64],
) -> WholeReport {
    let seconds = (ended - began) as f64 / 1e9;
    let wrong = work.wrong.load(Ordering::Relaxed);
    let first_wrong = Some(work.first_wrong.load(Ordering::Relaxed)).filter(|_| wrong > 0);
    let keys = plan.keys - wrong;
    let bytes = plan.keys as f64 * (key(0).len() + plan.value_bytes) as f64;
    let starts = std::iter::once(began).chain(tenths.iter().copied());
    let tenth = plan.keys as f64 / 10.0;
    let rate = |(from, to): (u64, &u64)| tenth / ((*to - from).max(1) as f64 / 1e9);
    WholeReport {
        keys,
        value_bytes: plan.value_bytes,
        wrong,
        first_wrong,
        seconds,
        keys_per_s: plan.keys as f64 / seconds,
        mib_per_s: bytes / seconds / f64::from(1 << 20),
        tenths: starts.zip(tenths).map(rate).collect(),
    }
}
