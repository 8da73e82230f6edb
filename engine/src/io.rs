//! The only way to a file: one trait, three implementations.
//!
//! Every call that can wait for the device is an [`Op`] with a [`Completion`]; nothing here blocks except
//! [`Disk::wait`]. Operations that are in flight together are unordered: whoever needs an order waits
//! for the first completion before submitting the second (pitfall rule P6).
//!
//! Paths are relative to the data directory and have at most one directory part. Files are named by the
//! [`FileId`] that their open returned.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::{AlignedBuf, Frame};
use crate::format::BLOCK_BYTES;

mod bell;
mod data_dir;
pub mod offline;
pub mod open;
mod path;
mod schedule;
pub mod syscall;
pub mod uring;

pub use data_dir::PageCache;

#[cfg(any(test, feature = "simulated"))]
pub mod simulated;

/// An open file of the data directory. Never reused within one `Disk`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

/// The caller's name for an operation; comes back in its [`Completion`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(pub u64);

/// Whose operation it is. The scheduler of a backend gives each class its share, commits first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// A frame somebody waits for; and what an open waits for, before there are any.
    Commit,
    /// A read somebody waits for.
    Read,
    /// Making of a slot that entries will soon wait for.
    Growth,
    /// Catch-up of a peer.
    CatchUp,
    /// Copying of live values, so that slots become free.
    Cleaning,
    /// Checkpoints and snapshots.
    Checkpoint,
    /// Making of slots ahead of need, and removals.
    Background,
    /// Looking for damage in what nobody reads.
    Scrub,
}

/// How an open treats a missing or an existing file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpenMode {
    /// The file must exist.
    Existing,
    /// The file must not exist; its directory entry is durable only after [`Op::SyncDir`].
    CreateNew,
}

/// What a completed write promises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WriteSync {
    /// The bytes survive a power cut once the completion has arrived.
    Durable,
    /// The bytes survive only after a later [`Op::Sync`] that was submitted after the completion.
    Deferred,
}

/// The bytes of a write. Owned by the disk until the completion arrives (P8).
#[derive(Clone, Debug)]
pub enum WriteBuf {
    /// A whole frame, shared with readers; immutable.
    Frame(Arc<Frame>),
    /// A private buffer.
    Owned(Arc<AlignedBuf>),
}

impl WriteBuf {
    /// The bytes to write; a multiple of 4,096 long and so aligned.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            WriteBuf::Frame(frame) => frame.as_slice(),
            WriteBuf::Owned(buf) => buf.as_slice(),
        }
    }
}

/// One operation.
#[derive(Debug)]
pub enum Op {
    /// Opens a file for reading and writing, without the page cache where the file system allows it.
    /// Completes with [`Done::Opened`].
    Open {
        /// Which.
        path: String,
        /// What must be there.
        mode: OpenMode,
    },
    /// Closes it; outstanding operations on it must have completed.
    Close {
        /// Which.
        file: FileId,
    },
    /// Reserves and sets the size, so that ENOSPC shows here and not at a write.
    Allocate {
        /// Which.
        file: FileId,
        /// Its size in bytes from now on.
        bytes: u64,
    },
    /// Writes the whole buffer. A short write is an error.
    Write {
        /// Where to.
        file: FileId,
        /// First byte, a multiple of 4,096.
        offset: u64,
        /// What.
        buf: WriteBuf,
        /// What the completion promises.
        sync: WriteSync,
    },
    /// Fills the buffer from `offset`; bytes beyond the end of the file make it a short read.
    /// Completes with [`Done::Read`].
    Read {
        /// Where from.
        file: FileId,
        /// First byte, a multiple of 4,096.
        offset: u64,
        /// Where to; comes back in the completion.
        buf: AlignedBuf,
    },
    /// Makes everything durable whose write completion had arrived before this was submitted.
    Sync {
        /// Which.
        file: FileId,
    },
    /// Makes creations, renames and removals in a directory durable. "" is the data directory itself.
    SyncDir {
        /// Which.
        path: String,
    },
    /// Replaces `to` by `from`, atomically; durable after [`Op::SyncDir`].
    Rename {
        /// The old path.
        from: String,
        /// The new path, in the same directory.
        to: String,
    },
    /// Removes a file; durable after [`Op::SyncDir`].
    Remove {
        /// Which.
        path: String,
    },
    /// Creates a directory if it is missing; durable after [`Op::SyncDir`] of "".
    MakeDir {
        /// Which.
        path: String,
    },
}

impl Op {
    /// How much of it is at the device at once.
    fn device_bytes(&self) -> usize {
        match self {
            Op::Write { buf, .. } => buf.as_slice().len(),
            Op::Read { buf, .. } => buf.len().min(READ_BYTES_MAX),
            Op::Open { .. }
            | Op::Close { .. }
            | Op::Allocate { .. }
            | Op::Sync { .. }
            | Op::SyncDir { .. }
            | Op::Rename { .. }
            | Op::Remove { .. }
            | Op::MakeDir { .. } => 0,
        }
    }

    /// Offsets are ours to get right: a device refuses what is not aligned.
    fn assert_aligned(&self) {
        if let Op::Write { offset, .. } | Op::Read { offset, .. } = self {
            assert!(offset.is_multiple_of(BLOCK_BYTES as u64));
        }
    }
}

/// The most that the real backends ask the device for at once; a longer read goes on where that ends. So what stands
/// before a commit in the device's queue does not grow with the length of a value.
const READ_BYTES_MAX: usize = 256 << 10;

/// What an operation brought.
#[derive(Debug)]
pub enum Done {
    /// Of `Open`.
    Opened {
        /// Its name from now on.
        file: FileId,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Of `Read`.
    Read {
        /// The buffer of the operation.
        buf: AlignedBuf,
        /// How many of its first bytes were read.
        read: usize,
    },
    /// Of everything else.
    Nothing,
}

/// The end of an operation. Every submitted operation gets exactly one.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub tag: Tag,
    /// How it ended. A backend has already resubmitted after EINTR and EAGAIN, never a sync; a short write is an error
    /// of kind `WriteZero`. An error on a write or a sync is final for the caller (P4).
    pub result: io::Result<Done>,
}

/// Wakes a thread that is in [`Disk::wait`], from any thread. Cheap when it is not waiting.
pub trait Wake: Send + Sync {
    /// The next or current `wait` returns.
    fn wake(&self);
}

/// All durable effects go through here.
pub trait Disk {
    /// Hands over an operation. Never blocks and never fails: errors come as completions.
    fn submit(&mut self, class: Class, tag: Tag, op: Op);

    /// Sends what was submitted to the device and appends what has completed. Never blocks.
    fn poll(&mut self, out: &mut Vec<Completion>);

    /// Sends what was submitted to the device, then blocks until a completion is there for [`Disk::poll`],
    /// the waker was called since the last `wait`, or `timeout` is over.
    fn wait(&mut self, timeout: Option<Duration>);

    /// Whether another thread may use it from now on. Some backends' operations in flight live and die with the thread
    /// that submitted them.
    fn may_move(&self) -> bool {
        true
    }

    /// The waker of this disk.
    fn waker(&self) -> Arc<dyn Wake>;

    /// The names in a directory, unsorted. Only while opening: this one blocks.
    fn list(&mut self, dir: &str) -> io::Result<Vec<String>>;

    /// `uring`, `syscall` or `simulated`, for status and logs.
    fn backend(&self) -> &'static str;

    /// Whether reads and writes bypass the page cache.
    fn is_direct(&self) -> bool;
}
