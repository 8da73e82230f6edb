//! A log that many threads append to. Each waits until its entry is durable; one of them at a time drives the engine.
//!
//! ```text
//! append   queue the entry; nobody drives? then drive, else sleep on the round
//! drive    take what is queued: that is a round, one write; until it is durable: turn, wait
//!          name a driver for what has been queued meanwhile, then wake everybody of the round
//! ```
//!
//! Invariants:
//! - What is queued belongs to the newest round; if anything is queued, somebody drives or is asked to.
//! - A driver's own entry is in the round that it drives, so it drives one round and returns. It stays longer only while
//!   the disk's operations in flight are tied to its thread ([`crate::io::Disk::may_move`]).
//! - A round sleeps on a word of its own. It is woken by one system call, outside of every lock, and nobody takes a lock
//!   after it: whoever wakes finds the outcome in the word.
//! - The first error ends the round, everything queued and every later append with it. What was in the round has an
//!   unknown outcome.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::thread::futex;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::io::Disk;
use crate::opening::Opened;
use crate::types::{Append, Entry, Event};

/// How long a driver whom the disk holds back looks away from what is queued.
const TIED_WAIT: Duration = Duration::from_millis(1);

/// What a [`SharedLog`] needs from its owner. A closure that tells the time is enough.
pub trait Surroundings {
    /// Microseconds on a clock that never goes back.
    fn now_us(&mut self) -> u64;

    /// The engine reports something else than a durable write. Called by whichever thread drives.
    fn on_event(&mut self, event: Event) {
        drop(event);
    }
}

impl<F: FnMut() -> u64> Surroundings for F {
    fn now_us(&mut self) -> u64 {
        self()
    }
}

/// An engine that many threads append to, in one term, each waiting for its own entries.
///
/// It needs no thread of its own: the threads that wait drive the engine, one at a time. While nobody appends nothing
/// moves: jobs of the engine, as checkpoints, go on with the next append or in [`SharedLog::with_engine`].
///
/// Any disk will do; one that [may move](crate::io::Disk::may_move) at any time is the fastest, for the driver changes
/// with every round. For the real backends that is the one of system calls.
pub struct SharedLog<D: Disk, S> {
    queue: Mutex<Queue>,
    driver: Mutex<Driver<D, S>>,
    payload_bytes_max: usize,
    term: u64,
}

/// What waits for the next round.
struct Queue {
    entries: Vec<Entry>,
    last_index: u64,
    round: Arc<Round>,
    /// Somebody drives or has been asked to.
    is_driven: bool,
    failed: Option<EngineError>,
}

/// Held by whoever drives.
struct Driver<D: Disk, S> {
    engine: Engine<D>,
    surroundings: S,
    write: u64,
    durable: u64,
    events: Vec<Event>,
}

impl<D: Disk, S> fmt::Debug for SharedLog<D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.lock();
        f.debug_struct("SharedLog")
            .field("term", &self.term)
            .field("last_index", &queue.last_index)
            .field("queued", &queue.entries.len())
            .field("failed", &queue.failed)
            .finish_non_exhaustive()
    }
}

impl<D: Disk, S: Surroundings> SharedLog<D, S> {
    /// Goes on after what the open has recovered. Every entry gets `term`.
    ///
    /// Requires: nothing was appended to the engine since its open; an entry has at most
    /// [`crate::Options::entry_bytes_max`] bytes with the options of that open.
    pub fn new(opened: Opened<D>, term: u64, surroundings: S) -> SharedLog<D, S> {
        let Opened { engine, recovered } = opened;
        let queue = Queue {
            entries: Vec::new(),
            last_index: recovered.last.index,
            round: Arc::default(),
            is_driven: false,
            failed: None,
        };
        let payload_bytes_max = engine.entry_bytes_max();
        let driver = Driver { engine, surroundings, write: 0, durable: 0, events: Vec::new() };
        let (queue, driver) = (Mutex::new(queue), Mutex::new(driver));
        SharedLog { queue, driver, payload_bytes_max, term }
    }

    /// Appends an entry and waits until it is durable. Gives its index.
    ///
    /// Errors: final, for everybody; whether the entry is in the log shows at the next open.
    ///
    /// Requires: `payload` is not larger than an entry may be.
    pub fn append(&self, kind: u8, payload: Bytes) -> Result<u64, EngineError> {
        assert!(payload.len() <= self.payload_bytes_max, "the entry is too large");
        self.append_each(kind, [payload])
    }

