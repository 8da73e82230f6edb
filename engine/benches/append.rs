//! What a durable append costs through the log, beside raw durable writes of the same size to the same disk in the same
//! run: entries of 1, 64 and 1,024 commands of 256 bytes, one at a time and 64 at a time; and what threads that each wait
//! for their own entry get out of one log together.

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::io::open::{AnyDisk, Backend};
use engine::io::syscall::{SyscallDisk, SyscallOptions};
use engine::{Options, SharedLog};

mod support;

use support::{Node, Raw, checkpoint_if_due, micros_since, noise, now, on_threads, open_new};

const COMMAND_BYTES: usize = 256;
const COMMANDS: [usize; 3] = [1, 64, 1024];
/// Logical writers whose entries are queued at once and awaited together.
const WRITERS: usize = 64;
const THREADS: [usize; 2] = [1, 64];
/// A thread looks for a due checkpoint after as many entries.
const CHECK_EVERY: u64 = 512;
const BACKENDS: [(Backend, &str); 2] = [(Backend::Uring, "uring"), (Backend::Syscall, "syscall")];

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory is writable")
}

/// The frame of one entry of this payload.
fn frame_bytes(payload: usize) -> usize {
    (128 + 32 + payload.next_multiple_of(16)).next_multiple_of(4096)
}

fn bench_append(criterion: &mut Criterion) {
    for (backend, name) in BACKENDS {
        let (log_dir, raw_dir) = (dir(), dir());
        let Some(mut node) = Node::new(log_dir.path(), backend, Options::default()) else {
            continue;
        };
        let mut raw = Raw::new(raw_dir.path(), backend, 4096).expect("the node could use it");
        for commands in COMMANDS {
            let payload = noise(commands * COMMAND_BYTES);
            let mut group = criterion.benchmark_group(format!("{name}/{commands}-commands"));
            group.throughput(Throughput::Elements(commands as u64));
            group.bench_function("append", |bencher| {
                bencher.iter(|| {
                    node.append(&payload, 1);
                    node.wait_until_durable();
                });
            });
            raw.resize(frame_bytes(payload.len()));
            group.bench_function(BenchmarkId::new("raw-write", raw.frame_bytes()), |bencher| {
                bencher.iter(|| raw.write(1));
            });
            group.throughput(Throughput::Elements((commands * WRITERS) as u64));
            group.bench_function(BenchmarkId::new("logical-writers", WRITERS), |bencher| {
                bencher.iter(|| {
                    (0..WRITERS).for_each(|_| node.append(&payload, 1));
                    node.wait_until_durable();
                });
            });
            group.finish();
        }
    }
}

fn bench_waiting_threads(criterion: &mut Criterion) {
    let dir = dir();
    let options = SyscallOptions { inline_commits: true, ..SyscallOptions::default() };
    let disk = SyscallDisk::open(dir.path(), options).expect("the directory is ours");
    let opened = open_new(AnyDisk::Syscall(disk), dir.path(), Options::default());
    let started = now();
    let log = SharedLog::new(opened, 1, move || micros_since(started));
    let payload = noise(COMMAND_BYTES);
    let mut group = criterion.benchmark_group("shared");
    for threads in THREADS {
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new("waiting-threads", threads), |bencher| {
            bencher.iter_custom(|entries| append_by_threads(&log, threads, entries, &payload));
        });
    }
    group.finish();
}

/// How long it takes until each thread has made as many entries durable, one at a time.
fn append_by_threads<F: FnMut() -> u64 + Send>(
    log: &SharedLog<AnyDisk, F>,
    threads: usize,
    entries: u64,
    payload: &Bytes,
) -> Duration {
    let started: Instant = now();
    on_threads(threads, |_| {
        for entry in 0..entries {
            log.append(0, payload.clone()).expect("a sound disk");
            if entry % CHECK_EVERY == 0 {
                log.with_engine(checkpoint_if_due);
            }
        }
    });
    started.elapsed()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = bench_append, bench_waiting_threads
}
criterion_main!(benches);
