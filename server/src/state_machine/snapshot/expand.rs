//! A snapshot for a peer out of a checkpoint of this node: the same bytes, with the values in place of their locations.
#![deny(clippy::indexing_slicing)]

use super::super::codec::Reader;
use super::{
    ANSWER_BYTES, HEADER_BYTES, KEY_HEADER_BYTES, LOCATION_BYTES, LOCK_HEADER_BYTES,
    SESSION_HEADER_BYTES, VALUE_HERE, VALUE_LOCATED, WAITER_BYTES,
};
use bytes::Bytes;
use engine::{Location, Wanted};

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The bytes of this value.
    Value(Wanted),
}

/// Turns a checkpoint into the pieces of a snapshot, as its bytes come. They were verified as this node's own: what does
/// not fit together is damage that only this code can have done.
#[derive(Debug, Default)]
pub struct Expander {
    buffer: Vec<u8>,
    /// Records that are still to come; none before the header.
    left: Option<Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    sessions: u64,
    locks: u64,
    keys: u64,
    /// What all values add.
    located_bytes: u64,
}

/// The checkpoint does not read as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the checkpoint's state does not read as one")]
pub struct NotAState;

impl Expander {
    /// How much longer the snapshot is than the checkpoint, once the header has been seen.
    pub fn located_bytes(&self) -> Option<u64> {
        self.left.map(|left| left.located_bytes)
    }

    /// Takes the next bytes of the state and appends the pieces that are whole. Returns how many bytes those have.
    pub fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<u64, NotAState> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let mut rest = buffer.as_slice();
        let mut added = 0;
        while !rest.is_empty() {
            let Some(length) = self.record_bytes(rest)? else { break };
            let Some((record, after)) = rest.split_at_checked(length) else { break };
            added += self.take(record, pieces).ok_or(NotAState)?;
            rest = after;
        }
        self.buffer = rest.to_vec();
        Ok(added)
    }

    /// The length of the record at the front; none if its own header is not there whole.
    fn record_bytes(&self, rest: &[u8]) -> Result<Option<usize>, NotAState> {
        let Some(left) = self.left else { return Ok(Some(HEADER_BYTES)) };
        let field = |at: usize| Reader::new(rest.get(at..)?).u32().map(|length| length as usize);
        let bytes = if left.sessions > 0 {
            let (label, answers) = (SESSION_HEADER_BYTES - 8, SESSION_HEADER_BYTES - 4);
            let lengths = field(label).zip(field(answers));
            lengths.map(|(label, answers)| SESSION_HEADER_BYTES + label + answers * ANSWER_BYTES)
        } else if left.locks > 0 {
            let lengths = field(0).zip(field(4));
            lengths.map(|(name, waiters)| LOCK_HEADER_BYTES + name + waiters * WAITER_BYTES)
        } else if left.keys > 0 {
            let lengths = field(0).zip(field(4)).zip(field(12));
            lengths.map(|((key, value), form)| {
                let located = form == VALUE_LOCATED as usize;
                KEY_HEADER_BYTES + key + if located { LOCATION_BYTES } else { value }
            })
        } else {
            return Err(NotAState);
        };
        Ok(bytes)
    }

    fn take(&mut self, record: &[u8], pieces: &mut Vec<Piece>) -> Option<u64> {
        let Some(left) = &mut self.left else {
            let mut reader = Reader::new(record.get(56..)?);
            let (sessions, locks, keys) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let located_bytes = reader.u64()?;
            self.left = Some(Left { sessions, locks, keys, located_bytes });
            return Some(put(record, pieces));
        };
        if left.sessions > 0 {
            left.sessions -= 1;
        } else if left.locks > 0 {
            left.locks -= 1;
        } else {
            left.keys -= 1;
            return take_key(record, pieces);
        }
        Some(put(record, pieces))
    }
}

fn take_key(record: &[u8], pieces: &mut Vec<Piece>) -> Option<u64> {
    let mut reader = Reader::new(record);
    let key_bytes = reader.u32()? as usize;
    let (value_bytes, checksum, form) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if form != VALUE_LOCATED {
        return Some(put(record, pieces));
    }
    let (before, after) = record.split_at_checked(12)?;
    let (_, after) = after.split_at_checked(4)?;
    let (middle, location) = after.split_at_checked(KEY_HEADER_BYTES - 16 + key_bytes)?;
    let key = middle.get(KEY_HEADER_BYTES - 16..)?;
    let location = Location::from_u64(Reader::new(location).u64()?)?;
    let bytes = put(before, pieces) + put(&VALUE_HERE.to_le_bytes(), pieces) + put(middle, pieces);
    let key = Bytes::copy_from_slice(key);
    pieces.push(Piece::Value(Wanted { location, key, value_bytes, checksum }));
    Some(bytes + u64::from(value_bytes))
}

/// Adds bytes to the last piece.
fn put(bytes: &[u8], pieces: &mut Vec<Piece>) -> u64 {
    if let Some(Piece::Bytes(last)) = pieces.last_mut() {
        last.extend_from_slice(bytes);
    } else {
        pieces.push(Piece::Bytes(bytes.to_vec()));
    }
    bytes.len() as u64
}
