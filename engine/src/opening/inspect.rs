//! Looking at a directory without changing it: what an open would find, and beyond that everything that it would not
//! have to read.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::{
    CheckpointName, Checkpoints, Extent, Nobody, Opening, SlotFiles, checkpoint_name, recovered,
};
use crate::error::{Check, Damage, OpenError, Proof};
use crate::format::{CHECKPOINT_DIR, SEGMENT_HEADER_BYTES, checkpoint_path, slot_path};
use crate::frame::{FrameKind, LogTag, Record, RecordKind};
use crate::io::{Disk, FileId};
use crate::meta;
use crate::options::OnDamage;
use crate::recovery::{RecoveredLog, Slots, Verdict, decide};
use crate::report::Recovered;
use crate::retained::Kept;
use crate::scan::{Failure, Scan, ScannedFrame, ScannedHole, Scanner};
use crate::segment::{Head, SegmentHeader, SegmentKind};
use crate::types::{CheckpointInfo, HardState, Meta, Position};

/// What a directory holds.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Whose it is.
    pub meta: Meta,
    /// What an open would go on from. Nothing was moved aside, so its report names no quarantined file.
    pub recovered: Recovered,
    /// The good checkpoints, newest first, at most two.
    pub checkpoints: Vec<CheckpointInfo>,
    /// Damaged checkpoints by their paths, and what they fail.
    pub damaged: Vec<(String, Check)>,
    /// What else checkpoints need, whose headers are sound: segments without a live entry that hold values. Those of the
    /// log come first, each kind in the order of its numbers.
    pub held: Vec<HeldSegment>,
    /// Damage in slots that hold no entry of the log any more but values of a checkpoint.
    pub rotten: Vec<Damage>,
}

/// A segment that only checkpoints need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HeldSegment {
    /// Of the log or of values.
    pub kind: SegmentKind,
    /// Its number among those of its kind.
    pub number: u64,
    /// Where it lies.
    pub slot: u32,
}

impl Inspection {
    /// What the segment is that only checkpoints need of this slot; none where its header is damaged.
    pub fn held_in(&self, slot: u32) -> Option<HeldSegment> {
        self.held.iter().find(|held| held.slot == slot).copied()
    }
}

/// Reads everything that an open would read, both checkpoints whole, and the slots that only checkpoints need.
/// Nothing is changed. `dir_for_messages` names the directory.
///
/// In a slot without a successor that states its end, damage can be told from the end only where a later frame of it
/// promises more; the values in such a slot carry checksums of their own.
///
/// Errors: whatever an open would refuse the directory for.
pub fn verify<D: Disk>(mut disk: D, dir_for_messages: &Path) -> Result<Inspection, OpenError> {
    let mut opening = Opening::new(&mut disk, dir_for_messages);
    let meta = meta::load(&mut opening.io, &opening.dir)?;
    let files = opening.slots(&meta)?;
    let checkpoints = opening.checkpoints(&meta, &mut Nobody)?;
    let damaged = opening.damaged(&meta, &checkpoints)?;
    opening.check_named_slots(&files, &checkpoints)?;
    let log = opening.recover(&meta, &files, &checkpoints, OnDamage::Refuse)?;
    let (held, rotten) = opening.held(&meta, &files, &checkpoints, &log)?;
    let kept: Vec<CheckpointInfo> = checkpoints.good.iter().map(Kept::info).collect();
    let recovered = recovered(false, &log, &checkpoints.good, opening.report);
    Ok(Inspection { meta, recovered, checkpoints: kept, damaged, held, rotten })
}

