//! Directories that are not opened, and that a refusal leaves them as they were.

use engine::fuzzing::{World, small_options};
use engine::io::simulated::SimFaults;
use engine::{Check, EngineError, Identity, OpenError, Options, open};
use std::path::Path;

fn world() -> World {
    let mut world = World::opened(61);
    world.append_entries(1, 3, 100);
    world.settle();
    world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
    world
}

/// The error of an open, after which every file is what it was.
fn refused(world: &mut World) -> OpenError {
    let before: Vec<_> = world.disk.files().into_iter().collect();
    let bytes: Vec<_> = before.iter().map(|path| world.disk.read_file(path)).collect();
    let error = world.try_open().expect_err("this directory is refused");
    assert_eq!(world.disk.files(), before);
    for (path, bytes) in before.iter().zip(bytes) {
        assert!(world.disk.read_file(path) == bytes, "{path} has changed");
    }
    error
}

#[test]
fn slots_without_meta_are_refused() {
    let mut world = world();
    world.disk.remove_file("META");
    let error = refused(&mut world);
    assert!(matches!(error, OpenError::MetaMissing { .. }), "{error}");
}

#[test]
fn a_damaged_or_foreign_meta_is_refused() {
    let mut world = world();
    world.disk.flip_bit("META", 40 * 8);
    let error = refused(&mut world);
    assert!(matches!(error, OpenError::MetaDamaged { check: Check::HeaderChecksum, .. }));
    world.disk.write_file("META", b"#!/bin/sh\n");
    assert!(matches!(refused(&mut world), OpenError::MetaForeign { .. }));
    world.disk.write_file("META", b"");
    assert!(matches!(refused(&mut world), OpenError::MetaForeign { .. }));
}

#[test]
fn another_nodes_directory_and_other_slots_are_refused() {
    let world = world();
    let open_as = |identity: Identity, options: Options| {
        open(world.disk.handle(), Path::new("data"), options, identity).err().unwrap()
    };
    let other = Identity { node: 2, ..engine::fuzzing::IDENTITY };
    let error = open_as(other, small_options());
    assert!(matches!(error, OpenError::WrongNode { found: 1, expected: 2, .. }), "{error}");
    let options = Options { slot_bytes: 2 << 20, ..small_options() };
    let error = open_as(engine::fuzzing::IDENTITY, options);
    assert!(matches!(error, OpenError::WrongSlotBytes { .. }), "{error}");
}

#[test]
fn a_missing_or_cut_slot_is_refused() {
    let mut world = world();
    let sound = world.disk.snapshot();
    world.disk.remove_file("seg/00000000.seg");
    assert!(matches!(refused(&mut world), OpenError::SlotMissing { slot: 0, .. }));
    world.disk.restore(&sound);
    world.disk.set_len("seg/00000000.seg", 4096);
    assert!(matches!(refused(&mut world), OpenError::SlotLength { slot: 0, found: 4096, .. }));
    world.disk.restore(&sound);
    for path in world.disk.files().iter().filter(|path| path.starts_with("seg/")) {
        world.disk.remove_file(path);
    }
    assert!(matches!(refused(&mut world), OpenError::SlotMissing { slot: 0, .. }));
}

#[test]
fn a_sealed_segment_whose_header_is_lost_is_refused() {
    let mut world = world();
    world.open_and_check("rolls");
    world.append_entries(1, 1, 10);
    world.settle();
    world.disk.flip_bit("seg/00000000.seg", 50 * 8);
    let error = refused(&mut world);
    assert!(matches!(error, OpenError::SegmentMissing { number: 1, .. }), "{error}");
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    for options in [
        Options { slot_bytes: 1000, ..small_options() },
        Options { slot_bytes: (1 << 20) + 4096, ..small_options() },
        Options { inflight_frames_max: 0, ..small_options() },
        Options { slots_ready: 0, ..small_options() },
    ] {
        let mut world = World::new(1, options, SimFaults::none());
        assert!(matches!(world.try_open(), Err(OpenError::Options { .. })));
        assert!(world.disk.files().is_empty());
    }
}

#[test]
fn unknown_files_are_left_alone_and_reported() {
    let mut world = world();
    world.disk.write_file("seg/notes.txt", b"mine");
    world.disk.write_file("ckpt/old", b"mine too");
    let recovered = world.open_and_check("with unknown files");
    assert_eq!(recovered.report.unknown, ["seg/notes.txt", "ckpt/old"]);
    assert!(world.disk.files().contains(&"seg/notes.txt".to_owned()));
}

#[test]
fn a_first_open_without_space_says_how_much_is_needed() {
    let mut world = World::new(1, small_options(), SimFaults::none());
    world.disk.set_capacity(Some(100_000));
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, OpenError::NoSpace { bytes: 1_048_576, .. }), "{error}");
    world.disk.set_capacity(None);
    world.open_and_check("with space");
}

#[test]
fn the_application_part_of_meta_is_durable_and_bounded() {
    let mut world = world();
    world.engine().set_application_meta(b"founding".to_vec()).unwrap();
    world.disk.crash_drop_all();
    world.open_and_check("after a crash");
    assert_eq!(world.engine().meta().application, b"founding");
    assert_eq!(world.engine().meta().incarnation, engine::fuzzing::IDENTITY.incarnation);
    let error = world.engine().set_application_meta(vec![0; (64 << 10) + 1]).unwrap_err();
    assert!(matches!(error, EngineError::MetaTooLarge { .. }));
    world.engine().set_application_meta(vec![7; 64 << 10]).unwrap();
    world.open_and_check("with the largest one");
    assert_eq!(world.engine().meta().application.len(), 64 << 10);
}
