//! Seeds that failed once, each with its story. A seed replays its schedule only as long as the simulator draws the
//! same numbers; what a bug needs to come back is kept by the test that its story names.

/// One seed that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regression {
    /// Which.
    pub seed: u64,
    /// With which profile.
    pub profile: &'static str,
    /// What went wrong, why, and where its own test is.
    #[expect(dead_code, reason = "for people, and for the text of a failure")]
    pub story: &'static str,
}

/// All of them.
pub(crate) const ALL: &[Regression] = &[
    Regression {
        seed: 58,
        profile: "mixed",
        story: "a full disk refused a checkpoint, which was due again at once: the loop turned without ever waiting",
    },
    Regression {
        seed: 1019,
        profile: "mixed",
        story: "an entry that waited for its frame was committed, and applied with the place of the entry that it \
                replaced; its test is in engine/src/places.rs",
    },
    Regression {
        seed: 21,
        profile: "chaos",
        story: "an acquire was committed, and applied when the leadership that had proposed it was over: it waited for \
                the lock in a queue of a follower, which nobody answers",
    },
];
