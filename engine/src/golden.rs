//! Bytes that must never change, tied to `docs/log-format.md`. `HOLDFAST_GOLDEN=write` writes them anew.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use crate::checkpoint::CheckpointHeader;
use crate::format::{BLOCK_BYTES, CHECKPOINT_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::frame::{
    FrameHeader, FrameKind, LogTag, Predecessor, Staged, decode_records, encode, padded_frame_bytes,
};
use crate::segment::{Head, SegmentHeader, ValidEnd};
use crate::types::{CheckpointInfo, Entry, HardState, Position};

const LOG_ID: u128 = u128::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const SLOT_BYTES: u64 = 64 << 20;
const PREV: Predecessor =
    Predecessor { crc: 0x4433_2211, first_index: 12, last: Position { index: 12, term: 3 } };

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        log_id: LOG_ID,
        slot: 3,
        number: 7,
        salt: 0x8877_6655_4433_2211,
        slot_bytes: SLOT_BYTES,
        epoch: 2,
        first_seq: 41,
        before: ValidEnd { number: 6, end: 0x9000, last_seq: 40, last_crc: PREV.crc },
        prev: PREV,
        hard_state: HardState { term: 3, vote: 2 },
        log_start: Position { index: 5, term: 1 },
    }
}

fn frame_header() -> FrameHeader {
    FrameHeader {
        salt: 0x8877_6655_4433_2211,
        seq: 41,
        durable_seq: 40,
        slot: 3,
        block: 1,
        body_bytes: 0,
        table_crc: 0,
        record_count: 0,
        kind: FrameKind::Data,
        hard_state: HardState { term: 4, vote: 1 },
        first_index: 0,
        last: Position { index: 20, term: 4 },
        prev: PREV,
    }
}

fn records() -> [Staged; 2] {
    let payload = Bytes::from_static(b"hello");
    let entry = Entry { index: 13, term: 3, kind: 1, payload };
    [Staged::Entry(entry), Staged::Reset(Position { index: 20, term: 4 })]
}

fn checkpoint_header() -> CheckpointHeader {
    let at = Position { index: 1_000, term: 3 };
    CheckpointHeader {
        log_id: LOG_ID,
        node: 1,
        info: CheckpointInfo {
            at,
            installed: false,
            body_bytes: 70_000,
            durable_seq: 40,
            slots_count: 3,
        },
        salt: 0x0102_0304_0506_0708,
        blocks_crc: 0xAABB_CCDD,
    }
}

/// Compares with the file and with the lines of the document that name it.
fn check(name: &str, bytes: &[u8]) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/golden").join(name);
    if std::env::var("HOLDFAST_GOLDEN").as_deref() == Ok("write") {
        fs::write(&path, bytes).unwrap();
    }
    assert!(fs::read(&path).unwrap() == bytes, "{name} has changed");
    let document = fs::read_to_string(root.join("../docs/log-format.md")).unwrap();
    let block = document.split(&format!("```hex {name}\n")).nth(1).unwrap();
    let shown = block.split("```").next().unwrap();
    assert_eq!(shown, dump(bytes), "docs/log-format.md does not show {name} as it is");
}

/// Sixteen bytes a line, lines of zeros left out.
fn dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (at, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0))
    {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(dump, "{:04x}  {}", at * 16, hex.join(" ")).unwrap();
    }
    dump
}

#[test]
fn a_segment_header_is_what_it_has_always_been() {
    let mut block = vec![0xFF; SEGMENT_HEADER_BYTES];
    segment_header().encode_into(&mut block);
    check("segment-header.bin", &block);
    let head = SegmentHeader::classify(&block, LOG_ID, 3, SLOT_BYTES);
    assert_eq!(head, Head::Segment(segment_header()));
}

#[test]
fn a_frame_is_what_it_has_always_been() {
    let tag = LogTag::of(LOG_ID);
    let body: usize = records().iter().map(Staged::body_bytes).sum();
    let mut frame = vec![0xFF; padded_frame_bytes(body)];
    let mut header = frame_header();
    encode(tag, &mut header, &records(), &mut frame);
    assert_eq!(frame.len(), BLOCK_BYTES);
    check("frame.bin", &frame);
    let (decoded, _) = FrameHeader::decode(tag, &frame).unwrap();
    assert_eq!(decoded, header);
    assert_eq!(decode_records(&decoded, &frame).unwrap().len(), 2);
}

#[test]
fn a_checkpoint_header_is_what_it_has_always_been() {
    let mut block = vec![0xFF; CHECKPOINT_HEADER_BYTES];
    let checksum = checkpoint_header().encode_into(&mut block);
    check("checkpoint-header.bin", &block);
    let decoded = CheckpointHeader::decode(&block, LOG_ID, 1 << 30);
    assert_eq!(decoded, Ok((checkpoint_header(), checksum)));
}

#[test]
fn the_documents_tables_have_no_gap_and_no_overlap() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("../docs/log-format.md")).unwrap();
    let mut totals = Vec::new();
    let mut end = None;
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match (cells.get(1).map(|cell| cell.parse::<u64>()), cells.get(2)) {
            (Some(Ok(offset)), Some(size)) => {
                assert_eq!(end.unwrap_or(0), offset, "{line}");
                end = Some(offset + size.parse::<u64>().unwrap());
            }
            _ => totals.extend(end.take()),
        }
    }
    assert_eq!(totals, [128, 4096, 128, 32, 4096, 32, 4096]);
}
