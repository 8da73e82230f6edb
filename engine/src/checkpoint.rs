//! The bytes of a checkpoint: one header block, the body in checked blocks of 64 KiB, one footer block.
//! Encoding and decoding, no I/O.
//!
//! ```text
//!      0  header (4,096)      which log, which entry, how long; written last, when the length is known
//!  4,096  block 0 (65,536)    32 bytes of header, up to 65,504 bytes of what is stored: first the table of
//!                             the slots that hold values, then the body
//!      …  block n             the last one is cut to a multiple of 4,096
//!      …  footer (4,096)      the header's checksum and one over all blocks
//! ```
//!
//! Invariant: a file that has its final name was synced and read back whole before it got it (P18).

#![deny(clippy::indexing_slicing)]

use crate::codec::{Reader, Writer, crc};
use crate::error::Check;
use crate::format::{
    ALIGN_SHIFT, BLOCK_BYTES, CHECKPOINT_BLOCK_BODY_BYTES, CHECKPOINT_BLOCK_BYTES,
    CHECKPOINT_BLOCK_HEADER_BYTES, CHECKPOINT_BLOCK_MAGIC, CHECKPOINT_FOOTER_MAGIC,
    CHECKPOINT_HEADER_BYTES, CHECKPOINT_MAGIC, CHECKPOINT_SLOT_BYTES, CHECKPOINT_SLOTS_ALIGN_BYTES,
    CHECKSUM_CRC32_IEEE, FORMAT_VERSION, NUMBER_MAX,
};
use crate::types::{CheckpointInfo, Position};

const ORIGIN_LOCAL: u8 = 1;
const ORIGIN_INSTALLED: u8 = 2;

/// The first block of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CheckpointHeader {
    pub(crate) log_id: u128,
    pub(crate) node: u64,
    pub(crate) info: CheckpointInfo,
    /// In every block, so that none of another checkpoint passes.
    pub(crate) salt: u64,
    /// Over the checksums of all blocks.
    pub(crate) blocks_crc: u32,
}

impl CheckpointHeader {
    /// Writes the header block and returns its checksum.
    pub(crate) fn encode_into(&self, out: &mut [u8]) -> u32 {
        let (magic, checked) = out.split_at_mut(12);
        let CheckpointInfo { at, installed, keeps_after, body_bytes, durable_seq, slots_count } =
            self.info;
        Writer::new(checked)
            .u16(FORMAT_VERSION)
            .u8(ALIGN_SHIFT)
            .u8(CHECKSUM_CRC32_IEEE)
            .u128(self.log_id)
            .u64(self.node)
            .u64(u64::from(if installed { ORIGIN_INSTALLED } else { ORIGIN_LOCAL }))
            .u64(at.index)
            .u64(at.term)
            .u64(self.salt)
            .u64(durable_seq)
            .u64(body_bytes)
            .u64(block_count(self.info.stored_bytes()))
            .u32(self.blocks_crc)
            .u32(slots_count)
            .u64(keeps_after.index)
            .u64(keeps_after.term)
            .zeros();
        let checksum = crc(checked);
        Writer::new(magic).bytes(&CHECKPOINT_MAGIC).u32(checksum);
        checksum
    }

