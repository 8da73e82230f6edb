//! The floor under every other figure: durable writes to a pre-written file and nothing else.
//!
//! ```text
//! raw_disk DIR --bytes 4096 --inflight 1 --seconds 3 --io uring|syscall
//! ```
//!
//! Prints writes per second, bandwidth, and the median and 99th percentile of the time from handing a write
//! over to having its completion.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::buffer::{Frame, FramePool};
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::io::{Class, Completion, Disk, Done, FileId, Op, OpenMode, Tag, WriteBuf, WriteSync};

const FILE: &str = "raw-disk.probe";
const FILE_BYTES: u64 = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;
const USAGE: &str =
    "usage: raw_disk DIR [--bytes N] [--inflight N] [--seconds N] [--io auto|uring|syscall]";

struct Arguments {
    dir: PathBuf,
    bytes: usize,
    inflight: usize,
    seconds: u64,
    backend: Backend,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = parse(std::env::args().skip(1)).ok_or(USAGE)?;
    let (disk, why) = open_disk(&arguments.dir, arguments.backend)?;
    if let Some(why) = why {
        println!("not io_uring: {why}");
    }
    let path = arguments.dir.join(FILE);
    remove(&path)?;
    let outcome = measure(disk, &arguments);
    remove(&path)?;
    println!("{}", outcome?);
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let dir = PathBuf::from(words.next()?);
    let mut arguments =
        Arguments { dir, bytes: 4096, inflight: 1, seconds: 3, backend: Backend::Auto };
    while let Some(flag) = words.next() {
        let value = words.next()?;
        match flag.as_str() {
            "--bytes" => arguments.bytes = value.parse().ok()?,
            "--inflight" => arguments.inflight = value.parse().ok()?,
            "--seconds" => arguments.seconds = value.parse().ok()?,
            "--io" => {
                arguments.backend = match value.as_str() {
                    "auto" => Backend::Auto,
                    "uring" => Backend::Uring,
                    "syscall" => Backend::Syscall,
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    let usable = arguments.bytes.is_multiple_of(4096)
        && (4096..=CHUNK_BYTES).contains(&arguments.bytes)
        && arguments.inflight > 0;
    usable.then_some(arguments)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Waits for everything that is in flight.
fn collect(disk: &mut AnyDisk, count: usize) -> std::io::Result<Vec<Done>> {
    let mut out: Vec<Completion> = Vec::new();
    while out.len() < count {
        disk.wait(None);
        disk.poll(&mut out);
    }
    out.into_iter().map(|end| end.result).collect()
}

fn run(disk: &mut AnyDisk, op: Op) -> std::io::Result<Done> {
    disk.submit(Class::Background, Tag(0), op);
    Ok(collect(disk, 1)?.remove(0))
}

/// A frame of noise, so that no device can shorten it.
fn frame(pool: &FramePool, bytes: usize) -> Arc<Frame> {
    let mut buf = pool.take(bytes);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for byte in &mut buf.as_mut_slice()[..bytes] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = state.to_le_bytes()[7];
    }
    pool.freeze(buf, bytes)
}

fn prepare(disk: &mut AnyDisk, pool: &FramePool) -> std::io::Result<FileId> {
    let open = Op::Open { path: FILE.to_owned(), mode: OpenMode::CreateNew };
    let Done::Opened { file, .. } = run(disk, open)? else { unreachable!("an open opens") };
    run(disk, Op::Allocate { file, bytes: FILE_BYTES })?;
    let chunk = frame(pool, CHUNK_BYTES);
    for offset in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
        let buf = WriteBuf::Frame(Arc::clone(&chunk));
        run(disk, Op::Write { file, offset, buf, sync: WriteSync::Deferred })?;
    }
    run(disk, Op::Sync { file })?;
    Ok(file)
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn now() -> Instant {
    Instant::now()
}

fn measure(mut disk: AnyDisk, arguments: &Arguments) -> std::io::Result<String> {
    let pool = FramePool::default();
    let file = prepare(&mut disk, &pool)?;
    let frame = frame(&pool, arguments.bytes);
    let mut offset = 0;
    let mut next = || {
        let op = Op::Write {
            file,
            offset,
            buf: WriteBuf::Frame(Arc::clone(&frame)),
            sync: WriteSync::Durable,
        };
        offset = (offset + arguments.bytes as u64) % (FILE_BYTES - CHUNK_BYTES as u64);
        op
    };

    let mut started = vec![now(); arguments.inflight];
    let mut latencies: Vec<Duration> = Vec::new();
    let (begin, length) = (now(), Duration::from_secs(arguments.seconds));
    for (slot, at) in started.iter_mut().enumerate() {
        *at = now();
        disk.submit(Class::Commit, Tag(slot as u64), next());
    }
    let (mut ends, mut in_flight) = (Vec::new(), arguments.inflight);
    while in_flight > 0 {
        disk.wait(None);
        disk.poll(&mut ends);
        for end in ends.drain(..) {
            end.result?;
            let slot = usize::try_from(end.tag.0).expect("a slot's number");
            let at = now();
            latencies.push(at - started[slot]);
            if at - begin < length {
                started[slot] = at;
                disk.submit(Class::Commit, end.tag, next());
            } else {
                in_flight -= 1;
            }
        }
    }
    Ok(report(&disk, arguments, begin.elapsed(), latencies))
}

#[expect(clippy::cast_precision_loss, reason = "figures for reading")]
fn report(
    disk: &AnyDisk,
    arguments: &Arguments,
    took: Duration,
    mut latencies: Vec<Duration>,
) -> String {
    latencies.sort_unstable();
    let rank = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_nanos() as f64;
    let rate = latencies.len() as f64 / took.as_secs_f64();
    format!(
        "{} direct={} bytes={} inflight={}  {rate:.0} writes/s  {:.1} MB/s  p50 {:.1} us  p99 {:.1} us",
        disk.backend(),
        disk.is_direct(),
        arguments.bytes,
        arguments.inflight,
        rate * arguments.bytes as f64 / 1e6,
        rank(50) / 1e3,
        rank(99) / 1e3,
    )
}
