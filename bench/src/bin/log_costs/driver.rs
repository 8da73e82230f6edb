//! An engine and the loop around it, with entries of puts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use engine::io::open::{AnyDisk, Backend, open_disk};
use engine::{
    Append, CheckpointOrigin, Engine, Entry, Event, Identity, Options, Position, ReadError, Status,
    open,
};
use server::state_machine::{CommandRef, EntryBuilder, Origin, encode_command_ref};

/// Bytes pushed to a checkpoint in one turn, as a replica does.
const PIECE_BYTES: usize = 256 << 10;

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// A checkpoint in progress.
struct Checkpoint {
    left: u64,
    is_finished: bool,
}

/// One engine in a directory of its own, which goes with it.
pub(crate) struct Driver {
    pub(crate) engine: Engine<AnyDisk>,
    dir: PathBuf,
    started: Instant,
    write: u64,
    pub(crate) durable: u64,
    pub(crate) last: Position,
    events: Vec<Event>,
    /// Values that were asked for.
    pub(crate) values: Vec<Vec<Result<Bytes, ReadError>>>,
    checkpoint: Option<Checkpoint>,
    piece: Vec<u8>,
}

impl Driver {
    pub(crate) fn new(dir: &Path) -> io::Result<Driver> {
        Driver::with(dir, &Options::default())
    }

    pub(crate) fn with(dir: &Path, options: &Options) -> io::Result<Driver> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(dir)?;
        let (disk, _) = open_disk(dir, Backend::Auto).map_err(io::Error::other)?;
        let options = Options { seed: [1, 2], ..options.clone() };
        let identity = Identity { node: 1, incarnation: 1, log_id: 1 };
        let opened = open(disk, dir, options, identity).map_err(io::Error::other)?;
        Ok(Driver {
            engine: opened.engine,
            dir: dir.to_owned(),
            started: now(),
            write: 0,
            durable: 0,
            last: Position { index: 0, term: 1 },
            events: Vec::new(),
            values: Vec::new(),
            checkpoint: None,
            piece: vec![0x5A; PIECE_BYTES],
        })
    }

    /// The directory, for whoever asks which device it lies on.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).expect("a short measurement")
    }

    /// Queues one entry; the number that `durable` reaches when it is.
    pub(crate) fn append(&mut self, payload: &Bytes) -> u64 {
        self.write += 1;
        self.last.index += 1;
        let Position { index, term } = self.last;
        let entries = vec![Entry { index, term, kind: 1, payload: payload.clone() }];
        self.engine.append(Append { write: self.write, entries, ..Append::default() });
        self.write
    }

    /// Moves everything on, the checkpoint too.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.push();
        let now_us = self.now_us();
        self.engine.turn(now_us, &mut self.events).map_err(io::Error::other)?;
        for event in self.events.drain(..) {
            if let Event::Durable { write } = event {
                self.durable = write;
            } else if let Event::Values { results, .. } = event {
                self.values.push(results);
            } else if let Event::CheckpointDurable { .. } = event {
                self.checkpoint = None;
            } else if let Event::CheckpointFailed { error, .. } = event {
                return Err(io::Error::other(error));
            }
        }
        Ok(())
    }

    pub(crate) fn wait(&mut self, timeout: Duration) {
        let origin = CheckpointOrigin::Local;
        let pushes = self.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_finished)
            && self.engine.checkpoint_room(origin) > 0;
        self.engine.wait(Some(if pushes { Duration::ZERO } else { timeout }));
    }

    pub(crate) fn wait_for(&mut self, write: u64) -> io::Result<()> {
        self.turn()?;
        while self.durable < write {
            self.wait(Duration::from_millis(100));
            self.turn()?;
        }
        Ok(())
    }

    /// Begins a checkpoint of so many bytes whose values lie in these slots, unless one is in progress or nothing is new.
    pub(crate) fn begin_checkpoint(&mut self, bytes: u64, slots: Vec<u32>) {
        let slots = self.engine.value_slots(slots);
        let (at, origin) = (self.engine.status().durable, CheckpointOrigin::Local);
        if self.checkpoint.is_none()
            && self.engine.checkpoint_begin(at, origin, bytes, slots).is_ok()
        {
            self.checkpoint = Some(Checkpoint { left: bytes, is_finished: false });
        }
    }

    pub(crate) fn is_checkpointing(&self) -> bool {
        self.checkpoint.is_some()
    }

    fn push(&mut self) {
        let Some(checkpoint) = &mut self.checkpoint else { return };
        if checkpoint.is_finished {
            return;
        }
        let origin = CheckpointOrigin::Local;
        let left = usize::try_from(checkpoint.left).unwrap_or(usize::MAX);
        let room = self.engine.checkpoint_room(origin).min(PIECE_BYTES).min(left);
        self.engine.checkpoint_push(origin, &self.piece[..room]);
        checkpoint.left -= room as u64;
        if checkpoint.left == 0 {
            checkpoint.is_finished = true;
            self.engine.checkpoint_finish(origin);
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.engine.status()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("log-costs: {}: {error}", self.dir.display());
        }
    }
}

/// An entry of puts: keys of 24 bytes from number `first` on, and values of so many bytes.
pub(crate) fn entry(first: u64, commands: u64, keys: u64, value_bytes: usize) -> Bytes {
    entry_of((first..first + commands).map(|number| number % keys), value_bytes)
}

/// An entry of puts of these keys.
pub(crate) fn entry_of(keys: impl Iterator<Item = u64>, value_bytes: usize) -> Bytes {
    let mut builder = EntryBuilder::new();
    let (mut encoded, mut value) = (BytesMut::new(), Vec::new());
    builder.begin(1);
    for number in keys {
        let key = bench::material::key(number);
        value.clear();
        bench::material::value_of(number, 1, value_bytes, &mut value);
        encoded.clear();
        encode_command_ref(
            Origin::NONE,
            &CommandRef::Put { key: &key, value: &value },
            &mut encoded,
        );
        builder.push(&encoded);
    }
    builder.finish()
}

/// Which slot each key's value lies in, and so which slots are needed.
#[derive(Default)]
pub(crate) struct Live {
    slot_of: BTreeMap<u64, u32>,
    keys_in: BTreeMap<u32, u64>,
}

impl Live {
    pub(crate) fn put(&mut self, key: u64, slot: u32) {
        if let Some(before) = self.slot_of.insert(key, slot) {
            *self.keys_in.get_mut(&before).expect("a key lies in a slot") -= 1;
        }
        *self.keys_in.entry(slot).or_default() += 1;
    }

    pub(crate) fn slots(&self) -> Vec<u32> {
        self.keys_in.iter().filter(|(_, keys)| **keys > 0).map(|(slot, _)| *slot).collect()
    }
}
