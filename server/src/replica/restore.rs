//! Reads a checkpoint's or snapshot's body back: its head, then the state.

use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::JoinHandle;

use engine::{CheckpointInfo, CheckpointSink, Location, ValueBatch};
use raft::SnapshotMeta;
use thiserror::Error;

use crate::bytes_reader::{Malformed, Reader};
use crate::peer_message::decode_snapshot_meta;
use crate::state_machine::{RestoreError, Restorer, State};

const HEAD_BYTES_MAX: usize = 4096;

/// The body is not a state.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Its head does not say what it should.
    #[error(transparent)]
    Head(#[from] Malformed),
    /// The state does not.
    #[error(transparent)]
    State(#[from] RestoreError),
    /// It ends too early.
    #[error("the state ends after {bytes} bytes, within its head")]
    Short {
        /// How many bytes there were.
        bytes: usize,
    },
    /// The file says one position, its content another.
    #[error("the state was taken at index {found}, its file says {wanted}")]
    OtherPosition {
        /// What the content says.
        found: u64,
        /// What the file says.
        wanted: u64,
    },
}

/// Collects the pieces of a body.
pub struct BodyReader {
    head: Vec<u8>,
    meta: Option<SnapshotMeta>,
    restorer: Restorer,
}

impl BodyReader {
    /// Nothing yet.
    pub fn new() -> BodyReader {
        BodyReader { head: Vec::new(), meta: None, restorer: Restorer::new() }
    }

    /// Nothing yet, of a peer's snapshot; see [`Restorer::of_peer`].
    pub fn of_peer(batch_bytes_max: usize) -> BodyReader {
        BodyReader { restorer: Restorer::of_peer(batch_bytes_max), ..BodyReader::new() }
    }

    /// See [`Restorer::take_batch`].
    pub fn take_batch(&mut self) -> Option<ValueBatch> {
        self.restorer.take_batch()
    }

    /// See [`Restorer::placed`].
    pub fn placed(&mut self, place: Location) {
        self.restorer.placed(place);
    }

    /// See [`Restorer::seal`].
    pub fn seal(&mut self) {
        self.restorer.seal();
    }

    /// The next piece, of any size.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        if self.meta.is_some() {
            return Ok(self.restorer.push(bytes)?);
        }
        self.head.extend_from_slice(bytes);
        let Some(length) = self.head.first_chunk::<4>() else { return Ok(()) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > HEAD_BYTES_MAX {
            return Err(Malformed { what: "checkpoint head" }.into());
        }
        if self.head.len() < 4 + length {
            return Ok(());
        }
        let mut reader = Reader::new(&self.head[4..4 + length]);
        self.meta = Some(decode_snapshot_meta(&mut reader)?);
        reader.finish("checkpoint head")?;
        let rest = std::mem::take(&mut self.head).split_off(4 + length);
        Ok(self.restorer.push(&rest)?)
    }

    /// The state and where it was taken; `index` is what the file or the offer says.
    pub fn finish(self, index: u64) -> Result<(SnapshotMeta, State), BodyError> {
        let meta = self.meta.ok_or(BodyError::Short { bytes: self.head.len() })?;
        let state = self.restorer.finish()?;
        for found in [meta.last.index.0, state.applied_index()] {
            if found != index {
                return Err(BodyError::OtherPosition { found, wanted: index });
            }
        }
        Ok((meta, state))
    }
}

/// Makes a state of the checkpoint that an open finds, beside that open where threads are to be had.
pub struct Loader {
    /// None starts no thread.
    threads: Option<usize>,
    index: u64,
    /// The piece that is being filled.
    piece: Vec<u8>,
    reading: Reading,
}

enum Reading {
    Nothing,
    Inline(Box<BodyReader>, Result<(), BodyError>),
    Worker { pieces: SyncSender<Vec<u8>>, thread: JoinHandle<Result<BodyReader, BodyError>> },
}

/// Bytes that are handed to the worker at a time, and how many such pieces may wait for it.
const PIECE_BYTES: usize = 1 << 20;
const PIECES_MAX: usize = 16;

impl Loader {
    /// One that reads on a thread of its own, and decodes keys on so many more.
    pub fn on_threads(threads: usize) -> Loader {
        Loader { threads: Some(threads), ..Loader::inline() }
    }

    /// One that starts no thread.
    pub fn inline() -> Loader {
        Loader { threads: None, index: 0, piece: Vec::new(), reading: Reading::Nothing }
    }

    /// The state that was loaded, and where it was taken.
    ///
    /// Requires: an open with this as its sink has found the checkpoint at `index`.
    pub fn finish(mut self, index: u64) -> Result<(SnapshotMeta, State), BodyError> {
        assert_eq!(self.index, index, "the open has found another checkpoint");
        self.hand_over();
        let body = match self.reading {
            Reading::Nothing => unreachable!("a checkpoint was begun"),
            Reading::Inline(body, result) => {
                result?;
                *body
            }
            Reading::Worker { pieces, thread } => {
                drop(pieces);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
            }
        };
        body.finish(index)
    }

    fn hand_over(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        match &mut self.reading {
            Reading::Nothing => {}
            Reading::Inline(body, result) => {
                if result.is_ok() {
                    *result = body.push(&piece);
                }
            }
            // A worker that has met an error is gone; `finish` reports it.
            Reading::Worker { pieces, .. } => drop(pieces.send(piece)),
        }
    }
}

impl CheckpointSink for Loader {
    fn begin(&mut self, info: &CheckpointInfo) {
        self.index = info.at.index;
        self.piece.clear();
        self.reading = if let Some(threads) = self.threads {
            let (pieces, arrived) = std::sync::mpsc::sync_channel(PIECES_MAX);
            let thread = std::thread::spawn(move || read_pieces(&arrived, threads));
            Reading::Worker { pieces, thread }
        } else {
            Reading::Inline(Box::default(), Ok(()))
        };
    }

    fn push(&mut self, body: &[u8]) {
        self.piece.extend_from_slice(body);
        if self.piece.len() >= PIECE_BYTES {
            self.hand_over();
        }
    }
}

fn read_pieces(arrived: &Receiver<Vec<u8>>, threads: usize) -> Result<BodyReader, BodyError> {
    let restorer = Restorer::on_threads(threads);
    let mut body = BodyReader { restorer, ..BodyReader::new() };
    for piece in arrived {
        body.push(&piece)?;
    }
    Ok(body)
}

impl Default for BodyReader {
    fn default() -> BodyReader {
        BodyReader::new()
    }
}
