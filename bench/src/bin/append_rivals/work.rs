//! The kinds of work, each through every system that can do it.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::io::open::{AnyDisk, Backend};
use engine::io::syscall::{SyscallDisk, SyscallOptions};
use engine::{Options, SharedLog, Status, Surroundings};

use crate::below;
use crate::rivals::{Okay, Raft, Rival, Writer};
use crate::support::{
    Node, Raw, checkpoint_if_due, micros_since, noise, now, on_threads, open_new,
};
use crate::table::Figure;

const ENTRY_BYTES: usize = 256;
const WRITERS: usize = 64;
const BATCHES: usize = 16;
const BATCH: usize = 64;
const FRAME_BYTES: usize = 4096;
/// Half of what is outstanding in batches: one half is encoded while the other is on its way.
const HALF_BYTES: usize = 160 << 10;
/// A thread looks for a due checkpoint after as many entries.
const CHECK_EVERY: u64 = 512;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Work {
    /// One writer, one entry at a time.
    One,
    /// 64 threads, each waiting for its own entry.
    Threads,
    /// 64 entries queued at once and awaited together by one thread.
    Together,
    /// Batches of 64 entries, 16 of them outstanding all the time; the other logs take them from 16 threads.
    Batches,
}

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum System {
    Raw,
    Holdfast,
    Raft,
    Okay,
}

impl Work {
    pub(crate) const ALL: [Work; 4] = [Work::One, Work::Threads, Work::Together, Work::Batches];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::One => "one writer",
            Work::Threads => "64 threads",
            Work::Together => "64 together",
            Work::Batches => "16 x 64",
        }
    }

    fn systems(self) -> &'static [System] {
        match self {
            Work::One | Work::Batches => {
                &[System::Raw, System::Holdfast, System::Raft, System::Okay]
            }
            Work::Threads => &[System::Holdfast, System::Raft, System::Okay],
            Work::Together => &[System::Holdfast],
        }
    }

    /// Threads of a log that is called by threads, and how many entries each hands over at once.
    fn shape(self) -> (usize, usize) {
        match self {
            Work::One => (1, 1),
            Work::Threads | Work::Together => (WRITERS, 1),
            Work::Batches => (BATCHES, BATCH),
        }
    }
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Raw => "raw writes",
            System::Holdfast => "holdfast",
            System::Raft => "raft-engine",
            System::Okay => "okaywal",
        }
    }
}

/// Time since the log was opened.
struct Clock(Instant);

impl Surroundings for Clock {
    fn now_us(&mut self) -> u64 {
        micros_since(self.0)
    }
}

type Failure = Box<dyn std::error::Error>;

/// Every system, open.
pub(crate) struct Bench {
    length: Duration,
    payload: Bytes,
    raw: Raw,
    node: Node,
    halves: Node,
    shared: SharedLog<AnyDisk, Clock>,
    raft: Raft,
    okay: Okay,
    /// What the engine last did in each kind of work.
    seen: Vec<(Work, Seen)>,
}

impl Bench {
    pub(crate) fn new(dir: &Path, backend: Backend) -> Result<Bench, Failure> {
        let missing = "the backend cannot be had here";
        let halves = Options { frame_bytes_max: HALF_BYTES, ..Options::default() };
        let shared = below(dir, "shared")?;
        // The driver changes with every round, which system calls do not mind; and a driver always waits.
        let syscalls = SyscallOptions { inline_commits: true, ..SyscallOptions::default() };
        let disk = AnyDisk::Syscall(SyscallDisk::open(&shared, syscalls)?);
        let opened = open_new(disk, &shared, Options::default());
        Ok(Bench {
            length: Duration::ZERO,
            payload: noise(ENTRY_BYTES),
            raw: Raw::new(&below(dir, "raw")?, backend, FRAME_BYTES).ok_or(missing)?,
            node: Node::new(&below(dir, "log")?, backend, Options::default()).ok_or(missing)?,
            halves: Node::new(&below(dir, "halves")?, backend, halves).ok_or(missing)?,
            shared: SharedLog::new(opened, 1, Clock(now())),
            raft: Raft::new(&below(dir, "raft-engine")?)?,
            okay: Okay::new(&below(dir, "okaywal")?)?,
            seen: Vec::new(),
        })
    }

    /// How long each system does each kind of work from now on.
    pub(crate) fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// All systems that do this work, each at another place of the order in every round.
    pub(crate) fn round(&mut self, work: Work, round: usize, is_alone: bool) -> Vec<Figure> {
        let mut systems = work.systems().to_vec();
        systems.retain(|system| !is_alone || *system <= System::Holdfast);
        let places = systems.len();
        systems.rotate_left(round % places);
        systems.into_iter().map(|system| self.measure(work, system)).collect()
    }

    fn measure(&mut self, work: Work, system: System) -> Figure {
        let (rate, bytes) = match system {
            System::Raw => self.raw(work),
            System::Holdfast => self.holdfast(work),
            System::Raft => (self.of_rival(work, &self.raft), 0.0),
            System::Okay => (self.of_rival(work, &self.okay), 0.0),
        };
        Figure { work, system, rate, bytes }
    }

    /// What the last round saw of the engine.
    pub(crate) fn notes(&self) -> String {
        let notes = self.seen.iter().map(|(work, seen)| format!("{}: {seen}\n", work.name()));
        notes.collect()
    }

