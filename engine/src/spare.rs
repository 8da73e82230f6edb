//! Space for the next checkpoint, held before it is needed: on a full file system a checkpoint is what frees slots, so it
//! must never wait for free space itself.
//!
//! ```text
//! missing ── made ──▶ ready ── taken over ──▶ lent ── the checkpoint ends ──▶ missing
//! ```
//!
//! The file has a quarter more than the newest checkpoint, or than what its caller expects of the next one. It holds
//! nothing; its bytes are written and verified like those of any other when a checkpoint takes it over. An open finds it
//! again by its name, whatever is in it.
//!
//! Invariant: while space for it is wanted and not there, no slot is made: it would take what the next checkpoint needs.

use std::io;

use crate::error::Fault;
use crate::format::SPARE_PATH;
use crate::io::{Class, Disk, Done, FileId, Op, OpenMode};
use crate::mutant::{self, Mutant};
use crate::slots::{RETRY_US, is_full};
use crate::tags::Owner;

/// A file without content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SpareFile {
    pub(crate) file: FileId,
    /// Bytes that it has.
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Missing,
    Creating,
    Ready(SpareFile),
    /// It grows: what it has now, and will have.
    Growing {
        from: SpareFile,
        bytes: u64,
    },
    Lent,
}

/// The spare file of a directory.
#[derive(Debug)]
pub(crate) struct Spare {
    state: State,
    /// What the next checkpoint may take; 0 asks for no file.
    needed_bytes: u64,
    retry_at_us: Option<u64>,
}

impl Spare {
    /// What the open found.
    pub(crate) fn new(found: Option<SpareFile>) -> Spare {
        let state = found.map_or(State::Missing, State::Ready);
        Spare { state, needed_bytes: 0, retry_at_us: None }
    }

    /// The next checkpoint may take so many bytes of file.
    pub(crate) fn need(&mut self, bytes: u64) {
        self.needed_bytes = bytes;
    }

    /// Takes the file over for a checkpoint, if there is one.
    pub(crate) fn take(&mut self) -> Option<SpareFile> {
        let State::Ready(file) = self.state else { return None };
        self.state = State::Lent;
        Some(file)
    }

    /// The checkpoint that took it over has ended: its file has another name, or is gone.
    pub(crate) fn take_back(&mut self) {
        assert!(self.state == State::Lent);
        self.state = State::Missing;
    }

    /// Bytes that a checkpoint could take over now.
    pub(crate) fn bytes(&self) -> u64 {
        match self.state {
            State::Ready(file) => file.bytes,
            State::Missing | State::Creating | State::Growing { .. } | State::Lent => 0,
        }
    }

    fn is_short(&self) -> bool {
        match self.state {
            State::Missing | State::Creating => self.needed_bytes > 0,
            State::Ready(file) | State::Growing { from: file, .. } => {
                file.bytes < self.needed_bytes
            }
            State::Lent => false,
        }
    }

    /// Whether there was no space for it the last time.
    pub(crate) fn is_starved(&self) -> bool {
        self.retry_at_us.is_some() && self.is_short()
    }

    /// Whether slots may be made.
    pub(crate) fn leaves_room(&self) -> bool {
        !self.is_short() || mutant::is(Mutant::SlotsBeforeSpare)
    }

    /// When the next attempt is due, if one is needed.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        let rests = matches!(self.state, State::Missing | State::Ready(_));
        self.retry_at_us.filter(|_| rests && self.is_short())
    }

    /// Makes it or lets it grow, if it is too short.
    pub(crate) fn advance(&mut self, now_us: u64, disk: &mut dyn Disk) {
        let is_early = self.retry_at_us.is_some_and(|at| now_us < at);
        if is_early || !self.is_short() {
            return;
        }
        match self.state {
            State::Missing => {
                self.state = State::Creating;
                let mode = OpenMode::CreateNew;
                submit(disk, Op::Open { path: SPARE_PATH.to_owned(), mode });
            }
            State::Ready(file) => self.grow(file, disk),
            State::Creating | State::Growing { .. } | State::Lent => {}
        }
    }

    /// To a quarter more than is needed.
    fn grow(&mut self, from: SpareFile, disk: &mut dyn Disk) {
        let bytes = self.needed_bytes.saturating_add(self.needed_bytes / 4);
        self.state = State::Growing { from, bytes };
        submit(disk, Op::Allocate { file: from.file, bytes });
    }

    /// The step in progress has ended. A full file system leaves what there is.
    pub(crate) fn complete(
        &mut self,
        now_us: u64,
        result: io::Result<Done>,
        disk: &mut dyn Disk,
    ) -> Result<(), Fault> {
        let is_full = result.as_ref().is_err_and(is_full);
        self.retry_at_us = is_full.then(|| now_us.saturating_add(RETRY_US));
        match (self.state, result) {
            (State::Creating, Ok(Done::Opened { file, .. })) => {
                self.grow(SpareFile { file, bytes: 0 }, disk);
            }
            (State::Creating, Err(_)) if is_full => self.state = State::Missing,
            (State::Growing { from, .. }, Err(_)) if is_full => self.state = State::Ready(from),
            (State::Growing { from, bytes }, Ok(_)) => {
                self.state = State::Ready(SpareFile { file: from.file, bytes });
            }
            (_, Ok(_)) => unreachable!("one step is in progress, and opening is the first"),
            (_, Err(source)) => {
                return Err(Fault { what: format!("allocate {SPARE_PATH}"), source });
            }
        }
        Ok(())
    }
}

fn submit(disk: &mut dyn Disk, op: Op) {
    disk.submit(Class::Background, Owner::Spare.tag(), op);
}
