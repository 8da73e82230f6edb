//! Every cut and every flipped bit of a small log: an open finds the same as without it, or refuses and says where, or,
//! of the last frame and only where nobody had promised it, cuts that frame and says so. Never anything else.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use engine::fuzzing::{Content, World, small_options};
use engine::io::simulated::{SimDisk, SimFaults, SimImage};
use engine::{
    CheckpointOrigin, Damage, Dumped, FrameView, OpenError, Position, Proof, Recovered, dump,
};

const BLOCK: u64 = 4096;
/// Opens are many, and cost what their slots have.
const SLOT_BYTES: u64 = 64 << 10;
/// Later than any of these tests goes on.
const NEVER_US: u64 = 1 << 50;

/// A log that nobody writes any more, and what an open of it finds.
struct Sound {
    world: World,
    image: SimImage,
    content: Content,
    checkpoint: Option<Position>,
    /// Of each segment, in their order.
    segments: Vec<Segment>,
}

struct Segment {
    slot: u32,
    number: u64,
    frames: Vec<FrameView>,
}

impl Segment {
    fn path(&self) -> String {
        format!("seg/{:08x}.seg", self.slot)
    }

    /// The first byte after its last frame.
    fn end(&self) -> u64 {
        self.frames.last().map_or(BLOCK, |frame| frame.offset + frame.bytes as u64)
    }
}

impl Sound {
    fn of(mut world: World) -> Sound {
        world.disk.kill();
        let image = world.disk.snapshot();
        let segments = segments(&image);
        // A device that is full makes no slot: nothing but what is looked at costs time.
        world.disk.set_capacity(Some(world.disk.used_bytes()));
        let recovered = world.open_and_check("the sound log");
        assert!(recovered.report.torn.is_none());
        assert!(recovered.report.quarantined.is_empty());
        let content = world.read_content(&recovered);
        let checkpoint = recovered.checkpoint.map(|info| info.at);
        Sound { world, image, content, checkpoint, segments }
    }

    fn last(&self) -> &Segment {
        self.segments.last().unwrap()
    }

    /// Opens it after `damage`.
    fn open_after(&mut self, damage: impl FnOnce(&SimDisk)) -> Result<Recovered, OpenError> {
        self.world.disk.restore(&self.image);
        damage(&self.world.disk);
        self.world.try_open()
    }

    /// The log as it was with the frames that end at or before `upto` of the last segment, and no other of it.
    fn content_upto(&self, upto: u64) -> Content {
        let frames = &self.last().frames;
        let kept = frames.iter().take_while(|frame| frame.offset + frame.bytes as u64 <= upto);
        let before = &self.segments[self.segments.len() - 2];
        let last = kept.last().unwrap_or_else(|| before.frames.last().unwrap());
        let mut content = self.content.clone();
        content.entries.retain(|index, _| *index <= last.last.index);
        content.hard_state = last.hard_state;
        content
    }

    /// What is there: every entry, read back.
    fn content_of(&mut self, recovered: &Recovered) -> Content {
        self.world.read_content(recovered)
    }
}