    /// Reads the header block of a file of `file_bytes`.
    pub(crate) fn decode(
        block: &[u8],
        log_id: u128,
        file_bytes: u64,
    ) -> Result<(CheckpointHeader, u32), Check> {
        let (block, _) = block.split_at_checked(CHECKPOINT_HEADER_BYTES).ok_or(Check::Length)?;
        let (magic, checked) = block.split_at_checked(12).ok_or(Check::Length)?;
        let mut reader = Reader::new(magic);
        if reader.bytes(8) != Some(&CHECKPOINT_MAGIC) {
            return Err(Check::Magic);
        }
        let checksum = crc(checked);
        if reader.u32() != Some(checksum) {
            return Err(Check::HeaderChecksum);
        }
        let mut reader = Reader::new(checked);
        let version = (reader.u16(), reader.u8(), reader.u8());
        if version != (Some(FORMAT_VERSION), Some(ALIGN_SHIFT), Some(CHECKSUM_CRC32_IEEE)) {
            return Err(Check::Version);
        }
        let header = CheckpointHeader::decode_fields(&mut reader).ok_or(Check::Length)?;
        if header.log_id != log_id {
            return Err(Check::LogId);
        }
        let CheckpointInfo { at, keeps_after, durable_seq, .. } = header.info;
        if at.index.max(durable_seq) > NUMBER_MAX || keeps_after.index > at.index {
            return Err(Check::Range);
        }
        match file_bytes_of(header.info.stored_bytes()) {
            Some(needed) if needed <= file_bytes => Ok((header, checksum)),
            _ => Err(Check::Length),
        }
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Option<CheckpointHeader> {
        let log_id = reader.u128()?;
        let node = reader.u64()?;
        let installed = match reader.u64()? {
            origin if origin == u64::from(ORIGIN_LOCAL) => false,
            origin if origin == u64::from(ORIGIN_INSTALLED) => true,
            _ => return None,
        };
        let at = Position { index: reader.u64()?, term: reader.u64()? };
        let salt = reader.u64()?;
        let durable_seq = reader.u64()?;
        let body_bytes = reader.u64()?;
        let stated_count = reader.u64()?;
        let blocks_crc = reader.u32()?;
        let slots_count = reader.u32()?;
        let keeps_after = Position { index: reader.u64()?, term: reader.u64()? };
        let info =
            CheckpointInfo { at, installed, keeps_after, body_bytes, durable_seq, slots_count };
        (stated_count == block_count(info.stored_bytes())).then_some(CheckpointHeader {
            log_id,
            node,
            info,
            salt,
            blocks_crc,
        })
    }

    /// The block that ends the file.
    pub(crate) fn encode_footer_into(&self, header_crc: u32, out: &mut [u8]) {
        let (magic, checked) = out.split_at_mut(12);
        Writer::new(checked)
            .u32(header_crc)
            .u64(self.salt)
            .u64(self.info.at.index)
            .u64(self.info.body_bytes)
            .u32(self.blocks_crc)
            .zeros();
        let checksum = crc(checked);
        Writer::new(magic).bytes(&CHECKPOINT_FOOTER_MAGIC).u32(checksum);
    }

    /// Whether these bytes are this header's footer.
    pub(crate) fn check_footer(&self, header_crc: u32, block: &[u8]) -> Result<(), Check> {
        let mut expected = [0; CHECKPOINT_HEADER_BYTES];
        self.encode_footer_into(header_crc, &mut expected);
        if block == expected { Ok(()) } else { Err(Check::Footer) }
    }
}

/// The table of slots as it is stored before the body.
pub(crate) fn encode_slots(slots: &[u32]) -> Vec<u8> {
    let bytes = slots.len() * CHECKPOINT_SLOT_BYTES;
    let mut table = Vec::with_capacity(bytes.next_multiple_of(CHECKPOINT_SLOTS_ALIGN_BYTES));
    for slot in slots {
        table.extend_from_slice(&slot.to_le_bytes());
    }
    table.resize(table.len().next_multiple_of(CHECKPOINT_SLOTS_ALIGN_BYTES), 0);
    table
}

/// The slots of a table.
pub(crate) fn decode_slots(table: &[u8], count: u32) -> Option<Vec<u32>> {
    let mut reader = Reader::new(table);
    (0..count).map(|_| reader.u32()).collect()
}

/// How many blocks hold this many body bytes.
pub(crate) fn block_count(body_bytes: u64) -> u64 {
    body_bytes.div_ceil(CHECKPOINT_BLOCK_BODY_BYTES as u64)
}

/// Where a block lies in the file.
pub(crate) fn block_offset(number: u64) -> u64 {
    CHECKPOINT_HEADER_BYTES as u64 + number * CHECKPOINT_BLOCK_BYTES as u64
}

/// Body bytes in a block.
pub(crate) fn block_body_bytes(number: u64, body_bytes: u64) -> usize {
    let before = number * CHECKPOINT_BLOCK_BODY_BYTES as u64;
    let rest = body_bytes.saturating_sub(before);
    usize::try_from(rest)
        .map_or(CHECKPOINT_BLOCK_BODY_BYTES, |rest| rest.min(CHECKPOINT_BLOCK_BODY_BYTES))
}

/// A block's place in the file, padding included.
pub(crate) fn block_file_bytes(number: u64, body_bytes: u64) -> usize {
    (CHECKPOINT_BLOCK_HEADER_BYTES + block_body_bytes(number, body_bytes))
        .next_multiple_of(BLOCK_BYTES)
}

/// Where the footer lies: after the last block.
pub(crate) fn footer_offset(body_bytes: u64) -> u64 {
    match block_count(body_bytes).checked_sub(1) {
        Some(last) => block_offset(last) + block_file_bytes(last, body_bytes) as u64,
        None => CHECKPOINT_HEADER_BYTES as u64,
    }
}

/// The length of the whole file; none if no file can be that long.
pub(crate) fn file_bytes_of(body_bytes: u64) -> Option<u64> {
    (body_bytes < 1 << 60).then(|| footer_offset(body_bytes) + CHECKPOINT_HEADER_BYTES as u64)
}

/// Completes a block whose body of `bytes` is in its place, and returns its checksum.
///
/// Requires: `block` is as long as a whole block.
pub(crate) fn seal_block(block: &mut [u8], salt: u64, number: u64, bytes: usize) -> u32 {
    let (content, padding) = block.split_at_mut(CHECKPOINT_BLOCK_HEADER_BYTES + bytes);
    padding.fill(0);
    let (magic, checked) = content.split_at_mut(8);
    let (fields, _) = checked.split_at_mut(CHECKPOINT_BLOCK_HEADER_BYTES - 8);
    let length = u32::try_from(bytes).expect("a block is 64 KiB");
    Writer::new(fields).u64(salt).u64(number).u32(length).zeros();
    let checksum = crc(checked);
    Writer::new(magic).bytes(&CHECKPOINT_BLOCK_MAGIC).u32(checksum);
    checksum
}

/// The body of a block that was read whole, and its checksum.
pub(crate) fn open_block(
    block: &[u8],
    salt: u64,
    number: u64,
    bytes: usize,
) -> Result<(&[u8], u32), Check> {
    let content = block.get(..CHECKPOINT_BLOCK_HEADER_BYTES + bytes).ok_or(Check::Unreadable)?;
    let (magic, checked) = content.split_at_checked(8).ok_or(Check::Length)?;
    let mut reader = Reader::new(magic);
    if reader.bytes(4) != Some(&CHECKPOINT_BLOCK_MAGIC) {
        return Err(Check::Magic);
    }
    let checksum = crc(checked);
    if reader.u32() != Some(checksum) {
        return Err(Check::BodyChecksum);
    }
    let (fields, body) =
        checked.split_at_checked(CHECKPOINT_BLOCK_HEADER_BYTES - 8).ok_or(Check::Length)?;
    let mut reader = Reader::new(fields);
    let place = (reader.u64(), reader.u64(), reader.u32().map(|length| length as usize));
    if place != (Some(salt), Some(number), Some(bytes)) {
        return Err(Check::Address);
    }
    Ok((body, checksum))
}

/// Checks a file from its header on, block after block, as its bytes come in.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    header: CheckpointHeader,
    header_crc: u32,
    next: u64,
    blocks: crc32fast::Hasher,
    /// A block was passed over.
    has_gap: bool,
}

