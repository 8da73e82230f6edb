//! How fast an open gets through what it must read, beside reading the same bytes raw: the log's slots and a
//! checkpoint, one after the other with direct reads of 1 MiB, eight in flight.
//!
//! The log holds 1 GiB in entries of 64 commands of 256 bytes, none of them in a checkpoint; the checkpoint 512 MiB.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::buffer::AlignedBuf;
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::io::{Class, Completion, Disk, Done, FileId, Op, OpenMode, Tag};
use engine::{
    Append, CheckpointOrigin, Engine, Entry, Event, Identity, Opened, Options, Position,
    ValueSlots, open,
};

const ENTRY_BYTES: usize = 64 * 256;
const LOG_BYTES: u64 = 1 << 30;
const BODY_BYTES: u64 = 512 << 20;
const READ_BYTES: usize = 1 << 20;
const READS_MAX: usize = 8;
const BACKENDS: [(Backend, &str); 2] = [(Backend::Uring, "uring"), (Backend::Syscall, "syscall")];

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Opens the directory; each open has salts of its own.
fn open_engine(dir: &Path, backend: Backend, salt: u64) -> Option<Opened<AnyDisk>> {
    let (disk, _) = open_disk(dir, backend).ok()?;
    let options = Options { seed: [1, salt], ..Options::default() };
    let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
    Some(open(disk, dir, options, identity).expect("a sound directory"))
}

/// An engine and the loop around it.
struct Node {
    engine: Engine<AnyDisk>,
    started: Instant,
    durable: u64,
    checkpoints: u64,
    last: Position,
}

impl Node {
    fn new(Opened { engine, recovered }: Opened<AnyDisk>) -> Node {
        Node { engine, started: now(), durable: 0, checkpoints: 0, last: recovered.last }
    }

    fn turn(&mut self) {
        let now_us = u64::try_from(self.started.elapsed().as_micros()).expect("a short bench");
        let mut events = Vec::new();
        self.engine.turn(now_us, &mut events).expect("a sound disk");
        for event in events {
            if let Event::Durable { write } = event {
                self.durable = write;
            }
            self.checkpoints += u64::from(matches!(event, Event::CheckpointDurable { .. }));
        }
    }

    fn turn_until(&mut self, mut done: impl FnMut(&Node) -> bool) {
        self.turn();
        while !done(self) {
            self.engine.wait(Some(Duration::from_millis(100)));
            self.turn();
        }
    }

    /// Fills the log, each entry in a frame of its own, as under little load.
    fn fill_log(&mut self) {
        let payload = Bytes::from(vec![7; ENTRY_BYTES]);
        for write in 1..=LOG_BYTES / ENTRY_BYTES as u64 {
            let (index, term) = (self.last.index + write, 1);
            let entries = vec![Entry { index, term, kind: 0, payload: payload.clone() }];
            self.engine.append(Append { write, entries, ..Append::default() });
            self.turn_until(|node| node.durable + 4 > write);
        }
        self.turn_until(|node| node.engine.is_idle());
    }

    /// Writes a checkpoint of this body in pieces of 64 KiB.
    fn checkpoint(&mut self, body: &[u8]) {
        let origin = CheckpointOrigin::Installed;
        self.last.index += 1;
        let begun =
            self.engine.checkpoint_begin(self.last, origin, BODY_BYTES, ValueSlots::default());
        begun.expect("none is in progress");
        let (mut pushed, target) = (0, self.checkpoints + 1);
        while pushed < BODY_BYTES {
            let room = self.engine.checkpoint_room(origin).min(body.len());
            if room == 0 {
                self.engine.wait(Some(Duration::from_millis(100)));
                self.turn();
                continue;
            }
            let count = room.min(usize::try_from(BODY_BYTES - pushed).unwrap_or(room));
            self.engine.checkpoint_push(origin, &body[..count]);
            pushed += count as u64;
        }
        self.engine.checkpoint_finish(origin);
        self.turn_until(|node| node.checkpoints == target);
    }
}

/// The files of a part of the data directory, to be read raw.
struct Raw {
    disk: AnyDisk,
    files: Vec<(FileId, u64)>,
    spare: Vec<AlignedBuf>,
}

