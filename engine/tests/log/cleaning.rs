//! The cleaner: what it gives back, and that no value is lost or changed on the way, whenever the power goes.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::fuzzing::{World, body_of, small_options};
use engine::io::simulated::SimFaults;
use engine::{
    CheckpointOrigin, Entry, Event, Location, Position, StoredValue, ValueBatch, ValueIndex,
    Wanted, values_in,
};

const LOCAL: CheckpointOrigin = CheckpointOrigin::Local;

/// Where the caller's state has a value, and what it is.
#[derive(Clone, Debug)]
struct Item {
    location: Location,
    value: Bytes,
}

impl Item {
    fn checksum(&self) -> u32 {
        crc32fast::hash(&self.value)
    }
}

/// A caller of the engine: keys, where their values lie, and what it has put into checkpoints.
#[derive(Clone, Default)]
struct Shelf {
    items: BTreeMap<Bytes, Item>,
    saved: BTreeMap<u64, BTreeMap<Bytes, Item>>,
    applied: u64,
    /// Makes every value one of its own.
    puts: u64,
    random: u64,
}

impl ValueIndex for Shelf {
    fn live_bytes(&self, slot: u32) -> u64 {
        let there = self.items.iter().filter(|(_, item)| item.location.slot() == slot);
        there.map(|(key, item)| engine::value_footprint(key.len(), item.value.len()) as u64).sum()
    }

