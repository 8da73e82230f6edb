//! The unit of sharing: contiguous entries of one term and one kind over one shared body.
//!
//! Invariants: a batch is never empty; `ends` never falls and stays within `body`; the indices of
//! its entries do not overflow. Where one batch ends and the next begins is no part of the log's
//! identity: the same entries may be cut differently each time they are sent or read back.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{LogIndex, Term};

/// What an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Commands for the state machine.
    Normal,
    /// A new leader's first entry; no payload. Always alone in its batch.
    Noop,
    /// A membership. Always alone in its batch. (Reserved: fixed membership has no such entries.)
    Membership,
}

/// Contiguous entries of one term and one kind. Cloning and slicing cost two reference counts,
/// whatever the length. Two batches are equal when their entries are.
#[derive(Clone)]
pub struct Batch {
    term: Term,
    first: LogIndex,
    kind: Kind,
    /// The end of each payload within `body`, before slicing. `None`: `body` is the only payload.
    ends: Option<Arc<[u32]>>,
    /// Which of `ends` this slice holds.
    view: Range<u32>,
    body: Bytes,
}

impl Batch {
    /// Makes a batch of `payloads`, the first of them at `first`. A single payload is not copied.
    ///
    /// Requires: at least one payload, exactly one unless `kind` is [`Kind::Normal`]; together at
    /// most 4 GiB; `first` is not 0.
    pub fn new(term: Term, first: LogIndex, kind: Kind, payloads: &[Bytes]) -> Batch {
        if let [payload] = payloads {
            return Batch::single(term, first, kind, payload.clone());
        }
        let mut body = BytesMut::with_capacity(payloads.iter().map(Bytes::len).sum());
        let ends: Vec<u32> = payloads
            .iter()
            .map(|payload| {
                body.extend_from_slice(payload);
                u32::try_from(body.len()).expect("a batch holds at most 4 GiB")
            })
            .collect();
        Batch::from_body(term, first, kind, &ends, body.freeze())
            .expect("the ends were computed here, and the caller gave payloads that fit the kind")
    }

    /// A batch of one entry whose payload is `payload` itself.
    pub(crate) fn single(term: Term, first: LogIndex, kind: Kind, payload: Bytes) -> Batch {
        assert!(first > LogIndex(0));
        assert!(u32::try_from(payload.len()).is_ok());
        Batch { term, first, kind, ends: None, view: 0..1, body: payload }
    }

    /// Makes a batch of payloads that lie back to back in `body`, where payload `i` ends at
    /// `ends[i]`. Copies nothing of `body`. For decoding: returns `None` when the parts do not
    /// fit together, so that no byte from outside can make a batch that breaks a promise.
    pub fn from_body(
        term: Term,
        first: LogIndex,
        kind: Kind,
        ends: &[u32],
        body: Bytes,
    ) -> Option<Batch> {
        let count = u32::try_from(ends.len()).ok().filter(|&count| count > 0)?;
        let body_bytes = u32::try_from(body.len()).ok()?;
        let fits = *ends.last()? == body_bytes && ends.is_sorted();
        let alone = count == 1 || kind == Kind::Normal;
        let indexable = first > LogIndex(0) && first.0.checked_add(u64::from(count)).is_some();
        if !(fits && alone && indexable) {
            return None;
        }
        let ends = (count > 1).then(|| Arc::from(ends));
        Some(Batch { term, first, kind, ends, view: 0..count, body })
    }

    /// The term of the leader that made the entries.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The index of the first entry.
    pub fn first(&self) -> LogIndex {
        self.first
    }

    /// The index of the last entry.
    pub fn last(&self) -> LogIndex {
        LogIndex(self.first.0 + u64::from(self.count()) - 1)
    }

    /// What the entries are for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The size of all payloads together.
    pub fn bytes(&self) -> u32 {
        self.end_of(self.view.end - 1) - self.start_of(self.view.start)
    }

    /// The size of the largest payload.
    pub(crate) fn largest_bytes(&self) -> u32 {
        let sizes = self.view.clone().map(|at| self.end_of(at) - self.start_of(at));
        sizes.max().expect("a batch has at least one entry")
    }

    /// How many entries there are; at least 1.
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// Always `false`: a batch has at least one entry.
    pub fn is_empty(&self) -> bool {
        self.view.is_empty()
    }

    /// The payload of the entry at `index`, not copied.
    ///
    /// Requires: `first() <= index <= last()`.
    pub fn payload(&self, index: LogIndex) -> Bytes {
        let at = self.position(index);
        self.body.slice(self.start_of(at) as usize..self.end_of(at) as usize)
    }

