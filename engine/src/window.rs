//! A stretch of a slot in memory while the slot is read piece by piece: bytes come in at its end and are done with from
//! its start on.

#![deny(clippy::indexing_slicing)]

/// Bytes of a slot that are not done with.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Those before `at` are done with, and dropped with the next piece.
    bytes: Vec<u8>,
    at: usize,
    /// Where the first byte that is not done with lies in the slot.
    start: u64,
}

impl Window {
    /// Where the first byte that is not done with lies in the slot.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The first byte of the slot that is not there yet.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.rest().len() as u64
    }

    /// What is not done with.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The bytes at [`Window::end`].
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next bytes are done with, as far as they are there.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.rest().len());
        self.at += bytes;
        self.start += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_at_the_end_and_go_at_the_start() {
        let mut window = Window::default();
        window.push(b"abcd");
        window.skip(3);
        assert_eq!((window.start(), window.end(), window.rest()), (3, 4, &b"d"[..]));
        window.push(b"ef");
        assert_eq!((window.start(), window.end(), window.rest()), (3, 6, &b"def"[..]));
        window.skip(10);
        assert_eq!((window.start(), window.end(), window.rest()), (6, 6, &b""[..]));
    }
}
