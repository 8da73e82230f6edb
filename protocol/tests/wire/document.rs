//! `docs/protocol.md` says what the code does: its examples, its tables, its limits.

use std::fs;
use std::path::PathBuf;

use protocol::{ErrorCode, kind};

use crate::samples;

fn document() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of a line of hex, up to its comment.
fn hex_line(line: &str) -> Vec<u8> {
    let hex = line.split('#').next().unwrap_or_default();
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("an example is hex"))
        .collect()
}

#[test]
fn every_example_of_the_document_is_a_golden_message() {
    let document = document();
    let samples = samples::all();
    let mut examples = 0;
    for example in document.split("```hex ").skip(1) {
        let (name, hex) = example.split_once('\n').unwrap();
        let (hex, _) = hex.split_once("```").unwrap();
        let bytes: Vec<u8> = hex.lines().flat_map(hex_line).collect();
        let sample = samples.iter().find(|(known, _)| *known == name);
        let (_, message) = sample.unwrap_or_else(|| panic!("no golden message {name}"));
        assert_eq!(bytes, message.encode(), "{name}");
        examples += 1;
    }
    assert_eq!(examples, 5);
}

#[test]
fn error_table_of_the_document_has_every_code_in_order() {
    let document = document();
    let mut last = 0;
    for code in ErrorCode::all() {
        let row = format!("\n| {} | `{}` | ", code.to_u16(), code.name());
        let at = document.find(&row).unwrap_or_else(|| panic!("no row {row}"));
        assert!(at > last, "{row} is out of order");
        last = at;
    }
}

#[test]
fn kind_tables_of_the_document_name_every_kind() {
    let document = document();
    let kinds = [
        (kind::HELLO, "Hello"),
        (kind::PING, "Ping"),
        (kind::STATUS, "Status"),
        (kind::PUT, "Put"),
        (kind::DELETE, "Delete"),
        (kind::DELETE_RANGE, "DeleteRange"),
        (kind::COMPARE_AND_SET, "CompareAndSet"),
        (kind::GET, "Get"),
        (kind::RANGE, "Range"),
        (kind::SESSION_OPEN, "SessionOpen"),
        (kind::SESSION_KEEP_ALIVE, "SessionKeepAlive"),
        (kind::SESSION_CLOSE, "SessionClose"),
        (kind::LOCK_ACQUIRE, "LockAcquire"),
        (kind::LOCK_RELEASE, "LockRelease"),
        (kind::LOCK_QUERY, "LockQuery"),
        (kind::WELCOME, "Welcome"),
        (kind::PONG, "Pong"),
        (kind::NODE_STATUS, "NodeStatus"),
        (kind::PUT_DONE, "PutDone"),
        (kind::DELETED, "Deleted"),
        (kind::COMPARED, "Compared"),
        (kind::GOT, "Got"),
        (kind::RANGE_PAGE, "RangePage"),
        (kind::SESSION_OPENED, "SessionOpened"),
        (kind::SESSION_ALIVE, "SessionAlive"),
        (kind::SESSION_CLOSED, "SessionClosed"),
        (kind::LOCK_GRANTED, "LockGranted"),
        (kind::LOCK_NOT_ACQUIRED, "LockNotAcquired"),
        (kind::LOCK_RELEASED, "LockReleased"),
        (kind::LOCK_STATE, "LockState"),
        (kind::ERROR, "Error"),
    ];
    for (kind, name) in kinds {
        let row = format!("\n| `{kind:#04x}` | {name} | ");
        assert!(document.contains(&row), "no row {row}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| `0x")).count();
    assert_eq!(rows, kinds.len());
}

#[test]
fn limits_of_the_document_are_those_of_the_code() {
    let document = document();
    let limits = protocol::Limits::default();
    for (row, number) in [
        ("body of a frame before the handshake", u64::from(protocol::HANDSHAKE_BODY_BYTES_MAX)),
        ("body of a request after it", protocol::FRAME_SLACK_BYTES as u64),
        (
            "body of a reply after it",
            (protocol::RANGE_PAGE_BYTES_MAX + protocol::FRAME_SLACK_BYTES) as u64,
        ),
        ("key, lock name", u64::from(limits.key_bytes_max)),
        ("value", protocol::VALUE_BYTES_MAX_DEFAULT as u64),
        ("value", protocol::VALUE_BYTES_MAX as u64),
        ("label", protocol::LABEL_BYTES_MAX as u64),
        ("time to live", protocol::SESSION_TTL_MS_MIN),
        ("time to live", protocol::SESSION_TTL_MS_MAX),
        ("time to live", protocol::SESSION_TTL_MS_DEFAULT),
        ("unanswered requests", protocol::SESSION_WINDOW),
        ("a page of a range", protocol::RANGE_PAGE_BYTES_MAX as u64),
    ] {
        let line = document.lines().find(|line| line.starts_with(&format!("| {row}")));
        let line = line.unwrap_or_else(|| panic!("no row {row}"));
        assert!(line.contains(&with_commas(number)), "{number} is not in: {line}");
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
