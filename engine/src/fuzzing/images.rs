//! Crash images: a scripted scenario is run once, and at each of its moments, also within an open, the power is cut in
//! every way it can be. Each image is opened and checked.
//!
//! Up to [`EXHAUSTIVE_MAX`] un-synced sectors, sizes and names that differ from what is durable, every subset of them is
//! an image; beyond that, and for sectors that turn into garbage or zeros, a seeded sample.
//!
//! What is checked, by the numbers of the invariants:
//!
//! | | an image holds | where |
//! |---|---|---|
//! | I4 | whatever was acknowledged | [`Oracle::recovered`](super::Oracle::recovered) |
//! | I5 | a prefix of what was appended, hard state with it | the same |
//! | I6 | nothing of an earlier life of a slot: payloads tell their write, index and term | the same |
//! | I8 | of every entry after the checkpoint its place, as a full replay gives it | `World::check_values` |
//! | I9 | every value of each kept checkpoint where that has it, moved by the cleaner or not | the same |
//! | I10 | the same again after a power cut within the open | [`Explorer::cut_in_open`] |
//! | I9, I8 | the same again after slots that were free were used anew | [`Explorer::go_on`] |
//!
//! I1 to I3 are asserted by `log.rs` and checked frame by frame of each recovery; I7 and I11 are tests of their own,
//! `damage` and `faults`.

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::io::simulated::{Fate, SimFaults, Unsynced};
use crate::opening::inspect::{Dumped, dump};
use crate::options::Options;
use crate::random::Random;
use crate::report::Recovered;

use super::census::Census;
use super::points::{Point, Recorder};
use super::script::{cleaning_options, go_on, run_steps};
use super::world::World;

/// All subsets of this many are tried.
const EXHAUSTIVE_MAX: usize = 12;
/// Draws at a moment where not all subsets are tried, and where they are.
const DRAWS: u64 = 256;
const DRAWS_BESIDE_ALL: u64 = 24;
/// One image in so many is opened again after a power cut in the middle of its open, one has its values read, and one
/// is appended to.
const CUT_IN_OPEN_EVERY: u64 = 16;
const VALUES_EVERY: u64 = 8;
const GO_ON_EVERY: u64 = 64;
/// Fills slots, with a checkpoint between.
const USES_SLOTS_ANEW: [u8; 8] = [13, 7, 11, 0, 10, 0, 13, 7];

/// What becomes of everything that was not durable at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Of what differs, the n-th in order survives if bit n is set.
    Subset(u64),
    /// Drawn from this seed: garbage, zeros and older writes, too.
    Draw(u64),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Subset(mask) => write!(f, "subset:{mask:x}"),
            Choice::Draw(seed) => write!(f, "draw:{seed:x}"),
        }
    }
}

/// What has been tried, and how it ended.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Scenarios.
    pub scenarios: u64,
    /// Moments of them.
    pub points: u64,
    /// Moments within an open.
    pub points_in_open: u64,
    /// Moments of which every subset was tried.
    pub points_exhausted: u64,
    /// Images that were opened.
    pub images: u64,
    /// Images of which the log ended where a frame did.
    pub whole: u64,
    /// Images of which a torn tail was cut.
    pub torn: u64,
    /// Images in which a snapshot had replaced the log.
    pub replaced: u64,
    /// Images that were opened once more after a power cut in the middle of their open.
    pub cut_in_open: u64,
    /// Images of which every value was read.
    pub values_read: u64,
    /// Images that were appended to, and opened again.
    pub gone_on: u64,
    /// Scenarios in which the cleaner has emptied a slot.
    pub scenarios_cleaned: u64,
    /// Slots that it has emptied in the course of scenarios.
    pub slots_cleaned: u64,
    /// Those of them that were opened anew.
    pub cleaned_reused: u64,
    /// Slots that were opened anew after they had held a segment of values.
    pub values_reused: u64,
}

