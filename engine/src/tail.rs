//! Recent frames kept in memory, so that readers of the log's end need no disk.
//!
//! Invariant: a frame that is not durable is never dropped, so a read never finds a place on disk that is not written.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::buffer::Frame;
use crate::frame::FrameHeader;

/// A frame in memory.
#[derive(Clone, Debug)]
pub(crate) struct TailFrame {
    pub(crate) header: FrameHeader,
    pub(crate) frame: Arc<Frame>,
    /// Where the frame starts in the buffer: a segment header may precede it.
    pub(crate) start: usize,
    /// What the buffer takes in memory.
    pub(crate) held_bytes: usize,
}

/// The newest frames with entries, oldest first.
#[derive(Debug)]
pub(crate) struct Tail {
    frames: VecDeque<TailFrame>,
    held_bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Tail {
        Tail { frames: VecDeque::new(), held_bytes: 0, bytes_max }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(crate) fn push(&mut self, frame: TailFrame) {
        self.held_bytes += frame.held_bytes;
        self.frames.push_back(frame);
    }

    /// Drops what is too much, oldest first, as far as it is durable.
    pub(crate) fn trim(&mut self, durable_seq: u64) {
        while self.held_bytes > self.bytes_max
            && self.frames.front().is_some_and(|frame| frame.header.seq <= durable_seq)
        {
            let dropped = self.frames.pop_front().expect("it was just seen");
            self.held_bytes -= dropped.held_bytes;
        }
    }

    pub(crate) fn find(&self, seq: u64) -> Option<&TailFrame> {
        let at = self.frames.binary_search_by_key(&seq, |frame| frame.header.seq).ok()?;
        self.frames.get(at)
    }
}
