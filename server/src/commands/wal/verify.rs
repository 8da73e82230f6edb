//! `holdfast wal verify`.

use std::fmt::Write;

use engine::{
    CheckpointInfo, Damage, HeldSegment, Hole, HoleFate, Inspection, OpenError, SegmentKind,
    TornTail,
};
use serde_json::{Value, json};

use super::super::outcome::{Exit, Failure};
use super::super::output::{Format, Output};
use super::{CommonArgs, Looked, State, kind_name};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let CommonArgs { dir, output } = &args.common;
    let found = Looked::open(dir)?.verify()?;
    let state = State::of(&found);
    let mut out = Output::stdout();
    match output.format {
        Format::Plain => out.write(text(&found, state).as_bytes())?,
        Format::Json => out.json(&object(&found, state))?,
    };
    Ok(state.exit())
}

fn text(found: &Result<Inspection, OpenError>, state: State) -> String {
    let mut text = String::new();
    match found {
        Ok(found) => describe(found, &mut text),
        Err(error) => put(&mut text, format_args!("{error}")),
    }
    put(&mut text, format_args!("{}", state.name()));
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes everything");
}

fn describe(found: &Inspection, text: &mut String) {
    let Inspection { meta, recovered, checkpoints, damaged, held, rotten } = found;
    let (node, slots, mib) = (meta.node, recovered.report.slots, meta.slot_bytes >> 20);
    put(text, format_args!("node {node}, log {:032x}, {slots} slots of {mib} MiB", meta.log_id));
    for CheckpointInfo { at, body_bytes, installed, .. } in checkpoints {
        let origin = if *installed { "from a peer" } else { "made here" };
        put(text, format_args!("checkpoint at entry {at}, {body_bytes} bytes, {origin}"));
    }
    let (start, last) = (recovered.log_start, recovered.last);
    let (term, vote) = (recovered.hard_state.term, recovered.hard_state.vote);
    put(text, format_args!("log after entry {start} up to entry {last}; term {term}, vote {vote}"));
    put(text, format_args!("{}", recovered.report));
    if !held.is_empty() {
        let values = held.iter().filter(|held| held.kind == SegmentKind::Values).count();
        let log = held.len() - values;
        put(text, format_args!("{log} LOG and {values} VAL segments that only checkpoints need"));
    }
    for (path, check) in damaged {
        put(text, format_args!("{path} fails its {check} check"));
    }
    for damage in rotten {
        match found.held_in(damage.slot) {
            Some(HeldSegment { kind, number, .. }) => {
                let kind = kind_name(kind).to_ascii_uppercase();
                put(text, format_args!("{kind} segment {number}: {damage}"));
            }
            None => put(text, format_args!("{damage}")),
        }
    }
}

fn object(found: &Result<Inspection, OpenError>, state: State) -> Value {
    let mut object = match found {
        Ok(found) => inspection(found),
        Err(OpenError::Damaged { damage, .. }) => {
            json!({ "rotten": [rot_object(damage, Some(SegmentKind::Log))] })
        }
        Err(_) => json!({}),
    };
    object["state"] = state.name().into();
    if let Err(error) = found {
        object["error"] = error.to_string().into();
    }
    object
}

fn inspection(found: &Inspection) -> Value {
    let Inspection { meta, recovered, checkpoints, damaged, held, rotten } = found;
    let report = &recovered.report;
    let checkpoint = |info: &CheckpointInfo| {
        json!({
            "index": info.at.index,
            "term": info.at.term,
            "bytes": info.body_bytes,
            "installed": info.installed,
        })
    };
    let torn = report.torn.map(|TornTail { slot, offset, seq, check }| {
        json!({ "slot": slot, "offset": offset, "seq": seq, "check": check.to_string() })
    });
    let hole = |(hole, fate): &(Hole, HoleFate)| {
        let mut object = damage_object(&hole.damage);
        object["end"] = hole.end.into();
        object["last_seq"] = hole.last_seq.into();
        object["fate"] = fate.to_string().into();
        object
    };
    let held_object = |HeldSegment { kind, number, slot }: &HeldSegment| json!({ "slot": slot, "kind": kind_name(*kind), "number": number });
    let rot =
        |damage: &Damage| rot_object(damage, found.held_in(damage.slot).map(|held| held.kind));
    let failed = |(path, check): &(String, engine::Check)| json!({ "path": path, "check": check.to_string() });
    json!({
        "node": meta.node,
        "log": format!("{:032x}", meta.log_id),
        "slots": report.slots,
        "slot_bytes": meta.slot_bytes,
        "segments": report.segments,
        "frames": report.frames,
        "bytes_read": report.bytes_scanned,
        "first_index": recovered.log_start.index + 1,
        "last_index": recovered.last.index,
        "last_term": recovered.last.term,
        "term": recovered.hard_state.term,
        "vote": recovered.hard_state.vote,
        "checkpoints": checkpoints.iter().map(checkpoint).collect::<Value>(),
        "torn": torn,
        "holes": report.holes.iter().map(hole).collect::<Value>(),
        "damaged_checkpoints": damaged.iter().map(failed).collect::<Value>(),
        "held": held.iter().map(held_object).collect::<Value>(),
        "rotten": rotten.iter().map(rot).collect::<Value>(),
        "unknown_files": report.unknown,
    })
}

/// Damage in a segment of this kind; none where its header does not tell.
fn rot_object(damage: &Damage, kind: Option<SegmentKind>) -> Value {
    let mut object = damage_object(damage);
    object["kind"] = kind.map(kind_name).into();
    object
}

fn damage_object(damage: &Damage) -> Value {
    let Damage { slot, offset, seq, indices, check, .. } = damage;
    json!({
        "slot": slot,
        "offset": offset,
        "seq": seq,
        "indices": indices.map(|(first, last)| [first, last]),
        "check": check.to_string(),
        "text": damage.to_string(),
    })
}
