//! What the cleaner costs: random overwrites of a state whose values lie in the log, with the cleaner beside them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use bench::random::Random;
use bytes::Bytes;
use engine::{Options, Status};
use server::replica::Cleanable;
use server::state_machine::{Loaded, State};

use crate::driver::{Driver, entry_of};

/// What is live: so many bytes of values.
const LIVE_BYTES: u64 = 2 << 30;
const KEY_BYTES: u64 = 24;
/// Log bytes between two checkpoints, and the size of one.
const INTERVAL_BYTES: u64 = 256 << 20;
const CHECKPOINT_KEY_BYTES: u64 = 80;
/// Entries in flight.
const INFLIGHT: usize = 8;
/// Steps of the cleaner in one turn.
const STEPS_MAX: usize = 8;

/// How fast users write.
struct Pace {
    from_us: u64,
    /// How many values had been written then.
    from: u64,
    values_per_second: u64,
}

impl Pace {
    /// Whether the value of this number is not due yet.
    fn holds(&self, number: u64, now_us: u64) -> bool {
        (number - self.from) > (now_us - self.from_us) * self.values_per_second / 1_000_000
    }
}

/// What is written.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) value_bytes: usize,
    /// Bytes of values in an entry.
    pub(crate) entry_bytes: usize,
    /// Four of five writes go to one of five keys.
    pub(crate) is_skewed: bool,
}

/// A state on a log, under random overwrites.
pub(crate) struct Store {
    state: State,
    /// Appended and not applied: the payloads, oldest first.
    pending: VecDeque<Bytes>,
    applied: u64,
    random: Random,
    load: Load,
    keys: u64,
    numbers: u64,
    pace: Option<Pace>,
    outcomes: Vec<server::state_machine::Applied>,
}

impl Store {
    pub(crate) fn new(load: Load) -> Store {
        Store {
            state: State::new(),
            pending: VecDeque::new(),
            applied: 0,
            random: Random::new(1, 0),
            load,
            keys: LIVE_BYTES / load.value_bytes as u64,
            numbers: 0,
            pace: None,
            outcomes: Vec::new(),
        }
    }

    fn key(&mut self) -> u64 {
        let (keys, hot) = (self.keys, self.keys / 5);
        if !self.load.is_skewed {
            self.random.below(keys)
        } else if self.random.below(5) < 4 {
            self.random.below(hot)
        } else {
            hot + self.random.below(keys - hot)
        }
    }

    /// The next entry: each key once, and then any.
    pub(crate) fn entry(&mut self) -> Bytes {
        let Load { value_bytes, entry_bytes, .. } = self.load;
        let keys = (0..entry_bytes / value_bytes).map(|_| {
            self.numbers += 1;
            if self.numbers <= self.keys { self.numbers - 1 } else { self.key() }
        });
        let payload = entry_of(keys, value_bytes);
        self.pending.push_back(payload.clone());
        payload
    }

    /// Applies what has a place, and takes a checkpoint if one is due.
    pub(crate) fn advance(&mut self, driver: &mut Driver) -> io::Result<()> {
        while let Some(payload) = self.pending.front()
            && self.applied < driver.engine.status().durable.index
        {
            let index = self.applied + 1;
            let place = driver.engine.place(index).expect("it is durable");
            let loaded = Loaded::new();
            let applied = self.state.apply(index, payload, place, &loaded, &mut self.outcomes);
            applied.map_err(io::Error::other)?;
            driver.engine.forget_places_upto(index);
            self.outcomes.clear();
            self.pending.pop_front();
            self.applied = index;
        }
        if driver.engine.log_bytes_since_checkpoint() > INTERVAL_BYTES {
            driver.begin_checkpoint(self.keys * CHECKPOINT_KEY_BYTES, self.slots(driver));
        }
        Ok(())
    }

