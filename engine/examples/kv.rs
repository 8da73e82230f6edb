//! A durable map of strings in a directory: the crate alone, without Raft and without a server.
//!
//! ```text
//! kv DIR put KEY VALUE      returns when it is durable
//! kv DIR get KEY
//! kv DIR checkpoint         the log before it is no longer needed
//! ```
//!
//! The state is a map in memory. Each put is one entry of the log; an open loads the newest checkpoint of the map and
//! applies the entries after it.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::{
    Append, CheckpointOrigin, DirLock, Engine, Entry, Event, Identity, Opened, Options, Position,
    ValueSlots, open,
};

const USAGE: &str = "usage: kv DIR put KEY VALUE | kv DIR get KEY | kv DIR checkpoint";
/// Nobody votes here: every entry is of one term.
const TERM: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [dir, command @ ..] = words.as_slice() else { return Err(USAGE.into()) };
    std::fs::create_dir_all(dir)?;
    // One process at a time. Whatever goes wrong later, dropping it gives the directory back.
    let _lock = DirLock::acquire(Path::new(dir))?;
    let mut map = Map::open(Path::new(dir))?;
    match command {
        ["put", key, value] => map.put(key, value)?,
        ["get", key] => println!("{}", map.state.get(*key).ok_or("no such key")?),
        ["checkpoint"] => map.checkpoint()?,
        _ => return Err(USAGE.into()),
    }
    map.close()
}

struct Map {
    engine: Engine<AnyDisk>,
    started: Instant,
    events: Vec<Event>,
    last: Position,
    state: BTreeMap<String, String>,
}

impl Map {
    fn open(dir: &Path) -> Result<Map, Box<dyn Error>> {
        let (disk, why) = open_disk(dir, Backend::Auto)?;
        if let Some(why) = why {
            println!("not io_uring: {why}");
        }
        // The ids of a directory are those of its first open. The seed must be another one each time.
        let id = || u128::from(random()) << 64 | u128::from(random());
        let identity = Identity { node: 1, incarnation: id(), log_id: id() };
        let seed = [random(), random()];
        let options = Options { slot_bytes: 1 << 20, slots_ready: 1, seed, ..Options::default() };
        let Opened { engine, recovered } = open(disk, dir, options, identity)?;
        println!("{}", recovered.report);
        let (state, events, last) = (BTreeMap::new(), Vec::new(), recovered.last);
        let mut map = Map { engine, started: now(), events, last, state };
        let mut applied = 0;
        if let Some(info) = recovered.checkpoint {
            let mut body = Vec::new();
            map.engine.load_checkpoint(&info, &mut |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })?;
            String::from_utf8(body)?.lines().for_each(|line| map.apply(line));
            applied = info.at.index;
        }
        while applied < last.index {
            map.engine.read_entries(0, applied + 1, last.index, 1 << 20);
            let is_it = |event: &Event| matches!(event, Event::Entries { .. });
            let Event::Entries { result, .. } = map.wait_for(is_it)? else { continue };
            for entry in result? {
                map.apply(std::str::from_utf8(&entry.payload)?);
                applied = entry.index;
            }
        }
        Ok(map)
    }

    fn apply(&mut self, line: &str) {
        if let Some((key, value)) = line.split_once('\t') {
            self.state.insert(key.to_owned(), value.to_owned());
        }
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), Box<dyn Error>> {
        if [key, value].iter().any(|word| word.contains(['\t', '\n'])) {
            return Err("keys and values are words without tabs and line ends".into());
        }
        let line = format!("{key}\t{value}");
        self.last = Position { index: self.last.index + 1, term: TERM };
        let payload = Bytes::from(line.clone());
        let entry = Entry { index: self.last.index, term: TERM, kind: 0, payload };
        self.engine.append(Append { write: 1, entries: vec![entry], ..Append::default() });
        self.wait_for(|event| matches!(event, Event::Durable { write: 1 }))?;
        self.apply(&line);
        Ok(())
    }

    /// Writes the map as it is after the last entry.
    fn checkpoint(&mut self) -> Result<(), Box<dyn Error>> {
        let origin = CheckpointOrigin::Local;
        let lines = self.state.iter().map(|(key, value)| format!("{key}\t{value}\n"));
        let body = lines.collect::<String>().into_bytes();
        // No value stays in the log: the checkpoint needs no slots.
        let (bytes, slots) = (body.len() as u64, ValueSlots::default());
        self.engine.checkpoint_begin(self.last, origin, bytes, slots)?;
        let ends = |event: &Event| {
            matches!(event, Event::CheckpointDurable { .. } | Event::CheckpointFailed { .. })
        };
        let mut rest = body.as_slice();
        while !rest.is_empty() && !self.events.iter().any(ends) {
            let (part, left) = rest.split_at(self.engine.checkpoint_room(origin).min(rest.len()));
            self.engine.checkpoint_push(origin, part);
            rest = left;
            self.turn()?;
        }
        self.engine.checkpoint_finish(origin);
        if let Event::CheckpointFailed { error, .. } = self.wait_for(ends)? {
            return Err(error.into());
        }
        Ok(())
    }

    /// Stops when everything is durable and the log says so.
    fn close(mut self) -> Result<(), Box<dyn Error>> {
        while !self.engine.is_idle() {
            self.turn()?;
        }
        Ok(())
    }

    /// The loop of a caller that has nothing else to do: turn, look at the events, wait.
    fn wait_for(&mut self, is_it: impl Fn(&Event) -> bool) -> Result<Event, Box<dyn Error>> {
        loop {
            if let Some(at) = self.events.iter().position(&is_it) {
                return Ok(self.events.swap_remove(at));
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        let now_us = u64::try_from(self.started.elapsed().as_micros())?;
        self.engine.turn(now_us, &mut self.events)?;
        // Until the disk has done something; not for ever, because a NOTE becomes due by time alone.
        self.engine.wait(Some(Duration::from_millis(1)));
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the caller of the engine reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
