//! Writes one checkpoint while the log goes on: a temporary file, filled in chunks of 1 MiB, ended, synced, read back
//! whole and verified, renamed, its directory synced (P18). Every step is an operation with a completion.
//!
//! Invariants: what is written is in the file once; a file gets its final name only after every byte of it was read
//! back; after a failure nothing of it is left.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::buffer::AlignedBuf;
use crate::checkpoint::{
    CheckpointHeader, Verifier, block_count, block_file_bytes, block_offset, encode_slots,
    file_bytes_of, footer_offset, seal_block,
};
use crate::error::{Check, CheckpointError, Fault};
use crate::format::{
    CHECKPOINT_BLOCK_BODY_BYTES, CHECKPOINT_BLOCK_BYTES, CHECKPOINT_BLOCK_HEADER_BYTES,
    CHECKPOINT_DIR, CHECKPOINT_HEADER_BYTES, SPARE_PATH, checkpoint_path,
};
use crate::io::{Class, Disk, Done, FileId, Op, OpenMode, WriteBuf, WriteSync};
use crate::mutant::{self, Mutant};
use crate::retained::Kept;
use crate::slots::is_full;
use crate::spare::SpareFile;
use crate::tags::Owner;
use crate::types::{CheckpointOrigin, ValueSlots};

/// Blocks written or read at once.
const CHUNK_BLOCKS: u64 = 4;
const CHUNK_BYTES: usize = 4 * CHECKPOINT_BLOCK_BYTES;
const _: () = assert!(CHUNK_BYTES as u64 == CHUNK_BLOCKS * CHECKPOINT_BLOCK_BYTES as u64);
/// Chunks in flight at once.
const WRITES_MAX: usize = 1;
/// Full chunks that may wait for the disk before there is no more room.
const WAITING_MAX: usize = 2;
/// How much further a file is allocated when the announced size was too small.
const GROWTH_BYTES: u64 = 64 << 20;

/// How a checkpoint ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Durable(Kept),
    Failed(CheckpointError),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Creating,
    /// Chunks are written as they fill; the file grows ahead of them.
    Filling,
    /// Cut to its exact length.
    Trimming,
    Syncing,
    Verifying,
    Renaming,
    SyncingDir,
    /// The first failure waits for what is in flight, then the file goes.
    Failing,
    Closing,
    Removing,
    /// It had its name: the directory forgets it for good, before anything that it needed is given up.
    SyncingRemoval,
}

#[derive(Debug)]
struct Chunk {
    offset: u64,
    buf: AlignedBuf,
}

/// A checkpoint in the making.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    origin: CheckpointOrigin,
    /// The file's name at present: a temporary one until it is renamed.
    path: String,
    file: Option<FileId>,
    state: State,
    in_flight: usize,
    is_growing: bool,
    allocated: u64,
    /// What the spare file had, while it is tried to give it what was announced.
    spare_bytes: Option<u64>,

    header: CheckpointHeader,
    slots: ValueSlots,
    blocks: crc32fast::Hasher,
    /// The chunk that is being filled and the body bytes in its last block.
    fill: AlignedBuf,
    sealed_in_fill: u64,
    sealed: u64,
    in_block: usize,
    waiting: VecDeque<Chunk>,
    is_finished: bool,
    header_crc: u32,
    verifier: Option<Verifier>,
    failure: Option<CheckpointError>,
    written_bytes: u64,
}

