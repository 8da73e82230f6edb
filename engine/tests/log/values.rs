//! Values by location: where they lie, that nothing else passes for them, and what keeps their slots.

use std::io::ErrorKind;

use bytes::Bytes;
use engine::fuzzing::World;
use engine::io::simulated::OpKind;
use engine::{
    Check, CheckpointError, CheckpointOrigin, Entry, Event, Location, OpenError, Position,
    ReadError, ValueBatch, Wanted,
};

const INSTALLED: CheckpointOrigin = CheckpointOrigin::Installed;
const KEY_BYTES: usize = 16;

/// The first bytes of a payload as a key, the rest as its value.
fn wanted_of(location: Location, payload: &Bytes) -> Wanted {
    let value = payload.slice(KEY_BYTES..);
    Wanted {
        location,
        key: payload.slice(..KEY_BYTES),
        value_bytes: u32::try_from(value.len()).unwrap(),
        checksum: crc32fast::hash(&value),
    }
}

/// Every entry after the newest checkpoint, as a value to be read.
fn all_wanted(world: &mut World) -> Vec<(Wanted, Bytes)> {
    let start = world.checkpoint.map_or(0, |info| info.at.index);
    let entries: Vec<Entry> = world.oracle.certain().entries.values().cloned().collect();
    let entries = entries.into_iter().filter(|entry| entry.index > start);
    let engine = world.engine();
    let wanted = entries.map(|Entry { index, payload, .. }| {
        let place = engine.place(index).expect("an entry in a frame has a place");
        (wanted_of(place, &payload), payload.slice(KEY_BYTES..))
    });
    wanted.collect()
}

fn assert_readable(world: &mut World, what: &str) -> usize {
    let (wanted, expected): (Vec<Wanted>, Vec<Bytes>) = all_wanted(world).into_iter().unzip();
    let results = world.read_values(wanted);
    let values: Vec<Bytes> = results.into_iter().map(Result::unwrap).collect();
    assert!(values == expected, "{what}");
    values.len()
}

/// Writes until slot `slot` has been filled and sealed, and gives a value in it.
fn fill_slot(world: &mut World, slot: u32) -> (Wanted, Bytes) {
    let mut kept = None;
    loop {
        world.append_entries(1, 4, 50_000);
        world.settle();
        let last = world.engine().status().last.index;
        let place = world.engine().place(last).unwrap();
        if place.slot() == slot {
            let payload = world.oracle.certain().entries[&last].payload.clone();
            kept = Some((wanted_of(place, &payload), payload.slice(KEY_BYTES..)));
        } else if let Some(kept) = kept {
            return kept;
        }
    }
}

/// Two more checkpoints, so that what they do not need can go.
fn two_checkpoints(world: &mut World) {
    for _ in 0..2 {
        world.append_entries(1, 1, 100);
        world.checkpoint_here();
    }
    world.settle();
}

/// Fills so many slots.
fn churn(world: &mut World) {
    for _ in 0..12 {
        world.append_entries(1, 4, 60_000);
        world.settle();
        two_checkpoints(world);
    }
}

#[test]
fn values_are_read_back_from_memory_from_the_disk_and_after_a_start() {
    let mut world = World::opened(61);
    world.append_entries(1, 3, 2_000);
    world.settle();
    let read_before = world.engine().status().values_read;
    assert_readable(&mut world, "from memory");
    assert_eq!(world.engine().status().values_read, read_before);
    world.append_entries(1, 40, 9_000);
    world.settle();
    assert_readable(&mut world, "from the disk");
    assert!(world.engine().status().values_read > read_before);
    world.disk.crash();
    world.open_and_check("reopen");
    assert_eq!(assert_readable(&mut world, "after a start"), 43);
}

#[test]
fn an_entry_that_replaces_another_has_its_own_place() {
    let mut world = World::opened(62);
    world.append_entries(1, 10, 3_000);
    world.settle();
    let replaced = world.engine().place(6).unwrap();
    world.append_after(5, 2, 3, 3_000);
    // The new entry waits for its frame, the old one is gone.
    assert_eq!(world.engine().place(6), None);
    world.settle();
    assert_ne!(world.engine().place(6), Some(replaced));
    assert_eq!(world.engine().place(9), None);
    assert_eq!(assert_readable(&mut world, "after the replacement"), 8);
    world.open_and_check("reopen");
    assert_eq!(assert_readable(&mut world, "after a start"), 8);
}

