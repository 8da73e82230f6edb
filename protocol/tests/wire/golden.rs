//! The bytes on the wire do not change: one file of golden bytes for every message.
//!
//! `HOLDFAST_REWRITE_GOLDEN=1 cargo test -p protocol --test golden` rewrites the files; the change
//! is then reviewed, and goes together with one of `docs/protocol.md`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{env, fs};

use crate::samples::{self, REQUEST_ID};
use bytes::BytesMut;
use protocol::frame;

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn every_message_has_its_golden_bytes() {
    let rewrite = env::var_os("HOLDFAST_REWRITE_GOLDEN").is_some();
    for (name, message) in samples::all() {
        let path = golden_dir().join(format!("{name}.bin"));
        let encoded = message.encode();
        if rewrite {
            fs::write(&path, &encoded).unwrap();
        }
        let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(golden, encoded, "{name}");

        let mut wire = BytesMut::from(&golden[..]);
        let frame = frame::decode(&mut wire, u32::MAX).unwrap().expect("the file is one frame");
        assert!(wire.is_empty(), "{name}: the file is one frame");
        assert_eq!(frame.header.request_id, REQUEST_ID);
        assert_eq!(message.decode_like(frame.header.kind, frame.body), Ok(message), "{name}");
    }
}

#[test]
fn every_golden_file_belongs_to_a_message() {
    let known: BTreeSet<String> =
        samples::all().into_iter().map(|(name, _)| format!("{name}.bin")).collect();
    assert_eq!(known.len(), samples::all().len(), "names are unique");
    for entry in fs::read_dir(golden_dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "{name} belongs to no message");
    }
}

#[test]
fn every_kind_of_frame_has_a_sample() {
    use protocol::kind::*;
    let sampled: BTreeSet<u8> =
        samples::all().iter().map(|(_, message)| message.encode()[12]).collect();
    let all = [
        HELLO,
        PING,
        STATUS,
        PUT,
        DELETE,
        DELETE_RANGE,
        COMPARE_AND_SET,
        GET,
        RANGE,
        SESSION_OPEN,
        SESSION_KEEP_ALIVE,
        SESSION_CLOSE,
        LOCK_ACQUIRE,
        LOCK_RELEASE,
        LOCK_QUERY,
        WELCOME,
        PONG,
        NODE_STATUS,
        PUT_DONE,
        DELETED,
        COMPARED,
        GOT,
        RANGE_PAGE,
        SESSION_OPENED,
        SESSION_ALIVE,
        SESSION_CLOSED,
        LOCK_GRANTED,
        LOCK_NOT_ACQUIRED,
        LOCK_RELEASED,
        LOCK_STATE,
        ERROR,
    ];
    assert_eq!(sampled, BTreeSet::from(all));
}
