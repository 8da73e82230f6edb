//! Latency of appends in an open loop, with and without bulk work beside them: checkpoints, a cold scan, a scrub.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use engine::Options;
use hdrhistogram::Histogram;

use crate::clean::{Load, Store};
use crate::driver::{Driver, entry};
use crate::scan::{Scan, Shape};

const COMMANDS: u64 = 64;
const VALUE_BYTES: usize = 256;
/// A body that takes longer than a round, or is followed by the next.
const CHECKPOINT_BYTES: u64 = 512 << 20;
/// Entries in flight when the peak is measured.
const PEAK_INFLIGHT: u64 = 64;
const PEAK_US: u64 = 2_000_000;
/// What is overwritten while the cleaner is the matter.
const CLEAN_LOAD: Load = Load { value_bytes: 1_024, entry_bytes: 64 << 10, is_skewed: false };
/// Log bytes after which a small checkpoint recycles the slots, in the half without a large one.
const INTERVAL_BYTES: u64 = 256 << 20;

/// Quantiles in microseconds.
#[derive(Clone, Copy)]
struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
}

/// What goes on beside the appends in one half of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Beside {
    /// One checkpoint of 512 MiB after the other
    Checkpoint,
    /// A cold scan at full speed: uncached values of 256 bytes by location, in the order of the log
    Scan,
    /// The same values in no order
    Scattered,
    /// The same with values of 1 MiB
    Large,
    /// Random overwrites in both halves, and the cleaner at full pace in one
    Clean,
}

impl Beside {
    fn shape(self) -> Option<Shape> {
        match self {
            Beside::Checkpoint | Beside::Clean => None,
            Beside::Scan => Some(Shape::Ordered),
            Beside::Scattered => Some(Shape::Scattered),
            Beside::Large => Some(Shape::Large),
        }
    }
}

/// Half a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Alone,
    Beside,
}

