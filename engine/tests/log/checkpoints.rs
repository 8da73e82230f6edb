//! Checkpoints: written while the log goes on, verified, two kept, the bad ones moved aside.

use engine::fuzzing::{World, body_of};
use engine::io::simulated::{Fate, OpKind, Unsynced};
use engine::{CheckpointError, CheckpointOrigin, Event, OpenError, Position, ReadError};
use std::io::ErrorKind;

const LOCAL: CheckpointOrigin = CheckpointOrigin::Local;

fn path_of(at: Position) -> String {
    format!("ckpt/{:016x}.ckpt", at.index)
}

/// A world with checkpoints at 3 and 6 and a log to 9.
fn with_two() -> (World, Position, Position) {
    let mut world = World::opened(31);
    let mut at = Vec::new();
    for _ in 0..2 {
        world.append_entries(1, 3, 500);
        at.push(world.checkpoint_here().at);
    }
    world.append_entries(1, 3, 500);
    world.settle();
    (world, at[0], at[1])
}

#[test]
fn the_log_starts_after_the_older_of_two_checkpoints() {
    let (mut world, older, newer) = with_two();
    assert_eq!(world.engine().status().log_start, older);
    let recovered = world.open_and_check("reopen");
    assert_eq!(recovered.log_start, older);
    assert_eq!(recovered.checkpoint.map(|info| info.at), Some(newer));
    let indices: Vec<u64> = world.engine().checkpoints().iter().map(|info| info.at.index).collect();
    assert_eq!(indices, [newer.index, older.index]);
}

#[test]
fn any_flipped_bit_of_the_newest_checkpoint_falls_back_to_the_older_one() {
    let (mut world, older, newer) = with_two();
    let sound = world.disk.snapshot();
    let file = world.disk.read_file(&path_of(newer)).unwrap();
    let used = (0..100).chain(4096..4096 + 5_032).chain(file.len() - 4096..file.len() - 4000);
    for byte in used.step_by(13) {
        world.disk.restore(&sound);
        world.disk.flip_bit(&path_of(newer), byte as u64 * 8 + byte as u64 % 8);
        let recovered = world.try_open().unwrap();
        assert_eq!(recovered.checkpoint.map(|info| info.at), Some(older), "byte {byte}");
        assert_eq!(recovered.last.index, 9);
        assert_eq!(recovered.report.quarantined.len(), 1);
        let aside = &recovered.report.quarantined[0].0;
        assert_eq!(world.disk.read_file(aside).map(|aside| aside.len()), Some(file.len()));
        let again = world.try_open().unwrap();
        assert_eq!(again.checkpoint, recovered.checkpoint);
        assert!(again.report.quarantined.is_empty());
    }
}

/// The snapshot rotted after an open had gone on from it, and the log from before it came back.
#[test]
fn a_log_that_an_open_has_dropped_for_a_snapshot_does_not_come_back() {
    let mut world = World::opened(34);
    world.append_entries(1, 5, 300);
    world.settle();
    // The log holds another term there.
    let at = Position { index: 3, term: 4 };
    world.checkpoint(at, CheckpointOrigin::Installed, 500).unwrap();
    // Before the log is told.
    world.disk.kill();
    assert!(world.open_and_check("after the install").report.was_reset);
    world.settle();
    world.disk.kill();
    world.disk.flip_bit(&path_of(at), 100 * 8);
    let opened = world.try_open();
    assert!(matches!(opened, Err(OpenError::Gap { .. })), "{opened:?}");
}

#[test]
fn with_both_checkpoints_bad_the_log_alone_is_too_short_and_refused() {
    let (mut world, older, newer) = with_two();
    for at in [older, newer] {
        world.disk.flip_bit(&path_of(at), 100 * 8);
    }
    let files = world.disk.files();
    // A log that starts at the beginning needs none of them; this one does not.
    world.checkpoint = None;
    match world.try_open() {
        Err(OpenError::Gap { .. }) => {}
        Ok(recovered) => assert_eq!(recovered.log_start, Position::default(), "{recovered:?}"),
        Err(other) => panic!("{other}"),
    }
    assert_eq!(world.disk.files().len(), files.len(), "nothing is deleted");
}

