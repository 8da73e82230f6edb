//! Every magic, size and offset of the bytes on disk. `docs/log-format.md` is the same in prose, with a worked example.
//!
//! All integers are little-endian. Relations between the constants are checked by the compiler.

/// The unit of alignment and of self addresses.
pub const BLOCK_BYTES: usize = 4096;

/// The version that every header states. Another one is refused by name.
pub const FORMAT_VERSION: u16 = 5;

/// Blocks are `1 << ALIGN_SHIFT` bytes.
pub const ALIGN_SHIFT: u8 = 12;

/// `checksum_kind` 1: CRC-32/IEEE.
pub const CHECKSUM_CRC32_IEEE: u8 = 1;

/// Indices and the numbers of frames, segments and opens above this are no history but garbage; below it, adding cannot
/// overflow.
pub const NUMBER_MAX: u64 = u64::MAX / 4;

/// Stands for the term of an entry that is damaged and whose term nothing else states. No entry has it.
pub const TERM_UNKNOWN: u64 = u64::MAX;

/// The first bytes of `META`.
pub const META_MAGIC: [u8; 8] = *b"HFMETA\0\x01";
/// The fixed part of `META`; the application's bytes follow.
pub const META_HEADER_BYTES: usize = 128;
/// The largest application part of `META`.
pub const META_APPLICATION_BYTES_MAX: usize = 64 << 10;

/// The first bytes of a slot that was opened as a segment at least once.
pub const SEGMENT_MAGIC: [u8; 8] = *b"HFSEG\0\0\x01";
/// A segment header is one block; the first frame follows it.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;
/// A segment of frames in one chain over all segments.
pub const SEGMENT_KIND_LOG: u8 = 1;
/// A segment of values that lie in no entry: relocated ones, and those of a snapshot that a peer sent.
pub const SEGMENT_KIND_VALUES: u8 = 2;
/// The smallest slot, and what every size of one is a multiple of. On the simulated disk, where tests open slots by the
/// million, they may be smaller.
pub const SLOT_BYTES_MIN: u64 = if cfg!(feature = "simulated") { 64 << 10 } else { 1 << 20 };
/// The largest slot; keeps a quarter of it within a frame's 32-bit length.
pub const SLOT_BYTES_MAX: u64 = 1 << 30;

/// The first bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"HFRM";
/// A frame header; the record table follows it.
pub const FRAME_HEADER_BYTES: usize = 128;
/// A frame with records.
pub const FRAME_KIND_DATA: u8 = 1;
/// A frame without records: it carries the promise alone.
pub const FRAME_KIND_NOTE: u8 = 2;
/// A frame of values; only in a segment of values, and no other lies there.
pub const FRAME_KIND_VALUES: u8 = 3;
/// A flag of a frame that replaced entries or reset the log.
pub const FRAME_FLAG_REPLACES: u8 = 1;

/// One line of a frame's record table.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Payloads start at multiples of this, counted from the start of their frame.
pub const RECORD_ALIGN_BYTES: usize = 16;
/// The most records a frame holds.
pub const RECORD_COUNT_MAX: usize = u16::MAX as usize;
/// One raft index and its payload.
pub const RECORD_ENTRY: u8 = 1;
/// The log is emptied and continues after (index, term).
pub const RECORD_RESET: u8 = 3;
/// Reserved: the log starts after (index, term).
pub const RECORD_COMPACT: u8 = 4;
/// One raft index and its payload once more, where the frame that held it is damaged. It truncates nothing.
pub const RECORD_REPAIR: u8 = 5;
/// Values with their keys; only in a frame of values.
pub const RECORD_VALUES: u8 = 6;
/// What comes before a key and its value in a record of values: both lengths and the checksum of the value.
pub const VALUE_HEADER_BYTES: usize = 16;

/// The first bytes of a checkpoint.
pub const CHECKPOINT_MAGIC: [u8; 8] = *b"HFCKPT\0\x01";
/// The first bytes of a checkpoint's last block.
pub const CHECKPOINT_FOOTER_MAGIC: [u8; 8] = *b"HFCKEND\x01";
/// A checkpoint header or footer is one block.
pub const CHECKPOINT_HEADER_BYTES: usize = BLOCK_BYTES;
/// The body of a checkpoint is cut into blocks of this size, each with a header of its own.
pub const CHECKPOINT_BLOCK_BYTES: usize = 64 << 10;
/// The header of a checkpoint block.
pub const CHECKPOINT_BLOCK_HEADER_BYTES: usize = 32;
/// Body bytes in a full checkpoint block.
pub const CHECKPOINT_BLOCK_BODY_BYTES: usize =
    CHECKPOINT_BLOCK_BYTES - CHECKPOINT_BLOCK_HEADER_BYTES;
/// One slot in the table at the start of a checkpoint's body: the slots that hold its values.
pub const CHECKPOINT_SLOT_BYTES: usize = 4;
/// The table is padded to a multiple of this.
pub const CHECKPOINT_SLOTS_ALIGN_BYTES: usize = 16;
/// The first bytes of a checkpoint block.
pub const CHECKPOINT_BLOCK_MAGIC: [u8; 4] = *b"HFCB";

/// The directory of the slots.
pub const SLOT_DIR: &str = "seg";
/// The directory of the checkpoints.
pub const CHECKPOINT_DIR: &str = "ckpt";
/// Space that is held for the next checkpoint: a file of any content.
pub const SPARE_PATH: &str = "ckpt/spare.tmp";
/// The identity file.
pub const META_PATH: &str = "META";
/// The identity file while it is written.
pub const META_TEMPORARY_PATH: &str = "META.tmp";

/// The file of a slot, relative to the data directory.
pub fn slot_path(slot: u32) -> String {
    format!("{SLOT_DIR}/{slot:08x}.seg")
}

/// The same while it is pre-written; it gets its constant name when every byte is durable.
pub fn slot_temporary_path(slot: u32) -> String {
    format!("{SLOT_DIR}/{slot:08x}.tmp")
}

/// The file of a checkpoint, relative to the data directory.
pub fn checkpoint_path(index: u64) -> String {
    format!("{CHECKPOINT_DIR}/{index:016x}.ckpt")
}

const _: () = assert!(BLOCK_BYTES == 1 << ALIGN_SHIFT);
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(RECORD_HEADER_BYTES));
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN_BYTES));
const _: () = assert!(META_HEADER_BYTES <= BLOCK_BYTES);
const _: () = assert!(CHECKPOINT_BLOCK_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(SLOT_BYTES_MAX / 4 <= u32::MAX as u64);