/// Both an entry and the one that replaces it waited for a frame. The older one went first, and its place counted as the
/// newer one's until that had a frame: an entry that others had committed by then was applied with it.
#[test]
fn an_entry_that_waits_behind_the_one_it_replaces_is_never_at_its_place() {
    for steps in 0..2 {
        let mut world = World::opened(71);
        world.append_after(0, 1, 60, 60_000);
        (0..steps).for_each(|_| world.turn().unwrap());
        world.append_after(20, 2, 1, 100);
        let write = world.oracle.next_write() - 1;
        let mut places = Vec::new();
        loop {
            let durable =
                |event: &Event| matches!(event, Event::Durable { write: w } if *w == write);
            let is_durable = world.events.iter().any(durable);
            places.extend(world.engine().place(21));
            assert_eq!(world.engine().place(22), None);
            if is_durable {
                break;
            }
            world.turn().unwrap();
        }
        places.dedup();
        assert_eq!(places.len(), 1, "{places:?}");
        world.settle();
        assert_eq!(assert_readable(&mut world, "after the replacement"), 21);
    }
}

#[test]
fn what_is_not_the_wanted_value_is_an_error_of_that_value_alone() {
    let mut world = World::opened(63);
    world.append_entries(1, 30, 9_000);
    world.settle();
    for at in [0, 29] {
        let (right, value) = all_wanted(&mut world).swap_remove(at);
        let wrong = [
            Wanted { key: Bytes::from_static(b"another key here"), ..right.clone() },
            Wanted { value_bytes: right.value_bytes - 1, ..right.clone() },
            Wanted { checksum: right.checksum ^ 1, ..right.clone() },
            Wanted { location: right.location.plus(16), ..right.clone() },
            Wanted { location: Location::new(77, 4_096), ..right.clone() },
            Wanted { location: Location::new(0, (1 << 20) - 16), ..right.clone() },
        ];
        let results = world.read_values(wrong.into_iter().chain([right]).collect());
        let (last, wrong) = results.split_last().unwrap();
        assert_eq!(last.as_ref().unwrap(), &value);
        for result in wrong {
            assert!(matches!(result, Err(ReadError::ValueDamaged { .. })), "{result:?}");
        }
    }
}

/// As much memory was allocated as the length said, up to 4 GiB, before anything was read.
#[test]
fn a_value_that_would_reach_beyond_its_slot_is_refused_unread() {
    for tail_bytes_max in [0, 64 << 20] {
        let mut world = World::opened(71);
        world.options.tail_bytes_max = tail_bytes_max;
        world.open_and_check("with another tail");
        world.append_entries(1, 3, 5_000);
        world.settle();
        let (right, value) = all_wanted(&mut world).swap_remove(1);
        let slot = right.location.slot();
        let wrong = [
            Wanted { value_bytes: u32::MAX, ..right.clone() },
            Wanted { location: Location::new(slot, (1 << 20) - 16), ..right.clone() },
            Wanted { location: Location::new(slot, (1 << 30) - 16), ..right.clone() },
        ];
        let read_before = world.disk.counters().bytes_read;
        let results = world.read_values(wrong.to_vec());
        for result in results {
            let refused =
                matches!(result, Err(ReadError::ValueDamaged { check: Check::Range, .. }));
            assert!(refused, "{result:?}");
        }
        assert_eq!(world.disk.counters().bytes_read, read_before);
        assert_eq!(world.read_values(vec![right]).remove(0).unwrap(), value);
    }
}

/// The open panicked: it took a slot for held that it had no file of.
#[test]
fn a_directory_without_a_slot_that_a_checkpoint_names_is_refused_and_nothing_deleted() {
    let mut world = World::opened(72);
    world.append_entries(1, 3, 5_000);
    world.settle();
    world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
    // The last file by number is the one whose absence leaves no hole; no entry lies there.
    let last = u32::try_from(world.engine().status().slots).unwrap() - 1;
    world.slots = vec![0, last];
    world.checkpoint_here();
    world.engine = None;
    world.disk.remove_file(&format!("seg/{last:08x}.seg"));
    let files = world.disk.files();
    let error = world.try_open().err().unwrap();
    assert!(matches!(error, OpenError::SlotMissing { slot, .. } if slot == last), "{error}");
    assert_eq!(world.disk.files(), files);
}

