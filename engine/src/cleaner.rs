//! Gives slots back in which little is still live: it copies the live values into segments of values, tells the caller
//! where they are now, and leaves the rest to the one freeing condition.
//!
//! A run: choose victims, read each from its first frame to its last, keep what the caller says is live, in the order
//! of the keys; write it in batches; when a batch is durable, move each value that is still where it was. So a range
//! that nobody writes lies together after a while.
//!
//! Invariants:
//! - A value is moved only when its copy is durable, and only from the place that it was copied from.
//! - A victim is not reused during its run, so that a place cannot come to mean another value.
//! - Nothing is freed here. A victim whose values have moved is in no later checkpoint, and goes with the last one
//!   that has it.
//! - A frame that is damaged ends the reading of its slot: what is live behind it stays where it is, and so does the slot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::buffer::AlignedBuf;
use crate::format::RECORD_ALIGN_BYTES;
use crate::frame::RecordKind;
use crate::io::Done;
use crate::types::Location;
use crate::value_batch::{StoredValue, ValueBatch, value_footprint, values_in};
use crate::walk::{Step, Walk, WalkedFrame};

mod choice;
mod pace;

pub(crate) use choice::{Candidate, choose};
pub(crate) use pace::{Pace, Urgency};

/// Bytes of a victim that are read at once.
const READ_BYTES: u64 = 512 << 10;
/// The next bytes are read while fewer than this lie ahead.
const AHEAD_BYTES: usize = 1 << 20;
/// Bytes of records that are looked at in one step.
const LOOK_BYTES: usize = 128 << 10;
/// Values that are moved in one step.
const MOVE_COUNT: usize = 256;
/// Values go into records of about so many bytes.
const BATCH_BYTES: usize = 512 << 10;

/// What the cleaner must know of the caller's state.
pub trait ValueIndex {
    /// Bytes of the values that are live in a slot, each with its key counted as [`crate::value_footprint`] does.
    fn live_bytes(&self, slot: u32) -> u64;

