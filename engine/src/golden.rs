//! Bytes that must never change, tied to `docs/log-format.md`. `HOLDFAST_GOLDEN=write` writes them anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::checkpoint::{CheckpointHeader, seal_block};
use crate::codec::crc;
use crate::format::*;
use crate::frame::{
    FrameHeader, FrameKind, LogTag, Predecessor, Record, RecordKind, Staged, decode_records,
    encode, padded_frame_bytes,
};
use crate::io::simulated::{SimDisk, SimFaults};
use crate::meta;
use crate::opening::open;
use crate::options::Options;
use crate::segment::{Head, SegmentHeader, SegmentKind, ValidEnd};
use crate::types::{Append, CheckpointInfo, Entry, Event, HardState, Identity, Meta, Position};
use crate::value_batch::{ValueBatch, values_in};

const LOG_ID: u128 = u128::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const SLOT_BYTES: u64 = 64 << 20;
const PREV: Predecessor = Predecessor {
    crc: 0x4433_2211,
    first_index: 12,
    last: Position { index: 12, term: 3 },
    replaced_seq: 33,
};

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        log_id: LOG_ID,
        slot: 3,
        kind: SegmentKind::Log,
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
        replaces: true,
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
            keeps_after: Position { index: 900, term: 2 },
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
    let document = document();
    let block = document.split(&format!("```hex {name}\n")).nth(1).unwrap();
    let shown = block.split("```").next().unwrap();
    assert_eq!(shown, dump(bytes), "docs/log-format.md does not show {name} as it is");
}

fn document() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("../docs/log-format.md")).unwrap()
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
fn a_frame_of_values_is_what_it_has_always_been() {
    let tag = LogTag::of(LOG_ID);
    let mut batch = ValueBatch::default();
    batch.push(b"key", b"value", crc(b"value"));
    let records = [Staged::Values(batch.take())];
    let mut frame = vec![0xFF; padded_frame_bytes(records[0].body_bytes())];
    let mut header = FrameHeader {
        seq: 2,
        durable_seq: 1,
        kind: FrameKind::Values,
        replaces: false,
        hard_state: HardState::default(),
        last: Position::default(),
        prev: Predecessor { crc: PREV.crc, ..Predecessor::default() },
        ..frame_header()
    };
    encode(tag, &mut header, &records, &mut frame);
    check("values-frame.bin", &frame);
    let (decoded, _) = FrameHeader::decode(tag, &frame).unwrap();
    let records = decode_records(&decoded, &frame).unwrap();
    let payload = &frame[records[0].start..records[0].start + records[0].bytes];
    let values: Vec<_> = values_in(payload).map(Result::unwrap).collect();
    assert_eq!((values.len(), values[0].key, values[0].value), (1, &b"key"[..], &b"value"[..]));
}

#[test]
fn a_repair_is_what_it_has_always_been() {
    let tag = LogTag::of(LOG_ID);
    let entry = Entry { index: 9, term: 3, kind: 2, payload: Bytes::from_static(b"again") };
    let records = [Staged::Repair(entry)];
    let mut frame = vec![0xFF; padded_frame_bytes(records[0].body_bytes())];
    let last = Position { index: 20, term: 4 };
    let prev = Predecessor { crc: 0x8877_6655, first_index: 0, last, replaced_seq: 41 };
    let mut header = FrameHeader {
        seq: 60,
        durable_seq: 59,
        block: 17,
        replaces: false,
        last,
        prev,
        ..frame_header()
    };
    encode(tag, &mut header, &records, &mut frame);
    check("repair-frame.bin", &frame);
    let (decoded, _) = FrameHeader::decode(tag, &frame).unwrap();
    assert_eq!(decoded, header);
    let at = Position { index: 9, term: 3 };
    let start = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES;
    let record = Record { kind: RecordKind::Repair(2), at, start, bytes: 5 };
    assert_eq!(decode_records(&decoded, &frame), Ok(vec![record]));
}

#[test]
fn a_checkpoint_header_is_what_it_has_always_been() {
    let mut block = vec![0xFF; CHECKPOINT_HEADER_BYTES];
    let checksum = checkpoint_header().encode_into(&mut block);
    check("checkpoint-header.bin", &block);
    let decoded = CheckpointHeader::decode(&block, LOG_ID, 1 << 30);
    assert_eq!(decoded, Ok((checkpoint_header(), checksum)));
}

