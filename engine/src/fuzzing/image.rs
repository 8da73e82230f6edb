//! Slots that hold anything: a small sound log with bytes replaced, with or without checksums made right again.

use std::sync::OnceLock;

use crate::codec::crc;
use crate::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, slot_path};
use crate::frame::LogTag;
use crate::options::OnDamage;
use crate::recovery::{Known, Slots, recover};
use crate::types::{CheckpointInfo, Position};

use super::world::{IDENTITY, World, small_options};

const SLOTS: usize = 3;
const SLOT_BYTES: usize = 1 << 20;
/// Bytes of a patch's head: slot, block, offset in the block (2), length, what to do.
const PATCH_HEAD_BYTES: usize = 6;

/// Recovers from slots that `data` has patched. Anything may come of it but a panic.
pub(super) fn recover_patched(data: &[u8]) {
    let Some((flags, mut patches)) = data.split_first() else { return };
    let mut slots = Patched(base(flags & 1 == 0));
    while let Some((head, rest)) = patches.split_first_chunk::<PATCH_HEAD_BYTES>() {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(head[4])));
        slots.patch(*head, bytes);
        patches = rest;
    }
    let at = Position { index: u64::from(flags >> 2), term: 1 };
    let info = CheckpointInfo {
        at,
        installed: flags & 2 != 0,
        keeps_after: at,
        body_bytes: 0,
        durable_seq: 0,
        slots_count: 0,
    };
    let checkpoints = if flags >> 2 == 0 { &[][..] } else { &[info] };
    let known = Known {
        dir: "data",
        log_id: IDENTITY.log_id,
        slot_bytes: SLOT_BYTES as u64,
        checkpoints,
        held: &[],
        on_damage: OnDamage::Refuse,
    };
    // Whoever takes faulty entries over finds at least what others do, and the same where nothing is faulty.
    let refusing = recover(&mut slots, &known);
    let known = Known { on_damage: OnDamage::HandUp, ..known };
    if let Ok(log) = &refusing {
        let handed_up = recover(&mut slots, &known).expect("nothing is faulty");
        assert_eq!(log.index.last(), handed_up.index.last());
        assert!(log.index.faulty().is_empty() && handed_up.index.faulty().is_empty());
    }
    if let Ok(log) = recover(&mut slots, &known) {
        let faulty: u64 = log.index.faulty().iter().map(|range| range.last + 1 - range.first).sum();
        assert!(faulty == 0 || refusing.is_err());
        assert!(faulty <= log.index.last().index - log.index.start().index);
        let again = recover(&mut slots, &known).expect("a recovery can be repeated");
        assert_eq!(log.index.last(), again.index.last());
        assert!(log.index.start().index <= log.index.last().index);
    }
}

/// Blank slots, or those of a small log that has rolled.
fn base(is_blank: bool) -> Vec<Vec<u8>> {
    static SOUND: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    if is_blank {
        return vec![vec![0; SLOT_BYTES]; SLOTS];
    }
    SOUND.get_or_init(sound).clone()
}

fn sound() -> Vec<Vec<u8>> {
    let mut world = World::new(3, small_options(), crate::io::simulated::SimFaults::none());
    world.open_and_check("first open");
    for round in 0..2 {
        world.vote(round + 1, 1);
        world.append_entries(round + 1, 3, 100);
        world.settle();
        world.append_entries(round + 1, 2, 3_000);
        world.settle();
        world.open_and_check("another open");
    }
    let slot = |slot| {
        let path = slot_path(u32::try_from(slot).expect("few slots"));
        world.disk.read_file(&path).unwrap_or_else(|| vec![0; SLOT_BYTES])
    };
    (0..SLOTS).map(slot).collect()
}

struct Patched(Vec<Vec<u8>>);

impl Patched {
    fn patch(&mut self, head: [u8; PATCH_HEAD_BYTES], bytes: &[u8]) {
        let [slot, block, low, high, _, action] = head;
        let offset = usize::from(u16::from_le_bytes([low, high])) % BLOCK_BYTES;
        let start = usize::from(block) * BLOCK_BYTES;
        let slot = &mut self.0[usize::from(slot) % SLOTS];
        let at = start + offset;
        let end = (at + bytes.len()).min(slot.len());
        slot[at..end].copy_from_slice(&bytes[..end - at]);
        match action % 4 {
            1 => seal_frame(&mut slot[start..start + BLOCK_BYTES]),
            2 => seal_segment(&mut slot[start..start + BLOCK_BYTES]),
            _ => {}
        }
    }
}

/// Makes the checksum of a frame header right.
fn seal_frame(block: &mut [u8]) {
    let checksum = LogTag::of(IDENTITY.log_id).checksum(&block[8..FRAME_HEADER_BYTES]);
    block[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Makes the checksum of a segment header right.
fn seal_segment(block: &mut [u8]) {
    let checksum = crc(&block[12..]);
    block[8..12].copy_from_slice(&checksum.to_le_bytes());
}

impl Slots for Patched {
    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).expect("few slots")
    }

    fn read(&mut self, slot: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Vec<u64> {
        let at = |offset| usize::try_from(offset).expect("at most a slot");
        into.clear();
        into.extend_from_slice(&self.0[slot as usize][at(offset)..at(offset + bytes)]);
        Vec::new()
    }
}
