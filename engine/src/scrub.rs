//! The scrubber: it reads what nobody reads, so that rot is found while other copies are sound.
//!
//! A pass goes over every slot that holds a sealed segment that something still needs, in the order of their numbers, and
//! then over every kept checkpoint. It verifies all that `wal verify` does of them, from the device and never from
//! memory, and goes on behind what is damaged. It changes nothing and halts nothing: what the device refuses to give is
//! reported like bytes that are not what was written.
//!
//! Invariants:
//! - One read is in flight at most, of at most [`PIECE_BYTES`], and the next one is due when the rate allows it.
//! - It keeps no slot from being freed or opened anew, and a checkpoint from being removed for one read at most. Before a
//!   piece is judged its slot must be in the same life and still needed; else what was read means nothing.
//! - A pass reports a place once.
//! - The segment that is being written is left alone: its end is not known.

mod checkpoint;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::blocking::UNREADABLE;
use crate::buffer::AlignedBuf;
use crate::error::{Check, Damage};
use crate::format::{BLOCK_BYTES, checkpoint_path};
use crate::io::{Class, Disk, Done, FileId, Op};
use crate::log::Log;
use crate::mutant::{self, Mutant};
use crate::retained::Retained;
use crate::slots::SlotTable;
use crate::tags::Owner;
use crate::types::{Event, Meta};
use crate::value_log::ValueLog;

use checkpoint::CheckpointCheck;
use segment::SegmentCheck;

/// The most that is read at once: a commit behind it waits for about 250 µs.
const PIECE_BYTES: usize = 256 << 10;

/// From the beginning of one pass to that of the next, at least: a small directory is not read over and over.
const PASS_US_MIN: u64 = 3_600_000_000;

/// Bytes that had been durable and are not what was written, as the scrubber found them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rot {
    /// In a sealed segment: a frame, or, at byte 0, the segment's header.
    Segment(Damage),
    /// In a kept checkpoint.
    Checkpoint {
        /// The last entry that it holds.
        index: u64,
        /// The first byte of the damaged block.
        offset: u64,
        /// What it failed; [`Check::Unreadable`] is a device that does not give the bytes.
        check: Check,
    },
}

impl fmt::Display for Rot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rot::Segment(damage) => write!(f, "{damage}"),
            Rot::Checkpoint { index, offset, check } => {
                let path = checkpoint_path(*index);
                write!(f, "the block of {path} at byte {offset} fails its {check} check")
            }
        }
    }
}

/// Where the scrubber is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrubPlace {
    /// In a slot.
    Slot {
        /// Which.
        slot: u32,
        /// The next byte to be read.
        offset: u64,
    },
    /// In the checkpoint of this index.
    Checkpoint {
        /// Which.
        index: u64,
    },
}

/// What the scrubber has done since the open.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ScrubStatus {
    /// Passes that have ended.
    pub passes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Damaged places found, those of every pass counted.
    pub damaged: u64,
    /// Where the pass in progress is; none between two.
    pub at: Option<ScrubPlace>,
}

/// What the scrubber looks at.
pub(crate) struct Context<'a> {
    pub(crate) meta: &'a Meta,
    pub(crate) log: &'a Log,
    pub(crate) slots: &'a SlotTable,
    /// Slots without a live entry that hold values of a checkpoint.
    pub(crate) held: &'a BTreeMap<u32, u64>,
    pub(crate) values: &'a ValueLog,
    pub(crate) retained: &'a mut Retained,
    pub(crate) disk: &'a mut dyn Disk,
}

/// The job.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// 0 is off.
    bytes_per_second: u64,
    pass: Option<Pass>,
    reading: Option<Reading>,
    /// When the rate allows the next read.
    due_us: u64,
    /// When the next pass may begin.
    pass_due_us: u64,
    /// A buffer to read into again.
    spare: Option<AlignedBuf>,
    status: ScrubStatus,
}

/// What has not been looked at in this pass: slots from one number to another, then checkpoints from an index on.
#[derive(Debug)]
struct Pass {
    next_slot: u32,
    slots_end: u32,
    next_index: u64,
    target: Option<Target>,
}

#[derive(Debug)]
enum Target {
    Segment { slot: u32, life: u64, check: SegmentCheck },
    Checkpoint { index: u64, check: CheckpointCheck },
}

/// A piece of the target on its way.
#[derive(Debug)]
struct Reading {
    offset: u64,
    /// How much is wanted.
    wanted: usize,
    /// What has come of it.
    got: Bytes,
    /// After the device has refused the piece: block by block, so that one bad sector costs no more than its block.
    by_blocks: bool,
    /// Whether a read of it is in flight.
    is_in_flight: bool,
}