fn segments(image: &SimImage) -> Vec<Segment> {
    let disk = SimDisk::new(1, SimFaults::none());
    disk.restore(image);
    let mut segments: Vec<Segment> = Vec::new();
    dump(disk.handle(), Path::new("data"), &mut |dumped| {
        match dumped {
            Dumped::Segment(view) => {
                let (slot, number) = (view.slot, view.number);
                segments.push(Segment { slot, number, frames: Vec::new() });
            }
            Dumped::Frame(frame) => segments.last_mut().unwrap().frames.push(frame),
            Dumped::Meta(_)
            | Dumped::Checkpoint(..)
            | Dumped::NoSegment(..)
            | Dumped::Record(_)
            | Dumped::Hole(_)
            | Dumped::End { .. } => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    segments
}

/// What the newest frame of a log is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// It holds entries and nobody has promised it.
    Data,
    /// It holds nothing but the promise of all before it.
    Note,
}

/// Three segments with an entry or two in each frame, a vote, and two checkpoints that the log reaches back to.
fn three_segments(last: Last) -> Sound {
    let mut world = World::new(81, small_options(), SimFaults::none());
    world.options.slot_bytes = SLOT_BYTES;
    world.options.note_after_us = NEVER_US;
    world.open_and_check("without notes");
    let ready = |world: &mut World| {
        world.turn_until("a slot", |world| world.engine().status().slots_ready > 0);
    };
    let append = |world: &mut World, term, count, bytes| {
        world.append_entries(term, count, bytes);
        world.turn_until("durable", |world| world.oracle.is_settled());
    };
    for _ in 0..2 {
        append(&mut world, 1, 1, 200);
        let at = world.oracle.certain().last();
        world.checkpoint(at, CheckpointOrigin::Local, 300).unwrap();
        ready(&mut world);
    }
    world.vote(2, 3);
    append(&mut world, 2, 2, 70);
    world.open_and_check("an open rolls");
    append(&mut world, 2, 1, 500);
    ready(&mut world);
    if last == Last::Note {
        world.options.note_after_us = 5_000;
    }
    world.open_and_check("another one");
    append(&mut world, 2, 1, 600);
    world.vote(3, 1);
    append(&mut world, 3, 2, 300);
    if last == Last::Note {
        world.settle();
    }
    let sound = Sound::of(world);
    assert_eq!(sound.segments.len(), 3);
    assert_eq!(sound.content.entries.len(), 7, "the older checkpoint is at 1");
    let note = sound.last().frames.last().unwrap().is_note;
    assert_eq!(note, last == Last::Note);
    sound
}

/// Two segments in slots of 1 MiB; the last one has frames of one block and of several.
fn several_frames() -> Sound {
    let mut world = World::opened(82);
    world.append_entries(1, 2, 200);
    world.settle();
    world.turn_until("a slot", |world| world.engine().status().slots_ready > 0);
    world.open_and_check("an open rolls");
    for (term, count, bytes) in [(1, 1, 300), (1, 3, 1_500), (2, 2, 40)] {
        world.vote(term, 7 - term);
        world.append_entries(term, count, bytes);
        world.turn_until("durable", |world| world.oracle.is_settled());
    }
    world.settle();
    let sound = Sound::of(world);
    assert_eq!(sound.last().frames.len(), 4);
    sound
}

#[test]
fn a_slot_of_any_other_length_is_refused_by_its_name_and_length() {
    let mut sound = several_frames();
    let slot_bytes = sound.world.options.slot_bytes;
    let slots = sound.world.disk.files().iter().filter(|path| path.starts_with("seg/")).count();
    assert!(slots >= 2);
    let near = (0..3 * BLOCK).chain(slot_bytes - BLOCK..slot_bytes);
    let lengths: Vec<u64> = near.chain((0..slot_bytes).step_by(4093)).collect();
    for slot in 0..u32::try_from(slots).unwrap() {
        for length in lengths.iter().copied().chain([slot_bytes + 1, 2 * slot_bytes]) {
            let cut = |disk: &SimDisk| disk.set_len(&format!("seg/{slot:08x}.seg"), length);
            let Err(OpenError::SlotLength { slot: named, found, expected, .. }) =
                sound.open_after(cut)
            else {
                panic!("slot {slot} of {length} bytes is opened")
            };
            assert_eq!((named, found, expected), (slot, length, slot_bytes));
        }
    }
}

/// Bytes `x..` of a file become zeros, as if they had never been written.
fn zero_from(disk: &SimDisk, path: &str, x: u64) {
    let bytes = disk.read_file(path).unwrap().len() as u64;
    disk.set_len(path, x);
    disk.set_len(path, bytes);
}

/// The first byte from which on these are zeros anyhow.
fn used_upto(file: &[u8], bytes: Range<u64>) -> u64 {
    let [start, end] = [bytes.start, bytes.end].map(|at| usize::try_from(at).unwrap());
    let last = file[start..end].iter().rposition(|byte| *byte != 0).unwrap();
    bytes.start + last as u64 + 1
}

/// Likewise, of a frame.
fn content_end(file: &[u8], frame: &FrameView) -> u64 {
    used_upto(file, frame.offset..frame.offset + frame.bytes as u64)
}

#[test]
fn a_last_segment_that_is_zeros_from_any_byte_on_holds_the_frames_before_it() {
    let mut sound = several_frames();
    let (path, end) = (sound.last().path(), sound.last().end());
    let file = sound.world.disk.read_file(&path).unwrap();
    let header_end = used_upto(&file, 0..BLOCK);
    let frames = sound.last().frames.clone();
    let everywhere = (0..end + BLOCK).chain((end..sound.world.options.slot_bytes).step_by(4_099));
    let mut torn_count = 0;
    for x in everywhere {
        let recovered =
            sound.open_after(|disk| zero_from(disk, &path, x)).unwrap_or_else(|error| {
                panic!("zeros from {x}: {error}");
            });
        // A frame whose padding alone is cut is what it was.
        let cut = frames.iter().find(|frame| content_end(&file, frame) > x);
        let kept_upto = cut.map_or(end, |frame| frame.offset);
        let content = sound.content_of(&recovered);
        assert_eq!(content, sound.content_upto(kept_upto), "zeros from {x}");
        let torn = recovered.report.torn.map(|torn| (torn.slot, torn.offset, torn.seq));
        // A header without its frame is half of a write, too.
        let expected = cut
            .filter(|frame| if frame.offset == BLOCK { header_end <= x } else { frame.offset < x });
        let expected = expected.map(|frame| (sound.last().slot, frame.offset, frame.seq));
        assert_eq!(torn, expected, "zeros from {x}");
        torn_count += u32::from(torn.is_some());
    }
    assert!(torn_count > 2_000, "{torn_count} cuts tore a frame");
}

#[test]
fn zeros_where_a_checkpoint_or_a_note_promises_more_are_refused() {
    let mut world = World::opened(83);
    world.options.note_after_us = NEVER_US;
    world.open_and_check("without notes");
    for bytes in [100, 900, 2_000] {
        world.append_entries(1, 1, bytes);
        world.turn_until("durable", |world| world.oracle.is_settled());
    }
    let at = Position { index: 2, term: 1 };
    let info = world.checkpoint(at, CheckpointOrigin::Local, 10).unwrap();
    assert_eq!(info.durable_seq, 3, "everything that was durable when it was begun");
    let mut sound = Sound::of(world);
    let (path, end) = (sound.last().path(), sound.last().end());
    let file = sound.world.disk.read_file(&path).unwrap();
    let promised_end = content_end(&file, sound.last().frames.last().unwrap());
    for x in (0..promised_end).chain([promised_end, end]) {
        match sound.open_after(|disk| zero_from(disk, &path, x)) {
            Ok(recovered) => {
                assert!(x >= promised_end, "zeros from {x}");
                assert_eq!(sound.content_of(&recovered), sound.content, "zeros from {x}");
            }
            Err(OpenError::Damaged { damage, .. }) => {
                assert!(x < promised_end);
                assert!(matches!(damage.proof, Some(Proof::Checkpoint { index: 2, .. })));
                assert!(
                    damage.offset <= x.next_multiple_of(BLOCK).max(BLOCK),
                    "zeros from {x}: {damage}"
                );
            }
            Err(other) => panic!("zeros from {x}: {other}"),
        }
    }
}

/// Whether a refusal leads to the bytes that were damaged: it names their file, or the file and the place that they
/// spoke for.
fn names(error: &OpenError, segment: &Segment, byte: u64) -> bool {
    if let OpenError::SegmentMissing { number, .. } = error {
        return byte < BLOCK && *number == segment.number;
    }
    let OpenError::Damaged { damage, .. } = error else { return false };
    let Damage { slot, offset, proof, .. } = &**damage;
    let frame = segment.frames.iter().find(|frame| frame.offset == *offset);
    let is_in_it = frame.is_some_and(|frame| {
        (*offset..*offset + frame.bytes as u64).contains(&byte) && *slot == segment.slot
    });
    let lost_header = byte < BLOCK
        && matches!(proof, Some(Proof::OtherSlot { slot, .. }) if *slot == segment.slot);
    is_in_it || lost_header
}

/// Flips each bit of these bytes of a segment, one at a time. How many were refused and how many cut the last frame.
fn flip_segment(sound: &mut Sound, at: usize, bytes: Range<u64>) -> (u32, u32) {
    let is_last = at + 1 == sound.segments.len();
    let path = sound.segments[at].path();
    let last_frame = sound.segments[at].frames.last().unwrap().offset;
    let without_last = sound.content_upto(sound.last().frames.last().unwrap().offset);
    let (mut refused, mut cut) = (0, 0);
    for bit in bytes.start * 8..bytes.end * 8 {
        let byte = bit / 8;
        match sound.open_after(|disk| disk.flip_bit(&path, bit)) {
            Err(error) => {
                refused += 1;
                assert!(names(&error, &sound.segments[at], byte), "bit {bit} of {path}: {error}");
            }
            Ok(recovered) => {
                let content = sound.content_of(&recovered);
                assert_eq!(recovered.checkpoint.map(|info| info.at), sound.checkpoint);
                let Some(torn) = recovered.report.torn else {
                    assert_eq!(content, sound.content, "bit {bit} of {path}");
                    continue;
                };
                cut += 1;
                let place = (torn.slot, torn.offset);
                assert_eq!(place, (sound.segments[at].slot, last_frame), "bit {bit} of {path}");
                assert!(is_last && byte >= last_frame, "bit {bit} of {path}");
                assert_eq!(content, without_last, "bit {bit} of {path}");
            }
        }
    }
    (refused, cut)
}

/// Bits that count: of the header, table and payloads of each frame with records, not of the zeros that fill its last
/// block. A NOTE within the log says nothing that is not said elsewhere.
fn content_bits(sound: &Sound, at: usize) -> u32 {
    sound.world.disk.restore(&sound.image);
    let file = sound.world.disk.read_file(&sound.segments[at].path()).unwrap();
    let frames = sound.segments[at].frames.iter().filter(|frame| !frame.is_note);
    let bytes = frames.map(|frame| content_end(&file, frame) - frame.offset).sum::<u64>();
    u32::try_from(bytes * 8).unwrap()
}

#[test]
fn every_flipped_bit_of_the_first_segment_is_harmless_or_refused_with_its_place() {
    let mut sound = three_segments(Last::Note);
    let end = sound.segments[0].end();
    let (refused, cut) = flip_segment(&mut sound, 0, 0..end);
    assert!(refused >= content_bits(&sound, 0), "{refused} were refused");
    assert_eq!(cut, 0);
}

#[test]
fn every_flipped_bit_of_the_middle_segment_is_harmless_or_refused_with_its_place() {
    let mut sound = three_segments(Last::Note);
    let end = sound.segments[1].end();
    let (refused, cut) = flip_segment(&mut sound, 1, 0..end);
    assert!(refused >= 8 * 512 + content_bits(&sound, 1), "{refused} were refused");
    assert_eq!(cut, 0);
}

/// An engine that has been idle has a NOTE at its end: of the data before it nothing can be lost in silence, and in the
/// NOTE there is nothing to lose.
#[test]
fn every_flipped_bit_of_an_idle_log_s_last_data_is_refused_and_none_of_its_note_loses_anything() {
    let mut sound = three_segments(Last::Note);
    let frames = sound.last().frames.clone();
    let [.., data, note] = &frames[..] else { panic!("{frames:?}") };
    assert!(!data.is_note && note.is_note);
    let (refused, cut) = flip_segment(&mut sound, 2, 0..note.offset);
    assert!(refused >= 8 * 512, "{refused} were refused");
    assert_eq!(cut, 0);
    let (refused, cut) = flip_segment(&mut sound, 2, note.offset..note.offset + BLOCK);
    assert_eq!(
        (refused, cut),
        (0, 128 * 8),
        "the header of the note is cut, its padding is not looked at"
    );
}

#[test]
fn every_flipped_bit_of_a_last_frame_that_nobody_promised_cuts_that_frame_alone() {
    let mut sound = three_segments(Last::Data);
    let file = sound.world.disk.read_file(&sound.last().path()).unwrap();
    let last = *sound.last().frames.last().unwrap();
    let used = content_end(&file, &last) - last.offset;
    let (refused, cut) = flip_segment(&mut sound, 2, last.offset..last.offset + BLOCK);
    assert_eq!(refused, 0);
    assert!(u64::from(cut) >= (used - 16) * 8, "{cut} of {used} bytes");
    // What follows the last frame is not looked at: an open states where it ends.
    let unwritten = last.offset + BLOCK;
    assert_eq!(flip_segment(&mut sound, 2, unwritten..unwritten + 64), (0, 0));
}

#[test]
fn every_flipped_bit_of_a_checkpoint_leaves_the_log_and_is_reported() {
    let mut sound = three_segments(Last::Note);
    let older = "ckpt/0000000000000001.ckpt";
    let newest = "ckpt/0000000000000002.ckpt";
    for (path, left) in [(newest, 1), (older, 2)] {
        let bytes = sound.world.disk.read_file(path).unwrap().len() as u64;
        let mut reported = 0;
        for bit in 0..bytes * 8 {
            let recovered = sound.open_after(|disk| disk.flip_bit(path, bit)).unwrap();
            let content = sound.content_of(&recovered);
            assert!(content.start <= sound.content.start);
            assert_eq!(content.last(), sound.content.last(), "bit {bit} of {path}");
            assert_eq!(content.hard_state, sound.content.hard_state, "bit {bit} of {path}");
            assert!(
                sound.content.entries.iter().all(|(index, entry)| content.entries[index] == *entry)
            );
            match &recovered.report.quarantined[..] {
                [] => assert_eq!(recovered.checkpoint.map(|info| info.at), sound.checkpoint),
                [(aside, _)] => {
                    reported += 1;
                    assert!(aside.starts_with(path), "{aside}");
                    assert_eq!(recovered.checkpoint.map(|info| info.at.index), Some(left));
                }
                more => panic!("bit {bit} of {path}: {more:?}"),
            }
        }
        // Header and footer are read of both, the body of the newest one only.
        assert!(reported >= 2 * 4096 * 8, "{reported} of {bytes} bytes of {path}");
    }
}

#[test]
fn every_flipped_bit_of_meta_is_refused_by_name() {
    let mut sound = three_segments(Last::Note);
    let bytes = sound.world.disk.read_file("META").unwrap().len() as u64;
    for bit in 0..bytes * 8 {
        let error = sound.open_after(|disk| disk.flip_bit("META", bit)).unwrap_err();
        let is_named =
            matches!(error, OpenError::MetaDamaged { .. } | OpenError::MetaForeign { .. });
        assert!(is_named, "bit {bit}: {error}");
    }
}
