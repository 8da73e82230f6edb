//! Checkpoint files that hold anything: the decoder over any bytes, and an open of a directory whose newest checkpoint
//! has patched bytes. Nothing panics, and what is not what was written is moved aside or refused. The same function
//! runs over the committed corpus in `engine/tests/log/corpus.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| engine::fuzzing::checkpoint_decode(data));
