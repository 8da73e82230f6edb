//! One segment, one checkpoint, and every bit of them.

use std::ops::Range;

use super::checkpoint::CheckpointCheck;
use super::segment::SegmentCheck;
use super::{Bytes, PIECE_BYTES};
use crate::checkpoint::CheckpointHeader;
use crate::error::{Check, Damage, Proof};
use crate::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::frame::LogTag;
use crate::fuzzing::{World, small_options};
use crate::io::FileId;
use crate::io::simulated::SimFaults;
use crate::recovery::Segment;
use crate::retained::Kept;
use crate::scan::{Scan, Scanner};
use crate::segment::{Head, SegmentHeader};
use crate::types::Meta;

/// A slot with one segment, and what is known of it.
struct Image {
    meta: Meta,
    bytes: Vec<u8>,
    scan: Scan,
    known: Segment,
}

/// As many frames as there are lengths, one entry each.
fn image(slot_bytes: u64, payloads: &[usize]) -> Image {
    let mut options = small_options();
    options.slot_bytes = slot_bytes;
    let mut world = World::new(7, options, SimFaults::none());
    world.open_and_check("a new directory");
    for bytes in payloads {
        world.append_entries(1, 1, *bytes);
        world.turn_until("durable", |world| world.oracle.is_settled());
    }
    let meta = world.engine().meta().clone();
    let bytes = world.disk.read_file("seg/00000000.seg").unwrap();
    let Head::Segment(header) = SegmentHeader::classify(&bytes, meta.log_id, 0, slot_bytes) else {
        panic!("it was opened");
    };
    let tag = LogTag::of(meta.log_id);
    let scan = Scanner::new(&header, tag, bytes.len() as u64, None).end(&bytes);
    assert!(scan.frames.len() >= payloads.len());
    let known = Segment {
        number: header.number,
        slot: 0,
        first_seq: header.first_seq,
        last_seq: scan.last_seq,
        last_crc: scan.last.crc,
        end: scan.end,
        has_records: true,
    };
    Image { meta, bytes, scan, known }
}

impl Image {
    fn check(&self, known: Option<Segment>, bytes: &[u8]) -> Vec<Damage> {
        let mut check = SegmentCheck::new(&self.meta, 0, known);
        let mut found = Vec::new();
        while let Some((offset, length)) = check.next_piece() {
            assert!(length <= PIECE_BYTES);
            check.take(&piece(bytes, offset, length), &mut found);
        }
        found
    }

    fn frames(&self) -> impl Iterator<Item = Range<usize>> {
        self.scan.frames.iter().map(|frame| {
            let start = usize::try_from(frame.offset).unwrap();
            start..start + frame.header.frame_bytes()
        })
    }

    /// What a checksum speaks for: the first sector, where the header's fields are, and of each frame what is not padding.
    fn verified(&self) -> Vec<Range<usize>> {
        let mut verified = Vec::new();
        verified.push(0..512);
        for frame in &self.scan.frames {
            let start = usize::try_from(frame.offset).unwrap();
            let records = self.scan.records_of(frame);
            verified.push(start..start + FRAME_HEADER_BYTES + records.len() * RECORD_HEADER_BYTES);
            let payload = |at: usize, bytes: usize| start + at..start + at + bytes;
            verified.extend(records.iter().map(|record| payload(record.start, record.bytes)));
        }
        verified
    }