    /// Shows every value that the payload of an entry of this kind holds and that may be live somewhere in the log.
    fn values_of(&self, kind: u8, payload: &[u8], show: &mut dyn FnMut(StoredValue<'_>));

    /// Whether this value of this key is live at this location.
    fn is_live(&self, key: &[u8], at: Location, checksum: u32) -> bool;

    /// The value is at `to` from now on, if it is live at `from` now.
    fn relocate(&mut self, key: &[u8], from: Location, to: Location, checksum: u32);
}

/// A live value.
#[derive(Debug)]
struct Live {
    from: Location,
    value: Box<[u8]>,
    checksum: u32,
}

/// A value that has been copied.
#[derive(Debug)]
struct Moved {
    key: Box<[u8]>,
    from: Location,
    /// From the start of its batch.
    start: usize,
    checksum: u32,
}

/// A batch on its way.
#[derive(Debug)]
struct Batch {
    id: u64,
    /// Where it lies, when it is durable.
    place: Option<Location>,
    values: VecDeque<Moved>,
}

/// What a step needs from the engine.
#[derive(Debug)]
pub(crate) enum Request {
    /// Bytes of a victim.
    Read { slot: u32, offset: u64, buf: AlignedBuf },
    /// A batch to be appended.
    Append(ValueBatch),
    /// The values of a batch are where the caller's state says.
    Settle(u64),
    /// The run is over: its victims may be reused.
    End { victims: Vec<u32> },
}

/// A run under way.
#[derive(Debug)]
struct Run {
    victims: Vec<u32>,
    /// Those that have not been read.
    unread: VecDeque<u32>,
    walk: Option<Walk>,
    /// The frame that is looked at, and its next record.
    frame: Option<(WalkedFrame, usize)>,
    is_reading: bool,
    /// What is being read is needed to go on.
    needs_read: bool,
    live: BTreeMap<Box<[u8]>, Live>,
    /// What they will take.
    live_bytes: usize,
    batch: Option<Batch>,
}

/// The cleaner of one directory.
#[derive(Debug)]
pub(crate) struct Cleaner {
    log_id: u128,
    slot_bytes: u64,
    batch_bytes: usize,
    run: Option<Run>,
    /// Slots in which something live could not be found: they are left alone until the next open.
    spared: BTreeSet<u32>,
    moved_values: u64,
    moved_bytes: u64,
}

impl Cleaner {
    /// `record_bytes_max` is the longest payload of a record.
    pub(crate) fn new(log_id: u128, slot_bytes: u64, record_bytes_max: usize) -> Cleaner {
        Cleaner {
            log_id,
            slot_bytes,
            batch_bytes: BATCH_BYTES.min(record_bytes_max),
            run: None,
            spared: BTreeSet::new(),
            moved_values: 0,
            moved_bytes: 0,
        }
    }

    /// Whether a run is under way.
    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Whether this slot is left alone because something in it could not be read.
    pub(crate) fn spares(&self, slot: u32) -> bool {
        self.spared.contains(&slot)
    }

    /// How many are.
    pub(crate) fn spared_count(&self) -> usize {
        self.spared.len()
    }

    /// Values moved since the open, and their bytes.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.moved_values, self.moved_bytes)
    }

    /// Begins a run.
    ///
    /// Requires: none is under way; the victims are not reused until it has ended.
    pub(crate) fn begin(&mut self, victims: Vec<u32>) {
        assert!(self.run.is_none(), "one run at a time");
        self.run = Some(Run {
            unread: victims.iter().copied().collect(),
            victims,
            walk: None,
            frame: None,
            is_reading: false,
            needs_read: false,
            live: BTreeMap::new(),
            live_bytes: 0,
            batch: None,
        });
    }

    /// Whether a step would do something now. `may_append` says whether another batch may go.
    pub(crate) fn is_busy(&self, may_append: bool) -> bool {
        let Some(run) = &self.run else { return false };
        match &run.batch {
            Some(batch) => batch.place.is_some(),
            None if run.is_read() => may_append || run.live.is_empty(),
            None => !run.needs_read,
        }
    }

    /// What the next batch will take, as far as is known.
    pub(crate) fn next_batch_bytes(&self) -> usize {
        self.run.as_ref().map_or(0, |run| run.live_bytes.min(self.batch_bytes))
    }

    /// The appended batch got this id.
    pub(crate) fn appended(&mut self, id: u64) {
        let batch = self.run.as_mut().and_then(|run| run.batch.as_mut());
        batch.expect("a batch has just been given away").id = id;
    }

    /// The batch is durable at `place`.
    pub(crate) fn placed(&mut self, id: u64, place: Location) {
        let batch = self.run.as_mut().and_then(|run| run.batch.as_mut());
        let batch = batch.expect("a run stays until its batch is durable");
        assert_eq!(batch.id, id);
        batch.place = Some(place);
    }

    /// The disk has answered.
    pub(crate) fn arrived(&mut self, result: std::io::Result<Done>) {
        let run = self.run.as_mut().expect("a run stays while it reads");
        (run.is_reading, run.needs_read) = (false, false);
        let walk = run.walk.as_mut().expect("what was read for is still there");
        match result {
            Ok(Done::Read { buf, read }) if read > 0 => {
                walk.push(buf.as_slice().get(..read).unwrap_or_default());
            }
            // What is live there will be missed at the end.
            Ok(_) | Err(_) => (run.walk, run.frame) = (None, None),
        }
    }

    /// Goes on by a little.
    pub(crate) fn step(&mut self, index: &mut dyn ValueIndex, may_append: bool) -> Option<Request> {
        let run = self.run.as_mut()?;
        if let Some(batch) = &mut run.batch {
            let place = batch.place?;
            for _ in 0..MOVE_COUNT {
                let Some(moved) = batch.values.pop_front() else {
                    let id = batch.id;
                    run.batch = None;
                    return Some(Request::Settle(id));
                };
                let to = place.plus(moved.start);
                index.relocate(&moved.key, moved.from, to, moved.checksum);
            }
            return None;
        }
        if !run.is_read() {
            return run.look(index, (self.log_id, self.slot_bytes));
        }
        if run.live.is_empty() {
            return Some(self.end(index));
        }
        if !may_append {
            return None;
        }
        let batch = self.next_batch(index);
        (!batch.is_empty()).then_some(Request::Append(batch))
    }

    /// What is still live of the next values; empty when nothing is left.
    fn next_batch(&mut self, index: &dyn ValueIndex) -> ValueBatch {
        let run = self.run.as_mut().expect("the caller has one");
        let (mut batch, mut values) = (ValueBatch::default(), VecDeque::new());
        while let Some(first) = run.live.first_entry() {
            let footprint = value_footprint(first.key().len(), first.get().value.len());
            if !batch.is_empty() && batch.len() + footprint > self.batch_bytes {
                break;
            }
            run.live_bytes -= footprint;
            let (key, Live { from, value, checksum }) = first.remove_entry();
            if !index.is_live(&key, from, checksum) {
                continue;
            }
            let start = batch.push(&key, &value, checksum);
            values.push_back(Moved { key, from, start, checksum });
        }
        self.moved_values += values.len() as u64;
        self.moved_bytes += batch.len() as u64;
        run.batch = (!batch.is_empty()).then_some(Batch { id: 0, place: None, values });
        batch
    }

    /// Everything that was found has moved. A slot in which something is live still holds what could not be read.
    fn end(&mut self, index: &dyn ValueIndex) -> Request {
        let run = self.run.take().expect("the caller has one");
        self.spared.extend(run.victims.iter().filter(|slot| index.live_bytes(**slot) > 0));
        Request::End { victims: run.victims }
    }
}

impl Run {
    /// Whether every victim has been read and looked at.
    fn is_read(&self) -> bool {
        self.unread.is_empty() && self.walk.is_none()
    }

