//! Any bytes as a connection: frames, handshake, requests and replies are read or refused, never a
//! panic, and what was read encodes to the same bytes. The same function runs over the committed corpus
//! in `protocol/tests/wire/corpus.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| protocol::fuzzing::frame_decode(data));