    /// Every entry in order; payloads are not copied.
    pub fn entries(&self) -> impl Iterator<Item = (LogIndex, Bytes)> + '_ {
        (self.first.0..=self.last().0).map(|index| (LogIndex(index), self.payload(LogIndex(index))))
    }

    /// Where each payload ends within [`Batch::body`]; what [`Batch::from_body`] takes.
    pub fn ends(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        let start = self.start_of(self.view.start);
        (0..self.len()).map(move |at| {
            let at = u32::try_from(at).expect("a view counts in u32");
            self.end_of(self.view.start + at) - start
        })
    }

    /// The payloads back to back, not copied.
    pub fn body(&self) -> Bytes {
        let range = self.start_of(self.view.start)..self.end_of(self.view.end - 1);
        self.body.slice(range.start as usize..range.end as usize)
    }

    /// The entries `first..=last` of this batch.
    ///
    /// Requires: `self.first() <= first <= last <= self.last()`.
    #[must_use]
    pub fn slice(&self, first: LogIndex, last: LogIndex) -> Batch {
        assert!(first <= last);
        let view = self.position(first)..self.position(last) + 1;
        Batch { first, view, ..self.clone() }
    }

    /// How many entries from the front fit into `bytes_max`; may be 0.
    pub(crate) fn fitting(&self, bytes_max: u64) -> u64 {
        let start = u64::from(self.start_of(self.view.start));
        let fits = |end: &u32| u64::from(*end) - start <= bytes_max;
        match &self.ends {
            None => u64::from(u64::from(self.bytes()) <= bytes_max),
            Some(ends) => {
                let view = &ends[self.view.start as usize..self.view.end as usize];
                view.partition_point(fits) as u64
            }
        }
    }

    fn count(&self) -> u32 {
        self.view.end - self.view.start
    }

    /// The position within `ends` of the entry at `index`.
    fn position(&self, index: LogIndex) -> u32 {
        assert!(self.first <= index);
        assert!(index <= self.last());
        let offset = u32::try_from(index.0 - self.first.0).expect("a view counts in u32");
        self.view.start + offset
    }

    fn start_of(&self, at: u32) -> u32 {
        if at == 0 { 0 } else { self.end_of(at - 1) }
    }

    fn end_of(&self, at: u32) -> u32 {
        match &self.ends {
            Some(ends) => ends[at as usize],
            None => u32::try_from(self.body.len()).expect("checked when the batch was made"),
        }
    }
}

/// Copies the entries `from..=upto` of contiguous `batches` into `taken` while they fit into
/// `bytes_max`, but always at least one entry when `taken` is empty. Returns the bytes taken.
///
/// Requires: `from` lies in the first of `batches`.
pub(crate) fn take_front<'a>(
    batches: impl Iterator<Item = &'a Batch>,
    from: LogIndex,
    upto: LogIndex,
    bytes_max: u64,
    taken: &mut Vec<Batch>,
) -> u64 {
    let mut bytes = 0;
    for batch in batches {
        if batch.first() > upto || bytes > bytes_max {
            break;
        }
        let is_whole = from <= batch.first() && batch.last() <= upto;
        if is_whole && bytes + u64::from(batch.bytes()) <= bytes_max {
            bytes += u64::from(batch.bytes());
            taken.push(batch.clone());
            continue;
        }
        let wanted = batch.slice(batch.first().max(from), batch.last().min(upto));
        let at_least = u64::from(taken.is_empty());
        let fitting = wanted.fitting(bytes_max - bytes).max(at_least);
        if fitting > 0 {
            let last = LogIndex(wanted.first().0 + fitting - 1);
            let part = wanted.slice(wanted.first(), last);
            bytes += u64::from(part.bytes());
            taken.push(part);
        }
        if fitting < wanted.len() as u64 {
            break;
        }
    }
    bytes
}

impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        (self.term, self.first, self.kind) == (other.term, other.first, other.kind)
            && self.ends().eq(other.ends())
            && self.body() == other.body()
    }
}

impl Eq for Batch {}