/// Paired rounds, and their medians.
pub(crate) fn measure(
    dir: &Path,
    rounds: usize,
    seconds: u64,
    beside: Beside,
) -> io::Result<String> {
    let options = Options { clean_bytes_per_second: 1 << 32, ..Options::default() };
    let mut driver = Driver::with(dir, &options)?;
    let payload = entry(0, COMMANDS, u64::MAX, VALUE_BYTES);
    let scan = beside.shape().map(|shape| Scan::prepare(&mut driver, shape)).transpose()?;
    let mut store = (beside == Beside::Clean).then(|| Store::new(CLEAN_LOAD));
    if let Some(store) = &mut store {
        store.fill(&mut driver, 1)?;
    }
    let mut bulk = Bulk { scan, store };
    let peak = peak(&mut driver, &payload, &mut bulk)?;
    let rate = peak / 2;
    let mut table = format!(
        "peak {peak} entries/s of {COMMANDS} commands of {VALUE_BYTES} bytes, driven at half of it\n"
    );
    table.push_str(
        "round | alone: p50, p99, p99.9 us | beside it | p99.9 ratio | read or moved beside it\n",
    );
    let mut pairs = Vec::new();
    for round in 1..=rounds {
        let alone = open_loop(&mut driver, &payload, (rate, seconds), Half::Alone, &mut bulk)?;
        let before = bulk.read(&driver);
        let beside = open_loop(&mut driver, &payload, (rate, seconds), Half::Beside, &mut bulk)?;
        let after = bulk.read(&driver);
        let (values, bytes) = (after.0 - before.0, after.1 - before.1);
        line(&mut table, &round.to_string(), alone, beside, ratio(&(alone, beside)));
        let (values, mib) = (values / seconds, (bytes / seconds) >> 20);
        writeln!(table, " | {values} values/s, {mib} MiB/s").expect("a string takes all");
        pairs.push((alone, beside));
    }
    let median = |value: &dyn Fn(&Latency) -> u64| {
        let of = |half: &dyn Fn(&(Latency, Latency)) -> Latency| {
            let mut values: Vec<u64> = pairs.iter().map(|pair| value(&half(pair))).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        (of(&|pair| pair.0), of(&|pair| pair.1))
    };
    let (p50, p99, p999) = (median(&|l| l.p50), median(&|l| l.p99), median(&|l| l.p999));
    let alone = Latency { p50: p50.0, p99: p99.0, p999: p999.0 };
    let beside = Latency { p50: p50.1, p99: p99.1, p999: p999.1 };
    line(&mut table, "median", alone, beside, ratio(&(alone, beside)));
    let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let middle = ratios[ratios.len() / 2];
    writeln!(table, "\nmedian of the ratios: {middle:.2}").expect("a string takes all");
    Ok(table)
}

/// The bulk work of a measurement.
struct Bulk {
    /// Without one it is checkpoints.
    scan: Option<Scan>,
    /// Whose values the appends overwrite, if the cleaner is the matter.
    store: Option<Store>,
}

impl Bulk {
    /// What the next append is, if not the same as ever.
    fn payload(&mut self, payload: &Bytes) -> Bytes {
        self.store.as_mut().map_or_else(|| payload.clone(), Store::entry)
    }

    /// What goes with appends in both halves.
    fn apply(&mut self, driver: &mut Driver) -> io::Result<()> {
        self.store.as_mut().map_or(Ok(()), |store| store.advance(driver))
    }

    /// A small checkpoint now and then lets the slots be used anew.
    fn recycle(&self, driver: &mut Driver) {
        if self.store.is_none() && driver.engine.log_bytes_since_checkpoint() > INTERVAL_BYTES {
            driver.begin_checkpoint(4_096, self.slots());
        }
    }

    fn slots(&self) -> Vec<u32> {
        self.scan.as_ref().map(Scan::slots).unwrap_or_default()
    }

    fn advance(&mut self, driver: &mut Driver) -> io::Result<()> {
        match (&mut self.scan, &mut self.store) {
            (Some(scan), _) => scan.advance(driver)?,
            (None, Some(store)) => store.clean(driver),
            (None, None) => driver.begin_checkpoint(CHECKPOINT_BYTES, Vec::new()),
        }
        self.recycle(driver);
        Ok(())
    }

    fn end(&mut self, driver: &mut Driver) -> io::Result<()> {
        self.scan.as_mut().map_or(Ok(()), |scan| scan.end(driver))
    }

    /// Values and bytes that were read, or moved.
    fn read(&self, driver: &Driver) -> (u64, u64) {
        let moved = (driver.status().values_moved, driver.status().moved_bytes);
        self.scan.as_ref().map_or(moved, |scan| (scan.values, scan.bytes))
    }
}

#[expect(clippy::cast_precision_loss, reason = "ratios are for people")]
fn ratio((alone, beside): &(Latency, Latency)) -> f64 {
    beside.p999 as f64 / alone.p999 as f64
}

/// All but the end of a line.
fn line(table: &mut String, name: &str, alone: Latency, beside: Latency, ratio: f64) {
    let cell = |latency: Latency| format!("{}, {}, {}", latency.p50, latency.p99, latency.p999);
    let (alone, beside) = (cell(alone), cell(beside));
    write!(table, "{name} | {alone} | {beside} | {ratio:.2}").expect("a string takes all");
}

/// Entries a second in a closed loop, once slots have been made.
fn peak(driver: &mut Driver, payload: &Bytes, bulk: &mut Bulk) -> io::Result<u64> {
    let mut counted = (0, 0);
    for _ in 0..3 {
        let (from_us, from) = (driver.now_us(), driver.durable);
        let mut sent = driver.durable;
        while driver.now_us() < from_us + PEAK_US {
            while sent < driver.durable + PEAK_INFLIGHT {
                sent = driver.append(&bulk.payload(payload));
            }
            bulk.recycle(driver);
            driver.turn()?;
            bulk.apply(driver)?;
            driver.wait(Duration::from_millis(10));
        }
        driver.wait_for(sent)?;
        counted = (driver.durable - from, driver.now_us() - from_us);
    }
    Ok(counted.0 * 1_000_000 / counted.1)
}

/// Appends at a fixed rate, whatever the log does; latency counts from when an append was due.
fn open_loop(
    driver: &mut Driver,
    payload: &Bytes,
    (rate, seconds): (u64, u64),
    half: Half,
    bulk: &mut Bulk,
) -> io::Result<Latency> {
    let mut histogram: Histogram<u64> = Histogram::new(3).expect("three digits are allowed");
    let mut due = VecDeque::new();
    let from_us = driver.now_us();
    let until_us = from_us + seconds * 1_000_000;
    let mut sent = 0;
    loop {
        let now_us = driver.now_us();
        let due_us = |number: u64| from_us + number * 1_000_000 / rate;
        while due_us(sent) <= now_us && now_us < until_us {
            due.push_back((driver.append(&bulk.payload(payload)), due_us(sent)));
            sent += 1;
        }
        if due.is_empty() && now_us >= until_us {
            break;
        }
        match half {
            Half::Alone => bulk.recycle(driver),
            Half::Beside => bulk.advance(driver)?,
        }
        driver.turn()?;
        bulk.apply(driver)?;
        let now_us = driver.now_us();
        while due.front().is_some_and(|(write, _)| *write <= driver.durable) {
            let (_, due_us) = due.pop_front().expect("it was just seen");
            histogram.record(now_us - due_us).expect("it grows as it must");
        }
        driver.wait(Duration::from_micros(due_us(sent).saturating_sub(driver.now_us())));
    }
    bulk.end(driver)?;
    while driver.is_checkpointing() {
        driver.wait(Duration::from_millis(10));
        driver.turn()?;
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    Ok(Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
}