    fn flipped(&self, bits: &[usize]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for bit in bits {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes
    }

    /// Where the frame, or the header, of this byte starts.
    fn start_of(&self, byte: usize) -> u64 {
        self.frames().find(|frame| frame.contains(&byte)).map_or(0, |frame| frame.start as u64)
    }
}

fn piece(bytes: &[u8], offset: u64, length: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap();
    Bytes { bytes: bytes[start..start + length].to_vec(), refused: Vec::new() }
}

#[test]
fn every_flipped_bit_of_a_segment_is_found_once_with_its_frame() {
    let image = image(1 << 20, &[60, 5_000, 1, 300, 60]);
    assert_eq!(image.check(Some(image.known), &image.bytes), []);
    let end = usize::try_from(image.known.end).unwrap();
    let verified = image.verified();
    let mut bytes = image.bytes.clone();
    for byte in 0..end {
        let is_verified = verified.iter().any(|range| range.contains(&byte));
        for bit in 0..8 {
            bytes[byte] ^= 1 << bit;
            let found = image.check(Some(image.known), &bytes);
            bytes[byte] ^= 1 << bit;
            let expected: &[u64] = if is_verified { &[image.start_of(byte)] } else { &[] };
            let offsets: Vec<u64> = found.iter().map(|damage| damage.offset).collect();
            assert_eq!(offsets, expected, "byte {byte} bit {bit}");
        }
    }
}

/// What nobody promises may be a write that was never acknowledged, as for an open.
#[test]
fn where_no_end_is_known_a_flipped_bit_is_found_if_a_later_frame_promises_its_frame() {
    let image = image(1 << 20, &[60, 5_000, 1, 300, 60]);
    assert_eq!(image.check(None, &image.bytes), []);
    let promised = image.scan.frames.last().unwrap().header.durable_seq;
    let (mut found_count, mut end_count) = (0, 0);
    for (at, frame) in image.frames().enumerate() {
        let seq = image.scan.frames[at].header.seq;
        for bit in [3, FRAME_HEADER_BYTES * 8 - 1, FRAME_HEADER_BYTES * 8 + 5] {
            let found = image.check(None, &image.flipped(&[frame.start * 8 + bit]));
            if seq > promised || image.scan.records_of(&image.scan.frames[at]).is_empty() {
                end_count += 1;
                continue;
            }
            let [damage] = &found[..] else { panic!("frame {seq}: {found:?}") };
            assert_eq!((damage.offset, damage.seq), (frame.start as u64, seq));
            assert!(matches!(damage.proof, Some(Proof::LaterFrame { .. })), "{damage}");
            assert_eq!(damage.indices, Some(image.scan.frames[at].header.indices()));
            found_count += 1;
        }
    }
    assert!(found_count > 0 && end_count > 0, "{found_count} {end_count}");
    let header = image.check(None, &image.flipped(&[1_000]));
    assert_eq!(header.iter().map(|damage| damage.offset).collect::<Vec<u64>>(), [0]);
}

#[test]
fn damage_of_every_frame_is_found_behind_that_of_the_header_and_of_each_other() {
    let image = image(1 << 20, &[60, 5_000, 1, 300, 60, 4_000]);
    let records: Vec<usize> = image
        .scan
        .frames
        .iter()
        .filter(|frame| !image.scan.records_of(frame).is_empty())
        .map(|frame| usize::try_from(frame.offset).unwrap())
        .collect();
    let bodies: Vec<usize> = records.iter().map(|start| (start + FRAME_HEADER_BYTES) * 8).collect();
    let found = image.check(Some(image.known), &image.flipped(&bodies));
    assert_eq!(found.len(), bodies.len());
    // With the segment's header gone the first frame's own header tells which life it is.
    let with_header: Vec<usize> = bodies.iter().copied().chain([100]).collect();
    let found = image.check(Some(image.known), &image.flipped(&with_header));
    assert_eq!(found.len(), with_header.len());
    // Headers that are bad leave the next sound one to go on from.
    let others: Vec<usize> = records.iter().step_by(2).map(|start| start * 8).collect();
    let found = image.check(Some(image.known), &image.flipped(&others));
    let offsets: Vec<usize> =
        found.iter().map(|damage| usize::try_from(damage.offset).unwrap() * 8).collect();
    assert_eq!(offsets, others);
}

#[test]
fn frames_longer_than_a_piece_are_checked_whole() {
    let image = image(4 << 20, &[700_000, 900_000, 10, 300_000]);
    assert_eq!(image.check(Some(image.known), &image.bytes), []);
    assert_eq!(image.check(None, &image.bytes), []);
    for range in image.verified() {
        for byte in range.clone().step_by(60_000).chain([range.end - 1]) {
            let found = image.check(Some(image.known), &image.flipped(&[byte * 8 + 1]));
            assert_eq!(found.len(), 1, "byte {byte}: {found:?}");
            assert_eq!(found[0].offset, image.start_of(byte));
        }
    }
}

#[test]
fn a_life_that_is_not_the_one_looked_for_and_a_wrong_last_frame_are_damage() {
    let image = image(1 << 20, &[60, 60]);
    let other = Segment { number: image.known.number + 1, ..image.known };
    let found = image.check(Some(other), &image.bytes);
    assert_eq!((found[0].offset, found[0].check), (0, Check::Salt));
    let last = image.frames().last().unwrap().start as u64;
    let other = Segment { last_crc: image.known.last_crc ^ 1, ..image.known };
    let found = image.check(Some(other), &image.bytes);
    let [Damage { offset, check: Check::Chain, .. }] = found[..] else { panic!("{found:?}") };
    assert_eq!(offset, last);
}

#[test]
fn a_block_that_cannot_be_read_behind_the_last_frame_of_an_unknown_end_is_named() {
    let image = image(1 << 20, &[60, 60]);
    let mut check = SegmentCheck::new(&image.meta, 0, None);
    let mut found = Vec::new();
    let refused = 900_000 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    while let Some((offset, length)) = check.next_piece() {
        let mut piece = piece(&image.bytes, offset, length);
        let is_here = (offset..offset + length as u64).contains(&refused);
        piece.refused.extend(is_here.then_some(refused));
        check.take(&piece, &mut found);
    }
    let [Damage { offset, check: Check::Unreadable, .. }] = found[..] else { panic!("{found:?}") };
    assert_eq!(offset, refused);
}

/// A checkpoint with a body of so many bytes.
fn checkpoint(body_bytes: usize) -> (Meta, Kept, Vec<u8>) {
    let mut world = World::opened(8);
    world.append_entries(1, 3, 100);
    world.settle();
    let at = world.oracle.certain().last();
    let origin = crate::CheckpointOrigin::Local;
    let info = world.checkpoint(at, origin, body_bytes).unwrap();
    let meta = world.engine().meta().clone();
    let bytes = world.disk.read_file(&crate::format::checkpoint_path(at.index)).unwrap();
    let (header, _) = CheckpointHeader::decode(&bytes, meta.log_id, u64::MAX).unwrap();
    let kept = Kept::new(info, header.salt, FileId(0), crate::types::ValueSlots::default());
    (meta, kept, bytes)
}

fn check_checkpoint(meta: &Meta, kept: &Kept, bytes: &[u8]) -> Vec<(u64, Check)> {
    let mut check = CheckpointCheck::new(meta, kept);
    let mut found = Vec::new();
    while let Some((offset, length)) = check.next_piece() {
        check.take(offset, &piece(bytes, offset, length), &mut found);
    }
    found
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_found_once_with_its_block() {
    let (meta, kept, mut bytes) = checkpoint(700);
    assert_eq!(check_checkpoint(&meta, &kept, &bytes), []);
    let (block, footer) = (BLOCK_BYTES, bytes.len() - BLOCK_BYTES);
    for byte in (0..block + 32 + 700).chain(footer..bytes.len()) {
        for bit in 0..8 {
            bytes[byte] ^= 1 << bit;
            let found = check_checkpoint(&meta, &kept, &bytes);
            bytes[byte] ^= 1 << bit;
            let [(offset, _)] = found[..] else { panic!("byte {byte} bit {bit}: {found:?}") };
            assert_eq!(offset, (byte / block * block) as u64, "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn every_damaged_block_of_a_checkpoint_is_found_behind_the_others() {
    let (meta, kept, bytes) = checkpoint(500_000);
    let starts =
        [0, 1, 3, 7].map(|block| if block == 0 { 0 } else { 4_096 + (block - 1) * 65_536 });
    let mut damaged = bytes.clone();
    for start in starts {
        damaged[start + 2_000] ^= 4;
    }
    let found: Vec<u64> =
        check_checkpoint(&meta, &kept, &damaged).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(found, starts.map(|start| start as u64));
    // Another checkpoint, sound by itself, is not this one.
    let (_, other, _) = checkpoint(700);
    let found = check_checkpoint(&meta, &other, &bytes);
    assert_eq!(found.first(), Some(&(0, Check::Address)));
}