    /// Appends entries with consecutive indices and waits until all are durable. Gives the last one's index.
    ///
    /// Errors: as for [`SharedLog::append`]; some of the first entries may be in the log without the rest.
    ///
    /// Requires: there is a payload, and none is larger than an entry may be.
    pub fn append_all(&self, kind: u8, payloads: Vec<Bytes>) -> Result<u64, EngineError> {
        let largest = payloads.iter().map(Bytes::len).max().expect("there is a payload");
        assert!(largest <= self.payload_bytes_max, "an entry is too large");
        self.append_each(kind, payloads)
    }

    fn append_each(
        &self,
        kind: u8,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> Result<u64, EngineError> {
        let mut queue = self.queue.lock();
        if let Some(error) = &queue.failed {
            return Err(error.clone());
        }
        for payload in payloads {
            queue.last_index += 1;
            let (index, term) = (queue.last_index, self.term);
            queue.entries.push(Entry { index, term, kind, payload });
        }
        let (last_index, round) = (queue.last_index, Arc::clone(&queue.round));
        let drives = !std::mem::replace(&mut queue.is_driven, true);
        drop(queue);
        if drives {
            self.drive();
        }
        loop {
            match round.wait() {
                Woken::Durable => return Ok(last_index),
                Woken::Failed => return Err(self.failure()),
                Woken::ToDrive => self.drive(),
            }
        }
    }

    /// Uses the engine between two rounds: to look at it, to begin a checkpoint or to feed one.
    ///
    /// Requires: the caller neither appends to the engine nor calls its `turn` or `wait`.
    pub fn with_engine<R>(&self, f: impl FnOnce(&mut Engine<D>) -> R) -> R {
        f(&mut self.driver.lock().engine)
    }

    /// The engine, when nobody appends any more. For a clean stop call its `turn` until it is idle.
    pub fn into_engine(self) -> Engine<D> {
        self.driver.into_inner().engine
    }

    /// Drives one round, and on while the disk is tied to this thread.
    fn drive(&self) {
        let mut driver = self.driver.lock();
        loop {
            let (entries, round) = self.begin_round();
            let result = if entries.is_empty() { driver.rest() } else { driver.write(entries) };
            let may_move = result.is_err() || driver.engine.may_move();
            let next = self.end_round(&result, may_move);
            match next {
                Next::Leave(next) => {
                    drop(driver);
                    if let Some(next) = next {
                        next.name_driver();
                    }
                    round.end(&result);
                    return;
                }
                Next::Stay => round.end(&result),
            }
        }
    }

    fn begin_round(&self) -> (Vec<Entry>, Arc<Round>) {
        let mut queue = self.queue.lock();
        (std::mem::take(&mut queue.entries), std::mem::take(&mut queue.round))
    }

    fn end_round(&self, result: &Result<(), EngineError>, may_move: bool) -> Next {
        let mut queue = self.queue.lock();
        if let Err(error) = result {
            queue.failed = Some(error.clone());
            queue.entries.clear();
            queue.round.end(result);
        }
        if !may_move {
            return Next::Stay;
        }
        queue.is_driven = !queue.entries.is_empty();
        Next::Leave(queue.is_driven.then(|| Arc::clone(&queue.round)))
    }

    fn failure(&self) -> EngineError {
        self.queue.lock().failed.clone().expect("a round fails with an error")
    }
}

/// What a driver does after a round.
enum Next {
    /// The disk is tied to its thread.
    Stay,
    /// Another one drives the round that waits, if there is one.
    Leave(Option<Arc<Round>>),
}

impl<D: Disk, S: Surroundings> Driver<D, S> {
    /// Appends the entries and makes them durable.
    fn write(&mut self, entries: Vec<Entry>) -> Result<(), EngineError> {
        self.write += 1;
        self.engine.append(Append { write: self.write, entries, ..Append::default() });
        let mut now_us = self.turn()?;
        while self.durable < self.write {
            let due_us = self.engine.next_due_us();
            let timeout = due_us.map(|due_us| Duration::from_micros(due_us.saturating_sub(now_us)));
            self.engine.wait(timeout);
            now_us = self.turn()?;
        }
        Ok(())
    }

    /// Nobody waits, but the disk is tied to this thread: gives its operations some time.
    fn rest(&mut self) -> Result<(), EngineError> {
        self.engine.wait(Some(TIED_WAIT));
        self.turn().map(|_| ())
    }