/// An image that was not opened as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The scenario.
    pub scenario: u64,
    /// Its moment.
    pub point: usize,
    /// What became of the un-synced sectors; nothing if the scenario itself went wrong.
    pub choice: Option<Choice>,
    /// What is wrong.
    pub what: String,
}

/// Runs a scenario and tries its images until there are `images_max` of them, from one of its moments on, and then from
/// the first; counts as it goes.
pub fn crash_images(scenario: u64, images_max: u64, tally: &mut Tally) -> Result<(), Difference> {
    let (points, census) = points_of(scenario)?;
    tally.scenarios += 1;
    census.add_to(tally);
    let mut explorer = Explorer::new(scenario);
    let end = tally.images.saturating_add(images_max);
    let begin = usize::try_from(scenario % 1_009).expect("few") * 13 % points.len();
    let numbered = points.iter().enumerate();
    for (number, point) in numbered.clone().skip(begin).chain(numbered.take(begin)) {
        if tally.images >= end {
            break;
        }
        explorer.explore(number, point, tally)?;
    }
    Ok(())
}

/// Shows what one image holds and what must be found in it, then tries it again.
///
/// Panics as it did.
pub fn replay(
    scenario: u64,
    point: usize,
    choice: Choice,
    show: &mut dyn FnMut(String),
) -> Result<(), Difference> {
    let (points, _) = points_of(scenario)?;
    let point = points.get(point).expect("the scenario has this moment");
    let mut explorer = Explorer::new(scenario);
    let differing = differing(point);
    explorer.world.disk.restore(&point.image);
    let items = explorer.world.disk.unsynced();
    for at in &differing {
        show(format!("differs: {:?}", items[*at]));
    }
    explorer.cut_power(point, &differing, choice);
    point.truth.oracle.describe(show);
    show(format!("in an open: {}, checkpoint: {:?}", point.in_open, point.truth.checkpoint));
    let shown = dump(explorer.world.disk.handle(), Path::new("data"), &mut |dumped| {
        show(match dumped {
            Dumped::Record(record) => format!("  {} {}", record.kind, record.at),
            Dumped::Meta(_)
            | Dumped::Checkpoint(..)
            | Dumped::NoSegment(..)
            | Dumped::Segment(_)
            | Dumped::Frame(_)
            | Dumped::Hole(_)
            | Dumped::End { .. } => format!("{dumped:?}"),
        });
        ControlFlow::Continue(())
    });
    if let Err(error) = shown {
        show(error.to_string());
    }
    explorer.try_image(point, &differing, choice, 0, &mut Tally::default());
    Ok(())
}

/// Slots so small that a script rolls over them and uses them again. In three scenarios of eight there is a cleaner.
fn options(scenario: u64) -> Options {
    Options {
        slot_bytes: 64 << 10,
        frame_bytes_max: 12 << 10,
        further_frame_bytes: 1 << 10,
        slots_ready: 1 + usize::from(scenario.is_multiple_of(5)),
        clean_below_percent: if matches!(scenario % 8, 3 | 4 | 7) { 70 } else { 0 },
        ..cleaning_options()
    }
}

/// Any steps; of three scenarios in four half of them or more are such that slots are filled and freed by checkpoints,
/// snapshots arrive, or slots are cleaned and used anew.
fn script_of(scenario: u64) -> Vec<u8> {
    let (steps, chosen_below, chosen): (_, _, &[u8]) = match scenario % 4 {
        0 => (30, 128, &[2, 12, 10, 8]),
        1 => (30, 0, &[0]),
        2 => (30, 128, &[11, 10, 13, 2]),
        _ => (45, 208, &[13, 11, 10]),
    };
    let mut random = Random::new([scenario, 0x1A6E]);
    let mut script = Vec::new();
    for step in 0..steps {
        let [op, amount, chance, ..] = random.nonzero().to_le_bytes();
        let is_chosen = chance < chosen_below;
        script.push(if is_chosen { chosen[step % chosen.len()] } else { op });
        script.push(amount);
    }
    script
}

