//! Damaged frames: which entries are handed up as faulty, that nothing else changes, and how they are repaired.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use engine::format::TERM_UNKNOWN;
use engine::fuzzing::{Content, World};
use engine::io::simulated::{Fate, SimDisk, SimFaults, SimImage, Unsynced};
use engine::{
    Dumped, Entry, Event, HoleFate, OnDamage, OpenError, Position, ReadError, Recovered, dump,
    verify,
};

/// A frame of the log as it lies on disk.
#[derive(Clone, Debug)]
struct OnDisk {
    slot: u32,
    offset: u64,
    bytes: u64,
    seq: u64,
    durable_seq: u64,
    entries: Vec<Position>,
    /// Where its last payload ends, from its start.
    used: u64,
    replaces: bool,
}

/// A log, what it holds, and the frames that it lies in.
struct Subject {
    world: World,
    sound: SimImage,
    content: Content,
    hard_state: engine::HardState,
    frames: Vec<OnDisk>,
    /// The frame of each live entry, by index.
    owners: BTreeMap<u64, u64>,
}

/// Every frame that can be read, in order.
fn frames_of(world: &World) -> Vec<OnDisk> {
    let copy = SimDisk::new(1, SimFaults::none());
    copy.restore(&world.disk.snapshot());
    let mut frames: Vec<OnDisk> = Vec::new();
    let mut slot = 0;
    let mut last = 0;
    dump(copy.handle(), Path::new("data"), &mut |dumped| {
        match dumped {
            Dumped::Segment(segment) => slot = segment.slot,
            Dumped::Frame(frame) => {
                let (offset, bytes) = (frame.offset, frame.bytes as u64);
                let (seq, durable_seq) = (frame.seq, frame.durable_seq);
                let (entries, used, replaces) = (Vec::new(), 128, false);
                frames.push(OnDisk {
                    slot,
                    offset,
                    bytes,
                    seq,
                    durable_seq,
                    entries,
                    used,
                    replaces,
                });
            }
            Dumped::Record(record) => {
                let frame = frames.last_mut().unwrap();
                frame.used = record.offset + record.payload.len() as u64 - frame.offset;
                if record.kind == "entry" {
                    frame.replaces |= record.at.index <= last;
                    last = record.at.index;
                    frame.entries.push(record.at);
                }
            }
            Dumped::Meta(_)
            | Dumped::Checkpoint(..)
            | Dumped::NoSegment(..)
            | Dumped::Hole(_)
            | Dumped::End { .. } => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    frames.sort_by_key(|frame| frame.seq);
    frames
}

impl Subject {
    /// Of a world whose log is settled. Its process is killed.
    fn new(mut world: World) -> Subject {
        world.options.tail_bytes_max = 0;
        world.options.on_damage = OnDamage::HandUp;
        world.disk.kill();
        let found = world.open_and_check("sound");
        world.disk.kill();
        let content = world.oracle.certain();
        let frames = frames_of(&world);
        let mut owners = BTreeMap::new();
        for frame in &frames {
            for at in &frame.entries {
                owners.split_off(&at.index);
                owners.insert(at.index, frame.seq);
            }
        }
        let owners = owners.split_off(&(found.log_start.index + 1));
        let sound = world.disk.snapshot();
        Subject { sound, content, hard_state: found.hard_state, frames, owners, world }
    }

    fn frame(&self, seq: u64) -> &OnDisk {
        self.frames.iter().find(|frame| frame.seq == seq).unwrap()
    }

    /// Flips a bit of a byte of a frame.
    fn flip(&self, seq: u64, byte: u64) {
        let frame = self.frame(seq);
        let path = format!("seg/{:08x}.seg", frame.slot);
        self.world.disk.flip_bit(&path, (frame.offset + byte) * 8 + byte % 8);
    }

    /// Zeros a frame, as if its write had been lost.
    fn lose(&self, seq: u64) {
        let frame = self.frame(seq);
        let path = format!("seg/{:08x}.seg", frame.slot);
        let mut bytes = self.world.disk.read_file(&path).unwrap();
        let start = usize::try_from(frame.offset).unwrap();
        bytes[start..start + usize::try_from(frame.bytes).unwrap()].fill(0);
        self.world.disk.write_file(&path, &bytes);
    }

    fn restore(&self) {
        self.world.disk.restore(&self.sound);
    }

    /// The live entries of these frames.
    fn entries_of(&self, seqs: &[u64]) -> Vec<u64> {
        let of_these = self.owners.iter().filter(|(_, seq)| seqs.contains(seq));
        of_these.map(|(index, _)| *index).collect()
    }

    fn entry(&self, index: u64) -> Entry {
        self.content.entries[&index].clone()
    }

    /// Opens, and checks that exactly the entries of these frames are faulty and everything else is as it was.
    fn open_with_faulty(&mut self, seqs: &[u64], what: &str) -> Recovered {
        let recovered = match self.world.try_open() {
            Ok(recovered) => recovered,
            Err(error) => panic!("{what}: {error}"),
        };
        let expected = self.entries_of(seqs);
        assert_eq!(indices(&recovered), expected, "{what}: {:?}", recovered.faulty);
        let Content { start, .. } = self.content;
        assert_eq!((recovered.log_start, recovered.last), (start, self.content.last()), "{what}");
        assert_eq!(recovered.hard_state, self.hard_state, "{what}");
        for index in start.index + 1..=recovered.last.index {
            let read = self.world.read(index, index, 1);
            if expected.contains(&index) {
                let is_faulty = matches!(&read, Err(ReadError::Faulty(range))
                    if (range.first..=range.last).contains(&index));
                assert!(is_faulty, "{what}: {index}: {read:?}");
                let term = self.entry(index).term;
                let found = term_of(&recovered, index);
                assert!(found == term || found == TERM_UNKNOWN, "{what}: {index}");
            } else {
                assert_eq!(read.unwrap(), [self.entry(index)], "{what}");
                assert_eq!(term_of(&recovered, index), self.entry(index).term, "{what}");
            }
        }
        for range in &recovered.faulty {
            let known = |at: Position| self.content.term_at(at.index) == Some(at.term);
            assert!(known(range.before) && known(range.after), "{what}: {range:?}");
            assert!(range.before.index < range.first && range.after.index >= range.last);
        }
        assert_eq!(self.world.engine().status().faulty, expected.len() as u64);
        recovered
    }

    /// The error of an open that is refused for a damaged frame, whatever the options say.
    fn refused(&mut self, what: &str) -> engine::Damage {
        match self.world.try_open() {
            Err(OpenError::Damaged { damage, .. }) => *damage,
            Err(error) => panic!("{what}: {error}"),
            Ok(recovered) => panic!("{what}: opened with {:?}", recovered.faulty),
        }
    }
}

fn indices(recovered: &Recovered) -> Vec<u64> {
    recovered.faulty.iter().flat_map(|range| range.first..=range.last).collect()
}

fn term_of(recovered: &Recovered, index: u64) -> u64 {
    let run = recovered.terms.iter().rev().find(|run| run.1 <= index);
    run.unwrap().0
}

/// Three segments; frames of one entry and of many, of one block and of several; votes and notes between them.
fn adding() -> Subject {
    let mut world = World::opened(81);
    for (segment, term) in [1, 2, 4].into_iter().enumerate() {
        world.vote(term, 2);
        world.append_entries(term, 3, 700);
        world.settle();
        world.append_entries(term, 1, 9_000);
        world.settle();
        world.append_entries(term + 1, 2, 0);
        world.append_entries(term + 1, 40, 30);
        world.settle();
        if segment < 2 {
            world.open_and_check("rolls");
        }
    }
    Subject::new(world)
}

/// Bytes of every region of a frame: each field of the header, the table, the payloads.
fn regions(frame: &OnDisk) -> Vec<u64> {
    let header =
        [0, 4, 9, 17, 25, 33, 37, 41, 45, 49, 52, 54, 55, 57, 65, 73, 81, 89, 97, 105, 113];
    let mut regions: Vec<u64> = header.into_iter().chain([121]).collect();
    regions.extend([128, 133, 137, 145, 152, frame.used - 1]);
    regions.retain(|byte| *byte < frame.used);
    regions
}

fn data_seqs(subject: &Subject) -> Vec<u64> {
    let has_entries = |frame: &&OnDisk| !frame.entries.is_empty();
    subject.frames.iter().filter(has_entries).map(|frame| frame.seq).collect()
}

#[test]
fn damage_to_any_region_of_any_frame_hands_up_its_entries_and_nothing_else() {
    let mut subject = adding();
    let seqs = data_seqs(&subject);
    assert!(seqs.len() >= 9, "{}", seqs.len());
    for seq in seqs {
        let frame = subject.frame(seq).clone();
        for byte in regions(&frame) {
            subject.restore();
            subject.flip(seq, byte);
            let what = format!("frame {seq} byte {byte}");
            let recovered = subject.open_with_faulty(&[seq], &what);
            let [range] = &recovered.faulty[..] else { panic!("{what}: {:?}", recovered.faulty) };
            let damage = &range.hole.damage;
            assert_eq!((damage.slot, damage.offset, damage.seq), (frame.slot, frame.offset, seq));
            assert_eq!((range.hole.end, range.hole.last_seq), (frame.offset + frame.bytes, seq));
            assert_eq!(damage.indices, Some((range.first, range.last)));
            assert!(damage.proof.is_some());
            // Payloads alone are damaged: the table tells every term.
            if byte == frame.used - 1 && !frame.entries.is_empty() && frame.used > 200 {
                assert!(range.terms.iter().all(|run| run.0 != TERM_UNKNOWN), "{what}");
            }
            subject.world.disk.kill();
        }
    }
}

#[test]
fn a_directory_with_faulty_entries_is_refused_unless_they_are_asked_for() {
    let mut subject = adding();
    subject.world.options.on_damage = OnDamage::Refuse;
    for seq in data_seqs(&subject) {
        let frame = subject.frame(seq).clone();
        for byte in [4, 130, frame.used - 1] {
            subject.restore();
            subject.flip(seq, byte);
            let damage = subject.refused(&format!("frame {seq} byte {byte}"));
            assert_eq!((damage.slot, damage.offset, damage.seq), (frame.slot, frame.offset, seq));
            let (first, last) = damage.indices.unwrap();
            let held: Vec<u64> = (first..=last).collect();
            assert_eq!(held, subject.entries_of(&[seq]));
        }
    }
}

#[test]
fn frames_in_a_row_are_one_hole_and_one_for_each_segment_that_they_lie_in() {
    let mut subject = adding();
    let all: Vec<u64> = subject.frames.iter().map(|frame| frame.seq).collect();
    let mut borders = 0;
    for count in 2..=6 {
        for row in all.windows(count) {
            if row.contains(all.last().unwrap()) {
                // The note that promises the last frame: without it that is a torn tail.
                continue;
            }
            for lose in [false, true] {
                subject.restore();
                for seq in row {
                    if lose { subject.lose(*seq) } else { subject.flip(*seq, 4) }
                }
                let what = format!("frames {row:?}, {lose}");
                let recovered = subject.open_with_faulty(row, &what);
                let slots: std::collections::BTreeSet<u32> =
                    row.iter().map(|seq| subject.frame(*seq).slot).collect();
                assert_eq!(recovered.report.holes.len(), slots.len(), "{what}");
                borders += u32::from(slots.len() > 1);
                subject.world.disk.kill();
            }
        }
    }
    assert!(borders >= 20, "{borders}");
}

#[test]
fn two_holes_of_one_segment_are_told_apart() {
    let mut subject = adding();
    let all = data_seqs(&subject);
    for (at, first) in all.iter().enumerate() {
        for second in &all[at + 1..] {
            subject.restore();
            subject.flip(*first, 20);
            subject.lose(*second);
            let what = format!("frames {first} and {second}");
            let recovered = subject.open_with_faulty(&[*first, *second], &what);
            assert_eq!(recovered.report.holes.len(), 2, "{what}");
            subject.world.disk.kill();
        }
    }
}

/// Entries of a second leader replace some of the first one's, in one frame or in two; then it goes on.
fn replacing() -> Subject {
    let mut world = World::opened(82);
    world.append_entries(1, 6, 300);
    world.settle();
    world.append_entries(1, 4, 300);
    world.settle();
    world.append_after(7, 2, 2, 300);
    world.settle();
    world.append_entries(2, 3, 300);
    world.settle();
    Subject::new(world)
}

#[test]
fn a_hole_in_which_entries_were_replaced_is_handed_up_only_if_its_table_tells_which() {
    let mut subject = replacing();
    let replacing = subject.frames.iter().find(|frame| frame.replaces).unwrap().clone();
    subject.flip(replacing.seq, replacing.used - 1);
    subject.open_with_faulty(&[replacing.seq], "its payload");
    subject.world.disk.kill();
    for byte in [4, 76, 130] {
        subject.restore();
        subject.flip(replacing.seq, byte);
        let damage = subject.refused(&format!("byte {byte}"));
        assert_eq!((damage.offset, damage.seq), (replacing.offset, replacing.seq));
    }
    // Together with those behind it: entry 8 of the first leader would be taken for one of the log.
    let after: Vec<u64> =
        subject.frames.iter().map(|frame| frame.seq).filter(|seq| *seq > replacing.seq).collect();
    subject.restore();
    subject.flip(replacing.seq, 4);
    subject.flip(after[0], 4);
    subject.flip(after[1], 4);
    assert_eq!(subject.refused("in a row").seq, replacing.seq);
}

#[test]
fn a_hole_whose_entries_have_all_been_replaced_takes_nothing_from_the_log() {
    let mut world = World::opened(83);
    world.append_entries(1, 5, 100);
    world.settle();
    world.append_entries(1, 3, 100);
    world.settle();
    world.append_after(5, 2, 4, 100);
    world.settle();
    let mut subject = Subject::new(world);
    let replaced = data_seqs(&subject)[1];
    for on_damage in [OnDamage::HandUp, OnDamage::Refuse] {
        subject.world.options.on_damage = on_damage;
        for byte in [4, 130] {
            subject.restore();
            subject.flip(replaced, byte);
            let recovered = subject.open_with_faulty(&[], "replaced");
            let [(hole, fate)] = &recovered.report.holes[..] else { panic!("{recovered:?}") };
            assert_eq!((hole.damage.seq, *fate), (replaced, HoleFate::Unneeded));
            assert!(recovered.report.to_string().contains("the log needs nothing of it"));
            subject.world.disk.kill();
        }
    }
    // Half of another one was replaced: the rest of it is faulty.
    let mut world = World::opened(84);
    world.append_entries(1, 5, 100);
    world.settle();
    world.append_after(3, 2, 4, 100);
    world.settle();
    let mut subject = Subject::new(world);
    let half = data_seqs(&subject)[0];
    subject.flip(half, 4);
    let recovered = subject.open_with_faulty(&[half], "half of it");
    assert_eq!(indices(&recovered), [1, 2, 3]);
    assert_eq!(recovered.terms, [(TERM_UNKNOWN, 1), (2, 4)]);
}

#[test]
fn a_lost_note_or_vote_behind_which_the_log_goes_on_takes_nothing_from_it() {
    let mut subject = adding();
    subject.world.options.on_damage = OnDamage::Refuse;
    let last = subject.frames.last().unwrap().seq;
    let empty: Vec<u64> = subject
        .frames
        .iter()
        .filter(|frame| frame.entries.is_empty() && frame.seq != last)
        .map(|frame| frame.seq)
        .collect();
    assert!(empty.len() >= 6);
    for seq in empty {
        subject.restore();
        subject.flip(seq, 4);
        let recovered = subject.open_with_faulty(&[], "a note or a vote");
        assert_eq!(recovered.report.holes.len(), 1);
        subject.world.disk.kill();
    }
}

#[test]
fn damage_that_nothing_behind_it_describes_is_refused() {
    let mut world = World::opened(85);
    world.options.note_after_us = 1 << 40;
    world.open_and_check("without notes");
    world.append_entries(1, 4, 100);
    world.turn_until("durable", |world| world.oracle.is_settled());
    let at = world.oracle.certain().last();
    world.checkpoint(at, engine::CheckpointOrigin::Local, 10).unwrap();
    let image = world.disk.snapshot();
    let mut subject = Subject::new(world);
    // Before time went by, and a note with it.
    subject.sound = image;
    subject.restore();
    let [seq] = data_seqs(&subject)[..] else { panic!("one frame") };
    // The checkpoint alone promises it, or a frame of the same number in a segment whose header is lost.
    for byte in [4, 20, 130, 200] {
        subject.restore();
        subject.flip(seq, byte);
        let damage = subject.refused("promised by a checkpoint");
        assert!(matches!(damage.proof, Some(engine::Proof::Checkpoint { .. })), "{damage}");
    }
    // The header of a segment: nothing states what its frames belong to.
    subject.restore();
    subject.world.disk.flip_bit("seg/00000000.seg", 100 * 8);
    assert!(subject.world.try_open().is_err());
}

/// Frame s had been durable, s + 1 was torn, s + 2 is whole and promises s. What describes the hole speaks of s + 1.
#[test]
fn a_hole_that_is_promised_in_part_is_refused() {
    let mut world = World::opened(86);
    world.options.note_after_us = 1 << 40;
    world.open_and_check("without notes");
    world.append_entries(1, 1, 500);
    world.turn_until("durable", |world| world.oracle.is_settled());
    for _ in 0..2 {
        world.append_entries(1, 1, 9_000);
        world.turn_now().unwrap();
    }
    assert_eq!(world.engine().in_flight(), 2);
    let torn = 4096 + 4096;
    world.disk.crash_with(|unsynced| match unsynced {
        Unsynced::Sector { offset, .. } if (torn..torn + 4096).contains(offset) => Fate::Old,
        Unsynced::Sector { .. } | Unsynced::Size { .. } | Unsynced::Entry { .. } => Fate::New,
    });
    let image = world.disk.snapshot();
    world.options.on_damage = OnDamage::HandUp;
    for byte in [4, 20, 100] {
        world.disk.restore(&image);
        world.disk.flip_bit("seg/00000000.seg", (4096 + byte) * 8);
        match world.try_open() {
            Err(OpenError::Damaged { damage, .. }) => assert_eq!(damage.seq, 1, "byte {byte}"),
            other => panic!("byte {byte}: {:?}", other.map(|recovered| recovered.faulty)),
        }
    }
    // Where its own header is whole, what follows is a torn tail as ever.
    world.disk.restore(&image);
    world.disk.flip_bit("seg/00000000.seg", (4096 + 300) * 8);
    let recovered = world.try_open().unwrap();
    assert_eq!((indices(&recovered), recovered.last.index), (vec![1], 1));
    assert_eq!(recovered.report.torn.map(|torn| torn.seq), Some(2));
}

/// A torn frame with a whole one behind it was cut, and the write that opened the next segment was lost: what promises
/// the lost frame has the number of the torn one. Taken for a hole, the torn one would have brought back what was cut.
#[test]
fn what_another_segment_promises_makes_no_hole_of_a_torn_tail() {
    for (votes, checkpoint) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::opened(88);
        world.options.note_after_us = 1 << 40;
        world.options.on_damage = OnDamage::HandUp;
        world.open_and_check("without notes");
        world.append_entries(1, 1, 500);
        world.turn_until("durable", |world| world.oracle.is_settled());
        world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
        if votes {
            world.vote(2, 1);
        } else {
            world.append_entries(2, 1, 100);
        }
        world.turn_now().unwrap();
        world.append_entries(2, 1, 9_000);
        world.turn_now().unwrap();
        assert_eq!(world.engine().in_flight(), 2);
        world.disk.crash_with(|unsynced| match unsynced {
            Unsynced::Sector { offset: 8_192, .. } => Fate::Old,
            Unsynced::Sector { .. } | Unsynced::Size { .. } | Unsynced::Entry { .. } => Fate::New,
        });
        let image = world.disk.snapshot();
        let recovered = world.open_and_check("cut");
        assert_eq!(
            (recovered.last.index, recovered.report.torn.map(|torn| torn.seq)),
            (1, Some(2))
        );
        // As before time went by, and a note with it.
        world.disk.restore(&image);
        world.options.note_after_us = 1 << 50;
        world.try_open().unwrap();
        world.turn_now().unwrap();
        world.turn_until("slots", |world| world.engine().status().slots_ready > 0);
        world.turn_until("quiet", |world| world.disk.in_flight() == 0);
        world.disk.lose_next_write();
        world.append_entries(3, 1, 100);
        world.turn_until("durable", |world| world.oracle.is_settled());
        if checkpoint {
            let at = world.oracle.certain().last();
            world.checkpoint(at, engine::CheckpointOrigin::Local, 10).unwrap();
        } else {
            world.append_entries(3, 1, 100);
            world.turn_until("durable", |world| world.oracle.is_settled());
        }
        for on_damage in [OnDamage::Refuse, OnDamage::HandUp] {
            world.options.on_damage = on_damage;
            match world.try_open() {
                Err(OpenError::Damaged { damage, .. }) => {
                    let what = format!("{votes} {checkpoint}: {damage}");
                    assert_eq!(damage.seq, 2, "{what}");
                }
                other => panic!("{votes} {checkpoint}: {:?}", other.map(|opened| opened.last)),
            }
        }
    }
}

/// A log in which frames of all three segments are damaged, opened.
fn damaged() -> (Subject, Vec<u64>) {
    let mut subject = adding();
    let all = data_seqs(&subject);
    let hit = vec![all[0], all[1], all[4], all[8]];
    subject.flip(hit[0], 4);
    subject.lose(hit[1]);
    subject.flip(hit[2], 140);
    let used = subject.frame(hit[3]).used;
    subject.flip(hit[3], used - 1);
    subject.sound = subject.world.disk.snapshot();
    subject.open_with_faulty(&hit, "damaged");
    let faulty = subject.entries_of(&hit);
    (subject, faulty)
}

fn repair(subject: &mut Subject, faulty: &[u64]) {
    let entries = faulty.iter().map(|index| subject.entry(*index)).collect();
    subject.world.repair(entries);
}

#[test]
fn repaired_entries_are_read_at_once_and_after_the_next_open_which_refuses_nothing() {
    let (mut subject, faulty) = damaged();
    repair(&mut subject, &faulty);
    subject.world.settle();
    let told =
        subject.world.events.iter().any(|event| matches!(event, Event::Repaired { faulty: 0 }));
    assert!(told, "{:?}", subject.world.events);
    assert!(subject.world.engine().faulty().is_empty());
    let last = subject.content.last().index;
    for first in 1..=last {
        let entries = subject.world.read(first, last, 1 << 20).unwrap();
        for (entry, index) in entries.iter().zip(first..) {
            assert_eq!(*entry, subject.content.entries[&index]);
        }
    }
    subject.world.options.on_damage = OnDamage::Refuse;
    for _ in 0..3 {
        let recovered = subject.world.open_and_check("repaired");
        assert_eq!(recovered.report.holes.len(), 4, "{}", recovered.report);
        let is_repaired = |(_, fate): &(_, HoleFate)| *fate == HoleFate::Repaired;
        assert!(recovered.report.holes.iter().all(is_repaired));
        let term = recovered.last.term;
        subject.world.append_entries(term, 1, 100);
        subject.world.settle();
    }
    let inspected = verify(subject.world.disk.handle(), Path::new("data")).unwrap();
    assert_eq!(inspected.recovered.report.holes.len(), 4);
    assert!(inspected.rotten.is_empty());
}

#[test]
fn a_crash_at_any_moment_of_a_repair_loses_nothing_and_what_was_acknowledged_is_repaired() {
    let mut repaired = 0;
    let mut operations = 0;
    loop {
        let (mut subject, faulty) = damaged();
        let entries: Vec<Entry> = faulty.iter().map(|index| subject.entry(*index)).collect();
        let half = entries.len() / 2;
        let ended = subject.world.with_power_for(operations, |world| {
            world.repair(entries[..half].to_vec());
            world.settle();
            world.repair(entries[half..].to_vec());
            world.settle();
        });
        let acknowledged = subject.world.oracle.is_settled() && ended;
        subject.world.options.on_damage = OnDamage::Refuse;
        match subject.world.try_open() {
            Ok(recovered) => {
                subject.world.check(&recovered, "repaired");
                repaired += 1;
            }
            Err(OpenError::Damaged { .. }) if !acknowledged => {
                subject.world.options.on_damage = OnDamage::HandUp;
                let recovered = subject.world.try_open().unwrap();
                let left = indices(&recovered);
                assert!(left.iter().all(|index| faulty.contains(index)));
                // The rest of it, and then everything is there.
                repair(&mut subject, &left);
                subject.world.settle();
                subject.world.options.on_damage = OnDamage::Refuse;
                subject.world.open_and_check("repaired in the second attempt");
            }
            Err(error) => panic!("operation {operations}: {error}"),
        }
        if ended {
            break;
        }
        operations += 1;
    }
    assert!(operations >= 3 && repaired > 0, "{operations} {repaired}");
}

#[test]
fn a_torn_repair_is_cut_and_leaves_the_entries_faulty() {
    let (mut subject, faulty) = damaged();
    let image = subject.world.disk.snapshot();
    for sector in 0..16u64 {
        subject.world.disk.kill();
        subject.world.disk.restore(&image);
        subject.world.options.on_damage = OnDamage::HandUp;
        subject.world.try_open().unwrap();
        repair(&mut subject, &faulty);
        subject.world.turn_now().unwrap();
        let mut number = 0;
        subject.world.disk.crash_with(|unsynced| match unsynced {
            Unsynced::Sector { .. } => {
                number += 1;
                if number == sector + 9 { Fate::Garbage } else { Fate::New }
            }
            Unsynced::Size { .. } | Unsynced::Entry { .. } => Fate::New,
        });
        let recovered = subject.world.try_open().unwrap();
        let left = indices(&recovered);
        assert!(left.is_empty() || left == faulty, "sector {sector}: {left:?}");
    }
}

#[test]
fn a_repaired_entry_has_the_place_of_its_repair() {
    let (mut subject, faulty) = damaged();
    let sound = (1..=subject.content.last().index).find(|index| !faulty.contains(index)).unwrap();
    let place_of_sound = subject.world.engine().place(sound);
    assert!(place_of_sound.is_some());
    assert!(faulty.iter().all(|index| subject.world.engine().place(*index).is_none()));
    repair(&mut subject, &faulty);
    subject.world.settle();
    subject.world.options.on_damage = OnDamage::Refuse;
    for _ in 0..2 {
        for index in 1..=subject.content.last().index {
            let place = subject.world.engine().place(index).unwrap();
            let payload = subject.entry(index).payload;
            let path = format!("seg/{:08x}.seg", place.slot());
            let file = subject.world.disk.read_file(&path).unwrap();
            let start = usize::try_from(place.offset()).unwrap();
            assert!(file[start..].starts_with(&payload), "entry {index} at {place}");
        }
        assert_eq!(subject.world.engine().place(sound), place_of_sound);
        subject.world.open_and_check("repaired");
    }
}

#[test]
fn a_damaged_repair_leaves_the_entries_faulty_and_they_are_repaired_again() {
    let (mut subject, faulty) = damaged();
    repair(&mut subject, &faulty);
    subject.world.settle();
    subject.world.disk.kill();
    let newest = frames_of(&subject.world);
    let repair_frame = newest.iter().rev().find(|frame| frame.used > 128).unwrap();
    let path = format!("seg/{:08x}.seg", repair_frame.slot);
    for byte in [4, 130, repair_frame.used - 1] {
        let image = subject.world.disk.snapshot();
        subject.world.disk.flip_bit(&path, (repair_frame.offset + byte) * 8);
        let recovered = subject.world.try_open().unwrap();
        assert_eq!(indices(&recovered), faulty, "byte {byte}");
        repair(&mut subject, &faulty);
        subject.world.settle();
        subject.world.options.on_damage = OnDamage::Refuse;
        subject.world.open_and_check("repaired again");
        subject.world.options.on_damage = OnDamage::HandUp;
        subject.world.disk.kill();
        subject.world.disk.restore(&image);
    }
}

#[test]
fn a_lower_entry_replaces_faulty_ones_as_it_replaces_any() {
    for repaired in [false, true] {
        let (mut subject, faulty) = damaged();
        if repaired {
            repair(&mut subject, &faulty);
        }
        let middle = faulty[faulty.len() / 2];
        subject.world.append_after(middle - 1, 9, 3, 100);
        subject.world.settle();
        let left: Vec<u64> =
            faulty.iter().copied().filter(|index| *index < middle && !repaired).collect();
        assert_eq!(subject.world.engine().status().faulty, left.len() as u64);
        let recovered = subject.world.try_open().unwrap();
        assert_eq!(indices(&recovered), left, "{repaired}");
        assert_eq!(recovered.last, Position { index: middle + 2, term: 9 });
        if repaired {
            subject.world.check(&recovered, "replaced");
        }
        // All of them.
        subject.world.append_after(0, 10, 1, 100);
        subject.world.settle();
        subject.world.options.on_damage = OnDamage::Refuse;
        subject.world.open_and_check("everything is replaced");
    }
}

#[test]
fn checkpoints_make_faulty_and_repaired_entries_superfluous_and_their_slots_are_freed() {
    for repaired in [false, true] {
        let (mut subject, faulty) = damaged();
        if repaired {
            repair(&mut subject, &faulty);
        }
        let world = &mut subject.world;
        world.options.on_damage = OnDamage::Refuse;
        for round in 0..4 {
            world.append_entries(9, 2, 200_000);
            world.checkpoint_here();
            let status = world.engine().status();
            assert_eq!(status.faulty == 0, repaired || round > 0, "round {round}");
        }
        world.append_entries(9, 6, 200_000);
        world.checkpoint_here();
        world.append_entries(9, 1, 100);
        world.checkpoint_here();
        world.settle();
        let recovered = world.open_and_check("purged");
        assert!(recovered.log_start.index > *faulty.last().unwrap());
        assert!(recovered.report.segments <= 3, "{}", recovered.report);
        assert!(world.engine().status().slots_live <= 3);
    }
}

/// The device refused to give a block, and gives it again after the entry has been repaired.
#[test]
fn a_repair_of_what_is_sound_after_all_changes_nothing() {
    let mut subject = adding();
    let seq = data_seqs(&subject)[1];
    subject.flip(seq, 4);
    subject.open_with_faulty(&[seq], "damaged");
    let faulty = subject.entries_of(&[seq]);
    repair(&mut subject, &faulty);
    subject.world.settle();
    subject.world.disk.kill();
    subject.flip(seq, 4);
    subject.world.options.on_damage = OnDamage::Refuse;
    let recovered = subject.world.open_and_check("sound again");
    assert!(recovered.report.holes.is_empty());
    let place = subject.world.engine().place(faulty[0]).unwrap();
    let frame = subject.frame(seq);
    assert_eq!(place.slot(), frame.slot);
    assert!((frame.offset..frame.offset + frame.bytes).contains(&place.offset()));
}

/// Repairs that are large, many, over several frames and out of order, beside new entries.
#[test]
fn repairs_are_batched_like_entries_and_need_no_order() {
    let mut world = World::opened(87);
    for _ in 0..4 {
        world.append_entries(1, 20, 9_000);
        world.settle();
    }
    let mut subject = Subject::new(world);
    let hit: Vec<u64> = data_seqs(&subject).into_iter().step_by(2).collect();
    for seq in &hit {
        subject.flip(*seq, 140);
    }
    subject.open_with_faulty(&hit, "damaged");
    let mut faulty = subject.entries_of(&hit);
    assert!(faulty.len() > 20, "{}", faulty.len());
    faulty.reverse();
    let (one, other) = faulty.split_at(faulty.len() / 3);
    repair(&mut subject, other);
    subject.world.append_entries(1, 3, 9_000);
    repair(&mut subject, one);
    subject.world.settle();
    let frames = frames_of(&subject.world);
    assert!(frames.iter().all(|frame| frame.bytes <= 64 << 10));
    assert!(subject.world.engine().faulty().is_empty());
    subject.world.options.on_damage = OnDamage::Refuse;
    subject.world.open_and_check("repaired");
}

/// A block that the device refuses is no block that is absent.
#[test]
fn blocks_that_cannot_be_read_are_handed_up_as_damaged_ones_are() {
    let mut subject = adding();
    let blocks: Vec<(u32, u64)> = subject
        .frames
        .iter()
        .flat_map(|frame| {
            (frame.offset..frame.offset + frame.bytes).step_by(4096).map(|at| (frame.slot, at))
        })
        .collect();
    let (mut faulty, mut refused) = (0, 0);
    for seed in 0..2 * blocks.len() {
        subject.restore();
        for (slot, offset) in [blocks[seed % blocks.len()], blocks[seed * 7 % blocks.len()]] {
            subject.world.disk.refuse_page(&format!("seg/{slot:08x}.seg"), offset);
        }
        match subject.world.try_open() {
            Ok(recovered) => {
                assert_eq!(recovered.last, subject.content.last(), "seed {seed}");
                let found = indices(&recovered);
                faulty += u32::from(!found.is_empty());
                for index in 1..=recovered.last.index {
                    let read = subject.world.read(index, index, 1);
                    assert_eq!(read.is_err(), found.contains(&index), "seed {seed}: {read:?}");
                }
                repair(&mut subject, &found);
                subject.world.settle();
                subject.world.options.on_damage = OnDamage::Refuse;
                subject.world.open_and_check("what could not be read was repaired");
                subject.world.disk.mend();
                subject.world.open_and_check("what can be read again");
                subject.world.options.on_damage = OnDamage::HandUp;
            }
            Err(OpenError::Damaged { .. } | OpenError::Unreadable { .. }) => refused += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
        subject.world.disk.mend();
        subject.world.disk.kill();
    }
    assert!(faulty > 20 && refused > 2, "{faulty} {refused}");
}

/// An error of a read that does not come again has no effect, or refuses the directory: nothing is handed up for it.
#[test]
fn a_read_that_fails_once_makes_no_entry_faulty() {
    let mut subject = adding();
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..200 {
        subject.restore();
        subject.world.disk.reseed(seed);
        let errors = SimFaults { read_error_ppm: 60_000, ..SimFaults::none() };
        subject.world.disk.set_faults(errors);
        let result = subject.world.try_open();
        subject.world.disk.set_faults(SimFaults::none());
        match result {
            Ok(recovered) => {
                assert_eq!(recovered.last, subject.content.last(), "seed {seed}");
                assert!(recovered.faulty.is_empty(), "seed {seed}");
                opened += 1;
            }
            Err(
                OpenError::Damaged { .. }
                | OpenError::Unreadable { .. }
                | OpenError::Unsteady { .. },
            ) => refused += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
        subject.world.disk.kill();
    }
    assert!(opened > 100 && refused > 5, "{opened} {refused}");
}

/// Rot of a frame that had been durable, found after a power cut that has torn the frames in flight.
#[test]
fn rot_beside_a_torn_tail_changes_nothing_about_where_the_log_ends() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..300u64 {
        let mut world = World::opened(9_000 + seed);
        world.append_entries(1, 3, 200);
        world.settle();
        for round in 0..3 + seed % 6 {
            world.append_entries(1, 1 + round % 3, 4_000);
            world.turn_now().unwrap();
            if (seed + round) % 3 == 0 {
                world.turn().unwrap();
            }
        }
        world.disk.crash();
        world.options.on_damage = OnDamage::HandUp;
        let image = world.disk.snapshot();
        let frames = frames_of(&world);
        let sound = world.try_open().unwrap();
        let content = world.read_content(&sound);
        world.disk.kill();
        // Frames behind the torn one are none of the log.
        let is_in_log =
            |frame: &&OnDisk| frame.entries.last().is_some_and(|at| at.index <= sound.last.index);
        for frame in
            frames.iter().rev().filter(is_in_log).take(1 + usize::try_from(seed % 3).unwrap())
        {
            world.disk.restore(&image);
            let path = format!("seg/{:08x}.seg", frame.slot);
            let byte = [4, 130, frame.used - 1][usize::try_from(seed % 3).unwrap()];
            world.disk.flip_bit(&path, (frame.offset + byte) * 8);
            match world.try_open() {
                Ok(found) if found.last == sound.last => {
                    let held: Vec<u64> = frame.entries.iter().map(|at| at.index).collect();
                    assert_eq!(indices(&found), held, "seed {seed}");
                    for entry in content.entries.values() {
                        let read = world.read(entry.index, entry.index, 1);
                        match read {
                            Ok(entries) => assert_eq!(entries, std::slice::from_ref(entry)),
                            Err(_) => assert!(held.contains(&entry.index), "seed {seed}"),
                        }
                    }
                    opened += 1;
                }
                // Nobody had promised it: the frame that would have was in flight.
                Ok(found) => {
                    assert!(found.last.index < frame.entries[0].index, "seed {seed}");
                    assert!(frames.iter().all(|other| other.durable_seq < frame.seq));
                }
                Err(OpenError::Damaged { damage, .. }) => {
                    assert_eq!(damage.seq, frame.seq, "seed {seed}");
                    refused += 1;
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            world.disk.kill();
        }
    }
    assert!(opened > 100 && refused > 0, "{opened} {refused}");
}

#[test]
#[should_panic(expected = "is not faulty")]
fn a_repair_of_an_entry_that_is_sound_is_its_callers_mistake() {
    let (mut subject, faulty) = damaged();
    let last = subject.content.last().index;
    let sound = (1..=last).find(|index| !faulty.contains(index)).unwrap();
    repair(&mut subject, &[sound]);
}

#[test]
#[should_panic(expected = "is being replaced")]
fn a_repair_of_an_entry_that_is_about_to_be_replaced_is_its_callers_mistake() {
    let (mut subject, faulty) = damaged();
    subject.world.append_after(faulty[0] - 1, 9, 1, 10);
    repair(&mut subject, &faulty);
}

/// Random logs, random damage: whatever is opened differs from the sound log by exactly the entries of the frames that
/// were hit.
#[test]
fn random_damage_is_handed_up_exactly_or_refused() {
    let (mut opened, mut refused) = (0, 0);
    for seed in 0..60u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        };
        let mut world = World::opened(8_000 + seed);
        let mut term = 1;
        for _ in 0..4 + draw(10) {
            match draw(8) {
                0 => {
                    world.open_and_check("rolls");
                }
                1 => {
                    term += 1;
                    world.vote(term, 1 + draw(3));
                }
                2 => {
                    term += 1;
                    let kept = world.checkpoint.map_or(0, |info| info.at.index);
                    let last = world.engine().status().last.index;
                    let after = last.saturating_sub(1 + draw(3)).max(kept);
                    world.append_after(after, term, 1 + draw(3), 200);
                }
                3 if world.checkpoint.is_none_or(|info| info.at < world.oracle.newest().last()) => {
                    if world.oracle.newest().last().index > 0 {
                        world.checkpoint_here();
                    }
                }
                _ => {
                    let bytes = [0, 60, 5_000, 20_000][usize::try_from(draw(4)).unwrap()];
                    world.append_entries(term, 1 + draw(4), bytes);
                }
            }
            if draw(3) > 0 {
                world.settle();
            }
        }
        world.settle();
        let mut subject = Subject::new(world);
        let all: Vec<OnDisk> = subject.frames.clone();
        let Some((_, promised)) = all.split_last() else { continue };
        if promised.is_empty() {
            continue;
        }
        for _ in 0..12 {
            subject.restore();
            let mut hit = Vec::new();
            for _ in 0..=draw(3) {
                let frame = &promised[usize::try_from(draw(promised.len() as u64)).unwrap()];
                if hit.contains(&frame.seq) {
                    continue;
                }
                match draw(3) {
                    0 => subject.lose(frame.seq),
                    1 => subject.flip(frame.seq, draw(128)),
                    _ => {
                        let regions = regions(frame);
                        let at = usize::try_from(draw(regions.len() as u64)).unwrap();
                        subject.flip(frame.seq, regions[at]);
                    }
                }
                hit.push(frame.seq);
            }
            let what = format!("seed {seed}, frames {hit:?}");
            match subject.world.try_open() {
                Ok(_) => {
                    subject.world.disk.kill();
                    subject.open_with_faulty(&hit, &what);
                    opened += 1;
                }
                Err(OpenError::Damaged { .. }) => {
                    let replaces = |seq: &u64| subject.frame(*seq).replaces;
                    assert!(hit.iter().any(replaces), "{what}: refused without need");
                    refused += 1;
                }
                Err(error) => panic!("{what}: {error}"),
            }
            subject.world.disk.kill();
        }
    }
    assert!(opened > 300 && refused > 10, "{opened} opened, {refused} refused");
}
