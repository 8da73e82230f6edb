//! What is counted: latencies in a histogram, errors by their code.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Latencies above this, in nanoseconds, are counted as this: a day.
const LATENCY_NS_MAX: u64 = 24 * 3600 * 1_000_000_000;

/// Counts of one lane, or of all together.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Latencies of operations that were done, in nanoseconds, to three digits.
    latency_ns: Histogram<u64>,
    /// Operations that were not done, or may or may not be, by the code of the error.
    pub errors: BTreeMap<String, u64>,
    /// How many of the errors left it unknown whether the operation was done.
    pub unknown: u64,
    /// Items that ranges answered.
    pub items: u64,
}

impl Default for Tally {
    fn default() -> Tally {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Tally {
            latency_ns: latency_ns.expect("the bounds are in order and three digits are allowed"),
            errors: BTreeMap::new(),
            unknown: 0,
            items: 0,
        }
    }
}

impl Tally {
    /// Counts an operation that was done.
    pub fn done(&mut self, latency_ns: u64) {
        self.latency_ns.saturating_record(latency_ns);
    }

    /// Counts an operation that failed with `code`.
    pub fn failed(&mut self, code: &str, is_unknown: bool) {
        self.unknown += u64::from(is_unknown);
        self.add_errors(code, 1);
    }

    /// Counts `count` errors with `code`.
    pub fn add_errors(&mut self, code: &str, count: u64) {
        if count > 0 {
            *self.errors.entry(code.to_owned()).or_default() += count;
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Tally) {
        self.latency_ns.add(&other.latency_ns).expect("all histograms have the same bounds");
        for (code, count) in &other.errors {
            self.add_errors(code, *count);
        }
        self.unknown += other.unknown;
        self.items += other.items;
    }

    /// Operations done.
    pub fn ops(&self) -> u64 {
        self.latency_ns.len()
    }

    /// All errors.
    pub fn errors_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// The latency that `share` (0 to 1) of the operations do not exceed, in microseconds; 0 without operations.
    pub fn quantile_us(&self, share: f64) -> f64 {
        us(self.latency_ns.value_at_quantile(share))
    }

    /// The highest latency, in microseconds.
    pub fn max_us(&self) -> f64 {
        us(self.latency_ns.max())
    }

    /// The mean latency, in microseconds.
    pub fn mean_us(&self) -> f64 {
        (self.latency_ns.mean() / 100.0).round() / 10.0
    }
}

/// Nanoseconds as microseconds with one digit.
#[expect(clippy::cast_precision_loss, reason = "tenths of microseconds below 2^53 are exact")]
fn us(ns: u64) -> f64 {
    (ns / 100) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_all_lanes_together() {
        let mut all = Tally::default();
        for lane in 0..10u64 {
            let mut tally = Tally::default();
            for number in 0..100 {
                tally.done((lane * 100 + number + 1) * 1000);
            }
            all.merge(&tally);
        }
        assert_eq!(all.ops(), 1000);
        let near = |share, expected: f64| (all.quantile_us(share) / expected - 1.0).abs() < 0.002;
        assert!(near(0.5, 500.0), "{}", all.quantile_us(0.5));
        assert!(near(0.99, 990.0), "{}", all.quantile_us(0.99));
        assert!((all.max_us() / 1000.0 - 1.0).abs() < 0.002, "{}", all.max_us());
        assert!((all.mean_us() - 500.5).abs() < 1.0, "{}", all.mean_us());
    }

    #[test]
    fn errors_are_counted_by_code_and_never_as_operations() {
        let mut tally = Tally::default();
        tally.failed("timeout", true);
        tally.failed("not_leader", false);
        let mut all = tally.clone();
        all.merge(&tally);
        assert_eq!(all.errors, BTreeMap::from([("timeout".into(), 2), ("not_leader".into(), 2)]));
        assert_eq!((all.errors_count(), all.unknown, all.ops()), (4, 2, 0));
    }

    #[test]
    fn an_empty_tally_has_quantiles_of_zero() {
        let nothing = Tally::default();
        assert!(nothing.quantile_us(0.99).abs() < f64::EPSILON);
        assert!(nothing.mean_us().abs() < f64::EPSILON);
    }
}
