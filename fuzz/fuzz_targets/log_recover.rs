//! The log after anything: slots with patched bytes, or a script of work and power cuts with an oracle beside it, and
//! perhaps a cleaner. Recovery never panics, never finds what was not written, and never loses what was acknowledged. The same function
//! runs over the committed corpus in `engine/tests/log/corpus.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| engine::fuzzing::log_recover(data));
