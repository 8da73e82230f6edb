//! The other logs, set up as their own documents advise and so that both recycle their files.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use okaywal::{
    Configuration, Entry, EntryId, LogManager, RecoveredSegment, Recovery, SegmentReader,
    WriteAheadLog,
};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, LogBatch, MessageExt, ReadableSize};

/// As large as a slot of holdfast's.
const FILE_BYTES: u32 = 64 << 20;
/// Old files are given up when the log has grown by this much.
const INTERVAL_BYTES: u64 = 128 << 20;

/// Something that makes a batch of entries durable.
pub(crate) trait Rival: Sync {
    /// Appends `count` entries of writer `writer` as one batch and waits until they are durable.
    fn append(&self, writer: &mut Writer, payload: &Bytes, count: usize);
}

/// One thread's side of a rival.
pub(crate) struct Writer {
    /// Its group in raft-engine.
    group: u64,
    index: u64,
    batch: LogBatch,
    entries: Vec<BytesValue>,
}

impl Writer {
    /// Writers of one engine differ in their number.
    pub(crate) fn new(number: u64) -> Writer {
        Writer { group: number + 1, index: 0, batch: LogBatch::default(), entries: Vec::new() }
    }
}

/// raft-engine: each writer appends to a group of its own, as each index belongs to one group.
pub(crate) struct Raft {
    engine: raft_engine::Engine,
    bytes: AtomicU64,
}

struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    /// The first eight bytes of a payload are its index, so that the entry is as long as everybody else's.
    fn index(entry: &BytesValue) -> u64 {
        let first = entry.value.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first)
    }
}

impl Raft {
    pub(crate) fn new(dir: &Path) -> raft_engine::Result<Raft> {
        let size = |bytes: u64| ReadableSize(bytes);
        let config = Config {
            dir: dir.display().to_string(),
            target_file_size: size(FILE_BYTES.into()),
            purge_threshold: size(INTERVAL_BYTES),
            // Noise cannot be compressed.
            batch_compression_threshold: size(0),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(size(2 * INTERVAL_BYTES)),
            ..Config::default()
        };
        Ok(Raft { engine: raft_engine::Engine::open(config)?, bytes: AtomicU64::new(0) })
    }

    /// Gives up what is durable when enough has been written; whoever crosses the line does it.
    fn purge_if_due(&self, written: u64) {
        let before = self.bytes.fetch_add(written, Ordering::Relaxed);
        if before / INTERVAL_BYTES == (before + written) / INTERVAL_BYTES {
            return;
        }
        for group in self.engine.raft_groups() {
            if let Some(last) = self.engine.last_index(group) {
                self.engine.compact_to(group, last);
            }
        }
        self.engine.purge_expired_files().expect("a sound disk");
    }
}

impl Rival for Raft {
    fn append(&self, writer: &mut Writer, payload: &Bytes, count: usize) {
        let Writer { group, index, batch, entries } = writer;
        if *index == 0 {
            *index = self.engine.last_index(*group).unwrap_or(0);
        }
        entries.resize_with(count, BytesValue::default);
        for entry in entries.iter_mut() {
            *index += 1;
            entry.value.clear();
            entry.value.extend_from_slice(&index.to_le_bytes());
            entry.value.extend_from_slice(&payload[8..]);
        }
        batch.add_entries::<Indexed>(*group, entries).expect("entries in order");
        let written = self.engine.write(batch, true).expect("a sound disk");
        self.purge_if_due(written as u64);
    }
}

/// okaywal: a batch is one entry of as many chunks, which it makes durable as a whole.
pub(crate) struct Okay {
    log: WriteAheadLog,
}

#[derive(Debug)]
struct Forget;

impl LogManager for Forget {
    fn should_recover_segment(&mut self, _: &RecoveredSegment) -> io::Result<Recovery> {
        Ok(Recovery::Abandon)
    }

    fn recover(&mut self, _: &mut Entry<'_>) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Okay {
    pub(crate) fn new(dir: &Path) -> io::Result<Okay> {
        let config = Configuration::default_for(dir)
            .preallocate_bytes(FILE_BYTES)
            .checkpoint_after_bytes(u64::from(FILE_BYTES) - (1 << 20))
            .buffer_bytes(64 << 10);
        Ok(Okay { log: config.open(Forget)? })
    }
}

impl Rival for Okay {
    fn append(&self, _: &mut Writer, payload: &Bytes, count: usize) {
        let mut entry = self.log.begin_entry().expect("a sound disk");
        for _ in 0..count {
            entry.write_chunk(payload).expect("a sound disk");
        }
        entry.commit().expect("a sound disk");
    }
}
