//! Operations that are waited for. Only while a directory is opened, before anything else runs.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use crate::buffer::AlignedBuf;
use crate::error::{OpenError, Unusable};
use crate::format::BLOCK_BYTES;
use crate::io::{Class, Completion, Disk, Done, FileId, Op, OpenMode};
use crate::tags::Owner;

/// Operations in flight at once.
const IN_FLIGHT_MAX: usize = 8;
/// The most bytes of one read.
const PIECE_BYTES: usize = 1 << 20;

/// Runs operations one after the other, or many at once, and waits for their end.
pub(crate) struct Blocking<'a> {
    disk: &'a mut dyn Disk,
    next: u64,
    /// Completions of operations that were submitted by others.
    strays: Vec<Completion>,
    completions: Vec<Completion>,
    /// Results that nobody has asked for yet.
    ended: BTreeMap<u64, io::Result<Done>>,
    /// Buffers of whole pieces to read into again: fresh memory would cost as much as the reading.
    spare: Vec<AlignedBuf>,
}

/// A part of a file as it was read.
pub(crate) struct Piece<'a> {
    pub(crate) bytes: &'a [u8],
    /// The offsets of blocks that the device refused.
    pub(crate) refused: Vec<u64>,
}

impl<'a> Blocking<'a> {
    pub(crate) fn new(disk: &'a mut dyn Disk) -> Blocking<'a> {
        Blocking {
            disk,
            next: 0,
            strays: Vec::new(),
            completions: Vec::new(),
            ended: BTreeMap::new(),
            spare: Vec::new(),
        }
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
        let mut results = Vec::with_capacity(ops.len());
        let mut in_flight = VecDeque::new();
        for op in ops {
            if in_flight.len() == IN_FLIGHT_MAX {
                results.extend(in_flight.pop_front().map(|number| self.end(number)));
            }
            in_flight.push_back(self.submit(op));
        }
        results.extend(in_flight.into_iter().map(|number| self.end(number)));
        results
    }

    /// Hands an operation over; [`Blocking::end`] must be called with its number before this goes.
    fn submit(&mut self, op: Op) -> u64 {
        self.next += 1;
        // Nobody commits yet, so there is nobody to leave a part of the device to.
        self.disk.submit(Class::Commit, Owner::Blocking(self.next).tag(), op);
        self.next
    }

    /// Waits for the end of an operation. Whatever was submitted before goes to the device now.
    fn end(&mut self, number: u64) -> io::Result<Done> {
        loop {
            self.poll();
            match self.ended.remove(&number) {
                Some(result) => return result,
                None => self.disk.wait(None),
            }
        }
    }

    fn poll(&mut self) {
        self.disk.poll(&mut self.completions);
        for completion in self.completions.drain(..) {
            match Owner::of(completion.tag) {
                Owner::Blocking(number) => {
                    self.ended.insert(number, completion.result);
                }
                Owner::Frame(_)
                | Owner::Slot
                | Owner::Checkpoint(..)
                | Owner::Read(_)
                | Owner::Removal
                | Owner::Scrub
                | Owner::Spare
                | Owner::Values
                | Owner::Cleaner(_) => self.strays.push(completion),
            }
        }
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
        self.read_along(file, offset, bytes, into, &mut |_| {})
    }

    /// Likewise; `seen` is given what is there, after each piece, while the next ones are read.
    pub(crate) fn read_along(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: u64,
        into: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Vec<u64> {
        into.clear();
        into.reserve(size_of(bytes));
        let mut refused = Vec::new();
        let end = offset + bytes;
        let pieces = (offset..end).step_by(PIECE_BYTES);
        let pieces = pieces.map(|at| (at, size_of(end - at).min(PIECE_BYTES)));
        self.read_pieces(file, pieces, &mut |piece| {
            into.extend_from_slice(piece.bytes);
            refused.extend(piece.refused);
            seen(into);
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|never| match never {});
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

    /// Reads pieces of a file, (offset, length) each, and gives them to `take` in order while the next ones are read;
    /// ends early if it refuses one. Bytes that cannot be read are as [`Blocking::read_range`] says.
    pub(crate) fn read_pieces<E>(
        &mut self,
        file: FileId,
        pieces: impl IntoIterator<Item = (u64, usize)>,
        take: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pieces = pieces.into_iter();
        let mut in_flight = VecDeque::new();
        let mut result = Ok(());
        loop {
            while result.is_ok()
                && in_flight.len() < IN_FLIGHT_MAX
                && let Some((offset, bytes)) = pieces.next()
            {
                let op = self.read_op(file, offset, bytes);
                in_flight.push_back((self.submit(op), offset, bytes));
            }
            let Some((number, offset, bytes)) = in_flight.pop_front() else { return result };
            let ended = self.end(number);
            if result.is_ok() {
                let (buf, refused) = self.piece(file, offset, bytes, ended);
                result = take(Piece { bytes: &buf.as_slice()[..bytes], refused });
                self.keep(buf);
            }
        }
    }

    /// What a read has brought; one block at a time if the device refuses it, so that one bad sector costs no more
    /// than its block.
    fn piece(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: usize,
        ended: io::Result<Done>,
    ) -> (AlignedBuf, Vec<u64>) {
        if let Ok(done) = ended {
            return (read_into(done), Vec::new());
        }
        let mut whole = AlignedBuf::zeroed(bytes);
        whole.as_mut_slice().fill(UNREADABLE);
        let mut refused = Vec::new();
        let offsets: Vec<u64> = (offset..).step_by(BLOCK_BYTES).take(bytes / BLOCK_BYTES).collect();
        let ops = offsets.iter().map(|at| self.read_op(file, *at, BLOCK_BYTES)).collect();
        let results = self.run_all(ops);
        let places = whole.as_mut_slice().chunks_mut(BLOCK_BYTES);
        for ((place, at), result) in places.zip(offsets).zip(results) {
            match result {
                Ok(done) => place.copy_from_slice(read_into(done).as_slice()),
                Err(_) => refused.push(at),
            }
        }
        (whole, refused)
    }

    fn read_op(&mut self, file: FileId, offset: u64, bytes: usize) -> Op {
        let spare = if bytes == PIECE_BYTES { self.spare.pop() } else { None };
        let buf = spare.unwrap_or_else(|| AlignedBuf::zeroed(bytes));
        Op::Read { file, offset, buf }
    }

    fn keep(&mut self, buf: AlignedBuf) {
        if buf.len() == PIECE_BYTES {
            self.spare.push(buf);
        }
    }
}

/// The buffer of a read, with [`UNREADABLE`] bytes for what lies beyond the end of the file.
fn read_into(done: Done) -> AlignedBuf {
    let Done::Read { mut buf, read } = done else { unreachable!("a read brings bytes") };
    let beyond = buf.as_mut_slice().iter_mut().skip(read);
    beyond.for_each(|byte| *byte = UNREADABLE);
    buf
}

fn size_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a slot is at most 1 GiB")
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