/// Bytes as they were read, [`UNREADABLE`] where nothing came, and the offsets of blocks that the device refused.
#[derive(Debug, Default)]
struct Bytes {
    bytes: Vec<u8>,
    refused: Vec<u64>,
}

/// Whether a block of these `bytes` from `offset` on was refused.
fn is_refused(refused: &[u64], offset: u64, bytes: usize) -> bool {
    let range = offset..offset + bytes as u64;
    refused.iter().any(|at| range.contains(at))
}

impl Scrub {
    pub(crate) fn new(bytes_per_second: u64) -> Scrub {
        Scrub {
            bytes_per_second,
            pass: None,
            reading: None,
            due_us: 0,
            pass_due_us: 0,
            spare: None,
            status: ScrubStatus::default(),
        }
    }

    pub(crate) fn status(&self) -> ScrubStatus {
        let at = self.pass.as_ref().and_then(|pass| pass.target.as_ref()).map(Target::place);
        ScrubStatus { at, ..self.status }
    }

    /// When `advance` has something to do although nothing else happens.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        let is_in_flight = self.reading.as_ref().is_some_and(|reading| reading.is_in_flight);
        if self.bytes_per_second == 0 || is_in_flight {
            return None;
        }
        let due_us = if self.pass.is_some() { self.due_us } else { self.pass_due_us };
        Some(due_us.max(self.due_us))
    }

    /// Asks for the next piece when it is due.
    pub(crate) fn advance(&mut self, now_us: u64, context: &mut Context<'_>) {
        if self.next_due_us().is_none_or(|due_us| now_us < due_us) {
            return;
        }
        let pass = self.pass.get_or_insert_with(|| {
            self.pass_due_us = now_us.saturating_add(PASS_US_MIN);
            Pass::new(context)
        });
        pass.drop_lost_target(context);
        let rest = self.reading.take().filter(|_| pass.target.is_some());
        if let Some(reading) = rest.or_else(|| pass.next_piece(context)) {
            self.submit(reading, now_us, context);
        } else {
            self.pass = None;
            self.status.passes += 1;
        }
    }

    fn submit(&mut self, mut reading: Reading, now_us: u64, context: &mut Context<'_>) {
        let target = self.pass.as_ref().and_then(|pass| pass.target.as_ref());
        let target = target.expect("a piece is of a target");
        let file = target.file(context);
        if let Target::Checkpoint { index, .. } = target {
            context.retained.begin_read(*index);
        }
        let (offset, bytes) = reading.next_read();
        reading.is_in_flight = true;
        self.reading = Some(reading);
        let spare = self.spare.take().filter(|spare| spare.len() == bytes);
        let buf = spare.unwrap_or_else(|| AlignedBuf::zeroed(bytes));
        context.disk.submit(Class::Scrub, Owner::Scrub.tag(), Op::Read { file, offset, buf });
        self.status.bytes += bytes as u64;
        // The next one waits for as long as this one may take at the rate. Time that is missed is not made up for.
        if !mutant::is(Mutant::ScrubUnpaced) {
            let cost_us = (bytes as u64 * 1_000_000).div_ceil(self.bytes_per_second);
            self.due_us = now_us.saturating_add(cost_us);
        }
    }

    /// The disk has answered.
    pub(crate) fn complete(
        &mut self,
        result: io::Result<Done>,
        context: &mut Context<'_>,
        events: &mut Vec<Event>,
    ) {
        let mut reading = self.reading.take().expect("one read is in flight");
        reading.is_in_flight = false;
        let pass = self.pass.as_mut().expect("a read is of a pass");
        if let Some(Target::Checkpoint { index, .. }) = pass.target {
            context.retained.end_read(index);
        }
        self.spare = reading.take(result);
        pass.drop_lost_target(context);
        let Some(target) = &mut pass.target else { return };
        if !reading.is_whole() {
            self.reading = Some(reading);
            return;
        }
        let found = target.take(&reading);
        self.status.damaged += found.len() as u64;
        events.extend(found.into_iter().map(Event::Damaged));
    }
}

impl Pass {
    fn new(context: &Context<'_>) -> Pass {
        let slots_end =
            u32::try_from(context.slots.count()).expect("slots are numbered in 32 bits");
        Pass { next_slot: 0, slots_end, next_index: 0, target: None }
    }

    /// What nobody needs any more, or was opened anew, is not looked at further.
    fn drop_lost_target(&mut self, context: &Context<'_>) {
        self.target = self.target.take().filter(|target| target.is_there(context));
    }

    /// The next piece, of the target or the one after it; none at the end of the pass.
    fn next_piece(&mut self, context: &Context<'_>) -> Option<Reading> {
        loop {
            if let Some((offset, bytes)) = self.target.as_ref().and_then(Target::next_piece) {
                return Some(Reading::new(offset, bytes));
            }
            self.target = Some(self.next_target(context)?);
        }
    }

