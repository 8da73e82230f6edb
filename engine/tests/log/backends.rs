//! The same work through every backend leaves the same bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::io::Disk;
use engine::io::open::{Backend, open_disk};
use engine::io::simulated::{SimDisk, SimFaults};
use engine::{Append, DirLock, Engine, Entry, Event, HardState, Opened, Options, open};

fn options(open: u64) -> Options {
    Options { seed: [77, open], note_after_us: u64::MAX, ..engine::fuzzing::small_options() }
}

#[expect(
    clippy::disallowed_methods,
    reason = "real devices are given a minute before they count as stuck"
)]
fn deadline() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

#[expect(clippy::disallowed_methods, reason = "likewise")]
fn is_over(deadline: Instant) -> bool {
    Instant::now() > deadline
}

/// Writes one after the other, each awaited, so that every backend cuts the same frames; then reopens and writes more.
fn work<D: Disk>(mut disk: impl FnMut() -> D) {
    for round in 1..=3u64 {
        let Opened { mut engine, recovered } =
            open(disk(), Path::new("data"), options(round), engine::fuzzing::IDENTITY).unwrap();
        let mut next = recovered.last.index + 1;
        assert_eq!(recovered.last.index, (round - 1) * 21);
        for write in 1..=6 {
            let entries: Vec<Entry> = (next..next + write)
                .map(|index| Entry { index, term: round, kind: 1, payload: payload(index) })
                .collect();
            next += write;
            let hard_state = Some(HardState { term: round, vote: write });
            engine.append(Append { write, hard_state, reset: None, entries });
            wait_for(&mut engine, write);
        }
        read_all(&mut engine, next - 1);
    }
}

fn payload(index: u64) -> Bytes {
    Bytes::from(vec![u8::try_from(index).unwrap(); usize::try_from(index * 500).unwrap()])
}

fn wait_for<D: Disk>(engine: &mut Engine<D>, write: u64) {
    let deadline = deadline();
    let mut events = Vec::new();
    loop {
        engine.turn(0, &mut events).unwrap();
        let is_it = |event: &Event| matches!(event, Event::Durable { write: w } if *w == write);
        if events.iter().any(is_it) {
            return;
        }
        assert!(!is_over(deadline));
        engine.wait(Some(Duration::from_millis(100)));
    }
}

fn read_all<D: Disk>(engine: &mut Engine<D>, last: u64) {
    let deadline = deadline();
    let mut events = Vec::new();
    engine.read_entries(1, 1, last, 1 << 30);
    loop {
        engine.turn(0, &mut events).unwrap();
        for event in events.drain(..) {
            if let Event::Entries { result, .. } = event {
                let entries = result.unwrap();
                assert_eq!(entries.len() as u64, last);
                assert!(entries.iter().all(|entry| entry.payload == payload(entry.index)));
                return;
            }
        }
        assert!(!is_over(deadline));
        engine.wait(Some(Duration::from_millis(100)));
    }
}

/// The slots that were written, in order.
fn slots_of(dir: &Path) -> Vec<Vec<u8>> {
    (0..3).map(|slot| std::fs::read(dir.join(format!("seg/{slot:08x}.seg"))).unwrap()).collect()
}

#[test]
fn every_backend_leaves_the_same_bytes_in_the_slots() {
    let simulated = SimDisk::new(1, SimFaults::none());
    work(|| simulated.handle());
    let expected: Vec<Vec<u8>> =
        (0..3).map(|slot| simulated.read_file(&format!("seg/{slot:08x}.seg")).unwrap()).collect();
    let mut tried = 0;
    for backend in [Backend::Syscall, Backend::Uring] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let _lock = DirLock::acquire(dir.path()).unwrap();
        if open_disk(dir.path(), backend).is_err() {
            // A kernel or container that refuses the ring: the other backends are compared.
            continue;
        }
        work(|| open_disk(dir.path(), backend).unwrap().0);
        assert!(slots_of(dir.path()) == expected, "{backend:?} differs");
        tried += 1;
    }
    assert!(tried > 0);
}