    fn turn(&mut self) -> Result<u64, EngineError> {
        let now_us = self.surroundings.now_us();
        self.engine.turn(now_us, &mut self.events)?;
        for event in self.events.drain(..) {
            if let Event::Durable { write } = event {
                self.durable = write;
            } else {
                self.surroundings.on_event(event);
            }
        }
        Ok(now_us)
    }
}

const WAITING: u32 = 0;
const WANTS_DRIVER: u32 = 1;
const DURABLE: u32 = 2;
const FAILED: u32 = 3;

/// Everybody whose entries go out together sleeps here.
///
/// The word goes from *waiting* to *wants driver* once, when nobody else drives, back to *waiting* by the one who takes it,
/// and to its end once. A sleeper sleeps only while it is *waiting*, which the kernel checks: no wake-up is lost.
#[derive(Default)]
struct Round(AtomicU32);

enum Woken {
    Durable,
    Failed,
    ToDrive,
}

impl Round {
    fn wait(&self) -> Woken {
        loop {
            match self.0.load(Ordering::Acquire) {
                DURABLE => return Woken::Durable,
                FAILED => return Woken::Failed,
                WANTS_DRIVER => {
                    let (from, to) = (WANTS_DRIVER, WAITING);
                    let taken =
                        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
                    if taken.is_ok() {
                        return Woken::ToDrive;
                    }
                }
                // Interrupted or changed meanwhile: the word is looked at again, whatever woke us.
                _ => drop(futex::wait(&self.0, futex::Flags::PRIVATE, WAITING, None)),
            }
        }
    }

    /// One of them is to drive: who is not asleep yet, or the one who is woken.
    fn name_driver(&self) {
        self.0.store(WANTS_DRIVER, Ordering::Release);
        self.wake(1);
    }

    fn end(&self, result: &Result<(), EngineError>) {
        self.0.store(if result.is_ok() { DURABLE } else { FAILED }, Ordering::Release);
        self.wake(i32::MAX as u32);
    }

