//! Readers on other threads against the reuse of slots.
//!
//! A reader pins before it looks a location up, or while the index cannot change, and holds the pin until it reads there. A slot that is given up is
//! reused when everybody who had pinned by then has gone. Pins cost a reference count: time is cut into epochs, a pin
//! holds the one that it was taken in, and an epoch ends when slots are given up.
//!
//! Invariant: `ended` is in order; a slot leaves it only when its epoch and all before it have no pin.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::mutant::{self, Mutant};

/// Keeps every slot from being reused that could be read when it was taken.
#[derive(Clone, Debug)]
pub struct Pin(#[expect(dead_code, reason = "its reference count is what matters")] Arc<Epoch>);

#[derive(Debug, Default)]
struct Epoch;

/// Where pins are taken.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    current: RwLock<Arc<Epoch>>,
}

impl Pins {
    pub(crate) fn pin(&self) -> Pin {
        Pin(Arc::clone(&self.current.read()))
    }

    fn end_epoch(&self) -> Arc<Epoch> {
        std::mem::take(&mut *self.current.write())
    }
}

/// Slots that are given up and may still be read.
#[derive(Debug, Default)]
pub(crate) struct Limbo {
    pins: Arc<Pins>,
    ended: VecDeque<(Arc<Epoch>, Vec<u32>)>,
}

impl Limbo {
    pub(crate) fn pins(&self) -> Arc<Pins> {
        Arc::clone(&self.pins)
    }

    pub(crate) fn count(&self) -> usize {
        self.ended.iter().map(|(_, slots)| slots.len()).sum()
    }

    /// Nobody who pins from now on can come to read these.
    pub(crate) fn give_up(&mut self, slots: Vec<u32>) {
        self.ended.push_back((self.pins.end_epoch(), slots));
    }

    /// The slots that nobody can be reading.
    pub(crate) fn take_free(&mut self) -> Vec<u32> {
        let mut free = Vec::new();
        while let Some((epoch, _)) = self.ended.front_mut()
            && (Arc::get_mut(epoch).is_some() || mutant::is(Mutant::PinIgnored))
        {
            free.extend(self.ended.pop_front().into_iter().flat_map(|(_, slots)| slots));
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_when_everybody_who_could_read_it_has_gone() {
        let mut limbo = Limbo::default();
        let pins = limbo.pins();
        let before = pins.pin();
        limbo.give_up(vec![1]);
        let between = pins.pin();
        limbo.give_up(vec![2, 3]);
        let after = pins.pin();
        drop(between);
        // Whoever pinned first could read all of them.
        assert!(limbo.take_free().is_empty());
        drop(before);
        assert_eq!(limbo.take_free(), [1, 2, 3]);
        assert_eq!(limbo.count(), 0);
        drop(after);
    }
}