impl Verifier {
    pub(crate) fn new(header: CheckpointHeader, header_crc: u32) -> Verifier {
        Verifier { header, header_crc, next: 0, blocks: crc32fast::Hasher::new(), has_gap: false }
    }

    /// Passes over the next block, which is damaged, so that those behind it can be checked. What is checked over all
    /// blocks is left out from here on.
    pub(crate) fn skip_block(&mut self) {
        assert!(!self.is_at_footer());
        self.next += 1;
        self.has_gap = true;
    }

    /// The next block.
    pub(crate) fn next_block(&self) -> u64 {
        self.next
    }

    /// Whether every block has been seen and the footer is next.
    pub(crate) fn is_at_footer(&self) -> bool {
        self.next == block_count(self.header.info.stored_bytes())
    }

    /// Bytes of the slot table that are still to come.
    fn table_left(&self) -> usize {
        let seen = self.next * CHECKPOINT_BLOCK_BODY_BYTES as u64;
        let left = self.header.info.table_bytes().saturating_sub(seen);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Takes whole blocks from the next one on and gives what they hold of the body to `sink`.
    pub(crate) fn blocks(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Check>,
    ) -> Result<(), Check> {
        while !bytes.is_empty() && !self.is_at_footer() {
            let body_bytes = self.header.info.stored_bytes();
            let file_bytes = block_file_bytes(self.next, body_bytes).min(bytes.len());
            let (block, rest) = bytes.split_at_checked(file_bytes).ok_or(Check::Unreadable)?;
            let length = block_body_bytes(self.next, body_bytes);
            let (body, checksum) = open_block(block, self.header.salt, self.next, length)?;
            let body = body.get(self.table_left()..).unwrap_or_default();
            if !body.is_empty() {
                sink(body)?;
            }
            self.blocks.update(&checksum.to_le_bytes());
            self.next += 1;
            bytes = rest;
        }
        Ok(())
    }

    /// The last block of the file.
    pub(crate) fn footer(&self, block: &[u8]) -> Result<(), Check> {
        assert!(self.is_at_footer());
        if !self.has_gap && self.blocks.clone().finalize() != self.header.blocks_crc {
            return Err(Check::BodyChecksum);
        }
        self.header.check_footer(self.header_crc, block)
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that is out of bounds fails, as it should")]
mod tests {
    use super::*;

    fn file_of(body: &[u8]) -> Vec<u8> {
        file_at(3, body)
    }

    fn file_at(index: u64, body: &[u8]) -> Vec<u8> {
        let mut blocks = Vec::new();
        let mut hasher = crc32fast::Hasher::new();
        for (number, part) in body.chunks(CHECKPOINT_BLOCK_BODY_BYTES).enumerate() {
            let number = number as u64;
            let mut block = vec![0xAA; block_file_bytes(number, body.len() as u64)];
            block[CHECKPOINT_BLOCK_HEADER_BYTES..][..part.len()].copy_from_slice(part);
            hasher.update(&seal_block(&mut block, 5, number, part.len()).to_le_bytes());
            blocks.extend(block);
        }
        let header = CheckpointHeader {
            log_id: 9,
            node: 1,
            info: CheckpointInfo {
                at: Position { index, term: 2 },
                installed: true,
                keeps_after: Position::default(),
                body_bytes: body.len() as u64,
                durable_seq: 6,
                slots_count: 0,
            },
            salt: 5,
            blocks_crc: hasher.finalize(),
        };
        let mut file = vec![0; CHECKPOINT_HEADER_BYTES];
        let checksum = header.encode_into(&mut file);
        file.extend(blocks);
        let mut footer = vec![0; CHECKPOINT_HEADER_BYTES];
        header.encode_footer_into(checksum, &mut footer);
        file.extend(footer);
        file
    }

    fn body_of(file: &[u8]) -> Result<Vec<u8>, Check> {
        let (header, checksum) = CheckpointHeader::decode(file, 9, file.len() as u64)?;
        let mut verifier = Verifier::new(header, checksum);
        let footer = usize::try_from(footer_offset(header.info.body_bytes)).unwrap();
        let mut body = Vec::new();
        verifier.blocks(&file[CHECKPOINT_HEADER_BYTES..footer], &mut |part| {
            body.extend_from_slice(part);
            Ok(())
        })?;
        verifier.footer(&file[footer..footer + CHECKPOINT_HEADER_BYTES])?;
        Ok(body)
    }

    #[test]
    fn a_body_of_any_length_comes_back() {
        let full = CHECKPOINT_BLOCK_BODY_BYTES;
        for bytes in [0, 1, 4064, 4065, full - 1, full, full + 1, 3 * full] {
            let body: Vec<u8> = (0u8..251).cycle().take(bytes).collect();
            let file = file_of(&body);
            assert_eq!(Some(file.len() as u64), file_bytes_of(bytes as u64));
            assert_eq!(body_of(&file), Ok(body), "{bytes} bytes");
        }
    }

    #[test]
    fn a_table_of_slots_comes_back_and_is_padded() {
        for count in 0..10 {
            let slots: Vec<u32> = (0..count).map(|slot| slot * 7).collect();
            let table = encode_slots(&slots);
            let at = Position { index: 1, term: 1 };
            let (body_bytes, slots_count) = (5, count);
            let info = CheckpointInfo {
                at,
                installed: false,
                keeps_after: at,
                body_bytes,
                durable_seq: 0,
                slots_count,
            };
            assert_eq!(table.len() as u64, info.table_bytes());
            assert_eq!(decode_slots(&table, count), Some(slots));
            assert_eq!(decode_slots(&table[..table.len().min(3)], 1), None);
        }
    }

    #[test]
    fn every_flipped_bit_outside_the_padding_is_noticed() {
        let file = file_of(b"state");
        let used = CHECKPOINT_HEADER_BYTES + CHECKPOINT_BLOCK_HEADER_BYTES + 5;
        let footer = 2 * CHECKPOINT_HEADER_BYTES;
        for byte in (0..used).chain(footer..file.len()) {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[byte] ^= 1 << bit;
                assert!(body_of(&flipped).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn an_index_that_cannot_be_counted_on_from_is_refused() {
        assert_eq!(body_of(&file_at(NUMBER_MAX + 1, b"state")), Err(Check::Range));
        assert_eq!(body_of(&file_at(NUMBER_MAX, b"state")), Ok(b"state".to_vec()));
    }

    #[test]
    fn a_length_that_the_file_does_not_have_is_refused_before_it_is_used() {
        let file = file_of(&[7; 9000]);
        let cut = CheckpointHeader::decode(&file, 9, file.len() as u64 - 1);
        assert_eq!(cut.unwrap_err(), Check::Length);
        let other = CheckpointHeader::decode(&file, 8, file.len() as u64);
        assert_eq!(other.unwrap_err(), Check::LogId);
    }
}