    fn wake(&self, count: u32) {
        let woken = futex::wake(&self.0, futex::Flags::PRIVATE, count);
        woken.expect("waking on a word of our own cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::io::open::{AnyDisk, Backend, open_disk};
    use crate::io::simulated::{OpKind, SimDisk, SimFaults, SimHandle};
    use crate::io::syscall::{SyscallDisk, SyscallOptions};
    use crate::opening::open;
    use crate::options::Options;
    use crate::report::Recovered;
    use crate::types::{CheckpointOrigin, Identity, ValueSlots};

    fn opened<D: Disk>(disk: D) -> Opened<D> {
        let options = Options { slot_bytes: 1 << 20, seed: [1, 2], ..Options::default() };
        let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
        open(disk, Path::new("test"), options, identity).unwrap()
    }

    fn ticking() -> impl FnMut() -> u64 + Send {
        let mut now_us = 0;
        move || {
            now_us += 10;
            now_us
        }
    }

    /// `threads` threads append `each` entries one after the other. Every index that they got, sorted.
    fn indices<D: Disk + Send, S: Surroundings + Send>(
        log: &SharedLog<D, S>,
        threads: u64,
        each: u64,
    ) -> Vec<u64> {
        let append = |number: u64| {
            let payload = Bytes::from(number.to_le_bytes().to_vec());
            (0..each).map(|_| log.append(7, payload.clone()).unwrap()).collect::<Vec<_>>()
        };
        let append = &append;
        let mut indices: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..threads).map(|number| scope.spawn(move || append(number))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        indices.sort_unstable();
        indices
    }

    fn check_real(disk: impl Fn(&Path) -> Option<AnyDisk>) {
        const ENTRIES: u64 = 16 * 100;
        let dir = tempfile::tempdir().unwrap();
        let Some(first) = disk(dir.path()) else { return };
        let log = SharedLog::new(opened(first), 3, ticking());
        assert_eq!(indices(&log, 16, 100), (1..=ENTRIES).collect::<Vec<_>>());
        drop(log.into_engine());
        let again = disk(dir.path()).unwrap();
        let Opened { engine, recovered } = opened(again);
        let Recovered { last, terms, .. } = &recovered;
        assert_eq!((last.index, terms.as_slice()), (ENTRIES, [(3, 1)].as_slice()));
        let log = SharedLog::new(Opened { engine, recovered }, 4, ticking());
        assert_eq!(log.append_all(0, vec![Bytes::new(); 3]).unwrap(), ENTRIES + 3);
    }

    #[test]
    fn threads_get_dense_indices_and_find_their_entries_again_through_system_calls() {
        check_real(|dir| Some(open_disk(dir, Backend::Syscall).unwrap().0));
    }

    #[test]
    fn threads_get_dense_indices_and_find_their_entries_again_through_inline_system_calls() {
        let options = SyscallOptions { inline_commits: true, ..SyscallOptions::default() };
        check_real(|dir| Some(AnyDisk::Syscall(SyscallDisk::open(dir, options).unwrap())));
    }

    /// Its operations in flight are tied to their thread: a driver that left too early would end the log with an error.
    #[test]
    fn threads_get_dense_indices_and_find_their_entries_again_through_the_ring() {
        check_real(|dir| Some(open_disk(dir, Backend::Uring).ok()?.0));
    }

    fn simulated(sim: &SimDisk) -> SharedLog<SimHandle, impl FnMut() -> u64 + Send + use<>> {
        SharedLog::new(opened(sim.handle()), 1, ticking())
    }

    #[test]
    fn every_wait_ends_whatever_the_number_of_threads() {
        let log = simulated(&SimDisk::new(5, SimFaults::none()));
        let mut appended = 0;
        for threads in (1..=8).chain([64]) {
            appended += threads * 400;
            assert_eq!(indices(&log, threads, 400).last(), Some(&appended));
        }
    }

    #[test]
    fn an_error_ends_the_wait_of_everybody_and_every_later_append() {
        for seed in 0..50 {
            let sim = SimDisk::new(seed, SimFaults::none());
            let log = simulated(&sim);
            log.append(0, Bytes::from_static(b"good")).unwrap();
            sim.fail_after(OpKind::Write, seed % 7, ErrorKind::Other);
            let fails = || {
                let error = (0..1000).find_map(|_| log.append(0, Bytes::new()).err());
                error.expect("a write fails").to_string()
            };
            let fails = &fails;
            let errors: Vec<String> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(fails)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(errors.iter().all(|error| error == &errors[0]), "{errors:?}");
            assert_eq!(log.append(0, Bytes::new()).unwrap_err().to_string(), errors[0]);
        }
    }

    /// Counts the checkpoints that it is told of.
    struct Counting(Arc<AtomicU64>);

    impl Surroundings for Counting {
        fn now_us(&mut self) -> u64 {
            0
        }

        fn on_event(&mut self, event: Event) {
            if let Event::CheckpointDurable { .. } = event {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn a_checkpoint_begun_between_two_rounds_goes_on_with_the_appends() {
        let (sim, seen) = (SimDisk::new(1, SimFaults::none()), Arc::new(AtomicU64::new(0)));
        let log = SharedLog::new(opened(sim.handle()), 1, Counting(Arc::clone(&seen)));
        log.append(0, Bytes::from_static(b"entry")).unwrap();
        log.with_engine(|engine| {
            let (at, origin) = (engine.status().durable, CheckpointOrigin::Local);
            engine.checkpoint_begin(at, origin, 0, ValueSlots::default()).unwrap();
            engine.checkpoint_push(origin, b"state");
            engine.checkpoint_finish(origin);
        });
        let ends = |_| {
            log.append(0, Bytes::new()).unwrap();
            seen.load(Ordering::Relaxed) == 1
        };
        assert!((0..1000).any(ends));
    }

    #[test]
    fn one_of_a_round_is_made_its_driver_and_the_others_sleep_on() {
        let round = Round::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| round.wait())).collect();
            round.name_driver();
            let is_taken = || round.0.load(Ordering::Acquire) == WAITING;
            while !is_taken() {
                std::thread::yield_now();
            }
            round.end(&Ok(()));
            let woken = threads.into_iter().map(|thread| thread.join().unwrap());
            let drivers = woken.filter(|woken| matches!(woken, Woken::ToDrive)).count();
            assert_eq!(drivers, 1);
        });
    }

    #[test]
    #[should_panic(expected = "too large")]
    fn an_entry_that_is_too_large_is_its_callers_mistake_alone() {
        let log = simulated(&SimDisk::new(1, SimFaults::none()));
        drop(log.append(0, Bytes::from(vec![0; 1 << 20])));
    }
}
