//! Majorities. One function, and no cleverness: at most nine values, sorted anew each time.

/// The most voters a membership may have.
pub const VOTERS_MAX: usize = 9;

/// The largest value that a majority of `values`, one per voter, has reached. Reorders them.
///
/// Requires: `values` is not empty.
pub(crate) fn reached_by_majority<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values[majority(values.len()) - 1]
}

/// How many of `voters` make a majority.
pub(crate) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By definition: some subset of more than half the voters is at or above the value.
    fn some_majority_reached(values: &[u8], value: u8) -> bool {
        (0_u32..1 << values.len()).any(|subset| {
            let members: Vec<u8> =
                (0..values.len()).filter(|i| subset >> i & 1 == 1).map(|i| values[i]).collect();
            members.len() * 2 > values.len() && members.iter().all(|&v| v >= value)
        })
    }

    proptest! {
        #[test]
        fn majority_value_is_the_largest_that_some_majority_has_reached(
            values in prop::collection::vec(0_u8..12, 1..=VOTERS_MAX),
        ) {
            let naive = (0..12).rev().find(|&v| some_majority_reached(&values, v));
            prop_assert_eq!(Some(reached_by_majority(&mut values.clone())), naive);
        }

        #[test]
        fn two_majorities_share_a_voter(voters in 1..=VOTERS_MAX) {
            prop_assert!(2 * majority(voters) > voters);
            prop_assert!(majority(voters) <= voters);
        }
    }
}