impl CheckpointWriter {
    /// Begins a checkpoint whose header is complete but for the lengths, and whose values lie in these slots.
    /// `attempt` tells its temporary file apart, unless it takes the spare file over.
    pub(crate) fn begin(
        origin: CheckpointOrigin,
        header: CheckpointHeader,
        slots: ValueSlots,
        (bytes_announced, spare): (u64, Option<SpareFile>),
        attempt: u64,
        disk: &mut dyn Disk,
    ) -> CheckpointWriter {
        assert!(header.info.slots_count as usize == slots.slots.len());
        let announced = header.info.table_bytes().saturating_add(bytes_announced);
        let announced = file_bytes_of(announced).unwrap_or(u64::MAX);
        let path = match spare {
            Some(_) => SPARE_PATH.to_owned(),
            None => format!("{CHECKPOINT_DIR}/{:016x}.{attempt}.tmp", header.info.at.index),
        };
        let mut writer = CheckpointWriter {
            origin,
            path,
            file: None,
            state: State::Creating,
            in_flight: 0,
            is_growing: false,
            allocated: announced,
            spare_bytes: None,
            header,
            slots,
            blocks: crc32fast::Hasher::new(),
            fill: AlignedBuf::zeroed(CHUNK_BYTES),
            sealed_in_fill: 0,
            sealed: 0,
            in_block: 0,
            waiting: VecDeque::new(),
            is_finished: false,
            header_crc: 0,
            verifier: None,
            failure: None,
            written_bytes: 0,
        };
        writer.start(announced, spare, disk);
        writer.fill(&encode_slots(&writer.slots.slots));
        writer
    }

    fn start(&mut self, announced: u64, spare: Option<SpareFile>, disk: &mut dyn Disk) {
        let Some(SpareFile { file, bytes }) = spare else {
            let path = self.path.clone();
            return self.submit(Op::Open { path, mode: OpenMode::CreateNew }, disk);
        };
        self.file = Some(file);
        self.allocated = bytes;
        self.state = State::Filling;
        if announced > bytes {
            // A checkpoint of this node may turn out shorter; what a peer announced must be there.
            self.spare_bytes = Some(bytes).filter(|_| self.origin == CheckpointOrigin::Local);
            self.grow_to(announced, disk);
        }
    }

    pub(crate) fn index(&self) -> u64 {
        self.header.info.at.index
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// How many bytes may be pushed now.
    pub(crate) fn room(&self) -> usize {
        let takes = matches!(self.state, State::Creating | State::Filling) && !self.is_finished;
        if !takes || self.waiting.len() >= WAITING_MAX {
            return 0;
        }
        let blocks = usize::try_from(CHUNK_BLOCKS - self.sealed_in_fill).expect("at most 4");
        blocks * CHECKPOINT_BLOCK_BODY_BYTES - self.in_block
    }

    /// Adds to the body.
    ///
    /// Requires: there is room. After a failure that the caller has not seen yet, the bytes are dropped.
    pub(crate) fn push(&mut self, bytes: &[u8], disk: &mut dyn Disk) {
        if self.failure.is_some() {
            return;
        }
        assert!(bytes.len() <= self.room());
        self.header.info.body_bytes += bytes.len() as u64;
        self.fill(bytes);
        self.advance(disk);
    }

    fn fill(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = bytes.len().min(CHECKPOINT_BLOCK_BODY_BYTES - self.in_block);
            let (part, rest) = bytes.split_at(count);
            let at = self.block_start() + CHECKPOINT_BLOCK_HEADER_BYTES + self.in_block;
            self.fill.as_mut_slice()[at..at + count].copy_from_slice(part);
            self.in_block += count;
            if self.in_block == CHECKPOINT_BLOCK_BODY_BYTES {
                self.seal();
            }
            bytes = rest;
        }
    }

    /// The body is complete.
    pub(crate) fn finish(&mut self, disk: &mut dyn Disk) {
        if self.failure.is_some() || self.is_finished {
            return;
        }
        // From here on the last block has its final length.
        self.is_finished = true;
        if self.in_block > 0 {
            self.seal();
        }
        self.end_fill();
        self.header.blocks_crc = self.blocks.clone().finalize();
        let mut head = AlignedBuf::zeroed(CHECKPOINT_HEADER_BYTES);
        self.header_crc = self.header.encode_into(head.as_mut_slice());
        let mut footer = AlignedBuf::zeroed(CHECKPOINT_HEADER_BYTES);
        self.header.encode_footer_into(self.header_crc, footer.as_mut_slice());
        let offset = footer_offset(self.header.info.stored_bytes());
        self.waiting.push_back(Chunk { offset, buf: footer });
        self.waiting.push_back(Chunk { offset: 0, buf: head });
        self.advance(disk);
    }