#[test]
fn a_read_that_the_device_refuses_halts_nothing_and_can_be_repeated() {
    let mut world = World::opened(64);
    world.append_entries(1, 40, 9_000);
    world.settle();
    let (wanted, value) = all_wanted(&mut world).swap_remove(0);
    world.disk.fail_next(OpKind::Read, ErrorKind::Other);
    let refused = world.read_values(vec![wanted.clone()]).remove(0);
    assert!(matches!(refused, Err(ReadError::Io { .. })), "{refused:?}");
    assert_eq!(world.read_values(vec![wanted]).remove(0).unwrap(), value);
    world.append_entries(1, 1, 100);
    world.settle();
}

#[test]
fn a_value_that_was_read_needs_the_disk_no_more_until_its_slot_is_used_anew() {
    let mut world = World::opened(68);
    world.append_entries(1, 40, 2_000);
    world.settle();
    let (wanted, value) = all_wanted(&mut world).swap_remove(0);
    let (_, last) = fill_slot(&mut world, 0);
    assert!(last.len() > 2_000, "the frame of the first value has left the memory");
    for disk_reads in [1, 0, 0] {
        let before = world.engine().status().values_read;
        assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), value);
        assert_eq!(world.engine().status().values_read - before, disk_reads);
        assert_eq!(world.engine().reader().recent(&wanted).as_ref(), Some(&value));
    }
    assert!(world.engine().status().cached_bytes > 2_000);
    churn(&mut world);
    assert_eq!(world.engine().reader().recent(&wanted), None);
    assert!(world.read_values(vec![wanted]).remove(0).is_err());
}

#[test]
fn a_slot_is_kept_while_a_kept_checkpoint_names_it_and_used_anew_after() {
    let mut world = World::opened(65);
    let (wanted, value) = fill_slot(&mut world, 0);
    world.slots = vec![0];
    world.checkpoint_here();
    churn(&mut world);
    assert!(world.engine().status().slots_held > 0);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), value);
    world.disk.crash();
    world.open_and_check("reopen");
    assert!(world.engine().status().slots_held > 0);
    churn(&mut world);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), value);
    // The value is overwritten: the next checkpoints do not name its slot.
    world.slots.clear();
    world.append_entries(1, 1, 100);
    world.checkpoint_here();
    assert!(world.engine().status().slots_held > 0, "the older one names it still");
    churn(&mut world);
    assert_eq!(world.engine().status().slots_held, 0);
    let result = world.read_values(vec![wanted]).remove(0);
    assert!(matches!(result, Err(ReadError::ValueDamaged { .. })), "{result:?}");
}

#[test]
fn a_pin_keeps_a_slot_that_nothing_needs_from_being_used_anew() {
    let mut world = World::opened(66);
    let (wanted, value) = fill_slot(&mut world, 0);
    let pin = world.engine().reader().pin();
    two_checkpoints(&mut world);
    churn(&mut world);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), value);
    drop(pin);
    churn(&mut world);
    assert!(world.read_values(vec![wanted]).remove(0).is_err());
}

/// A key and a value for `append_values`.
fn pair() -> Bytes {
    let mut pair = vec![b'k'; KEY_BYTES];
    pair.extend_from_slice(&[7; 5_000]);
    Bytes::from(pair)
}

fn batch_of(pair: &Bytes) -> ValueBatch {
    let (key, value) = pair.split_at(KEY_BYTES);
    let mut batch = ValueBatch::default();
    batch.push(key, value, crc32fast::hash(value));
    batch
}

/// A batch that is thrown away.
fn large_batch() -> ValueBatch {
    let mut batch = ValueBatch::default();
    batch.push(b"nobody's", &vec![9; 200_000], 0);
    batch
}

/// Appends values until another segment has been opened.
fn fill_segment_of_values(world: &mut World) {
    for _ in 0..6 {
        world.place_values(large_batch());
    }
}

fn place_values(world: &mut World, pair: &Bytes) -> Wanted {
    let location = world.place_values(batch_of(pair));
    wanted_of(location.plus(16), pair)
}