#[test]
fn both_checkpoints_bad_and_segments_recycled_is_refused_and_nothing_deleted() {
    let mut world = World::opened(32);
    let mut newest = Vec::new();
    for _ in 0..6 {
        world.append_entries(1, 4, 200_000);
        newest.push(world.checkpoint_here().at);
    }
    world.open_and_check("rolls, so that the new start is stated");
    world.append_entries(1, 1, 10);
    world.settle();
    for at in newest.iter().rev().take(2) {
        world.disk.flip_bit(&path_of(*at), 5_000 * 8);
    }
    let files = world.disk.files();
    assert!(matches!(
        world.try_open(),
        Err(OpenError::Gap { .. } | OpenError::SegmentMissing { .. })
    ));
    assert_eq!(world.disk.files(), files);
}

/// The exception that docs/durability.md names: only an older header states where the log starts.
#[test]
fn a_torn_roll_into_a_recycled_slot_and_a_rotten_newest_checkpoint_are_refused_together() {
    let mut world = World::opened(51);
    world.append_entries(1, 1, 10);
    let opens = |unsynced: &Unsynced| match unsynced {
        Unsynced::Sector { offset: 0, path, .. } => path.ends_with(".seg"),
        Unsynced::Sector { .. } | Unsynced::Size { .. } | Unsynced::Entry { .. } => false,
    };
    let mut newest = Position::default();
    while newest.index < 30 || !world.disk.unsynced().iter().any(opens) {
        assert!(newest.index < 60, "{:?}", world.disk.unsynced());
        newest = world.checkpoint_here().at;
        world.append_entries(1, 3, 200_000);
        world.turn_now().unwrap();
    }
    world.disk.crash_with(|_| Fate::Garbage);
    let torn = world.disk.snapshot();
    world.disk.flip_bit(&path_of(newest), 5_000 * 8);
    let files = world.disk.files();
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, OpenError::SegmentMissing { .. }), "{error}");
    assert_eq!(world.disk.files(), files);
    world.disk.restore(&torn);
    assert_eq!(world.open_and_check("with a sound checkpoint").checkpoint.unwrap().at, newest);
}

#[test]
fn a_bad_snapshot_that_the_log_does_not_reach_is_refused() {
    let mut world = World::opened(33);
    world.append_entries(1, 3, 100);
    world.checkpoint_here();
    let at = Position { index: 500, term: 7 };
    world.checkpoint(at, CheckpointOrigin::Installed, 9_000).unwrap();
    world.settle();
    world.disk.flip_bit(&path_of(at), 5_000 * 8);
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, OpenError::CheckpointLost { index: 500, last: 3, .. }), "{error}");
}

#[test]
fn a_snapshot_at_which_the_log_has_another_term_replaces_it_at_the_next_open() {
    let mut world = World::opened(34);
    world.append_entries(1, 10, 100);
    world.settle();
    let at = Position { index: 5, term: 3 };
    world.checkpoint(at, CheckpointOrigin::Installed, 100).unwrap();
    let recovered = world.open_and_check("before the reset");
    assert!(recovered.report.was_reset);
    assert_eq!((recovered.log_start, recovered.last), (at, at));
    world.append_entries(3, 2, 100);
    world.settle();
    let recovered = world.open_and_check("after more");
    assert_eq!(recovered.last, Position { index: 7, term: 3 });
}

#[test]
fn a_snapshot_that_the_log_holds_keeps_the_suffix() {
    let mut world = World::opened(35);
    world.append_entries(1, 10, 100);
    world.settle();
    let at = Position { index: 5, term: 1 };
    world.checkpoint(at, CheckpointOrigin::Installed, 100).unwrap();
    let recovered = world.open_and_check("reopen");
    assert!(!recovered.report.was_reset);
    assert_eq!(recovered.last.index, 10);
}

#[test]
fn a_write_that_the_disk_lost_is_found_before_the_checkpoint_counts() {
    let (mut world, _, newer) = with_two();
    world.checkpoint_begin(world.oracle.certain().last(), LOCAL).unwrap();
    let at = world.oracle.certain().last();
    world.disk.lose_next_write();
    let (mut pushed, mut is_complete) = (0, false);
    let error = loop {
        is_complete = is_complete || world.checkpoint_push(at, LOCAL, &mut pushed, 5_000);
        world.turn().unwrap();
        let failed = world.events.iter().find_map(|event| {
            let Event::CheckpointFailed { error, .. } = event else { return None };
            Some(error.clone())
        });
        if let Some(error) = failed {
            break error;
        }
        assert_ne!(world.checkpoint.map(|info| info.at), Some(at), "it counts unverified");
    };
    assert!(matches!(error, CheckpointError::Unverified { .. }), "{error}");
    assert_eq!(world.checkpoint.map(|info| info.at), Some(newer));
    world.events.clear();
    world.checkpoint(at, LOCAL, 5_000).unwrap();
    world.open_and_check("after another attempt");
}