    fn values_of(&self, kind: u8, payload: &[u8], show: &mut dyn FnMut(StoredValue<'_>)) {
        assert_eq!(kind, 1);
        values_in(payload).for_each(|value| show(value.unwrap()));
    }

    fn is_live(&self, key: &[u8], at: Location, checksum: u32) -> bool {
        let item = self.items.get(key);
        item.is_some_and(|item| item.location == at && item.checksum() == checksum)
    }

    fn relocate(&mut self, key: &[u8], from: Location, to: Location, checksum: u32) {
        if self.is_live(key, from, checksum) {
            self.items.get_mut(key).unwrap().location = to;
        }
    }
}

impl Shelf {
    fn seeded(seed: u64) -> Shelf {
        Shelf { random: seed, ..Shelf::default() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % bound
    }

    /// A turn of the engine and a step of its cleaner.
    fn turn(&mut self, world: &mut World) {
        world.turn().unwrap();
        let now_us = world.disk.now_us();
        if world.engine().cleans(now_us) {
            world.engine().clean(self);
        }
    }

    /// Turns until the cleaner has nothing to do.
    fn clean(&mut self, world: &mut World) {
        for _ in 0..100_000 {
            let now_us = world.disk.now_us();
            let is_at_rest = world.disk.next_due().is_none() && world.engine().is_idle();
            if is_at_rest
                && !world.engine().cleans(now_us)
                && world.engine().next_due_us().is_none()
            {
                return;
            }
            self.turn(world);
        }
        panic!("the cleaner never rests");
    }

    /// Writes these keys in one entry, with values of so many bytes; 0 removes them.
    fn put(&mut self, world: &mut World, keys: &[u64], value_bytes: usize) {
        let mut batch = ValueBatch::default();
        for key in keys {
            self.puts += 1;
            let pattern = format!("{key} {} ", self.puts).into_bytes();
            let value: Vec<u8> = pattern.into_iter().cycle().take(value_bytes).collect();
            batch.push(format!("key {key:05}").as_bytes(), &value, crc32fast::hash(&value));
        }
        let index = world.engine().status().last.index + 1;
        let entry = Entry { index, term: 1, kind: 1, payload: batch.take() };
        world.append(None, None, vec![entry]);
    }

    /// Applies what is durable.
    fn apply(&mut self, world: &mut World) {
        let durable = world.engine().status().durable.index;
        for index in self.applied + 1..=durable {
            let payload = world.oracle.certain().entries[&index].payload.clone();
            let place = world.engine().place(index).unwrap();
            for stored in values_in(&payload).map(Result::unwrap) {
                let key = payload.slice_ref(stored.key);
                let value = payload.slice_ref(stored.value);
                if value.is_empty() {
                    self.items.remove(&key);
                } else {
                    let location = place.plus(stored.start);
                    self.items.insert(key, Item { location, value });
                }
            }
            self.applied = index;
        }
        world.engine().forget_places_upto(durable);
    }

    fn settle(&mut self, world: &mut World) {
        while !world.engine().is_idle() {
            self.turn(world);
        }
        self.apply(world);
    }

    /// A checkpoint of what is applied, with so many turns between the look at the state and the beginning of the file.
    fn checkpoint(&mut self, world: &mut World, turns_between: u64) {
        self.settle(world);
        let Position { index, term } = world.engine().status().durable;
        if world.checkpoint.is_some_and(|info| info.at.index >= index) {
            return;
        }
        let mut slots: Vec<u32> = self.items.values().map(|item| item.location.slot()).collect();
        slots.sort_unstable();
        slots.dedup();
        self.saved.insert(index, self.items.clone());
        let slots = world.engine().value_slots(slots);
        (0..turns_between).for_each(|_| self.turn(world));
        let at = Position { index, term };
        world.engine().checkpoint_begin(at, LOCAL, 100, slots).unwrap();
        world.engine().checkpoint_push(LOCAL, &body_of(at, 100));
        world.engine().checkpoint_finish(LOCAL);
        while world.checkpoint.is_none_or(|info| info.at != at) {
            self.turn(world);
        }
    }

    /// What a start finds: the state of the checkpoint and the entries after it.
    fn reopen(&mut self, world: &mut World, what: &str) {
        let recovered = world.open_and_check(what);
        let at = recovered.checkpoint.map_or(0, |info| info.at.index);
        self.items = self.saved.get(&at).cloned().unwrap_or_default();
        self.applied = at;
        self.settle(world);
    }

    fn wanted(&self) -> Vec<Wanted> {
        let wanted = |(key, item): (&Bytes, &Item)| Wanted {
            location: item.location,
            key: key.clone(),
            value_bytes: u32::try_from(item.value.len()).unwrap(),
            checksum: item.checksum(),
        };
        self.items.iter().map(wanted).collect()
    }

    fn check(&self, world: &mut World, what: &str) {
        let results = world.read_values(self.wanted());
        for ((key, item), result) in self.items.iter().zip(results) {
            let value = result.unwrap_or_else(|error| panic!("{what}: {key:?}: {error}"));
            assert!(value == item.value, "{what}: {key:?}");
        }
    }

    /// A part of a random script: writes, removals, checkpoints, turns.
    fn step(&mut self, world: &mut World) {
        match self.below(8) {
            0..4 => {
                let keys: Vec<u64> = (0..=self.below(4)).map(|_| self.below(150)).collect();
                let bytes = 1_000 + usize::try_from(self.below(30_000)).unwrap();
                self.put(world, &keys, bytes);
            }
            4 => {
                let key = self.below(150);
                self.put(world, &[key], 0);
            }
            5 | 6 => {
                let turns = self.below(6);
                self.checkpoint(world, turns);
            }
            _ => (0..self.below(40)).for_each(|_| self.turn(world)),
        }
        self.settle(world);
    }
}

fn eager() -> World {
    let mut options = small_options();
    options.clean_bytes_per_second = 1 << 30;
    options.clean_below_percent = 70;
    let mut world = World::new(81, options, SimFaults::none());
    world.open_and_check("first open");
    world
}

/// Keys that stay among keys that are overwritten again and again.
fn mix_of_cold_and_hot(shelf: &mut Shelf, world: &mut World, rounds: u64) {
    for round in 0..rounds {
        for hot in 0..12 {
            shelf.put(world, &[1_000 + hot], 60_000);
        }
        shelf.put(world, &[500 + round], 9_000);
        shelf.checkpoint(world, 0);
    }
    shelf.clean(world);
}

#[test]
fn a_few_cold_values_keep_no_slot_each() {
    let slots_after = |percent| {
        let (mut world, mut shelf) = (eager(), Shelf::default());
        world.options.clean_below_percent = percent;
        world.open_and_check("with this target");
        mix_of_cold_and_hot(&mut shelf, &mut world, 40);
        shelf.check(&mut world, "after the churn");
        let status = world.engine().status();
        assert_eq!(status.slots_spared, 0);
        assert_eq!(status.values_moved > 0, percent > 0);
        status.slots
    };
    let (with, without) = (slots_after(70), slots_after(0));
    assert!(with <= 12 && without >= 30, "{with} with the cleaner, {without} without");
}

/// What happened before a checkpoint may still be asked for: history that is not compacted, watches that lag.
#[test]
fn what_checkpoints_keep_of_the_log_stays_and_is_cleaned_when_they_keep_it_no_longer() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    for open in ["first open", "second open", "third open"] {
        world.engine().keep_log_from(3);
        mix_of_cold_and_hot(&mut shelf, &mut world, 4);
        let kept = Position { index: 2, term: 1 };
        assert_eq!(world.engine().status().log_start, kept, "{open}");
        assert_eq!(world.engine().status().values_moved, 0, "{open}: these slots are the log's");
        world.disk.crash();
        shelf.reopen(&mut world, open);
        let last = world.engine().status().last.index;
        assert_eq!(world.engine().status().log_start, kept, "{open}");
        for index in 3..=last {
            assert_eq!(world.read(index, index, 1).unwrap()[0].index, index, "{open}");
        }
    }
    // A checkpoint that is begun from now on keeps nothing before it; the one before still does.
    let at = world.engine().status().last;
    shelf.put(&mut world, &[1], 100);
    shelf.checkpoint(&mut world, 0);
    assert_eq!(world.engine().status().log_start.index, 2);
    shelf.put(&mut world, &[1], 100);
    shelf.checkpoint(&mut world, 0);
    assert!(world.engine().status().log_start.index > at.index);
    shelf.clean(&mut world);
    assert!(world.engine().status().values_moved > 0);
    shelf.check(&mut world, "after the cleaner");
}

/// It kept a part of the log that was gone already, and an open that found it the older of two refused the directory.
#[test]
fn a_checkpoint_keeps_no_more_of_the_log_than_the_one_before_it() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    (0..5).for_each(|key| shelf.put(&mut world, &[key], 1_000));
    shelf.checkpoint(&mut world, 0);
    let before = world.checkpoint.unwrap();
    assert_eq!(before.keeps_after, before.at);
    world.engine().keep_log_from(2);
    for key in 0..5 {
        shelf.put(&mut world, &[key], 1_000);
        shelf.checkpoint(&mut world, 0);
        assert_eq!(world.checkpoint.unwrap().keeps_after, before.at);
        world.disk.crash();
        shelf.reopen(&mut world, "with the log after the first one");
        world.engine().keep_log_from(2);
    }
    assert_eq!(world.engine().status().log_start, before.at);
}

