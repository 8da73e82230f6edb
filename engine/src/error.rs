//! One enum per surface: opening, the running log, reads, checkpoints. Each variant states its fate.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::format::FORMAT_VERSION;
use crate::holes::FaultyRange;
use crate::types::{Location, Position};

/// The first check that some bytes did not pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Check {
    /// The first bytes are not ours.
    Magic,
    /// The checksum of a header.
    HeaderChecksum,
    /// The format version, alignment or checksum kind.
    Version,
    /// The log id: bytes of another log.
    LogId,
    /// Reserved bytes or an unknown kind.
    Kind,
    /// The salt: bytes of an earlier use of the slot.
    Salt,
    /// The self address: bytes of another place.
    Address,
    /// The sequence number.
    Sequence,
    /// The checksum of the header before.
    Chain,
    /// A promise that goes backwards or speaks of itself.
    Promise,
    /// A length.
    Length,
    /// The checksum of the record table.
    TableChecksum,
    /// The checksum of a record.
    RecordChecksum,
    /// Indices that do not follow from the ones before.
    Indices,
    /// A number beyond what any history could reach.
    Range,
    /// The checksum of a body.
    BodyChecksum,
    /// The file ends too early or the device did not give the bytes.
    Unreadable,
    /// The footer does not belong to the header.
    Footer,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Magic => "magic",
            Check::HeaderChecksum => "header checksum",
            Check::Version => "format version",
            Check::LogId => "log id",
            Check::Kind => "kind",
            Check::Salt => "salt",
            Check::Address => "self address",
            Check::Sequence => "sequence number",
            Check::Chain => "chain to the header before",
            Check::Promise => "promise",
            Check::Length => "length",
            Check::TableChecksum => "record table checksum",
            Check::RecordChecksum => "record checksum",
            Check::Indices => "entry indices",
            Check::Range => "number range",
            Check::BodyChecksum => "body checksum",
            Check::Unreadable => "readability",
            Check::Footer => "footer",
        })
    }
}

/// What proves that a damaged frame had been durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Proof {
    /// The next segment's header states that this one is valid beyond it.
    Successor,
    /// A later frame of the same segment promises it.
    LaterFrame {
        /// What that frame promises.
        durable_seq: u64,
    },
    /// A frame in a slot whose header is lost or older promises it.
    OtherSlot {
        /// Which slot.
        slot: u32,
        /// What that frame promises.
        durable_seq: u64,
    },
    /// A checkpoint promises it.
    Checkpoint {
        /// Its index.
        index: u64,
        /// What it promises.
        durable_seq: u64,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Successor => write!(f, "the next segment states that it was durable"),
            Proof::LaterFrame { durable_seq } => {
                write!(f, "a later frame promises everything up to {durable_seq}")
            }
            Proof::OtherSlot { slot, durable_seq } => {
                write!(f, "a frame in slot {slot:08x} promises everything up to {durable_seq}")
            }
            Proof::Checkpoint { index, durable_seq } => {
                write!(f, "the checkpoint at {index} promises everything up to {durable_seq}")
            }
        }
    }
}

/// A frame that had been durable and is not what was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The slot it lies in.
    pub slot: u32,
    /// Its first byte in the slot's file.
    pub offset: u64,
    /// Its sequence number.
    pub seq: u64,
    /// The indices it held, where that is known; (0, 0) stands for a frame without entries.
    pub indices: Option<(u64, u64)>,
    /// What it failed.
    pub check: Check,
    /// Why it is not a torn tail; absent when it was found by a reader of the running log.
    pub proof: Option<Proof>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { slot, offset, seq, indices, check, proof } = self;
        if *offset == 0 {
            return write!(f, "the header of seg/{slot:08x}.seg fails its {check} check");
        }
        write!(f, "frame {seq} in seg/{slot:08x}.seg at byte {offset} fails its {check} check")?;
        match indices {
            Some((0, 0)) => write!(f, ", it held no entries")?,
            Some((first, last)) => write!(f, ", it held entries {first} to {last}")?,
            None => write!(f, ", which entries it held is unknown")?,
        }
        match proof {
            Some(proof) => write!(f, "; {proof}"),
            None => Ok(()),
        }
    }
}

