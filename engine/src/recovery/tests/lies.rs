//! A device that gives wrong bytes once: each read of an open, from each block on.

use super::*;

/// What is there, and one read that says otherwise.
struct Lying<'a> {
    truth: &'a Memory,
    /// What that read brings from its block `from` on.
    lie: &'a Memory,
    at: usize,
    from: usize,
    reads: usize,
}

impl Slots for Lying<'_> {
    fn count(&self) -> u32 {
        self.truth.count()
    }

    fn read(&mut self, slot: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Vec<u64> {
        self.truth.clone().read(slot, offset, bytes, into);
        if self.reads == self.at {
            let mut lie = Vec::new();
            self.lie.clone().read(slot, offset, bytes, &mut lie);
            let from = (self.from * BLOCK_BYTES).min(lie.len());
            into[from..].copy_from_slice(&lie[from..]);
        }
        self.reads += 1;
        Vec::new()
    }
}

/// Gives other bytes at each read of one block.
struct Unsteady {
    slots: Memory,
    place: (u32, usize),
    /// How often the block is still read wrong.
    wrong: u8,
}

impl Slots for Unsteady {
    fn count(&self) -> u32 {
        self.slots.count()
    }

    fn read(&mut self, slot: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Vec<u64> {
        self.slots.read(slot, offset, bytes, into);
        let (place, at) = self.place;
        let start = usize::try_from(offset).unwrap();
        if self.wrong > 0 && slot == place && (start..start + into.len()).contains(&at) {
            into[at - start..at - start + BLOCK_BYTES].fill(0x80 + self.wrong);
            self.wrong -= 1;
        }
        Vec::new()
    }
}

fn recover_from(slots: &mut dyn Slots, on_damage: OnDamage) -> Result<RecoveredLog, OpenError> {
    let (slot_bytes, checkpoints, held) = (SLOT_BYTES as u64, &[], &[]);
    recover(slots, &Known { dir: "data", log_id: LOG_ID, slot_bytes, checkpoints, held, on_damage })
}

/// Logs whose last frames nobody has promised, and what each slot held at some moments before.
fn logs() -> Vec<(Model, Vec<Memory>)> {
    let mut logs = Vec::new();
    // One frame is all there is.
    let mut model = Model::new();
    let empty = model.slots.clone();
    write_unpromised(&mut model, 1, 20);
    logs.push((model, vec![empty]));
    // The newest segment has one frame, and lies in a slot that was never used or was used before.
    for mut model in [small_log(), log_with_a_used_slot()] {
        let before = model.slots.clone();
        let next = model.log.index().last().index + 1;
        model.reopen();
        write_unpromised(&mut model, next, 6_000);
        logs.push((model, vec![before]));
    }
    // It has several.
    let mut model = small_log();
    let mut before = Vec::new();
    for (index, bytes) in [(8, 40), (9, 9_000), (10, 40)] {
        before.push(model.slots.clone());
        write_unpromised(&mut model, index, bytes);
    }
    logs.push((model, before));
    logs
}

/// Appends an entry whose frame is acknowledged, and not promised by another one.
fn write_unpromised(model: &mut Model, index: u64, bytes: usize) {
    model.append(None, index, 1, bytes);
    for built in model.build() {
        model.write(&built);
        model.log.complete(built.seq, 0);
    }
}

#[test]
fn one_wrong_read_leaves_the_log_as_it_is_or_refuses_it() {
    let (mut same, mut refused) = (0, 0);
    for (model, mut lies) in logs() {
        let truth = &model.slots;
        let sound = truth.clone().recover().unwrap();
        let of_all = |fill| Memory(vec![vec![fill; SLOT_BYTES]; truth.0.len()]);
        let mut rotated = truth.clone();
        rotated.0.rotate_left(1);
        lies.extend([of_all(0), of_all(0x5A), rotated]);
        for lie in &lies {
            let mut at = 0;
            loop {
                let mut reads = 0;
                for from in 0..8 {
                    for on_damage in [OnDamage::Refuse, OnDamage::HandUp] {
                        let mut slots = Lying { truth, lie, at, from, reads: 0 };
                        let found = recover_from(&mut slots, on_damage);
                        reads = slots.reads;
                        let Ok(found) = found else {
                            refused += 1;
                            continue;
                        };
                        let state = |log: &RecoveredLog| state_of(log.hard_state, &log.index);
                        assert_eq!(state(&found), state(&sound), "read {at} from block {from}");
                        assert_eq!(found.last_seq, sound.last_seq);
                        assert_eq!((&found.chain, found.torn), (&sound.chain, sound.torn));
                        assert!(found.holes.is_empty());
                        same += 1;
                    }
                }
                at += 1;
                if at >= reads {
                    break;
                }
            }
        }
    }
    assert!(same > 1_500 && refused < same / 10, "{same} the same, {refused} refused");
}

#[test]
fn a_frame_that_reads_otherwise_each_time_is_neither_cut_nor_kept() {
    let mut model = small_log();
    write_unpromised(&mut model, 8, 40);
    let newest = model.log.slots_in_use().last().unwrap();
    let sound = model.slots.clone().recover().unwrap();
    let frame = sound.index.frames_from(0).last().unwrap();
    let offset = u64::from(frame.place.block) * BLOCK_BYTES as u64;
    let at = usize::try_from(offset).unwrap();
    let open = |place, wrong| {
        let mut slots = Unsteady { slots: model.slots.clone(), place, wrong };
        recover_from(&mut slots, OnDamage::Refuse)
    };
    // Wrong once: the next readings are sound.
    assert_eq!(open((newest, at), 1).unwrap().last_seq, sound.last_seq);
    for wrong in 2..=4 {
        match open((newest, at), wrong) {
            Ok(found) => assert_eq!((wrong, found.last_seq), (2, sound.last_seq)),
            Err(OpenError::Unsteady { slot, offset: told, .. }) => {
                assert_eq!((slot, told), (newest, offset));
            }
            Err(other) => panic!("{other}"),
        }
    }
    // The end of the log: nothing is there, and other bytes each time.
    let end = usize::try_from(sound.chain.back().unwrap().end).unwrap();
    for wrong in 1..=4 {
        let Err(OpenError::Unsteady { slot, offset, .. }) = open((newest, end), wrong) else {
            panic!("nobody knows whether something was there");
        };
        assert_eq!((slot, offset), (newest, end as u64));
    }
}

/// Behind the end of the log lie frames of the life before, of any length: one block of them tells that.
#[test]
fn the_end_of_the_log_is_read_again_by_one_block() {
    let mut model = Model::new();
    (1..=4).for_each(|index| write_unpromised(&mut model, index, 6_000));
    for _ in 0..2 {
        model.reopen();
        write_unpromised(&mut model, 1, 6_000);
    }
    let found = model.slots.clone().recover().unwrap();
    let newest = found.chain.back().unwrap();
    let end = usize::try_from(newest.end).unwrap();
    let slot = &model.slots.0[newest.slot as usize];
    let (left, _) = FrameHeader::decode(LogTag::of(LOG_ID), &slot[end..]).unwrap();
    assert_eq!(left.frame_bytes(), 2 * BLOCK_BYTES);
    let mut blank = model.slots.clone();
    blank.0[newest.slot as usize][end..].fill(0);
    assert_eq!(blank.recover().unwrap().bytes_scanned, found.bytes_scanned);
}
