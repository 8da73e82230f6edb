//! Aligned memory: what the device reads from and writes to.
//!
//! A [`Frame`] is immutable from its submission on and shared by reference with the disk and every reader;
//! its memory returns to the [`FramePool`] when the last reference is dropped.

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::format::BLOCK_BYTES;

/// Bytes whose address and length are multiples of 4,096.
pub struct AlignedBuf {
    storage: Box<[u8]>,
    start: usize,
    bytes: usize,
}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes`, rounded up to whole blocks.
    pub fn zeroed(bytes: usize) -> AlignedBuf {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES);
        let storage = vec![0; bytes + BLOCK_BYTES].into_boxed_slice();
        // The heap block never moves, so an offset found once stays aligned.
        let start = storage.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start + bytes <= storage.len());
        AlignedBuf { storage, start, bytes }
    }

    /// All of it.
    pub fn as_slice(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.bytes]
    }

    /// All of it, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.bytes]
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// An encoded frame: whole blocks, no longer changed.
pub struct Frame {
    buf: Option<AlignedBuf>,
    bytes: usize,
    home: Weak<Mutex<Vec<AlignedBuf>>>,
}

impl Frame {
    /// The frame's blocks.
    pub fn as_slice(&self) -> &[u8] {
        match &self.buf {
            Some(buf) => &buf.as_slice()[..self.bytes],
            None => &[],
        }
    }

    /// A part of it that keeps the frame alive and copies nothing.
    ///
    /// Requires: `start + bytes` lies within the frame.
    pub fn slice(self: &Arc<Frame>, start: usize, bytes: usize) -> Bytes {
        Bytes::from_owner(FrameRef(Arc::clone(self))).slice(start..start + bytes)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let (Some(buf), Some(home)) = (self.buf.take(), self.home.upgrade()) {
            let mut free = home.lock();
            if free.len() < FramePool::FREE_COUNT_MAX {
                free.push(buf);
            }
        }
    }
}

struct FrameRef(Arc<Frame>);

impl AsRef<[u8]> for FrameRef {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Keeps the memory of dropped frames for the next ones.
#[derive(Default)]
pub struct FramePool {
    free: Arc<Mutex<Vec<AlignedBuf>>>,
}

impl FramePool {
    const FREE_COUNT_MAX: usize = 8;

    /// A buffer of at least `bytes`. Its content is what its last user left.
    pub fn take(&self, bytes: usize) -> AlignedBuf {
        let mut free = self.free.lock();
        match free.iter().position(|buf| buf.len() >= bytes) {
            Some(at) => free.swap_remove(at),
            None => AlignedBuf::zeroed(bytes.next_power_of_two()),
        }
    }

    /// Makes the first `bytes` of a filled buffer a frame.
    ///
    /// Requires: `bytes` is a multiple of the block size and within the buffer.
    pub fn freeze(&self, buf: AlignedBuf, bytes: usize) -> Arc<Frame> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES));
        assert!(bytes <= buf.len());
        Arc::new(Frame { buf: Some(buf), bytes, home: Arc::downgrade(&self.free) })
    }
}
