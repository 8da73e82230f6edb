//! A device that reports errors, and bytes that change by themselves.

use std::io::ErrorKind;

use engine::fuzzing::{Content, World};
use engine::io::simulated::{OpKind, SimFaults};
use engine::{Damage, EngineError, Event, OpenError, Proof, ReadError};

#[test]
fn a_failed_write_is_final_and_nothing_is_acknowledged_after_it() {
    // The writes in flight end in any order.
    (0..20).for_each(fail_a_write);
}

fn fail_a_write(seed: u64) {
    let mut world = World::opened(seed);
    world.append_entries(1, 2, 100);
    world.settle();
    let acknowledged = world.oracle.certain().last();
    world.turn_until("a slot ahead", |world| world.engine().status().slots_ready == 1);
    world.disk.fail_next(OpKind::Write, ErrorKind::Other);
    for _ in 0..4 {
        world.append_entries(1, 1, 70_000);
        world.turn_now().unwrap();
    }
    world.events.clear();
    let error = loop {
        match world.turn() {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, EngineError::Io { .. }));
    for _ in 0..20 {
        world.disk.advance(world.disk.now_us() + 1_000);
        assert_eq!(world.turn_now().unwrap_err().to_string(), error.to_string());
    }
    let is_ack = |event: &Event| matches!(event, Event::Durable { .. });
    assert!(!world.events.iter().any(is_ack), "seed {seed}: {:?}", world.events);
    let recovered = world.open_and_check("after the fault");
    assert!(recovered.last >= acknowledged);
}

#[test]
fn any_failing_operation_of_a_running_engine_is_final_and_loses_nothing() {
    let kinds = [
        OpKind::Write,
        OpKind::Sync,
        OpKind::SyncDir,
        OpKind::Rename,
        OpKind::Allocate,
        OpKind::Open,
        OpKind::Remove,
        OpKind::Close,
    ];
    for kind in kinds {
        let mut met = 0;
        for skip in 0..6 {
            let mut world = World::opened(skip);
            let before = world.disk.counters().errors_injected;
            world.disk.fail_after(kind, skip, ErrorKind::Other);
            let acknowledged = work_until_halted(&mut world);
            let is_met = world.disk.counters().errors_injected > before;
            assert_eq!(acknowledged.is_some(), is_met, "{kind:?} {skip}");
            if let Some(acknowledged) = acknowledged {
                met += 1;
                for _ in 0..20 {
                    world.disk.advance(world.disk.now_us() + 1_000);
                    assert!(world.turn_now().is_err());
                }
                assert_eq!(world.oracle.certain(), acknowledged, "{kind:?} {skip}");
            } else {
                world.settle();
            }
            world.disk.crash();
            open_in_spite_of_faults(&mut world);
        }
        assert!(met > 0, "{kind:?} never failed");
    }
}

/// Entries over several slots and a checkpoint now and then. What was acknowledged when the engine halted, if it did.
fn work_until_halted(world: &mut World) -> Option<Content> {
    let origin = engine::CheckpointOrigin::Local;
    for _ in 0..8 {
        let at = world.oracle.certain().last();
        let mut is_complete = world.checkpoint_begin(at, origin).is_err();
        let mut pushed = 0;
        world.append_entries(1, 3, 100_000);
        for _ in 0..60 {
            is_complete = is_complete || world.checkpoint_push(at, origin, &mut pushed, 5_000);
            let acknowledged = world.oracle.certain();
            if world.turn().is_err() {
                return Some(acknowledged);
            }
        }
    }
    None
}

