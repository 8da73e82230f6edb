//! A disk in memory that loses power, fails and lies, all from one seed.
//!
//! [`SimDisk`] is the device of one node and outlives the process that uses it; [`SimDisk::handle`] is the
//! [`Disk`] of one process life. The fault model:
//!
//! - Bytes are kept in 512-byte sectors and 4 KiB pages. What a process reads is the *current* content;
//!   what a power cut leaves for certain is the *durable* one. A durable write changes both when it
//!   completes, a deferred one only the current one.
//! - Operations in flight complete in any order, by latencies drawn from the seed. A [`Op::Sync`] covers
//!   the writes and sizes whose completion this process had *polled* before it submitted the sync.
//! - Creations, renames and removals are durable after an [`Op::SyncDir`] of their directory that was
//!   submitted after their completion; each one without is kept or lost on its own. A rename is never
//!   half done. A sync of a file makes its bytes durable, not its name.
//! - A crash ([`SimDisk::crash`]) decides for every page that no sync has covered, and for every page of a
//!   write in flight, durable or not: all of it kept, all of it dropped, or torn, which is each sector on
//!   its own the old bytes, the bytes of any un-synced write, garbage or zeros. Sizes and names are kept
//!   or dropped. [`SimDisk::crash_with`] lets the caller decide, to enumerate images.
//! - The death of the process alone ([`SimDisk::kill`]) loses nothing that had completed; each operation in
//!   flight happens or does not.
//! - An operation may report an error ([`SimDisk::fail_next`], or by rate). A failed write leaves any mix of
//!   old and new pages and sectors, a short one a prefix of its pages. A failed sync leaves its pages
//!   *clean*: some durable, some lost, and no later sync brings the lost ones back.
//! - A write may be lost or land elsewhere and report success; a read may bring flipped bits or the bytes
//!   of another place; bits may rot ([`SimDisk::flip_bit`]).
//! - The device has a capacity, and stalls.
//!
//! Time is the driver's: [`SimDisk::advance`] moves it, [`SimDisk::next_due`] says how far. While a process
//! starts and nobody drives, its [`Disk::wait`] moves time itself, to the next completion or its timeout; with
//! nothing in flight and no timeout it returns at once, since nothing could ever end it.
//!
//! Same seed and same calls, same behaviour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Class, Completion, Disk, Op, Tag, Wake};

mod core;
mod faults;
mod file;
mod image;
mod random;
mod volume;

use self::core::Core;
pub use faults::{OpKind, SimCounters, SimFaults};
use random::Random;
use volume::Volume;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
const SECTORS_PER_PAGE: usize = PAGE_BYTES / SECTOR_BYTES;

/// Something that a power cut may take.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unsynced {
    /// 512 bytes of a file.
    Sector {
        /// Of which file.
        path: Arc<str>,
        /// Where, in bytes.
        offset: u64,
        /// How many un-synced writes it has seen.
        versions: usize,
        /// Whether the newest of them differs from the durable bytes.
        changes: bool,
    },
    /// The size of a file.
    Size {
        /// Of which file.
        path: Arc<str>,
        /// What it falls back to, in bytes.
        durable: u64,
        /// What it was last set to, in bytes.
        newest: u64,
    },
    /// The creation, renaming or removal of a name.
    Entry {
        /// The name that appeared, or else the one that went.
        path: Arc<str>,
    },
}

/// What a power cut does to it. Sizes and names know only [`Fate::New`], [`Fate::Version`] (sizes), and lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The newest un-synced state survives.
    New,
    /// The n-th un-synced write survives, oldest first, from 0.
    Version(usize),
    /// The durable state is what remains.
    Old,
    /// Random bytes.
    Garbage,
    /// Zeros.
    Zero,
}

/// Everything on a disk at one moment, with what was in flight to it. Copies share pages.
#[derive(Clone)]
pub struct SimImage(Volume);

impl fmt::Debug for SimImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimImage").field(&self.0.paths_of_files()).finish()
    }
}

/// The number of an operation on one disk, from the first to the last process.
type OpNumber = u64;

/// Which operations a sync covers: those before it whose completion its process had seen.
#[derive(Clone, Debug)]
struct Covered {
    before: OpNumber,
    unseen: BTreeSet<OpNumber>,
}

