//! The scrubber: it finds what has rotted where nobody reads, says where, and never mistakes a slot's next life for rot.

use std::io::ErrorKind;

use engine::fuzzing::World;
use engine::io::simulated::{OpKind, SimImage};
use engine::{Check, Damage, Event, Location, Rot, ScrubPlace, ScrubStatus, ValueBatch};

const SLOT_BYTES: u64 = 1 << 20;
const PIECE_BYTES: u64 = 256 << 10;

/// A world whose scrubber may read so much, opened again with it.
fn scrubbed(seed: u64, bytes_per_second: u64) -> World {
    let mut world = World::opened(seed);
    world.options.scrub_bytes_per_second = bytes_per_second;
    world
}

fn status(world: &mut World) -> ScrubStatus {
    world.engine().status().scrub
}

/// Everything that the next pass to end reports.
fn pass(world: &mut World) -> Vec<Rot> {
    let before = status(world).passes;
    world.turn_until("a pass", |world| status(world).passes > before);
    take_found(world)
}

fn take_found(world: &mut World) -> Vec<Rot> {
    let events = std::mem::take(&mut world.events).into_iter();
    events
        .filter_map(|event| if let Event::Damaged(rot) = event { Some(rot) } else { None })
        .collect()
}

fn slot_path(slot: u32) -> String {
    format!("seg/{slot:08x}.seg")
}

/// A slot that only the checkpoints need, several sealed ones of the log, and two checkpoints. Nothing has been scrubbed.
fn aged(seed: u64, bytes_per_second: u64) -> World {
    let mut world = scrubbed(seed, 0);
    world.append_entries(1, 4, 50_000);
    world.settle();
    world.slots = vec![0];
    for _ in 0..6 {
        world.append_entries(1, 4, 60_000);
        world.settle();
    }
    world.checkpoint_here();
    world.append_entries(1, 4, 60_000);
    world.checkpoint_here();
    for _ in 0..12 {
        world.append_entries(1, 4, 60_000);
        world.settle();
    }
    assert!(world.engine().status().slots_held > 0, "slot 0 holds values only");
    assert!(world.engine().status().slots_live > 2, "the log has sealed segments");
    world.options.scrub_bytes_per_second = bytes_per_second;
    world.try_open().unwrap();
    world.events.clear();
    world
}

/// Makes the image the disk's and opens it; the scrubber begins a pass.
fn reopened(world: &mut World, image: &SimImage, damage: impl FnOnce(&mut World)) -> Vec<Rot> {
    world.engine = None;
    world.disk.restore(image);
    world.try_open().unwrap();
    world.events.clear();
    damage(world);
    pass(world)
}

#[test]
fn a_pass_over_a_sound_directory_reads_all_of_it_and_finds_nothing() {
    let mut world = aged(90, u64::MAX);
    let (slots, read_before) = (world.engine().status(), world.disk.counters().bytes_read);
    assert_eq!(pass(&mut world), []);
    let ScrubStatus { passes, bytes, damaged, at } = status(&mut world);
    assert_eq!((passes, damaged, at), (1, 0, None));
    assert_eq!(world.disk.counters().bytes_read - read_before, bytes);
    // Nearly all of each sealed slot, and all of the one whose end nobody knows.
    let sealed = (slots.slots_live + slots.slots_held - 1) as u64;
    assert!(bytes > (sealed - 2) * SLOT_BYTES && bytes < (sealed + 1) * SLOT_BYTES, "{bytes}");
    let writes = world.disk.counters().writes;
    assert_eq!(pass(&mut world), []);
    assert_eq!(world.disk.counters().writes, writes, "a pass changes nothing");
}

