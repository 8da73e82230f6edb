//! Power cuts at chosen moments.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::fuzzing::{Oracle, World, small_options};
use engine::io::simulated::{Fate, SimHandle, SimImage, Unsynced};
use engine::io::{Class, Completion, Disk, Done, FileId, Op, Tag, Wake};
use engine::{HardState, Position};

/// A world with every slot made and three acknowledged entries, and the moment after `work` was handed to the disk.
fn cut_in(work: impl FnOnce(&mut World)) -> (World, SimImage, Oracle) {
    let mut world = World::opened(7);
    world.vote(2, 3);
    world.append_entries(2, 3, 50);
    world.settle();
    world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
    while world.disk.in_flight() > 0 {
        world.turn().unwrap();
    }
    assert!(world.disk.unsynced().is_empty(), "{:?}", world.disk.unsynced());
    work(&mut world);
    let (image, oracle) = (world.disk.snapshot(), world.oracle.clone());
    (world, image, oracle)
}

/// Cuts the power with these fates and opens twice: what is found must be allowed, and the same both times.
fn crash_with(
    world: &mut World,
    image: &SimImage,
    oracle: &Oracle,
    mut choose: impl FnMut(usize) -> Fate,
) -> Position {
    world.disk.restore(image);
    world.oracle = oracle.clone();
    let mut next = 0;
    world.disk.crash_with(|_: &Unsynced| {
        next += 1;
        choose(next - 1)
    });
    let first = world.open_and_check("after the crash");
    let second = world.open_and_check("once more");
    assert_eq!(first.last, second.last);
    assert_eq!(first.hard_state, second.hard_state);
    first.last
}

const FATES: [Fate; 4] = [Fate::Old, Fate::New, Fate::Garbage, Fate::Zero];

#[test]
fn a_torn_frame_is_cut_whichever_of_its_sectors_survive() {
    let (mut world, image, oracle) = cut_in(|world| {
        world.append_entries(2, 1, 600);
        world.turn_now().unwrap();
    });
    let sectors = world.disk.unsynced().len();
    assert_eq!(sectors, 8);
    let mut whole = 0;
    for mask in 0..1u32 << sectors {
        let last = crash_with(&mut world, &image, &oracle, |at| FATES[(mask >> at & 1) as usize]);
        whole += u32::from(last.index == 4);
    }
    // The frame's bytes are in the first two sectors: a quarter of the subsets holds it whole.
    assert_eq!(whole, 1 << (sectors - 2));
    for draw in 0..400u32 {
        let bits = draw.wrapping_mul(0x9E37_79B9);
        crash_with(&mut world, &image, &oracle, |at| FATES[(bits >> (2 * at) & 3) as usize]);
    }
}

#[test]
fn frames_in_flight_are_cut_from_the_first_torn_one_on() {
    let (mut world, image, oracle) = cut_in(|world| {
        for _ in 0..4 {
            world.append_entries(2, 1, 9_000);
            world.turn_now().unwrap();
        }
        assert_eq!(world.engine().status().in_flight, 4);
    });
    let sectors = world.disk.unsynced().len();
    assert_eq!(sectors % 4, 0);
    let frame = sectors / 4;
    // Any set of whole frames: the log ends before the first that is missing.
    for kept in 0..16usize {
        let fate = |at: usize| FATES[kept >> (at / frame) & 1];
        let last = crash_with(&mut world, &image, &oracle, fate);
        assert_eq!(last.index, 3 + u64::from(kept.trailing_ones()), "kept {kept:04b}");
    }
    let mut random = 5u64;
    for _ in 0..300 {
        crash_with(&mut world, &image, &oracle, |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            FATES[(random >> 33) as usize % 4]
        });
    }
}

/// The header of a segment states where the one before it ends; so nothing up to there may be in flight when it is
/// written.
#[test]
fn a_segment_is_opened_only_when_the_one_before_it_is_durable() {
    let (mut world, _, _) = cut_in(|world| {
        world.append_entries(2, 15, 60_000);
        world.settle();
        for _ in 0..3 {
            world.append_entries(2, 1, 60_000);
            world.turn_now().unwrap();
        }
    });
    assert!(world.engine().in_flight() > 0);
    // The newest of the old segment is lost, whatever has gone to the next one is not.
    let mut lost = 0;
    world.disk.crash_with(|unsynced| match unsynced {
        Unsynced::Sector { path, .. } if **path == *"seg/00000000.seg" => {
            lost += 1;
            Fate::Old
        }
        Unsynced::Sector { .. } | Unsynced::Size { .. } | Unsynced::Entry { .. } => Fate::New,
    });
    assert!(lost > 0);
    world.open_and_check("after the crash");
}