fn points_of(scenario: u64) -> Result<(Vec<Point>, Census), Difference> {
    let script = script_of(scenario);
    let ran = catch_unwind(|| {
        let mut world = World::new(scenario, options(scenario), SimFaults::none());
        let recorder = Recorder::default();
        world.recorder = Some(recorder.clone());
        run_steps(&mut world, &script);
        (recorder.take(), world.census)
    });
    ran.map_err(|panic| difference(scenario, 0, None, panic.as_ref()))
}

/// What differs from its durable state, by its place among [`Unsynced`] items.
fn differing(point: &Point) -> Vec<usize> {
    let disk = crate::io::simulated::SimDisk::new(0, SimFaults::none());
    disk.restore(&point.image);
    let items = disk.unsynced();
    let differs = |item: &Unsynced| match item {
        Unsynced::Sector { changes, versions, .. } => *changes || *versions > 1,
        Unsynced::Size { .. } | Unsynced::Entry { .. } => true,
    };
    items.iter().enumerate().filter(|(_, item)| differs(item)).map(|(at, _)| at).collect()
}

struct Explorer {
    scenario: u64,
    world: World,
}

impl Explorer {
    fn new(scenario: u64) -> Explorer {
        let world = World::new(scenario ^ 0xE8, options(scenario), SimFaults::none());
        Explorer { scenario, world }
    }

    fn explore(
        &mut self,
        number: usize,
        point: &Point,
        tally: &mut Tally,
    ) -> Result<(), Difference> {
        let differing = differing(point);
        tally.points += 1;
        tally.points_in_open += u64::from(point.in_open);
        let is_small = differing.len() <= EXHAUSTIVE_MAX;
        tally.points_exhausted += u64::from(is_small);
        let subsets = if is_small { 1 << differing.len() } else { 0 };
        let draws = match differing.len() {
            0 => 0,
            _ if is_small => DRAWS_BESIDE_ALL,
            _ => DRAWS,
        };
        let seed = self.scenario.rotate_left(32) ^ (number as u64) << 16;
        let choices = (0..subsets).map(Choice::Subset);
        for choice in choices.chain((0..draws).map(|draw| Choice::Draw(seed ^ draw))) {
            let count = tally.images;
            catch_unwind(AssertUnwindSafe(|| {
                self.try_image(point, &differing, choice, count, tally);
            }))
            .map_err(|panic| difference(self.scenario, number, Some(choice), panic.as_ref()))?;
        }
        Ok(())
    }

    /// `count` decides what is done beyond opening the image.
    fn try_image(
        &mut self,
        point: &Point,
        differing: &[usize],
        choice: Choice,
        count: u64,
        tally: &mut Tally,
    ) {
        self.cut_power(point, differing, choice);
        let found = self.world.open_and_check("the image");
        tally.images += 1;
        let report = &found.report;
        assert!(report.quarantined.is_empty(), "a power cut damages no checkpoint: {report}");
        match (report.was_reset, report.torn) {
            (true, _) => tally.replaced += 1,
            (false, Some(_)) => tally.torn += 1,
            (false, None) => tally.whole += 1,
        }
        if count.is_multiple_of(VALUES_EVERY) {
            self.world.check_values("the image's values");
            tally.values_read += 1;
        }
        if count.is_multiple_of(CUT_IN_OPEN_EVERY) {
            self.cut_in_open(point, differing, choice, count, &found);
            tally.cut_in_open += 1;
        }
        if count.is_multiple_of(GO_ON_EVERY) {
            self.go_on();
            tally.gone_on += 1;
        }
    }

    fn cut_power(&mut self, point: &Point, differing: &[usize], choice: Choice) {
        self.world.disk.restore(&point.image);
        self.world.disk.reseed(1);
        self.world.believe(&point.truth);
        let (mut at, mut next) = (0, 0);
        let mut fates = Fates::of(choice);
        self.world.disk.crash_with(|item| {
            let differs = differing.get(next) == Some(&at);
            at += 1;
            if !differs {
                return Fate::New;
            }
            next += 1;
            fates.next(item)
        });
    }

