//! A device that says it has written what it has not, writes elsewhere, or fails a sync and keeps any of the
//! pages; and slots whose new bytes look like the old ones.

use std::io::ErrorKind;

use bytes::Bytes;
use engine::fuzzing::{Content, World, small_options};
use engine::io::simulated::{OpKind, SimFaults};
use engine::{
    CheckpointInfo, CheckpointOrigin, Entry, Location, OpenError, ReadError, Recovered, Wanted,
};

const KEY: &[u8] = b"the key of all..";
const VALUE_BYTES: usize = 3_000;

fn small_slots(seed: u64) -> World {
    let mut world = World::new(seed, small_options(), SimFaults::none());
    world.options.slot_bytes = 64 << 10;
    world.options.tail_bytes_max = 0;
    world.options.cache_bytes_max = 0;
    world.open_and_check("first open");
    world
}

/// A value that differs from any other of the same length.
fn value(number: u64) -> Bytes {
    number.to_le_bytes().repeat(VALUE_BYTES / 8).into()
}

/// Writes the value of one key, and gives the place where its key lies.
fn put(world: &mut World, value: &Bytes) -> Location {
    let index = world.engine().status().last.index + 1;
    let payload = [KEY, value].concat().into();
    world.append(None, None, vec![Entry { index, term: 1, kind: 1, payload }]);
    world.settle();
    world.engine().place(index).unwrap()
}

fn wanted(location: Location, value: &Bytes) -> Wanted {
    let checksum = crc32fast::hash(value);
    Wanted { location, key: KEY.into(), value_bytes: VALUE_BYTES.try_into().unwrap(), checksum }
}