/// A power cut left rubbish in the padding of a segment's header: the header was bad, the log was found empty, and the
/// slot was written again. A second power cut kept of that write nothing but the padding, which made the old header good
/// again: an entry came back that the node had forgotten.
#[test]
fn a_first_write_that_was_cut_does_not_come_back_when_its_slot_is_written_again() {
    let mut world = World::opened(24);
    world.append_entries(1, 1, 50);
    world.turn_now().unwrap();
    let offset_of = |unsynced: &Unsynced| match unsynced {
        Unsynced::Sector { path, offset, .. } if **path == *"seg/00000000.seg" => Some(*offset),
        Unsynced::Sector { .. } | Unsynced::Size { .. } | Unsynced::Entry { .. } => None,
    };
    world.disk.crash_with(|unsynced| match offset_of(unsynced) {
        Some(1024) => Fate::Garbage,
        _ => Fate::New,
    });
    let found = world.open_and_check("after the first power cut");
    world.append_after(found.last.index, 2, 1, 60);
    world.turn_now().unwrap();
    world.disk.crash_with(|unsynced| match offset_of(unsynced) {
        Some(512..4096) => Fate::New,
        _ => Fate::Old,
    });
    let again = world.open_and_check("after the second one");
    assert_eq!(again.last, found.last);
}

#[test]
fn a_torn_roll_leaves_the_segment_before_it_as_it_was() {
    let (mut world, image, oracle) = cut_in(|world| {
        world.open_and_check("an open rolls");
        world.append(Some(HardState { term: 3, vote: 1 }), None, Vec::new());
        world.append_entries(3, 1, 100);
        world.turn_now().unwrap();
    });
    let is_sector = |unsynced: &&Unsynced| matches!(unsynced, Unsynced::Sector { .. });
    let sectors = world.disk.unsynced().iter().take_while(is_sector).count();
    assert_eq!(sectors, 16, "a segment header and a frame");
    for mask in 0..256u32 {
        // Sectors that hold bytes: the first of the header, the first of the frame; and some others.
        let fate = |at: usize| FATES[(mask >> (at / 2) & 1) as usize];
        crash_with(&mut world, &image, &oracle, fate);
    }
}

#[test]
fn a_crash_at_any_operation_of_any_phase_loses_nothing() {
    for reopened in [false, true] {
        let mut operations = 0;
        loop {
            let mut world = World::new(operations, engine::fuzzing::small_options(), healthy());
            if reopened {
                world.open_and_check("first open");
                life(&mut world);
            }
            let ended = world.with_power_for(operations, |world| {
                world.open_and_check("an open with little power");
                life(world);
            });
            world.open_and_check("after the cut");
            life(&mut world);
            if ended {
                break;
            }
            operations += 1;
        }
        assert!(operations > 30, "only {operations} operations were cut");
    }
}

fn healthy() -> engine::io::simulated::SimFaults {
    engine::io::simulated::SimFaults::none()
}

/// Entries, a replaced suffix, a vote, and two checkpoints.
fn life(world: &mut World) {
    let term = world.engine().status().last.term + 1;
    world.vote(term, 1);
    world.append_entries(term, 3, 30_000);
    world.checkpoint_here();
    world.append_entries(term, 2, 100);
    let last = world.engine().status().last.index;
    world.append_after(last - 1, term + 1, 3, 200);
    world.settle();
    world.checkpoint_here();
    world.append_entries(term + 1, 1, 10);
}

#[test]
fn an_install_survives_a_crash_at_any_operation() {
    let mut operations = 0;
    loop {
        let mut world = World::opened(operations);
        world.append_entries(1, 5, 300);
        world.checkpoint_here();
        let at = Position { index: 900, term: 4 };
        let ended = world.with_power_for(operations, |world| {
            world.install(at, 80_000);
            world.append_entries(5, 2, 64);
            world.settle();
            world.checkpoint_here();
        });
        let recovered = world.open_and_check("after the cut");
        if recovered.checkpoint.is_some_and(|info| info.at == at) {
            assert!(recovered.log_start == at || recovered.last.index > 900);
        }
        world.append_entries(9, 2, 64);
        world.settle();
        world.open_and_check("after more work");
        if ended {
            break;
        }
        operations += 1;
    }
    assert!(operations > 20);
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let mut world = World::opened(21);
    for round in 0..60u64 {
        world.append_entries(1, round % 7 + 1, 1_000);
        for _ in 0..round % 11 {
            world.turn().unwrap();
        }
        world.disk.kill();
        world.open_and_check("after a kill");
    }
}

