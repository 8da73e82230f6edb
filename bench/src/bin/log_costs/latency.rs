//! Latency of appends in an open loop, with and without a checkpoint beside them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::driver::{Driver, entry};

const COMMANDS: u64 = 64;
const VALUE_BYTES: usize = 256;
/// A body that takes longer than a round, or is followed by the next.
const CHECKPOINT_BYTES: u64 = 512 << 20;
/// Entries in flight when the peak is measured.
const PEAK_INFLIGHT: u64 = 64;
const PEAK_US: u64 = 2_000_000;
/// Log bytes after which a small checkpoint recycles the slots, in the half without a large one.
const INTERVAL_BYTES: u64 = 256 << 20;

/// Quantiles in microseconds.
#[derive(Clone, Copy)]
struct Latency {
    p50: u64,
    p99: u64,
    p999: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Checkpoints,
}

/// Paired rounds, and the medians of both halves.
pub(crate) fn measure(dir: &Path, rounds: usize, seconds: u64) -> io::Result<String> {
    let mut driver = Driver::new(dir)?;
    let payload = entry(0, COMMANDS, u64::MAX, VALUE_BYTES);
    let peak = peak(&mut driver, &payload)?;
    let mut table = format!(
        "peak {peak} entries/s of {COMMANDS} commands of {VALUE_BYTES} bytes, driven at half of it\n"
    );
    table.push_str("round | without: p50, p99, p99.9 us | with a checkpoint | p99.9 ratio\n");
    let mut pairs = Vec::new();
    for round in 1..=rounds {
        let without = open_loop(&mut driver, &payload, peak / 2, seconds, Beside::Nothing)?;
        let with = open_loop(&mut driver, &payload, peak / 2, seconds, Beside::Checkpoints)?;
        line(&mut table, &round.to_string(), without, with);
        pairs.push((without, with));
    }
    let median = |value: &dyn Fn(&(Latency, Latency)) -> u64| {
        let mut values: Vec<u64> = pairs.iter().map(value).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let without = Latency {
        p50: median(&|pair| pair.0.p50),
        p99: median(&|pair| pair.0.p99),
        p999: median(&|pair| pair.0.p999),
    };
    let with = Latency {
        p50: median(&|pair| pair.1.p50),
        p99: median(&|pair| pair.1.p99),
        p999: median(&|pair| pair.1.p999),
    };
    line(&mut table, "median", without, with);
    Ok(table)
}

#[expect(clippy::cast_precision_loss, reason = "ratios are for people")]
fn line(table: &mut String, name: &str, without: Latency, with: Latency) {
    let ratio = with.p999 as f64 / without.p999 as f64;
    let cell = |latency: Latency| format!("{}, {}, {}", latency.p50, latency.p99, latency.p999);
    let (without, with) = (cell(without), cell(with));
    writeln!(table, "{name} | {without} | {with} | {ratio:.2}").expect("a string takes all");
}

/// Entries a second in a closed loop, once slots have been made.
fn peak(driver: &mut Driver, payload: &Bytes) -> io::Result<u64> {
    let mut counted = (0, 0);
    for _ in 0..3 {
        let (from_us, from) = (driver.now_us(), driver.durable);
        let mut sent = driver.durable;
        while driver.now_us() < from_us + PEAK_US {
            while sent < driver.durable + PEAK_INFLIGHT {
                sent = driver.append(payload);
            }
            recycle(driver);
            driver.turn()?;
            driver.wait(Duration::from_millis(10));
        }
        driver.wait_for(sent)?;
        counted = (driver.durable - from, driver.now_us() - from_us);
    }
    Ok(counted.0 * 1_000_000 / counted.1)
}

fn recycle(driver: &mut Driver) {
    if driver.engine.log_bytes_since_checkpoint() > INTERVAL_BYTES {
        driver.begin_checkpoint(4_096, Vec::new());
    }
}

/// Appends at a fixed rate, whatever the log does; latency counts from when an append was due.
fn open_loop(
    driver: &mut Driver,
    payload: &Bytes,
    rate: u64,
    seconds: u64,
    beside: Beside,
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
            due.push_back((driver.append(payload), due_us(sent)));
            sent += 1;
        }
        if due.is_empty() && now_us >= until_us {
            break;
        }
        match beside {
            Beside::Nothing => recycle(driver),
            Beside::Checkpoints => driver.begin_checkpoint(CHECKPOINT_BYTES, Vec::new()),
        }
        driver.turn()?;
        let now_us = driver.now_us();
        while due.front().is_some_and(|(write, _)| *write <= driver.durable) {
            let (_, due_us) = due.pop_front().expect("it was just seen");
            histogram.record(now_us - due_us).expect("it grows as it must");
        }
        driver.wait(Duration::from_micros(due_us(sent).saturating_sub(driver.now_us())));
    }
    while driver.is_checkpointing() {
        driver.wait(Duration::from_millis(10));
        driver.turn()?;
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    Ok(Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
}
