//! Where the payloads of entries lie that the caller has not applied yet.
//!
//! A location is asked for when an entry is applied, and entries are applied once and in order; so no more is kept than
//! what has been built into frames, or was found by recovery, and is not applied.
//!
//! Invariant: the places are those of consecutive entries, the last of them the newest that lies in a frame. An entry
//! that is about to be replaced by one that waits for its frame has none. A faulty one is among them without a place,
//! until it is repaired.

use std::collections::VecDeque;

use crate::types::Location;

/// Places by index.
#[derive(Clone, Default, Debug)]
pub(crate) struct Places {
    /// Entries up to this one are applied.
    applied: u64,
    /// The index of the first one.
    first: u64,
    locations: VecDeque<Option<Location>>,
}

impl Places {
    /// Keeps places of entries after `applied` only.
    pub(crate) fn starting_after(applied: u64) -> Places {
        Places { applied, first: applied + 1, locations: VecDeque::new() }
    }

    /// The entry lies here from now on; those above it are gone.
    pub(crate) fn push(&mut self, index: u64, place: Location) {
        self.push_any(index, Some(place));
    }

    /// The entry is faulty; those above it are gone.
    pub(crate) fn push_faulty(&mut self, index: u64) {
        self.push_any(index, None);
    }

    /// A faulty entry is repaired and lies here. One that is about to be replaced gets no place.
    pub(crate) fn repair(&mut self, index: u64, place: Location) {
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(faulty) = at.and_then(|at| self.locations.get_mut(at)) {
            faulty.get_or_insert(place);
        }
    }

    fn push_any(&mut self, index: u64, place: Option<Location>) {
        if index <= self.applied {
            return;
        }
        let at = index.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = at.filter(|at| *at <= self.locations.len()) {
            self.locations.truncate(at);
        } else {
            // What lies between was dropped by a reset, or all of them are replaced.
            self.locations.clear();
            self.first = index;
        }
        self.locations.push_back(place);
    }

    /// Entries from this one on are replaced.
    pub(crate) fn truncate_from(&mut self, index: u64) {
        let kept = usize::try_from(index.saturating_sub(self.first));
        self.locations.truncate(kept.unwrap_or(usize::MAX));
    }

    pub(crate) fn find(&self, index: u64) -> Option<Location> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.locations.get(at).copied().flatten()
    }

    /// Nobody asks for entries up to this one any more.
    pub(crate) fn forget_upto(&mut self, index: u64) {
        self.applied = self.applied.max(index);
        while self.first <= index {
            self.first += 1;
            if self.locations.pop_front().is_none() {
                self.first = index + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(block: u64) -> Location {
        Location::new(1, block * 4096)
    }

    #[test]
    fn an_entry_that_is_replaced_takes_those_above_with_it() {
        let mut places = Places::starting_after(4);
        (5..=9).for_each(|index| places.push(index, at(index)));
        places.push(7, at(70));
        assert_eq!(places.find(6), Some(at(6)));
        assert_eq!(places.find(7), Some(at(70)));
        assert_eq!(places.find(8), None);
    }

    /// A new leader's entry was committed while it still waited for its frame, and was applied with the place of the
    /// entry that it replaced: its value was looked for there.
    #[test]
    fn an_entry_that_is_about_to_be_replaced_has_no_place() {
        let mut places = Places::starting_after(4);
        (5..=9).for_each(|index| places.push(index, at(index)));
        places.truncate_from(7);
        assert_eq!((places.find(6), places.find(7)), (Some(at(6)), None));
        places.truncate_from(2);
        assert_eq!(places.find(5), None);
        places.push(5, at(50));
        assert_eq!(places.find(5), Some(at(50)));
    }

    #[test]
    fn a_faulty_entry_has_a_place_when_it_is_repaired_and_not_replaced() {
        let mut places = Places::starting_after(4);
        places.push(5, at(5));
        places.push_faulty(6);
        places.push_faulty(7);
        places.push(8, at(8));
        assert_eq!((places.find(6), places.find(8)), (None, Some(at(8))));
        places.repair(6, at(60));
        places.repair(8, at(80));
        assert_eq!((places.find(6), places.find(8)), (Some(at(60)), Some(at(8))));
        places.truncate_from(7);
        places.repair(7, at(70));
        places.repair(3, at(30));
        assert_eq!((places.find(6), places.find(7)), (Some(at(60)), None));
    }

    #[test]
    fn what_is_applied_is_forgotten_and_what_follows_stays() {
        let mut places = Places::starting_after(4);
        (5..=9).for_each(|index| places.push(index, at(index)));
        places.forget_upto(7);
        assert_eq!((places.find(7), places.find(8)), (None, Some(at(8))));
        places.push(3, at(3));
        assert_eq!((places.find(3), places.find(9)), (None, Some(at(9))));
        places.forget_upto(20);
        places.push(21, at(21));
        assert_eq!((places.find(9), places.find(21)), (None, Some(at(21))));
    }

    /// A segment began after entry 13 and replaced everything from 12 on. Recovery needed no segment before it, so the
    /// first place it saw was that of 14; those of 12 and 13, which came later, were taken for applied ones and were
    /// lost, and the node could not apply them.
    #[test]
    fn an_entry_before_all_that_have_a_place_takes_theirs() {
        let mut places = Places::starting_after(11);
        (14..=15).for_each(|index| places.push(index, at(index)));
        places.push(12, at(2));
        assert_eq!((places.find(12), places.find(14)), (Some(at(2)), None));
        places.push(13, at(3));
        places.push(11, at(1));
        assert_eq!((places.find(13), places.find(11)), (Some(at(3)), None));
    }

    #[test]
    fn a_log_that_goes_on_elsewhere_begins_anew() {
        let mut places = Places::starting_after(0);
        places.push(1, at(1));
        places.push(100, at(2));
        assert_eq!((places.find(1), places.find(100)), (None, Some(at(2))));
    }
}
