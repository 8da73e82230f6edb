//! A key as the nodes hold it: a short one lies inside its item, so that comparing it follows no pointer.

/// Keys up to this long need no memory of their own: what 32 bytes leave beside a tag and a length.
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

    /// The shortest key above `low` and not above `high`.
    ///
    /// Requires: `low < high`.
    pub(super) fn between(low: &[u8], high: &[u8]) -> Key {
        assert!(low < high);
        Key::new(&high[..=common_prefix(low, high)])
    }

    /// How many bytes two keys begin with alike.
    pub(super) fn shared_bytes(&self, other: &Key) -> usize {
        common_prefix(self.as_slice(), other.as_slice())
    }

    /// Reads both ends of what lies inside its item.
    #[inline]
    pub(super) fn touch(&self) -> usize {
        match self {
            Key::Short(_, bytes) => bytes[SHORT_BYTES_MAX - 1].into(),
            Key::Long(bytes) => bytes.len(),
        }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Key::Short(length, bytes) => &bytes[..usize::from(*length)],
            Key::Long(bytes) => bytes,
        }
    }
}

/// Something that is ordered by a key.
pub(super) trait Keyed {
    fn key(&self) -> &Key;
}

impl Keyed for Key {
    fn key(&self) -> &Key {
        self
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_gives_back_its_bytes_at_every_length() {
        for length in 0..70 {
            let bytes = (0..length).collect::<Vec<u8>>();
            assert_eq!(Key::new(&bytes).as_slice(), bytes);
        }
    }

    proptest! {
        #[test]
        fn a_separator_is_above_the_lower_key_and_as_short_as_it_can_be(
            shared in 0_usize..40,
            a in prop::collection::vec(0_u8..3, 0..40),
            b in prop::collection::vec(0_u8..3, 0..40),
        ) {
            prop_assume!(a != b);
            let (a, b) = (a.clone().min(b.clone()), a.max(b));
            let (a, b) = ([vec![1; shared], a].concat(), [vec![1; shared], b].concat());
            let separator = Key::between(&a, &b);
            let separator = separator.as_slice();
            prop_assert!(&a[..] < separator && separator <= &b[..]);
            prop_assert!(separator[..separator.len() - 1] <= a[..]);
        }
    }
}
