//! A line on the terminal while the run goes on, and the longest gap in which nothing got done.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use crate::lane::Shared;
use crate::pace::Window;

/// How often the counter is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many looks make a new line.
const LOOKS_PER_LINE: u64 = 10;

/// Shows how many keys a phase before or after the run has done. Nothing is shown where there is no terminal.
pub async fn show_keys(shared: Arc<Shared>, what: &'static str, keys: u64) {
    let bar = ProgressBar::new(keys);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} keys");
    bar.set_style(style.expect("the template is well formed"));
    bar.set_message(what);
    let before = shared.ops.load(Ordering::Relaxed);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Ends with its task, which the phase aborts when it is done.
    loop {
        look.tick().await;
        bar.set_position(shared.ops.load(Ordering::Relaxed) - before);
    }
}

/// When each tenth of `keys` was done, in nanoseconds.
pub async fn tenths(shared: Arc<Shared>, keys: u64) -> Vec<u64> {
    let mut times = Vec::new();
    let mut look = interval(LOOK_EVERY);
    while times.len() < 10 {
        look.tick().await;
        let (now, done) = (shared.clock.now_ns(), shared.ops.load(Ordering::Relaxed));
        while times.len() < 10 && done >= keys * (times.len() as u64 + 1) / 10 {
            times.push(now);
        }
    }
    times
}

/// Watches the run until the end of `window`. Answers the longest time within it without an operation done, in
/// nanoseconds.
pub async fn watch(shared: Arc<Shared>, window: Window) -> u64 {
    let bar = ProgressBar::new_spinner();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut gaps, mut line) = (Gaps::default(), Line::default());
    loop {
        look.tick().await;
        let (now, ops) = (shared.clock.now_ns(), shared.ops.load(Ordering::Relaxed));
        if window.contains(now) {
            gaps.look(now, ops);
        }
        if now >= window.until {
            bar.finish_and_clear();
            return gaps.longest;
        }
        if let Some(text) = line.look(now, ops, window) {
            bar.set_message(text);
            bar.tick();
        }
    }
}

/// The longest time between two looks at which the count had grown.
#[derive(Debug, Default)]
struct Gaps {
    last: Option<(u64, u64)>,
    longest: u64,
}

impl Gaps {
    fn look(&mut self, now: u64, ops: u64) {
        let (since, before) = *self.last.get_or_insert((now, ops));
        self.longest = self.longest.max(now - since);
        if ops != before {
            self.last = Some((now, ops));
        }
    }
}

/// The text of the line, once in a while.
#[derive(Debug, Default)]
struct Line {
    looks: u64,
    last: (u64, u64),
}

impl Line {
    fn look(&mut self, now: u64, ops: u64, window: Window) -> Option<String> {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS_PER_LINE) {
            return None;
        }
        let (since, before) = std::mem::replace(&mut self.last, (now, ops));
        let rate = u128::from(ops - before) * 1_000_000_000 / u128::from((now - since).max(1));
        let phase = if now < window.from { "warming up" } else { "measuring" };
        let left = (window.until - now).div_ceil(1_000_000_000);
        Some(format!("{phase}: {rate} ops/s, {left} s left"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_reaches_from_the_last_growth_to_the_look_that_saw_the_next() {
        let mut gaps = Gaps::default();
        for (now, ops) in [(10, 0), (20, 5), (30, 5), (40, 5), (50, 9), (60, 10)] {
            gaps.look(now, ops);
        }
        assert_eq!(gaps.longest, 30);
    }

    #[test]
    fn a_gap_that_does_not_end_counts() {
        let mut gaps = Gaps::default();
        for (now, ops) in [(10, 0), (20, 5), (30, 5), (90, 5)] {
            gaps.look(now, ops);
        }
        assert_eq!(gaps.longest, 70);
    }
}
