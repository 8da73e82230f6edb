//! What measures the log needs in more than one place: an engine with the loop around it, raw writes beside it, threads
//! that wait.
//!
//! The log is recycled by small checkpoints, as in a running node, so that it writes to used slots.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::buffer::{Frame, FramePool};
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::io::{Class, Completion, Disk, Done, FileId, Op, OpenMode, Tag, WriteBuf, WriteSync};
use engine::{
    Append, CheckpointOrigin, Engine, Entry, Event, Identity, Opened, Options, Position,
    ValueSlots, open,
};

/// A checkpoint follows when the log has grown by this much.
const INTERVAL_BYTES: u64 = 128 << 20;
const RAW_FILE_BYTES: u64 = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Microseconds since `started`.
pub(crate) fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).expect("a short bench")
}

/// Bytes that no file system or device can shorten.
pub(crate) fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()[7]
    };
    (0..bytes).map(|_| next()).collect()
}

/// A new engine in the empty directory of `disk`.
pub(crate) fn open_new(disk: AnyDisk, dir: &Path, mut options: Options) -> Opened<AnyDisk> {
    options.seed = [1, 2];
    let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
    open(disk, dir, options, identity).expect("a new directory")
}

/// Begins a checkpoint at the last durable entry when the log has grown enough.
pub(crate) fn checkpoint_if_due(engine: &mut Engine<AnyDisk>) {
    let origin = CheckpointOrigin::Local;
    if engine.log_bytes_since_checkpoint() > INTERVAL_BYTES
        && engine
            .checkpoint_begin(engine.status().durable, origin, 4096, ValueSlots::default())
            .is_ok()
    {
        engine.checkpoint_push(origin, b"state");
        engine.checkpoint_finish(origin);
    }
}

/// An engine and the loop around it.
pub(crate) struct Node {
    pub(crate) engine: Engine<AnyDisk>,
    started: Instant,
    write: u64,
    durable: u64,
    last: Position,
    events: Vec<Event>,
}

impl Node {
    /// In an empty directory; none where the backend cannot be had.
    pub(crate) fn new(dir: &Path, backend: Backend, options: Options) -> Option<Node> {
        let (disk, _) = open_disk(dir, backend).ok()?;
        let Opened { engine, .. } = open_new(disk, dir, options);
        let last = Position { index: 0, term: 1 };
        Some(Node { engine, started: now(), write: 0, durable: 0, last, events: Vec::new() })
    }

    /// Queues one write of `count` entries.
    pub(crate) fn append(&mut self, payload: &Bytes, count: usize) {
        self.write += 1;
        let mut entry = || {
            self.last.index += 1;
            let Position { index, term } = self.last;
            Entry { index, term, kind: 0, payload: payload.clone() }
        };
        let entries = (0..count).map(|_| entry()).collect();
        self.engine.append(Append { write: self.write, entries, ..Append::default() });
    }

    /// Writes that are queued or in flight.
    pub(crate) fn outstanding(&self) -> u64 {
        self.write - self.durable
    }

    pub(crate) fn turn(&mut self) {
        let now_us = micros_since(self.started);
        self.engine.turn(now_us, &mut self.events).expect("a sound disk");
        for event in self.events.drain(..) {
            if let Event::Durable { write } = event {
                self.durable = write;
            }
        }
    }

    /// Until something completes, or until the engine asks for a turn: mostly never, which spares a timer.
    pub(crate) fn wait(&mut self) {
        let now_us = micros_since(self.started);
        let left = |due_us: u64| Duration::from_micros(due_us.saturating_sub(now_us));
        self.engine.wait(self.engine.next_due_us().map(left));
    }

    pub(crate) fn wait_until_durable(&mut self) {
        self.turn();
        while self.outstanding() > 0 {
            self.wait();
            self.turn();
        }
        self.checkpoint_if_due();
    }

    pub(crate) fn checkpoint_if_due(&mut self) {
        checkpoint_if_due(&mut self.engine);
    }
}

/// A pre-written file, and durable writes to one place of it after the other.
pub(crate) struct Raw {
    disk: AnyDisk,
    file: FileId,
    frame: Arc<Frame>,
    offset: u64,
    completions: Vec<Completion>,
}

impl Raw {
    /// In an empty directory, writing `bytes` at a time; none where the backend cannot be had.
    pub(crate) fn new(dir: &Path, backend: Backend, bytes: usize) -> Option<Raw> {
        let (mut disk, _) = open_disk(dir, backend).ok()?;
        let path = "raw".to_owned();
        let opened = run(&mut disk, Op::Open { path, mode: OpenMode::CreateNew });
        let Done::Opened { file, .. } = opened else { unreachable!("an open completes so") };
        run(&mut disk, Op::Allocate { file, bytes: RAW_FILE_BYTES });
        let chunk = frame_of_noise(CHUNK_BYTES);
        for offset in (0..RAW_FILE_BYTES).step_by(CHUNK_BYTES) {
            let buf = WriteBuf::Frame(Arc::clone(&chunk));
            run(&mut disk, Op::Write { file, offset, buf, sync: WriteSync::Deferred });
        }
        run(&mut disk, Op::Sync { file });
        let frame = frame_of_noise(bytes);
        Some(Raw { disk, file, frame, offset: 0, completions: Vec::new() })
    }

    /// From now on `bytes` at a time. Nothing may be in flight.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.frame = frame_of_noise(bytes);
    }

    /// How many bytes it writes at a time.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame.as_slice().len()
    }

    /// Hands over `submitted` writes, then waits for a completion; gives how many have come.
    pub(crate) fn write(&mut self, submitted: usize) -> usize {
        for _ in 0..submitted {
            self.submit();
        }
        self.disk.poll(&mut self.completions);
        while self.completions.is_empty() {
            self.disk.wait(None);
            self.disk.poll(&mut self.completions);
        }
        let count = self.completions.len();
        for end in self.completions.drain(..) {
            end.result.expect("a sound disk");
        }
        count
    }

    fn submit(&mut self) {
        let bytes = self.frame_bytes() as u64;
        if self.offset + bytes > RAW_FILE_BYTES {
            self.offset = 0;
        }
        let (file, buf) = (self.file, WriteBuf::Frame(Arc::clone(&self.frame)));
        let op = Op::Write { file, offset: self.offset, buf, sync: WriteSync::Durable };
        self.offset += bytes;
        self.disk.submit(Class::Commit, Tag(0), op);
    }
}

fn frame_of_noise(bytes: usize) -> Arc<Frame> {
    let pool = FramePool::default();
    let mut buf = pool.take(bytes);
    buf.as_mut_slice()[..bytes].copy_from_slice(&noise(bytes));
    pool.freeze(buf, bytes)
}

fn run(disk: &mut AnyDisk, op: Op) -> Done {
    let mut completions = Vec::new();
    disk.submit(Class::Background, Tag(0), op);
    loop {
        disk.poll(&mut completions);
        match completions.pop() {
            Some(done) => return done.result.expect("a sound disk"),
            None => disk.wait(None),
        }
    }
}

/// `count` threads, each of which runs its share to the end.
pub(crate) fn on_threads<T: Send>(count: usize, share: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let share = &share;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || share(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread of the bench")).collect()
    })
}