/// A fault that the work has not met is met by an open, which is refused and repeated.
fn open_in_spite_of_faults(world: &mut World) {
    for _ in 0..3 {
        match world.try_open() {
            Ok(recovered) => return world.check(&recovered, "after a fault and a crash"),
            Err(OpenError::Io { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("one fault refuses three opens");
}

#[test]
fn nothing_that_completes_together_with_a_fault_is_reported() {
    let mut world = World::opened(49);
    world.append_entries(1, 2, 100);
    world.settle();
    let at = world.oracle.certain().last();
    world.checkpoint_begin(at, engine::CheckpointOrigin::Local).unwrap();
    let (mut pushed, mut is_complete) = (0, false);
    let path = format!("ckpt/{:016x}.ckpt", at.index);
    while !world.disk.files().contains(&path) {
        is_complete = is_complete
            || world.checkpoint_push(at, engine::CheckpointOrigin::Local, &mut pushed, 100);
        world.turn().unwrap();
    }
    // The checkpoint waits for its last sync; the next frame fails; both are seen in one turn.
    world.disk.fail_next(OpKind::Write, ErrorKind::Other);
    world.disk.set_faults(SimFaults { write_us: 10_000..=10_000, ..SimFaults::none() });
    world.append_entries(1, 1, 100);
    world.turn_now().unwrap();
    assert!(world.checkpoint.is_none());
    world.events.clear();
    world.disk.advance(world.disk.now_us() + 100_000);
    assert!(world.turn_now().is_err());
    assert!(world.events.is_empty(), "{:?}", world.events);
    let recovered = world.open_and_check("after the fault");
    assert_eq!(recovered.checkpoint.map(|info| info.at), Some(at), "it is there all the same");
}

/// Flips a bit in the payload of the newest frame with an entry.
fn rot_newest(world: &mut World) {
    let path = "seg/00000000.seg";
    let file = world.disk.read_file(path).unwrap();
    let pattern = world.oracle.certain().entries.last_key_value().unwrap().1.payload.clone();
    let at = file.windows(pattern.len()).position(|window| *window == pattern[..]).unwrap();
    world.disk.flip_bit(path, at as u64 * 8);
}

#[test]
fn rot_of_a_promised_frame_is_refused_with_its_place() {
    let mut world = World::opened(42);
    world.append_entries(1, 4, 100);
    world.settle();
    rot_newest(&mut world);
    let files = world.disk.files();
    let error = world.try_open().err().unwrap();
    let OpenError::Damaged { damage, .. } = &error else { panic!("{error}") };
    let Damage { slot, offset, indices, ref proof, .. } = **damage;
    assert_eq!((slot, offset, indices), (0, 4096, Some((1, 4))));
    assert!(matches!(proof, Some(Proof::LaterFrame { .. })), "{damage}");
    assert_eq!(world.disk.files(), files);
}

#[test]
fn rot_of_an_unpromised_last_frame_is_cut_and_reported() {
    let mut world = World::opened(43);
    world.append_entries(1, 4, 100);
    world.turn_until("durable", |world| world.oracle.is_settled());
    rot_newest(&mut world);
    let recovered = world.try_open().unwrap();
    assert_eq!(recovered.last.index, 0);
    let torn = recovered.report.torn.unwrap();
    assert_eq!((torn.slot, torn.offset, torn.seq), (0, 4096, 1));
    assert!(recovered.report.to_string().contains("torn tail"));
}

#[test]
fn rot_that_a_checkpoint_promises_is_refused() {
    let mut world = World::opened(44);
    world.options.note_after_us = u64::MAX;
    world.open_and_check("without notes");
    world.append_entries(1, 4, 100);
    world.turn_until("durable", |world| world.oracle.is_settled());
    let at = world.oracle.certain().last();
    world.checkpoint(at, engine::CheckpointOrigin::Local, 10).unwrap();
    rot_newest(&mut world);
    let error = world.try_open().err().unwrap();
    let OpenError::Damaged { damage, .. } = &error else { panic!("{error}") };
    assert!(matches!(damage.proof, Some(Proof::Checkpoint { .. })), "{damage}");
}

#[test]
fn a_lost_write_is_found_when_a_later_frame_is_durable() {
    let mut world = World::opened(45);
    world.append_entries(1, 1, 100);
    world.settle();
    world.disk.lose_next_write();
    world.append_entries(1, 1, 100);
    world.settle();
    assert!(matches!(world.try_open(), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_lost_write_that_opened_a_segment_is_found_too() {
    let mut world = World::opened(46);
    world.append_entries(1, 1, 100);
    world.settle();
    world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
    world.open_and_check("an open rolls");
    world.disk.lose_next_write();
    world.append_entries(1, 1, 100);
    world.settle();
    world.append_entries(1, 1, 100);
    world.settle();
    let error = world.try_open().err().unwrap();
    let OpenError::Damaged { damage, .. } = &error else { panic!("{error}") };
    assert!(matches!(damage.proof, Some(Proof::OtherSlot { .. })), "{damage}");
}

#[test]
fn a_lost_write_that_opened_a_segment_in_a_used_slot_is_found_too() {
    let mut world = World::opened(46);
    for _ in 0..3 {
        world.append_entries(1, 8, 200_000);
        world.checkpoint_here();
    }
    world.turn_until("slots", |world| world.disk.in_flight() == 0);
    world.open_and_check("an open rolls");
    world.disk.lose_next_write();
    world.append_entries(1, 1, 60_000);
    world.settle();
    world.append_entries(1, 1, 100);
    world.settle();
    let error = world.try_open().err().unwrap();
    let OpenError::Damaged { damage, .. } = &error else { panic!("{error}") };
    let Some(Proof::OtherSlot { slot, .. }) = damage.proof else { panic!("{damage}") };
    let file = world.disk.read_file(&format!("seg/{slot:08x}.seg")).unwrap();
    assert!(file.starts_with(b"HFSEG"), "the header of the life before is still there");
}

#[test]
fn a_misdirected_write_is_found() {
    let mut found = 0;
    for seed in 0..20 {
        let mut world = World::opened(seed);
        world.append_entries(1, 3, 100);
        world.settle();
        world.disk.misdirect_next_write();
        world.append_entries(1, 3, 100);
        world.settle();
        world.append_entries(1, 3, 100);
        world.settle();
        found += u32::from(world.try_open().is_err());
    }
    assert_eq!(found, 20);
}

#[test]
fn an_unreadable_block_is_a_damaged_frame_and_not_the_end_of_the_log() {
    let mut world = World::opened(47);
    world.append_entries(1, 3, 100);
    world.settle();
    let sound = world.disk.snapshot();
    let faults = SimFaults { read_error_ppm: 200_000, ..SimFaults::none() };
    let mut refused = 0;
    for seed in 0..30 {
        world.disk.restore(&sound);
        world.disk.reseed(seed);
        world.disk.set_faults(faults.clone());
        match world.try_open() {
            Ok(recovered) => assert_eq!(recovered.last.index, 3),
            Err(
                OpenError::Damaged { .. }
                | OpenError::Unreadable { .. }
                | OpenError::Unsteady { .. },
            ) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        world.disk.set_faults(SimFaults::none());
    }
    assert!(refused > 0);
}

/// A read error was taken for rot: the newest checkpoint, sound, was moved aside and the node went
/// back to the older one.
#[test]
fn a_checkpoint_or_meta_that_cannot_be_read_is_refused_and_nothing_is_moved_aside() {
    let mut world = World::opened(40);
    for _ in 0..3 {
        world.append_entries(1, 3, 100);
        world.checkpoint_here();
    }
    world.turn_until("quiet", |world| world.disk.in_flight() == 0);
    let (sound, files) = (world.disk.snapshot(), world.disk.files());
    let mut unreadable = std::collections::BTreeSet::new();
    for seed in 0..200 {
        world.disk.restore(&sound);
        world.disk.reseed(seed);
        world.disk.set_faults(SimFaults { read_error_ppm: 300_000, ..SimFaults::none() });
        match world.try_open() {
            Ok(recovered) => assert!(recovered.report.quarantined.is_empty()),
            Err(OpenError::Unreadable { path, .. }) => {
                unreadable.insert(path);
            }
            Err(OpenError::Damaged { .. } | OpenError::Unsteady { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        world.disk.set_faults(SimFaults::none());
        assert_eq!(world.disk.files(), files);
        world.open_and_check("once it can be read");
    }
    let expected =
        ["META", "ckpt/0000000000000006.ckpt", "ckpt/0000000000000009.ckpt", "seg/00000000.seg"];
    assert!(expected.iter().all(|path| unreadable.contains(*path)), "{unreadable:?}");
}

#[test]
fn rot_that_a_reader_meets_is_an_error_with_its_place() {
    let mut world = World::opened(48);
    world.options.tail_bytes_max = 0;
    world.open_and_check("without a cache");
    world.append_entries(1, 1, 3_000);
    world.settle();
    world.append_entries(1, 1, 3_000);
    world.settle();
    rot_newest(&mut world);
    assert_eq!(world.read(1, 1, 1).unwrap().len(), 1);
    let error = world.read(2, 2, 1).unwrap_err();
    let ReadError::Damaged(damage) = &error else { panic!("{error}") };
    assert_eq!(damage.indices, Some((2, 2)));
}
