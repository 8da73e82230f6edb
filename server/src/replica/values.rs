//! Values that do not lie in the state: those that an entry compares with, those that clients read, those of snapshots.
//!
//! The outcome of an entry may depend on value bytes, through a compare. They are asked for when the entry is appended,
//! so that they are here when it is committed, and an entry is not applied before they are. A value that cannot be read
//! ends this node: it must not decide what the others decide otherwise.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::io::Disk;
use engine::{Engine, Location, ReadError, Reading, Wanted};
use raft::{Link, NodeId, SendId};

use super::input::ReplyTo;
use super::rescue::Read;
use crate::state_machine::{Loaded, State};

/// A client that reads several values of together so many bytes goes over a range.
const SCAN_BYTES_MIN: usize = 64 << 10;

/// Who waits for values.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Entries that compare it.
    Compare(Location),
    /// A connection.
    Fetch(ReplyTo),
    /// A snapshot on its way out.
    Snapshot(SendId),
    /// A peer that cannot read it: with its own number for it.
    Peer(NodeId, Link, u64),
}

impl Purpose {
    /// What clients read they read again, mostly, but for long ranges: keeping those costs more than it brings. What is
    /// compared is about to be replaced.
    fn reading(&self, wanted: &[Wanted]) -> Reading {
        let bytes: usize = wanted.iter().map(|wanted| wanted.value_bytes as usize).sum();
        match self {
            Purpose::Fetch(_) if wanted.len() == 1 || bytes < SCAN_BYTES_MIN => Reading::Again,
            Purpose::Fetch(_) | Purpose::Compare(_) | Purpose::Snapshot(_) | Purpose::Peer(..) => {
                Reading::Once
            }
        }
    }

    /// Whether peers are asked for what cannot be read. By the time that they are, they may have applied the entry that
    /// compares a value, and have it no more.
    fn is_rescued(&self) -> bool {
        matches!(self, Purpose::Fetch(_))
    }
}

/// A value that entries compare.
#[derive(Debug)]
struct Compared {
    wanted: Wanted,
    /// None while it is read. An error counts only for an entry that is applied: others may never be.
    value: Option<Result<Bytes, ReadError>>,
    /// The last entry that was seen to compare it.
    index: u64,
}

/// Whether these bytes are, by length and checksum, the value that was asked for.
pub(super) fn is_wanted(wanted: &Wanted, value: &[u8]) -> bool {
    wanted.value_bytes as usize == value.len() && wanted.checksum == crc32fast::hash(value)
}

/// Reads of values under way, and what they have brought for compares.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// For whom, and what, where peers may be asked for it.
    reads: BTreeMap<u64, (Purpose, Vec<Wanted>)>,
    next: u64,
    compared: BTreeMap<Location, Compared>,
}

impl Values {
    /// Reads values for whom it may concern.
    pub(super) fn read<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        purpose: Purpose,
        wanted: Vec<Wanted>,
    ) {
        let reading = purpose.reading(&wanted);
        self.next += 1;
        let again = if purpose.is_rescued() { wanted.clone() } else { Vec::new() };
        self.reads.insert(self.next, (purpose, again));
        engine.read_values(self.next, wanted, reading);
    }

    /// A read has ended.
    pub(super) fn ended(
        &mut self,
        id: u64,
        results: Vec<Result<Bytes, ReadError>>,
    ) -> Option<Read> {
        let (purpose, wanted) = self.reads.remove(&id)?;
        Some(Read { purpose, wanted, results })
    }

    /// How many values are being read for peers.
    pub(super) fn lent(&self) -> usize {
        self.reads.values().filter(|(purpose, _)| matches!(purpose, Purpose::Peer(..))).count()
    }

    /// Whether clients wait for values.
    pub(super) fn has_fetches(&self) -> bool {
        self.reads.values().any(|(purpose, _)| matches!(purpose, Purpose::Fetch(_)))
    }

    /// The entry at `index` has been appended: asks for what it compares, as far as that is known by now.
    pub(super) fn prefetch<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        state: &State,
        index: u64,
        payload: &[u8],
    ) {
        for wanted in state.compared(payload) {
            if engine.reader().recent(&wanted).is_none() {
                self.compare(engine, index, wanted);
            }
        }
    }

    /// What the entry at `index` compares, if it is all here. Otherwise the rest has been asked for.
    pub(super) fn loaded<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        state: &State,
        index: u64,
        payload: &[u8],
    ) -> Result<Option<Loaded>, ReadError> {
        let mut loaded = Loaded::new();
        let mut is_complete = true;
        for wanted in state.compared(payload) {
            let location = wanted.location;
            let value = match engine.reader().recent(&wanted) {
                Some(value) => Some(Ok(value)),
                None => self.compare(engine, index, wanted),
            };
            match value {
                Some(value) => drop(loaded.insert(location, value?)),
                None => is_complete = false,
            }
        }
        Ok(is_complete.then_some(loaded))
    }

    /// The value if it has been read; asks for it if nobody has.
    fn compare<D: Disk>(
        &mut self,
        engine: &mut Engine<D>,
        index: u64,
        wanted: Wanted,
    ) -> Option<Result<Bytes, ReadError>> {
        let location = wanted.location;
        if let Some(compared) = self.compared.get_mut(&location)
            && compared.wanted == wanted
        {
            compared.index = compared.index.max(index);
            return compared.value.clone();
        }
        let compared = Compared { wanted: wanted.clone(), value: None, index };
        self.compared.insert(location, compared);
        self.read(engine, Purpose::Compare(location), vec![wanted]);
        None
    }

    /// The disk has brought a value that entries compare. One whose place was taken by another meanwhile is dropped:
    /// the later request brings its own.
    pub(super) fn compare_arrived(&mut self, location: Location, value: Result<Bytes, ReadError>) {
        let is_it = |compared: &Compared| {
            compared.value.is_none()
                && value.as_ref().map_or(true, |value| is_wanted(&compared.wanted, value))
        };
        if let Some(compared) = self.compared.get_mut(&location)
            && is_it(compared)
        {
            compared.value = Some(value);
        }
    }

    /// Entries up to this one are applied.
    pub(super) fn applied(&mut self, index: u64) {
        if !self.compared.is_empty() {
            self.compared.retain(|_, compared| compared.index > index || compared.value.is_none());
        }
    }
}