/// Slot 0 of a new directory after its first write, as the engine leaves it: one vote and one entry.
fn tiny_log() -> Vec<u8> {
    let disk = SimDisk::new(1, SimFaults::none());
    let options = Options {
        slot_bytes: 1 << 20,
        note_after_us: u64::MAX,
        seed: [1, 1],
        ..Options::default()
    };
    let identity = Identity { node: 1, incarnation: 1, log_id: LOG_ID };
    let opened = open(disk.handle(), Path::new("data"), options, identity).unwrap();
    let mut engine = opened.engine;
    let hard_state = Some(HardState { term: 1, vote: 2 });
    let payload = Bytes::from_static(b"hello");
    let entries = vec![Entry { index: 1, term: 1, kind: 1, payload }];
    engine.append(Append { write: 1, hard_state, entries, ..Append::default() });
    let mut events = Vec::new();
    while !events.iter().any(|event| matches!(event, Event::Durable { write: 1 })) {
        engine.turn(disk.now_us(), &mut events).unwrap();
        disk.advance(disk.next_due().unwrap_or_default());
    }
    disk.read_file(&slot_path(0)).unwrap()
}

#[test]
fn a_log_of_one_entry_is_what_it_has_always_been() {
    let slot = tiny_log();
    let (used, rest) = slot.split_at(SEGMENT_HEADER_BYTES + BLOCK_BYTES);
    assert!(rest.iter().all(|byte| *byte == 0));
    check("tiny-log.bin", used);
    // What the document points at: "| 0x1000 | 48 46 | what it is |".
    let mut pointed = 0;
    for line in document().lines().filter(|line| line.starts_with("| 0x")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let at = usize::from_str_radix(&cells[1][2..], 16).unwrap();
        let bytes: Vec<u8> =
            cells[2].split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert_eq!(&used[at..at + bytes.len()], bytes, "{line}");
        pointed += 1;
    }
    assert!(pointed > 10);
}

/// A line of one of the document's tables.
struct Row {
    offset: usize,
    size: usize,
    field: String,
    meaning: String,
}

/// The tables of the document in order.
fn tables() -> Vec<Vec<Row>> {
    let mut tables = Vec::new();
    let mut rows = Vec::new();
    for line in document().lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let number = |at: usize| cells.get(at).and_then(|cell| cell.parse().ok());
        match (number(1), number(2)) {
            (Some(offset), Some(size)) => {
                let (field, meaning) = (cells[3].to_owned(), cells[4].to_owned());
                rows.push(Row { offset, size, field, meaning });
            }
            _ if rows.is_empty() => {}
            _ => tables.push(std::mem::take(&mut rows)),
        }
    }
    tables
}

/// Finds in `bytes`, where a table of the document says, the fields that it names, in its order; zeros between them.
fn check_table(table: &[Row], bytes: &[u8], magic: &[u8], fields: &[(&str, u128)]) {
    let mut fields = fields.iter();
    let mut end = 0;
    for Row { offset, size, field, meaning } in table {
        assert_eq!(*offset, end, "{field}: a gap or an overlap");
        end += size;
        let found = &bytes[*offset..end];
        match field.as_str() {
            "–" => assert!(found.iter().all(|byte| *byte == 0), "at {offset}"),
            "magic" => {
                let shown = meaning.trim_matches('`').replace("\\0", "\0").replace("\\x01", "\x01");
                assert_eq!((found, shown.as_bytes()), (magic, magic));
            }
            field => {
                let mut value = [0; 16];
                value[..found.len()].copy_from_slice(found);
                let found = (field, u128::from_le_bytes(value));
                assert_eq!(Some(&found), fields.next(), "the document's {field} at {offset}");
            }
        }
    }
    assert_eq!(fields.next(), None, "a field that the document does not have");
    let bytes = bytes.len();
    assert!(end == bytes || end == bytes.min(META_HEADER_BYTES), "{end} of {bytes} bytes");
}

const VERSION: [(&str, u128); 3] = [
    ("version", FORMAT_VERSION as u128),
    ("align_shift", ALIGN_SHIFT as u128),
    ("checksum_kind", CHECKSUM_CRC32_IEEE as u128),
];

