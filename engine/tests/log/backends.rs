//! The same work through every backend leaves the same bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::io::Disk;
use engine::io::open::{Backend, open_disk};
use engine::io::simulated::{SimDisk, SimFaults};
use engine::{
    Append, CheckpointOrigin, DirLock, Engine, Entry, Event, HardState, Opened, Options, Position,
    ValueSlots, open,
};

const ROUNDS: u64 = 7;
const ROUND_ENTRIES: u64 = 21;
const ORIGIN: CheckpointOrigin = CheckpointOrigin::Local;

/// One frame at a time: what it promises is not for the device to decide then.
fn options(open: u64) -> Options {
    Options { seed: [77, open], inflight_frames_max: 1, ..engine::fuzzing::small_options() }
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

/// An engine, its clock, and what it has told.
struct Node<D: Disk> {
    engine: Engine<D>,
    now_us: u64,
    events: Vec<Event>,
}

impl<D: Disk> Node<D> {
    fn turn_until(&mut self, mut done: impl FnMut(&mut Node<D>) -> bool) {
        let deadline = deadline();
        while !done(self) {
            assert!(!is_over(deadline));
            self.engine.wait(Some(Duration::from_millis(1)));
            self.engine.turn(self.now_us, &mut self.events).unwrap();
        }
    }

    fn take(&mut self, is_it: impl Fn(&Event) -> bool) -> Option<Event> {
        let at = self.events.iter().position(is_it)?;
        Some(self.events.remove(at))
    }

    /// A slot is ready before anything happens, so that the next roll has no choice that depends on the device.
    fn wait_for_slots(&mut self) {
        self.turn_until(|node| node.engine.status().slots_ready > 0);
    }

    fn append(&mut self, append: Append) {
        let write = append.write;
        self.wait_for_slots();
        self.engine.append(append);
        let is_it = |event: &Event| matches!(event, Event::Durable { write: w } if *w == write);
        self.turn_until(|node| node.take(is_it).is_some());
    }

    /// Time passes, so that a NOTE follows what is durable.
    fn rest(&mut self) {
        self.now_us += 10_000;
        self.wait_for_slots();
        self.turn_until(|node| node.engine.is_idle());
    }

    fn checkpoint(&mut self, at: Position) {
        self.wait_for_slots();
        self.engine.checkpoint_begin(at, ORIGIN, 1 << 20, ValueSlots::default()).unwrap();
        let body = engine::fuzzing::body_of(at, 300_000);
        let mut rest = &body[..];
        while !rest.is_empty() {
            let room = self.engine.checkpoint_room(ORIGIN).min(rest.len());
            let (part, after) = rest.split_at(room);
            self.engine.checkpoint_push(ORIGIN, part);
            rest = after;
            let has_room = |node: &mut Node<D>| node.engine.checkpoint_room(ORIGIN) > 0;
            self.turn_until(has_room);
        }
        self.engine.checkpoint_finish(ORIGIN);
        let is_it = |event: &Event| matches!(event, Event::CheckpointDurable { .. });
        self.turn_until(|node| node.take(is_it).is_some());
        self.turn_until(|node| node.engine.status().spare_bytes > 0);
    }

    fn read_all(&mut self, first: u64, last: u64) {
        self.engine.read_entries(1, first, last, 1 << 30);
        let is_it = |event: &Event| matches!(event, Event::Entries { .. });
        let mut answer = None;
        self.turn_until(|node| {
            answer = node.take(is_it);
            answer.is_some()
        });
        let Some(Event::Entries { result, .. }) = answer else { panic!("no answer") };
        let entries = result.unwrap();
        assert!(entries.iter().map(|entry| entry.index).eq(first..=last));
        assert!(entries.iter().all(|entry| entry.payload == payload(entry.index)));
    }
}

/// Rounds of an open, writes one after the other, each awaited, notes and a checkpoint; the later ones in slots that
/// have been used before.
fn work<D: Disk>(mut disk: impl FnMut() -> D) {
    for round in 1..=ROUNDS {
        let Opened { engine, recovered } =
            open(disk(), Path::new("data"), options(round), engine::fuzzing::IDENTITY).unwrap();
        let mut node = Node { engine, now_us: 0, events: Vec::new() };
        let mut next = recovered.last.index + 1;
        assert_eq!(recovered.last.index, (round - 1) * ROUND_ENTRIES);
        for write in 1..=6 {
            let entries: Vec<Entry> = (next..next + write)
                .map(|index| Entry { index, term: round, kind: 1, payload: payload(index) })
                .collect();
            next += write;
            let hard_state = Some(HardState { term: round, vote: write });
            node.append(Append { write, hard_state, entries, ..Append::default() });
            if write % 2 == 0 {
                node.rest();
            }
        }
        node.read_all(recovered.log_start.index + 1, next - 1);
        node.checkpoint(Position { index: next - 1, term: round });
        node.rest();
    }
    // What was still to be removed goes with one more open.
    open(disk(), Path::new("data"), options(0), engine::fuzzing::IDENTITY).unwrap();
}

fn payload(index: u64) -> Bytes {
    Bytes::from(vec![u8::try_from(index).unwrap(); usize::try_from(index * 500).unwrap()])
}

/// Every file but the one that says who has the directory open, by its path.
type Files = BTreeMap<String, Vec<u8>>;

fn files_of(dir: &Path) -> Files {
    let mut files = Files::new();
    for part in ["", "seg", "ckpt"] {
        for file in std::fs::read_dir(dir.join(part)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() && !path.ends_with("LOCK") {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// The work must have met everything that is written to a slot in more than one way.
fn check_coverage(files: &Files) {
    let slots = || files.iter().filter(|(path, _)| path.starts_with("seg/")).map(|(_, file)| file);
    let number = |slot: &Vec<u8>| u64::from_le_bytes(slot[40..48].try_into().unwrap());
    let notes = slots()
        .flat_map(|slot| slot.chunks(4096))
        .filter(|block| block.starts_with(b"HFRM") && block[54] == 2)
        .count();
    let used = slots().filter(|slot| slot.starts_with(b"HFSEG")).count() as u64;
    let segments = slots().map(number).max().unwrap();
    assert!(notes > 3, "{notes} NOTE frames");
    assert!(segments > ROUNDS, "{segments} segments: none but those of opens");
    assert!(segments > used, "{segments} segments in {used} slots: none was used again");
    let checkpoints: Vec<&String> = files.keys().filter(|path| path.starts_with("ckpt/")).collect();
    assert!(checkpoints.len() == 3 && checkpoints[2] == "ckpt/spare.tmp", "{checkpoints:?}");
}

#[test]
fn every_backend_leaves_the_same_bytes_in_every_file() {
    let simulated = SimDisk::new(1, SimFaults::none());
    work(|| simulated.handle());
    let paths = simulated.files().into_iter();
    let expected: Files =
        paths.map(|path| (path.clone(), simulated.read_file(&path).unwrap())).collect();
    check_coverage(&expected);
    let mut tried = 0;
    for backend in [Backend::Syscall, Backend::Uring] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let _lock = DirLock::acquire(dir.path()).unwrap();
        if open_disk(dir.path(), backend).is_err() {
            // A kernel or container that refuses the ring: the other backends are compared.
            continue;
        }
        work(|| open_disk(dir.path(), backend).unwrap().0);
        let found = files_of(dir.path());
        assert!(found.keys().eq(expected.keys()), "{backend:?}: {:?}", found.keys());
        for (path, bytes) in &expected {
            assert!(&found[path] == bytes, "{path} of {backend:?} differs");
        }
        tried += 1;
    }
    assert!(tried > 0);
}
