//! Values by location: verified, from memory where a recent frame holds them, else from the disk, many at once.
//!
//! A location may name the wrong bytes only if the slot was used anew, or is damaged. So nothing is returned that is not
//! the key asked for, followed by a value of the right length and checksum.
//!
//! Invariant: a span is read once for all values of one request that lie in it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::AlignedBuf;
use crate::cache::ValueCache;
use crate::codec::crc;
use crate::error::{Check, ReadError};
use crate::format::{BLOCK_BYTES, slot_path};
use crate::mutant::{self, Mutant};
use crate::pins::{Pin, Pins};
use crate::slots::SlotTable;
use crate::tail::{Cached, SharedTail};
use crate::types::{Location, Wanted};

/// Values that lie near each other are read together up to this size.
const SPAN_BYTES_MAX: u64 = 256 << 10;
/// Bytes between two values that are read rather than asked for apart.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// Reads what is in memory, on any thread.
#[derive(Clone, Debug)]
pub struct Reader {
    tail: SharedTail,
    cache: Arc<ValueCache>,
    pins: Arc<Pins>,
}

impl Reader {
    pub(crate) fn new(tail: SharedTail, cache_bytes_max: usize, pins: Arc<Pins>) -> Reader {
        Reader { tail, cache: Arc::new(ValueCache::new(cache_bytes_max)), pins }
    }

    /// Keeps every slot from being reused that is in use now.
    ///
    /// Requires: it is taken before a location is looked up, or while what guards the index still holds; and kept until
    /// [`crate::Engine::read_values`] has been called.
    pub fn pin(&self) -> Pin {
        self.pins.pin()
    }

    /// The value, if it is in memory: in a recent frame, whose memory it shares, or in the cache. What is damaged there
    /// is treated as absent: the disk decides.
    pub fn recent(&self, wanted: &Wanted) -> Option<Bytes> {
        let bytes = match self.look(wanted.location, wanted.bytes()) {
            Found::InFrame(cached) => cached.frame.slice(cached.start, wanted.bytes()),
            Found::Kept(bytes) => bytes,
            Found::Nothing => return None,
        };
        wanted.take_from(&bytes).ok()
    }

    /// The same, passed to `take` without a copy or a reference that outlives the call.
    pub fn with_recent<R>(
        &self,
        location: Location,
        key: &[u8],
        (value_bytes, checksum): (u32, u32),
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let length = key.len() + value_bytes as usize;
        let found = self.look(location, length);
        let bytes = match &found {
            Found::InFrame(cached) => {
                cached.frame.as_slice().get(cached.start..cached.start + length)?
            }
            Found::Kept(bytes) => bytes,
            Found::Nothing => return None,
        };
        let (own_key, value) = bytes.split_at_checked(key.len())?;
        (bytes.len() == length && own_key == key && crc(value) == checksum).then(|| take(value))
    }

    /// Keeps a value that the disk has just brought: while its read is under way a slot stays in the same life.
    fn keep(&self, wanted: &Wanted, value: &[u8]) {
        let life = self.tail.read().life(wanted.location.slot());
        self.cache.put(wanted, value, life);
    }

    fn look(&self, location: Location, bytes: usize) -> Found {
        let tail = self.tail.read();
        if let Some(cached) = tail.at(location, bytes) {
            return Found::InFrame(cached);
        }
        let life = tail.life(location.slot());
        drop(tail);
        self.cache.get(location, life).map_or(Found::Nothing, Found::Kept)
    }

    /// What the cache holds, overheads included.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cache.held_bytes()
    }
}

/// Where in memory the bytes at a location are.
enum Found {
    InFrame(Cached),
    Kept(Bytes),
    Nothing,
}

impl Wanted {
    /// Key and value.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value_bytes as usize
    }

    fn end(&self) -> u64 {
        self.location.offset() + self.bytes() as u64
    }

    /// The value out of key and value, if that is what they are.
    fn take_from(&self, bytes: &Bytes) -> Result<Bytes, ReadError> {
        let damaged = |check| ReadError::ValueDamaged { location: self.location, check };
        if bytes.len() < self.bytes() {
            return Err(damaged(Check::Unreadable));
        }
        let (key, value) =
            (bytes.slice(..self.key.len()), bytes.slice(self.key.len()..self.bytes()));
        if mutant::is(Mutant::ValueNotVerified) {
            return Ok(value);
        }
        if key != self.key {
            return Err(damaged(Check::Address));
        }
        if crc(&value) != self.checksum {
            return Err(damaged(Check::BodyChecksum));
        }
        Ok(value)
    }
}

/// Adjacent blocks of one slot, and which values of a request lie in them.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) slot: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) values: Vec<usize>,
}

/// Whether values that are read may be wanted again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// They are kept in memory while there is room.
    Again,
    /// They are not, as those of a snapshot.
    Once,
}

/// One request for values.
#[derive(Debug)]
pub(crate) struct ValuesRead {
    pub(crate) id: u64,
    reading: Reading,
    wanted: Vec<Wanted>,
    results: Vec<Option<Result<Bytes, ReadError>>>,
    /// Spans that the disk has not answered.
    pub(crate) outstanding: usize,
}

impl ValuesRead {
    pub(crate) fn new(id: u64, wanted: Vec<Wanted>, reading: Reading) -> ValuesRead {
        let results = std::iter::repeat_with(|| None).take(wanted.len()).collect();
        ValuesRead { id, reading, wanted, results, outstanding: 0 }
    }

