//! What may go wrong, how often, and what went wrong.

use std::io;
use std::ops::RangeInclusive;

use super::random::Random;
use crate::io::Op;

/// How long operations take and how often they fail. Rates are per million operations of the kind.
#[derive(Clone, Debug)]
pub struct SimFaults {
    /// Latency of a write, in microseconds.
    pub write_us: RangeInclusive<u64>,
    /// Latency of a read, in microseconds.
    pub read_us: RangeInclusive<u64>,
    /// Latency of a sync of a file or directory, in microseconds.
    pub sync_us: RangeInclusive<u64>,
    /// Latency of everything else, in microseconds.
    pub other_us: RangeInclusive<u64>,
    /// How often an operation takes `stall_us` longer.
    pub stall_ppm: u32,
    /// How much longer, in microseconds.
    pub stall_us: RangeInclusive<u64>,
    /// Writes that report an I/O error, with any mix of old and new bytes on the medium.
    pub write_error_ppm: u32,
    /// Writes that end early.
    pub short_write_ppm: u32,
    /// Writes that report success and change nothing.
    pub lost_write_ppm: u32,
    /// Writes that report success and land elsewhere, perhaps in another file.
    pub misdirected_write_ppm: u32,
    /// Reads that report an I/O error.
    pub read_error_ppm: u32,
    /// Reads that bring one to eight wrong bits; the next read may be right.
    pub flipped_read_ppm: u32,
    /// Reads that bring the bytes of another place.
    pub misdirected_read_ppm: u32,
    /// Syncs that report an I/O error and leave the pages clean, whatever became of them.
    pub sync_error_ppm: u32,
    /// Other operations that report an I/O error and do nothing.
    pub other_error_ppm: u32,
    /// Bytes that all files together may have; beyond them operations end with `StorageFull`.
    pub capacity_bytes: Option<u64>,
    /// Of the pages that a crash finds un-synced, how many are torn; the others are kept or dropped
    /// whole, evenly.
    pub torn_ppm: u32,
    /// Crashes that keep everything that was handed over.
    pub crash_keeps_all_ppm: u32,
    /// Crashes that drop everything that was not synced.
    pub crash_drops_all_ppm: u32,
}

impl SimFaults {
    /// A healthy disk that loses power like any other.
    pub fn none() -> SimFaults {
        SimFaults {
            write_us: 40..=80,
            read_us: 30..=90,
            sync_us: 50..=400,
            other_us: 5..=50,
            stall_ppm: 0,
            stall_us: 1_000..=30_000_000,
            write_error_ppm: 0,
            short_write_ppm: 0,
            lost_write_ppm: 0,
            misdirected_write_ppm: 0,
            read_error_ppm: 0,
            flipped_read_ppm: 0,
            misdirected_read_ppm: 0,
            sync_error_ppm: 0,
            other_error_ppm: 0,
            capacity_bytes: None,
            torn_ppm: 500_000,
            crash_keeps_all_ppm: 100_000,
            crash_drops_all_ppm: 100_000,
        }
    }
}

impl Default for SimFaults {
    fn default() -> SimFaults {
        SimFaults::none()
    }
}

/// What kind of operation a fault is meant for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpKind {
    /// [`Op::Write`].
    Write,
    /// [`Op::Read`].
    Read,
    /// [`Op::Sync`].
    Sync,
    /// [`Op::SyncDir`].
    SyncDir,
    /// [`Op::Open`].
    Open,
    /// [`Op::Allocate`].
    Allocate,
    /// [`Op::Rename`].
    Rename,
    /// [`Op::Remove`].
    Remove,
    /// [`Op::MakeDir`].
    MakeDir,
    /// [`Op::Close`].
    Close,
}

impl OpKind {
    /// The kind of an operation.
    pub fn of(op: &Op) -> OpKind {
        match op {
            Op::Write { .. } => OpKind::Write,
            Op::Read { .. } => OpKind::Read,
            Op::Sync { .. } => OpKind::Sync,
            Op::SyncDir { .. } => OpKind::SyncDir,
            Op::Open { .. } => OpKind::Open,
            Op::Allocate { .. } => OpKind::Allocate,
            Op::Rename { .. } => OpKind::Rename,
            Op::Remove { .. } => OpKind::Remove,
            Op::MakeDir { .. } => OpKind::MakeDir,
            Op::Close { .. } => OpKind::Close,
        }
    }
}