#[test]
fn a_replaced_suffix_stays_replaced_across_crashes() {
    let mut world = World::opened(22);
    world.append_entries(1, 10, 40);
    world.settle();
    world.append_after(4, 2, 2, 40);
    world.settle();
    world.disk.crash_drop_all();
    let recovered = world.open_and_check("after a crash");
    assert_eq!(recovered.last, Position { index: 6, term: 2 });
    assert_eq!(recovered.terms, [(1, 1), (2, 5)]);
    world.append_after(2, 3, 1, 40);
    world.turn_now().unwrap();
    world.disk.crash_drop_all();
    let recovered = world.open_and_check("before the next one was durable");
    assert_eq!(recovered.last, Position { index: 6, term: 2 });
}

#[test]
fn what_an_open_has_found_survives_the_next_power_cut() {
    for seed in 0..40 {
        let mut world = World::opened(seed);
        world.append_entries(1, 3, 200);
        world.settle();
        for _ in 0..3 {
            world.append_entries(1, 1, 9_000);
            world.turn_now().unwrap();
        }
        // The process dies with frames in flight; what reached the device was never acknowledged.
        world.disk.kill();
        let found = world.open_and_check("after the kill");
        world.disk.crash_drop_all();
        let again = world.open_and_check("after the power cut");
        assert_eq!(found.last, again.last, "seed {seed}");
    }
}

/// Notes which slots are synced and which are read.
struct Watching {
    disk: SimHandle,
    slots: BTreeMap<Tag, String>,
    files: BTreeMap<FileId, String>,
    syncs: BTreeMap<Tag, FileId>,
    synced: BTreeSet<FileId>,
    reads: Rc<Cell<u32>>,
}

impl Disk for Watching {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        if let Op::Open { path, .. } = &op
            && path.starts_with("seg/")
        {
            self.slots.insert(tag, path.clone());
        }
        if let Op::Sync { file } = &op {
            self.syncs.insert(tag, *file);
        }
        if let Op::Read { file, .. } = &op
            && self.files.contains_key(file)
        {
            assert!(self.synced.contains(file), "{} is read before a sync", self.files[file]);
            self.reads.set(self.reads.get() + 1);
        }
        self.disk.submit(class, tag, op);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        let before = out.len();
        self.disk.poll(out);
        for Completion { tag, result } in &out[before..] {
            if let (Some(path), Ok(Done::Opened { file, .. })) = (self.slots.remove(tag), result) {
                self.files.insert(*file, path);
            }
            self.synced.extend(self.syncs.remove(tag));
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.disk.wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.disk.waker()
    }

    fn list(&mut self, dir: &str) -> std::io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn backend(&self) -> &'static str {
        self.disk.backend()
    }

    fn is_direct(&self) -> bool {
        self.disk.is_direct()
    }
}

#[test]
fn every_slot_is_synced_before_it_is_read() {
    let mut world = World::opened(23);
    world.append_entries(1, 8, 200_000);
    world.settle();
    let reads = Rc::new(Cell::new(0));
    let disk = Watching {
        disk: world.disk.handle(),
        slots: BTreeMap::new(),
        files: BTreeMap::new(),
        syncs: BTreeMap::new(),
        synced: BTreeSet::new(),
        reads: Rc::clone(&reads),
    };
    let options = small_options();
    engine::open(disk, Path::new("data"), options, engine::fuzzing::IDENTITY).unwrap();
    assert!(reads.get() >= 4);
}

#[test]
fn half_made_files_go_at_the_next_open_and_not_when_it_is_refused() {
    let mut world = World::opened(5);
    world.append_entries(1, 3, 200);
    world.settle();
    world.disk.write_file("seg/00000007.tmp", &[0; 4096]);
    world.disk.write_file("ckpt/0000000000000003.1.tmp", &[1; 4096]);
    let files = world.disk.files();
    let sound = world.disk.read_file("META").unwrap();
    world.disk.flip_bit("META", 500);
    assert!(world.try_open().is_err());
    assert_eq!(world.disk.files(), files);
    world.disk.write_file("META", &sound);
    world.open_and_check("with a sound META");
    assert!(world.disk.files().iter().all(|path| path != "ckpt/0000000000000003.1.tmp"));
    assert!(world.disk.files().iter().all(|path| path != "seg/00000007.tmp"));
}