impl Raw {
    fn new(dir: &Path, part: &str, backend: Backend) -> Option<Raw> {
        let (mut disk, _) = open_disk(dir, backend).ok()?;
        let mut files = Vec::new();
        for name in disk.list(part).expect("it is there") {
            let op = Op::Open { path: format!("{part}/{name}"), mode: OpenMode::Existing };
            disk.submit(Class::Read, Tag(0), op);
            let done = next(&mut disk, &mut VecDeque::new());
            let Done::Opened { file, bytes } = done else { unreachable!("an open completes so") };
            files.push((file, bytes));
        }
        Some(Raw { disk, files, spare: Vec::new() })
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Reads everything once.
    fn read(&mut self) {
        let pieces = self.files.iter().flat_map(|(file, bytes)| {
            (0..*bytes).step_by(READ_BYTES).map(|offset| (*file, offset))
        });
        let (mut in_flight, mut waiting) = (0, VecDeque::new());
        for (file, offset) in pieces {
            if in_flight == READS_MAX {
                let Done::Read { buf, .. } = next(&mut self.disk, &mut waiting) else { continue };
                self.spare.push(buf);
                in_flight -= 1;
            }
            let buf = self.spare.pop().unwrap_or_else(|| AlignedBuf::zeroed(READ_BYTES));
            self.disk.submit(Class::Read, Tag(0), Op::Read { file, offset, buf });
            in_flight += 1;
        }
        for _ in 0..in_flight {
            let Done::Read { buf, .. } = next(&mut self.disk, &mut waiting) else { continue };
            self.spare.push(buf);
        }
    }
}

fn next(disk: &mut AnyDisk, waiting: &mut VecDeque<Completion>) -> Done {
    loop {
        if let Some(completion) = waiting.pop_front() {
            return completion.result.expect("a sound disk");
        }
        let mut completions = Vec::new();
        disk.poll(&mut completions);
        if completions.is_empty() {
            disk.wait(None);
        }
        waiting.extend(completions);
    }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

fn bench_raw(criterion: &mut Criterion, group: &str, dir: &Path, part: &str, backend: Backend) {
    let Some(mut raw) = Raw::new(dir, part, backend) else { return };
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Bytes(raw.bytes()));
    group.bench_function("raw-read", |bencher| bencher.iter(|| raw.read()));
    group.finish();
}

fn bench_log(criterion: &mut Criterion) {
    let dir = dir();
    Node::new(open_engine(dir.path(), Backend::Auto, 1).expect("either can be used")).fill_log();
    for (backend, name) in BACKENDS {
        bench_raw(criterion, &format!("{name}/log"), dir.path(), "seg", backend);
        let mut opens = 1;
        let Some(opened) = open_engine(dir.path(), backend, opens) else { continue };
        let mut group = criterion.benchmark_group(format!("{name}/log"));
        group.throughput(Throughput::Bytes(opened.recovered.report.bytes_scanned));
        drop(opened);
        group.bench_function("open", |bencher| {
            bencher.iter(|| {
                opens += 1;
                open_engine(dir.path(), backend, opens)
            });
        });
        group.finish();
    }
}

fn bench_checkpoint(criterion: &mut Criterion) {
    let body: Vec<u8> = (0u8..=250).cycle().take(1 << 20).collect();
    for (backend, name) in BACKENDS {
        let dir = dir();
        let Some(opened) = open_engine(dir.path(), backend, 1) else { continue };
        let mut node = Node::new(opened);
        node.checkpoint(&body);
        let mut group = criterion.benchmark_group(format!("{name}/checkpoint"));
        group.throughput(Throughput::Bytes(BODY_BYTES));
        group.bench_function("write", |bencher| bencher.iter(|| node.checkpoint(&body)));
        let info = node.engine.checkpoints()[0];
        group.bench_function("load", |bencher| {
            bencher.iter(|| node.engine.load_checkpoint(&info, &mut |_| Ok(())));
        });
        group.finish();
        drop(node);
        bench_raw(criterion, &format!("{name}/checkpoint"), dir.path(), "ckpt", backend);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5));
    targets = bench_log, bench_checkpoint
}
criterion_main!(benches);
