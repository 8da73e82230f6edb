//! Frames: what travels on a connection, in both directions.
//!
//! ```text
//!  byte   0       1       2       3       4       5       6       7
//!       +-------+-------+-------+-------+-------+-------+-------+-------+
//!     0 | 'H'     'F'     'D'   | version               checksum        |
//!       +-------+-------+-------+-------+-------+-------+-------+-------+
//!     8 |            length             | kind  | flags |   reserved    |
//!       +-------+-------+-------+-------+-------+-------+-------+-------+
//!    16 |                          request id                           |
//!       +-------+-------+-------+-------+-------+-------+-------+-------+
//!    24 | body: `length` bytes …
//! ```
//!
//! The magic comes first so that garbage is told from a frame by its first byte, and the length is
//! held against a cap before anything waits for it or makes room for it. The checksum is the
//! CRC-32/IEEE of bytes 0..4 followed by bytes 8 to the end of the body.

#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The first three bytes of every frame.
pub const MAGIC: [u8; 3] = *b"HFD";

/// The version of the frame layout, the fourth byte of every frame.
pub const FRAME_VERSION: u8 = 1;

/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 24;

const CHECKSUM_OFFSET: usize = 4;
const CHECKED_OFFSET: usize = 8;
const START: [u8; CHECKSUM_OFFSET] = [MAGIC[0], MAGIC[1], MAGIC[2], FRAME_VERSION];
const START_CHECKSUM: u32 = crc32_of_start();

const _: () = assert!(CHECKED_OFFSET == CHECKSUM_OFFSET + size_of::<u32>());
const _: () = assert!(HEADER_BYTES == CHECKED_OFFSET + 4 + 1 + 1 + 2 + 8);

/// What a frame says about its body.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// What the body is: a constant of [`kind`](crate::kind).
    pub kind: u8,
    /// Matches a reply to its request. Chosen by the client; 0 is for the connection as a whole.
    pub request_id: u64,
    /// Bytes of the body.
    pub body_bytes: u32,
}

/// One whole frame. The body is a slice of the buffer that it was read into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Bytes,
}

/// Why bytes are not a frame. Nothing after them on the connection can be read: close it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes do not start like a frame.
    #[error(
        "this is not a holdfast frame: it starts with {found:02x?}; connect with a holdfast client"
    )]
    BadMagic {
        /// The first bytes, as many as had arrived, at most four.
        found: Vec<u8>,
    },
    /// The layout is of another version.
    #[error("frame version {found} is not supported, only version {FRAME_VERSION} is")]
    UnsupportedVersion {
        /// The version byte.
        found: u8,
    },
    /// The body would be longer than this connection may send now.
    #[error("a frame with a body of {length} bytes exceeds the limit of {max} bytes")]
    TooLong {
        /// What the header says.
        length: u32,
        /// The most that is taken.
        max: u32,
    },
    /// Bits that have no meaning yet are set.
    #[error("the frame's flags {flags:#04x} or reserved bytes {reserved:#06x} are not zero")]
    ReservedBits {
        /// The flags.
        flags: u8,
        /// The reserved bytes.
        reserved: u16,
    },
    /// The checksum does not match: the bytes were damaged on their way, or written by a faulty
    /// program.
    #[error("the frame's checksum is {stated:#010x} but its bytes give {computed:#010x}")]
    BadChecksum {
        /// What the header says.
        stated: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A request without a name of its own.
    #[error("a request has the id 0, which stands for the connection as a whole")]
    NoRequestId,
}