/// Why a directory was not opened. Nothing in it has been deleted. The caller stops and says so.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Caller's mistake.
    #[error("options: {what}")]
    Options {
        /// Which option and its range.
        what: String,
    },
    /// The device or the file system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process has it.
    #[error(
        "{dir} is in use by another process{holder}; stop that process or choose another directory"
    )]
    Locked {
        /// The directory.
        dir: String,
        /// " (pid N)" where the lock file tells.
        holder: String,
    },
    /// Files of a log without its identity.
    #[error(
        "{dir} holds {found} but no META; it is not a complete data directory: restore META or use an empty directory"
    )]
    MetaMissing {
        /// The directory.
        dir: String,
        /// What was found instead.
        found: String,
    },
    /// The identity file is not what was written.
    #[error(
        "{dir}/META fails its {check} check; restore it from a backup or rebuild this node from its peers"
    )]
    MetaDamaged {
        /// The directory.
        dir: String,
        /// What it failed.
        check: Check,
    },
    /// A file of another program, or of another version of this one.
    #[error(
        "{dir}/META is not of format version {FORMAT_VERSION} of this program; use the version that wrote it or an empty directory"
    )]
    MetaForeign {
        /// The directory.
        dir: String,
    },
    /// The directory of another node.
    #[error(
        "{dir} belongs to node {found}, this is node {expected}; check the node's number and its data directory"
    )]
    WrongNode {
        /// The directory.
        dir: String,
        /// Whose it is.
        found: u64,
        /// Who opens it.
        expected: u64,
    },
    /// The size of slots is fixed when a directory is created.
    #[error(
        "{dir} was created with slots of {found} bytes, not {expected}; open it with its own size"
    )]
    WrongSlotBytes {
        /// The directory.
        dir: String,
        /// What it has.
        found: u64,
        /// What was asked for.
        expected: u64,
    },
    /// A slot is absent although META, a higher-numbered slot or a checkpoint shows that it was there.
    #[error("{dir}/seg/{slot:08x}.seg is missing; restore it or rebuild this node from its peers")]
    SlotMissing {
        /// The directory.
        dir: String,
        /// The absent slot.
        slot: u32,
    },
    /// A slot has been cut or extended by somebody else.
    #[error(
        "{dir}/seg/{slot:08x}.seg is {found} bytes long instead of {expected}; restore it or rebuild this node from its peers"
    )]
    SlotLength {
        /// The directory.
        dir: String,
        /// Which slot.
        slot: u32,
        /// Its length.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// A promised frame is damaged.
    #[error(
        "the log in {dir} is damaged: {damage}; keep the directory and rebuild this node from its peers"
    )]
    Damaged {
        /// The directory.
        dir: String,
        /// Where and what.
        damage: Box<Damage>,
    },
    /// A segment of the chain is not there.
    #[error(
        "the log in {dir} is damaged: segment {number}, which segment {successor} names as the one before it, is not in any slot, and it may hold entries after {log_start}; keep the directory and rebuild this node from its peers"
    )]
    SegmentMissing {
        /// The directory.
        dir: String,
        /// The absent segment.
        number: u64,
        /// Who names it.
        successor: u64,
        /// Entries up to here are not needed from it.
        log_start: Position,
    },
    /// The device does not give bytes that would decide something. It may at another attempt.
    #[error(
        "{path} in {dir} cannot be read at byte {offset}, so what it holds cannot be told; try again, or rebuild this node from its peers"
    )]
    Unreadable {
        /// The directory.
        dir: String,
        /// The file in it.
        path: String,
        /// The first byte that cannot be read.
        offset: u64,
    },
    /// The device does not give the same bytes twice, and none of them verify: nobody knows what it holds. An open that
    /// is repeated may find an answer; nothing was cut.
    #[error(
        "seg/{slot:08x}.seg in {dir} does not give the same bytes twice at byte {offset}, so what it holds cannot be told; try again, or rebuild this node from its peers on another device"
    )]
    Unsteady {
        /// The directory.
        dir: String,
        /// The slot.
        slot: u32,
        /// The first byte of the frame in question, or 0 for the header of a segment.
        offset: u64,
    },
    /// Two slots claim the same segment.
    #[error(
        "the log in {dir} is damaged: slots {first:08x} and {second:08x} both claim to be segment {number}; keep the directory and rebuild this node from its peers"
    )]
    SegmentTwice {
        /// The directory.
        dir: String,
        /// The segment.
        number: u64,
        /// A slot.
        first: u32,
        /// The other slot.
        second: u32,
    },
    /// No checkpoint reaches the start of the log.
    #[error(
        "the log in {dir} starts after entry {log_start}, but the newest good checkpoint ends at {checkpoint}; keep the directory and rebuild this node from its peers"
    )]
    Gap {
        /// The directory.
        dir: String,
        /// The entry before the first stored one.
        log_start: u64,
        /// The last entry of the newest good checkpoint; 0 when there is none.
        checkpoint: u64,
    },
    /// The log ends before what a checkpoint of this node holds.
    #[error(
        "the log in {dir} ends at entry {last}, before the checkpoint at {checkpoint} that was made from it; keep the directory and rebuild this node from its peers"
    )]
    Short {
        /// The directory.
        dir: String,
        /// The last entry of the log.
        last: u64,
        /// The last entry of the checkpoint.
        checkpoint: u64,
    },
    /// A checkpoint is damaged and the log does not reach what it held.
    #[error(
        "{dir}/ckpt/{index:016x}.ckpt fails its {check} check, and the log ends at {last} before it; keep the directory and rebuild this node from its peers"
    )]
    CheckpointLost {
        /// The directory.
        dir: String,
        /// The checkpoint's index.
        index: u64,
        /// What it failed.
        check: Check,
        /// The last entry of the log.
        last: u64,
    },
    /// A checkpoint's body is not what was verified at the open, or its reader refused it.
    #[error("{dir}/ckpt/{index:016x}.ckpt: {what}")]
    CheckpointUnusable {
        /// The directory.
        dir: String,
        /// The checkpoint's index.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// No space for the first files.
    #[error("no space for the first slots in {dir}; free at least {bytes} bytes: {source}")]
    NoSpace {
        /// The directory.
        dir: String,
        /// What is needed.
        bytes: u64,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
}

/// Why the engine has halted. Whatever was pending has an unknown outcome; nothing is acknowledged any more, and
/// every later call returns the same error. The caller exits and the next open recovers (P4).
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A write, sync, rename or directory sync was refused.
    #[error("{what}: {source}; the log has stopped, restart this node when the disk is sound")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// Caller's mistake: the application part of META is at most 64 KiB.
    #[error("application meta is {bytes} bytes long, at most {max} fit")]
    MetaTooLarge {
        /// What was given.
        bytes: usize,
        /// What fits.
        max: usize,
    },
}