/// One bit at a time, over all that is verified: each is found by one pass, once, with its place.
#[test]
fn a_flipped_bit_of_a_sealed_segment_is_found_by_one_pass() {
    let mut world = aged(91, u64::MAX);
    world.settle();
    let image = world.disk.snapshot();
    let payloads = world.oracle.certain().entries;
    let mut found_in = std::collections::BTreeSet::new();
    for (number, entry) in payloads.values().enumerate() {
        let mut place = None;
        let found = reopened(&mut world, &image, |world| {
            let at = world.engine().place(entry.index);
            let Some(at) = at.filter(|at| sealed(world, at.slot())) else { return };
            // Payload, record table and frame header by turns.
            let offset = match number % 3 {
                0 => at.offset() + number as u64 % 50_000,
                1 => at.offset() / 4_096 * 4_096 + 128,
                _ => at.offset() / 4_096 * 4_096 + number as u64 % 128,
            };
            world.disk.flip_bit(&slot_path(at.slot()), offset * 8 + number as u64 % 8);
            place = Some(at);
        });
        let Some(place) = place else {
            assert_eq!(found, []);
            continue;
        };
        let [Rot::Segment(damage)] = &found[..] else { panic!("{number}: {found:?}") };
        assert_eq!(damage.slot, place.slot());
        assert!(damage.offset <= place.offset() && damage.offset + 300_000 > place.offset());
        match damage.indices {
            Some((first, last)) => assert!((first..=last).contains(&entry.index), "{damage}"),
            None => assert_eq!(number % 3, 2, "only its own header or that behind it could tell"),
        }
        found_in.insert(damage.slot);
        assert_eq!(status(&mut world).damaged, 1);
    }
    assert!(found_in.len() > 2, "{found_in:?}");
}

/// Whether no frame is appended to this slot any more.
fn sealed(world: &mut World, slot: u32) -> bool {
    let last = world.engine().status().last.index;
    world.engine().place(last).is_some_and(|at| at.slot() != slot)
}

#[test]
fn a_flipped_bit_of_a_slot_that_only_checkpoints_need_is_found() {
    let mut world = aged(92, u64::MAX);
    let image = world.disk.snapshot();
    for offset in [0, 100, 4_100, 5_000, 20_000, 100_000] {
        let found = reopened(&mut world, &image, |world| {
            world.disk.flip_bit(&slot_path(0), offset * 8 + 3);
        });
        let [Rot::Segment(Damage { slot: 0, offset: at, .. })] = &found[..] else {
            panic!("{offset}: {found:?}")
        };
        assert!(*at <= offset, "{offset}: {at}");
    }
}

#[test]
fn a_flipped_bit_of_a_kept_checkpoint_is_found() {
    let mut world = aged(93, u64::MAX);
    let image = world.disk.snapshot();
    let infos = world.engine().checkpoints().to_vec();
    assert_eq!(infos.len(), 2);
    for info in infos {
        let path = format!("ckpt/{:016x}.ckpt", info.at.index);
        let bytes = world.disk.read_file(&path).unwrap().len() as u64;
        let block_end = 4_096 + 32 + 16 + info.body_bytes;
        let places = (0..block_end).step_by(397).chain((bytes - 4_096..bytes).step_by(397));
        for offset in places {
            let found = reopened(&mut world, &image, |world| {
                world.disk.flip_bit(&path, offset * 8 + offset % 8);
            });
            let start = match offset {
                0..4_096 => 0,
                _ if offset < block_end => 4_096,
                _ => bytes - 4_096,
            };
            let [Rot::Checkpoint { index, offset: at, .. }] = &found[..] else {
                panic!("{offset}: {found:?}")
            };
            assert_eq!((*index, *at), (info.at.index, start));
        }
    }
}

#[test]
fn damage_behind_damage_is_found_too() {
    let mut world = aged(94, u64::MAX);
    let image = world.disk.snapshot();
    let payloads = world.oracle.certain().entries;
    let found = reopened(&mut world, &image, |world| {
        for index in payloads.keys() {
            let place = world.engine().place(*index);
            if let Some(place) = place.filter(|place| sealed(world, place.slot())) {
                world.disk.flip_bit(&slot_path(place.slot()), (place.offset() + 10_000) * 8);
            }
        }
        for info in world.engine().checkpoints().to_vec() {
            world.disk.flip_bit(&format!("ckpt/{:016x}.ckpt", info.at.index), 5_000 * 8);
            world.disk.flip_bit(&format!("ckpt/{:016x}.ckpt", info.at.index), 12 * 8);
        }
    });
    let (segments, checkpoints): (Vec<&Rot>, Vec<&Rot>) =
        found.iter().partition(|rot| matches!(rot, Rot::Segment(_)));
    assert!(segments.len() > 10, "{found:?}");
    assert_eq!(checkpoints.len(), 4, "{found:?}");
    // Every place once, and again in the next pass.
    let unique: std::collections::BTreeSet<String> = found.iter().map(Rot::to_string).collect();
    assert_eq!(unique.len(), found.len());
    assert_eq!(pass(&mut world), found);
    assert_eq!(status(&mut world).damaged, 2 * found.len() as u64);
}