impl Hash for Batch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.term, self.first, self.kind).hash(state);
        self.count().hash(state);
        self.ends().for_each(|end| end.hash(state));
        self.body().hash(state);
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} t{} {}..={}", self.kind, self.term, self.first, self.last())?;
        write!(f, " ({} B)", self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(payloads: &[&str]) -> Batch {
        let payloads: Vec<Bytes> =
            payloads.iter().map(|p| Bytes::copy_from_slice(p.as_bytes())).collect();
        Batch::new(Term(2), LogIndex(5), Kind::Normal, &payloads)
    }

    #[test]
    fn single_payload_is_not_copied() {
        let payload = Bytes::from(vec![7; 100]);
        let batch = Batch::new(Term(1), LogIndex(1), Kind::Normal, std::slice::from_ref(&payload));
        assert_eq!(batch.body().as_ptr(), payload.as_ptr());
        assert_eq!(batch.payload(LogIndex(1)).as_ptr(), payload.as_ptr());
    }

    #[test]
    fn slice_shares_the_body_and_keeps_its_indices() {
        let whole = batch(&["a", "", "ccc", "dd"]);
        let slice = whole.slice(LogIndex(6), LogIndex(7));
        assert_eq!((slice.first(), slice.last()), (LogIndex(6), LogIndex(7)));
        assert_eq!(slice.payload(LogIndex(6)), "");
        assert_eq!(slice.payload(LogIndex(7)), "ccc");
        assert_eq!(slice.payload(LogIndex(7)).as_ptr(), whole.payload(LogIndex(7)).as_ptr());
        assert_eq!(slice.ends().collect::<Vec<_>>(), [0, 3]);
        assert_eq!((slice.bytes(), slice.len()), (3, 2));
    }

    #[test]
    fn slice_equals_the_same_entries_made_anew() {
        let made = Batch::new(
            Term(2),
            LogIndex(6),
            Kind::Normal,
            &[Bytes::from_static(b"b"), Bytes::from_static(b"c")],
        );
        assert_eq!(batch(&["a", "b", "c"]).slice(LogIndex(6), LogIndex(7)), made);
    }

    #[test]
    fn parts_that_do_not_fit_together_make_no_batch() {
        let make = |first, kind, ends: &[u32], body: &'static [u8]| {
            Batch::from_body(Term(1), LogIndex(first), kind, ends, Bytes::from_static(body))
        };
        assert!(make(1, Kind::Normal, &[1, 3], b"abc").is_some());
        assert!(make(1, Kind::Normal, &[], b"").is_none());
        assert!(make(1, Kind::Normal, &[1, 2], b"abc").is_none());
        assert!(make(1, Kind::Normal, &[4], b"abc").is_none());
        assert!(make(1, Kind::Normal, &[2, 1, 3], b"abc").is_none());
        assert!(make(0, Kind::Normal, &[3], b"abc").is_none());
        assert!(make(u64::MAX, Kind::Normal, &[1, 3], b"abc").is_none());
        assert!(make(1, Kind::Noop, &[0, 0], b"").is_none());
    }

    #[test]
    fn take_front_takes_one_entry_even_when_it_is_too_large() {
        let batches = [batch(&["aaaa", "bb"])];
        let mut taken = Vec::new();
        let bytes = take_front(batches.iter(), LogIndex(5), LogIndex(6), 1, &mut taken);
        assert_eq!(bytes, 4);
        assert_eq!(taken, [batches[0].slice(LogIndex(5), LogIndex(5))]);
    }

    // After an entry that was taken although too large, an empty one still seemed to fit: nothing
    // was left of the limit, and it needs nothing.
    #[test]
    fn take_front_takes_nothing_after_an_entry_that_is_too_large() {
        let whole = batch(&["aaaa", ""]);
        let batches = [5, 6].map(|index| whole.slice(LogIndex(index), LogIndex(index)));
        let mut taken = Vec::new();
        let bytes = take_front(batches.iter(), LogIndex(5), LogIndex(6), 0, &mut taken);
        assert_eq!(bytes, 4);
        assert_eq!(taken, batches[..1]);
    }

    proptest! {
        #[test]
        fn encoded_slice_decodes_to_itself(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..20),
            cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
            let whole = Batch::new(Term(3), LogIndex(9), Kind::Normal, &payloads);
            let (a, b) = (cut.0.index(payloads.len()), cut.1.index(payloads.len()));
            let (a, b) = (a.min(b), a.max(b));
            let slice = whole.slice(LogIndex(9 + a as u64), LogIndex(9 + b as u64));
            let ends: Vec<u32> = slice.ends().collect();
            let decoded =
                Batch::from_body(Term(3), slice.first(), Kind::Normal, &ends, slice.body());
            prop_assert_eq!(decoded.as_ref(), Some(&slice));
            let listed: Vec<Bytes> = slice.entries().map(|(_, payload)| payload).collect();
            prop_assert_eq!(&listed, &payloads[a..=b]);
        }

        #[test]
        fn take_front_never_passes_its_limit_by_more_than_one_entry(
            sizes in prop::collection::vec(prop::collection::vec(0_usize..30, 1..6), 1..8),
            bytes_max in 0_u64..120,
        ) {
            let mut next = 1;
            let batches: Vec<Batch> = sizes.iter().map(|sizes| {
                let payloads: Vec<Bytes> = sizes.iter().map(|&n| Bytes::from(vec![0; n])).collect();
                let batch = Batch::new(Term(1), LogIndex(next), Kind::Normal, &payloads);
                next += payloads.len() as u64;
                batch
            }).collect();
            let mut taken = Vec::new();
            let bytes =
                take_front(batches.iter(), LogIndex(1), LogIndex(next - 1), bytes_max, &mut taken);
            let entries: usize = taken.iter().map(Batch::len).sum();
            prop_assert!(entries >= 1);
            prop_assert!(bytes <= bytes_max || entries == 1);
            let all: Vec<usize> = sizes.concat();
            prop_assert_eq!(bytes, all[..entries].iter().sum::<usize>() as u64);
            if let Some(next) = all.get(entries) {
                prop_assert!(bytes + *next as u64 > bytes_max);
            }
        }
    }
}