    /// Gives it up: however far it is, it ends as aborted and its file goes.
    ///
    /// A file that is about to get its final name, or has it, goes when the directory is synced. A
    /// power cut before, or one that brings the name back, leaves a checkpoint that is whole and of
    /// committed entries. An open that finds it is as right as one that does not: nothing has been
    /// acknowledged that needs it to be absent.
    pub(crate) fn abort(&mut self, disk: &mut dyn Disk) {
        let is_named = matches!(self.state, State::Renaming | State::SyncingDir);
        if is_named || self.failure.is_some() {
            self.failure = Some(CheckpointError::Aborted);
        } else {
            self.fail(CheckpointError::Aborted, disk);
        }
    }

    fn block_start(&self) -> usize {
        usize::try_from(self.sealed_in_fill).expect("at most 4") * CHECKPOINT_BLOCK_BYTES
    }

    /// Completes the block that is being filled.
    fn seal(&mut self) {
        let start = self.block_start();
        let block = &mut self.fill.as_mut_slice()[start..start + CHECKPOINT_BLOCK_BYTES];
        let checksum = seal_block(block, self.header.salt, self.sealed, self.in_block);
        self.blocks.update(&checksum.to_le_bytes());
        self.sealed += 1;
        self.sealed_in_fill += 1;
        self.in_block = 0;
        if self.sealed_in_fill == CHUNK_BLOCKS {
            self.end_fill();
        }
    }

    /// Hands the chunk over and begins the next one.
    fn end_fill(&mut self) {
        let Some(last) = self.sealed_in_fill.checked_sub(1) else { return };
        let first = self.sealed - self.sealed_in_fill;
        let body_bytes = if self.is_finished { self.header.info.stored_bytes() } else { u64::MAX };
        let last_bytes = block_file_bytes(first + last, body_bytes);
        let bytes = usize::try_from(last).expect("at most 4") * CHECKPOINT_BLOCK_BYTES + last_bytes;
        let buf = if bytes == CHUNK_BYTES {
            std::mem::replace(&mut self.fill, AlignedBuf::zeroed(CHUNK_BYTES))
        } else {
            let mut buf = AlignedBuf::zeroed(bytes);
            buf.as_mut_slice().copy_from_slice(&self.fill.as_slice()[..bytes]);
            buf
        };
        self.waiting.push_back(Chunk { offset: block_offset(first), buf });
        self.sealed_in_fill = 0;
    }

    fn submit(&mut self, op: Op, disk: &mut dyn Disk) {
        self.in_flight += 1;
        disk.submit(Class::Checkpoint, Owner::Checkpoint(self.origin, 0).tag(), op);
    }

    /// Submits what can go now.
    fn advance(&mut self, disk: &mut dyn Disk) {
        if self.state != State::Filling || self.is_growing {
            return;
        }
        while self.in_flight < WRITES_MAX
            && let Some(chunk) = self.waiting.front()
        {
            let end = chunk.offset + chunk.buf.len() as u64;
            if end > self.allocated {
                self.grow_to(end + GROWTH_BYTES, disk);
                return;
            }
            let Chunk { offset, buf } = self.waiting.pop_front().expect("it was just seen");
            self.written_bytes += buf.len() as u64;
            let (file, buf) = (self.open_file(), WriteBuf::Owned(Arc::new(buf)));
            self.submit(Op::Write { file, offset, buf, sync: WriteSync::Deferred }, disk);
        }
        if self.is_finished && self.in_flight == 0 {
            self.state = State::Trimming;
            let op = Op::Allocate { file: self.open_file(), bytes: self.file_bytes() };
            self.submit(op, disk);
        }
    }

    fn grow_to(&mut self, bytes: u64, disk: &mut dyn Disk) {
        self.allocated = bytes;
        self.is_growing = true;
        self.submit(Op::Allocate { file: self.open_file(), bytes }, disk);
    }

    fn file_bytes(&self) -> u64 {
        file_bytes_of(self.header.info.stored_bytes())
            .expect("a body that was written has a length")
    }

    fn final_path(&self) -> String {
        checkpoint_path(self.header.info.at.index)
    }