/// Slots are freed, opened anew and sealed again, and checkpoints removed, under a scrubber that takes its time.
#[test]
fn a_slot_that_is_used_anew_in_the_middle_of_a_pass_is_no_damage() {
    let rates = [4 << 20, 40 << 20, 200 << 20, 10 << 20, 80 << 20, 400 << 20];
    for (seed, rate) in (95..).zip(rates.into_iter().cycle().take(18)) {
        let mut world = scrubbed(seed, rate);
        world.try_open().unwrap();
        let mut scrubbed_bytes = 0;
        for round in 0..120 {
            world.slots = if round % 7 == 0 { vec![0] } else { Vec::new() };
            world.append_entries(1, 1 + round % 5, 100_000);
            if round % 2 == 0 {
                world.checkpoint_here();
            } else {
                world.settle();
            }
            assert_eq!(take_found(&mut world), [], "seed {seed} round {round}");
            let ScrubStatus { bytes, at, .. } = status(&mut world);
            if at.is_none() {
                scrubbed_bytes += bytes;
                world.open_and_check("a new pass");
            }
        }
        scrubbed_bytes += status(&mut world).bytes;
        assert!(scrubbed_bytes > 10 * PIECE_BYTES, "seed {seed}: {scrubbed_bytes}");
        assert!(world.engine().status().slots <= 10, "the scrubber keeps no slot");
    }
}

/// Twelve values, which fill more than one segment.
fn place_large_values(world: &mut World) -> Vec<Location> {
    let value = vec![7; 200_000];
    let batches = (0..12).map(|_| {
        let mut batch = ValueBatch::default();
        batch.push(b"key", &value, crc32fast::hash(&value));
        world.place_values(batch)
    });
    batches.collect()
}

