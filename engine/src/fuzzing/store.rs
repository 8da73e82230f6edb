//! A script of everything that an engine does, against a model: work and crashes as of [`run_script`](super::run_script),
//! and between them reads of entries, values and checkpoints, inspections, and damage that must not pass.

use std::path::Path;

use crate::error::{OpenError, ReadError};
use crate::io::simulated::{SimDisk, SimFaults};
use crate::opening::inspect::verify;
use crate::options::Options;

use super::script::{Runner, STEPS_MAX, cleaning_options};
use super::world::{World, body_of};

/// Runs it. The first byte chooses options, then each step is two bytes.
///
/// Panics when something is read that was not written, or not read that was.
pub fn store_ops(data: &[u8]) {
    let Some((flags, script)) = data.split_first() else { return };
    let mut world = World::new(u64::from(*flags), options(*flags), SimFaults::none());
    world.open_and_check("first open");
    let mut runner = Runner::at_the_end_of(&mut world);
    for (number, step) in script.chunks_exact(2).take(STEPS_MAX).enumerate() {
        let [op, amount] = [step[0], step[1]];
        match op >> 4 {
            8 | 9 => read_entries(&mut world, u64::from(op & 15), u64::from(amount)),
            10 | 11 => read_values(&mut world),
            12 => read_body(&mut world, amount),
            13 => look(&world),
            14 => flip_and_open(&mut world, &mut runner, amount, number),
            _ => runner.step(&mut world, op, amount, number),
        }
    }
    runner.crash(&mut world, 5, 0);
    read_values(&mut world);
}

fn options(flags: u8) -> Options {
    let is = |bit: u8| flags >> bit & 1 == 1;
    Options {
        slot_bytes: if is(0) { 64 << 10 } else { 128 << 10 },
        inflight_frames_max: if is(1) { 4 } else { 1 },
        tail_bytes_max: if is(2) { 0 } else { 128 << 10 },
        cache_bytes_max: if is(3) { 0 } else { 64 << 10 },
        note_after_us: if is(4) { 200 } else { 5_000 },
        slots_ready: 1 + usize::from(is(5)),
        frame_bytes_max: 12 << 10,
        further_frame_bytes: 1 << 10,
        clean_below_percent: if is(6) { 70 } else { 0 },
        ..cleaning_options()
    }
}

/// Entries are what was appended, or it is said why there is none.
fn read_entries(world: &mut World, back: u64, bytes: u64) {
    let newest = world.oracle.newest();
    let last = newest.last().index;
    let first = last.saturating_sub(back).max(1);
    let bytes = usize::try_from(bytes << 6).expect("few");
    match world.read(first, first + back, bytes) {
        Ok(entries) => {
            assert!(!entries.is_empty());
            for (index, entry) in (first..).zip(&entries) {
                assert_eq!(entry.index, index);
                // One that waits for its frame has not yet replaced what is there.
                let is_newest = world.oracle.newest().entries.get(&index) == Some(entry);
                let may_be_older = !world.oracle.is_settled() && world.oracle.was_appended(entry);
                assert!(is_newest || may_be_older, "entry {index} of term {}", entry.term);
            }
        }
        Err(ReadError::Gone { log_start }) => assert!(first <= log_start.index),
        // What waits for its frame is not in the log yet.
        Err(ReadError::Beyond { .. }) => assert!(!world.oracle.is_settled() || first > last),
        Err(other) => panic!("entry {first}: {other}"),
    }
}

fn read_values(world: &mut World) {
    world.settle();
    world.check_values("values of a running engine");
}

fn read_body(world: &mut World, amount: u8) {
    let Some(info) = world.checkpoint else { return };
    let offset = u64::from(amount) * 7 % info.body_bytes.max(1);
    let bytes = usize::from(amount) + 1;
    let found = world.read_body(info.at.index, offset, bytes).expect("a durable checkpoint");
    let body = body_of(info.at, usize::try_from(info.body_bytes).expect("it was pushed"));
    let start = usize::try_from(offset).expect("within the body");
    assert!(!found.is_empty());
    assert_eq!(found[..], body[start..start + found.len()]);
}

/// A copy of the disk is sound, and looking at it changes nothing.
fn look(world: &World) {
    let copy = SimDisk::new(1, SimFaults::none());
    copy.restore(&world.disk.snapshot());
    copy.crash_keep_all();
    let files = |disk: &SimDisk| -> Vec<_> {
        disk.files().iter().map(|path| disk.read_file(path)).collect()
    };
    let before = files(&copy);
    let found = verify(copy.handle(), Path::new("data")).expect("a sound disk");
    assert!(found.damaged.is_empty());
    assert!(found.rotten.is_empty(), "{:?}", found.rotten);
    assert!(files(&copy) == before);
}

/// A bit of a settled log flips: what is opened then holds the same, or without its last frame, or is refused.
fn flip_and_open(world: &mut World, runner: &mut Runner, amount: u8, number: usize) {
    world.settle();
    if world.engine().status().slots_ready == 0 {
        // For want of a slot the last frame may be one that nobody has promised.
        return;
    }
    world.disk.kill();
    let (image, truth) = (world.disk.snapshot(), world.truth());
    let sound = world.try_open().expect("a sound disk");
    let certain = world.read_content(&sound);
    world.disk.restore(&image);
    let bytes_of = |path: &str| world.disk.read_file(path).map_or(0, |file| file.len() as u64);
    let mut files = world.disk.files();
    files.retain(|path| bytes_of(path) > 0);
    let path = &files[usize::from(amount) % files.len()];
    let bytes = bytes_of(path);
    let bit = (u64::from(amount) * 0x9E37_79B9 + number as u64 * 4099) % (bytes * 8);
    world.disk.flip_bit(path, bit);
    match world.try_open() {
        // The engine was idle: its last frame promises all that holds an entry.
        Ok(recovered) => {
            let found = world.read_content(&recovered);
            // A snapshot that had replaced the log and is moved aside leaves the log as it was before.
            let is_aside = recovered.checkpoint != sound.checkpoint && sound.report.was_reset;
            let certain = if is_aside { truth.oracle.certain() } else { certain };
            assert_eq!(found.last(), certain.last(), "bit {bit} of {path}");
            assert_eq!(found.hard_state, certain.hard_state, "bit {bit} of {path}");
            assert!(
                found.entries.values().all(|entry| {
                    let known = certain.entries.get(&entry.index);
                    known.is_none_or(|known| known == entry)
                }),
                "bit {bit} of {path}"
            );
        }
        Err(OpenError::Io { what, .. }) => panic!("bit {bit} of {path}: {what}"),
        Err(_) => {}
    }
    world.disk.restore(&image);
    world.believe(&truth);
    runner.reopen(world, "an open of what has not been flipped");
}
