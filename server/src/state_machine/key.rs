//! A key or a lock's name as the tables hold it: short ones lie inside the tree's nodes, where a
//! comparison finds them without following a pointer.

use std::borrow::Borrow;
use std::cmp::Ordering;

/// With the length byte and the enum's tag this makes a key 32 bytes.
const INLINE_BYTES_MAX: usize = 30;
const _: () = assert!(size_of::<Key>() == 32);

#[derive(Clone)]
pub(super) enum Key {
    Inline(u8, [u8; INLINE_BYTES_MAX]),
    Heap(Box<[u8]>),
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Key {
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= INLINE_BYTES_MAX => {
                let mut inline = [0; INLINE_BYTES_MAX];
                inline[..bytes.len()].copy_from_slice(bytes);
                Key::Inline(len, inline)
            }
            _ => Key::Heap(bytes.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Key::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Key::Heap(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_and_heap_keys_order_by_their_bytes_alone() {
        let mut keys = (0..70)
            .map(|len| Key::new(&vec![7; len]))
            .collect::<Vec<_>>();
        keys.reverse();
        keys.sort();
        let lengths = keys
            .iter()
            .map(|key| key.as_slice().len())
            .collect::<Vec<_>>();
        assert_eq!(lengths, (0..70).collect::<Vec<_>>());
        assert!(Key::new(&[8]) > Key::new(&[7; 40]));
    }
}
