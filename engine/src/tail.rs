//! Recent frames kept in memory, so that readers of the log's end need no disk: the loop finds them by their number,
//! readers on other threads by a location in them.
//!
//! Invariant: a frame that is not durable is never dropped, so a read never finds a place on disk that is not written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::buffer::Frame;
use crate::format::BLOCK_BYTES;
use crate::frame::FrameHeader;
use crate::types::Location;

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

impl TailFrame {
    fn place(&self) -> Location {
        Location::new(self.header.slot, u64::from(self.header.block) * BLOCK_BYTES as u64)
    }
}

/// Bytes of a frame in memory.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    pub(crate) frame: Arc<Frame>,
    /// Where they start in the frame's buffer.
    pub(crate) start: usize,
}

/// The tail, and whoever looks into it.
pub(crate) type SharedTail = Arc<RwLock<Tail>>;

/// The newest frames with records, oldest first.
#[derive(Debug)]
pub(crate) struct Tail {
    frames: VecDeque<TailFrame>,
    /// The number of the newest frame that starts at a place.
    seqs: BTreeMap<Location, u64>,
    /// See [`Tail::life`].
    lives: BTreeMap<u32, u64>,
    held_bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize) -> Tail {
        Tail {
            frames: VecDeque::new(),
            seqs: BTreeMap::new(),
            lives: BTreeMap::new(),
            held_bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(crate) fn push(&mut self, frame: TailFrame) {
        self.held_bytes += frame.held_bytes;
        let place = frame.place();
        // What starts within it is left of an earlier life of the slot.
        let end = place.plus(frame.header.frame_bytes());
        let stale: Vec<Location> = self.seqs.range(place..end).map(|(place, _)| *place).collect();
        for place in stale {
            self.seqs.remove(&place);
        }
        self.seqs.insert(place, frame.header.seq);
        self.lives.insert(frame.header.slot, frame.header.salt);
        self.frames.push_back(frame);
    }

    /// A segment of values with this salt is opened in the slot: nothing of it comes here, and what was kept of an earlier
    /// life is not its own.
    pub(crate) fn begin_life(&mut self, slot: u32, salt: u64) {
        self.lives.insert(slot, salt);
        self.seqs.retain(|place, _| place.slot() != slot);
    }

    /// Drops what is too much, oldest first, as far as it is durable.
    pub(crate) fn trim(&mut self, durable_seq: u64) {
        while self.held_bytes > self.bytes_max
            && self.frames.front().is_some_and(|frame| frame.header.seq <= durable_seq)
        {
            let dropped = self.frames.pop_front().expect("it was just seen");
            self.held_bytes -= dropped.held_bytes;
            let place = dropped.place();
            // In a slot that is used anew a newer frame may start there.
            if self.seqs.get(&place) == Some(&dropped.header.seq) {
                self.seqs.remove(&place);
            }
        }
    }

    pub(crate) fn find(&self, seq: u64) -> Option<&TailFrame> {
        let at = self.frames.binary_search_by_key(&seq, |frame| frame.header.seq).ok()?;
        self.frames.get(at)
    }

    /// The salt of the newest segment in a slot that has brought a record or values since the open; 0 before. A segment
    /// without any has no locations, so nobody needs to tell it apart.
    pub(crate) fn life(&self, slot: u32) -> u64 {
        self.lives.get(&slot).copied().unwrap_or(0)
    }

    /// The bytes from `location` on, if a frame in memory holds `bytes` of them.
    pub(crate) fn at(&self, location: Location, bytes: usize) -> Option<Cached> {
        let (place, seq) = self.seqs.range(..=location).next_back()?;
        let cached = self.find(*seq)?;
        if place.slot() != location.slot() {
            return None;
        }
        let within = usize::try_from(location.offset() - place.offset()).ok()?;
        let is_inside = within + bytes <= cached.header.frame_bytes();
        is_inside.then(|| Cached { frame: Arc::clone(&cached.frame), start: cached.start + within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::FramePool;
    use crate::frame::{FrameKind, Predecessor};
    use crate::types::{HardState, Position};

    const BLOCK: u64 = BLOCK_BYTES as u64;

    /// A frame of so many blocks that are filled with its number.
    fn frame(seq: u8, block: u32, blocks: usize) -> TailFrame {
        let pool = FramePool::default();
        let mut buf = pool.take(blocks * BLOCK_BYTES);
        buf.as_mut_slice().fill(seq);
        let header = FrameHeader {
            salt: 1,
            seq: seq.into(),
            durable_seq: 0,
            slot: 2,
            block,
            body_bytes: u32::try_from((blocks - 1) * BLOCK_BYTES).unwrap(),
            table_crc: 0,
            record_count: 1,
            kind: FrameKind::Data,
            replaces: false,
            hard_state: HardState::default(),
            first_index: 0,
            last: Position::default(),
            prev: Predecessor::default(),
        };
        TailFrame { header, frame: pool.freeze(buf, blocks * BLOCK_BYTES), start: 0, held_bytes: 1 }
    }

    fn at(tail: &Tail, offset: u64) -> Option<u8> {
        let Cached { frame, start } = tail.at(Location::new(2, offset), 16)?;
        Some(frame.as_slice()[start])
    }

    /// A value in the second block of a new frame was looked for in an older one that started
    /// there when the slot was used before, and called damaged.
    #[test]
    fn frames_of_an_earlier_life_of_a_slot_do_not_hide_those_of_this_one() {
        let mut tail = Tail::new(100);
        for older in [frame(1, 1, 1), frame(2, 2, 1), frame(3, 3, 2)] {
            tail.push(older);
        }
        tail.push(frame(4, 1, 3));
        let found = [1, 2, 3].map(|block| at(&tail, block * BLOCK + 32));
        assert_eq!(found, [Some(4); 3]);
    }

    /// A value of the new life was looked for in a frame of the old one that lay at its place: the reader found another
    /// key there, and went to the disk.
    #[test]
    fn nothing_of_a_slot_is_found_when_a_segment_of_values_is_opened_in_it() {
        let mut tail = Tail::new(100);
        tail.push(frame(1, 1, 1));
        tail.push(frame(2, 2, 2));
        tail.begin_life(2, 9);
        assert_eq!([1, 2, 3].map(|block| at(&tail, block * BLOCK + 32)), [None; 3]);
        assert!(tail.find(2).is_some(), "a reader of the log still has its entries");
        assert_eq!((tail.life(2), tail.held_bytes()), (9, 2));
        // Used by the log again.
        tail.push(frame(3, 1, 1));
        tail.begin_life(1, 8);
        assert_eq!((at(&tail, BLOCK + 32), at(&tail, 2 * BLOCK + 32)), (Some(3), None));
    }

    #[test]
    fn what_was_dropped_or_reaches_beyond_a_frame_is_not_found() {
        let mut tail = Tail::new(1);
        tail.push(frame(1, 1, 1));
        tail.push(frame(2, 2, 1));
        assert_eq!(at(&tail, 2 * BLOCK - 8 - 8), Some(1));
        assert_eq!(tail.at(Location::new(2, 2 * BLOCK - 16), 17).map(|cached| cached.start), None);
        assert_eq!(tail.at(Location::new(1, BLOCK), 1).map(|cached| cached.start), None);
        tail.trim(1);
        assert_eq!((at(&tail, BLOCK), at(&tail, 2 * BLOCK)), (None, Some(2)));
    }
}
