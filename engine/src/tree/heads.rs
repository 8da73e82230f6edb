//! Four bytes of each key of a node, side by side, which decide nearly every compare.

use super::fences::Fences;
use super::key::Keyed;
use std::cmp::Ordering;

/// How many items a leaf holds at most, and how many children an inner node.
pub(super) const FANOUT: usize = 64;

/// Twice as many bytes would be equal less often, but a search waits for every line of heads.
type Head = u32;

/// As many heads as a cache line holds.
const LINE: usize = 64 / size_of::<Head>();
const _: () = assert!(FANOUT.is_multiple_of(LINE));

/// Places beyond the last key: never below any key's head.
const VACANT: Head = Head::MAX;

/// The heads of a node's keys, in order.
#[derive(Clone)]
pub(super) struct Heads {
    /// All the node's keys share this many bytes, which are left out of the heads. It may be fewer than they do share.
    skip: u16,
    /// Whether every key that is looked for shares them too. Only a node at an edge of the tree has to compare them.
    fenced: bool,
    lines: [[Head; LINE]; FANOUT / LINE],
}

impl Heads {
    pub(super) const EMPTY: Heads =
        Heads { skip: 0, fenced: true, lines: [[VACANT; LINE]; FANOUT / LINE] };

    /// The heads of `sorted`, for a node with these fences.
    pub(super) fn of<T: Keyed>(sorted: &[T], fences: Fences<'_>) -> Heads {
        assert!(sorted.len() <= FANOUT);
        let mut heads = Heads::EMPTY;
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else {
            return heads;
        };
        let between = fences.shared_bytes();
        let shared = between.unwrap_or_else(|| first.key().shared_bytes(last.key()));
        heads.fenced = between.is_some();
        heads.skip = u16::try_from(shared).unwrap_or(u16::MAX);
        for (place, item) in heads.lines.as_flattened_mut().iter_mut().zip(sorted) {
            *place = head(item.key().as_slice(), heads.skip.into());
        }
        heads
    }

    /// Where `key` is in `sorted`, whose heads these are, or where it would have to be inserted.
    #[inline]
    pub(super) fn search<T: Keyed>(&self, sorted: &[T], key: &[u8]) -> Result<usize, usize> {
        let Some(own) = sorted.first() else {
            return Err(0);
        };
        if !self.fenced {
            match self.compare_prefix(own, key) {
                Ordering::Less => return Err(0),
                Ordering::Greater => return Err(sorted.len()),
                Ordering::Equal => {}
            }
        }
        let target = head(key, self.skip.into());
        let below = self.count_below(target);
        let alike = self.lines.as_flattened()[below..].iter().take_while(|head| **head == target);
        // A vacant place looks like a head of ones.
        let end = sorted.len().min(below + alike.count());
        match sorted[below..end].binary_search_by(|item| item.key().as_slice().cmp(key)) {
            Ok(at) => Ok(below + at),
            Err(at) => Err(below + at),
        }
    }

    /// Takes in the head of the key that has been inserted at `at`.
    pub(super) fn insert<T: Keyed>(&mut self, at: usize, sorted: &[T], fences: Fences<'_>) {
        let key = sorted[at].key().as_slice();
        let other = sorted.get(usize::from(at == 0));
        if !self.fenced && other.is_none_or(|other| self.compare_prefix(other, key).is_ne()) {
            *self = Heads::of(sorted, fences);
            return;
        }
        let words = self.lines.as_flattened_mut();
        words.copy_within(at..FANOUT - 1, at + 1);
        words[at] = head(key, self.skip.into());
    }

    pub(super) fn remove(&mut self, at: usize) {
        let words = self.lines.as_flattened_mut();
        words.copy_within(at + 1.., at);
        words[FANOUT - 1] = VACANT;
    }

    /// No branch depends on a head, so nothing is mispredicted, and looking at one head of each line first loads all
    /// lines at once.
    #[inline]
    fn count_below(&self, target: Head) -> usize {
        let count = |count: usize, head: &Head| count.wrapping_add(usize::from(*head < target));
        let line = self.lines.iter().map(|line| &line[0]).fold(0, count).saturating_sub(1);
        self.lines[line].iter().fold(line * LINE, count)
    }

