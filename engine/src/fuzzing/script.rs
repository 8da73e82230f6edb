//! A script of work and crashes: two bytes a step. Whatever it says, an open finds what was acknowledged.

use crate::error::CheckpointError;
use crate::io::simulated::{Fate, SimFaults, Unsynced};
use crate::options::Options;
use crate::types::{CheckpointOrigin, Event, HardState, Position, ValueSlots};

use super::cabinet::Cabinet;
use super::snapshot::Snapshot;
use super::world::{World, small_options};

// A checkpoint holds what is committed: a caller never replaces an entry that one holds or is about to.

/// More steps than this are not run.
pub(super) const STEPS_MAX: usize = 48;
/// A checkpoint of more than this amount is begun late.
const LATE_FROM: u64 = 200;
/// A snapshot of this amount or more is given up.
const GIVEN_UP_FROM: u8 = 192;
/// A piece takes as long as a dozen frames.
const SCRUB_BYTES_PER_SECOND: u64 = 256 << 20;

/// Runs a script to its end, crashes, and opens once more.
///
/// Panics when an acknowledged write is lost, anything else is found than a prefix of what was appended, or an open of
/// a disk that has lost nothing durable is refused.
pub fn run_script(script: &[u8]) {
    run(script, Options { clean_below_percent: 0, ..small_options() });
}

/// Likewise, with a cleaner beside it, in slots so small that it has something to do.
pub fn run_script_cleaned(script: &[u8]) {
    run(script, Options { slot_bytes: 64 << 10, frame_bytes_max: 12 << 10, ..cleaning_options() });
}

/// Likewise, with a scrubber beside it, which must find nothing on a disk that keeps what it was given.
///
/// Panics also when the scrubber reports damage.
pub fn run_script_scrubbed(script: &[u8]) {
    let scrub_bytes_per_second = SCRUB_BYTES_PER_SECOND;
    run(script, Options { scrub_bytes_per_second, clean_below_percent: 0, ..small_options() });
}

/// Options with a cleaner that may copy as fast as it can.
pub(super) fn cleaning_options() -> Options {
    Options { clean_below_percent: 70, clean_bytes_per_second: 1 << 30, ..small_options() }
}

fn run(script: &[u8], options: Options) {
    let mut world = World::new(script.len() as u64, options, SimFaults::none());
    run_steps(&mut world, script);
    world.open_and_check("an open after a clean one");
}

/// Runs a script in a world that was never opened, and crashes.
pub(super) fn run_steps(world: &mut World, script: &[u8]) {
    world.open_and_check("first open");
    go_on(world, script);
}

/// Runs a script in a world that is open, and crashes.
pub(super) fn go_on(world: &mut World, script: &[u8]) {
    let mut runner = Runner::at_the_end_of(world);
    for (number, step) in script.chunks_exact(2).take(STEPS_MAX).enumerate() {
        runner.step(world, step[0], step[1], number);
        world.count_slots();
    }
    runner.crash(world, 5, 0);
}

#[derive(Default)]
pub(super) struct Runner {
    term: u64,
    /// How many have arrived, which names the next one.
    snapshots: u64,
    /// A snapshot whose values get their places, and how far it is ahead of the log.
    arriving: Option<(Snapshot, u64)>,
    /// A checkpoint in progress: where, whose, pushed bytes.
    pushing: Option<(Position, CheckpointOrigin, usize)>,
    /// How many turns are left until the snapshot that arrives is given up.
    give_up_in: Option<u64>,
    /// A snapshot that is durable and waits for its reset.
    pending_reset: Option<Position>,
}

/// Checkpoints are more than one block long, or short, where slots are small.
fn body_bytes(world: &World) -> usize {
    if world.options.slot_bytes < 1 << 20 { 700 } else { 70_000 }
}

impl Runner {
    /// A process that has just found this and leads in a new term.
    pub(super) fn at_the_end_of(world: &mut World) -> Runner {
        let last = world.engine().status().last;
        let term = world.oracle.certain().hard_state.term.max(last.term) + 1;
        Runner { term, ..Runner::default() }
    }