/// A full node whose oldest checkpoint was being sent took one checkpoint after the other: what had been moved since then
/// counted as what the next two would give back.
#[test]
fn what_was_moved_after_a_checkpoint_that_is_read_comes_back_when_it_is_not() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    world.options.clean_below_percent = 0;
    world.open_and_check("without a cleaner");
    for round in 0..30 {
        (0..12).for_each(|hot| shelf.put(&mut world, &[1_000 + hot], 60_000));
        shelf.put(&mut world, &[500 + round], 100_000);
        shelf.checkpoint(&mut world, 0);
    }
    world.options.clean_below_percent = 70;
    shelf.reopen(&mut world, "with a cleaner");
    let read = world.checkpoint.unwrap().at.index;
    world.engine().pin_checkpoint(read).unwrap();
    while world.engine().status().slots_values <= 2 {
        shelf.turn(&mut world);
    }
    shelf.clean(&mut world);
    assert!(world.engine().status().slots_values > 2, "{:?}", world.engine().status());
    // All that was moved dies.
    let all: Vec<u64> = (0..2_000).collect();
    shelf.put(&mut world, &all, 0);
    let freeable = |world: &mut World, shelf: &mut Shelf| {
        for _ in 0..2 {
            shelf.put(world, &[0], 0);
            shelf.checkpoint(world, 0);
        }
        shelf.clean(world);
        world.engine().freeable_bytes(shelf.applied, &|slot| shelf.live_bytes(slot))
    };
    assert_eq!(freeable(&mut world, &mut shelf), 0);
    let held = world.engine().status().slots_held;
    world.engine().unpin_checkpoint(read);
    assert_eq!(freeable(&mut world, &mut shelf), 0);
    assert!(world.engine().status().slots_held < held);
}