    /// Lets the cleaner go on.
    pub(crate) fn clean(&mut self, driver: &mut Driver) {
        for _ in 0..STEPS_MAX {
            let now_us = driver.now_us();
            if !driver.engine.cleans(now_us) {
                return;
            }
            driver.engine.clean(&mut Cleanable(&mut self.state));
        }
    }

    /// The slots in which something is live.
    fn slots(&self, driver: &Driver) -> Vec<u32> {
        let slots = u32::try_from(driver.status().slots).expect("slots are numbered in 32 bits");
        (0..slots).filter(|slot| self.state.live_bytes(*slot) > 0).collect()
    }

    /// One entry more, and everything that goes with it.
    fn step(&mut self, driver: &mut Driver) -> io::Result<()> {
        while self.pending.len() < INFLIGHT && !self.is_early(driver) {
            let payload = self.entry();
            driver.append(&payload);
        }
        driver.turn()?;
        self.advance(driver)?;
        self.clean(driver);
        let is_busy = driver.engine.is_cleaning_busy();
        driver.wait(if is_busy { Duration::ZERO } else { Duration::from_millis(1) });
        Ok(())
    }

    fn is_early(&self, driver: &Driver) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.holds(self.numbers, driver.now_us()))
    }

    /// Until every key has been written, and then `times` as often.
    pub(crate) fn fill(&mut self, driver: &mut Driver, times: u64) -> io::Result<()> {
        while self.numbers < self.keys * (1 + times) {
            self.step(driver)?;
        }
        Ok(())
    }
}

/// What is measured.
pub(crate) struct Plan {
    pub(crate) below_percent: u8,
    pub(crate) load: Load,
    /// How many bytes of keys and values, and how many in a second.
    pub(crate) bytes: u64,
    pub(crate) bytes_per_second: u64,
}

/// Overwrites everything twice, and then as much as was asked for.
pub(crate) fn measure(dir: &Path, plan: &Plan) -> io::Result<String> {
    let options = Options { clean_below_percent: plan.below_percent, ..Options::default() };
    let mut driver = Driver::with(dir, &options)?;
    let mut store = Store::new(plan.load);
    store.fill(&mut driver, 0)?;
    let command_bytes = KEY_BYTES + plan.load.value_bytes as u64;
    let values_per_second = plan.bytes_per_second / command_bytes;
    let (from_us, from) = (driver.now_us(), store.numbers);
    store.pace = Some(Pace { from_us, from, values_per_second });
    store.fill(&mut driver, 2)?;
    let (before, from, from_us) = (driver.status(), store.numbers, driver.now_us());
    let (mut slots, mut looks) = (0, 0);
    while (store.numbers - from) * command_bytes < plan.bytes {
        store.step(&mut driver)?;
        slots += store.slots(&driver).len() as u64;
        looks += 1;
    }
    let written = (store.numbers - from) * command_bytes;
    let seconds = (driver.now_us() - from_us).div_ceil(1_000_000).max(1);
    let live = store.keys * command_bytes;
    Ok(table((&before, &driver.status()), (written, seconds), (live, slots / looks)))
}

#[expect(clippy::cast_precision_loss, reason = "ratios are for people")]
fn table(
    (before, after): (&Status, &Status),
    (written, seconds): (u64, u64),
    (live, slots): (u64, u64),
) -> String {
    let log = after.frame_bytes - before.frame_bytes;
    let moved = after.value_bytes - before.value_bytes;
    let share = live as f64 / (slots * (64 << 20)) as f64;
    let mut table = String::from(
        "live / slots with live values | (log + values) / user | log / user | values / user | user MB/s | slots with live values | all slots\n",
    );
    let ratio = |bytes: u64| bytes as f64 / written as f64;
    let (all, log, moved) = (ratio(log + moved), ratio(log), ratio(moved));
    let (rate, all_slots) = (written / 1_000_000 / seconds, after.slots);
    write!(table, "{share:.3} | {all:.3} | {log:.3} | {moved:.3} | {rate} | {slots} | {all_slots}")
        .expect("a string takes all");
    table
}
