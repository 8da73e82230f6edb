//! What a log may hold after a crash: the state after some prefix of what was appended that contains every
//! acknowledged write.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::{Append, CheckpointInfo, Entry, HardState, Position};

/// One step of what was appended.
#[derive(Clone, Debug)]
enum Step {
    HardState(HardState),
    Reset(Position),
    Entry(Entry),
    End(u64),
}

/// The logical content of a log.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Content {
    /// Term and vote.
    pub hard_state: HardState,
    /// The entry before the first one.
    pub start: Position,
    /// Every entry after it.
    pub entries: BTreeMap<u64, Entry>,
}

impl Content {
    /// The last entry, or the start of an empty log.
    pub fn last(&self) -> Position {
        let last = self.entries.last_key_value();
        last.map_or(self.start, |(_, entry)| Position { index: entry.index, term: entry.term })
    }

    /// The term of an entry or of the start.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.entries.get(&index).map(|entry| entry.term)
    }

    fn reset(&mut self, at: Position) {
        self.entries.clear();
        self.start = at;
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::HardState(hard_state) => self.hard_state = *hard_state,
            Step::Reset(at) => self.reset(*at),
            Step::Entry(entry) => {
                self.entries.split_off(&entry.index);
                self.entries.insert(entry.index, entry.clone());
            }
            Step::End(_) => {}
        }
    }

    /// What an open makes of it with this newest checkpoint, starting after `log_start`.
    fn seen(&self, checkpoint: Option<CheckpointInfo>, log_start: Position) -> Content {
        let mut seen = self.clone();
        if let Some(CheckpointInfo { at, installed: true, .. }) = checkpoint
            && at.index >= seen.start.index
            && seen.term_at(at.index) != Some(at.term)
        {
            seen.reset(at);
        }
        if seen.start.index < log_start.index {
            seen.entries = seen.entries.split_off(&(log_start.index + 1));
            seen.start = log_start;
        }
        seen
    }
}

/// Everything that was appended since the last certain content, and how far it was acknowledged.
#[derive(Clone, Default, Debug)]
pub struct Oracle {
    base: Content,
    steps: Vec<Step>,
    /// How many steps are acknowledged.
    acknowledged: usize,
    written: u64,
}

impl Oracle {
    /// The number of the next write.
    pub fn next_write(&self) -> u64 {
        self.written + 1
    }

    /// Notes a write before it is appended.
    pub fn append(&mut self, append: &Append) {
        assert_eq!(append.write, self.written + 1);
        self.written = append.write;
        self.steps.extend(append.hard_state.map(Step::HardState));
        self.steps.extend(append.reset.map(Step::Reset));
        self.steps.extend(append.entries.iter().cloned().map(Step::Entry));
        self.steps.push(Step::End(append.write));
    }

    /// Every write up to this one is durable.
    pub fn durable(&mut self, write: u64) {
        assert!(write <= self.written, "write {write} was never appended");
        let at = self.steps.iter().position(|step| matches!(step, Step::End(w) if *w == write));
        if let Some(at) = at {
            assert!(at >= self.acknowledged, "write {write} is acknowledged twice");
            self.acknowledged = at + 1;
        }
    }

    /// Whether a write that is not acknowledged replaces the entry at `index`, perhaps by the same.
    pub fn is_being_replaced(&self, index: u64) -> bool {
        self.steps[self.acknowledged..].iter().any(|step| match step {
            Step::Entry(entry) => entry.index <= index,
            Step::Reset(_) => true,
            Step::HardState(_) | Step::End(_) => false,
        })
    }

    /// How much it has been told: grows with every write and with every acknowledgement.
    pub(super) fn told(&self) -> usize {
        self.steps.len() + self.acknowledged
    }

    /// Tells what is certain and what was appended after it.
    pub(super) fn describe(&self, show: &mut dyn FnMut(String)) {
        let certain = self.certain();
        show(format!("certain: {} to {}, {:?}", certain.start, certain.last(), certain.hard_state));
        for step in &self.steps[self.acknowledged..] {
            show(match step {
                Step::HardState(hard_state) => format!("  then {hard_state:?}"),
                Step::Reset(at) => format!("  then a reset to {at}"),
                Step::Entry(entry) => format!("  then {} (term {})", entry.index, entry.term),
                Step::End(write) => format!("  which ends write {write}"),
            });
        }
    }

    /// Whether this entry was appended, replaced by now or not.
    pub(super) fn was_appended(&self, entry: &Entry) -> bool {
        let is_it = |step: &Step| matches!(step, Step::Entry(appended) if appended == entry);
        self.base.entries.get(&entry.index) == Some(entry) || self.steps.iter().any(is_it)
    }

    /// Whether every write is durable.
    pub fn is_settled(&self) -> bool {
        self.acknowledged == self.steps.len()
    }

    /// The content with everything that was appended.
    pub fn newest(&self) -> Content {
        self.after(self.steps.len())
    }

    /// The content with what is acknowledged.
    pub fn certain(&self) -> Content {
        self.after(self.acknowledged)
    }

    fn after(&self, steps: usize) -> Content {
        let mut content = self.base.clone();
        self.steps[..steps].iter().for_each(|step| content.apply(step));
        content
    }

    /// Checks what an open found, and goes on from there.
    ///
    /// Panics if it is not the content after a prefix of the steps that holds every acknowledged one.
    pub fn recovered(&mut self, found: &Content, checkpoint: Option<CheckpointInfo>, what: &str) {
        let mut content = self.certain();
        let mut next = self.acknowledged;
        while content.seen(checkpoint, found.start) != *found {
            let Some(step) = self.steps.get(next) else {
                panic!(
                    "{what}: recovered {:?} to {:?} with {:?}, which is no prefix that holds {:?} to {:?}",
                    found.start,
                    found.last(),
                    found.hard_state,
                    self.certain().start,
                    self.certain().last(),
                );
            };
            content.apply(step);
            next += 1;
        }
        *self = Oracle { base: found.clone(), ..Oracle::default() };
    }
}

/// A payload that tells its write, index and term, so that no stale one passes for it.
pub fn payload(write: u64, at: Position, bytes: usize) -> Bytes {
    let mut payload = Vec::with_capacity(bytes + 24);
    let mut word = write ^ at.index.rotate_left(20) ^ at.term.rotate_left(40);
    while payload.len() < bytes {
        word = word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) ^ write;
        payload.extend_from_slice(&word.to_le_bytes());
    }
    payload.truncate(bytes);
    Bytes::from(payload)
}