    /// Durable writes like those that the engine last made for this work: (entries that they would hold, bytes) a second.
    fn raw(&mut self, work: Work) -> (f64, f64) {
        let (bytes, in_flight, entries) = match self.seen.iter().find(|(of, _)| *of == work) {
            Some((_, seen)) => (seen.frame_bytes(), seen.in_flight(), seen.entries_per_frame()),
            None => (FRAME_BYTES, 1, 1.0),
        };
        let raw = &mut self.raw;
        raw.resize(bytes);
        let mut missing = in_flight;
        let writes = repeat(self.length, || {
            missing = raw.write(missing);
            missing as u64
        });
        while missing < in_flight {
            missing += raw.write(0);
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for reading")]
        (writes * entries, writes * bytes as f64)
    }

    /// (entries, bytes of frames) a second.
    fn holdfast(&mut self, work: Work) -> (f64, f64) {
        let before = self.status(work);
        let mut looks = Looks::default();
        let rate = match work {
            Work::One => self.at_once(1),
            Work::Together => self.at_once(WRITERS),
            Work::Threads => self.threads(),
            Work::Batches => self.batches(&mut looks),
        };
        let seen = Seen { before, after: self.status(work), looks };
        let bytes_per_entry = seen.bytes_per_entry();
        self.seen.retain(|(of, _)| *of != work);
        self.seen.push((work, seen));
        (rate, rate * bytes_per_entry)
    }

    fn status(&self, work: Work) -> Status {
        match work {
            Work::One | Work::Together => self.node.engine.status(),
            Work::Threads => self.shared.with_engine(|engine| engine.status()),
            Work::Batches => self.halves.engine.status(),
        }
    }

    /// Entries that are queued together and awaited.
    fn at_once(&mut self, count: usize) -> f64 {
        let (node, payload) = (&mut self.node, &self.payload);
        repeat(self.length, || {
            (0..count).for_each(|_| node.append(payload, 1));
            node.wait_until_durable();
            count as u64
        })
    }

    fn threads(&self) -> f64 {
        of_threads(self.length, WRITERS, |_| {
            let mut appended = 0;
            move || {
                self.shared.append(0, self.payload.clone()).expect("a sound disk");
                appended += 1;
                if appended % CHECK_EVERY == 0 {
                    self.shared.with_engine(checkpoint_if_due);
                }
                1
            }
        })
    }

    fn batches(&mut self, looks: &mut Looks) -> f64 {
        let (node, payload) = (&mut self.halves, &self.payload);
        let rate = repeat(self.length, || {
            while node.outstanding() < BATCHES as u64 {
                node.append(payload, BATCH);
            }
            node.turn();
            looks.look(node.engine.in_flight());
            if node.outstanding() == BATCHES as u64 {
                node.wait();
                node.turn();
            }
            checkpoint_if_due(&mut node.engine);
            (BATCHES as u64 - node.outstanding()) * BATCH as u64
        });
        node.wait_until_durable();
        rate
    }

    fn of_rival(&self, work: Work, rival: &dyn Rival) -> f64 {
        let (threads, batch) = work.shape();
        of_threads(self.length, threads, |number| {
            let mut writer = Writer::new(number as u64);
            move || {
                rival.append(&mut writer, &self.payload, batch);
                batch as u64
            }
        })
    }
}

/// How often a second, counting what each call says that it has done.
#[expect(clippy::cast_precision_loss, reason = "figures for reading")]
fn repeat(length: Duration, mut once: impl FnMut() -> u64) -> f64 {
    let (started, mut count) = (now(), 0);
    while started.elapsed() < length {
        count += once();
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// The same by many threads, each with a closure of its own.
fn of_threads<F: FnMut() -> u64>(
    length: Duration,
    threads: usize,
    writer: impl Fn(usize) -> F + Sync,
) -> f64 {
    on_threads(threads, |number| repeat(length, writer(number))).into_iter().sum()
}

/// How many frames were in flight when it was looked.
#[derive(Clone, Copy, Default)]
struct Looks {
    frames: usize,
    count: usize,
}

impl Looks {
    fn look(&mut self, in_flight: usize) {
        self.frames += in_flight;
        self.count += 1;
    }
}

/// What the engine's counters say of one kind of work.
struct Seen {
    before: Status,
    after: Status,
    looks: Looks,
}

#[expect(clippy::cast_precision_loss, reason = "figures for reading")]
impl Seen {
    fn frames(&self) -> u64 {
        (self.after.frames - self.before.frames).max(1)
    }

    fn bytes(&self) -> u64 {
        self.after.frame_bytes - self.before.frame_bytes
    }

    fn entries(&self) -> u64 {
        (self.after.entries - self.before.entries).max(1)
    }

    fn bytes_per_entry(&self) -> f64 {
        self.bytes() as f64 / self.entries() as f64
    }

    fn entries_per_frame(&self) -> f64 {
        self.entries() as f64 / self.frames() as f64
    }

    /// The average frame in whole blocks, rounded up.
    fn frame_bytes(&self) -> usize {
        let bytes = usize::try_from(self.bytes() / self.frames()).expect("a frame fits memory");
        bytes.next_multiple_of(FRAME_BYTES)
    }

    /// The average number in flight, rounded up.
    fn in_flight(&self) -> usize {
        self.looks.frames.div_ceil(self.looks.count.max(1)).max(1)
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Status { backend, direct, .. } = self.after;
        let sync = if direct { "O_DIRECT and RWF_DSYNC" } else { "buffered and fdatasync" };
        let (entries, bytes) = (self.entries_per_frame(), self.frame_bytes());
        let (in_flight, zeros) =
            (self.in_flight(), self.after.prewrite_bytes - self.before.prewrite_bytes);
        write!(
            f,
            "{backend}, {sync}, {entries:.1} entries and {bytes} bytes a frame, at most {in_flight} in flight on average"
        )?;
        if zeros > 0 {
            write!(f, ", not warm yet: {zeros} bytes pre-written")?;
        }
        Ok(())
    }
}
