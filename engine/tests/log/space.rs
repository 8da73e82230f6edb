//! A file system that is full: what goes on, what waits, what is left when it has room again.

use std::io::ErrorKind;

use engine::fuzzing::{World, small_options};
use engine::io::simulated::{OpKind, SimFaults};
use engine::{CheckpointError, CheckpointInfo, CheckpointOrigin, Event, Options, Room};

const LOCAL: CheckpointOrigin = CheckpointOrigin::Local;
const SPARE: &str = "ckpt/spare.tmp";
const SLOT_BYTES: u64 = 1 << 20;
/// It is not made to a size ahead, and not counted.
const META_BYTES: u64 = 4096;

/// The reserve of a real directory, and one slot ahead of need.
fn options() -> Options {
    Options { slots_to_free: 2, slots_to_keep: 2, ..small_options() }
}

/// A directory so old that its reserve is complete.
fn with_reserve(seed: u64) -> World {
    let mut world = World::new(seed, options(), SimFaults::none());
    world.open_and_check("first open");
    while world.engine().status().slots < 10 {
        world.append_entries(1, 3, 200_000);
        world.settle();
    }
    world.turn_until("the reserve", |world| world.engine().status().slots_ready == 5);
    world
}

fn full(world: &World) {
    world.disk.set_capacity(Some(world.disk.used_bytes()));
}

/// Entries until no slot is left for them.
fn fill(world: &mut World) {
    for _ in 0..1_000 {
        if world.engine().room() != Room::Plenty {
            return;
        }
        world.append_entries(1, 1, 100_000);
        world.turn_until("durable", |world| world.oracle.is_settled());
        (0..20).for_each(|_| world.turn().unwrap());
    }
    panic!("a hundred megabytes fit");
}

fn checkpoint(world: &mut World) -> Result<CheckpointInfo, CheckpointError> {
    let at = world.oracle.certain().last();
    world.checkpoint(at, LOCAL, 5_000)
}

#[test]
fn the_reserve_is_there_before_entries_take_what_is_above_it() {
    let mut world = with_reserve(60);
    for _ in 0..20 {
        world.append_entries(1, 4, 200_000);
        world.turn_until("durable", |world| {
            assert!(world.engine().status().slots_ready >= 4);
            world.oracle.is_settled()
        });
    }
}

#[test]
fn a_young_directory_does_not_wait_for_the_whole_reserve() {
    let mut world = World::new(61, options(), SimFaults::none());
    world.open_and_check("first open");
    world.append_entries(1, 8, 200_000);
    world.turn_until("durable", |world| world.oracle.is_settled());
    let status = world.engine().status();
    assert!(status.slots_ready < 4 && status.slots < 6, "{status:?}");
}

#[test]
fn entries_leave_the_slots_that_are_kept_for_a_hard_state() {
    let mut world = with_reserve(62);
    full(&world);
    for _ in 0..40 {
        world.append_entries(1, 1, 200_000);
    }
    for _ in 0..200 {
        world.turn().unwrap();
    }
    let status = world.engine().status();
    assert!(!world.oracle.is_settled(), "they wait");
    assert_eq!((status.slots_ready, status.room), (2, Room::Full), "{status:?}");
    // Power cuts, each followed by a vote: every open begins a new segment, and one without entries is given back.
    for term in 5..9 {
        world.disk.crash();
        world.open_and_check("after a power cut");
        world.vote(term, 1);
        world.turn_until("vote", |world| world.oracle.is_settled());
    }
    assert_eq!(world.engine().status().slots_ready, 1);
}