/// What is wrong with one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Error(io::ErrorKind),
    Lost,
    Misdirected,
    Flipped,
}

impl SimFaults {
    pub(super) fn latency_us(&self, kind: OpKind, random: &mut Random) -> u64 {
        let range = match kind {
            OpKind::Write => &self.write_us,
            OpKind::Read => &self.read_us,
            OpKind::Sync | OpKind::SyncDir => &self.sync_us,
            OpKind::Open
            | OpKind::Allocate
            | OpKind::Rename
            | OpKind::Remove
            | OpKind::MakeDir
            | OpKind::Close => &self.other_us,
        };
        random.within(range)
    }

    pub(super) fn draw(&self, kind: OpKind, random: &mut Random) -> Option<Fault> {
        let io_error = Fault::Error(io::ErrorKind::Other);
        let table: &[(u32, Fault)] = match kind {
            OpKind::Write => &[
                (self.write_error_ppm, io_error),
                (self.short_write_ppm, Fault::Error(io::ErrorKind::WriteZero)),
                (self.lost_write_ppm, Fault::Lost),
                (self.misdirected_write_ppm, Fault::Misdirected),
            ],
            OpKind::Read => &[
                (self.read_error_ppm, io_error),
                (self.flipped_read_ppm, Fault::Flipped),
                (self.misdirected_read_ppm, Fault::Misdirected),
            ],
            OpKind::Sync | OpKind::SyncDir => &[(self.sync_error_ppm, io_error)],
            OpKind::Close => &[],
            OpKind::Open | OpKind::Allocate | OpKind::Rename | OpKind::Remove | OpKind::MakeDir => {
                &[(self.other_error_ppm, io_error)]
            }
        };
        table.iter().find(|(ppm, _)| random.chance(*ppm)).map(|(_, fault)| *fault)
    }
}

/// What a simulated disk has done and what was done to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "counters named after what they count")]
pub struct SimCounters {
    pub opens: u64,
    pub closes: u64,
    pub allocations: u64,
    pub writes: u64,
    pub bytes_written: u64,
    pub reads: u64,
    pub bytes_read: u64,
    pub syncs: u64,
    pub dir_syncs: u64,
    pub renames: u64,
    pub removes: u64,
    pub dirs_made: u64,
    pub errors_injected: u64,
    pub short_writes: u64,
    pub lost_writes: u64,
    pub misdirected_writes: u64,
    pub misdirected_reads: u64,
    pub flipped_reads: u64,
    pub full_errors: u64,
    pub stalls: u64,
    pub flipped_bits: u64,
    pub crashes: u64,
    pub kills: u64,
    /// At crashes: sectors that came out as the newest write left them.
    pub sectors_kept: u64,
    /// Sectors that fell back to what was durable.
    pub sectors_dropped: u64,
    /// Sectors that hold an earlier un-synced write, garbage or zeros.
    pub sectors_mangled: u64,
    /// Creations, renames and removals that a crash undid.
    pub entries_dropped: u64,
    /// Changes of size that a crash undid.
    pub sizes_dropped: u64,
}

impl SimCounters {
    pub(super) fn count(&mut self, op: &Op) {
        let counter = match OpKind::of(op) {
            OpKind::Write => &mut self.writes,
            OpKind::Read => &mut self.reads,
            OpKind::Sync => &mut self.syncs,
            OpKind::SyncDir => &mut self.dir_syncs,
            OpKind::Open => &mut self.opens,
            OpKind::Allocate => &mut self.allocations,
            OpKind::Rename => &mut self.renames,
            OpKind::Remove => &mut self.removes,
            OpKind::MakeDir => &mut self.dirs_made,
            OpKind::Close => &mut self.closes,
        };
        *counter += 1;
    }

    pub(super) fn count_fault(&mut self, kind: OpKind, fault: Fault) {
        let counter = match (fault, kind) {
            (Fault::Error(io::ErrorKind::WriteZero), OpKind::Write) => &mut self.short_writes,
            (Fault::Error(_), _) => &mut self.errors_injected,
            (Fault::Lost, _) => &mut self.lost_writes,
            (Fault::Misdirected, OpKind::Read) => &mut self.misdirected_reads,
            (Fault::Misdirected, _) => &mut self.misdirected_writes,
            (Fault::Flipped, _) => &mut self.flipped_reads,
        };
        *counter += 1;
    }
}