    /// Takes what is in memory and says what must come from the disk, in its order there.
    /// What would lie beyond the slots that there are, or beyond the end of its own, is as good as damaged.
    pub(crate) fn plan(&mut self, reader: &Reader, slots: &SlotTable) -> Vec<Span> {
        let mut missing: Vec<usize> = Vec::new();
        for (at, wanted) in self.wanted.iter().enumerate() {
            let (location, check) = (wanted.location, Check::Range);
            let is_inside =
                (location.slot() as usize) < slots.count() && wanted.end() <= slots.slot_bytes();
            self.results[at] = if is_inside {
                reader.recent(wanted).map(Ok)
            } else {
                Some(Err(ReadError::ValueDamaged { location, check }))
            };
            if self.results[at].is_none() {
                missing.push(at);
            }
        }
        missing.sort_unstable_by_key(|at| self.wanted[*at].location);
        let mut spans: Vec<Span> = Vec::new();
        for at in missing {
            let wanted = &self.wanted[at];
            let block = BLOCK_BYTES as u64;
            let start = wanted.location.offset() / block * block;
            let end = wanted.end().next_multiple_of(block);
            match spans.last_mut() {
                Some(span) if span.takes(wanted.location.slot(), start, end) => {
                    span.end = span.end.max(end);
                    span.values.push(at);
                }
                _ => {
                    let slot = wanted.location.slot();
                    spans.push(Span { slot, start, end, values: vec![at] });
                }
            }
        }
        self.outstanding = spans.len();
        spans
    }

    /// The disk has answered for a span.
    pub(crate) fn arrived(
        &mut self,
        span: &Span,
        bytes: io::Result<(AlignedBuf, usize)>,
        reader: &Reader,
    ) {
        self.outstanding -= 1;
        match bytes {
            Err(source) => {
                let (what, source) = (format!("read {}", slot_path(span.slot)), Arc::new(source));
                for at in &span.values {
                    let (what, source) = (what.clone(), Arc::clone(&source));
                    self.results[*at] = Some(Err(ReadError::Io { what, source }));
                }
            }
            Ok((buf, count)) => {
                let whole = Bytes::from_owner(buf);
                let whole = whole.slice(..count.min(whole.len()));
                for at in &span.values {
                    let wanted = &self.wanted[*at];
                    let start = usize::try_from(wanted.location.offset() - span.start)
                        .expect("a span is small")
                        .min(whole.len());
                    let value = wanted.take_from(&whole.slice(start..));
                    if let (Reading::Again, Ok(value)) = (self.reading, &value) {
                        reader.keep(wanted, value);
                    }
                    self.results[*at] = Some(value);
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<Result<Bytes, ReadError>> {
        let results = self.results.into_iter();
        results.map(|result| result.expect("every span has been answered")).collect()
    }
}

impl Span {
    fn takes(&self, slot: u32, start: u64, end: u64) -> bool {
        self.slot == slot
            && start <= self.end + GAP_BYTES_MAX
            && end.max(self.end) - self.start <= SPAN_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::RwLock;

    use crate::io::FileId;
    use crate::options::Options;
    use crate::tail::Tail;

    fn wanted(offset: u64, bytes: u32) -> Wanted {
        let key = Bytes::from_static(b"key");
        Wanted { location: Location::new(3, offset), key, value_bytes: bytes, checksum: 0 }
    }

    fn spans_of(wanted: Vec<Wanted>) -> Vec<(u64, u64, Vec<usize>)> {
        let tail = Arc::new(RwLock::new(Tail::new(0)));
        let reader = Reader::new(tail, 0, Arc::default());
        let mut read = ValuesRead::new(1, wanted, Reading::Once);
        let files = (0..4).map(FileId).collect();
        let options = Options { slot_bytes: 4 << 20, slots_ready: 1, ..Options::default() };
        let spans = read.plan(&reader, &SlotTable::new(files, &options));
        spans.into_iter().map(|span| (span.start, span.end, span.values)).collect()
    }

    #[test]
    fn values_near_each_other_are_read_at_once_and_others_apart() {
        let spans = spans_of(vec![wanted(1 << 20, 10), wanted(8_192, 5_000), wanted(16, 100)]);
        assert_eq!(spans, [(0, 16_384, vec![2, 1]), (1 << 20, (1 << 20) + 4_096, vec![0])]);
    }

    #[test]
    fn a_span_ends_at_its_limit_unless_one_value_is_larger() {
        let spans = spans_of(vec![wanted(0, 1 << 20), wanted(1 << 21, 200_000)]);
        assert_eq!(spans.len(), 2);
        let many = (0..100).map(|at| wanted(at * 4_096, 4_000)).collect();
        let spans = spans_of(many);
        assert_eq!(spans.len(), 2);
        assert!(spans.iter().all(|(start, end, _)| end - start <= SPAN_BYTES_MAX));
    }

    #[test]
    fn bytes_that_are_another_key_or_another_value_are_refused() {
        let value = b"value";
        let mut right = wanted(0, 5);
        right.checksum = crc(value);
        let bytes = Bytes::from_static(b"keyvalue and more");
        assert_eq!(right.take_from(&bytes).unwrap(), &value[..]);
        let other_key = Wanted { key: Bytes::from_static(b"kez"), ..right.clone() };
        let other_length = Wanted { value_bytes: 4, ..right.clone() };
        let other_value = Wanted { checksum: 1, ..right.clone() };
        for wrong in [other_key, other_length, other_value] {
            assert!(wrong.take_from(&bytes).is_err(), "{wrong:?}");
        }
        assert!(right.take_from(&bytes.slice(..7)).is_err());
    }
}
