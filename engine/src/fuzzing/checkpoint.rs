//! Checkpoint files that hold anything: the decoder over any bytes, and an open of a directory whose newest checkpoint
//! has patched bytes, with or without checksums made right again.

use std::cell::RefCell;

use crate::checkpoint::{CheckpointHeader, Verifier, decode_slots, footer_offset};
use crate::codec::crc;
use crate::error::{Check, OpenError};
use crate::format::{
    BLOCK_BYTES, CHECKPOINT_BLOCK_BYTES, CHECKPOINT_HEADER_BYTES, CHECKPOINT_SLOT_BYTES,
};
use crate::io::simulated::{SimFaults, SimImage};

use super::points::Truth;
use super::world::{IDENTITY, World, small_options};

/// Bytes of a patch's head: block, offset in the block (2), length, what to do.
const PATCH_HEAD_BYTES: usize = 5;
const PATH: &str = "ckpt/0000000000000004.ckpt";

/// The fuzz target. The first byte chooses what the rest is.
pub fn checkpoint_decode(data: &[u8]) {
    match data.split_first() {
        Some((mode, rest)) if mode % 2 == 0 => decode(rest),
        Some((mode, rest)) => open_patched(*mode, rest),
        None => {}
    }
}

/// Any bytes as a file. What is accepted is as long as it says, and gives as many bytes.
fn decode(file: &[u8]) {
    let decoded = CheckpointHeader::decode(file, IDENTITY.log_id, file.len() as u64);
    let Ok((header, checksum)) = decoded else { return };
    let stored = header.info.stored_bytes();
    let footer = usize::try_from(footer_offset(stored)).expect("it lies within the file");
    let mut verifier = Verifier::new(header, checksum);
    let mut body_bytes = 0;
    let mut take = |body: &[u8]| {
        body_bytes += body.len() as u64;
        Ok::<(), Check>(())
    };
    if verifier.blocks(&file[CHECKPOINT_HEADER_BYTES..footer], &mut take).is_ok()
        && verifier.is_at_footer()
        && verifier.footer(&file[footer..footer + BLOCK_BYTES]).is_ok()
    {
        assert_eq!(body_bytes, header.info.body_bytes);
    }
    let table = &file[..file.len().min(64)];
    let count = header.info.slots_count;
    let slots = decode_slots(table, count);
    assert_eq!(slots.is_some(), count as usize <= table.len() / CHECKPOINT_SLOT_BYTES);
}

/// A directory with two checkpoints, and what it holds.
struct Base {
    image: SimImage,
    truth: Truth,
    file: Vec<u8>,
    world: World,
}

fn base() -> Base {
    let mut world = World::new(5, small_options(), SimFaults::none());
    world.options.slot_bytes = 64 << 10;
    world.open_and_check("first open");
    for _ in 0..2 {
        world.append_entries(1, 2, 300);
        world.settle();
        let at = world.oracle.certain().last();
        world.cabinet = world.cabinet_after(at.index).expect("all of it is durable");
        world.slots = world.cabinet.slots().into_iter().collect();
        world.cabinets.insert(at.index, world.cabinet.clone());
        world.checkpoint_here();
    }
    world.append_entries(2, 2, 300);
    world.settle();
    world.disk.kill();
    let (image, truth) = (world.disk.snapshot(), world.truth());
    let file = world.disk.read_file(PATH).expect("the newest checkpoint");
    Base { image, truth, file, world }
}

thread_local! {
    static BASE: RefCell<Base> = RefCell::new(base());
}

/// Opens the directory with a patched checkpoint. If a checkpoint is accepted that says other things than the one that
/// was written, its checksums were made right; else the older one is taken and the newest is moved aside, or the
/// directory is refused.
fn open_patched(mode: u8, patches: &[u8]) {
    BASE.with_borrow_mut(|base| {
        let mut file = base.file.clone();
        let is_sealed = patch(&mut file, patches);
        if mode & 2 != 0 {
            file.truncate(file.len() - usize::from(mode >> 2) * 100);
        }
        let world = &mut base.world;
        world.disk.restore(&base.image);
        world.believe(&base.truth);
        world.disk.write_file(PATH, &file);
        match world.try_open() {
            Ok(recovered) => {
                let info = recovered.checkpoint.expect("one of the two is good");
                let body = load(world, &info);
                assert_eq!(body.len() as u64, info.body_bytes);
                let is_aside = !recovered.report.quarantined.is_empty();
                assert_eq!(is_aside, info.at.index == 2);
                if !is_sealed {
                    assert_eq!(recovered.last, base.truth.oracle.certain().last());
                    assert_eq!(body, super::world::body_of(info.at, body.len()));
                }
            }
            Err(OpenError::Io { what, source }) => panic!("{what}: {source}"),
            Err(refused) => assert!(is_sealed, "{refused}"),
        }
    });
}

fn load(world: &mut World, info: &crate::types::CheckpointInfo) -> Vec<u8> {
    let mut body = Vec::new();
    let loaded = world.engine().load_checkpoint(info, &mut |bytes| {
        body.extend_from_slice(bytes);
        Ok(())
    });
    loaded.expect("what an open accepts can be loaded");
    body
}

/// Whether any checksum was made right.
fn patch(file: &mut [u8], mut patches: &[u8]) -> bool {
    let mut is_sealed = false;
    while let Some((head, rest)) = patches.split_first_chunk::<PATCH_HEAD_BYTES>() {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(head[3])));
        let [block, low, high, _, action] = *head;
        let start = usize::from(block) % (file.len() / BLOCK_BYTES) * BLOCK_BYTES;
        let at = start + usize::from(u16::from_le_bytes([low, high])) % BLOCK_BYTES;
        let end = (at + bytes.len()).min(file.len());
        file[at..end].copy_from_slice(&bytes[..end - at]);
        if action % 2 == 1 {
            is_sealed = true;
            seal(file, start);
        }
        patches = rest;
    }
    is_sealed
}

/// Makes the checksum of a header, a footer or a block right.
fn seal(file: &mut [u8], start: usize) {
    let last = file.len() - BLOCK_BYTES;
    if start == 0 || start == last {
        let checksum = crc(&file[start + 12..start + BLOCK_BYTES]);
        file[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
    } else {
        let first = start - (start - CHECKPOINT_HEADER_BYTES) % CHECKPOINT_BLOCK_BYTES;
        let length = u32::from_le_bytes(file[first + 24..first + 28].try_into().expect("4 bytes"));
        let end = (first + 32 + length as usize).clamp(first + 8, last);
        let checksum = crc(&file[first + 8..end]);
        file[first + 4..first + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}
