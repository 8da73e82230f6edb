//! Bytes that must not change without a new version. `HOLDFAST_REWRITE_GOLDEN=1` writes them anew;
//! the difference is then to be looked at.

use crate::harness::*;
use bytes::Bytes;
use server::state_machine::{Command, Expect, Origin, Wait};
use std::fmt::Write;
use std::path::Path;

fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_state").join(name);
    if std::env::var_os("HOLDFAST_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(golden == bytes, "{} does not hold these bytes:\n{}", path.display(), hex(bytes));
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, line) in bytes.chunks(16).enumerate() {
        write!(text, "{:04x} ", row * 16).unwrap();
        for byte in line {
            write!(text, " {byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn one_put() -> Bytes {
    let origin = waiting_from(7, 3, 2);
    entry(1_700_000_000_000, &[(origin, put("key", "value"))])
}

/// One command of every kind and variant, working on each other.
fn every_command() -> Vec<(Origin, Command)> {
    let open = |nonce| Command::SessionOpen { ttl_ms: 10_000, nonce, label: bytes("golden") };
    let range = |start, end: Option<&str>| Command::DeleteRange {
        start: bytes(start),
        end: end.map(bytes),
    };
    let (a, b) = (|sequence| waiting_from(1, sequence, 1), |sequence| waiting_from(2, sequence, 1));
    let long = "a key that is too long for the nodes of the tree";
    vec![
        (Origin::NONE, open(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10)),
        (Origin::NONE, open(2)),
        (Origin::NONE, open(3)),
        (a(1), put("alpha", "1")),
        (a(2), put(long, "")),
        (a(3), put("gone", "2")),
        (a(4), delete("gone")),
        (a(5), range("x", Some("z"))),
        (Origin::NONE, range("x", None)),
        (b(1), compare_and_set("beta", Expect::Absent, Some("3"))),
        (b(2), compare_and_set("beta", Expect::Value(bytes("4")), Some("5"))),
        (b(3), compare_and_set("alpha", Expect::Revision(2), None)),
        (a(6), acquire("lock", Wait::Try)),
        (a(7), acquire("other", Wait::Queue)),
        (b(4), acquire("lock", Wait::Queue)),
        (b(5), acquire("other", Wait::Try)),
        (b(6), acquire("other", Wait::Queue)),
        (a(9), acquire("lock", Wait::Queue)),
        (Origin::NONE, Command::LockCancel { name: bytes("other"), session: 2, sequence: 6 }),
        (a(10), release("other", 2)),
        (a(11), release("other", 2)),
        (Origin::NONE, Command::SessionClose { session: 9 }),
        (Origin::NONE, Command::SessionExpire { session: 3, generation: 1 }),
    ]
}

#[test]
fn an_entry_of_one_put_keeps_its_bytes() {
    check("entry_put.bin", &one_put());
}

#[test]
fn an_entry_of_every_command_keeps_its_bytes() {
    check("entry_all.bin", &entry(1_700_000_000_001, &every_command()));
}

#[test]
fn a_snapshot_keeps_its_bytes() {
    let mut node = Node::new();
    node.apply(&every_command());
    check("snapshot.bin", &snapshot(&node));
}

#[test]
fn the_document_shows_the_entry_of_one_put() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/state-format.md");
    let document = std::fs::read_to_string(path).unwrap();
    let dump = hex(&one_put());
    assert!(document.contains(&dump), "the worked example should read\n{dump}");
}