    /// The same image loses power once more while it is opened, and must give the same after it.
    fn cut_in_open(
        &mut self,
        point: &Point,
        differing: &[usize],
        choice: Choice,
        count: u64,
        found: &Recovered,
    ) {
        self.cut_power(point, differing, choice);
        let operations = count / CUT_IN_OPEN_EVERY % 24;
        self.world.with_power_for(operations, |world| {
            world.try_open().expect("an image that can be opened");
        });
        let again = self.world.open_and_check("the image after a power cut in its open");
        assert_eq!(again.last, found.last);
        assert_eq!(again.terms, found.terms);
        assert_eq!(again.hard_state, found.hard_state);
        assert_eq!(again.checkpoint, found.checkpoint);
        self.world.check_values("the image's values after a power cut in its open");
    }

    /// The log goes on from the image; beside a cleaner, until what is free now is used anew.
    fn go_on(&mut self) {
        let world = &mut self.world;
        if world.options.clean_below_percent > 0 {
            return go_on(world, &USES_SLOTS_ANEW);
        }
        let term = world.oracle.certain().hard_state.term.max(world.engine().status().last.term);
        world.append_entries(term + 1, 2, 700);
        world.settle();
        world.append_entries(term + 1, 1, 9_000);
        world.turn_now().expect("the disk is sound");
        world.disk.crash();
        world.open_and_check("the image after more work");
        world.check_values("the values after more work");
    }
}

/// One fate after the other, for what differs.
enum Fates {
    Subset(u64),
    Draw { style: u64, random: Random, last: Fate },
}

impl Fates {
    fn of(choice: Choice) -> Fates {
        match choice {
            Choice::Subset(mask) => Fates::Subset(mask),
            Choice::Draw(seed) => {
                let mut random = Random::new([seed, 0xFA7E]);
                Fates::Draw { style: random.nonzero() % 8, random, last: Fate::New }
            }
        }
    }

    fn next(&mut self, item: &Unsynced) -> Fate {
        match self {
            Fates::Subset(mask) => {
                let survives = *mask & 1 == 1;
                *mask >>= 1;
                if survives { Fate::New } else { Fate::Old }
            }
            Fates::Draw { style, random, last } => {
                let draw = random.nonzero() >> 8;
                *last = drawn(*style, draw % 16, *last);
                match item {
                    Unsynced::Sector { .. } => *last,
                    Unsynced::Size { .. } | Unsynced::Entry { .. } if *last == Fate::New => {
                        Fate::New
                    }
                    Unsynced::Size { .. } | Unsynced::Entry { .. } => Fate::Old,
                }
            }
        }
    }
}

/// The fate of one sector after `last`, by one of several habits of devices; `draw` is below 16.
fn drawn(style: u64, draw: u64, last: Fate) -> Fate {
    let survives = |is_so| if is_so { Fate::New } else { Fate::Old };
    match style {
        // Runs of sectors: frames that are there whole or not at all, torn where a run ends.
        3 | 4 if draw > 2 => last,
        // Few are lost; few survive; half of them do.
        0 => survives(draw > 0),
        1 | 3 => survives(draw == 0),
        2 => survives(draw < 8),
        4 if draw < 2 => Fate::Zero,
        4 => Fate::New,
        _ => match draw {
            0..6 => Fate::New,
            6..10 => Fate::Old,
            10..12 => Fate::Garbage,
            12..14 => Fate::Zero,
            _ => Fate::Version(usize::from(draw == 15)),
        },
    }
}

fn difference(
    scenario: u64,
    point: usize,
    choice: Option<Choice>,
    panic: &(dyn std::any::Any + Send),
) -> Difference {
    let what = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
    let what = what.unwrap_or_else(|| "it panicked".to_owned());
    Difference { scenario, point, choice, what }
}
