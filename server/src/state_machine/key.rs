//! A key or a lock's name as the tables hold it.
//!
//! A short one lies inside the tree's nodes and is compared as whole words, so that a search
//! follows no pointer and calls no function.

use std::cmp::Ordering;

/// Keys up to this long need no memory of their own: what 32 bytes leave beside two lengths.
const SHORT_BYTES_MAX: usize = 30;
const _: () = assert!(size_of::<Key>() == 32);

#[derive(Clone)]
pub(super) enum Key {
    /// The length, and the key padded with zeros.
    Short(u8, [u8; SHORT_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Key {
        let mut short = [0; SHORT_BYTES_MAX];
        let Some(place) = short.get_mut(..bytes.len()) else {
            return Key::Long(bytes.into());
        };
        place.copy_from_slice(bytes);
        Key::Short(u8::try_from(bytes.len()).expect("at most 30"), short)
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Key::Short(length, bytes) => &bytes[..usize::from(*length)],
            Key::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Key) -> Ordering {
        match (self, other) {
            // Where only the padding tells two keys apart, the shorter one comes first.
            (Key::Short(length, bytes), Key::Short(other_length, other_bytes)) => {
                compare_padded(bytes, other_bytes).then(length.cmp(other_length))
            }
            _ => self.as_slice().cmp(other.as_slice()),
        }
    }
}

#[inline]
fn compare_padded(a: &[u8; SHORT_BYTES_MAX], b: &[u8; SHORT_BYTES_MAX]) -> Ordering {
    // The last word overlaps the one before it, which is equal when it is looked at.
    for place in [0, 8, 16, SHORT_BYTES_MAX - 8] {
        let (a, b) = (ordered_word(a, place), ordered_word(b, place));
        if a != b {
            return a.cmp(&b);
        }
    }
    Ordering::Equal
}

#[inline]
#[expect(clippy::big_endian_bytes, reason = "such words order as their bytes do")]
fn ordered_word(bytes: &[u8; SHORT_BYTES_MAX], place: usize) -> u64 {
    let (word, _) = bytes[place..].split_first_chunk().expect("places leave room for a word");
    u64::from_be_bytes(*word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_order_as_their_bytes_do(
            shared in 0_usize..40,
            a in prop::collection::vec(0_u8..3, 0..40),
            b in prop::collection::vec(0_u8..3, 0..40),
        ) {
            let a = [vec![1; shared], a].concat();
            let b = [vec![1; shared], b].concat();
            let (key_a, key_b) = (Key::new(&a), Key::new(&b));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(key_a == key_b, a == b);
            prop_assert_eq!((key_a.as_slice(), key_b.as_slice()), (&a[..], &b[..]));
        }
    }

    #[test]
    fn zeros_at_the_end_of_a_key_are_not_padding() {
        let keys = (0..70).map(|length| Key::new(&vec![0; length])).collect::<Vec<_>>();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}
