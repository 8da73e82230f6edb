//! Keys of a checkpoint, decoded on several threads: the reader cuts the bytes into stretches at the borders of records,
//! each thread makes leaves of one stretch at a time, and they are put together in order.
#![deny(clippy::indexing_slicing)]

use super::super::codec::Reader;
use super::super::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::super::kv::KeysStretch;
use super::super::snapshot::{KEY_HEADER_BYTES, LOCATION_BYTES, VALUE_LOCATED};
use super::{Problem, decode_key, fits_store};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Bytes that a thread decodes at a time.
const STRETCH_BYTES: usize = 1 << 20;

/// The bytes of some records, and the number of the first key among all.
struct Job {
    number: u64,
    first_key: u64,
    revision: u64,
    bytes: Vec<u8>,
}

/// A stretch, or which key is not sound.
type Decoded = Result<KeysStretch, (u64, Problem)>;

/// The threads, and what they have not given back.
pub(super) struct Decoders {
    jobs: SyncSender<Job>,
    decoded: Receiver<(u64, Decoded)>,
    threads: Vec<JoinHandle<()>>,
    /// The stretch that is being filled.
    bytes: Vec<u8>,
    keys_in_bytes: u64,
    /// Keys that were taken.
    pub(super) keys: u64,
    given: u64,
    taken: u64,
    early: BTreeMap<u64, Decoded>,
}

impl Decoders {
    /// Requires: at least one thread.
    pub(super) fn start(threads: usize) -> Decoders {
        assert!(threads > 0);
        let (jobs, waiting) = sync_channel(2 * threads);
        let (done, decoded) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..threads).map(|_| {
            let (waiting, done) = (Arc::clone(&waiting), done.clone());
            std::thread::spawn(move || work(&waiting, &done))
        });
        Decoders {
            jobs,
            decoded,
            threads: threads.collect(),
            bytes: Vec::new(),
            keys_in_bytes: 0,
            keys: 0,
            given: 0,
            taken: 0,
            early: BTreeMap::new(),
        }
    }

    /// Takes the key's record at the front, if it is there whole: how long it is.
    pub(super) fn take(
        &mut self,
        reader: Reader<'_>,
        revision: u64,
    ) -> Result<Option<usize>, Problem> {
        let Some(bytes) = record_bytes(reader)? else { return Ok(None) };
        let mut whole = reader;
        let Some(record) = whole.take(bytes) else { return Ok(None) };
        self.bytes.extend_from_slice(record);
        self.keys += 1;
        self.keys_in_bytes += 1;
        if self.bytes.len() >= STRETCH_BYTES {
            self.hand_over(revision);
        }
        Ok(Some(bytes))
    }

    fn hand_over(&mut self, revision: u64) {
        let (number, first_key) = (self.given, self.keys - self.keys_in_bytes);
        let bytes = std::mem::take(&mut self.bytes);
        self.given += 1;
        self.keys_in_bytes = 0;
        let job = Job { number, first_key, revision, bytes };
        self.jobs.send(job).expect("the threads live as long as there are jobs");
    }

    /// No key follows.
    pub(super) fn end(&mut self, revision: u64) {
        if !self.bytes.is_empty() {
            self.hand_over(revision);
        }
    }

    /// The next stretch in order: if it is done, or, with `Wait::Yes`, when it is. None after the last one.
    pub(super) fn next(&mut self, wait: Wait) -> Option<Decoded> {
        while self.taken < self.given {
            if let Some(decoded) = self.early.remove(&self.taken) {
                self.taken += 1;
                return Some(decoded);
            }
            let (number, decoded) = match wait {
                Wait::Yes => self.decoded.recv().expect("each job is answered"),
                Wait::No => self.decoded.try_recv().ok()?,
            };
            self.early.insert(number, decoded);
        }
        None
    }
}

/// Whether to wait for a stretch that is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    Yes,
    No,
}

impl Drop for Decoders {
    fn drop(&mut self) {
        // Without a sender the threads end.
        let (none, _) = sync_channel(0);
        drop(std::mem::replace(&mut self.jobs, none));
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            drop(thread.join());
        }
    }
}

/// The life of a thread.
fn work(waiting: &Mutex<Receiver<Job>>, done: &Sender<(u64, Decoded)>) {
    loop {
        let next = waiting.lock().recv();
        let Ok(job) = next else { return };
        if done.send((job.number, decode(&job))).is_err() {
            return;
        }
    }
}

fn decode(job: &Job) -> Decoded {
    let mut stretch = KeysStretch::new(job.first_key);
    let mut reader = Reader::new(&job.bytes);
    while reader.remaining() > 0 {
        let number = job.first_key + stretch.count;
        let decoded = decode_key(&mut reader, true).map_err(|problem| (number, problem))?;
        let (key, item, _) = decoded.expect("the records were found to be whole");
        if !stretch.takes(key) {
            return Err((number, "it is out of order"));
        }
        fits_store(&item, job.revision).map_err(|problem| (number, problem))?;
        stretch.push(key, item);
    }
    Ok(stretch)
}

/// The length of the key's record at the front; none if its header is not there whole.
fn record_bytes(mut reader: Reader<'_>) -> Result<Option<usize>, Problem> {
    let lengths = (reader.u32(), reader.u32(), reader.u32(), reader.u32());
    let (Some(key), Some(value), Some(_), Some(form)) = lengths else { return Ok(None) };
    let (key, value) = (key as usize, value as usize);
    if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
        return Err("it states a length beyond its limit");
    }
    Ok(Some(KEY_HEADER_BYTES + key + if form == VALUE_LOCATED { LOCATION_BYTES } else { value }))
}
