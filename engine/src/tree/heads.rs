//! Eight bytes of each key of a node, side by side, which decide nearly every compare.

use super::fences::Fences;
use super::key::Keyed;

/// How many items a leaf holds at most, and how many children an inner node.
pub(super) const FANOUT: usize = 64;

/// Places beyond the last key: never below any key's head.
const VACANT: u64 = u64::MAX;

/// The heads of a node's keys, in order.
#[derive(Clone)]
pub(super) struct Heads {
    /// Every key that reaches the node is known to share this many bytes, which are left out of the heads. It may be
    /// fewer than the fences allow, never more.
    skip: usize,
    words: [u64; FANOUT],
}

impl Heads {
    pub(super) const EMPTY: Heads = Heads { skip: 0, words: [VACANT; FANOUT] };

    /// The heads of `sorted`, for a node with these fences.
    pub(super) fn of<T: Keyed>(sorted: &[T], fences: Fences<'_>) -> Heads {
        assert!(sorted.len() <= FANOUT);
        let skip = fences.shared_bytes();
        let mut words = [VACANT; FANOUT];
        for (place, item) in words.iter_mut().zip(sorted) {
            *place = word(item.key().as_slice(), skip);
        }
        Heads { skip, words }
    }

    /// Where `key` is in `sorted`, whose heads these are, or where it would have to be inserted.
    #[inline]
    pub(super) fn search<T: Keyed>(&self, sorted: &[T], key: &[u8]) -> Result<usize, usize> {
        let target = word(key, self.skip);
        // No branch depends on a head: the cache lines load together and nothing is mispredicted.
        let below =
            self.words.iter().fold(0_usize, |n, head| n.wrapping_add(usize::from(*head < target)));
        let alike = self.words[below..].iter().take_while(|head| **head == target).count();
        // A vacant place looks like a head of ones.
        let end = sorted.len().min(below + alike);
        match sorted[below..end].binary_search_by(|item| item.key().as_slice().cmp(key)) {
            Ok(at) => Ok(below + at),
            Err(at) => Err(below + at),
        }
    }

    /// Makes room for a key at `at`.
    ///
    /// Requires: fewer than `FANOUT` keys.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        self.words.copy_within(at..FANOUT - 1, at + 1);
        self.words[at] = word(key, self.skip);
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.words.copy_within(at + 1.., at);
        self.words[FANOUT - 1] = VACANT;
    }

    #[cfg(test)]
    pub(super) fn check<T: Keyed>(&self, sorted: &[T], fences: Fences<'_>) {
        assert!(self.skip <= fences.shared_bytes());
        assert!(sorted.is_sorted_by(|a, b| a.key().as_slice() < b.key().as_slice()));
        for (at, head) in self.words.iter().enumerate() {
            let expected = sorted.get(at).map_or(VACANT, |i| word(i.key().as_slice(), self.skip));
            assert_eq!(*head, expected);
        }
        for item in sorted {
            let key = item.key().as_slice();
            assert!(fences.low.is_none_or(|low| low.as_slice() <= key));
            assert!(fences.high.is_none_or(|high| key < high.as_slice()));
        }
    }
}

/// The eight bytes of a key after its first `skip`, padded with zeros, as a number that orders as they do.
///
/// Requires: `skip <= key.len()`.
#[inline]
#[expect(clippy::big_endian_bytes, reason = "such words order as their bytes do; none is stored")]
fn word(key: &[u8], skip: usize) -> u64 {
    let rest = &key[skip..];
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let Some(bytes) = key.last_chunk() else {
        return rest.iter().rfold(0, |word, byte| (word >> 8) | (u64::from(*byte) << 56));
    };
    // The last eight bytes begin before the rest: what is too much is shifted out, and zeros in.
    u64::from_be_bytes(*bytes).unbounded_shl(64 - 8 * u32::try_from(rest.len()).expect("below 8"))
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    #[test]
    fn a_word_is_the_padded_bytes_after_the_prefix() {
        for length in 0..40_u8 {
            let key = (1..=length).collect::<Vec<u8>>();
            for skip in 0..=key.len() {
                let mut padded = [&key[skip..], &[0; 8]].concat();
                padded.truncate(8);
                let expected = padded.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
                assert_eq!(word(&key, skip), expected, "{length} {skip}");
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
