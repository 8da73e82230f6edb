//! What a durable append costs through the log, beside raw durable writes of the same size to the same disk in the same
//! run: entries of 1, 64 and 1,024 commands of 256 bytes, one at a time, and 64 entries at a time.
//!
//! The log is recycled by small checkpoints, as in a running node, so that it writes to used slots.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::buffer::{Frame, FramePool};
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::io::{Class, Completion, Disk, Done, FileId, Op, OpenMode, Tag, WriteBuf, WriteSync};
use engine::{
    Append, CheckpointOrigin, Engine, Entry, Event, Identity, Opened, Options, Position, open,
};

const COMMAND_BYTES: usize = 256;
const COMMANDS: [usize; 3] = [1, 64, 1024];
const BURST: u64 = 64;
/// A checkpoint follows when the log has grown by this much.
const INTERVAL_BYTES: u64 = 128 << 20;
const RAW_FILE_BYTES: u64 = 64 << 20;
const BACKENDS: [(Backend, &str); 2] = [(Backend::Uring, "uring"), (Backend::Syscall, "syscall")];

/// An engine on a directory of its own and the loop around it.
struct Node {
    engine: Engine<AnyDisk>,
    _dir: tempfile::TempDir,
    started: Instant,
    write: u64,
    durable: u64,
    last: Position,
    events: Vec<Event>,
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

impl Node {
    fn new(backend: Backend) -> Option<Node> {
        let dir = dir();
        let (disk, _) = open_disk(dir.path(), backend).ok()?;
        let options = Options { seed: [1, 2], ..Options::default() };
        let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
        let Opened { engine, .. } =
            open(disk, Path::new("bench"), options, identity).expect("a new directory");
        Some(Node {
            engine,
            _dir: dir,
            started: now(),
            write: 0,
            durable: 0,
            last: Position { index: 0, term: 1 },
            events: Vec::new(),
        })
    }

    fn append(&mut self, payload: &Bytes) {
        self.write += 1;
        self.last.index += 1;
        let Position { index, term } = self.last;
        let entries = vec![Entry { index, term, kind: 0, payload: payload.clone() }];
        self.engine.append(Append { write: self.write, entries, ..Append::default() });
    }

    fn turn(&mut self) {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).expect("a short bench");
        self.engine.turn(now_us, &mut self.events).expect("a sound disk");
        for event in self.events.drain(..) {
            if let Event::Durable { write } = event {
                self.durable = write;
            }
        }
    }

    fn wait_until_durable(&mut self) {
        self.turn();
        while self.durable < self.write {
            self.engine.wait(Some(Duration::from_millis(100)));
            self.turn();
        }
        self.checkpoint_if_due();
    }

    fn checkpoint_if_due(&mut self) {
        let origin = CheckpointOrigin::Local;
        if self.engine.log_bytes_since_checkpoint() > INTERVAL_BYTES
            && self.engine.checkpoint_begin(self.last, origin, 4096, Vec::new()).is_ok()
        {
            self.engine.checkpoint_push(origin, b"state");
            self.engine.checkpoint_finish(origin);
        }
    }
}

/// A pre-written file, and durable writes to one place of it after the other.
struct Raw {
    disk: AnyDisk,
    _dir: tempfile::TempDir,
    file: FileId,
    frame: Arc<Frame>,
    offset: u64,
    completions: Vec<Completion>,
}

impl Raw {
    fn new(backend: Backend, bytes: usize) -> Option<Raw> {
        let dir = dir();
        let (mut disk, _) = open_disk(dir.path(), backend).ok()?;
        let path = "raw".to_owned();
        let opened = run(&mut disk, Op::Open { path, mode: OpenMode::CreateNew });
        let Done::Opened { file, .. } = opened else { unreachable!("an open completes so") };
        run(&mut disk, Op::Allocate { file, bytes: RAW_FILE_BYTES });
        let pool = FramePool::default();
        for offset in (0..RAW_FILE_BYTES).step_by(1 << 20) {
            let buf = WriteBuf::Frame(pool.freeze(pool.take(1 << 20), 1 << 20));
            run(&mut disk, Op::Write { file, offset, buf, sync: WriteSync::Deferred });
        }
        run(&mut disk, Op::Sync { file });
        let frame = pool.freeze(pool.take(bytes), bytes);
        Some(Raw { disk, _dir: dir, file, frame, offset: 0, completions: Vec::new() })
    }

    fn write(&mut self) {
        let bytes = self.frame.as_slice().len() as u64;
        if self.offset + bytes > RAW_FILE_BYTES {
            self.offset = 0;
        }
        let (file, buf) = (self.file, WriteBuf::Frame(Arc::clone(&self.frame)));
        let op = Op::Write { file, offset: self.offset, buf, sync: WriteSync::Durable };
        self.offset += bytes;
        self.disk.submit(Class::Commit, Tag(0), op);
        self.disk.poll(&mut self.completions);
        while self.completions.is_empty() {
            self.disk.wait(None);
            self.disk.poll(&mut self.completions);
        }
        self.completions.drain(..).for_each(|done| {
            done.result.expect("a sound disk");
        });
    }
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

/// The frame of one entry of this payload.
fn frame_bytes(payload: usize) -> usize {
    (128 + 32 + payload.next_multiple_of(16)).next_multiple_of(4096)
}

fn bench_append(criterion: &mut Criterion) {
    for (backend, name) in BACKENDS {
        let Some(mut node) = Node::new(backend) else { continue };
        for commands in COMMANDS {
            let payload = Bytes::from(vec![7; commands * COMMAND_BYTES]);
            let mut group = criterion.benchmark_group(format!("{name}/{commands}-commands"));
            group.throughput(Throughput::Elements(commands as u64));
            group.bench_function("append", |bencher| {
                bencher.iter(|| {
                    node.append(&payload);
                    node.wait_until_durable();
                });
            });
            let bytes = frame_bytes(payload.len());
            let mut raw = Raw::new(backend, bytes).expect("the node could use it");
            group.bench_function(BenchmarkId::new("raw-write", bytes), |bencher| {
                bencher.iter(|| raw.write());
            });
            drop(raw);
            group.throughput(Throughput::Elements(commands as u64 * BURST));
            group.bench_function(BenchmarkId::new("append-at-once", BURST), |bencher| {
                bencher.iter(|| {
                    (0..BURST).for_each(|_| node.append(&payload));
                    node.wait_until_durable();
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = bench_append
}
criterion_main!(benches);
