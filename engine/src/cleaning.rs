//! The cleaner among the other jobs of the engine: when a run begins, what it may take, and how fast it may go.

use std::collections::BTreeMap;
use std::io;

use crate::cleaner::{Candidate, Cleaner, Pace, Request, Urgency, ValueIndex, choose};
use crate::io::{Class, Disk, Done, Op};
use crate::options::Options;
use crate::slots::SlotTable;
use crate::tags::Owner;
use crate::types::{Location, ValuesOwner};
use crate::value_log::ValueLog;

/// Parts of a slot that are written before it is worth to look for victims again.
const LOOKS_PER_SLOT: u64 = 4;
/// While writers wait for slots, victims are looked for so often.
const FULL_LOOK_US: u64 = 1_000_000;
/// While writers wait for slots, victims are looked for until everything is live.
const FULL_PERCENT: u64 = 100;

/// What the cleaner shares with the rest of the engine.
pub(crate) struct CleanContext<'a> {
    pub(crate) slots: &'a mut SlotTable,
    pub(crate) values: &'a mut ValueLog,
    /// Slots that hold nothing but values, and how much had been written when they became so.
    pub(crate) held: &'a BTreeMap<u32, u64>,
    /// Bytes written to the log since the open.
    pub(crate) written_bytes: u64,
    /// States shown since the open.
    pub(crate) shown: u64,
    pub(crate) disk: &'a mut dyn Disk,
}

/// When to clean.
pub(crate) struct Cleaning {
    cleaner: Cleaner,
    pace: Pace,
    urgency: Urgency,
    slot_bytes: u64,
    below_percent: u64,
    /// Victims may have come up since the last look.
    is_worth_a_look: bool,
    /// What had been written at the last look.
    looked_bytes: u64,
    may_append: bool,
    /// When to look again while slots are short.
    look_due_us: u64,
}

impl Cleaning {
    pub(crate) fn new(log_id: u128, options: &Options) -> Cleaning {
        Cleaning {
            cleaner: Cleaner::new(log_id, options.slot_bytes, options.entry_bytes_max()),
            pace: Pace::new(options.clean_bytes_per_second),
            urgency: Urgency::Steady,
            slot_bytes: options.slot_bytes,
            below_percent: u64::from(options.clean_below_percent),
            is_worth_a_look: true,
            looked_bytes: 0,
            may_append: false,
            look_due_us: 0,
        }
    }

    /// Whether anything is ever cleaned.
    pub(crate) fn is_on(&self) -> bool {
        self.below_percent > 0
    }

    /// Slots that are left alone.
    pub(crate) fn spared_count(&self) -> usize {
        self.cleaner.spared_count()
    }

    /// Values moved since the open, and their bytes.
    pub(crate) fn moved(&self) -> (u64, u64) {
        self.cleaner.moved()
    }

    /// Slots have come or gone.
    pub(crate) fn look_again(&mut self) {
        self.is_worth_a_look = true;
    }

    /// Whether `work` would go on at once.
    pub(crate) fn is_busy(&self) -> bool {
        self.cleaner.is_busy(self.may_append)
    }

    /// When `work` may go on although nothing else happens.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        let waits_for_time = self.cleaner.is_busy(true) && !self.cleaner.is_busy(self.may_append);
        waits_for_time.then(|| self.pace.next_due_us(self.cleaner.next_batch_bytes())).flatten()
    }

    /// The disk has answered.
    pub(crate) fn arrived(&mut self, result: io::Result<Done>) {
        self.cleaner.arrived(result);
    }

    /// A batch is durable.
    pub(crate) fn placed(&mut self, id: u64, location: Location) {
        self.cleaner.placed(id, location);
    }

    /// Whether `work` has something to do, now that so much has been written and slots are wanted or not.
    pub(crate) fn is_due(&mut self, now_us: u64, written_bytes: u64, is_starved: bool) -> bool {
        self.urgency = if is_starved { Urgency::Full } else { Urgency::Steady };
        if is_starved && now_us >= self.look_due_us {
            // What is deleted makes victims, and hardly any log.
            self.is_worth_a_look = true;
            self.look_due_us = now_us.saturating_add(FULL_LOOK_US);
        }
        self.pace.earn(now_us, written_bytes);
        let bytes = self.cleaner.next_batch_bytes();
        self.may_append = self.pace.may_spend(self.urgency, bytes);
        if self.cleaner.is_running() {
            return self.is_busy();
        }
        let since = written_bytes - self.looked_bytes;
        self.is_worth_a_look |= since >= self.slot_bytes / LOOKS_PER_SLOT;
        self.is_on() && self.is_worth_a_look
    }

    /// One step of a run, or a look whether one should begin.
    ///
    /// Requires: it is due.
    pub(crate) fn work(&mut self, index: &mut dyn ValueIndex, context: &mut CleanContext<'_>) {
        if !self.cleaner.is_running() {
            return self.look(index, context);
        }
        match self.cleaner.step(index, self.may_append) {
            None => {}
            Some(Request::Read { slot, offset, buf }) => {
                context.slots.begin_read(slot);
                let file = context.slots.file(slot);
                let op = Op::Read { file, offset, buf };
                context.disk.submit(Class::Cleaning, Owner::Cleaner(slot).tag(), op);
            }
            Some(Request::Append(mut batch)) => {
                self.pace.spend(batch.len());
                self.may_append = false;
                let id = context.values.append(ValuesOwner::Cleaner, batch.take());
                self.cleaner.appended(id);
            }
            Some(Request::Settle(id)) => {
                context.values.settle(ValuesOwner::Cleaner, id, context.shown);
            }
            Some(Request::End { victims }) => {
                hold(context.slots, &victims, SlotTable::end_read);
                self.is_worth_a_look = true;
            }
        }
    }

    /// Begins a run if too much is dead.
    fn look(&mut self, index: &dyn ValueIndex, context: &mut CleanContext<'_>) {
        (self.is_worth_a_look, self.looked_bytes) = (false, context.written_bytes);
        let candidates = context.held.iter().filter(|(slot, _)| !self.cleaner.spares(**slot));
        let candidates = candidates.map(|(slot, since)| Candidate {
            slot: *slot,
            live_bytes: index.live_bytes(*slot),
            age_bytes: context.written_bytes - since,
        });
        let percent = match self.urgency {
            Urgency::Steady => self.below_percent,
            Urgency::Full => FULL_PERCENT,
        };
        let victims = choose(candidates.collect(), self.slot_bytes, percent);
        if victims.is_empty() {
            return;
        }
        let live = victims.iter().map(|slot| index.live_bytes(*slot)).sum();
        self.pace.begin(live, victims.len() as u64 * self.slot_bytes);
        hold(context.slots, &victims, SlotTable::begin_read);
        self.cleaner.begin(victims);
    }
}

/// A victim counts as read from the first step of its run to the last.
fn hold(slots: &mut SlotTable, victims: &[u32], change: fn(&mut SlotTable, u32)) {
    for slot in victims {
        change(slots, *slot);
    }
}
