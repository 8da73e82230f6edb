//! What is written: keys of 24 bytes, and values cut out of a pool of random bytes.

use crate::random::Random;

/// Bytes of every key.
pub const KEY_BYTES: usize = 24;

/// What every key begins with.
const KEY_PREFIX: &[u8] = b"bench/";

/// How many different values the pool gives.
const VALUES_COUNT: u64 = 4096;

/// The key number `index`: the prefix and the number in decimal.
pub fn key(index: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    let (prefix, digits) = key.split_at_mut(KEY_PREFIX.len());
    prefix.copy_from_slice(KEY_PREFIX);
    let mut rest = index;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit is below ten");
        rest /= 10;
    }
    assert!(rest == 0);
    key
}

/// Random bytes from which values are cut, so that a value costs nothing to make.
#[derive(Debug)]
pub struct Values {
    pool: Vec<u8>,
    value_bytes: usize,
}

impl Values {
    /// Values of `value_bytes` bytes.
    pub fn new(value_bytes: usize, seed: u64) -> Values {
        let mut random = Random::new(seed, u64::MAX);
        let words = (value_bytes as u64 + VALUES_COUNT).div_ceil(u64::from(u64::BITS / 8));
        let pool = (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        Values { pool, value_bytes }
    }

    /// One of the values.
    pub fn draw(&self, random: &mut Random) -> &[u8] {
        let start = random.below(VALUES_COUNT);
        let start = usize::try_from(start).expect("the pool fits in memory");
        &self.pool[start..start + self.value_bytes]
    }
}

/// The value of key number `index` in the data set of a seed.
pub fn value_of(index: u64, seed: u64, value_bytes: usize, value: &mut Vec<u8>) {
    let mut random = Random::new(seed, index);
    value.clear();
    while value.len() < value_bytes {
        value.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    value.truncate(value_bytes);
}

/// The text of a value that nobody else writes: the client's number, its operation's number, and a filling.
pub fn unique_value(client: u64, seq: u64, value_bytes: usize) -> String {
    let mut value = format!("{client}-{seq}");
    while value.len() < value_bytes {
        value.push('.');
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_in_order_of_their_numbers() {
        assert_eq!(&key(0), b"bench/000000000000000000");
        assert_eq!(&key(1_203), b"bench/000000000000001203");
        assert!(key(9) < key(10));
    }

    #[test]
    fn values_have_their_length_and_differ() {
        for value_bytes in [0, 1, 256, 10_000] {
            let values = Values::new(value_bytes, 1);
            let mut random = Random::new(1, 1);
            assert_eq!(values.draw(&mut random).len(), value_bytes);
            let other = values.draw(&mut random).to_vec();
            assert!(value_bytes < 8 || values.draw(&mut random) != other);
        }
    }

    #[test]
    fn the_value_of_a_key_follows_from_seed_and_number() {
        let value = |index, seed| {
            let mut value = vec![1];
            value_of(index, seed, 13, &mut value);
            value
        };
        assert_eq!(value(7, 1), value(7, 1));
        assert_eq!(value(7, 1).len(), 13);
        assert_ne!(value(7, 1), value(8, 1));
        assert_ne!(value(7, 1), value(7, 2));
    }

    #[test]
    fn a_unique_value_is_never_cut() {
        assert_eq!(unique_value(12, 3456, 2), "12-3456");
        assert_eq!(unique_value(12, 3, 8), "12-3....");
    }
}