/// A segment of values in a slot that the log had used was looked for where the log's had ended, and called damaged.
#[test]
fn a_slot_that_goes_from_the_log_to_values_is_read_as_what_it_is_now() {
    let mut world = scrubbed(104, 1 << 40);
    world.try_open().unwrap();
    for _ in 0..12 {
        world.append_entries(1, 4, 100_000);
        world.checkpoint_here();
    }
    let used: Vec<u32> = (0..u32::try_from(world.engine().status().slots).unwrap()).collect();
    let places = place_large_values(&mut world);
    assert!(used.contains(&places[0].slot()), "the log has used it");
    assert_ne!(places[0].slot(), places[11].slot());
    assert_eq!(take_found(&mut world), []);
    assert_eq!(pass(&mut world), []);
    assert_eq!(pass(&mut world), []);
    world.disk.flip_bit(&slot_path(places[0].slot()), (places[0].offset() + 1_000) * 8);
    let found = pass(&mut world);
    let [Rot::Segment(damage)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((damage.slot, damage.check), (places[0].slot(), Check::RecordChecksum));
}

#[test]
fn a_block_that_the_device_refuses_is_damage_and_its_neighbours_are_not() {
    let mut world = aged(99, u64::MAX);
    let image = world.disk.snapshot();
    // The piece, and then a block of it; it lies in one of the frames.
    let mut places = std::collections::BTreeSet::new();
    for block in 1..40 {
        let found = reopened(&mut world, &image, |world| {
            world.disk.fail_after(OpKind::Read, 0, ErrorKind::Other);
            world.disk.fail_after(OpKind::Read, 1 + block, ErrorKind::Other);
        });
        let [Rot::Segment(Damage { slot: 0, offset, check: Check::Unreadable, .. })] = &found[..]
        else {
            panic!("{block}: {found:?}")
        };
        assert!(*offset <= block * 4_096);
        places.insert(*offset);
        // It is there at the next attempt, and nothing has halted.
        assert_eq!(pass(&mut world), []);
        world.append_entries(1, 1, 100);
        world.settle();
    }
    assert!(places.len() > 1, "{places:?}");
    let found = reopened(&mut world, &image, |world| {
        world.disk.fail_next(OpKind::Read, ErrorKind::Other);
    });
    assert_eq!(found, [], "each block is there when it is asked for alone");
}

#[test]
fn a_checkpoint_that_the_device_refuses_is_damage_of_that_block() {
    let mut world = aged(100, u64::MAX);
    let image = world.disk.snapshot();
    let reads = reads_until_checkpoint(&mut world, &image);
    let found = reopened(&mut world, &image, |world| {
        world.disk.fail_after(OpKind::Read, reads, ErrorKind::Other);
    });
    let oldest = world.engine().checkpoints().last().unwrap().at.index;
    let expected = Rot::Checkpoint { index: oldest, offset: 0, check: Check::Unreadable };
    assert_eq!(found, [expected]);
}

/// How many reads a pass makes before that of the first checkpoint's header.
fn reads_until_checkpoint(world: &mut World, image: &SimImage) -> u64 {
    world.engine = None;
    world.disk.restore(image);
    world.try_open().unwrap();
    let before = world.disk.counters().reads;
    world.turn_until("a checkpoint", |world| {
        matches!(status(world).at, Some(ScrubPlace::Checkpoint { .. }))
    });
    // Its header is being read.
    world.disk.counters().reads - before - 1
}

/// Nothing promises the last frame of a segment of values, but whoever has sealed it knows where it ends.
#[test]
fn the_last_frame_of_a_segment_of_values_is_searched_if_it_was_sealed_since_the_open() {
    let mut world = scrubbed(105, 1 << 40);
    world.try_open().unwrap();
    world.append_entries(1, 1, 100);
    world.settle();
    let places = place_large_values(&mut world);
    let slot = places[0].slot();
    let last = places.iter().rfind(|place| place.slot() == slot).unwrap();
    assert!(places[11].slot() != slot && last.offset() > places[0].offset());
    assert_eq!(pass(&mut world), []);
    assert_eq!(pass(&mut world), []);
    let frame = last.offset() / 4_096 * 4_096;
    for (at, check) in [(last.offset() + 1_000, Check::RecordChecksum), (frame, Check::Magic)] {
        world.disk.flip_bit(&slot_path(slot), at * 8);
        let found = pass(&mut world);
        let [Rot::Segment(damage)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((damage.slot, damage.offset, damage.check), (slot, frame, check));
        world.disk.flip_bit(&slot_path(slot), at * 8);
    }
    assert_eq!(pass(&mut world), []);
}

#[test]
fn the_rate_is_kept_and_passes_do_not_follow_each_other_at_once() {
    const RATE: u64 = 4 << 20;
    let mut world = aged(101, RATE);
    let (started_us, read_before) = (world.disk.now_us(), world.disk.counters().bytes_read);
    while status(&mut world).passes == 0 {
        let elapsed_us = world.disk.now_us() - started_us;
        let allowed = elapsed_us * RATE / 1_000_000 + PIECE_BYTES;
        let read = world.disk.counters().bytes_read - read_before;
        assert!(read <= allowed, "{read} bytes in {elapsed_us} us");
        world.turn().unwrap();
    }
    let (bytes, took_us) = (status(&mut world).bytes, world.disk.now_us() - started_us);
    assert!(bytes * 1_000_000 / took_us > RATE * 9 / 10, "{bytes} bytes took {took_us} us");
    world.turn_until("the next pass", |world| status(world).at.is_some());
    assert!(world.disk.now_us() - started_us >= 3_600_000_000, "not before an hour has passed");
}

#[test]
fn without_a_rate_nothing_is_read() {
    let mut world = aged(102, 0);
    let read_before = world.disk.counters().bytes_read;
    for _ in 0..200 {
        world.turn().unwrap();
    }
    assert_eq!(world.disk.counters().bytes_read, read_before);
    assert_eq!(status(&mut world), ScrubStatus::default());
}