#[test]
fn without_space_a_checkpoint_fails_leaves_nothing_and_can_be_repeated() {
    let (mut world, _, _) = with_two();
    let at = world.oracle.certain().last();
    let files = world.disk.files();
    world.disk.fail_after(OpKind::Allocate, 1, ErrorKind::StorageFull);
    let error = world.checkpoint(at, LOCAL, 200_000).unwrap_err();
    assert!(matches!(error, CheckpointError::NoSpace { .. }), "{error}");
    world.turn_until("space for the next one", |world| world.disk.in_flight() == 0);
    assert_eq!(world.disk.files(), files);
    world.checkpoint(at, LOCAL, 200_000).unwrap();
}

/// How many events have ended a checkpoint, and whether the last of them was a success.
fn ends(world: &World) -> (usize, bool) {
    let ends = world.events.iter().filter_map(|event| match event {
        Event::CheckpointDurable { .. } => Some(true),
        Event::CheckpointFailed { error: CheckpointError::Aborted, .. } => Some(false),
        Event::CheckpointFailed { error, .. } => panic!("{error}"),
        Event::Durable { .. }
        | Event::Entries { .. }
        | Event::Values { .. }
        | Event::ValuesPlaced { .. }
        | Event::CheckpointBytes { .. }
        | Event::LogStart { .. }
        | Event::Repaired { .. }
        | Event::RoomChanged(_)
        | Event::Damaged(_)
        | Event::SlowWrite { .. } => None,
    });
    let ends: Vec<bool> = ends.collect();
    (ends.len(), ends.last() == Some(&true))
}

/// Begins a checkpoint with a small body, while nothing else is under way.
fn begin_small(world: &mut World, at: Position, origin: CheckpointOrigin) {
    world.turn_until("quiet", |world| world.disk.in_flight() == 0);
    world.events.clear();
    world.checkpoint_begin(at, origin).unwrap();
    world.engine().checkpoint_push(origin, &body_of(at, 100));
}

/// Aborts it, which must leave these files and no other trace.
fn abort(world: &mut World, origin: CheckpointOrigin, files: &[String]) {
    let newest = world.engine().checkpoints()[0];
    world.engine().checkpoint_abort(origin);
    world.turn_until("abort", |world| !world.engine().status().checkpoint_in_progress);
    world.turn_until("space for the next one", |world| world.disk.in_flight() == 0);
    assert_eq!(ends(world), (1, false));
    assert_eq!(world.disk.files(), files);
    assert_eq!(world.engine().checkpoints()[0], newest);
    world.events.clear();
}

#[test]
fn an_aborted_checkpoint_leaves_nothing() {
    for is_complete in [false, true] {
        let (mut world, ..) = with_two();
        let (at, files) = (world.oracle.certain().last(), world.disk.files());
        for turns in 0..12 {
            begin_small(&mut world, at, LOCAL);
            if is_complete {
                world.engine().checkpoint_finish(LOCAL);
            }
            (0..turns).for_each(|_| world.turn().unwrap());
            if ends(&world).0 == 0 {
                abort(&mut world, LOCAL, &files);
            } else {
                assert_eq!((ends(&world), is_complete), ((1, true), true));
                break;
            }
        }
    }
}

/// An abort that came after the rename was submitted went unheard: the checkpoint became durable, to
/// the surprise of a caller that had given it up, and older ones were refused from then on.
#[test]
fn a_checkpoint_aborted_after_its_rename_ends_as_aborted_and_can_be_begun_again() {
    for origin in [LOCAL, CheckpointOrigin::Installed] {
        let (mut world, ..) = with_two();
        let (at, files) = (world.oracle.certain().last(), world.disk.files());
        begin_small(&mut world, at, origin);
        world.engine().checkpoint_finish(origin);
        world.turn_until("rename", |world| world.disk.files().contains(&path_of(at)));
        abort(&mut world, origin, &files);
        assert_eq!(world.checkpoint(at, origin, 100).unwrap().at, at);
        world.turn_until("quiet", |world| world.disk.in_flight() == 0);
        assert!(world.disk.files().contains(&path_of(at)));
    }
}