impl Covered {
    fn contains(&self, op: OpNumber) -> bool {
        op < self.before && !self.unseen.contains(&op)
    }
}

/// A power cut in progress.
struct Crash<'a> {
    choose: &'a mut dyn FnMut(&Unsynced) -> Fate,
    random: &'a mut Random,
    counters: &'a mut SimCounters,
}

impl Crash<'_> {
    fn count_sector(&mut self, fate: Fate) {
        match fate {
            Fate::New => self.counters.sectors_kept += 1,
            Fate::Old => self.counters.sectors_dropped += 1,
            Fate::Version(_) | Fate::Garbage | Fate::Zero => self.counters.sectors_mangled += 1,
        }
    }
}

/// The disk of one node. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    core: Arc<Mutex<Core>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core.lock();
        f.debug_struct("SimDisk")
            .field("now_us", &core.now_us)
            .field("in_flight", &core.flights.len())
            .field("files", &core.volume.paths_of_files())
            .finish()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, faults: SimFaults) -> SimDisk {
        SimDisk { core: Arc::new(Mutex::new(Core::new(seed, faults))) }
    }

    /// The [`Disk`] of a new process. The process before it, if it still ran, is killed: its operations
    /// never complete.
    pub fn handle(&self) -> SimHandle {
        let mut core = self.core.lock();
        core.end_process();
        SimHandle {
            core: Arc::clone(&self.core),
            process: core.process,
            waker: Arc::new(SimWaker(AtomicBool::new(false))),
        }
    }

    /// Moves the disk's time to `now_us`, if it is not there yet, and completes what is due.
    pub fn advance(&self, now_us: u64) {
        self.core.lock().advance(now_us);
    }

    /// The disk's time in microseconds.
    pub fn now_us(&self) -> u64 {
        self.core.lock().now_us
    }

    /// When the next operation completes, in microseconds; now, if completions wait to be polled.
    pub fn next_due(&self) -> Option<u64> {
        self.core.lock().next_due()
    }

    /// How many operations have been submitted and not completed.
    pub fn in_flight(&self) -> usize {
        self.core.lock().flights.len()
    }

    /// Cuts the power, as the fault rates and the seed decide.
    pub fn crash(&self) {
        self.core.lock().crash_seeded();
    }

    /// Cuts the power; everything handed over survives, also what was in flight.
    pub fn crash_keep_all(&self) {
        self.crash_with(|_| Fate::New);
    }

    /// Cuts the power; nothing survives that was not durable.
    pub fn crash_drop_all(&self) {
        self.crash_with(|_| Fate::Old);
    }

    /// Cuts the power; `choose` decides for each item of [`SimDisk::unsynced`], in that order.
    pub fn crash_with(&self, mut choose: impl FnMut(&Unsynced) -> Fate) {
        self.core.lock().crash(&mut choose);
    }

    /// What a crash at this moment would decide about: sectors and sizes by file, then names.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        self.core.lock().unsynced()
    }

    /// Ends the process and leaves the machine running.
    pub fn kill(&self) {
        let mut core = self.core.lock();
        core.end_process();
        core.counters.kills += 1;
    }

    /// A copy of everything on the disk and in flight to it.
    pub fn snapshot(&self) -> SimImage {
        SimImage(self.core.lock().volume.clone())
    }

    /// Puts the disk back; whoever used it is dead. A crash afterwards decides about what was in flight.
    pub fn restore(&self, image: &SimImage) {
        let mut core = self.core.lock();
        core.forget_process();
        core.volume = image.0.clone();
    }

    /// Starts the chances anew, to try another fate from the same image.
    pub fn reseed(&self, seed: u64) {
        self.core.lock().random = Random::new(seed);
    }

    /// Replaces the rates and latencies.
    pub fn set_faults(&self, faults: SimFaults) {
        self.core.lock().faults = faults;
    }

    /// Sets what all files together may have, in bytes.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.core.lock().faults.capacity_bytes = bytes;
    }

    /// What all files together have now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.core.lock().volume.used_bytes()
    }

    /// The next operation of `kind` that is submitted ends with `error`. `WriteZero` is a short write.
    pub fn fail_next(&self, kind: OpKind, error: io::ErrorKind) {
        self.core.lock().fail_after(kind, 0, error);
    }

    /// Likewise, after `skip` operations of that kind have gone well.
    pub fn fail_after(&self, kind: OpKind, skip: u64, error: io::ErrorKind) {
        self.core.lock().fail_after(kind, skip, error);
    }

    /// The next write that is submitted reports success and changes nothing.
    pub fn lose_next_write(&self) {
        self.core.lock().inject(OpKind::Write, faults::Fault::Lost);
    }

    /// The next write that is submitted reports success and lands elsewhere.
    pub fn misdirect_next_write(&self) {
        self.core.lock().inject(OpKind::Write, faults::Fault::Misdirected);
    }

    /// After `skip` reads that go well one brings the bytes of another place.
    pub fn misdirect_read_after(&self, skip: u64) {
        self.core.lock().inject_after(OpKind::Read, skip, faults::Fault::Misdirected);
    }

    /// After `skip` reads that go well one brings one to eight wrong bits.
    pub fn flip_read_after(&self, skip: u64) {
        self.core.lock().inject_after(OpKind::Read, skip, faults::Fault::Flipped);
    }

    /// Every read of the page at `offset` of a file ends with an error, until [`SimDisk::mend`].
    ///
    /// Requires: the file exists, and a page starts there.
    pub fn refuse_page(&self, path: &str, offset: u64) {
        self.core.lock().refuse(path, offset);
    }

    /// Every page can be read again.
    pub fn mend(&self) {
        self.core.lock().mend();
    }

    /// Nothing completes before `us` microseconds have passed.
    pub fn stall(&self, us: u64) {
        self.core.lock().stall(us);
    }

    /// Flips a bit of a file, for good. Bit 0 is the lowest of the first byte.
    ///
    /// Requires: the file exists and is long enough.
    pub fn flip_bit(&self, path: &str, bit: u64) {
        let mut core = self.core.lock();
        let file = core.file_mut(path).expect("a test flips bits of a file that exists");
        file.current.flip_bit(bit);
        if bit / 8 < file.durable.bytes() {
            file.durable.flip_bit(bit);
        }
        core.counters.flipped_bits += 1;
    }

    /// What a process would read.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        self.core.lock().file_mut(path).map(|file| file.current.to_vec())
    }

    /// What a power cut leaves for certain, if the name survives.
    pub fn read_durable(&self, path: &str) -> Option<Vec<u8>> {
        self.core.lock().file_mut(path).map(|file| file.durable.to_vec())
    }

    /// Puts a durable file there in place of what was, with its directory.
    pub fn write_file(&self, path: &str, bytes: &[u8]) {
        self.core.lock().volume.place(path, bytes);
    }

    /// Takes a file away, durably.
    pub fn remove_file(&self, path: &str) {
        self.core.lock().volume.take_away(path);
    }

    /// Sets the size of a file, durably.
    ///
    /// Requires: the file exists.
    pub fn set_len(&self, path: &str, bytes: u64) {
        let mut core = self.core.lock();
        let file = core.file_mut(path).expect("a test sizes a file that exists");
        file.current.set_bytes(bytes);
        file.durable.set_bytes(bytes);
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        self.core.lock().volume.paths_of_files()
    }

    /// What has been done and injected so far.
    pub fn counters(&self) -> SimCounters {
        self.core.lock().counters
    }
}

/// A simulated disk in the hands of one process.
pub struct SimHandle {
    core: Arc<Mutex<Core>>,
    process: u64,
    waker: Arc<SimWaker>,
}

struct SimWaker(AtomicBool);

impl Wake for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl SimHandle {
    /// Whether the process that holds it still lives as far as the disk is concerned.
    pub fn is_alive(&self) -> bool {
        self.core.lock().process == self.process
    }

    fn alive(&self) -> Option<parking_lot::MutexGuard<'_, Core>> {
        let core = self.core.lock();
        (core.process == self.process).then_some(core)
    }
}

impl Disk for SimHandle {
    fn submit(&mut self, _class: Class, tag: Tag, op: Op) {
        op.assert_aligned();
        if let Some(mut core) = self.alive() {
            core.submit(tag, op);
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        if let Some(mut core) = self.alive() {
            core.deliver(out);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.waker.0.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Some(mut core) = self.alive() {
            core.wait(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        match self.alive() {
            Some(core) => core.volume.list(dir),
            None => Err(io::Error::other("the process that held this disk is dead")),
        }
    }

    fn backend(&self) -> &'static str {
        "simulated"
    }

    fn is_direct(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
