//! The engine's own generator, for the salts of segments and checkpoints alone.

/// `SplitMix64` over two words of seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
    stream: u64,
}

impl Random {
    pub(crate) fn new(seed: [u64; 2]) -> Random {
        Random { state: seed[0], stream: mix(seed[1]) }
    }

    /// Any number but zero, which marks what was never salted.
    pub(crate) fn nonzero(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (mix(self.state) ^ self.stream).max(1)
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