#[test]
fn an_abort_and_a_power_cut_leave_the_log_or_a_sound_checkpoint() {
    for origin in [LOCAL, CheckpointOrigin::Installed] {
        for (turns, then) in (0..12).flat_map(|turns| [(turns, 0), (turns, 1), (turns, 9)]) {
            for fate in [Fate::Old, Fate::New] {
                let (mut world, ..) = with_two();
                let last = world.oracle.certain().last();
                let ahead = Position { index: last.index + 5, term: 2 };
                let at = if origin == LOCAL { last } else { ahead };
                begin_small(&mut world, at, origin);
                world.engine().checkpoint_finish(origin);
                (0..turns).for_each(|_| world.turn().unwrap());
                world.engine().checkpoint_abort(origin);
                (0..then).for_each(|_| world.turn().unwrap());
                world.disk.crash_with(|_| fate);
                let recovered = world.open_and_check("after an abort and a cut");
                assert!(recovered.last == last || recovered.checkpoint.unwrap().at == at);
            }
        }
    }
}

/// Both are under way, and the snapshot from the peer is further and sooner there.
#[test]
fn a_checkpoint_that_a_newer_one_overtakes_ends_as_not_newer() {
    let (mut world, _, newer) = with_two();
    let at = world.oracle.certain().last();
    begin_small(&mut world, at, LOCAL);
    let ahead = Position { index: at.index + 5, term: 2 };
    world.checkpoint(ahead, CheckpointOrigin::Installed, 100).unwrap();
    world.events.clear();
    world.engine().checkpoint_finish(LOCAL);
    world.turn_until("end", |world| !world.engine().status().checkpoint_in_progress);
    let [Event::CheckpointFailed { error, .. }] = &world.events[..] else {
        panic!("{:?}", world.events)
    };
    assert!(matches!(error, CheckpointError::NotNewer { newest, .. } if *newest == ahead));
    let kept: Vec<_> = world.engine().checkpoints().iter().map(|info| info.at).collect();
    assert_eq!(kept, [ahead, newer]);
    world.turn_until("removal", |world| !world.disk.files().contains(&path_of(at)));
}

#[test]
fn a_checkpoint_that_is_not_durable_not_new_or_not_alone_is_refused() {
    let (mut world, _, newer) = with_two();
    let durable = world.engine().status().durable;
    let ahead = Position { index: durable.index + 1, ..durable };
    let begin = |world: &mut World, at| world.checkpoint_begin(at, LOCAL).unwrap_err();
    assert!(matches!(begin(&mut world, ahead), CheckpointError::NotDurable { .. }));
    assert!(matches!(begin(&mut world, newer), CheckpointError::NotNewer { .. }));
    world.checkpoint_begin(durable, LOCAL).unwrap();
    assert!(matches!(begin(&mut world, durable), CheckpointError::InProgress));
}

/// The log was durable up to 12 in term 1. Entries 10 and 11 of term 2 replace its end; others have committed them, so
/// they are applied, but their frame is in flight. Measured by the index of the old end, a checkpoint at 11 was taken
/// for durable. Had the power failed with the checkpoint written and the frame not, the log would have contradicted it.
#[test]
fn a_checkpoint_at_an_entry_whose_frame_is_in_flight_is_refused_although_the_log_was_longer() {
    let mut world = World::opened(38);
    world.append_entries(1, 12, 100);
    world.settle();
    world.disk.stall(1_000_000);
    world.append_after(9, 2, 2, 100);
    world.turn_now().unwrap();
    let at = Position { index: 11, term: 2 };
    let error = world.checkpoint_begin(at, LOCAL).unwrap_err();
    let durable = Position { index: 9, term: 1 };
    assert!(matches!(error, CheckpointError::NotDurable { durable: d, .. } if d == durable));
    assert_eq!(world.engine().status().durable, durable);
    assert!(!world.surely_holds(at));
    world.settle();
    assert_eq!(world.engine().status().durable, at);
    world.checkpoint(at, LOCAL, 100).unwrap();
}

#[test]
fn a_frame_of_replaced_entries_that_completes_late_vouches_for_none_that_replaced_them() {
    let mut world = World::opened(39);
    world.append_entries(1, 2, 9_000);
    world.turn_now().unwrap();
    world.append_after(1, 2, 2, 9_000);
    world.turn_now().unwrap();
    assert_eq!(world.engine().status().in_flight, 2);
    world.turn_until("the first frame", |world| world.engine().status().durable_seq == 1);
    assert_eq!(world.engine().status().durable, Position { index: 1, term: 1 });
    world.settle();
    assert_eq!(world.engine().status().durable, Position { index: 3, term: 2 });
}