#[test]
fn room_says_what_may_be_proposed_and_checkpoints_pace_it() {
    let mut world = with_reserve(63);
    checkpoint(&mut world).unwrap();
    world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
    full(&world);
    fill(&mut world);
    let status = world.engine().status();
    assert_eq!((status.room, status.slots_ready), (Room::Low, 4), "{status:?}");
    let has = |world: &World, room| {
        world.events.iter().any(|event| matches!(event, Event::RoomChanged(r) if *r == room))
    };
    assert!(has(&world, Room::Low));
    // Half a slot of what frees space, then a checkpoint, over and over: whatever that is, the reserve outlasts it.
    world.slots = freeable(&mut world);
    for _ in 0..40 {
        let mut count = 0;
        while world.engine().room() == Room::Low {
            count += 1;
            assert!(count < 200, "half a slot is 128 frames of 4 KiB");
            world.append_entries(1, 1, 3_000);
            world.turn_until("durable", |world| world.oracle.is_settled());
            world.turn().unwrap();
        }
        assert_eq!(world.engine().room(), Room::Full);
        checkpoint(&mut world).unwrap();
        world.turn_until("removed", |world| world.disk.in_flight() == 0);
        let status = world.engine().status();
        assert!(status.slots_ready >= 2, "{status:?}");
    }
}

#[test]
fn full_to_the_brim_two_checkpoints_bring_everything_back_that_is_not_needed() {
    let mut world = with_reserve(64);
    checkpoint(&mut world).unwrap();
    world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
    full(&world);
    fill(&mut world);
    // Everything lives.
    let mut live = freeable(&mut world);
    world.slots.clone_from(&live);
    let at = world.oracle.certain().last();
    assert_eq!(freeable_bytes(&mut world, at.index, &live), 0);
    checkpoint(&mut world).unwrap();
    world.open_and_check("full");
    full(&world);
    // Half of it goes.
    live.truncate(live.len() / 2);
    world.slots.clone_from(&live);
    for is_last in [false, true] {
        world.append_entries(1, 1, 100);
        world.turn_until("durable", |world| world.oracle.is_settled());
        let at = world.oracle.certain().last();
        assert!(freeable_bytes(&mut world, at.index, &live) > 0);
        assert_ne!(world.engine().room(), Room::Plenty);
        checkpoint(&mut world).unwrap();
        world.turn_until("removed", |world| world.disk.in_flight() == 0);
        let is_free = world.engine().room() == Room::Plenty;
        assert_eq!(is_free, is_last, "{:?}", world.engine().status());
    }
    let at = world.oracle.certain().last();
    assert_eq!(freeable_bytes(&mut world, at.index, &live), 0);
    world.append_entries(1, 6, 100_000);
    world.settle();
    world.disk.crash_drop_all();
    world.open_and_check("with room again");
}

/// What checkpoints would give back if all of these slots were live.
fn freeable_bytes(world: &mut World, at: u64, live: &[u32]) -> u64 {
    let live_bytes = |slot| if live.contains(&slot) { SLOT_BYTES } else { 0 };
    world.engine().freeable_bytes(at, &live_bytes)
}

/// The slots that checkpoints would give back if nothing lived.
fn freeable(world: &mut World) -> Vec<u32> {
    let at = world.oracle.certain().last().index;
    let count = u32::try_from(world.engine().status().slots).unwrap();
    let all_but = |slot| move |other| if other == slot { 0 } else { SLOT_BYTES };
    (0..count).filter(|slot| world.engine().freeable_bytes(at, &all_but(*slot)) > 0).collect()
}

#[test]
fn a_checkpoint_that_somebody_reads_promises_nothing_that_it_keeps() {
    let mut world = with_reserve(65);
    let older = checkpoint(&mut world).unwrap().at.index;
    world.append_entries(1, 8, 200_000);
    world.settle();
    let free = freeable(&mut world);
    world.engine().pin_checkpoint(older).unwrap();
    let with_pin = freeable(&mut world);
    assert!(!with_pin.is_empty(), "what comes before it");
    assert!(with_pin.len() < free.len(), "the log after it stays: {with_pin:?} of {free:?}");
    assert!(with_pin.iter().all(|slot| free.contains(slot)));
    world.engine().unpin_checkpoint(older);
    assert_eq!(freeable(&mut world), free);
}

