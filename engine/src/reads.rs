//! Reading back: entries from memory or from a slot, bodies of checkpoints. Each read is a small job: it takes what
//! memory holds, asks the disk for the next span, verifies it, and goes on.
//!
//! Invariant: a slot with a read in flight is not reused, and what was read is checked against the frame that the
//! index named when the read was submitted: salt, place, sequence number, every checksum.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::AlignedBuf;
use crate::checkpoint::{
    block_body_bytes, block_count, block_file_bytes, block_offset, open_block,
};
use crate::error::{Check, Damage, ReadError};
use crate::format::{BLOCK_BYTES, CHECKPOINT_BLOCK_BODY_BYTES};
use crate::frame::{FrameHeader, LogTag, Record, RecordKind, decode_records, trusted_records};
use crate::index::{FramePlace, FrameRef, Stored};
use crate::io::{Class, Disk, Done, Op};
use crate::log::Log;
use crate::retained::Retained;
use crate::slots::SlotTable;
use crate::tags::Owner;
use crate::types::{Entry, Event, Wanted};
use crate::values::{Reader, Reading, Span, ValuesRead};

/// Adjacent frames are read together up to this size.
const SPAN_BYTES_MAX: usize = 1 << 20;
/// The most body bytes of a checkpoint that one read brings.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Everything a read may need.
pub(crate) struct Context<'a> {
    pub(crate) log: &'a Log,
    pub(crate) reader: &'a Reader,
    pub(crate) slots: &'a mut SlotTable,
    pub(crate) retained: &'a mut Retained,
    pub(crate) disk: &'a mut dyn Disk,
    pub(crate) events: &'a mut Vec<Event>,
}

/// The reads in progress.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Those that wait for the disk, by the number in their tag.
    waiting: BTreeMap<u64, Read>,
    /// Those that have not looked at anything yet, or wait for their entries to be put into a frame.
    fresh: Vec<EntryRead>,
    /// Requests for values of which spans are outstanding.
    values: BTreeMap<u64, ValuesRead>,
    values_read: u64,
    next: u64,
}

#[derive(Debug)]
enum Read {
    Entries(EntryRead, Vec<FrameRef>),
    Body(BodyRead),
    /// A span of the request of this number.
    Values(u64, Span),
}

#[derive(Debug)]
struct EntryRead {
    id: u64,
    first: u64,
    last: u64,
    bytes_max: usize,
    /// What has been collected.
    entries: Vec<Entry>,
    bytes: usize,
    /// The index's generation that it belongs to: a truncation makes it begin anew.
    generation: u64,
}

#[derive(Debug)]
struct BodyRead {
    id: u64,
    index: u64,
    salt: u64,
    /// Of table and body; the offset likewise counts from the table.
    body_bytes: u64,
    offset: u64,
    bytes: usize,
}

impl Reads {
    pub(crate) fn begin_entries(&mut self, id: u64, first: u64, last: u64, bytes_max: usize) {
        let entries = Vec::new();
        self.fresh.push(EntryRead { id, first, last, bytes_max, entries, bytes: 0, generation: 0 });
    }

    /// Values that came from the disk since the open.
    pub(crate) fn values_read(&self) -> u64 {
        self.values_read
    }

    /// Reads values. Whoever asks keeps the slots pinned that they lie in.
    pub(crate) fn begin_values(
        &mut self,
        id: u64,
        wanted: Vec<Wanted>,
        reading: Reading,
        context: &mut Context<'_>,
    ) {
        let mut read = ValuesRead::new(id, wanted, reading);
        let spans = read.plan(context.reader, context.slots);
        if spans.is_empty() {
            let results = read.finish();
            return context.events.push(Event::Values { id, results });
        }
        self.next += 1;
        let number = self.next;
        self.values.insert(number, read);
        for span in spans {
            self.values_read += span.values.len() as u64;
            context.slots.begin_read(span.slot);
            let (file, offset) = (context.slots.file(span.slot), span.start);
            let bytes = span.end - span.start;
            let op = |buf| Op::Read { file, offset, buf };
            self.submit(Class::Read, Read::Values(number, span), context.disk, op, bytes);
        }
    }

    fn values_arrived(
        &mut self,
        number: u64,
        span: &Span,
        bytes: io::Result<(AlignedBuf, usize)>,
        context: &mut Context<'_>,
    ) {
        context.slots.end_read(span.slot);
        let mut read = self.values.remove(&number).expect("it waits for all its spans");
        read.arrived(span, bytes, context.reader);
        if read.outstanding > 0 {
            self.values.insert(number, read);
            return;
        }
        context.events.push(Event::Values { id: read.id, results: read.finish() });
    }