/// A reader with a location of a life of the slot that is over finds another value there, of the same key and the same
/// length: it must not be taken for the one that was asked for.
#[test]
fn a_used_slot_never_gives_the_value_of_another_life() {
    let mut world = small_slots(91);
    let mut known = Vec::new();
    let (mut gone, mut at_same_place) = (0, 0);
    for number in 0..120 {
        let value = value(number);
        let location = put(&mut world, &value);
        at_same_place += usize::from(known.iter().any(|(old, _)| *old == location));
        known.push((location, value));
        if number % 8 == 7 {
            world.checkpoint_here();
        }
    }
    let all = known.iter().map(|(location, value)| wanted(*location, value)).collect();
    for (result, (location, value)) in world.read_values(all).into_iter().zip(&known) {
        match result {
            Ok(found) => assert!(found == *value, "{location} gives another value"),
            Err(ReadError::ValueDamaged { .. }) => gone += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(at_same_place > 20, "{at_same_place} values lie where an older one lay");
    assert!(gone >= at_same_place, "{gone} of {at_same_place}");
}

/// A device forgets what was written to a slot and gives its older bytes, perhaps those of another life: the log is
/// refused, for a later segment names what is not there. Of the newest segment, which nobody names, all can be lost.
#[test]
fn a_slot_with_the_bytes_of_its_life_before_is_refused() {
    let mut world = small_slots(92);
    let mut lives = Vec::new();
    let mut newest = String::new();
    for number in 0..60 {
        let place = put(&mut world, &value(number));
        newest = format!("seg/{:08x}.seg", place.slot());
        if number % 8 == 7 {
            world.checkpoint_here();
        }
        let files = world.disk.files().into_iter().filter(|path| path.starts_with("seg/"));
        let files = files.map(|path| (world.disk.read_file(&path).unwrap(), path));
        lives.push(files.collect::<Vec<_>>());
    }
    world.settle();
    world.disk.kill();
    let (image, sound) = (world.disk.snapshot(), world.oracle.certain());
    let (mut refused, mut harmless) = (0, 0);
    for old in lives.iter().flatten() {
        let (bytes, path) = old;
        world.disk.restore(&image);
        if *path == newest || world.disk.read_file(path).as_ref() == Some(bytes) {
            continue;
        }
        world.disk.write_file(path, bytes);
        match world.try_open() {
            Ok(recovered) => {
                harmless += 1;
                assert_eq!(recovered.last, sound.last(), "{path}");
                let found = world.read_content(&recovered);
                assert!(found.entries.values().all(|entry| sound.entries[&entry.index] == *entry));
            }
            Err(
                OpenError::Damaged { .. }
                | OpenError::SegmentMissing { .. }
                | OpenError::SegmentTwice { .. },
            ) => refused += 1,
            Err(other) => panic!("{path}: {other}"),
        }
    }
    assert!(refused > 50, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_write_that_is_lost_or_lands_elsewhere_is_never_missed_in_silence() {
    let mut found = 0;
    for seed in 0..60 {
        let mut world = small_slots(9_300 + seed);
        for number in 0..=seed % 14 {
            put(&mut world, &value(number));
        }
        if seed % 2 == 0 {
            world.disk.lose_next_write();
        } else {
            world.disk.misdirect_next_write();
        }
        // Each is durable before the next one is written, so the device has lied before the last one promises it.
        put(&mut world, &value(1_000));
        put(&mut world, &value(1_001));
        let sound = world.oracle.certain();
        match world.try_open() {
            // What was lost may have been no frame: a slot is made beside them.
            Ok(recovered) => {
                let content = world.read_content(&recovered);
                assert!(content.entries == sound.entries, "seed {seed}");
            }
            Err(OpenError::Io { what, .. }) => panic!("seed {seed}: {what}"),
            Err(_) => found += 1,
        }
    }
    assert!(found > 40, "{found} were refused");
}

/// What an open finds: the log, read back whole, and the checkpoint.
fn found(world: &mut World, recovered: &Recovered) -> (Content, Option<CheckpointInfo>) {
    (world.read_content(recovered), recovered.checkpoint)
}

/// A device gives the bytes of another place once, or some wrong bits, without an error. The disk is sound, so nothing
/// may be cut: a torn tail and a wrong reading of a whole one look the same until it is read again.
#[test]
fn one_wrong_read_of_an_open_loses_nothing_whichever_read_it_is() {
    let (mut same, mut refused) = (0, 0);
    for seed in 0..24 {
        let mut world = small_slots(9_800 + seed);
        // Nobody promises the newest frame; it may be the only one of its segment.
        world.options.note_after_us = 1 << 50;
        world.open_and_check("without notes");
        for number in 0..seed % 12 {
            put_durable(&mut world, &value(number));
            if number % 5 == 4 {
                world.checkpoint_here();
            }
        }
        if seed % 3 == 0 {
            world.open_and_check("the next frame opens a segment");
        }
        put_durable(&mut world, &value(1_000));
        world.disk.kill();
        let image = world.disk.snapshot();
        let before = world.disk.counters().reads;
        let recovered = world.try_open().unwrap();
        let reads = world.disk.counters().reads - before;
        world.check(&recovered, "sound");
        let sound = found(&mut world, &recovered);
        for draw in 0..8 * reads {
            world.disk.restore(&image);
            world.disk.reseed(draw);
            if draw % 8 == 0 {
                world.disk.flip_read_after(draw / 8);
            } else {
                world.disk.misdirect_read_after(draw / 8);
            }
            match world.try_open() {
                Ok(recovered) => {
                    assert!(recovered.report.quarantined.is_empty());
                    assert_eq!(recovered.report.torn, None, "seed {seed}, draw {draw}");
                    assert!(found(&mut world, &recovered) == sound, "seed {seed}, draw {draw}");
                    same += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(same > 1_000 && refused < same, "{same} are the same, {refused} were refused");
}

/// Writes a value whose frame is acknowledged, and gives nobody time to promise it.
fn put_durable(world: &mut World, value: &Bytes) {
    let index = world.engine().status().last.index + 1;
    let payload = [KEY, value].concat().into();
    world.append(None, None, vec![Entry { index, term: 1, kind: 1, payload }]);
    world.turn_until("durable", |world| world.oracle.is_settled());
}

/// A failed sync leaves each page durable or lost, and readers see the new bytes or the old ones: whichever it is, the
/// engine halts, acknowledges nothing more, and the next open finds what was acknowledged.
#[test]
fn a_failed_sync_is_final_whatever_became_of_its_pages() {
    let mut halted = 0;
    for seed in 0..200 {
        let mut world = small_slots(9_500 + seed);
        for number in 0..6 {
            put(&mut world, &value(number));
        }
        world.disk.fail_after(OpKind::Sync, seed % 4, ErrorKind::Other);
        let at = world.oracle.certain().last();
        let origin = CheckpointOrigin::Local;
        let (mut pushed, mut is_complete) = (0, world.checkpoint_begin(at, origin).is_err());
        for number in 0..40 {
            is_complete = is_complete || world.checkpoint_push(at, origin, &mut pushed, 9_000);
            if number % 4 == 0 {
                world.append_entries(1, 1, 9_000);
            }
            if world.turn().is_err() {
                halted += 1;
                assert!(world.turn_now().is_err());
                break;
            }
        }
        let known = world.oracle.certain();
        world.disk.crash();
        // A fault that was not met until now is met by the open.
        let recovered = world.try_open().or_else(|_| world.try_open()).unwrap();
        world.check(&recovered, "after a failed sync and a power cut");
        assert!(recovered.last >= known.last());
    }
    assert!(halted > 100, "{halted}");
}
