//! Runs seeds of the simulator: `holdfast-sim --seed 1 --seeds 1000 --profile mixed`.

use std::cell::Cell;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use tests::sim::{Failure, Mutant, Options, Profile, Summary, run};

/// Runs a simulated cluster from seeds, and says what it did. Exit code 1 names the seed to replay.
#[derive(Clone, Debug, Parser)]
#[command(name = "holdfast-sim", version)]
struct Args {
    /// The first seed.
    #[arg(long)]
    seed: u64,
    /// How many seeds from there on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// What may happen: calm, crash, partition, disk, chaos, or mixed (each seed is one of the others).
    #[arg(long, default_value = "mixed", value_parser = profile)]
    profile: Profile,
    /// Print the trace's hash of every seed.
    #[arg(long)]
    trace_hash: bool,
    /// Print every event on standard error.
    #[arg(long)]
    trace: bool,
    /// Run with a deliberate bug; `list` names them. Exit code 0 then means that no seed has caught it.
    #[arg(long)]
    mutant: Option<String>,
    /// Seeds at once; each of them runs in one thread.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = Profile::ALL.iter().map(|(name, _)| *name).collect();
        format!("there is no such profile; choose one of {}", known.join(", "))
    })
}

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mutant = match chosen_mutant(&args) {
        Ok(mutant) => mutant,
        Err(code) => return code,
    };
    exit_on_panic(&args);
    #[expect(clippy::disallowed_methods, reason = "how long the run took is for people")]
    let began = Instant::now();
    let (summary, is_ok) = run_all(&args, mutant);
    say(&format!("{summary}"));
    let seconds = began.elapsed().as_secs_f64();
    let seeds = summary.seeds();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = seeds as f64 / seconds.max(0.001);
    say(&format!("took       {seconds:.1} s, {rate:.1} seeds/s on {} threads", args.threads));
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The mutant that was asked for, or the exit code after saying which there are.
fn chosen_mutant(args: &Args) -> Result<Option<Mutant>, ExitCode> {
    let Some(name) = &args.mutant else { return Ok(None) };
    if let Some(mutant) = Mutant::by_name(name) {
        return Ok(Some(mutant));
    }
    for mutant in Mutant::all() {
        say(&mutant.name());
    }
    if name == "list" {
        return Err(ExitCode::SUCCESS);
    }
    say(&format!(
        "there is no mutant {name} in this build; those of the core need the feature `mutants`"
    ));
    Err(ExitCode::from(2))
}

fn run_all(args: &Args, mutant: Option<Mutant>) -> (Summary, bool) {
    let next = AtomicU64::new(0);
    let is_ok = AtomicBool::new(true);
    let work = || {
        let mut summary = Summary::default();
        while args.keep_going || is_ok.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= args.seeds {
                break;
            }
            let seed = args.seed.wrapping_add(at);
            if !run_one(args, mutant, seed, &mut summary) {
                is_ok.store(false, Ordering::Relaxed);
            }
        }
        summary
    };
    let mut total = Summary::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(summary) => total.merge(&summary),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    (total, is_ok.into_inner())
}

fn run_one(args: &Args, mutant: Option<Mutant>, seed: u64, summary: &mut Summary) -> bool {
    SEED.set(Some(seed));
    let (report, result) = run(Options { seed, profile: args.profile, trace: args.trace, mutant });
    summary.add(&report, result.is_ok());
    if args.trace_hash {
        say(&format!("seed {seed} trace {:032x}", report.trace_hash));
    }
    match result {
        Ok(()) => true,
        Err(failure) => {
            complain(args, seed, &failure);
            false
        }
    }
}

fn complain(args: &Args, seed: u64, Failure { at_us, reason }: &Failure) {
    let seconds = at_us / 1_000_000;
    let micros = at_us % 1_000_000;
    say(&format!("seed {seed} failed at {seconds}.{micros:06} s: {reason}"));
    say(&replay(args, seed));
}

fn replay(args: &Args, seed: u64) -> String {
    let mutant = args.mutant.as_ref().map(|name| format!(" --mutant {name}")).unwrap_or_default();
    format!("replay: holdfast-sim --seed {seed} --profile {} --trace{mutant}", args.profile.name())
}

/// An assertion of the product is a failed seed like any other: named, with the command that replays it.
fn exit_on_panic(args: &Args) {
    let args = args.clone();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(seed) = SEED.get() {
            say(&format!("seed {seed} failed: {panic}\n{}", replay(&args, seed)));
        } else {
            say(&panic.to_string());
        }
        std::process::exit(1);
    }));
}

/// One text on standard output. Whoever closed it does not want it.
fn say(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").ok();
}