/// Takes one frame off the front of `buf`; `Ok(None)` when it has not arrived whole.
///
/// What is wrong with a header is reported as soon as its bytes are there. Nothing is allocated,
/// and nothing is copied: the body shares the buffer. `body_bytes_max` is the cap of the
/// connection's state: [`HANDSHAKE_BODY_BYTES_MAX`](crate::HANDSHAKE_BODY_BYTES_MAX) before the
/// handshake is done, then
/// [`Limits::request_body_bytes_max`](crate::Limits::request_body_bytes_max) for requests and
/// [`Limits::reply_body_bytes_max`](crate::Limits::reply_body_bytes_max) for replies.
pub fn decode(buf: &mut BytesMut, body_bytes_max: u32) -> Result<Option<Frame>, FrameError> {
    check_start(buf)?;
    let Some(mut fields) = buf.get(CHECKSUM_OFFSET..HEADER_BYTES) else {
        return Ok(None);
    };
    let stated = fields.get_u32_le();
    let length = fields.get_u32_le();
    let kind = fields.get_u8();
    let flags = fields.get_u8();
    let reserved = fields.get_u16_le();
    let request_id = fields.get_u64_le();

    if length > body_bytes_max {
        return Err(FrameError::TooLong { length, max: body_bytes_max });
    }
    if flags != 0 || reserved != 0 {
        return Err(FrameError::ReservedBits { flags, reserved });
    }
    let Some(checked) = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(HEADER_BYTES))
        .and_then(|frame_bytes| buf.get(CHECKED_OFFSET..frame_bytes))
    else {
        return Ok(None);
    };
    let computed = checksum(checked);
    if computed != stated {
        return Err(FrameError::BadChecksum { stated, computed });
    }
    let frame_bytes = CHECKED_OFFSET + checked.len();
    let mut body = buf.split_to(frame_bytes).freeze();
    body.advance(HEADER_BYTES);
    Ok(Some(Frame { header: Header { kind, request_id, body_bytes: length }, body }))
}

/// The same for what a client sends: a request's id is not 0.
pub fn decode_request(
    buf: &mut BytesMut,
    body_bytes_max: u32,
) -> Result<Option<Frame>, FrameError> {
    match decode(buf, body_bytes_max)? {
        Some(frame) if frame.header.request_id == 0 => Err(FrameError::NoRequestId),
        frame => Ok(frame),
    }
}

/// Appends one frame whose body `write_body` appends.
///
/// Requires: the body is shorter than 4 GiB.
pub fn encode(
    kind: u8,
    request_id: u64,
    out: &mut BytesMut,
    write_body: impl FnOnce(&mut BytesMut),
) {
    let start = begin(kind, request_id, out);
    write_body(out);
    finish(start, out);
}

/// Appends a header whose length and checksum [`finish`] fills in; answers where it begins.
pub(crate) fn begin(kind: u8, request_id: u64, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.reserve(2 * HEADER_BYTES);
    out.put_slice(&START);
    out.put_u32_le(0); // checksum
    out.put_u32_le(0); // length
    out.put_u8(kind);
    out.put_u8(0); // flags
    out.put_u16_le(0); // reserved
    out.put_u64_le(request_id);
    start
}

/// Completes the frame that [`begin`] started at `start` and that reaches to the end of `out`.
pub(crate) fn finish(start: usize, out: &mut BytesMut) {
    let frame = out.get_mut(start..).expect("`begin` appended the header at `start`");
    let (header, body) =
        frame.split_at_mut_checked(HEADER_BYTES).expect("`begin` appended a whole header");
    let length = u32::try_from(body.len()).expect("a body is shorter than 4 GiB");
    put_at(header, CHECKED_OFFSET, length);
    let checksum = checksum(frame.get(CHECKED_OFFSET..).expect("the frame has a whole header"));
    put_at(frame, CHECKSUM_OFFSET, checksum);
}

fn put_at(frame: &mut [u8], offset: usize, value: u32) {
    frame
        .get_mut(offset..offset + size_of::<u32>())
        .expect("the offset lies within a header")
        .copy_from_slice(&value.to_le_bytes());
}

/// The checksum of a frame of which `checked` is everything after the checksum.
fn checksum(checked: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(START_CHECKSUM);
    hasher.update(checked);
    hasher.finalize()
}

/// Looks at as much of the first four bytes as has arrived.
fn check_start(buf: &[u8]) -> Result<(), FrameError> {
    let arrived = buf.get(..CHECKSUM_OFFSET.min(buf.len())).unwrap_or_default();
    if START.starts_with(arrived) {
        return Ok(());
    }
    match arrived {
        [magic @ .., version] if *magic == MAGIC => {
            Err(FrameError::UnsupportedVersion { found: *version })
        }
        _ => Err(FrameError::BadMagic { found: arrived.to_vec() }),
    }
}

/// CRC-32/IEEE of [`START`], bit by bit, at compile time: the checksum of every frame starts from
/// here.
const fn crc32_of_start() -> u32 {
    let bytes = u32::from_le_bytes(START);
    let mut crc = !bytes;
    let mut bit = 0;
    while bit < u32::BITS {
        crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        bit += 1;
    }
    !crc
}