    /// Answers what can be answered and asks the disk for the rest.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) {
        for mut read in std::mem::take(&mut self.fresh) {
            read.restart(context.log);
            self.go_on(read, context);
        }
    }

    /// Reads of a checkpoint's body. The checkpoint is kept while the read is in flight.
    pub(crate) fn begin_body(
        &mut self,
        id: u64,
        index: u64,
        offset: u64,
        bytes: usize,
        context: &mut Context<'_>,
    ) {
        let Some(kept) = context.retained.find(index) else {
            let result = Err(ReadError::NoCheckpoint { index });
            context.events.push(Event::CheckpointBytes { id, result });
            return;
        };
        let info = kept.info();
        let left = usize::try_from(info.body_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.min(BODY_BYTES_MAX).min(left);
        if bytes == 0 {
            context.events.push(Event::CheckpointBytes { id, result: Ok(Bytes::new()) });
            return;
        }
        let (body_bytes, offset) = (info.stored_bytes(), info.table_bytes() + offset);
        let read = BodyRead { id, index, salt: kept.salt(), body_bytes, offset, bytes };
        let (first, end) = read.file_range();
        let file = kept.file();
        context.retained.begin_read(index);
        self.submit(
            Class::CatchUp,
            Read::Body(read),
            context.disk,
            |buf| Op::Read { file, offset: first, buf },
            end - first,
        );
    }

    /// The disk has answered.
    pub(crate) fn complete(
        &mut self,
        number: u64,
        result: io::Result<Done>,
        context: &mut Context<'_>,
    ) {
        let read = self.waiting.remove(&number).expect("a read completes once");
        let bytes = match result {
            Ok(Done::Read { buf, read }) => Ok((buf, read)),
            Ok(Done::Opened { .. } | Done::Nothing) => unreachable!("a read brings bytes"),
            Err(error) => Err(error),
        };
        match read {
            Read::Entries(read, span) => self.entries_arrived(read, &span, bytes, context),
            Read::Values(number, span) => self.values_arrived(number, &span, bytes, context),
            Read::Body(read) => {
                context.retained.end_read(read.index);
                let id = read.id;
                let result = read.finish(bytes);
                context.events.push(Event::CheckpointBytes { id, result });
            }
        }
    }

    fn entries_arrived(
        &mut self,
        mut read: EntryRead,
        span: &[FrameRef],
        bytes: io::Result<(AlignedBuf, usize)>,
        context: &mut Context<'_>,
    ) {
        context.slots.end_read(span[0].place.slot);
        let taken = bytes
            .map_err(|source| read_failed(span[0].place.slot, source))
            .and_then(|(buf, count)| read.take_span(span, buf, count, context.log.tag()));
        if read.generation == context.log.index().generation() {
            if let Err(error) = taken {
                context.events.push(Event::Entries { id: read.id, result: Err(error) });
                return;
            }
        } else {
            read.restart(context.log);
        }
        self.go_on(read, context);
    }

    fn go_on(&mut self, mut read: EntryRead, context: &mut Context<'_>) {
        match read.progress(context.log) {
            Progress::Wait => self.fresh.push(read),
            Progress::Done(result) => {
                context.events.push(Event::Entries { id: read.id, result });
            }
            Progress::Span(span) => {
                let place = span[0].place;
                let bytes: u64 = span.iter().map(|frame| u64::from(frame.place.bytes)).sum();
                let file = context.slots.file(place.slot);
                let offset = offset_of(&place);
                context.slots.begin_read(place.slot);
                let op = |buf| Op::Read { file, offset, buf };
                self.submit(Class::CatchUp, Read::Entries(read, span), context.disk, op, bytes);
            }
        }
    }

    fn submit(
        &mut self,
        class: Class,
        read: Read,
        disk: &mut dyn Disk,
        op: impl FnOnce(AlignedBuf) -> Op,
        bytes: u64,
    ) {
        self.next += 1;
        self.waiting.insert(self.next, read);
        let buf = AlignedBuf::zeroed(usize::try_from(bytes).expect("a frame is at most 256 MiB"));
        disk.submit(class, Owner::Read(self.next).tag(), op(buf));
    }
}

enum Progress {
    /// The entries are not in a frame yet.
    Wait,
    Done(Result<Vec<Entry>, ReadError>),
    /// These adjacent frames must come from the disk.
    Span(Vec<FrameRef>),
}

