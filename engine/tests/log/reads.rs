//! Entries come back as they were appended, from memory and from the disk.

use engine::fuzzing::World;
use engine::io::simulated::SimFaults;
use engine::{Event, Position, ReadError};

/// A log in several frames of several segments, with nothing of it in memory or all of it.
fn world(tail_bytes_max: usize) -> World {
    let mut world = World::opened(51);
    world.options.tail_bytes_max = tail_bytes_max;
    world.open_and_check("reopen");
    for count in [1, 5, 2, 7] {
        world.append_entries(1, count, 90_000);
        world.append_entries(1, count, 200);
        world.settle();
    }
    world
}

#[test]
fn any_range_is_read_as_it_was_appended() {
    for tail in [0, 300_000, 64 << 20] {
        let mut world = world(tail);
        let content = world.oracle.certain();
        let last = content.last().index;
        for first in 1..=last {
            for bytes in [0, 1, 100_000, 1 << 30] {
                let entries = world.read(first, last, bytes).unwrap();
                assert_eq!(entries[0].index, first);
                for (entry, index) in entries.iter().zip(first..) {
                    assert_eq!(*entry, content.entries[&index]);
                }
                let before_last: usize =
                    entries.iter().rev().skip(1).map(|entry| entry.payload.len()).sum();
                assert!(entries.len() == 1 || before_last < bytes);
                assert!(bytes < 1 << 30 || entries.len() as u64 == last - first + 1);
            }
        }
    }
}

#[test]
fn a_read_behind_the_start_or_beyond_the_end_says_so() {
    let mut world = world(0);
    world.checkpoint_here();
    world.append_entries(1, 2, 100);
    world.checkpoint_here();
    let start = world.engine().status().log_start;
    assert!(start.index > 0);
    let gone = world.read(start.index, start.index, 10).unwrap_err();
    assert!(matches!(gone, ReadError::Gone { log_start } if log_start == start));
    let last = world.engine().status().last;
    let beyond = world.read(last.index + 1, last.index + 9, 10).unwrap_err();
    assert!(matches!(beyond, ReadError::Beyond { last: at } if at == last));
    assert_eq!(world.read(last.index, last.index + 9, 10).unwrap().len(), 1);
}

#[test]
fn entries_that_wait_for_a_frame_are_read_when_they_are_in_one() {
    let mut world = World::opened(52);
    world.append_entries(1, 3, 50);
    let entries = world.read(2, 3, 1 << 20).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_read_that_a_replaced_suffix_overtakes_never_mixes_old_and_new() {
    let mut world = world(0);
    let last = world.engine().status().last.index;
    for cut in 0..12 {
        world.engine().read_entries(5, 1, last, 1 << 30);
        for _ in 0..cut {
            world.turn().unwrap();
        }
        let term = world.engine().status().last.term + 1;
        world.append_after(4, term, last - 4, 90_000);
        world.turn_until("answer", |world| {
            world.events.iter().any(|event| matches!(event, Event::Entries { id: 5, .. }))
        });
        for event in world.events.drain(..) {
            if let Event::Entries { result, .. } = event {
                let terms: Vec<u64> = result.unwrap().iter().skip(4).map(|e| e.term).collect();
                assert!(terms.windows(2).all(|pair| pair[0] == pair[1]), "{terms:?}");
            }
        }
        world.settle();
    }
    assert_eq!(world.open_and_check("in the end").last, Position { index: last, term: 13 });
}

#[test]
fn a_slot_is_not_reused_under_a_reader() {
    let mut world = World::opened(53);
    world.options.tail_bytes_max = 0;
    world.open_and_check("without a cache");
    for _ in 0..4 {
        world.append_entries(1, 1, 200_000);
        world.settle();
    }
    let certain = world.oracle.certain();
    // A read that takes longer than everything that follows.
    let slow = SimFaults { read_us: 1_000_000_000..=1_000_000_000, ..SimFaults::none() };
    world.disk.set_faults(slow);
    world.engine().read_entries(9, 1, 4, 1 << 30);
    world.turn_now().unwrap();
    world.disk.set_faults(SimFaults::none());
    for _ in 0..8 {
        world.append_entries(1, 4, 200_000);
        // Sent at once: time must not run to the end of the read.
        world.turn_now().unwrap();
        world.checkpoint_here();
    }
    assert!(world.engine().status().log_start.index > 4);
    let answer = |event: &Event| matches!(event, Event::Entries { id: 9, .. });
    assert!(!world.events.iter().any(answer), "the read is still in flight");
    world.turn_until("answer", |world| world.events.iter().any(answer));
    for event in world.events.drain(..) {
        if let Event::Entries { result, .. } = event {
            let entries = result.unwrap();
            assert!(!entries.is_empty());
            for entry in entries {
                assert_eq!(entry, certain.entries[&entry.index]);
            }
        }
    }
}