#[test]
fn values_are_announced_when_they_are_durable() {
    let mut world = World::opened(73);
    world.append_entries(1, 1, 100);
    world.settle();
    world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
    for _ in 0..3 {
        let location = place_values(&mut world, &pair()).location;
        let file = world.disk.read_durable(&format!("seg/{:08x}.seg", location.slot())).unwrap();
        let start = usize::try_from(location.offset()).unwrap();
        assert_eq!(file[start..start + pair().len()], pair());
    }
}

#[test]
fn an_installed_checkpoint_keeps_the_slots_of_its_values() {
    let mut world = World::opened(67);
    world.append_entries(1, 5, 100);
    world.settle();
    let wanted = place_values(&mut world, &pair());
    let at = Position { index: 100, term: 2 };
    world.slots = vec![wanted.location.slot()];
    world.install(at, 500);
    world.settle();
    churn(&mut world);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), pair().slice(16..));
    world.disk.crash();
    world.open_and_check("reopen");
    assert_eq!(world.read_values(vec![wanted]).remove(0).unwrap(), pair().slice(16..));
}

#[test]
fn values_of_a_snapshot_stay_until_two_checkpoints_show_them_overwritten() {
    let mut world = World::opened(68);
    world.append_entries(1, 5, 100);
    world.settle();
    let wanted = place_values(&mut world, &pair());
    churn(&mut world);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), pair().slice(16..));
    fill_segment_of_values(&mut world);
    churn(&mut world);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), pair().slice(16..));
    // The installed checkpoint shows a state from before they were anybody's. It names none of them; two more must agree.
    world.slots.clear();
    let last = world.engine().status().last;
    world.install(Position { index: last.index + 100, ..last }, 500);
    let slots = world.engine().status().slots_values;
    world.append_entries(1, 1, 100);
    world.settle();
    assert_eq!(world.engine().status().slots_values, slots);
    two_checkpoints(&mut world);
    assert!(world.engine().status().slots_values < slots);
    churn(&mut world);
    assert!(world.read_values(vec![wanted]).remove(0).is_err());
}

/// Its file may come back while its name is being removed, so its values are not nobody's.
#[test]
fn an_install_that_a_newer_checkpoint_made_pointless_gives_nothing_back_at_once() {
    let mut world = World::opened(76);
    world.append_entries(1, 20, 100);
    world.settle();
    let wanted = place_values(&mut world, &pair());
    world.slots = vec![wanted.location.slot()];
    let at = Position { index: 10, term: 1 };
    world.checkpoint_begin(at, INSTALLED).unwrap();
    world.slots.clear();
    world.checkpoint_here();
    let mut pushed = 0;
    while !world.checkpoint_push(at, INSTALLED, &mut pushed, 500) {
        world.turn().unwrap();
    }
    world.turn_until("the end of it", |world| {
        let is_it = |event: &Event| {
            let Event::CheckpointFailed { error, .. } = event else { return false };
            matches!(error, CheckpointError::NotNewer { .. })
        };
        world.events.iter().any(is_it)
    });
    world.events.clear();
    world.engine().values_dropped();
    world.settle();
    world.turn().unwrap();
    assert_eq!(world.engine().status().slots_values, 1);
    churn(&mut world);
    assert_eq!(world.engine().status().slots_values, 0);
}

/// An install that was given up while its last values waited for a frame kept their slot, and every later one,
/// until the node was started again.
#[test]
fn values_that_are_given_up_before_they_have_a_place_keep_no_slot() {
    let mut world = World::opened(70);
    world.append_entries(1, 5, 100);
    world.settle();
    world.engine().append_values(batch_of(&pair()));
    world.engine().values_dropped();
    world.settle();
    churn(&mut world);
    let slots = world.engine().status().slots;
    for _ in 0..4 {
        churn(&mut world);
    }
    assert_eq!(world.engine().status().slots, slots);
}