    pub(super) fn step(&mut self, world: &mut World, op: u8, amount: u8, number: usize) {
        let many = u64::from(amount);
        match op % 16 {
            0..=3 => world.append_entries(self.term, many % 5 + 1, usize::from(amount) * 9),
            4 => self.append_one(world, usize::from(amount) * 900),
            5 => self.replace(world, many),
            6 => self.vote(world, many),
            7..=9 => self.turns(world, many % 12 + 1),
            10 => self.turns(world, 60 + many),
            11 => self.begin(world, many),
            12 => self.receive(world, amount),
            13 => self.fill(world, many),
            _ => self.crash(world, amount, number),
        }
    }

    /// Entries after the oldest checkpoint are replaced in a new term.
    fn replace(&mut self, world: &mut World, back: u64) {
        self.term += 1;
        let last = world.engine().status().last.index;
        let newest = world.engine().checkpoints().first().map_or(0, |info| info.at.index);
        let begun = self.pushing.map_or(0, |(at, ..)| at.index.min(last));
        let floor = newest.min(last).max(begun).max(world.cabinet.applied);
        world.append_after(last.saturating_sub(back % 7).max(floor), self.term, back % 3 + 1, 40);
    }

    fn vote(&mut self, world: &mut World, vote: u64) {
        self.term += vote % 2;
        world.append(Some(HardState { term: self.term, vote }), None, Vec::new());
    }

    /// One entry, as large as the slots allow.
    fn append_one(&mut self, world: &mut World, bytes: usize) {
        let bytes = bytes.min(world.engine().entry_bytes_max());
        world.append_entries(self.term, 1, bytes);
    }

    /// Enough to roll over slots and use them again.
    fn fill(&mut self, world: &mut World, amount: u64) {
        for _ in 0..=amount % 8 {
            self.append_one(world, 200_000);
            self.turns(world, 3);
        }
    }

    fn turns(&mut self, world: &mut World, count: u64) {
        for _ in 0..count {
            world.turn().expect("the disk is sound");
            world.clean();
            for event in std::mem::take(&mut world.events) {
                self.take(world, &event);
            }
            self.give_up_if_due(world);
            self.push(world);
            self.reset_if_durable(world);
        }
    }

    fn take(&mut self, world: &mut World, event: &Event) {
        // The disk keeps what it was given.
        assert!(!matches!(event, Event::Damaged(_)), "{event:?}");
        if let Event::ValuesPlaced { id, location } = event {
            self.arriving.iter_mut().for_each(|(snapshot, _)| snapshot.place(*id, *location));
            self.begin_if_arrived(world);
        }
        if matches!(event, Event::CheckpointFailed { .. }) {
            // It was given up.
            self.pushing = None;
        }
    }

    fn is_at_a_checkpoint(&self) -> bool {
        self.arriving.is_some() || self.pushing.is_some() || self.pending_reset.is_some()
    }

    /// A checkpoint of this node. Of large amounts, its file is begun so much later than its state was shown.
    fn begin(&mut self, world: &mut World, amount: u64) {
        if self.is_at_a_checkpoint() {
            return;
        }
        // What waits is on its way: the interesting entries are those of frames in flight.
        world.turn_now().expect("the disk is sound");
        let at = applied(world, amount);
        // Nothing is applied before it has a place.
        let Some(cabinet) = world.cabinet_after(at.index) else { return };
        let slots = show(world, &cabinet);
        world.cabinet = cabinet.clone();
        self.turns(world, amount.saturating_sub(LATE_FROM));
        let is_acknowledged = world.oracle.certain().term_at(at.index) == Some(at.term);
        match self.begin_of(world, (at, CheckpointOrigin::Local), cabinet, slots) {
            Ok(()) => {
                assert!(world.surely_holds(at), "a checkpoint at {at} passes what is durable");
            }
            Err(CheckpointError::NotDurable { .. }) => {
                // Until the frame that replaces an entry is durable, it depends on the device which one there is.
                let is_settled = is_acknowledged && !world.oracle.is_being_replaced(at.index);
                assert!(!is_settled, "{at} is acknowledged and not durable");
            }
            Err(_) => {}
        }
    }

    fn begin_of(
        &mut self,
        world: &mut World,
        (at, origin): (Position, CheckpointOrigin),
        cabinet: Cabinet,
        slots: ValueSlots,
    ) -> Result<(), CheckpointError> {
        world.engine().checkpoint_begin(at, origin, 1 << 16, slots)?;
        world.cabinets.insert(at.index, cabinet);
        self.pushing = Some((at, origin, 0));
        Ok(())
    }

