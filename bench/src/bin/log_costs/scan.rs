//! A scan of values that are in no cache, as fast as the engine gives them.

use std::io;

use bytes::Bytes;
use engine::{Location, Reading, Wanted};

use crate::driver::Driver;

/// What is scanned lies in as many slots as these entries fill.
const ENTRIES: u64 = 512;
/// One entry a frame.
const ENTRY_BYTES: usize = VALUE_STRIDE * 3_840;
/// More than the engine keeps of the newest frames.
const BEHIND_BYTES: usize = 40 << 20;
const KEY_BYTES: usize = 16;
/// From one value to the next in an entry, key and value.
const VALUE_STRIDE: usize = 272;
/// Requests that wait for the engine at any time, as of so many clients.
const OUTSTANDING: usize = 16;

/// Which values one request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// So many of 256 bytes that lie one behind the other.
    Ordered,
    /// So many of 256 bytes anywhere.
    Scattered,
    /// One that fills an entry.
    Large,
}

/// The values, and how far they have been read.
pub(crate) struct Scan {
    shape: Shape,
    places: Vec<Location>,
    payload: Bytes,
    /// The checksum of the value at each place in the payload, all entries having the same.
    checksums: Vec<u32>,
    /// That of one value as long as the entry.
    checksum: u32,
    slots: Vec<u32>,
    next: u64,
    outstanding: usize,
    pub(crate) values: u64,
    pub(crate) bytes: u64,
}

impl Scan {
    /// Writes what is to be scanned, and a checkpoint that keeps its slots.
    pub(crate) fn prepare(driver: &mut Driver, shape: Shape) -> io::Result<Scan> {
        let payload: Vec<u8> =
            (0..ENTRY_BYTES).map(|at| u8::try_from(at / 7 % 251).expect("below 251")).collect();
        let payload = Bytes::from(payload);
        let mut places = Vec::new();
        let append = |driver: &mut Driver| {
            let write = driver.append(&payload);
            driver.wait_for(write)?;
            let place = driver.engine.place(driver.last.index).expect("it is durable");
            driver.engine.forget_places_upto(driver.last.index);
            io::Result::Ok(place)
        };
        for _ in 0..ENTRIES {
            places.push(append(driver)?);
        }
        for _ in 0..BEHIND_BYTES / ENTRY_BYTES {
            append(driver)?;
        }
        let mut slots: Vec<u32> = places.iter().map(|place| place.slot()).collect();
        slots.sort_unstable();
        slots.dedup();
        driver.begin_checkpoint(4_096, slots.clone());
        let checksums = payload.chunks(VALUE_STRIDE).map(checksum_after_key).collect();
        let checksum = checksum_after_key(&payload);
        Ok(Scan {
            shape,
            places,
            payload,
            checksums,
            checksum,
            slots,
            next: 0,
            outstanding: 0,
            values: 0,
            bytes: 0,
        })
    }

    /// The slots that checkpoints must keep for it.
    pub(crate) fn slots(&self) -> Vec<u32> {
        self.slots.clone()
    }

    /// Asks for as much as may be outstanding.
    pub(crate) fn advance(&mut self, driver: &mut Driver) -> io::Result<()> {
        for results in driver.values.drain(..) {
            self.outstanding -= 1;
            for value in results {
                let value = value.map_err(io::Error::other)?;
                self.values += 1;
                self.bytes += value.len() as u64;
            }
        }
        while self.outstanding < OUTSTANDING {
            let wanted = self.next_request();
            self.outstanding += 1;
            let _pin = driver.engine.reader().pin();
            driver.engine.read_values(0, wanted, Reading::Once);
        }
        Ok(())
    }

    /// Waits for what is outstanding.
    pub(crate) fn end(&mut self, driver: &mut Driver) -> io::Result<()> {
        while driver.values.len() < self.outstanding {
            driver.wait(std::time::Duration::from_millis(10));
            driver.turn()?;
        }
        driver.values.clear();
        self.outstanding = 0;
        Ok(())
    }

    fn next_request(&mut self) -> Vec<Wanted> {
        let per_entry = self.checksums.len() as u64;
        let total = per_entry * self.places.len() as u64;
        let count = match self.shape {
            Shape::Ordered => 256,
            Shape::Scattered => 8,
            Shape::Large => return vec![self.large()],
        };
        let first = self.next;
        self.next += count;
        // A step without a common divisor with the number of values comes to each of them.
        let step = if self.shape == Shape::Scattered { 1_000_003 } else { 1 };
        let number = |at: u64| at.wrapping_mul(step) % total;
        (first..first + count).map(|at| self.wanted(number(at), per_entry)).collect()
    }

    fn wanted(&self, number: u64, per_entry: u64) -> Wanted {
        let (entry, part) = (index(number / per_entry), index(number % per_entry));
        let start = part * VALUE_STRIDE;
        Wanted {
            location: self.places[entry].plus(start),
            key: self.payload.slice(start..start + KEY_BYTES),
            value_bytes: length(VALUE_STRIDE - KEY_BYTES),
            checksum: self.checksums[part],
        }
    }

    fn large(&mut self) -> Wanted {
        let entry = index(self.next % self.places.len() as u64);
        self.next += 1;
        Wanted {
            location: self.places[entry],
            key: self.payload.slice(..KEY_BYTES),
            value_bytes: length(ENTRY_BYTES - KEY_BYTES),
            checksum: self.checksum,
        }
    }
}

fn checksum_after_key(bytes: &[u8]) -> u32 {
    crc32fast::hash(&bytes[KEY_BYTES..])
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("about a mebibyte")
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("it counts what is in memory")
}