impl Opening<'_> {
    /// The checkpoints that the open finds bad, and the older ones if they are, which it would not read whole.
    fn damaged(
        &mut self,
        meta: &Meta,
        found: &Checkpoints,
    ) -> Result<Vec<(String, Check)>, OpenError> {
        let bad = found.bad.iter().map(|(index, check)| (checkpoint_path(*index), *check));
        let mut damaged: Vec<(String, Check)> = bad.collect();
        for kept in found.good.iter().skip(1) {
            let index = kept.info().at.index;
            if let Err(check) = self.checkpoint(meta, index, Extent::Whole(&mut Nobody))? {
                damaged.push((checkpoint_path(index), check));
            }
        }
        Ok(damaged)
    }

    /// What the slots hold that checkpoints need and the log does not, and the damage in them.
    fn held(
        &mut self,
        meta: &Meta,
        files: &[FileId],
        checkpoints: &Checkpoints,
        log: &RecoveredLog,
    ) -> Result<(Vec<HeldSegment>, Vec<Damage>), OpenError> {
        let in_log: BTreeSet<u32> = log.chain.iter().map(|segment| segment.slot).collect();
        let named: BTreeSet<u32> = checkpoints.good.iter().flat_map(Kept::slots).copied().collect();
        let (mut segments, mut rotten) = (Vec::new(), Vec::new());
        for slot in named.difference(&in_log) {
            let (head, bytes, refused) = self.slot(meta, files, *slot);
            if let Some(offset) = refused.first() {
                let (dir, path, offset) = (self.dir.clone(), slot_path(*slot), *offset);
                return Err(OpenError::Unreadable { dir, path, offset });
            }
            if let Head::Segment(SegmentHeader { kind, number, slot, .. }) = head {
                segments.push(HeldSegment { kind, number, slot });
            }
            rotten.extend(rot(*slot, &head, meta, &bytes));
        }
        segments.sort_unstable();
        Ok((segments, rotten))
    }

    /// What the first block of a slot says.
    fn head(&mut self, meta: &Meta, files: &[FileId], slot: u32) -> Head {
        let mut block = Vec::new();
        let mut slots = SlotFiles { io: &mut self.io, files };
        slots.read(slot, 0, SEGMENT_HEADER_BYTES as u64, &mut block);
        SegmentHeader::classify(&block, meta.log_id, slot, meta.slot_bytes)
    }

    /// All of a slot, and where the device refused to give it.
    fn slot(&mut self, meta: &Meta, files: &[FileId], slot: u32) -> (Head, Vec<u8>, Vec<u64>) {
        let mut bytes = Vec::new();
        let mut slots = SlotFiles { io: &mut self.io, files };
        let refused = slots.read(slot, 0, meta.slot_bytes, &mut bytes);
        let head = SegmentHeader::classify(&bytes, meta.log_id, slot, meta.slot_bytes);
        (head, bytes, refused)
    }
}

/// What is wrong with a slot that holds values, as far as its own bytes tell.
fn rot(slot: u32, head: &Head, meta: &Meta, bytes: &[u8]) -> Option<Damage> {
    let of_header =
        |check| Some(Damage { slot, offset: 0, seq: 0, indices: None, check, proof: None });
    match head {
        Head::Blank => of_header(Check::Magic),
        Head::Bad(check) => of_header(*check),
        Head::Segment(header) => {
            let Failure { offset, seq, check, indices, promised_seq, .. } =
                scan(header, meta, bytes).first_failure()?;
            match decide(seq, &[Proof::LaterFrame { durable_seq: promised_seq }]) {
                Verdict::Torn => None,
                Verdict::Corrupt(proof) => {
                    Some(Damage { slot, offset, seq, indices, check, proof: Some(proof) })
                }
            }
        }
    }
}

fn scan(header: &SegmentHeader, meta: &Meta, bytes: &[u8]) -> Scan {
    Scanner::new(header, LogTag::of(meta.log_id), bytes.len() as u64, None).end(bytes)
}

