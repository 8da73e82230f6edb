//! Reads primitives from untrusted bytes: every length is checked before it is used.

use thiserror::Error;

/// The bytes do not say what they should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("malformed {what}")]
pub struct Malformed {
    /// Which part.
    pub what: &'static str,
}

/// A length as it is written, for things that our own limits keep below 4 GiB.
pub fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("our own limits are far below 4 GiB")
}

/// A cursor over bytes that may end anywhere.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed { what })?;
        self.rest = rest;
        Ok(taken)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Fails if anything is left.
    pub fn finish(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed { what }) }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed { what })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A byte that is 0 or 1.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed { what }),
        }
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, what: &'static str) -> Result<u128, Malformed> {
        self.array(what).map(u128::from_le_bytes)
    }

    /// A length (u16) and as many bytes of UTF-8.
    pub fn string(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let count = usize::from(self.u16(what)?);
        std::str::from_utf8(self.bytes(count, what)?).map_err(|_| Malformed { what })
    }
}
