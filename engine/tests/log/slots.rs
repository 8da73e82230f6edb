//! Slots: made ahead, recycled, given up only when nothing needs them.

use engine::fuzzing::World;
use engine::{CheckpointOrigin, Event, HardState, Position, Room};

#[test]
fn slots_are_recycled_and_what_they_held_never_comes_back() {
    let mut world = World::opened(2);
    for round in 0..60 {
        world.append_entries(1, 4, 200_000);
        world.checkpoint_here();
        if round % 5 == 4 {
            world.disk.crash();
            world.open_and_check("after a crash");
        }
    }
    let status = world.engine().status();
    assert!(status.slots <= 8, "{status:?}");
}

#[test]
fn a_hard_state_outlives_the_segments_it_was_written_in() {
    let mut world = World::opened(3);
    let hard_state = HardState { term: 9, vote: 2 };
    world.vote(9, 2);
    for _ in 0..12 {
        world.append_entries(9, 4, 200_000);
        world.checkpoint_here();
    }
    assert_eq!(world.open_and_check("after recycling").hard_state, hard_state);
    world.disk.crash_drop_all();
    assert_eq!(world.open_and_check("again").hard_state, hard_state);
}

#[test]
fn opens_without_entries_use_no_slots_up() {
    let mut world = World::opened(4);
    world.append_entries(1, 3, 100);
    world.settle();
    for round in 0..30 {
        world.open_and_check("an idle open");
        world.vote(10 + round, 1);
        world.settle();
    }
    let status = world.engine().status();
    assert!(status.slots <= 4, "{status:?}");
}

#[test]
fn a_reset_gives_up_every_slot_before_it() {
    let mut world = World::opened(5);
    world.append_entries(1, 20, 200_000);
    world.settle();
    let before = world.engine().status().slots_live;
    assert!(before > 3);
    let at = Position { index: 1_000, term: 3 };
    world.install(at, 100);
    world.settle();
    world.append_entries(3, 1, 10);
    world.settle();
    let started = world
        .events
        .iter()
        .any(|event| matches!(event, Event::LogStart { log_start } if *log_start == at));
    assert!(started, "the new start is reported");
    let status = world.engine().status();
    assert_eq!(status.log_start, at);
    assert_eq!(status.slots_live, 1, "{status:?}");
    assert_eq!(world.open_and_check("after the reset").log_start, at);
}

#[test]
fn without_space_for_a_slot_room_is_low_and_what_is_acknowledged_stays() {
    let mut world = World::opened(6);
    world.options.slots_ready = 2;
    world.open_and_check("with a reserve");
    world.turn_until("slots", |world| world.engine().status().slots_ready == 2);
    world.disk.set_capacity(Some(0));
    world.append_entries(1, 1, 100_000);
    world.turn_until("low room", |world| world.engine().room() == Room::Low);
    assert_eq!(world.engine().status().slots_ready, 1, "the reserve");
    assert!(world.events.iter().any(|event| matches!(event, Event::RoomChanged(Room::Low))));
    // What is left still takes votes.
    world.vote(5, 1);
    world.turn_until("vote", |world| world.oracle.is_settled());
    // When everything is full, writes wait; none of them is acknowledged and none is lost.
    for _ in 0..30 {
        world.append_entries(1, 1, 100_000);
    }
    for _ in 0..200 {
        world.turn().unwrap();
    }
    assert!(!world.oracle.is_settled());
    world.disk.crash();
    world.open_and_check("with a full disk");
    world.disk.set_capacity(None);
    world.append_entries(1, 12, 100_000);
    world.settle();
    world.turn_until("room", |world| world.engine().room() == Room::Plenty);
}

#[test]
fn checkpoints_bring_a_full_directory_back() {
    let mut world = World::opened(8);
    world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
    world.disk.set_capacity(Some(6 << 20));
    for _ in 0..30 {
        world.append_entries(1, 3, 200_000);
        world.turn_until("durable", |world| world.oracle.is_settled());
        let at = world.oracle.certain().last();
        world.checkpoint(at, CheckpointOrigin::Local, 1_000).unwrap();
    }
    world.open_and_check("after much recycling");
}

/// An open read every slot whole, needed or not: a directory with hundreds of slots of values took minutes to open.
#[test]
fn an_open_reads_little_of_slots_outside_of_the_log() {
    const HELD: u32 = 10;
    let mut world = World::opened(9);
    world.append_entries(1, 80, 200_000);
    for _ in 0..2 {
        world.append_entries(1, 1, 10);
        world.settle();
        let (at, origin) = (world.oracle.certain().last(), CheckpointOrigin::Local);
        let slots = world.engine().value_slots((0..HELD).collect());
        world.engine().checkpoint_begin(at, origin, 10, slots).unwrap();
        world.engine().checkpoint_push(origin, &engine::fuzzing::body_of(at, 10));
        world.engine().checkpoint_finish(origin);
        world.turn_until("checkpoint", |world| world.checkpoint.is_some_and(|info| info.at == at));
    }
    world.turn_until("quiet", |world| world.disk.in_flight() == 0);
    let report = world.open_and_check("with slots that hold values").report;
    assert!(report.slots > 16 && report.segments == 1, "{report}");
    // Nothing but their first two blocks of those that a checkpoint needs; of those that nobody needs, as far as a
    // second frame may start; the log's only one and the one that was never used whole; a block at the log's end again.
    let (slot, start) = (1 << 20, 2 * 4096);
    let unneeded = report.slots as u64 - u64::from(HELD) - 2;
    let expected = report.slots as u64 * start + unneeded * (slot / 4 + start) + 2 * slot + 4096;
    assert_eq!(report.bytes_scanned, expected, "{report}");
}
