//! `holdfast wal` on directories that a node has left behind.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::{
    Append, CheckpointOrigin, Engine, Entry, Event, HardState, Identity, OnDamage, Opened, Options,
    Position, ValueBatch,
};
use rustix::process::Signal;

use crate::support::{Node, Run, holdfast, run};

fn wal(arguments: &[&str], dir: &Path) -> Run {
    run(holdfast(&["wal"]).args(arguments).arg(dir))
}

/// A stopped node with three keys.
fn stopped() -> Node {
    let mut node = Node::start();
    for key in ["one", "two", "three"] {
        node.run(&["put", key, "some value"]).expect(0, &[]);
    }
    node.process.signal(Signal::TERM);
    assert!(node.process.wait().success());
    node
}

fn slot(node: &Node) -> PathBuf {
    node.directory().join("seg/00000000.seg")
}

fn flip_byte(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

/// Where the frames of a dump begin.
fn frames(node: &Node) -> Vec<u64> {
    let dumped = wal(&["dump", "-o", "json"], node.directory());
    let lines = dumped.text().lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let frames = lines.iter().filter(|line| line["what"] == "frame" || line["what"] == "note");
    frames.map(|frame| frame["offset"].as_u64().unwrap()).collect()
}

#[test]
fn directory_of_a_stopped_node_is_sound_and_stays_as_it_is() {
    let node = stopped();
    let before = fs::read(slot(&node)).unwrap();
    let found = wal(&["verify", "-o", "json"], node.directory()).expect(0, &[]).json();
    assert_eq!((&found["state"], &found["node"]), (&"sound".into(), &1.into()));
    assert!(found["last_index"].as_u64() >= Some(4), "{found}");
    let text = wal(&["verify"], node.directory()).expect(0, &[]);
    assert!(text.text().ends_with("\nsound\n"), "{text:?}");
    assert!(fs::read(slot(&node)).unwrap() == before);
}

#[test]
fn directory_that_a_node_has_open_is_refused() {
    let node = Node::start();
    for action in ["verify", "dump"] {
        wal(&[action], node.directory()).expect(66, &["in use", "pid "]);
    }
}

#[test]
fn damage_in_a_promised_frame_is_told_with_its_place() {
    let node = stopped();
    let second = frames(&node)[1];
    flip_byte(&slot(&node), second + 140);
    let found = wal(&["verify", "-o", "json"], node.directory()).expect(2, &[]).json();
    assert_eq!(found["state"], "damaged");
    assert_eq!(found["rotten"][0]["offset"], second);
    let text = wal(&["verify"], node.directory()).expect(2, &[]);
    assert!(text.text().contains(&format!("seg/00000000.seg at byte {second}")), "{text:?}");
    wal(&["dump"], node.directory()).expect(2, &[]);
}

/// The log of a stopped node, opened without it, by whoever takes damaged entries over.
fn open_log(node: &Node, seed: u64) -> Opened<AnyDisk> {
    let (disk, _) = open_disk(node.directory(), Backend::Syscall).unwrap();
    let slot_bytes = fs::metadata(slot(node)).unwrap().len();
    let on_damage = OnDamage::HandUp;
    let options = Options { slot_bytes, on_damage, seed: [seed, 1], ..Options::default() };
    let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
    engine::open(disk, node.directory(), options, identity).unwrap()
}

/// Turns until an event is what is wanted.
fn wait_for<T>(engine: &mut Engine<AnyDisk>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let mut events = Vec::new();
    loop {
        engine.turn(0, &mut events).unwrap();
        if let Some(found) = events.drain(..).find_map(&mut wanted) {
            return found;
        }
        engine.wait(None);
    }
}

#[test]
fn damage_that_has_been_repaired_is_told_and_is_sound() {
    let node = stopped();
    let Opened { mut engine, recovered } = open_log(&node, 1);
    let (first, last) = (recovered.log_start.index + 1, recovered.last.index);
    engine.read_entries(1, first, last, 1 << 20);
    let entries = wait_for(&mut engine, |event| {
        if let Event::Entries { result, .. } = event { result.ok() } else { None }
    });
    engine.close();

    // A payload that is stored as it is.
    let file = fs::read(slot(&node)).unwrap();
    let at = file.windows(10).position(|window| window == b"some value").unwrap();
    flip_byte(&slot(&node), at as u64);
    wal(&["verify"], node.directory()).expect(2, &[]);
    let dumped = wal(&["dump"], node.directory()).expect(2, &[]);
    assert!(dumped.text().contains("hole: frames "), "{dumped:?}");

    let Opened { mut engine, recovered } = open_log(&node, 2);
    let [faulty] = &recovered.faulty[..] else { panic!("{:?}", recovered.faulty) };
    let is_faulty = |entry: &Entry| (faulty.first..=faulty.last).contains(&entry.index);
    let repairs = entries.into_iter().filter(is_faulty).collect();
    engine.append(Append { write: 1, repairs, ..Append::default() });
    wait_for(&mut engine, |event| matches!(event, Event::Repaired { faulty: 0 }).then_some(()));
    engine.close();

    let found = wal(&["verify", "-o", "json"], node.directory()).expect(0, &[]).json();
    assert_eq!(found["state"], "sound");
    let hole = &found["holes"][0];
    assert_eq!(hole["indices"], serde_json::json!([faulty.first, faulty.last]));
    let text = wal(&["verify"], node.directory()).expect(0, &[]);
    assert!(text.text().contains("repaired: later frames hold its entries"), "{text:?}");
    let dumped = wal(&["dump"], node.directory()).expect(0, &[]);
    assert!(dumped.text().contains(&format!("repair {}", faulty.after)), "{dumped:?}");
}

/// Values that lie in no entry, in two frames, and a checkpoint that needs them; gives their slot.
fn write_values(engine: &mut Engine<AnyDisk>, at: Position) -> u32 {
    let mut placed = || {
        let mut batch = ValueBatch::default();
        batch.push(b"key", &[7; 300], 0);
        let appended = engine.append_values(batch);
        wait_for(engine, |event| {
            if let Event::ValuesPlaced { id, location } = event {
                (id == appended).then_some(location.slot())
            } else {
                None
            }
        })
    };
    let slot = placed();
    assert_eq!(placed(), slot);
    let origin = CheckpointOrigin::Local;
    let slots = engine.value_slots(vec![slot]);
    engine.checkpoint_begin(at, origin, 4, slots).unwrap();
    engine.checkpoint_push(origin, b"body");
    engine.checkpoint_finish(origin);
    wait_for(engine, |event| matches!(event, Event::CheckpointDurable { .. }).then_some(()));
    slot
}

#[test]
fn segments_of_values_are_told_from_those_of_the_log_and_come_after_them() {
    let node = stopped();
    let Opened { mut engine, recovered } = open_log(&node, 1);
    let values = write_values(&mut engine, recovered.last);
    // Opens a segment of the log of a higher number than that of the values.
    let hard_state = HardState { term: recovered.hard_state.term + 1, vote: 1 };
    engine.append(Append { write: 1, hard_state: Some(hard_state), ..Append::default() });
    wait_for(&mut engine, |event| matches!(event, Event::Durable { write: 1 }).then_some(()));
    engine.close();

    let dumped = wal(&["dump", "-o", "json"], node.directory()).expect(0, &[]);
    let lines = dumped.text().lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let segments = lines.iter().filter(|line| line["what"] == "segment");
    let named: Vec<_> =
        segments.map(|line| (line["kind"].clone(), line["number"].clone())).collect();
    assert_eq!(
        named,
        [("log".into(), 1.into()), ("log".into(), 2.into()), ("val".into(), 1.into())]
    );
    let text = wal(&["dump"], node.directory()).expect(0, &[]);
    let places =
        ["LOG segment 1,", "LOG segment 2,", "VAL segment 1,"].map(|name| text.text().find(name));
    assert!(places.is_sorted() && places[0].is_some(), "{text:?}");
    let found = wal(&["verify", "-o", "json"], node.directory()).expect(0, &[]).json();
    assert_eq!(found["held"], serde_json::json!([{ "slot": values, "kind": "val", "number": 1 }]));
    let text = wal(&["verify"], node.directory()).expect(0, &[]);
    assert!(
        text.text().contains("0 LOG and 1 VAL segments that only checkpoints need"),
        "{text:?}"
    );

    // The second frame promises the first.
    flip_byte(&node.directory().join(format!("seg/{values:08x}.seg")), 4_096 + 200);
    let found = wal(&["verify", "-o", "json"], node.directory()).expect(2, &[]).json();
    assert_eq!(
        (&found["rotten"][0]["kind"], &found["rotten"][0]["offset"]),
        (&"val".into(), &4_096.into())
    );
    let text = wal(&["verify"], node.directory()).expect(2, &[]);
    assert!(text.text().contains("VAL segment 1: frame 1 in seg/"), "{text:?}");
}

#[test]
fn last_frame_that_nobody_promised_is_a_torn_tail() {
    let node = stopped();
    let last = *frames(&node).last().unwrap();
    flip_byte(&slot(&node), last + 40);
    let found = wal(&["verify", "-o", "json"], node.directory()).expect(1, &[]).json();
    assert_eq!((&found["state"], &found["torn"]["offset"]), (&"torn tail".into(), &last.into()));
    let text = wal(&["verify"], node.directory()).expect(1, &[]);
    assert!(text.text().ends_with("\ntorn tail\n"), "{text:?}");
}

#[test]
fn dump_shows_what_entries_do() {
    let node = stopped();
    let plain = wal(&["dump"], node.directory()).expect(0, &[]);
    assert!(plain.text().contains("LOG segment 1,") && !plain.text().contains("put one"));
    let commands = wal(&["dump", "--commands"], node.directory()).expect(0, &[]);
    assert!(commands.text().contains("put one, value of 10"), "{commands:?}");
    let json = wal(&["dump", "--commands", "-o", "json"], node.directory()).expect(0, &[]);
    assert!(json.text().contains(r#""key":"three""#), "{json:?}");
}

#[test]
fn what_is_no_data_directory_is_unreadable_and_bad_usage_is_64() {
    let empty = tempfile::tempdir().unwrap();
    wal(&["verify"], empty.path()).expect(66, &["no META"]);
    wal(&["dump"], &empty.path().join("absent")).expect(66, &["absent"]);
    assert!(fs::read_dir(empty.path()).unwrap().next().is_none());
    run(&mut holdfast(&["wal", "verify"])).expect(64, &["DIR"]);
    run(&mut holdfast(&["wal", "verify", "--what"])).expect(64, &["--what"]);
    run(&mut holdfast(&["wal", "verify", "--help"])).expect(0, &[]);
}