    /// A snapshot from a peer. Of large amounts, it is given up after some turns, wherever it is then.
    fn receive(&mut self, world: &mut World, amount: u8) {
        if self.is_at_a_checkpoint() {
            return;
        }
        self.snapshots += 1;
        let name = Position { index: self.snapshots, term: self.term };
        let (count, bytes) = (u64::from(amount % 5) * 3, usize::from(amount) * 61);
        let snapshot = Snapshot::queue(world, name, count, bytes);
        self.arriving = Some((snapshot, u64::from(amount % 9 + 1)));
        self.give_up_in = (amount >= GIVEN_UP_FROM).then_some(u64::from(amount % 32));
        self.begin_if_arrived(world);
    }

    fn begin_if_arrived(&mut self, world: &mut World) {
        let arrived = self.arriving.take_if(|(snapshot, _)| snapshot.is_placed());
        let Some((snapshot, ahead)) = arrived else { return };
        let index = world.engine().status().last.index + ahead;
        let at = Position { index, term: self.term };
        let cabinet = snapshot.into_cabinet(index);
        let slots = show(world, &cabinet);
        if self.begin_of(world, (at, CheckpointOrigin::Installed), cabinet, slots).is_err() {
            world.engine().values_dropped();
        }
    }

    fn give_up_if_due(&mut self, world: &mut World) {
        match &mut self.give_up_in {
            Some(0) => {
                (self.give_up_in, self.arriving) = (None, None);
                world.engine().checkpoint_abort(CheckpointOrigin::Installed);
                world.engine().values_dropped();
            }
            Some(turns) => *turns -= 1,
            None => {}
        }
    }

    fn push(&mut self, world: &mut World) {
        if let Some((at, origin, mut pushed)) = self.pushing {
            let bytes = body_bytes(world);
            let is_complete =
                pushed == bytes || world.checkpoint_push(at, origin, &mut pushed, bytes);
            self.pushing = Some((at, origin, pushed));
            if is_complete && world.checkpoint.is_some_and(|info| info.at == at) {
                (self.pushing, self.give_up_in) = (None, None);
                let is_installed = origin == CheckpointOrigin::Installed;
                self.pending_reset = is_installed.then_some(at);
            }
        }
    }

    /// The log is reset to an installed snapshot as soon as that is durable.
    fn reset_if_durable(&mut self, world: &mut World) {
        if let Some(at) = self.pending_reset.take() {
            world.append(None, Some(at), Vec::new());
            world.cabinet = world.cabinets[&at.index].clone();
        }
    }

    /// Cuts the power, or ends the process alone. What was not synced meets a fate drawn from `chance`, or all of it the same.
    pub(super) fn crash(&mut self, world: &mut World, chance: u8, number: usize) {
        let mut state = u64::from(chance) << 8 | number as u64;
        if chance % 8 == 7 {
            world.disk.kill();
        } else {
            world.disk.crash_with(|unsynced| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                fate(chance, state >> 33, unsynced)
            });
        }
        self.reopen(world, "an open after a crash");
    }

    /// Opens, and forgets what the process was about to do.
    pub(super) fn reopen(&mut self, world: &mut World, what: &str) {
        world.open_and_check(what);
        world.check_values(what);
        *self = Runner { term: self.term, snapshots: self.snapshots, ..Runner::default() };
        let status = world.engine().status();
        self.term = self.term.max(status.last.term) + 1;
    }
}

/// What a checkpoint of this state states.
fn show(world: &mut World, cabinet: &Cabinet) -> ValueSlots {
    world.engine().value_slots(cabinet.slots().into_iter().collect())
}

/// Where a state machine may stand: at any entry of the log, durable here or not, since others may have committed it.
fn applied(world: &World, back: u64) -> Position {
    let newest = world.oracle.newest();
    let last = newest.last().index;
    let index = last.saturating_sub(back % 4).max(newest.start.index).max(world.cabinet.applied);
    let term = newest.term_at(index).expect("the log reaches from its start to its end");
    Position { index, term }
}

fn fate(chance: u8, draw: u64, unsynced: &Unsynced) -> Fate {
    let is_sector = matches!(unsynced, Unsynced::Sector { .. });
    match (chance % 8, draw % 5) {
        (0, _) | (2.., 0 | 1) => Fate::New,
        (1, _) | (_, 2) => Fate::Old,
        (_, 3) if is_sector => Fate::Garbage,
        (_, 4) if is_sector => Fate::Zero,
        _ => Fate::Old,
    }
}