#[test]
fn a_checkpoint_is_written_on_a_full_file_system_also_after_a_start() {
    let mut world = with_reserve(66);
    // The first one, too, if its size is known.
    world.engine().expect_checkpoint(5_000);
    world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
    for round in 0..4 {
        full(&world);
        world.append_entries(1, 1, 100);
        world.settle();
        checkpoint(&mut world).unwrap();
        if round < 2 {
            // No older one has gone yet.
            world.disk.set_capacity(None);
        }
        world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
        full(&world);
        world.open_and_check("full");
        assert!(world.engine().status().spare_bytes > 5_000, "it was found again");
    }
}

#[test]
fn space_for_the_next_checkpoint_comes_before_slots() {
    let mut world = with_reserve(67);
    checkpoint(&mut world).unwrap();
    world.turn_until("quiet", |world| world.disk.in_flight() == 0);
    // Not enough for it, and enough for a slot.
    world.disk.set_capacity(Some(world.disk.used_bytes() + (3 << 20)));
    world.engine().expect_checkpoint(4 << 20);
    world.turn_until("low room", |world| world.engine().room() == Room::Low);
    let slots = world.engine().status().slots;
    world.append_entries(1, 16, 100_000);
    world.turn_until("durable", |world| world.oracle.is_settled());
    for _ in 0..200 {
        world.turn().unwrap();
    }
    assert_eq!(world.engine().status().slots, slots);
    world.disk.set_capacity(None);
    world.turn_until("room", |world| world.engine().room() == Room::Plenty);
    assert!(world.engine().status().spare_bytes > 4 << 20);
}

#[test]
fn an_aborted_checkpoint_that_had_the_spare_file_leaves_space_for_the_next() {
    let mut world = with_reserve(68);
    checkpoint(&mut world).unwrap();
    world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
    full(&world);
    for _ in 0..3 {
        world.append_entries(1, 1, 100);
        world.settle();
        let at = world.oracle.certain().last();
        world.checkpoint_begin(at, LOCAL).unwrap();
        world.turn().unwrap();
        world.engine().checkpoint_abort(LOCAL);
        world.turn_until("aborted", |world| !world.engine().status().checkpoint_in_progress);
        world.events.clear();
        world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
    }
    world.checkpoint(world.oracle.certain().last(), LOCAL, 5_000).unwrap();
}

#[test]
fn a_power_cut_at_any_moment_of_two_checkpoints_on_a_full_file_system_leaves_space_for_another() {
    let mut world = with_reserve(72);
    for _ in 0..2 {
        world.append_entries(1, 1, 100);
        world.settle();
        checkpoint(&mut world).unwrap();
    }
    world.turn_until("quiet", |world| world.disk.in_flight() == 0);
    full(&world);
    let (sound, oracle, newest) = (world.disk.snapshot(), world.oracle.clone(), world.checkpoint);
    let work = |world: &mut World| {
        for _ in 0..2 {
            world.append_entries(1, 1, 100);
            world.settle();
            checkpoint(world).unwrap();
        }
        world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
    };
    let mut operations = 0;
    for cut in 0..1_000 {
        world.disk.restore(&sound);
        world.disk.reseed(cut);
        (world.oracle, world.checkpoint) = (oracle.clone(), newest);
        world.open_and_check("full");
        let is_done = world.with_power_for(operations, work);
        if is_done {
            assert!(operations > 25, "{operations} operations are too few for two checkpoints");
            return;
        }
        // Each moment meets eight fates.
        operations += u64::from(cut % 8 == 7);
        world.open_and_check("after a power cut");
        world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
        work(&mut world);
    }
    panic!("two checkpoints take more than a thousand operations");
}

