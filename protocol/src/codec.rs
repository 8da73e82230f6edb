//! Reading and writing the primitives that bodies are made of.
//!
//! Integers are little-endian. A byte string is its length as `u32` and its bytes. An optional
//! field is one byte, 0 or 1, followed by the field if it is 1.

#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why a body is not the message that its frame's type says. The caller's mistake: nothing was
/// done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body ends inside a field.
    #[error("the body ends inside the field `{field}`: {wanted} bytes wanted, {left} left")]
    Truncated {
        /// Which field.
        field: &'static str,
        /// How many bytes the field still needs.
        wanted: usize,
        /// How many bytes are left.
        left: usize,
    },
    /// The body goes on after its last field.
    #[error("{left} bytes follow the last field of the body")]
    TrailingBytes {
        /// How many.
        left: usize,
    },
    /// A field holds a value that it cannot have.
    #[error("the field `{field}` cannot be {value}")]
    BadField {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A text is not UTF-8.
    #[error("the field `{field}` is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// No message of this direction has this type.
    #[error("no message here has the type {kind:#04x}")]
    UnknownKind {
        /// The type of the frame.
        kind: u8,
    },
}

/// Takes fields off the front of a body. Byte strings are slices of it, not copies.
pub(crate) struct Reader {
    body: Bytes,
}

impl Reader {
    pub(crate) fn new(body: Bytes) -> Reader {
        Reader { body }
    }

    /// Ends the reading; bytes that are left are an error.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.body.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes { left }),
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.want(field, size_of::<u8>())?;
        Ok(self.body.get_u8())
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.want(field, size_of::<u16>())?;
        Ok(self.body.get_u16_le())
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.want(field, size_of::<u32>())?;
        Ok(self.body.get_u32_le())
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.want(field, size_of::<u64>())?;
        Ok(self.body.get_u64_le())
    }

    pub(crate) fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        self.want(field, size_of::<u128>())?;
        Ok(self.body.get_u128_le())
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::BadField { field, value: u64::from(value) }),
        }
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.u32(field)?;
        let length = usize::try_from(length)
            .map_err(|_| DecodeError::BadField { field, value: u64::from(length) })?;
        self.want(field, length)?;
        Ok(self.body.split_to(length))
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes(field)?;
        String::from_utf8(bytes.into()).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// An optional field: its presence byte, then `read` if it is there.
    pub(crate) fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool(field)? { read(self).map(Some) } else { Ok(None) }
    }

    fn want(&self, field: &'static str, wanted: usize) -> Result<(), DecodeError> {
        let left = self.body.len();
        if left < wanted {
            return Err(DecodeError::Truncated { field, wanted, left });
        }
        Ok(())
    }
}

/// Appends a byte string.
///
/// Requires: it is shorter than 4 GiB.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a field of a message is shorter than 4 GiB");
    out.reserve(size_of::<u32>() + bytes.len());
    out.put_u32_le(length);
    out.put_slice(bytes);
}

/// Appends an optional field: its presence byte, then `write` if it is there.
pub(crate) fn put_optional<T>(
    out: &mut BytesMut,
    field: Option<T>,
    write: impl FnOnce(&mut BytesMut, T),
) {
    out.put_u8(u8::from(field.is_some()));
    if let Some(field) = field {
        write(out, field);
    }
}
