//! What happens next. Nothing else makes time pass.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events by time, and by the order of their scheduling within one microsecond.
#[derive(Debug)]
pub struct Schedule<E> {
    now_us: u64,
    scheduled: u64,
    heap: BinaryHeap<Reverse<Item<E>>>,
}

#[derive(Debug)]
struct Item<E> {
    at_us: u64,
    number: u64,
    event: E,
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Item<E>) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Item<E> {}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Item<E>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Item<E>) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Schedule<E> {
        Schedule { now_us: 0, scheduled: 0, heap: BinaryHeap::new() }
    }
}

impl<E> Schedule<E> {
    /// Simulated microseconds since the seed began.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets `event` happen at `at_us`, or now if that has passed.
    pub fn at(&mut self, at_us: u64, event: E) {
        let at_us = at_us.max(self.now_us);
        self.heap.push(Reverse(Item { at_us, number: self.scheduled, event }));
        self.scheduled += 1;
    }

    /// Lets `event` happen after `delay_us`.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.at(self.now_us.saturating_add(delay_us), event);
    }

    /// Goes on to the next event; `None` when nothing is left to happen.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(item) = self.heap.pop()?;
        assert!(item.at_us >= self.now_us);
        self.now_us = item.at_us;
        Some(item.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_their_scheduling() {
        let mut schedule = Schedule::default();
        schedule.at(20, 'c');
        schedule.at(10, 'a');
        schedule.at(20, 'd');
        schedule.at(10, 'b');
        let order: String = std::iter::from_fn(|| schedule.pop()).collect();
        assert_eq!((order.as_str(), schedule.now_us()), ("abcd", 20));
    }

    #[test]
    fn what_should_have_happened_happens_now() {
        let mut schedule = Schedule::default();
        schedule.at(50, 'a');
        schedule.pop();
        schedule.at(10, 'b');
        schedule.pop();
        assert_eq!(schedule.now_us(), 50);
    }
}
