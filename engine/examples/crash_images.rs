//! Crash images by the million: scenarios, every moment of them, every way to lose power there.
//!
//! ```text
//! crash_images --images 5000000 --seed 1      until so many were opened and checked
//! crash_images --replay SCENARIO:POINT:CHOICE one of them again
//! ```
//!
//! Ends with 1 and the image to replay if one is not opened as it must be. Needs the feature `simulated` and a
//! profile that unwinds, such as `test`: a power cut is a panic that is caught.

#![expect(clippy::print_stdout, reason = "it is a command")]
#![expect(clippy::disallowed_methods, reason = "it tells how long it took")]

use std::process::ExitCode;
use std::time::Instant;

use engine::fuzzing::{Choice, Tally, crash_images, replay};

const USAGE: &str = "usage: crash_images [--images N] [--seed S] | --replay SCENARIO:POINT:CHOICE";
/// No scenario takes more than this, so that there are many of them.
const IMAGES_PER_SCENARIO_MAX: u64 = 100_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut images, mut seed) = (100_000, 1);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return usage() };
        match (name.as_str(), value.parse()) {
            ("--images", Ok(number)) => images = number,
            ("--seed", Ok(number)) => seed = number,
            ("--replay", _) => return replay_one(value),
            _ => return usage(),
        }
    }
    explore(images, seed)
}

fn usage() -> ExitCode {
    println!("{USAGE}");
    ExitCode::from(2)
}

fn explore(images: u64, seed: u64) -> ExitCode {
    let (begun, mut said) = (Instant::now(), 0);
    let mut tally = Tally::default();
    while tally.images < images {
        let scenario = seed.wrapping_mul(1_000_000) + tally.scenarios;
        let rest = (images - tally.images).min(IMAGES_PER_SCENARIO_MAX);
        if let Err(difference) = crash_images(scenario, rest, &mut tally) {
            println!("a difference: {}", difference.what);
            let choice = difference.choice.map_or("none".to_owned(), |choice| choice.to_string());
            println!("replay: --replay {scenario}:{}:{choice}", difference.point);
            print(&tally, begun);
            return ExitCode::FAILURE;
        }
        if begun.elapsed().as_secs() / 10 > said {
            said = begun.elapsed().as_secs() / 10;
            print(&tally, begun);
        }
    }
    print(&tally, begun);
    ExitCode::SUCCESS
}

fn print(tally: &Tally, begun: Instant) {
    let Tally { scenarios, points, points_in_open, points_exhausted, images, .. } = tally;
    let Tally { whole, torn, replaced, cut_in_open, values_read, gone_on, .. } = tally;
    println!(
        "{images} images of {points} moments ({points_exhausted} exhausted, {points_in_open} within an open) of \
         {scenarios} scenarios in {} s",
        begun.elapsed().as_secs()
    );
    let Tally { scenarios_cleaned, slots_cleaned, cleaned_reused, values_reused, .. } = tally;
    println!(
        "  {whole} whole, {torn} with a torn tail cut, {replaced} replaced by a snapshot; {cut_in_open} cut again in \
         their open, {values_read} with every value read, {gone_on} appended to"
    );
    println!(
        "  {slots_cleaned} slots emptied by the cleaner in {scenarios_cleaned} scenarios, {cleaned_reused} of them \
         opened anew; {values_reused} segments of values replaced"
    );
}

fn replay_one(which: &str) -> ExitCode {
    let mut parts = which.splitn(3, ':');
    let scenario = parts.next().and_then(|part| part.parse().ok());
    let point = parts.next().and_then(|part| part.parse().ok());
    let choice = parts.next().and_then(choice_of);
    let (Some(scenario), Some(point), Some(choice)) = (scenario, point, choice) else {
        return usage();
    };
    match replay(scenario, point, choice, &mut |line| println!("{line}")) {
        Ok(()) => {
            println!("it is opened as it must be");
            ExitCode::SUCCESS
        }
        Err(difference) => {
            println!("the scenario itself goes wrong: {}", difference.what);
            ExitCode::FAILURE
        }
    }
}

fn choice_of(text: &str) -> Option<Choice> {
    let (kind, number) = text.split_once(':')?;
    let number = u64::from_str_radix(number, 16).ok()?;
    match kind {
        "subset" => Some(Choice::Subset(number)),
        "draw" => Some(Choice::Draw(number)),
        _ => None,
    }
}
