//! The state hash: a keyed 128-bit hash of one logical item, made to be added up.
//!
//! The hash of a state is the sum modulo 2^128 of its items' hashes, so a mutation subtracts the
//! item as it was and adds the item as it is. Two lanes of 64 bits absorb the same words, each by
//! a multiplication whose two halves are folded together. The key is public: the hash finds
//! replicas that diverged, by a bug or by damage; it does not withstand somebody who forges items.
//!
//! `docs/state-format.md` lists what each kind of item absorbs; a change there changes the version.

/// Words of the fractional part of pi: numbers that nobody chose.
const LANE_A: u64 = 0xA409_3822_299F_31D0;
const LANE_B: u64 = 0x1319_8A2E_0370_7344;
const ABSORB_A: u64 = 0x243F_6A88_85A3_08D3;
const ABSORB_B: u64 = 0x082E_FA98_EC4E_6C89;
const FINISH_A: u64 = 0x4528_21E6_38D0_1377;
const FINISH_B: u64 = 0xC0AC_29B7_C97C_50DD;

/// What kind of item is hashed; keeps items of different kinds with equal words apart.
#[derive(Clone, Copy)]
pub(super) enum Domain {
    Scalars = 1,
    Key = 2,
    Session = 3,
    Lowest = 4,
    Answer = 5,
    Lock = 6,
    Waiter = 7,
}

/// A hash under way. `Copy`, so that what two items share is absorbed once.
#[derive(Clone, Copy)]
pub(super) struct ItemHash {
    a: u64,
    b: u64,
}

impl ItemHash {
    pub(super) fn new(domain: Domain) -> ItemHash {
        let hash = ItemHash { a: LANE_A, b: LANE_B };
        hash.word(domain as u64)
    }

    pub(super) fn word(self, word: u64) -> ItemHash {
        ItemHash {
            a: folded_multiply(self.a ^ word, ABSORB_A),
            b: folded_multiply(self.b ^ word.rotate_left(29), ABSORB_B),
        }
    }

    pub(super) fn words<const N: usize>(self, words: [u64; N]) -> ItemHash {
        words.into_iter().fold(self, ItemHash::word)
    }

    /// Absorbs the length and then the bytes, eight at a time, the last ones padded with zeros.
    pub(super) fn bytes(self, bytes: &[u8]) -> ItemHash {
        let (chunks, tail) = bytes.as_chunks::<8>();
        let mut hash = self.word(bytes.len() as u64);
        for chunk in chunks {
            hash = hash.word(u64::from_le_bytes(*chunk));
        }
        if tail.is_empty() {
            return hash;
        }
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash.word(u64::from_le_bytes(last))
    }

    pub(super) fn finish(self) -> u128 {
        let low = folded_multiply(self.a ^ self.b.rotate_left(32), FINISH_A);
        let high = folded_multiply(self.b ^ low, FINISH_B);
        u128::from(high) << 64 | u128::from(low)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of the product are the point")]
fn folded_multiply(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(bytes: &[u8]) -> u128 {
        ItemHash::new(Domain::Key).bytes(bytes).finish()
    }

    #[test]
    fn every_input_bit_flips_about_half_of_the_output_bits() {
        let message = [0x5A_u8; 24];
        for bit in 0..message.len() * 8 {
            let mut other = message;
            other[bit / 8] ^= 1 << (bit % 8);
            let flipped = (of(&message) ^ of(&other)).count_ones();
            assert!((30..=98).contains(&flipped), "bit {bit} flips {flipped}");
        }
    }

    #[test]
    fn neither_lane_collides_on_a_hundred_thousand_small_items() {
        let hashes = (0..100_000_u64).map(|i| of(&i.to_le_bytes())).collect::<Vec<_>>();
        let low = hashes.iter().map(|hash| hash & u128::from(u64::MAX)).collect::<BTreeSet<_>>();
        let high = hashes.iter().map(|hash| hash >> 64).collect::<BTreeSet<_>>();
        assert_eq!((low.len(), high.len()), (100_000, 100_000));
    }

    #[test]
    fn padding_length_and_domain_are_told_apart() {
        assert_ne!(of(b"a"), of(b"a\0"));
        assert_ne!(of(b""), of(b"\0\0\0\0\0\0\0\0"));
        let lock = ItemHash::new(Domain::Lock).bytes(b"a").finish();
        assert_ne!(of(b"a"), lock);
    }

    #[test]
    fn values_are_fixed_for_ever() {
        assert_eq!(of(b""), 0x4DEA_EB36_9B3C_8B29_52E1_1810_F8E9_8D2E);
        assert_eq!(of(b"holdfast"), 0x4060_5FA8_47DD_6A43_0769_0E48_F540_20CB);
    }
}