/// Why a read has no result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Retry elsewhere: the log starts later; a checkpoint holds what was there.
    #[error("entries up to {log_start} are no longer in the log")]
    Gone {
        /// The entry before the first stored one.
        log_start: Position,
    },
    /// Caller's mistake: the log ends earlier.
    #[error("the log ends at {last}")]
    Beyond {
        /// The last entry.
        last: Position,
    },
    /// Retry elsewhere: the open has found these entries damaged, and nothing has repaired them.
    #[error("entries {} to {} are faulty: {}", .0.first, .0.last, .0.hole.damage)]
    Faulty(Box<FaultyRange>),
    /// Retry elsewhere: the bytes are not what was written.
    #[error("the log is damaged: {0}")]
    Damaged(Box<Damage>),
    /// Retry elsewhere: what lies there is not the value that was written.
    #[error("the value in {location} is damaged: it fails its {check} check")]
    ValueDamaged {
        /// Where it should be.
        location: Location,
        /// What it failed; [`Check::Address`] is another key.
        check: Check,
    },
    /// Retry elsewhere: a checkpoint block is not what was written.
    #[error("checkpoint {index} is damaged: block {block} fails its {check} check")]
    CheckpointDamaged {
        /// Which.
        index: u64,
        /// Its block.
        block: u64,
        /// What it failed.
        check: Check,
    },
    /// Retry elsewhere: the device did not give the bytes.
    #[error("{what}: {source}")]
    Io {
        /// What was read.
        what: String,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// Caller's mistake: there is no such checkpoint (any more). Pin it to keep it.
    #[error("there is no checkpoint at {index}")]
    NoCheckpoint {
        /// Which.
        index: u64,
    },
}

/// Why a checkpoint was not begun or did not end.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Caller's mistake: one at a time per origin, and one per index.
    #[error("a checkpoint of this origin or index is already being written")]
    InProgress,
    /// Caller's mistake: a local checkpoint never passes the durable index.
    #[error("entry {at} is not durable, the log is durable up to {durable}")]
    NotDurable {
        /// What was asked for.
        at: Position,
        /// The last durable entry.
        durable: Position,
    },
    /// There is already one at or above this index: the caller's mistake when it is begun; at its
    /// end, the one of the other origin was faster.
    #[error("a checkpoint at {newest} exists, {at} is not newer")]
    NotNewer {
        /// What was asked for.
        at: Position,
        /// The newest one.
        newest: Position,
    },
    /// Retry later: the file system is full.
    #[error("no space for a checkpoint: {source}")]
    NoSpace {
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// Retry later: what was read back is not what was written.
    #[error("the written checkpoint could not be verified: block {block} fails its {check} check")]
    Unverified {
        /// The block, counted from 0.
        block: u64,
        /// What it failed.
        check: Check,
    },
    /// The caller aborted it; never anything else.
    #[error("aborted")]
    Aborted,
}

/// Why the bytes of a file are not used while a directory is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unusable {
    /// They are there and are not what was written.
    Damaged(Check),
    /// The device refuses the block at this offset. At another attempt it may be what was written.
    Unreadable(u64),
}

impl From<Check> for Unusable {
    fn from(check: Check) -> Unusable {
        Unusable::Damaged(check)
    }
}

/// An operation whose failure ends the engine.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) source: io::Error,
}

impl From<Fault> for EngineError {
    fn from(Fault { what, source }: Fault) -> EngineError {
        EngineError::Io { what, source: Arc::new(source) }
    }
}