    fn open_file(&self) -> FileId {
        self.file.expect("the first step opened it")
    }

    /// An operation of this checkpoint has ended.
    pub(crate) fn complete(
        &mut self,
        result: io::Result<Done>,
        disk: &mut dyn Disk,
    ) -> Result<Option<Outcome>, Fault> {
        self.in_flight -= 1;
        match result {
            Ok(Done::Opened { file, .. }) => self.file = Some(file),
            Ok(Done::Read { buf, read }) if self.failure.is_none() => {
                self.verify(&buf.as_slice()[..read.min(buf.len())], disk);
                return Ok(None);
            }
            Ok(Done::Read { .. } | Done::Nothing) => {}
            Err(error) => self.refused(error, disk)?,
        }
        Ok(self.proceed(disk))
    }

    /// A full file system ends this checkpoint, bytes that cannot be read back do; anything else ends the engine.
    fn refused(&mut self, error: io::Error, disk: &mut dyn Disk) -> Result<(), Fault> {
        let may_be_full = matches!(self.state, State::Creating | State::Filling | State::Trimming);
        if let Some(bytes) = self.spare_bytes.take()
            && is_full(&error)
        {
            self.allocated = bytes;
            return Ok(());
        }
        let failure = if may_be_full && is_full(&error) {
            CheckpointError::NoSpace { source: Arc::new(error) }
        } else if self.state == State::Verifying {
            self.unverified(Check::Unreadable)
        } else if self.state == State::Failing && is_full(&error) {
            return Ok(());
        } else {
            let path = self.final_path();
            return Err(Fault { what: format!("{} {path}", self.verb()), source: error });
        };
        self.fail(failure, disk);
        Ok(())
    }

