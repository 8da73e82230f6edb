//! Every magic, size and offset of the bytes on disk. `docs/log-format.md` is the same in prose.

/// The unit of alignment and of self addresses.
pub const BLOCK_BYTES: usize = 4096;
