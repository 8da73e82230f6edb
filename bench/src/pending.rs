//! Requests in flight on one connection, found by their ids.

use std::collections::VecDeque;

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// The operation of a slot.
    Slot(u32),
    /// A request beside the operation of a slot, such as a keep-alive.
    Upkeep(u32),
}

/// A request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose request it is.
    pub ticket: Ticket,
    /// When it should have started, in nanoseconds.
    pub start_ns: u64,
    /// When it was sent, in nanoseconds.
    pub sent_ns: u64,
}

/// The requests in flight. Ids grow by one, so the entry of an id lies at its distance from the oldest.
#[derive(Debug, Default)]
pub struct Pending {
    oldest: u64,
    entries: VecDeque<Option<Entry>>,
    count: usize,
}

impl Pending {
    /// Adds request `id`. Requires: ids come in order, without gaps unless nothing is in flight.
    pub fn insert(&mut self, id: u64, entry: Entry) {
        if self.entries.is_empty() {
            self.oldest = id;
        }
        assert!(id == self.oldest + self.entries.len() as u64);
        self.entries.push_back(Some(entry));
        self.count += 1;
    }

    /// Takes request `id` out, if it is in flight.
    pub fn remove(&mut self, id: u64) -> Option<Entry> {
        let at = usize::try_from(id.checked_sub(self.oldest)?).ok()?;
        let entry = self.entries.get_mut(at)?.take()?;
        self.count -= 1;
        self.drop_answered();
        Some(entry)
    }

    /// Takes any one request out.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.oldest += 1;
        self.drop_answered();
        self.count -= 1;
        Some(entry.expect("the front is in flight"))
    }

    /// How many are in flight.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// When the oldest was sent.
    pub fn oldest_sent_ns(&self) -> Option<u64> {
        let front = self.entries.front()?;
        Some(front.expect("the front is in flight").sent_ns)
    }

    /// Keeps the front one that is in flight.
    fn drop_answered(&mut self) {
        while self.entries.front().is_some_and(Option::is_none) {
            self.entries.pop_front();
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u32) -> Entry {
        Entry { ticket: Ticket::Slot(slot), start_ns: 0, sent_ns: u64::from(slot) }
    }

    #[test]
    fn answers_in_any_order_find_their_requests_once() {
        let mut pending = Pending::default();
        for id in 2..6u32 {
            pending.insert(u64::from(id), entry(id));
        }
        assert_eq!(pending.oldest_sent_ns(), Some(2));
        assert_eq!(pending.remove(4), Some(entry(4)));
        assert_eq!(pending.remove(4), None);
        assert_eq!(pending.remove(2), Some(entry(2)));
        assert_eq!(pending.oldest_sent_ns(), Some(3));
        pending.insert(6, entry(6));
        assert_eq!(pending.len(), 3);
        assert_eq!([pending.remove(1), pending.remove(7), pending.remove(u64::MAX)], [None; 3]);
        assert_eq!([3, 5, 6].map(|id| pending.remove(id)), [3, 5, 6].map(|id| Some(entry(id))));
        assert!(pending.is_empty());
    }

    #[test]
    fn what_is_left_can_be_taken_out_and_the_ids_start_anew() {
        let mut pending = Pending::default();
        for id in 2..5u32 {
            pending.insert(u64::from(id), entry(id));
        }
        pending.remove(3);
        assert_eq!(
            [pending.pop(), pending.pop(), pending.pop()],
            [Some(entry(2)), Some(entry(4)), None]
        );
        assert_eq!((pending.len(), pending.oldest_sent_ns()), (0, None));
        pending.insert(2, entry(9));
        assert_eq!(pending.remove(2), Some(entry(9)));
    }
}