#[test]
fn what_one_run_moves_lies_in_the_order_of_the_keys() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    for key in [7, 3, 9, 1, 8, 2, 6, 4, 5, 0] {
        shelf.put(&mut world, &[key], 10_000);
        shelf.put(&mut world, &[1_000], 200_000);
    }
    mix_of_cold_and_hot(&mut shelf, &mut world, 6);
    let locations: Vec<Location> =
        shelf.items.values().take(10).map(|item| item.location).collect();
    assert!(world.engine().status().values_moved >= 10);
    assert!(locations.is_sorted(), "{locations:?}");
    shelf.check(&mut world, "after the run");
}

#[test]
fn the_power_may_go_at_any_operation() {
    for seed in 0..60 {
        let (mut world, mut shelf) = (eager(), Shelf::seeded(seed));
        (0..60).for_each(|_| shelf.step(&mut world));
        for _ in 0..6 {
            let operations = 1 + shelf.below(120);
            let what = format!("seed {seed}, power for {operations} operations");
            world.with_power_for(operations, |world| {
                (0..40).for_each(|_| shelf.step(world));
            });
            match shelf.below(3) {
                0 => world.disk.crash_drop_all(),
                1 => world.disk.crash_keep_all(),
                _ => world.disk.crash(),
            }
            shelf.reopen(&mut world, &what);
            shelf.check(&mut world, &what);
        }
    }
}

#[test]
fn a_long_script_neither_loses_a_value_nor_runs_out_of_slots() {
    let (mut moved, mut slots) = (0, 0);
    for seed in 100..110 {
        let (mut world, mut shelf) = (eager(), Shelf::seeded(seed));
        for step in 0..500 {
            shelf.step(&mut world);
            if step % 10 == 0 {
                shelf.check(&mut world, &format!("seed {seed}, step {step}"));
            }
        }
        let status = world.engine().status();
        assert_eq!(status.slots_spared, 0, "seed {seed}");
        moved += status.values_moved;
        slots = slots.max(status.slots);
    }
    assert!(moved > 500, "{moved}");
    assert!(slots < 24, "{slots}");
}

#[test]
fn a_reader_that_pinned_before_a_value_moved_finds_it_where_it_was() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    shelf.put(&mut world, &[1], 9_000);
    shelf.settle(&mut world);
    let pin = world.engine().reader().pin();
    let (wanted, value) =
        (shelf.wanted().remove(0), shelf.items.values().next().unwrap().value.clone());
    mix_of_cold_and_hot(&mut shelf, &mut world, 12);
    assert_ne!(shelf.items[b"key 00001".as_slice()].location, wanted.location);
    assert_eq!(world.read_values(vec![wanted.clone()]).remove(0).unwrap(), value);
    drop(pin);
    mix_of_cold_and_hot(&mut shelf, &mut world, 12);
    assert!(world.read_values(vec![wanted]).remove(0).is_err());
}

#[test]
fn a_slot_with_damage_keeps_what_is_live_behind_it_and_is_left_alone() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    world.options.clean_below_percent = 0;
    world.open_and_check("without a cleaner");
    for key in 0..6 {
        shelf.put(&mut world, &[key], 9_000);
        shelf.settle(&mut world);
        shelf.put(&mut world, &[1_000], 150_000);
        shelf.settle(&mut world);
    }
    for _ in 0..2 {
        shelf.put(&mut world, &[1_000, 1_001], 100_000);
        shelf.checkpoint(&mut world, 0);
    }
    mix_of_cold_and_hot(&mut shelf, &mut world, 0);
    for _ in 0..3 {
        (0..10).for_each(|hot| shelf.put(&mut world, &[1_000 + hot], 100_000));
        shelf.checkpoint(&mut world, 0);
    }
    let before = shelf.items.clone();
    let damaged = before[&Bytes::from("key 00002")].location;
    world.disk.flip_bit(&format!("seg/{:08x}.seg", damaged.slot()), (damaged.offset() + 100) * 8);
    world.options.clean_below_percent = 70;
    shelf.reopen(&mut world, "with a cleaner");
    shelf.clean(&mut world);
    for _ in 0..4 {
        (0..10).for_each(|hot| shelf.put(&mut world, &[1_000 + hot], 100_000));
        shelf.checkpoint(&mut world, 0);
        shelf.clean(&mut world);
    }
    assert_eq!(world.engine().status().slots_spared, 1);
    let results = world.read_values(shelf.wanted());
    for ((key, item), result) in shelf.items.iter().zip(results) {
        if item.location == damaged {
            assert!(result.is_err(), "{key:?}");
        } else {
            assert_eq!(result.unwrap(), item.value, "{key:?}");
        }
    }
    let moved = |key: &str| shelf.items[key.as_bytes()].location != before[key.as_bytes()].location;
    assert!(moved("key 00001") && !moved("key 00002") && !moved("key 00003"));
}

