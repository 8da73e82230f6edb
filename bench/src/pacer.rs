//! Wakes lanes when an operation of an open loop is due.
//!
//! The runtime's timers count milliseconds; a thread that parks is woken within a few tens of microseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::Error;
use crate::pace::due_ns;

/// A thread that wakes lanes until it is dropped.
#[derive(Debug)]
pub struct Pacer {
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Wakes the lanes `wakes` in turn, `rate` times a second in all, from `begin` on.
    pub fn start(
        clock: Clock,
        begin: u64,
        rate: u64,
        wakes: Vec<Arc<Notify>>,
    ) -> Result<Pacer, Error> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let body = move || wake_in_turn(clock, begin, rate, &wakes, &stop);
        let thread = thread::Builder::new().name("pacer".to_owned()).spawn(body);
        Ok(Pacer { is_stopped, thread: Some(thread.map_err(Error::Runtime)?) })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("the pacer does not panic");
        }
    }
}

fn wake_in_turn(clock: Clock, begin: u64, rate: u64, wakes: &[Arc<Notify>], stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now_ns();
        let first = number;
        while due_ns(begin, number, rate) <= now && number - first < wakes.len() as u64 {
            let lane = usize::try_from(number % wakes.len() as u64).expect("lanes fit in memory");
            wakes[lane].notify_one();
            number += 1;
        }
        if number - first == wakes.len() as u64 {
            // All lanes are awake; each takes whatever is due.
            number = number.max(due_count(begin, now, rate));
        }
        let wait = due_ns(begin, number, rate).saturating_sub(clock.now_ns());
        thread::park_timeout(Duration::from_nanos(wait));
    }
}

/// How many operations were due before `now`.
fn due_count(begin: u64, now: u64, rate: u64) -> u64 {
    let product = u128::from(now.saturating_sub(begin)) * u128::from(rate) / 1_000_000_000;
    u64::try_from(product).expect("a run has fewer than 2^64 operations")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_lane_is_woken_and_the_thread_ends_with_the_pacer() {
        let wakes: Vec<Arc<Notify>> = (0..3).map(|_| Arc::new(Notify::new())).collect();
        let pacer = Pacer::start(Clock::start(), 0, 1000, wakes.clone()).unwrap();
        for wake in &wakes {
            wake.notified().await;
            wake.notified().await;
        }
        drop(pacer);
        assert!(wakes.iter().all(|wake| Arc::strong_count(wake) == 1));
    }

    #[test]
    fn the_count_of_what_was_due_matches_when_it_is_due() {
        for number in [0, 1, 2, 999, 1_000_003] {
            let due = due_ns(5, number, 7);
            assert!(due_count(5, due, 7) <= number && number <= due_count(5, due + 1, 7));
        }
    }
}
