//! `holdfast wal dump`.

use std::ops::ControlFlow;

use engine::{
    Dumped, FrameView, HardState, HoleView, Position, RecordView, SegmentKind, SegmentView,
};
use serde_json::{Map, Value, json};

use super::super::outcome::{Exit, Failure};
use super::super::output::{Format, Output, insert_bytes};
use super::{CommonArgs, Looked, State, kind_name, unreadable};
use crate::peer_message::kind_of;
use crate::state_machine::{CommandRef, EntryReader};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Print the commands of each entry, too: keys, not values
    #[arg(long)]
    commands: bool,
}

/// Lines are written this many bytes at a time.
const WRITE_BYTES: usize = 64 << 10;

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let CommonArgs { dir, output } = &args.common;
    let looked = Looked::open(dir)?;
    let mut lines = Lines {
        format: output.format,
        commands: args.commands,
        waiting: String::new(),
        output: Output::stdout(),
        result: Ok(true),
    };
    // The lines are the progress.
    let disk = looked.disk(|_| {})?;
    let dumped = engine::dump(disk, dir, &mut |dumped| lines.show(&dumped));
    lines.flush();
    if !lines.result? {
        return Ok(Exit::Done);
    }
    match dumped {
        Ok(()) => Ok(State::of(&looked.verify()?).exit()),
        Err(error) if State::of_error(&error) == State::Unreadable => Err(unreadable(&error)),
        Err(error) => Err(Failure::new(State::of_error(&error).exit(), error.to_string())),
    }
}

/// What is printed, a line each.
struct Lines {
    format: Format,
    commands: bool,
    waiting: String,
    output: Output,
    /// Whether somebody still reads.
    result: Result<bool, Failure>,
}

impl Lines {
    fn show(&mut self, dumped: &Dumped<'_>) -> ControlFlow<()> {
        match self.format {
            Format::Plain => self.waiting.push_str(&line(dumped)),
            Format::Json => self.waiting.push_str(&object(dumped).to_string()),
        }
        self.waiting.push('\n');
        if let (true, Dumped::Record(record)) = (self.commands, dumped) {
            self.show_commands(record);
        }
        if self.waiting.len() >= WRITE_BYTES {
            self.flush();
        }
        match self.result {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) | Err(_) => ControlFlow::Break(()),
        }
    }

    fn show_commands(&mut self, record: &RecordView<'_>) {
        let is_ours =
            record.kind == "entry" && kind_of(record.entry_kind) == Some(raft::Kind::Normal);
        let Some(Ok(entry)) = is_ours.then(|| EntryReader::open(record.payload)) else { return };
        for decoded in entry.commands() {
            let at = record.offset + decoded.key_offset as u64;
            let named = Named::of(&decoded.command);
            self.waiting.push_str(&match self.format {
                Format::Plain => named.line(at),
                Format::Json => named.object(at).to_string(),
            });
            self.waiting.push('\n');
        }
    }

    fn flush(&mut self) {
        if self.result == Ok(true) {
            self.result = self.output.write(self.waiting.as_bytes());
        }
        self.waiting.clear();
    }
}

/// What a command is called, what it is about, and how long the value is that it brings.
struct Named<'a> {
    name: &'static str,
    key: &'a [u8],
    value_bytes: Option<usize>,
}

