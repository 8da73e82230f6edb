//! `META`: whose directory this is. Written to a temporary file, synced, renamed, and the directory synced (P9).
//!
//! Invariant: `META` exists before any slot does, so that slots without it are not ours to use.

#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use crate::blocking::Blocking;
use crate::buffer::AlignedBuf;
use crate::codec::{Reader, Writer, crc};
use crate::error::{Check, OpenError};
use crate::format::{
    ALIGN_SHIFT, BLOCK_BYTES, CHECKSUM_CRC32_IEEE, FORMAT_VERSION, META_APPLICATION_BYTES_MAX,
    META_HEADER_BYTES, META_MAGIC, META_PATH, META_TEMPORARY_PATH,
};
use crate::io::{Op, WriteBuf, WriteSync};
use crate::mutant::{self, Mutant};
use crate::types::Meta;

/// The largest `META`, so that a length is checked before anything is allocated.
const META_BYTES_MAX: u64 = (BLOCK_BYTES + META_APPLICATION_BYTES_MAX) as u64;

/// Why bytes are not our `META`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MetaError {
    Foreign,
    Damaged(Check),
}

pub(crate) fn encode(meta: &Meta) -> AlignedBuf {
    assert!(meta.application.len() <= META_APPLICATION_BYTES_MAX);
    let mut file = AlignedBuf::zeroed(META_HEADER_BYTES + meta.application.len());
    let (magic, checked) = file.as_mut_slice().split_at_mut(12);
    let (fields, rest) = checked.split_at_mut(META_HEADER_BYTES - 12);
    let length = u32::try_from(meta.application.len()).expect("at most 64 KiB");
    Writer::new(fields)
        .u16(meta.format)
        .u8(ALIGN_SHIFT)
        .u8(CHECKSUM_CRC32_IEEE)
        .u128(meta.log_id)
        .u128(meta.incarnation)
        .u64(meta.node)
        .u64(meta.slot_bytes)
        .u32(meta.slots_min)
        .u32(length)
        .zeros();
    Writer::new(rest).bytes(&meta.application);
    let checksum = crc(checked);
    Writer::new(magic).bytes(&META_MAGIC).u32(checksum);
    file
}

pub(crate) fn decode(file: &[u8]) -> Result<Meta, MetaError> {
    let (magic, checked) = file.split_at_checked(12).ok_or(MetaError::Foreign)?;
    let mut reader = Reader::new(magic);
    if reader.bytes(8) != Some(&META_MAGIC) {
        return Err(MetaError::Foreign);
    }
    if reader.u32() != Some(crc(checked)) {
        return Err(MetaError::Damaged(Check::HeaderChecksum));
    }
    decode_fields(checked).ok_or(MetaError::Damaged(Check::Length))?
}

fn decode_fields(checked: &[u8]) -> Option<Result<Meta, MetaError>> {
    let (fields, rest) = checked.split_at_checked(META_HEADER_BYTES - 12)?;
    let reader = &mut Reader::new(fields);
    let format = reader.u16()?;
    if (format, reader.u8()?, reader.u8()?) != (FORMAT_VERSION, ALIGN_SHIFT, CHECKSUM_CRC32_IEEE) {
        return Some(Err(MetaError::Foreign));
    }
    let log_id = reader.u128()?;
    let incarnation = reader.u128()?;
    let node = reader.u64()?;
    let slot_bytes = reader.u64()?;
    let slots_min = reader.u32()?;
    let length = reader.u32()? as usize;
    let application = rest.get(..length)?.to_vec();
    Some(Ok(Meta { format, log_id, node, incarnation, slot_bytes, slots_min, application }))
}

/// Reads `META`, which exists.
pub(crate) fn load(io: &mut Blocking<'_>, dir: &str) -> Result<Meta, OpenError> {
    let (file, bytes) = io.open(META_PATH)?;
    let padded = bytes.clamp(1, META_BYTES_MAX).next_multiple_of(BLOCK_BYTES as u64);
    let mut content = Vec::new();
    let refused = io.read_range(file, 0, padded, &mut content);
    io.run("close", META_PATH, Op::Close { file })?;
    if let Some(&offset) = refused.first() {
        let (dir, path) = (dir.to_owned(), META_PATH.to_owned());
        return Err(OpenError::Unreadable { dir, path, offset });
    }
    content.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    decode(&content).map_err(|error| match error {
        MetaError::Foreign => OpenError::MetaForeign { dir: dir.to_owned() },
        MetaError::Damaged(check) => OpenError::MetaDamaged { dir: dir.to_owned(), check },
    })
}

/// Replaces `META`, durably.
pub(crate) fn store(io: &mut Blocking<'_>, meta: &Meta) -> Result<(), OpenError> {
    io.remove_if_there(META_TEMPORARY_PATH)?;
    let file = io.create(META_TEMPORARY_PATH)?;
    let buf = WriteBuf::Owned(Arc::new(encode(meta)));
    let write = Op::Write { file, offset: 0, buf, sync: WriteSync::Durable };
    io.run("write", META_TEMPORARY_PATH, write)?;
    io.run("sync", META_TEMPORARY_PATH, Op::Sync { file })?;
    io.run("close", META_TEMPORARY_PATH, Op::Close { file })?;
    io.rename(META_TEMPORARY_PATH, META_PATH)?;
    if mutant::is(Mutant::MetaDirNotSynced) {
        return Ok(());
    }
    io.sync_dir("")
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails, as it should")]
mod tests {
    use super::*;

    fn meta(application: &[u8]) -> Meta {
        Meta {
            format: FORMAT_VERSION,
            log_id: 1 << 100,
            node: 3,
            incarnation: 77,
            slot_bytes: 1 << 20,
            slots_min: 2,
            application: application.to_vec(),
        }
    }

    #[test]
    fn meta_comes_back_as_it_was_written() {
        for application in [&b""[..], b"abc", &vec![9; META_APPLICATION_BYTES_MAX]] {
            let file = encode(&meta(application));
            assert_eq!(decode(file.as_slice()), Ok(meta(application)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let file = encode(&meta(b"abc"));
        for bit in 0..file.len() * 8 {
            let mut flipped = file.as_slice().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        for bytes in 0..file.len() {
            assert!(decode(&file.as_slice()[..bytes]).is_err(), "{bytes} bytes");
        }
    }
}