    /// Reads the first word of every line of heads, and the last word of the last, as they need not begin where lines of
    /// the processor's caches do; see [`super::warm`].
    #[inline]
    pub(super) fn touch(&self) -> usize {
        let lines = self.lines.iter().fold(0, |sum, line| sum ^ line[0] as usize);
        lines ^ self.lines[FANOUT / LINE - 1][LINE - 1] as usize
    }

    /// Where a key with the head of `key` is, or would be.
    #[inline]
    pub(super) fn guess(&self, key: &[u8]) -> usize {
        let skip = usize::from(self.skip);
        if key.len() < skip { 0 } else { self.count_below(head(key, skip)) }
    }

    /// How the beginning of `key` compares with what the node's keys begin with, of which `own` is one.
    fn compare_prefix<T: Keyed>(&self, own: &T, key: &[u8]) -> Ordering {
        let skip = usize::from(self.skip);
        key.get(..skip).unwrap_or(key).cmp(&own.key().as_slice()[..skip])
    }

    #[cfg(test)]
    pub(super) fn check<T: Keyed>(&self, sorted: &[T], fences: Fences<'_>) {
        let skip = usize::from(self.skip);
        assert!(sorted.is_sorted_by(|a, b| a.key().as_slice() < b.key().as_slice()));
        assert!(!self.fenced || skip <= fences.shared_bytes().unwrap_or(0));
        for (at, place) in self.lines.as_flattened().iter().enumerate() {
            let expected = sorted.get(at).map_or(VACANT, |item| head(item.key().as_slice(), skip));
            assert_eq!(*place, expected);
        }
        for item in sorted {
            let key = item.key().as_slice();
            assert!(self.compare_prefix(&sorted[0], key).is_eq());
            assert!(fences.low.is_none_or(|low| low.as_slice() <= key));
            assert!(fences.high.is_none_or(|high| key < high.as_slice()));
        }
    }
}

/// The bytes of a key after its first `skip`, as many as a head has, padded with zeros: a number that orders as they do.
///
/// Requires: `skip <= key.len()`.
#[inline]
#[expect(clippy::big_endian_bytes, reason = "such words order as their bytes do; none is stored")]
fn head(key: &[u8], skip: usize) -> Head {
    let rest = &key[skip..];
    if let Some(bytes) = rest.first_chunk() {
        return Head::from_be_bytes(*bytes);
    }
    let missing = u32::try_from(size_of::<Head>() - rest.len()).expect("a few");
    match key.last_chunk() {
        // The last bytes begin before the rest: what is too much is shifted out, and zeros in.
        Some(bytes) => Head::from_be_bytes(*bytes).unbounded_shl(8 * missing),
        None => rest
            .iter()
            .fold(0, |head, byte| (head << 8) | Head::from(*byte))
            .unbounded_shl(8 * missing),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    #[test]
    fn a_head_is_the_padded_bytes_after_the_prefix() {
        for length in 0..40_u8 {
            let key = (1..=length).collect::<Vec<u8>>();
            for skip in 0..=key.len() {
                let padded = [&key[skip..], &[0; size_of::<Head>()]].concat();
                let expected = padded[..size_of::<Head>()]
                    .iter()
                    .fold(0, |head, byte| head << 8 | Head::from(*byte));
                assert_eq!(head(&key, skip), expected, "{length} {skip}");
            }
        }
    }

    #[test]
    fn keys_with_equal_heads_and_heads_of_ones_are_told_apart() {
        let zeros = (0..20).map(|n| vec![0; n]);
        let ones = (0..20).map(|n| vec![255; n + 1]);
        let keys = zeros.chain(ones).map(|bytes| Key::new(&bytes)).collect::<Vec<_>>();
        let heads = Heads::of(&keys, Fences::NONE);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(heads.search(&keys, key.as_slice()), Ok(at));
        }
        assert_eq!(heads.search(&keys, &[255; 40]), Err(40));
        assert_eq!(heads.search(&keys, &[0; 40]), Err(20));
    }
}