impl<'a> Named<'a> {
    fn of(command: &CommandRef<'a>) -> Named<'a> {
        let (name, key, value) = match *command {
            CommandRef::Put { key, value } => ("put", key, Some(value)),
            CommandRef::Delete { key } => ("delete", key, None),
            CommandRef::DeleteRange { start, .. } => ("delete range from", start, None),
            CommandRef::CompareAndSet { key, value, .. } => ("compare and set", key, value),
            CommandRef::SessionOpen { label, .. } => ("open session", label, None),
            CommandRef::SessionClose { .. } => ("close session", &[][..], None),
            CommandRef::SessionExpire { .. } => ("expire session", &[][..], None),
            CommandRef::LockAcquire { name, .. } => ("acquire lock", name, None),
            CommandRef::LockRelease { name, .. } => ("release lock", name, None),
            CommandRef::LockCancel { name, .. } => ("cancel lock", name, None),
        };
        Named { name, key, value_bytes: value.map(<[u8]>::len) }
    }

    fn line(&self, at: u64) -> String {
        let Named { name, key, value_bytes } = self;
        let value = value_bytes.map_or_else(String::new, |bytes| format!(", value of {bytes}"));
        format!("      {at:>10}  {name} {}{value}", key.escape_ascii())
    }

    fn object(&self, at: u64) -> Value {
        let mut object = Map::new();
        object.insert("command".to_owned(), self.name.into());
        object.insert("offset".to_owned(), at.into());
        insert_bytes(&mut object, "key", self.key);
        object.insert("value_bytes".to_owned(), self.value_bytes.into());
        object.into()
    }
}

fn line(dumped: &Dumped<'_>) -> String {
    match dumped {
        Dumped::Meta(meta) => {
            format!(
                "META: node {}, log {:032x}, slots of {} bytes",
                meta.node, meta.log_id, meta.slot_bytes
            )
        }
        Dumped::Checkpoint(path, Ok(info)) => {
            format!(
                "{path}: entry {}, {} bytes, frames up to {} durable, keeps the log after entry {}",
                info.at, info.body_bytes, info.durable_seq, info.keeps_after
            )
        }
        Dumped::Checkpoint(path, Err(check)) => format!("{path}: fails its {check} check"),
        Dumped::NoSegment(slot, None) => format!("seg/{slot:08x}.seg: never used"),
        Dumped::NoSegment(slot, Some(check)) => {
            format!("seg/{slot:08x}.seg: no segment, its header fails the {check} check")
        }
        Dumped::Segment(segment) => segment_line(segment),
        Dumped::Frame(frame) => frame_line(frame),
        Dumped::Record(record) => {
            let RecordView { kind, entry_kind, at, offset, payload } = record;
            format!("    {offset:>10}  {kind} {at}, kind {entry_kind}, {} bytes", payload.len())
        }
        Dumped::Hole(hole) => hole_line(hole),
        Dumped::End { offset, check: Some(check), .. } => {
            format!("  {offset:>10}  end: what follows fails the {check} check")
        }
        Dumped::End { offset, check: None, .. } => format!("  {offset:>10}  end of the slot"),
    }
}

fn segment_line(segment: &SegmentView) -> String {
    let SegmentView { slot, kind, number, salt, epoch, first_seq, log_start, last, hard_state } =
        segment;
    let HardState { term, vote } = hard_state;
    let kind_name = kind_name(*kind).to_ascii_uppercase();
    let log = match kind {
        SegmentKind::Log => {
            format!("; log after {log_start} up to {last}, term {term}, vote {vote}")
        }
        SegmentKind::Values => String::new(),
    };
    format!(
        "seg/{slot:08x}.seg: {kind_name} segment {number}, open {epoch}, salt {salt:016x}, frames from {first_seq}{log}"
    )
}

fn frame_line(frame: &FrameView) -> String {
    let FrameView { offset, bytes, seq, durable_seq, is_note, hard_state, last, records, .. } =
        frame;
    let kind = if *is_note { "note" } else { "frame" };
    let HardState { term, vote } = hard_state;
    format!(
        "  {offset:>10}  {kind} {seq}, {bytes} bytes, {records} records, last {last}, term {term}, vote {vote}, promises {durable_seq}"
    )
}

fn hole_line(hole: &HoleView) -> String {
    let HoleView { offset, end, first_seq, last_seq, check, indices, .. } = hole;
    let held = match indices {
        (0, 0) => "no entries".to_owned(),
        (first, last) => format!("entries {first} to {last}"),
    };
    format!(
        "  {offset:>10}  hole: frames {first_seq} to {last_seq}, {} bytes, held {held}; fails the {check} check",
        end - offset
    )
}

fn position(at: &Position) -> Value {
    json!({ "index": at.index, "term": at.term })
}

fn object(dumped: &Dumped<'_>) -> Value {
    match dumped {
        Dumped::Meta(meta) => json!({
            "what": "meta", "node": meta.node, "log": format!("{:032x}", meta.log_id), "slot_bytes": meta.slot_bytes,
        }),
        Dumped::Checkpoint(path, Ok(info)) => json!({
            "what": "checkpoint", "path": path, "at": position(&info.at), "bytes": info.body_bytes,
            "durable_seq": info.durable_seq, "installed": info.installed, "keeps_after": position(&info.keeps_after),
        }),
        Dumped::Checkpoint(path, Err(check)) => {
            json!({ "what": "checkpoint", "path": path, "check": check.to_string() })
        }
        Dumped::NoSegment(slot, check) => {
            json!({ "what": "slot", "slot": slot, "check": check.map(|check| check.to_string()) })
        }
        Dumped::Segment(segment) => json!({
            "what": "segment", "slot": segment.slot, "kind": kind_name(segment.kind), "number": segment.number,
            "epoch": segment.epoch, "salt": format!("{:016x}", segment.salt), "first_seq": segment.first_seq,
            "log_start": position(&segment.log_start), "last": position(&segment.last),
            "term": segment.hard_state.term, "vote": segment.hard_state.vote,
        }),
        Dumped::Frame(frame) => json!({
            "what": if frame.is_note { "note" } else { "frame" }, "offset": frame.offset, "bytes": frame.bytes,
            "seq": frame.seq, "durable_seq": frame.durable_seq, "first_index": frame.first_index,
            "last": position(&frame.last), "term": frame.hard_state.term, "vote": frame.hard_state.vote,
            "records": frame.records,
        }),
        Dumped::Record(record) => json!({
            "what": record.kind, "kind": record.entry_kind, "at": position(&record.at), "offset": record.offset,
            "bytes": record.payload.len(),
        }),
        Dumped::Hole(hole) => json!({
            "what": "hole", "slot": hole.slot, "offset": hole.offset, "bytes": hole.end - hole.offset,
            "first_seq": hole.first_seq, "last_seq": hole.last_seq, "indices": [hole.indices.0, hole.indices.1],
            "check": hole.check.to_string(),
        }),
        Dumped::End { slot, offset, check } => json!({
            "what": "end", "slot": slot, "offset": offset, "check": check.map(|check| check.to_string()),
        }),
    }
}