#[test]
fn a_large_body_is_read_back_in_any_pieces() {
    let mut world = World::opened(36);
    world.append_entries(1, 1, 10);
    world.settle();
    let at = world.oracle.certain().last();
    let bytes = 5_300_000;
    let info = world.checkpoint(at, LOCAL, bytes).unwrap();
    assert_eq!(info.body_bytes, bytes as u64);
    let body = body_of(at, bytes);
    for (offset, count) in [(0, 10), (65_500, 10), (65_504, 65_504), (1, 1 << 20), (bytes - 3, 99)]
    {
        let read = world.read_body(at.index, offset as u64, count).unwrap();
        assert_eq!(read[..], body[offset..(offset + count).min(bytes)], "{offset} {count}");
    }
    assert!(world.read_body(at.index, bytes as u64, 10).unwrap().is_empty());
    let missing = world.read_body(at.index + 1, 0, 10).unwrap_err();
    assert!(matches!(missing, ReadError::NoCheckpoint { .. }));
    world.disk.flip_bit(&path_of(at), 200_000 * 8);
    let damaged = world.read_body(at.index, 190_000, 100).unwrap_err();
    assert!(matches!(damaged, ReadError::CheckpointDamaged { block: 2, .. }), "{damaged}");
}

#[test]
fn a_pinned_checkpoint_stays_until_it_is_unpinned() {
    let (mut world, older, _) = with_two();
    assert!(world.engine().pin_checkpoint(older.index).is_some());
    world.append_entries(1, 1, 10);
    world.checkpoint_here();
    assert_eq!(world.engine().checkpoints().len(), 3);
    assert_eq!(world.read_body(older.index, 0, 100).unwrap().len(), 100);
    world.engine().unpin_checkpoint(older.index);
    assert_eq!(world.engine().checkpoints().len(), 2);
    world.turn_until("removal", |world| !world.disk.files().contains(&path_of(older)));
}

/// A peer that is sent a checkpoint goes on from the log after it. The log was freed up to the second
/// newest one all the same, so a slow peer came back for another checkpoint each time.
#[test]
fn the_log_after_a_pinned_checkpoint_stays_until_it_is_unpinned() {
    let (mut world, older, newer) = with_two();
    world.engine().pin_checkpoint(older.index).unwrap();
    for _ in 0..4 {
        world.append_entries(1, 4, 200_000);
        world.checkpoint_here();
    }
    assert_eq!(world.engine().status().log_start, older);
    let second = world.engine().checkpoints()[1].at;
    let held = world.engine().status().slots_live;
    assert!(second > newer && held >= 4, "{held} slots");
    let mut next = older.index + 1;
    while next <= second.index {
        next = world.read(next, second.index, 1 << 20).unwrap().last().unwrap().index + 1;
    }
    world.events.clear();
    // A read under way keeps it for a moment longer.
    world.engine().read_checkpoint(5, older.index, 0, 100);
    world.engine().unpin_checkpoint(older.index);
    let is_start = |event: &Event| matches!(event, Event::LogStart { .. });
    world.turn_until("purge", |world| world.events.iter().any(is_start));
    assert_eq!(world.engine().status().log_start, second);
    world.turn_until("slots", |world| world.engine().status().slots_live < held);
    world.settle();
    assert_eq!(world.open_and_check("reopen").log_start, second);
}

#[test]
fn the_log_goes_on_while_a_checkpoint_is_written() {
    let mut world = World::opened(37);
    world.append_entries(1, 1, 10);
    world.settle();
    let at = world.oracle.certain().last();
    world.checkpoint_begin(at, LOCAL).unwrap();
    let (mut pushed, bytes) = (0, 3_000_000);
    let mut is_complete = false;
    while world.checkpoint.is_none() {
        is_complete = is_complete || world.checkpoint_push(at, LOCAL, &mut pushed, bytes);
        world.append_entries(1, 1, 100);
        world.turn().unwrap();
    }
    assert!(world.oracle.certain().last().index > at.index);
    world.disk.crash_drop_all();
    world.open_and_check("after it");
}

#[test]
fn a_load_that_is_refused_in_the_middle_leaves_nothing_in_flight() {
    let mut world = World::opened(32);
    world.append_entries(1, 3, 500);
    world.settle();
    let at = world.oracle.certain().last();
    let info = world.checkpoint(at, LOCAL, 12 << 20).unwrap();
    let mut seen = 0;
    let error = world.engine().load_checkpoint(&info, &mut |bytes| {
        seen += bytes.len();
        if seen > 3 << 20 { Err("enough".to_owned()) } else { Ok(()) }
    });
    assert!(error.unwrap_err().to_string().contains("enough"));
    assert_eq!(world.disk.in_flight(), 0);
    world.append_entries(1, 3, 500);
    world.settle();
    world.open_and_check("after a refused load");
}