    /// Looks at a few records of the frame at hand, or goes on to the next one.
    fn look(
        &mut self,
        index: &dyn ValueIndex,
        (log_id, slot_bytes): (u128, u64),
    ) -> Option<Request> {
        if self.walk.is_none() {
            let slot = self.unread.pop_front()?;
            self.walk = Some(Walk::new(log_id, slot, slot_bytes));
        }
        let walk = self.walk.as_mut()?;
        if !self.is_reading && walk.wants(AHEAD_BYTES) {
            self.is_reading = true;
            return Some(read_of(walk, slot_bytes));
        }
        if self.frame.is_none() {
            match walk.step() {
                Step::Frame(frame) => self.frame = Some((frame, 0)),
                // What is on its way belongs to this slot.
                Step::Read | Step::End if self.is_reading => {
                    self.needs_read = true;
                    return None;
                }
                // A frame that is longer than what is read ahead.
                Step::Read => {
                    self.is_reading = true;
                    return Some(read_of(walk, slot_bytes));
                }
                Step::End => {
                    self.walk = None;
                    return None;
                }
            }
        }
        self.look_at_frame(index);
        None
    }

    fn look_at_frame(&mut self, index: &dyn ValueIndex) {
        let (Some(walk), Some((frame, next))) = (&mut self.walk, &mut self.frame) else { return };
        let mut bytes = 0;
        while let Some(record) = frame.records.get(*next)
            && bytes < LOOK_BYTES
        {
            let payload = walk.payload(record);
            let place = Location::new(walk.slot(), frame.offset).plus(record.start);
            let mut keep = |value: StoredValue<'_>| {
                self.live_bytes += keep(&mut self.live, index, place, value);
            };
            match record.kind {
                RecordKind::Entry(kind) | RecordKind::Repair(kind) => {
                    index.values_of(kind, payload, &mut keep);
                }
                RecordKind::Reset => {}
                RecordKind::Values => {
                    values_in(payload).filter_map(Result::ok).for_each(keep);
                }
            }
            bytes += record.bytes;
            *next += 1;
        }
        if *next == frame.records.len() {
            walk.pass(frame);
            self.frame = None;
        }
    }
}

fn read_of(walk: &Walk, slot_bytes: u64) -> Request {
    let (slot, offset) = (walk.slot(), walk.read_offset());
    let bytes = READ_BYTES.min(slot_bytes - offset);
    let bytes = usize::try_from(bytes).expect("at most 512 KiB");
    Request::Read { slot, offset, buf: AlignedBuf::zeroed(bytes) }
}

/// Keeps a value if it is live, and says what its copy will take.
fn keep(
    live: &mut BTreeMap<Box<[u8]>, Live>,
    index: &dyn ValueIndex,
    place: Location,
    value: StoredValue<'_>,
) -> usize {
    assert!(value.start.is_multiple_of(RECORD_ALIGN_BYTES));
    let from = place.plus(value.start);
    let StoredValue { key, value, checksum, .. } = value;
    if !index.is_live(key, from, checksum) {
        return 0;
    }
    let replaced = live.insert(key.into(), Live { from, value: value.into(), checksum });
    assert!(replaced.is_none(), "a key is live in one place");
    value_footprint(key.len(), value.len())
}