/// What [`dump`] comes across.
#[derive(Clone, Copy, Debug)]
pub enum Dumped<'a> {
    /// Whose directory it is. First.
    Meta(&'a Meta),
    /// A checkpoint, newest first, and what it fails if it is damaged. Before all slots.
    Checkpoint(&'a str, Result<CheckpointInfo, Check>),
    /// A slot that holds no segment: why not, or nothing if it was never used. Before all segments.
    NoSegment(u32, Option<Check>),
    /// A segment; its frames follow. Those of the log come first, then those of values, each in the order of its numbers.
    Segment(SegmentView),
    /// A frame; its records follow.
    Frame(FrameView),
    /// A record.
    Record(RecordView<'a>),
    /// Frames in a row that cannot be read; sound ones of the same segment, or its end, follow.
    Hole(HoleView),
    /// Where the frames of the segment end, and the check that what lies there does not pass.
    End {
        /// The slot.
        slot: u32,
        /// The first byte after the last frame.
        offset: u64,
        /// None where the slot is full.
        check: Option<Check>,
    },
}

/// Frames that cannot be read. Whether they had been durable is [`verify`]'s question.
#[derive(Clone, Copy, Debug)]
pub struct HoleView {
    /// The slot.
    pub slot: u32,
    /// The first byte of the first of them.
    pub offset: u64,
    /// The first byte after the last.
    pub end: u64,
    /// The sequence number of the first.
    pub first_seq: u64,
    /// That of the last.
    pub last_seq: u64,
    /// What the first fails.
    pub check: Check,
    /// The entries that they held; (0, 0) is none.
    pub indices: (u64, u64),
}

/// The header of a segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentView {
    /// Where it lies.
    pub slot: u32,
    /// Whether its frames hold entries or values.
    pub kind: SegmentKind,
    /// Its number among those of its kind.
    pub number: u64,
    /// The salt of this life of the slot.
    pub salt: u64,
    /// How many opens had written a segment.
    pub epoch: u64,
    /// Its first frame.
    pub first_seq: u64,
    /// The entry before the first one of the log when it was opened.
    pub log_start: Position,
    /// The last entry of the log when it was opened.
    pub last: Position,
    /// Term and vote when it was opened.
    pub hard_state: HardState,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameView {
    /// Its first byte in the slot.
    pub offset: u64,
    /// Its length with padding.
    pub bytes: usize,
    /// Its sequence number.
    pub seq: u64,
    /// The promise: every frame up to this one was durable.
    pub durable_seq: u64,
    /// Whether it holds nothing but its promise.
    pub is_note: bool,
    /// Term and vote.
    pub hard_state: HardState,
    /// The first index it holds; 0 is none.
    pub first_index: u64,
    /// The last entry of the log with it.
    pub last: Position,
    /// How many records it has.
    pub records: usize,
}

/// A line of a frame's table, and its payload.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// What it does.
    pub kind: &'static str,
    /// The kind of an entry.
    pub entry_kind: u8,
    /// Index and term.
    pub at: Position,
    /// Its payload's first byte in the slot.
    pub offset: u64,
    /// The payload, verified.
    pub payload: &'a [u8],
}

/// Shows every checkpoint, every segment, frame and record that can be read, whether the log needs it or not, until
/// `show` has enough. It decides nothing: that is [`verify`]'s. What the device refuses to give passes no check.
/// Nothing is changed.
///
/// Errors: what leaves nothing to be shown, such as a `META` that is damaged.
pub fn dump<D: Disk>(
    mut disk: D,
    dir_for_messages: &Path,
    show: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<(), OpenError> {
    let mut show = |dumped: Dumped<'_>| match show(dumped) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Enough),
    };
    match Opening::new(&mut disk, dir_for_messages).dump(&mut show) {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Why nothing more is shown.
enum Stop {
    Enough,
    Failed(OpenError),
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Stop {
        Stop::Failed(error)
    }
}

type Show<'a> = dyn FnMut(Dumped<'_>) -> Result<(), Stop> + 'a;

impl Opening<'_> {
    fn dump(&mut self, show: &mut Show<'_>) -> Result<(), Stop> {
        let meta = &meta::load(&mut self.io, &self.dir)?;
        show(Dumped::Meta(meta))?;
        self.dump_checkpoints(meta, show)?;
        let files = self.slots(meta)?;
        let mut segments = Vec::new();
        for slot in 0..u32::try_from(files.len()).expect("slots are numbered in 32 bits") {
            match self.head(meta, &files, slot) {
                Head::Blank => show(Dumped::NoSegment(slot, None))?,
                Head::Bad(check) => show(Dumped::NoSegment(slot, Some(check)))?,
                Head::Segment(header) => segments.push(header),
            }
        }
        segments.sort_by_key(|header| (header.kind, header.number));
        for header in segments {
            let (_, bytes, _) = self.slot(meta, &files, header.slot);
            dump_segment(&header, &scan(&header, meta, &bytes), &bytes, show)?;
        }
        Ok(())
    }

    fn dump_checkpoints(&mut self, meta: &Meta, show: &mut Show<'_>) -> Result<(), Stop> {
        let names = self.io.list(CHECKPOINT_DIR)?;
        for name in names.iter().rev() {
            let Some(CheckpointName::Durable(index)) = checkpoint_name(name) else { continue };
            let found = self.checkpoint(meta, index, Extent::Whole(&mut Nobody))?;
            let path = checkpoint_path(index);
            show(Dumped::Checkpoint(&path, found.map(|kept| kept.info())))?;
        }
        Ok(())
    }
}

fn dump_segment(
    header: &SegmentHeader,
    scan: &Scan,
    bytes: &[u8],
    show: &mut Show<'_>,
) -> Result<(), Stop> {
    show(Dumped::Segment(view_of(header)))?;
    let mut holes = scan.holes.iter().map(|hole| hole_view_of(header.slot, hole)).peekable();
    for frame in &scan.frames {
        while let Some(hole) = holes.next_if(|hole| hole.last_seq < frame.header.seq) {
            show(Dumped::Hole(hole))?;
        }
        let records = scan.records_of(frame);
        show(Dumped::Frame(frame_view_of(frame, records.len())))?;
        for record in records {
            show(Dumped::Record(record_view_of(frame, record, bytes)))?;
        }
    }
    holes.try_for_each(|hole| show(Dumped::Hole(hole)))?;
    let check = scan.failure.map(|failure| failure.check);
    show(Dumped::End { slot: header.slot, offset: scan.end, check })
}

fn hole_view_of(slot: u32, hole: &ScannedHole) -> HoleView {
    let Failure { offset, seq: first_seq, check, .. } = hole.failure;
    let ScannedHole { end, last_seq, .. } = *hole;
    HoleView { slot, offset, end, first_seq, last_seq, check, indices: hole.indices() }
}

fn record_view_of<'a>(frame: &ScannedFrame, record: &Record, bytes: &'a [u8]) -> RecordView<'a> {
    let offset = frame.offset + record.start as u64;
    let start = usize::try_from(offset).expect("a slot is at most 1 GiB");
    let (kind, entry_kind) = match record.kind {
        RecordKind::Entry(kind) => ("entry", kind),
        RecordKind::Repair(kind) => ("repair", kind),
        RecordKind::Reset => ("reset", 0),
        RecordKind::Values => ("values", 0),
    };
    let payload = &bytes[start..start + record.bytes];
    RecordView { kind, entry_kind, at: record.at, offset, payload }
}

fn view_of(header: &SegmentHeader) -> SegmentView {
    let SegmentHeader { slot, kind, number, salt, epoch, first_seq, .. } = *header;
    let SegmentHeader { log_start, hard_state, .. } = *header;
    let last = header.prev.last;
    SegmentView { slot, kind, number, salt, epoch, first_seq, log_start, last, hard_state }
}

fn frame_view_of(frame: &ScannedFrame, records: usize) -> FrameView {
    let header = &frame.header;
    FrameView {
        offset: frame.offset,
        bytes: header.frame_bytes(),
        seq: header.seq,
        durable_seq: header.durable_seq,
        is_note: header.kind == FrameKind::Note,
        hard_state: header.hard_state,
        first_index: header.first_index,
        last: header.last,
        records,
    }
}