impl EntryRead {
    fn restart(&mut self, log: &Log) {
        self.generation = log.index().generation();
        self.entries.clear();
        self.bytes = 0;
    }

    fn next(&self) -> u64 {
        self.entries.last().map_or(self.first, |entry| entry.index + 1)
    }

    /// Whether another entry is wanted.
    fn wants_more(&self, log: &Log) -> bool {
        let last = self.last.min(log.index().last().index);
        self.entries.is_empty() || (self.next() <= last && self.bytes < self.bytes_max)
    }

    fn progress(&mut self, log: &Log) -> Progress {
        while self.wants_more(log) {
            let next = self.next();
            if next <= log.index().start().index {
                return self.finish(ReadError::Gone { log_start: log.index().start() });
            }
            if next > log.index().last().index {
                let last = log.queued_last();
                let is_queued = next <= last.index && self.first <= self.last;
                return if is_queued {
                    Progress::Wait
                } else {
                    self.finish(ReadError::Beyond { last })
                };
            }
            let frame = log.index().frame_of(next);
            let cached = log.tail().find(frame.place.seq).cloned();
            let Some(cached) = cached.filter(|_| frame.stored != Stored::Damaged) else {
                return match frame.stored {
                    Stored::Entries => {
                        Progress::Span(span_of(log.index().frames_from(next), log, self.last))
                    }
                    Stored::Repairs => Progress::Span(vec![frame]),
                    Stored::Damaged => {
                        let faulty = log.index().faulty_in(&frame);
                        self.finish(ReadError::Faulty(Box::new(faulty)))
                    }
                };
            };
            let records = trusted_records(&cached.header, &cached.frame.as_slice()[cached.start..])
                .expect("a frame in memory is what was encoded");
            let whole = cached.frame.slice(0, cached.frame.as_slice().len());
            self.take_records(&frame, &records, &whole, cached.start);
        }
        Progress::Done(Ok(std::mem::take(&mut self.entries)))
    }

    /// What has been collected is an answer; with nothing collected there is only the error.
    fn finish(&mut self, error: ReadError) -> Progress {
        if self.entries.is_empty() {
            return Progress::Done(Err(error));
        }
        Progress::Done(Ok(std::mem::take(&mut self.entries)))
    }

    /// Takes verified frames out of what the disk brought.
    fn take_span(
        &mut self,
        span: &[FrameRef],
        buf: AlignedBuf,
        count: usize,
        tag: LogTag,
    ) -> Result<(), ReadError> {
        let whole = Bytes::from_owner(buf);
        let (before, mut start) = (self.next(), 0);
        for frame in span {
            let end = start + frame.place.bytes as usize;
            let damaged = |check| ReadError::Damaged(Box::new(damage(frame, check)));
            let bytes = whole.get(start..end.min(count)).ok_or(damaged(Check::Unreadable))?;
            let records = verified_records(&frame.place, bytes, tag).map_err(damaged)?;
            self.take_records(frame, &records, &whole, start);
            start = end;
        }
        if self.next() == before {
            return Err(ReadError::Damaged(Box::new(damage(&span[0], Check::Indices))));
        }
        Ok(())
    }

    /// Takes the live entries of a frame that are wanted. `start` is where the frame starts in `whole`.
    fn take_records(&mut self, frame: &FrameRef, records: &[Record], whole: &Bytes, start: usize) {
        let records = match frame.stored {
            Stored::Entries => live_records(records),
            Stored::Repairs => records.iter().filter(|record| is_repair(record)).collect(),
            Stored::Damaged => Vec::new(),
        };
        for record in records {
            let Record { kind, at, start: payload, bytes } = *record;
            let (RecordKind::Entry(kind) | RecordKind::Repair(kind)) = kind else { continue };
            let is_wanted = at.index == self.next()
                && (frame.first..=frame.last.min(self.last)).contains(&at.index)
                && (self.entries.is_empty() || self.bytes < self.bytes_max);
            if is_wanted {
                let payload = whole.slice(start + payload..start + payload + bytes);
                self.bytes += payload.len();
                self.entries.push(Entry { index: at.index, term: at.term, kind, payload });
            }
        }
    }
}

