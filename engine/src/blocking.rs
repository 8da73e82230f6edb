//! Operations that are waited for. Only while a directory is opened, before anything else runs.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use crate::buffer::AlignedBuf;
use crate::error::{OpenError, Unusable};
use crate::format::BLOCK_BYTES;
use crate::io::{Class, Completion, Disk, Done, FileId, Op, OpenMode};
use crate::tags::Owner;

/// Reads in flight at once.
const READS_MAX: usize = 8;
/// The bytes of one read.
const CHUNK_BYTES: usize = 1 << 20;

/// Runs operations one after the other, or many at once, and waits for their end.
pub(crate) struct Blocking<'a> {
    disk: &'a mut dyn Disk,
    next: u64,
    /// Completions of operations that were submitted by others.
    strays: Vec<Completion>,
    /// Buffers of whole chunks to read into again: fresh memory would cost as much as the reading.
    spare: Vec<AlignedBuf>,
}

impl<'a> Blocking<'a> {
    pub(crate) fn new(disk: &'a mut dyn Disk) -> Blocking<'a> {
        Blocking { disk, next: 0, strays: Vec::new(), spare: Vec::new() }
    }

    pub(crate) fn into_strays(self) -> Vec<Completion> {
        self.strays
    }

    pub(crate) fn list(&mut self, dir: &str) -> Result<Vec<String>, OpenError> {
        let mut names = self.disk.list(dir).map_err(|source| failed("list", dir, source))?;
        names.sort();
        Ok(names)
    }

    /// Runs one operation; `path` is for the message.
    pub(crate) fn run(&mut self, what: &str, path: &str, op: Op) -> Result<Done, OpenError> {
        self.run_raw(op).map_err(|source| failed(what, path, source))
    }

    /// Runs one operation whose error the caller looks at.
    pub(crate) fn run_raw(&mut self, op: Op) -> io::Result<Done> {
        let mut results = self.run_all(vec![op]);
        results.pop().expect("one operation has one result")
    }

    /// Runs operations that need no order; the results are in theirs.
    pub(crate) fn run_all(&mut self, ops: Vec<Op>) -> Vec<io::Result<Done>> {
        let first = self.next;
        let count = ops.len() as u64;
        let mut waiting: VecDeque<Op> = ops.into();
        let mut results: BTreeMap<u64, io::Result<Done>> = BTreeMap::new();
        let mut completions = Vec::new();
        while (results.len() as u64) < count {
            while self.next - first - (results.len() as u64) < READS_MAX as u64 {
                let Some(op) = waiting.pop_front() else { break };
                self.disk.submit(Class::Read, Owner::Blocking(self.next).tag(), op);
                self.next += 1;
            }
            self.disk.poll(&mut completions);
            if completions.is_empty() {
                self.disk.wait(None);
            }
            for completion in completions.drain(..) {
                match Owner::of(completion.tag) {
                    Owner::Blocking(number) => {
                        results.insert(number, completion.result);
                    }
                    Owner::Frame(_)
                    | Owner::Slot
                    | Owner::Checkpoint(..)
                    | Owner::Read(_)
                    | Owner::Removal => self.strays.push(completion),
                }
            }
        }
        results.into_values().collect()
    }

    /// Opens an existing file; gives its size too.
    pub(crate) fn open(&mut self, path: &str) -> Result<(FileId, u64), OpenError> {
        let op = Op::Open { path: path.to_owned(), mode: OpenMode::Existing };
        Ok(opened(&self.run("open", path, op)?))
    }

    /// Creates a file.
    pub(crate) fn create(&mut self, path: &str) -> Result<FileId, OpenError> {
        let op = Op::Open { path: path.to_owned(), mode: OpenMode::CreateNew };
        Ok(opened(&self.run("create", path, op)?).0)
    }

    /// Removes a file that may not be there.
    pub(crate) fn remove_if_there(&mut self, path: &str) -> Result<(), OpenError> {
        match self.run_raw(Op::Remove { path: path.to_owned() }) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", path, error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn sync_dir(&mut self, dir: &str) -> Result<(), OpenError> {
        self.run("sync directory", dir, Op::SyncDir { path: dir.to_owned() }).map(|_| ())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Result<(), OpenError> {
        let op = Op::Rename { from: from.to_owned(), to: to.to_owned() };
        self.run("rename", from, op).map(|_| ())
    }

    /// The bytes `offset..offset + bytes` of a file into `into`, which is emptied first. Blocks that cannot be read,
    /// or lie beyond the end, become [`UNREADABLE`] bytes, so that every check on them fails; gives the offsets of
    /// those that the device refused.
    ///
    /// Requires: `offset` and `bytes` are multiples of the block size.
    pub(crate) fn read_range(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: u64,
        into: &mut Vec<u8>,
    ) -> Vec<u64> {
        let size = usize::try_from(bytes).expect("a slot is at most 1 GiB");
        into.clear();
        into.resize(size, UNREADABLE);
        let mut refused = Vec::new();
        let chunks: Vec<u64> = (offset..offset + bytes).step_by(CHUNK_BYTES).collect();
        for group in chunks.chunks(READS_MAX) {
            let count = |at: u64| CHUNK_BYTES.min(size_of_rest(offset + bytes, at));
            let ops = group.iter().map(|at| self.read_op(file, *at, count(*at))).collect();
            let results = self.run_all(ops);
            for (at, result) in group.iter().zip(results) {
                let place = &mut into[size_of_rest(*at, offset)..];
                match result {
                    Ok(done) => self.fill(place, done),
                    Err(_) => self.read_blocks(file, *at, &mut place[..count(*at)], &mut refused),
                }
            }
        }
        refused
    }

    /// Likewise, where a block that the device refuses leaves nothing to be decided.
    pub(crate) fn read_whole(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), Unusable> {
        match self.read_range(file, offset, bytes, into).first() {
            Some(refused) => Err(Unusable::Unreadable(*refused)),
            None => Ok(()),
        }
    }

    /// One block at a time, so that one bad sector costs no more than its block.
    fn read_blocks(&mut self, file: FileId, offset: u64, into: &mut [u8], refused: &mut Vec<u64>) {
        let offsets = (offset..).step_by(BLOCK_BYTES);
        let places: Vec<(u64, &mut [u8])> = offsets.zip(into.chunks_mut(BLOCK_BYTES)).collect();
        let ops = places.iter().map(|(at, _)| self.read_op(file, *at, BLOCK_BYTES)).collect();
        let results = self.run_all(ops);
        for ((at, place), result) in places.into_iter().zip(results) {
            match result {
                Ok(done) => self.fill(place, done),
                Err(_) => refused.push(at),
            }
        }
    }

    fn read_op(&mut self, file: FileId, offset: u64, bytes: usize) -> Op {
        let spare = if bytes == CHUNK_BYTES { self.spare.pop() } else { None };
        let buf = spare.unwrap_or_else(|| AlignedBuf::zeroed(bytes));
        Op::Read { file, offset, buf }
    }

    fn fill(&mut self, into: &mut [u8], done: Done) {
        let Done::Read { buf, read } = done else { unreachable!("a read brings bytes") };
        let count = read.min(into.len()).min(buf.len());
        into[..count].copy_from_slice(&buf.as_slice()[..count]);
        if buf.len() == CHUNK_BYTES {
            self.spare.push(buf);
        }
    }
}

fn size_of_rest(end: u64, at: u64) -> usize {
    usize::try_from(end - at).expect("a slot is at most 1 GiB")
}

/// What an unreadable byte becomes.
pub(crate) const UNREADABLE: u8 = 0xEE;

fn opened(done: &Done) -> (FileId, u64) {
    match done {
        Done::Opened { file, bytes } => (*file, *bytes),
        Done::Read { .. } | Done::Nothing => unreachable!("an open completes with its file"),
    }
}

pub(crate) fn failed(what: &str, path: &str, source: io::Error) -> OpenError {
    let path = if path.is_empty() { "the data directory" } else { path };
    OpenError::Io { what: format!("{what} {path}"), source: Arc::new(source) }
}