    fn next_target(&mut self, context: &Context<'_>) -> Option<Target> {
        let Context { meta, log, .. } = context;
        if let Some(slot) = (self.next_slot..self.slots_end).find(|slot| context.needs(*slot)) {
            self.next_slot = slot + 1;
            let check = SegmentCheck::new(meta, slot, log.sealed_in(slot));
            return Some(Target::Segment { slot, life: context.slots.life(slot), check });
        }
        self.next_slot = self.slots_end;
        let kept = context.retained.first_from(self.next_index)?;
        let index = kept.info().at.index;
        self.next_index = index + 1;
        Some(Target::Checkpoint { index, check: CheckpointCheck::new(meta, kept) })
    }
}

impl Context<'_> {
    /// Whether a slot holds a sealed segment that something needs.
    fn needs(&self, slot: u32) -> bool {
        self.held.contains_key(&slot) || self.log.needs_sealed(slot) || self.values.has_sealed(slot)
    }
}

impl Target {
    fn is_there(&self, context: &Context<'_>) -> bool {
        match self {
            Target::Segment { .. } if mutant::is(Mutant::ScrubAcrossLives) => true,
            Target::Segment { slot, life, .. } => {
                context.slots.life(*slot) == *life && context.needs(*slot)
            }
            Target::Checkpoint { index, .. } => context.retained.find(*index).is_some(),
        }
    }

    fn file(&self, context: &Context<'_>) -> FileId {
        match self {
            Target::Segment { slot, .. } => context.slots.file(*slot),
            Target::Checkpoint { index, .. } => {
                context.retained.find(*index).expect("it has just been there").file()
            }
        }
    }

    fn place(&self) -> ScrubPlace {
        match self {
            Target::Segment { slot, check, .. } => {
                ScrubPlace::Slot { slot: *slot, offset: check.offset() }
            }
            Target::Checkpoint { index, .. } => ScrubPlace::Checkpoint { index: *index },
        }
    }

    fn next_piece(&self) -> Option<(u64, usize)> {
        match self {
            Target::Segment { check, .. } => check.next_piece(),
            Target::Checkpoint { check, .. } => check.next_piece(),
        }
    }

    /// Judges a piece; the damage that is certain by now.
    fn take(&mut self, piece: &Reading) -> Vec<Rot> {
        match self {
            Target::Segment { check, .. } => {
                let mut found = Vec::new();
                check.take(&piece.got, &mut found);
                found.into_iter().map(Rot::Segment).collect()
            }
            Target::Checkpoint { index, check } => {
                let (index, mut found) = (*index, Vec::new());
                check.take(piece.offset, &piece.got, &mut found);
                let rot = |(offset, check)| Rot::Checkpoint { index, offset, check };
                found.into_iter().map(rot).collect()
            }
        }
    }
}

impl Reading {
    fn new(offset: u64, wanted: usize) -> Reading {
        let got = Bytes::default();
        Reading { offset, wanted, got, by_blocks: false, is_in_flight: false }
    }

    /// What is to be read next of it: (offset, bytes).
    fn next_read(&self) -> (u64, usize) {
        let got = self.got.bytes.len();
        let bytes = if self.by_blocks { BLOCK_BYTES } else { self.wanted - got };
        (self.offset + got as u64, bytes)
    }

    fn is_whole(&self) -> bool {
        self.got.bytes.len() == self.wanted
    }

    /// Takes what a read has brought; gives the buffer back where there is one.
    fn take(&mut self, result: io::Result<Done>) -> Option<AlignedBuf> {
        let (offset, bytes) = self.next_read();
        let (buf, read) = match result {
            Ok(Done::Read { buf, read }) => (Some(buf), read.min(bytes)),
            Ok(Done::Opened { .. } | Done::Nothing) => unreachable!("a read brings bytes"),
            Err(_) if bytes > BLOCK_BYTES && !mutant::is(Mutant::ScrubGivesPieceUp) => {
                self.by_blocks = true;
                return None;
            }
            Err(_) => (None, 0),
        };
        let given = buf.as_ref().map_or(&[][..], |buf| &buf.as_slice()[..read]);
        self.got.bytes.extend_from_slice(given);
        self.got.bytes.resize(self.got.bytes.len() + bytes - read, UNREADABLE);
        // Where the file ends too early there are no bytes either.
        let missing = (offset..offset + bytes as u64).step_by(BLOCK_BYTES);
        let is_missing = |at: &u64| at + BLOCK_BYTES as u64 > offset + read as u64;
        self.got.refused.extend(missing.filter(is_missing));
        buf
    }
}
