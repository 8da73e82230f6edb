//! Looking at a directory: the same findings as an open's, more than those, and no change.

use std::ops::ControlFlow;
use std::path::Path;

use engine::fuzzing::World;
use engine::io::simulated::{SimDisk, SimFaults};
use engine::{Dumped, Inspection, OpenError, Position, dump, verify};

/// A copy of the disk as it is.
fn copy(world: &World) -> SimDisk {
    let copy = SimDisk::new(1, SimFaults::none());
    copy.restore(&world.disk.snapshot());
    copy
}

fn inspect(disk: &SimDisk) -> Result<Inspection, OpenError> {
    verify(disk.handle(), Path::new("data"))
}

/// Verifies a copy, then opens the world: both must find the same.
fn assert_finds_what_an_open_finds(world: &mut World, what: &str) -> Option<Inspection> {
    let looked_at = copy(world);
    let before: Vec<_> = looked_at.files().iter().map(|path| looked_at.read_file(path)).collect();
    let found = inspect(&looked_at);
    let after: Vec<_> = looked_at.files().iter().map(|path| looked_at.read_file(path)).collect();
    assert!(before == after, "{what}: it was changed");
    match (found, world.try_open()) {
        (Ok(found), Ok(opened)) => {
            let recovered = &found.recovered;
            assert_eq!(recovered.last, opened.last, "{what}");
            assert_eq!(recovered.log_start, opened.log_start, "{what}");
            assert_eq!(recovered.terms, opened.terms, "{what}");
            assert_eq!(recovered.checkpoint, opened.checkpoint, "{what}");
            assert_eq!(recovered.report.torn, opened.report.torn, "{what}");
            assert_eq!(found.damaged.len(), opened.report.quarantined.len(), "{what}");
            Some(found)
        }
        (Err(found), Err(refused)) => {
            assert_eq!(found.to_string(), refused.to_string(), "{what}");
            None
        }
        (found, opened) => panic!("{what}: {found:?} but {:?}", opened.map(|opened| opened.last)),
    }
}

#[test]
fn every_flipped_byte_of_a_log_is_found_as_an_open_finds_it() {
    let mut world = World::opened(71);
    world.append_entries(1, 6, 3_000);
    world.settle();
    world.append_entries(2, 2, 100);
    world.settle();
    world.disk.kill();
    let sound = world.disk.snapshot();
    let bytes = 2 * 4096 + 8 * 4096;
    let (mut refused, mut torn) = (0, 0);
    for byte in (0..bytes).step_by(61) {
        world.disk.restore(&sound);
        world.disk.flip_bit("seg/00000000.seg", byte * 8 + byte % 8);
        match assert_finds_what_an_open_finds(&mut world, &format!("byte {byte}")) {
            None => refused += 1,
            Some(found) => torn += u32::from(found.recovered.report.torn.is_some()),
        }
        world.disk.kill();
    }
    assert!(refused > 100, "{refused} of them were in promised frames");
    assert!(torn > 0, "none was in the last frame");
}

#[test]
fn crashes_at_any_moment_are_seen_as_an_open_sees_them() {
    for seed in 0..60 {
        let mut world = World::opened(7_100 + seed);
        world.append_entries(1, 4 + seed % 7, 9_000);
        if seed % 3 == 0 {
            world.checkpoint_here();
            world.append_entries(1, 3, 500);
        }
        for _ in 0..seed % 11 {
            world.turn().unwrap();
        }
        world.disk.crash();
        assert_finds_what_an_open_finds(&mut world, &format!("seed {seed}"));
    }
}

/// The older of two checkpoints is read whole only here.
#[test]
fn an_older_checkpoint_that_is_damaged_is_named() {
    let mut world = World::opened(72);
    world.append_entries(1, 2, 100);
    world.checkpoint_here();
    world.append_entries(1, 2, 100);
    world.checkpoint_here();
    world.settle();
    world.disk.flip_bit("ckpt/0000000000000002.ckpt", 4_200 * 8);
    let found = inspect(&copy(&world)).unwrap();
    let [(path, _)] = &found.damaged[..] else { panic!("{:?}", found.damaged) };
    assert_eq!(path, "ckpt/0000000000000002.ckpt");
    assert_eq!(found.checkpoints.len(), 2);
}

/// An open reads two blocks of a slot that only a checkpoint needs.
#[test]
fn damage_in_a_slot_that_only_a_checkpoint_needs_is_found_with_its_place() {
    let mut world = World::opened(73);
    world.append_entries(1, 4, 50_000);
    world.settle();
    world.slots = vec![0];
    for _ in 0..16 {
        world.append_entries(1, 4, 60_000);
        world.settle();
        world.checkpoint_here();
    }
    world.settle();
    assert!(world.engine().status().slots_held > 0);
    let sound = copy(&world);
    assert!(inspect(&sound).unwrap().rotten.is_empty());
    sound.flip_bit("seg/00000000.seg", 20_000 * 8);
    let found = inspect(&sound).unwrap();
    let [damage] = &found.rotten[..] else { panic!("{:?}", found.rotten) };
    assert_eq!((damage.slot, damage.offset), (0, 4_096));
    world.disk.restore(&sound.snapshot());
    world.open_and_check("an open does not read that far");
}

#[test]
fn a_dump_shows_every_entry_once_and_stops_when_it_is_told_to() {
    let mut world = World::opened(74);
    world.append_entries(3, 20, 700);
    world.settle();
    let (mut entries, mut ends) = (Vec::new(), 0);
    let disk = copy(&world);
    dump(disk.handle(), Path::new("data"), &mut |dumped| {
        match dumped {
            Dumped::Record(record) => entries.push((record.at, record.payload.to_vec())),
            Dumped::End { .. } => ends += 1,
            Dumped::Meta(_)
            | Dumped::Checkpoint(..)
            | Dumped::NoSegment(..)
            | Dumped::Segment(_)
            | Dumped::Frame(_)
            | Dumped::Hole(_) => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let certain = world.oracle.certain();
    let expected = certain
        .entries
        .values()
        .map(|entry| (Position { index: entry.index, term: entry.term }, entry.payload.to_vec()));
    assert!(entries == expected.collect::<Vec<_>>());
    assert_eq!(ends, 1);
    let mut shown = 0;
    dump(disk.handle(), Path::new("data"), &mut |_| {
        shown += 1;
        if shown < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    assert_eq!(shown, 3);
}