#[test]
fn nobody_writes_and_no_time_passes_so_nothing_is_copied() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    world.options.clean_bytes_per_second = 0;
    world.open_and_check("without an allowance");
    mix_of_cold_and_hot(&mut shelf, &mut world, 4);
    let moved = world.engine().status().values_moved;
    shelf.clean(&mut world);
    assert_eq!(world.engine().status().values_moved, moved);
    mix_of_cold_and_hot(&mut shelf, &mut world, 8);
    assert!(world.engine().status().values_moved > moved, "writers pay for it");
}

/// The values of a snapshot waited at the front of the only queue, for a slot that the cleaner behind them would have
/// freed: both stood still.
#[test]
fn a_snapshot_does_not_hold_the_cleaner_up() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    // Nothing is cleaned before the disk is full.
    world.options.clean_below_percent = 1;
    (world.options.slots_to_free, world.options.slots_to_keep) = (2, 2);
    world.open_and_check("with a reserve");
    for round in 0..20 {
        (0..12).for_each(|hot| shelf.put(&mut world, &[1_000 + hot], 60_000));
        shelf.put(&mut world, &[500 + round], 60_000);
        shelf.checkpoint(&mut world, 0);
    }
    world.turn_until("the reserve", |world| world.engine().status().slots_ready >= 5);
    assert_eq!(world.engine().status().values_moved, 0);
    world.disk.set_capacity(Some(world.disk.used_bytes()));
    let batches: Vec<u64> = (0..40)
        .map(|_| {
            let mut batch = ValueBatch::default();
            batch.push(b"of a snapshot", &vec![7; 200_000], 0);
            world.engine().append_values(batch)
        })
        .collect();
    world.turn_until("no slot", |world| world.engine().values_starve());
    // What the cleaner has freed counts after two checkpoints.
    for _ in 0..4 {
        (0..2_000).for_each(|_| shelf.turn(&mut world));
        shelf.put(&mut world, &[500], 100);
        shelf.checkpoint(&mut world, 0);
    }
    let placed = |world: &World, id: &u64| {
        let is_it = |event: &Event| matches!(event, Event::ValuesPlaced { id: of, .. } if of == id);
        world.events.iter().any(is_it)
    };
    let last = batches.last().unwrap();
    world.turn_until("the snapshot's values", |world| placed(world, last));
    assert!(world.engine().status().values_moved >= 15);
    shelf.check(&mut world, "after the run");
    assert!(batches.iter().all(|id| placed(&world, id)));
    world.disk.crash();
    shelf.reopen(&mut world, "after a power cut");
    shelf.check(&mut world, "after a power cut");
}

#[test]
fn segments_of_values_are_verified_like_those_of_the_log() {
    let (mut world, mut shelf) = (eager(), Shelf::default());
    mix_of_cold_and_hot(&mut shelf, &mut world, 20);
    shelf.put(&mut world, &[1], 100);
    shelf.checkpoint(&mut world, 0);
    let moved: Vec<Location> = shelf.items.values().map(|item| item.location).collect();
    world.engine = None;
    let verify = |world: &World| {
        engine::verify(world.disk.handle(), std::path::Path::new("data")).unwrap().rotten
    };
    assert_eq!(verify(&world), []);
    let path = |slot| format!("seg/{slot:08x}.seg");
    let is_of_values = |at: &&Location| {
        let bytes = world.disk.read_file(&path(at.slot())).unwrap();
        bytes[36..40] == [2, 0, 0, 0]
    };
    let at = moved.iter().find(is_of_values).expect("the cleaner has moved the cold ones");
    let slot = at.slot();
    world.disk.flip_bit(&path(slot), (at.offset() + 20) * 8);
    let rotten = verify(&world);
    assert_eq!(rotten.len(), 1, "{rotten:?}");
    assert_eq!((rotten[0].slot, rotten[0].check), (slot, engine::Check::RecordChecksum));
}
