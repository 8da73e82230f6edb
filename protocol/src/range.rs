//! A range of keys: from a start on, up to and without an end.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{DecodeError, Reader, put_bytes, put_optional};

/// The keys `start <= key < end`, in byte order. Without an end, all keys from `start` on.
///
/// A range whose end is not above its start holds no keys.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyRange {
    /// The first key that may be in the range; empty is before all keys.
    pub start: Bytes,
    /// The first key after the range.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange { start: Bytes::new(), end: None }
    }

    /// The keys from `start` on.
    pub fn from(start: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: start.into(), end: None }
    }

    /// The keys from `start` on, without `end` and what follows it.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start = prefix.into();
        let end = successor_of_prefix(&start);
        KeyRange { start, end }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= *key && self.end.as_ref().is_none_or(|end| *key < **end)
    }

    /// What is left of the range after `key`: where the next page begins.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> KeyRange {
        let mut start = BytesMut::with_capacity(key.len() + 1);
        start.put_slice(key);
        start.put_u8(0);
        KeyRange { start: start.freeze(), end: self.end.clone() }
    }

    pub(crate) fn encode_body(&self, out: &mut BytesMut) {
        put_bytes(out, &self.start);
        put_optional(out, self.end.as_ref(), |out, end| put_bytes(out, end));
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<KeyRange, DecodeError> {
        Ok(KeyRange {
            start: reader.bytes("range start")?,
            end: reader.optional("range end", |reader| reader.bytes("range end"))?,
        })
    }
}

/// The first key after all that begin with `prefix`: its last byte below 255 plus one, and nothing
/// after it.
fn successor_of_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = BytesMut::from(prefix.get(..=last)?);
    *end.last_mut()? += 1;
    Some(end.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_range_holds_what_begins_with_it_and_nothing_else() {
        let range = KeyRange::prefix("ab");
        for inside in [&b"ab"[..], b"ab\0", b"abz", b"ab\xff\xff"] {
            assert!(range.contains(inside), "{inside:?}");
        }
        for outside in [&b"aa\xff"[..], b"a", b"ac", b"b", b""] {
            assert!(!range.contains(outside), "{outside:?}");
        }
    }

    #[test]
    fn prefix_of_highest_bytes_has_no_end() {
        assert_eq!(KeyRange::prefix(&b"\xff\xff"[..]).end, None);
        assert_eq!(KeyRange::prefix(&b"a\xff"[..]).end, Some(Bytes::from_static(b"b")));
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
    }

    #[test]
    fn next_page_begins_right_after_the_last_key() {
        let page = KeyRange::between("a", "c").after(b"b");
        assert!(!page.contains(b"b"));
        assert!(page.contains(b"b\0"));
        assert!(!page.contains(b"c"));
    }
}