fn versioned(bytes: &[u8], fields: &[(&'static str, u128)]) -> Vec<(&'static str, u128)> {
    let checksum = [("checksum", u128::from(crc(&bytes[12..])))];
    [&checksum[..], &VERSION, fields].concat()
}

#[test]
fn the_documents_table_of_meta_is_that_of_the_code() {
    let meta = Meta {
        format: FORMAT_VERSION,
        log_id: LOG_ID,
        node: 3,
        incarnation: 0xF0E1_D2C3,
        slot_bytes: SLOT_BYTES,
        slots_min: 17,
        application: b"ours".to_vec(),
    };
    let file = meta::encode(&meta);
    let fields = [
        ("log_id", LOG_ID),
        ("incarnation", meta.incarnation),
        ("node", 3),
        ("slot_bytes", u128::from(SLOT_BYTES)),
        ("slots_min", 17),
        ("application_bytes", 4),
    ];
    let bytes = file.as_slice();
    check_table(&tables()[0], bytes, &META_MAGIC, &versioned(bytes, &fields));
    assert_eq!(&bytes[META_HEADER_BYTES..META_HEADER_BYTES + 4], b"ours");
}

#[test]
fn the_documents_table_of_a_segment_header_is_that_of_the_code() {
    let mut block = vec![0xFF; SEGMENT_HEADER_BYTES];
    segment_header().encode_into(&mut block);
    let fields = [
        ("log_id", LOG_ID),
        ("slot", 3),
        ("kind", u128::from(SEGMENT_KIND_LOG)),
        ("number", 7),
        ("salt", 0x8877_6655_4433_2211),
        ("slot_bytes", u128::from(SLOT_BYTES)),
        ("epoch", 2),
        ("first_seq", 41),
        ("before_number", 6),
        ("before_end", 0x9000),
        ("before_last_seq", 40),
        ("before_last_checksum", u128::from(PREV.crc)),
        ("prev_checksum", u128::from(PREV.crc)),
        ("prev_first_index", 12),
        ("last_index", 12),
        ("last_term", 3),
        ("term", 3),
        ("vote", 2),
        ("log_start_index", 5),
        ("log_start_term", 1),
        ("prev_replaced_seq", 33),
    ];
    check_table(&tables()[1], &block, &SEGMENT_MAGIC, &versioned(&block, &fields));
}

#[test]
fn the_documents_tables_of_a_frame_and_a_record_are_those_of_the_code() {
    let body: usize = records().iter().map(Staged::body_bytes).sum();
    let mut frame = vec![0xFF; padded_frame_bytes(body)];
    encode(LogTag::of(LOG_ID), &mut frame_header(), &records(), &mut frame);
    let (head, rest) = frame.split_at(FRAME_HEADER_BYTES);
    let (table, payloads) = rest.split_at(2 * RECORD_HEADER_BYTES);
    let fields = [
        ("checksum", u128::from(crc(&[&LOG_ID.to_le_bytes(), &head[8..]].concat()))),
        ("salt", 0x8877_6655_4433_2211),
        ("seq", 41),
        ("durable_seq", 40),
        ("slot", 3),
        ("block", 1),
        ("body_bytes", body as u128),
        ("table_checksum", u128::from(crc(table))),
        ("prev_checksum", u128::from(PREV.crc)),
        ("record_count", 2),
        ("kind", u128::from(FRAME_KIND_DATA)),
        ("flags", u128::from(FRAME_FLAG_REPLACES)),
        ("term", 4),
        ("vote", 1),
        ("first_index", 0),
        ("last_index", 20),
        ("last_term", 4),
        ("prev_first_index", 12),
        ("prev_last_index", 12),
        ("prev_last_term", 3),
        ("prev_replaced_seq", 33),
    ];
    check_table(&tables()[2], head, &FRAME_MAGIC, &fields);
    let line = &table[..RECORD_HEADER_BYTES];
    assert!(payloads.starts_with(b"hello"));
    let fields = [
        ("bytes", 5),
        ("checksum", u128::from(crc(b"hello"))),
        ("index", 13),
        ("term", 3),
        ("kind", u128::from(RECORD_ENTRY)),
        ("entry_kind", 1),
    ];
    check_table(&tables()[3], line, b"", &fields);
    assert_eq!(padded_frame_bytes(0), BLOCK_BYTES);
}

#[test]
fn the_documents_tables_of_a_checkpoint_are_those_of_the_code() {
    let header = checkpoint_header();
    let mut block = vec![0xFF; CHECKPOINT_HEADER_BYTES];
    let checksum = header.encode_into(&mut block);
    let fields = [
        ("log_id", LOG_ID),
        ("node", 1),
        ("origin", 1),
        ("index", 1_000),
        ("term", 3),
        ("salt", 0x0102_0304_0506_0708),
        ("durable_seq", 40),
        ("body_bytes", 70_000),
        ("block_count", 2),
        ("blocks_checksum", 0xAABB_CCDD),
        ("slots_count", 3),
        ("keeps_after_index", 900),
        ("keeps_after_term", 2),
    ];
    check_table(&tables()[4], &block, &CHECKPOINT_MAGIC, &versioned(&block, &fields));

    let mut block = vec![0xFF; CHECKPOINT_BLOCK_BYTES];
    let body_checksum = seal_block(&mut block, header.salt, 1, 77);
    let (head, body) = block.split_at(CHECKPOINT_BLOCK_HEADER_BYTES);
    let fields = [
        ("checksum", u128::from(crc(&[&head[8..], &body[..77]].concat()))),
        ("salt", 0x0102_0304_0506_0708),
        ("number", 1),
        ("bytes", 77),
    ];
    check_table(&tables()[5], head, &CHECKPOINT_BLOCK_MAGIC, &fields);
    assert_eq!(fields[0].1, u128::from(body_checksum));

    let mut block = vec![0xFF; CHECKPOINT_HEADER_BYTES];
    header.encode_footer_into(checksum, &mut block);
    let fields = [
        ("checksum", u128::from(crc(&block[12..]))),
        ("header_checksum", u128::from(checksum)),
        ("salt", 0x0102_0304_0506_0708),
        ("index", 1_000),
        ("body_bytes", 70_000),
        ("blocks_checksum", 0xAABB_CCDD),
    ];
    check_table(&tables()[6], &block, &CHECKPOINT_FOOTER_MAGIC, &fields);
}

#[test]
fn the_documents_tables_are_all_checked_and_its_sizes_are_those_of_the_code() {
    let end = |table: &Vec<Row>| table.last().map_or(0, |row| row.offset + row.size);
    let ends: Vec<usize> = tables().iter().map(end).collect();
    let expected = [
        META_HEADER_BYTES,
        SEGMENT_HEADER_BYTES,
        FRAME_HEADER_BYTES,
        RECORD_HEADER_BYTES,
        CHECKPOINT_HEADER_BYTES,
        CHECKPOINT_BLOCK_HEADER_BYTES,
        CHECKPOINT_HEADER_BYTES,
    ];
    assert_eq!(ends, expected);
    let document = document();
    let with_commas = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for stated in [
        format!("format version {FORMAT_VERSION}\n"),
        format!("A *block* is {} bytes", with_commas(BLOCK_BYTES)),
        format!("in blocks of {} bytes", with_commas(CHECKPOINT_BLOCK_BYTES)),
        format!("{} in all but the last", with_commas(CHECKPOINT_BLOCK_BODY_BYTES)),
        format!("at most {} |", with_commas(META_APPLICATION_BYTES_MAX)),
        format!("({RECORD_HEADER_BYTES} bytes a record)"),
        format!("starting at a multiple of {RECORD_ALIGN_BYTES}."),
        format!(
            "{RECORD_ENTRY} ENTRY, {RECORD_RESET} RESET; {RECORD_REPAIR} REPAIR, {RECORD_VALUES} VALUES"
        ),
        format!("reserved: {RECORD_COMPACT} COMPACT"),
        format!("| flags | {FRAME_FLAG_REPLACES}:"),
        format!("{FRAME_KIND_DATA} DATA, {FRAME_KIND_NOTE} NOTE (no records), {FRAME_KIND_VALUES}"),
        format!("{SEGMENT_KIND_LOG} log; {SEGMENT_KIND_VALUES} values"),
        format!("| {FORMAT_VERSION} |\n"),
    ] {
        assert!(document.contains(&stated), "the document does not say {stated:?}");
    }
    assert_eq!((NUMBER_MAX, TERM_UNKNOWN), ((1 << 62) - 1, u64::MAX));
    assert!(document.contains("at most 2^62 − 1"));
}
