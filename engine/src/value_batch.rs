//! The payload of a record of values: keys and values, each pair after its lengths.
//!
//! ```text
//!  0  key length (4)  value length (4)  checksum of the value (4)  zeros (4)
//! 16  key, value, zeros to the next multiple of 16
//! ```
//!
//! A location names the first byte of a key, here as in an entry.
#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Writer};
use crate::error::Check;
use crate::format::{RECORD_ALIGN_BYTES, VALUE_HEADER_BYTES};

/// What a key and its value take in a segment of values.
pub fn value_footprint(key_bytes: usize, value_bytes: usize) -> usize {
    (VALUE_HEADER_BYTES + key_bytes + value_bytes).next_multiple_of(RECORD_ALIGN_BYTES)
}

/// Keys and values on their way into a segment of values.
#[derive(Debug, Default)]
pub struct ValueBatch {
    payload: BytesMut,
}

impl ValueBatch {
    /// Adds a pair and says where its key lies from the start of the batch. `checksum` is the CRC-32 of the value.
    pub fn push(&mut self, key: &[u8], value: &[u8], checksum: u32) -> usize {
        let start = self.payload.len() + VALUE_HEADER_BYTES;
        self.payload.reserve(value_footprint(key.len(), value.len()));
        let mut header = [0; VALUE_HEADER_BYTES];
        Writer::new(&mut header).u32(length(key)).u32(length(value)).u32(checksum).zeros();
        self.payload.put_slice(&header);
        self.payload.put_slice(key);
        self.payload.put_slice(value);
        let end = self.payload.len().next_multiple_of(RECORD_ALIGN_BYTES);
        self.payload.resize(end, 0);
        start
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// What is to be appended. The batch is empty after it.
    pub fn take(&mut self) -> Bytes {
        self.payload.split().freeze()
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("what fits a frame is at most a quarter of 1 GiB")
}

/// A key and its value where they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredValue<'a> {
    /// Where the key starts, from the start of the payload; a multiple of 16.
    pub start: usize,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The CRC-32 of the value as whoever wrote it stated.
    pub checksum: u32,
}

/// The pairs in the payload of a record whose own checksum is right.
pub fn values_in(payload: &[u8]) -> impl Iterator<Item = Result<StoredValue<'_>, Check>> {
    let mut rest = Some(payload);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let Some((value, after)) = split_value(bytes, payload.len() - bytes.len()) else {
            return Some(Err(Check::Length));
        };
        rest = Some(after);
        Some(Ok(value))
    })
}

fn split_value(bytes: &[u8], before: usize) -> Option<(StoredValue<'_>, &[u8])> {
    let reader = &mut Reader::new(bytes);
    let (key_bytes, value_bytes) = (reader.u32()? as usize, reader.u32()? as usize);
    let checksum = reader.u32()?;
    let (_, pair) = bytes.split_at_checked(VALUE_HEADER_BYTES)?;
    let (key, pair) = pair.split_at_checked(key_bytes)?;
    let (value, _) = pair.split_at_checked(value_bytes)?;
    let (_, after) = bytes.split_at_checked(value_footprint(key_bytes, value_bytes))?;
    Some((StoredValue { start: before + VALUE_HEADER_BYTES, key, value, checksum }, after))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails, as it should")]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_found_where_it_was_said_to_lie() {
        let mut batch = ValueBatch::default();
        let pairs: [(&[u8], &[u8], u32); 3] = [(b"a", b"", 1), (b"", b"value", 2), (b"k", b"v", 3)];
        let starts: Vec<usize> =
            pairs.iter().map(|(key, value, checksum)| batch.push(key, value, *checksum)).collect();
        let footprints: usize =
            pairs.iter().map(|(k, v, _)| value_footprint(k.len(), v.len())).sum();
        assert_eq!(batch.len(), footprints);
        let payload = batch.take();
        assert!(batch.is_empty());
        let found: Vec<StoredValue<'_>> = values_in(&payload).map(Result::unwrap).collect();
        let expected = pairs.iter().zip(starts);
        let expected = expected.map(|((key, value, checksum), start)| StoredValue {
            start,
            key,
            value,
            checksum: *checksum,
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
        assert!(found.iter().all(|value| value.start.is_multiple_of(RECORD_ALIGN_BYTES)));
    }

    #[test]
    fn a_length_that_reaches_beyond_the_payload_ends_it_with_an_error() {
        let mut batch = ValueBatch::default();
        batch.push(b"key", b"value", 0);
        let payload = batch.take();
        for cut in 1..payload.len() {
            let found: Vec<_> = values_in(&payload[..cut]).collect();
            assert_eq!(found, [Err(Check::Length)], "{cut}");
        }
        for field in [0, 4] {
            let mut forged = payload.to_vec();
            forged.splice(field..field + 4, u32::MAX.to_le_bytes());
            assert_eq!(values_in(&forged).collect::<Vec<_>>(), [Err(Check::Length)]);
        }
    }
}