/// They waited for two checkpoints, which a node that needs a snapshot may be unable to take: each attempt took as many
/// slots as it had filled.
#[test]
fn values_that_are_given_up_give_their_slots_back_at_once() {
    let mut world = World::opened(74);
    world.append_entries(1, 5, 100);
    world.settle();
    for _ in 0..6 {
        let before = world.engine().status();
        place_values(&mut world, &pair());
        fill_segment_of_values(&mut world);
        assert_eq!(world.engine().status().slots_values, 2);
        world.engine().values_dropped();
        world.turn().unwrap();
        let after = world.engine().status();
        assert_eq!((after.slots_values, after.slots_held), (0, before.slots_held));
        assert!(after.slots <= 4, "{after:?}");
    }
}

#[test]
fn a_slot_that_is_still_written_is_not_given_back() {
    let mut world = World::opened(75);
    world.append_entries(1, 1, 100);
    world.settle();
    world.turn_until("slots", |world| {
        world.engine().status().slots_ready > 0 && world.disk.in_flight() == 0
    });
    let free = world.engine().status().slots_ready;
    world.engine().append_values(large_batch());
    world.turn_now().unwrap();
    world.engine().values_dropped();
    world.turn_now().unwrap();
    assert!(world.engine().status().slots_ready < free, "it is being written");
    world.turn_until("free again", |world| world.engine().status().slots_ready >= free);
}

#[test]
fn a_crash_at_any_operation_of_an_install_leaves_a_log_whose_values_can_be_read() {
    let mut operations = 0;
    let mut installed = 0;
    loop {
        operations += 1;
        let mut world = World::opened(69);
        world.append_entries(1, 20, 3_000);
        world.settle();
        let mut place = None;
        let at = Position { index: 100, term: 2 };
        let ended = world.with_power_for(operations, |world| {
            let wanted = place_values(world, &pair());
            world.settle();
            world.slots = vec![wanted.location.slot()];
            place = Some(wanted);
            world.install(at, 500);
            world.settle();
        });
        world.disk.crash();
        let recovered = world.open_and_check(&format!("power for {operations} operations"));
        if recovered.checkpoint.is_some_and(|info| info.at == at) {
            installed += 1;
            let value = world.read_values(vec![place.unwrap()]).remove(0);
            assert_eq!(value.unwrap(), pair().slice(16..), "{operations}");
        } else {
            assert_eq!(assert_readable(&mut world, "the old log"), 20, "{operations}");
        }
        if ended {
            break;
        }
    }
    assert!(installed > 1 && operations > installed + 5, "{installed} of {operations}");
}

/// An install that is given up after so many turns, and another one whose values fill several slots.
fn give_up_and_begin_anew(world: &mut World, at: Position, turns: usize) {
    assert!(world.checkpoint_begin(at, INSTALLED).is_ok());
    let mut pushed = 0;
    while !world.checkpoint_push(at, INSTALLED, &mut pushed, 500) {
        world.turn().unwrap();
    }
    (0..turns).for_each(|_| world.turn().unwrap());
    world.engine().checkpoint_abort(INSTALLED);
    world.engine().values_dropped();
    for _ in 0..30 {
        world.engine().append_values(large_batch());
        (0..6).for_each(|_| world.turn().unwrap());
        world.engine().values_dropped();
    }
}

/// Its values were given up when it was: while its name was still being removed. A power cut brought the name back, and its
/// values were gone.
#[test]
fn an_aborted_install_that_a_power_cut_brings_back_still_has_its_values() {
    let mut brought_back = 0;
    for (turns, operations) in
        (8..24).flat_map(|turns| (1..120).step_by(3).map(move |n| (turns, n)))
    {
        let mut world = World::opened(72);
        let wanted = place_values(&mut world, &pair());
        world.settle();
        // A sealed slot, so that it could be used anew.
        fill_segment_of_values(&mut world);
        world.slots = vec![wanted.location.slot()];
        let at = Position { index: 100, term: 2 };
        world.with_power_for(operations, |world| give_up_and_begin_anew(world, at, turns));
        world.disk.crash_drop_all();
        let recovered = world.open_and_check(&format!("{turns} turns, {operations} operations"));
        if recovered.checkpoint.is_some_and(|info| info.at == at) {
            brought_back += 1;
            let value = world.read_values(vec![wanted]).remove(0);
            assert_eq!(
                value.unwrap(),
                pair().slice(16..),
                "{turns} turns, {operations} operations"
            );
        }
    }
    assert!(brought_back > 0);
}