#[test]
fn a_limit_is_a_full_file_system() {
    let limit = 14 << 20;
    let options = Options { space_bytes_max: limit, ..options() };
    assert!(options.space_bytes_min() <= limit);
    let mut world = World::new(69, options, SimFaults::none());
    for open in 0..3 {
        world.open_and_check("an open with a limit");
        world.engine().expect_checkpoint(5_000);
        world.turn_until("spare", |world| world.engine().status().spare_bytes > 0);
        fill(&mut world);
        assert!(world.disk.used_bytes() <= limit + META_BYTES, "{open}");
        assert!(world.disk.used_bytes() > limit - (3 << 20));
        for _ in 0..3 {
            world.append_entries(1, 1, 100);
            world.turn_until("durable", |world| world.oracle.is_settled());
            checkpoint(&mut world).unwrap();
            world.turn_until("removed", |world| world.disk.in_flight() == 0);
            assert!(world.disk.used_bytes() <= limit + META_BYTES);
        }
        assert_eq!(world.engine().room(), Room::Plenty);
    }
}

/// One row: which operation finds the file system full, after how many that go well.
const STEPS: [(OpKind, u64); 3] = [(OpKind::Open, 3), (OpKind::Allocate, 3), (OpKind::Write, 3)];

#[test]
fn a_full_file_system_at_any_step_of_making_a_slot_is_met_again_later() {
    for (kind, count) in STEPS {
        for skip in 0..count {
            let mut world = World::new(skip, options(), SimFaults::none());
            world.try_open().unwrap();
            world.disk.fail_after(kind, skip, ErrorKind::StorageFull);
            world.turn_until("low room", |world| world.engine().room() == Room::Low);
            world.turn_until("taken back", |world| world.disk.in_flight() == 0);
            let slots = world.engine().status().slots;
            let files = world.disk.files();
            assert_eq!(files.len(), 1 + slots, "{kind:?} {skip}: META and the slots: {files:?}");
            world.turn_until("room", |world| world.engine().room() == Room::Plenty);
            world.turn_until("slots", |world| world.engine().status().slots_ready == 5);
            world.append_entries(1, 12, 200_000);
            world.settle();
            world.disk.crash();
            world.open_and_check("after a power cut");
        }
    }
}

#[test]
fn a_full_file_system_at_any_step_of_writing_a_checkpoint_ends_that_checkpoint_alone() {
    // With the file of its own that is made for it, and with the spare one, which is shorter than what is announced.
    for with_spare in [false, true] {
        for (kind, count) in STEPS {
            let mut failed = 0;
            for skip in 0..count {
                let mut world = with_reserve(70);
                if with_spare {
                    checkpoint(&mut world).unwrap();
                    world.append_entries(1, 1, 100);
                    world.settle();
                }
                world.turn_until("quiet", |world| world.disk.in_flight() == 0);
                let (at, files) = (world.oracle.certain().last(), world.disk.files());
                assert_eq!(files.contains(&SPARE.to_owned()), with_spare);
                let before = world.disk.counters().errors_injected;
                world.disk.fail_after(kind, skip, ErrorKind::StorageFull);
                let ended = world.checkpoint(at, LOCAL, 2_500_000);
                if world.disk.counters().errors_injected == before {
                    break;
                }
                world.turn_until("taken back", |world| world.disk.in_flight() == 0);
                if let Err(error) = ended {
                    failed += 1;
                    assert!(matches!(error, CheckpointError::NoSpace { .. }), "{error}");
                    assert_eq!(world.disk.files(), files, "{kind:?} {skip}");
                    assert_eq!(world.checkpoint(at, LOCAL, 2_500_000).unwrap().at, at);
                }
                world.disk.crash();
                world.open_and_check("after a power cut");
            }
            assert_eq!(failed > 0, !(with_spare && kind == OpKind::Open), "{with_spare} {kind:?}");
        }
    }
}

#[test]
fn a_full_file_system_that_only_a_sync_or_a_rename_reports_is_final() {
    for kind in [OpKind::Sync, OpKind::Rename, OpKind::SyncDir] {
        let mut world = World::new(71, options(), SimFaults::none());
        world.try_open().unwrap();
        world.disk.fail_next(kind, ErrorKind::StorageFull);
        let is_halted = (0..500).any(|_| world.turn().is_err());
        assert!(is_halted, "{kind:?}");
    }
}
