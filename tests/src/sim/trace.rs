//! What happened, as one hash of everything and, when asked for, as lines to read.

use std::fmt;

/// The running hash of a seed's events.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u128,
    events: u64,
    print: bool,
}

impl Trace {
    /// Nothing has happened. With `print`, every event becomes a line on standard error.
    pub fn new(print: bool) -> Trace {
        Trace { hash: 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, events: 0, print }
    }

    /// Notes an event by its numbers; `text` is only formatted when lines are printed.
    pub fn note(&mut self, now_us: u64, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.mix(now_us);
        for number in numbers {
            self.mix(*number);
        }
        if self.print {
            self.say(now_us, format_args!("{}", text()));
        }
    }

    /// A line for people alone: nothing of it enters the hash.
    pub fn say(&self, now_us: u64, text: fmt::Arguments<'_>) {
        if self.print {
            eprintln!("{:>5}.{:06} {text}", now_us / 1_000_000, now_us % 1_000_000);
        }
    }

    /// Whether lines are printed.
    pub fn is_printed(&self) -> bool {
        self.print
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    fn mix(&mut self, number: u64) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        self.hash = (self.hash ^ u128::from(number)).wrapping_mul(PRIME);
        self.hash ^= self.hash >> 67;
    }
}

/// A number for any bytes, to note them by.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        let part = word.get_mut(..chunk.len()).expect("a chunk has at most eight bytes");
        part.copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 29;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(numbers: &[&[u64]]) -> u128 {
        let mut trace = Trace::new(false);
        for numbers in numbers {
            trace.note(7, numbers, String::new);
        }
        trace.hash()
    }

    #[test]
    fn hash_depends_on_every_number_and_on_their_order() {
        assert_eq!(hash_of(&[&[1, 2], &[3]]), hash_of(&[&[1, 2], &[3]]));
        assert_ne!(hash_of(&[&[1, 2], &[3]]), hash_of(&[&[2, 1], &[3]]));
        assert_ne!(hash_of(&[&[1, 2], &[3]]), hash_of(&[&[1, 2], &[4]]));
    }
}