/// The records that a frame does not replace itself.
fn live_records(records: &[Record]) -> Vec<&Record> {
    let mut live: Vec<&Record> = Vec::with_capacity(records.len());
    for record in records {
        match record.kind {
            RecordKind::Entry(_) => {
                while live.last().is_some_and(|before| before.at.index >= record.at.index) {
                    live.pop();
                }
                live.push(record);
            }
            RecordKind::Reset => live.clear(),
            RecordKind::Repair(_) => {}
            RecordKind::Values => unreachable!("the log has no frame of values"),
        }
    }
    live
}

fn is_repair(record: &Record) -> bool {
    matches!(record.kind, RecordKind::Repair(_))
}

/// Frames that lie one after the other on disk, from the first one on.
fn span_of<'a>(frames: impl Iterator<Item = &'a FrameRef>, log: &Log, last: u64) -> Vec<FrameRef> {
    let mut span: Vec<FrameRef> = Vec::new();
    let mut bytes = 0;
    for frame in frames {
        let is_adjacent = span.last().is_none_or(|before| {
            before.place.slot == frame.place.slot
                && before.place.salt == frame.place.salt
                && offset_of(&before.place) + u64::from(before.place.bytes)
                    == offset_of(&frame.place)
        });
        bytes += frame.place.bytes as usize;
        let is_needed = frame.first <= last
            && frame.stored == Stored::Entries
            && log.tail().find(frame.place.seq).is_none();
        if !span.is_empty() && (!is_adjacent || !is_needed || bytes > SPAN_BYTES_MAX) {
            break;
        }
        span.push(*frame);
    }
    span
}

fn verified_records(place: &FramePlace, bytes: &[u8], tag: LogTag) -> Result<Vec<Record>, Check> {
    let (header, _) = FrameHeader::decode(tag, bytes)?;
    let checks = [
        (header.salt == place.salt, Check::Salt),
        (header.slot == place.slot && header.block == place.block, Check::Address),
        (header.seq == place.seq, Check::Sequence),
        (header.frame_bytes() == bytes.len(), Check::Length),
    ];
    match checks.into_iter().find(|(passed, _)| !passed) {
        Some((_, check)) => Err(check),
        None => decode_records(&header, bytes),
    }
}

fn damage(frame: &FrameRef, check: Check) -> Damage {
    Damage {
        slot: frame.place.slot,
        offset: offset_of(&frame.place),
        seq: frame.place.seq,
        indices: Some((frame.first, frame.last)),
        check,
        proof: None,
    }
}

fn offset_of(place: &FramePlace) -> u64 {
    u64::from(place.block) * BLOCK_BYTES as u64
}

fn read_failed(slot: u32, source: io::Error) -> ReadError {
    let what = format!("read {}", crate::format::slot_path(slot));
    ReadError::Io { what, source: Arc::new(source) }
}

impl BodyRead {
    fn blocks(&self) -> std::ops::Range<u64> {
        let block = CHECKPOINT_BLOCK_BODY_BYTES as u64;
        let end = self.offset + self.bytes as u64;
        self.offset / block..end.div_ceil(block).min(block_count(self.body_bytes))
    }

    fn file_range(&self) -> (u64, u64) {
        let blocks = self.blocks();
        let last = blocks.end - 1;
        let end = block_offset(last) + block_file_bytes(last, self.body_bytes) as u64;
        (block_offset(blocks.start), end)
    }

    fn finish(&self, bytes: io::Result<(AlignedBuf, usize)>) -> Result<Bytes, ReadError> {
        let index = self.index;
        let (buf, count) = bytes.map_err(|source| ReadError::Io {
            what: format!("read {}", crate::format::checkpoint_path(index)),
            source: Arc::new(source),
        })?;
        let mut bodies = Vec::with_capacity(self.bytes + 2 * CHECKPOINT_BLOCK_BODY_BYTES);
        let (first, _) = self.file_range();
        for block in self.blocks() {
            let start = usize::try_from(block_offset(block) - first).expect("within the read");
            let end = start + block_file_bytes(block, self.body_bytes);
            let damaged = |check| ReadError::CheckpointDamaged { index, block, check };
            let bytes = buf.as_slice().get(start..end.min(count));
            let bytes = bytes.ok_or(damaged(Check::Unreadable))?;
            let length = block_body_bytes(block, self.body_bytes);
            let (body, _) = open_block(bytes, self.salt, block, length).map_err(damaged)?;
            bodies.extend_from_slice(body);
        }
        let skip = self.offset - self.blocks().start * CHECKPOINT_BLOCK_BODY_BYTES as u64;
        let skip = usize::try_from(skip).expect("within a block");
        Ok(Bytes::from(bodies).slice(skip..skip + self.bytes))
    }
}