    fn verb(&self) -> &'static str {
        match self.state {
            State::Creating => "create",
            State::Filling | State::Failing => "write",
            State::Trimming => "set the length of",
            State::Syncing => "sync",
            State::Verifying => "read back",
            State::Renaming => "rename",
            State::SyncingDir => "sync directory of",
            State::Closing => "close",
            State::Removing => "remove",
            State::SyncingRemoval => "sync directory of removed",
        }
    }

    fn unverified(&self, check: Check) -> CheckpointError {
        let block = self.verifier.as_ref().map_or(0, Verifier::next_block);
        CheckpointError::Unverified { block, check }
    }

    fn fail(&mut self, failure: CheckpointError, disk: &mut dyn Disk) {
        self.failure = Some(failure);
        self.state = State::Failing;
        self.waiting.clear();
        if self.in_flight == 0
            && let Some(file) = self.file
        {
            self.close(file, disk);
        }
    }

    /// The first step of taking back what was made.
    fn close(&mut self, file: FileId, disk: &mut dyn Disk) {
        self.state = State::Closing;
        self.submit(Op::Close { file }, disk);
    }

    /// Goes to the next state if nothing of this one is in flight.
    fn proceed(&mut self, disk: &mut dyn Disk) -> Option<Outcome> {
        if self.in_flight > 0 && self.state != State::Filling {
            return None;
        }
        match self.state {
            State::Creating => {
                self.state = State::Filling;
                self.grow_to(self.allocated, disk);
            }
            State::Filling => self.fill_on(disk),
            State::Trimming if !mutant::is(Mutant::CheckpointNotSynced) => {
                self.state = State::Syncing;
                self.submit(Op::Sync { file: self.open_file() }, disk);
            }
            State::Trimming | State::Syncing => {
                self.state = State::Verifying;
                self.read_back(0, CHECKPOINT_HEADER_BYTES, disk);
            }
            State::Verifying => unreachable!("a read completes in verify"),
            State::Renaming if !mutant::is(Mutant::CheckpointDirNotSynced) => {
                self.path = self.final_path();
                self.state = State::SyncingDir;
                self.submit(Op::SyncDir { path: CHECKPOINT_DIR.to_owned() }, disk);
            }
            State::SyncingDir if self.failure.is_some() => self.close(self.open_file(), disk),
            State::Renaming | State::SyncingDir => {
                let CheckpointHeader { info, salt, .. } = self.header;
                let slots = self.slots.clone();
                return Some(Outcome::Durable(Kept::new(info, salt, self.open_file(), slots)));
            }
            State::Failing => match self.file {
                Some(file) => self.close(file, disk),
                None => return self.failure.take().map(Outcome::Failed),
            },
            State::Closing => {
                self.state = State::Removing;
                self.submit(Op::Remove { path: self.path.clone() }, disk);
            }
            State::Removing if self.path == self.final_path() => {
                self.state = State::SyncingRemoval;
                self.submit(Op::SyncDir { path: CHECKPOINT_DIR.to_owned() }, disk);
            }
            State::Removing | State::SyncingRemoval => {
                return self.failure.take().map(Outcome::Failed);
            }
        }
        None
    }

    fn fill_on(&mut self, disk: &mut dyn Disk) {
        // Growing is the only operation besides writes; it was submitted last, alone or behind writes.
        if self.is_growing && self.in_flight == 0 {
            self.is_growing = false;
            self.spare_bytes = None;
        }
        self.advance(disk);
    }

    fn read_back(&mut self, offset: u64, bytes: usize, disk: &mut dyn Disk) {
        let buf = AlignedBuf::zeroed(bytes);
        self.submit(Op::Read { file: self.open_file(), offset, buf }, disk);
    }

    /// Checks what was read back and asks for the next piece.
    fn verify(&mut self, bytes: &[u8], disk: &mut dyn Disk) {
        match self.check_piece(bytes) {
            _ if mutant::is(Mutant::CheckpointNotVerified) => self.rename(disk),
            Err(check) => {
                let failure = self.unverified(check);
                self.fail(failure, disk);
            }
            Ok(Some((offset, bytes))) => self.read_back(offset, bytes, disk),
            Ok(None) => self.rename(disk),
        }
    }

    fn rename(&mut self, disk: &mut dyn Disk) {
        self.state = State::Renaming;
        let (from, to) = (self.path.clone(), self.final_path());
        self.submit(Op::Rename { from, to }, disk);
    }

    /// Gives the place of the next piece, or none after the footer.
    fn check_piece(&mut self, bytes: &[u8]) -> Result<Option<(u64, usize)>, Check> {
        let body_bytes = self.header.info.stored_bytes();
        let verifier = match &mut self.verifier {
            Some(verifier) if verifier.is_at_footer() => {
                verifier.footer(bytes)?;
                return Ok(None);
            }
            Some(verifier) => {
                verifier.blocks(bytes, &mut |_| Ok(()))?;
                verifier
            }
            None => {
                let file_bytes = self.file_bytes();
                let read = CheckpointHeader::decode(bytes, self.header.log_id, file_bytes)?;
                if read != (self.header, self.header_crc) {
                    return Err(Check::HeaderChecksum);
                }
                self.verifier.insert(Verifier::new(read.0, read.1))
            }
        };
        Ok(Some(next_piece(verifier, body_bytes)))
    }
}

/// Where a verifier goes on reading: (offset, bytes).
pub(crate) fn next_piece(verifier: &Verifier, body_bytes: u64) -> (u64, usize) {
    if verifier.is_at_footer() {
        return (footer_offset(body_bytes), CHECKPOINT_HEADER_BYTES);
    }
    piece_from(verifier.next_block(), body_bytes)
}

/// All the blocks of a checkpoint in pieces of whole blocks: (offset, bytes) each.
pub(crate) fn pieces(body_bytes: u64) -> impl Iterator<Item = (u64, usize)> {
    let count = block_count(body_bytes).div_ceil(CHUNK_BLOCKS);
    (0..count).map(move |number| piece_from(number * CHUNK_BLOCKS, body_bytes))
}

fn piece_from(first: u64, body_bytes: u64) -> (u64, usize) {
    let last = (first + CHUNK_BLOCKS).min(block_count(body_bytes)) - 1;
    let end = block_offset(last) + block_file_bytes(last, body_bytes) as u64;
    (block_offset(first), usize::try_from(end - block_offset(first)).expect("at most 1 MiB"))
}
