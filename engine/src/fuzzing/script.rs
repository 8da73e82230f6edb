//! A script of work and crashes: two bytes a step. Whatever it says, an open finds what was acknowledged.

use crate::error::CheckpointError;
use crate::io::simulated::{Fate, SimFaults, Unsynced};
use crate::options::Options;
use crate::types::{CheckpointOrigin, Event, HardState, Position};

use super::world::{World, small_options};

// A checkpoint holds what is committed: a caller never replaces an entry that one holds or is about to.

/// More steps than this are not run.
pub(super) const STEPS_MAX: usize = 48;
/// A piece takes as long as a dozen frames.
const SCRUB_BYTES_PER_SECOND: u64 = 256 << 20;

/// Runs a script to its end, crashes, and opens once more.
///
/// Panics when an acknowledged write is lost, anything else is found than a prefix of what was appended, or an open of
/// a disk that has lost nothing durable is refused.
pub fn run_script(script: &[u8]) {
    run(script, small_options());
}

/// Likewise, with a scrubber beside it, which must find nothing on a disk that keeps what it was given.
///
/// Panics also when the scrubber reports damage.
pub fn run_script_scrubbed(script: &[u8]) {
    run(script, Options { scrub_bytes_per_second: SCRUB_BYTES_PER_SECOND, ..small_options() });
}

fn run(script: &[u8], options: Options) {
    let mut world = World::new(script.len() as u64, options, SimFaults::none());
    run_steps(&mut world, script);
    world.open_and_check("an open after a clean one");
}

/// Runs a script in a world that was never opened, and crashes.
pub(super) fn run_steps(world: &mut World, script: &[u8]) {
    let mut runner = Runner::default();
    world.open_and_check("first open");
    for (number, step) in script.chunks_exact(2).take(STEPS_MAX).enumerate() {
        runner.step(world, step[0], step[1], number);
    }
    runner.crash(world, 5, 0);
}

pub(super) struct Runner {
    term: u64,
    /// A checkpoint in progress: where, whose, pushed bytes.
    pushing: Option<(Position, CheckpointOrigin, usize)>,
    /// A snapshot that is durable and waits for its reset.
    pending_reset: Option<Position>,
}

/// Checkpoints are more than one block long, or short, where slots are small.
fn body_bytes(world: &World) -> usize {
    if world.options.slot_bytes < 1 << 20 { 700 } else { 70_000 }
}

impl Default for Runner {
    fn default() -> Runner {
        Runner { term: 1, pushing: None, pending_reset: None }
    }
}

impl Runner {
    pub(super) fn step(&mut self, world: &mut World, op: u8, amount: u8, number: usize) {
        let many = u64::from(amount);
        match op % 16 {
            0..=3 => world.append_entries(self.term, many % 5 + 1, usize::from(amount) * 9),
            4 => self.append_one(world, usize::from(amount) * 900),
            5 => self.replace(world, many),
            6 => self.vote(world, many),
            7..=9 => self.turns(world, many % 12 + 1),
            10 => self.turns(world, 60 + many),
            11 => self.begin(world, CheckpointOrigin::Local, many),
            12 => self.begin(world, CheckpointOrigin::Installed, many),
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
        let floor = newest.min(last).max(begun).max(world.oracle.newest().start.index);
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
            let is_damage = |event: &Event| matches!(event, Event::Damaged(_));
            assert!(!world.events.iter().any(is_damage), "{:?}", world.events);
            world.events.clear();
            self.push(world);
            self.reset_if_durable(world);
        }
    }

    fn begin(&mut self, world: &mut World, origin: CheckpointOrigin, ahead: u64) {
        if self.pushing.is_some() || self.pending_reset.is_some() {
            return;
        }
        let at = match origin {
            CheckpointOrigin::Local => {
                // What waits is on its way: the interesting entries are those of frames in flight.
                world.turn_now().expect("the disk is sound");
                applied(world, ahead)
            }
            CheckpointOrigin::Installed => {
                let last = world.engine().status().last.index;
                Position { index: last + ahead % 9 + 1, term: self.term }
            }
        };
        // A snapshot from a peer names no value of this log.
        let values = match origin {
            CheckpointOrigin::Local => world.gather_values(at.index),
            CheckpointOrigin::Installed => world.gather_none(),
        };
        let is_acknowledged = world.oracle.certain().term_at(at.index) == Some(at.term);
        match world.checkpoint_begin(at, origin) {
            Ok(()) if origin == CheckpointOrigin::Local => {
                assert!(world.surely_holds(at), "a checkpoint at {at} passes what is durable");
                world.values.insert(at.index, values);
                self.pushing = Some((at, origin, 0));
            }
            Ok(()) => {
                world.values.insert(at.index, values);
                self.pushing = Some((at, origin, 0));
            }
            Err(CheckpointError::NotDurable { .. }) => {
                // Until the frame that replaces an entry is durable, it depends on the device which one there is.
                let is_settled = is_acknowledged && !world.oracle.is_being_replaced(at.index);
                assert!(!is_settled, "{at} is acknowledged and not durable");
            }
            Err(_) => {}
        }
    }

    fn push(&mut self, world: &mut World) {
        if let Some((at, origin, mut pushed)) = self.pushing {
            let bytes = body_bytes(world);
            let is_complete =
                pushed == bytes || world.checkpoint_push(at, origin, &mut pushed, bytes);
            self.pushing = Some((at, origin, pushed));
            if is_complete && world.checkpoint.is_some_and(|info| info.at == at) {
                self.pushing = None;
                let is_installed = origin == CheckpointOrigin::Installed;
                self.pending_reset = is_installed.then_some(at);
            }
        }
    }

    /// The log is reset to an installed snapshot as soon as that is durable.
    fn reset_if_durable(&mut self, world: &mut World) {
        if let Some(at) = self.pending_reset.take() {
            world.append(None, Some(at), Vec::new());
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
        self.pushing = None;
        self.pending_reset = None;
        let status = world.engine().status();
        self.term = self.term.max(status.last.term) + 1;
    }
}

/// Where a state machine may stand: at any entry of the log, durable here or not, since others may have committed it.
fn applied(world: &World, back: u64) -> Position {
    let newest = world.oracle.newest();
    let index = newest.last().index.saturating_sub(back % 4).max(newest.start.index);
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
