//! What a run found out, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::options::{OpKind, Plan};
use crate::tally::Tally;

/// The figures of one run; the JSON line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was driven.
    pub target: &'static str,
    /// What one operation was.
    pub op: String,
    /// TCP connections.
    pub connections: u32,
    /// Requests in flight per connection.
    pub inflight: u32,
    /// Bytes of a value; in a recorded run at least (they are as long as makes them unique).
    pub value_bytes: usize,
    /// Different keys.
    pub keys: u64,
    /// Seconds measured.
    pub seconds: f64,
    /// Operations a second asked for; absent in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Operations done.
    pub ops: u64,
    /// Operations done a second.
    pub ops_per_s: f64,
    /// Latencies of operations done, in microseconds.
    pub mean_us: f64,
    /// Half of the operations took at most this.
    pub p50_us: f64,
    /// 99 in 100.
    pub p99_us: f64,
    /// 999 in 1,000.
    pub p999_us: f64,
    /// All of them.
    pub max_us: f64,
    /// The longest time in which no operation ended, in milliseconds, to some 20 ms.
    pub gap_ms_max: f64,
    /// Operations that failed, or may have.
    pub errors: u64,
    /// Those of which it is not known whether they were done.
    pub unknown: u64,
    /// The errors by code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Connections made again.
    pub reconnects: u64,
    /// Items that ranges answered, a second; absent for other operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_per_s: Option<f64>,
}

impl Report {
    /// The report of a run of `plan`.
    pub fn new(plan: &Plan, tally: &Tally, reconnects: u64, gap_ns: u64) -> Report {
        let seconds = seconds(plan.measured_ns);
        let op = plan.op.to_possible_value().expect("no operation is hidden");
        Report {
            target: "holdfast",
            op: op.get_name().to_owned(),
            connections: plan.lanes,
            inflight: plan.inflight,
            value_bytes: plan.value_bytes,
            keys: plan.keys,
            seconds,
            rate: plan.rate,
            ops: tally.ops(),
            ops_per_s: per_second(tally.ops(), seconds),
            mean_us: tally.mean_us(),
            p50_us: tally.quantile_us(0.5),
            p99_us: tally.quantile_us(0.99),
            p999_us: tally.quantile_us(0.999),
            max_us: tally.max_us(),
            gap_ms_max: (seconds_of(gap_ns) * 10_000.0).round() / 10.0,
            errors: tally.errors_count(),
            unknown: tally.unknown,
            errors_by_code: tally.errors.clone(),
            reconnects,
            items_per_s: (plan.op == OpKind::Range).then(|| per_second(tally.items, seconds)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { op, connections, inflight, value_bytes, keys, .. } = self;
        let values = match value_bytes {
            0 => "short unique values".to_owned(),
            bytes => format!("values of {bytes} B"),
        };
        let load = format!("{op}, {connections} × {inflight}, {keys} keys, {values}");
        let mut rows = vec![
            ("load", load),
            (
                "throughput",
                format!("{:.0} ops/s ({} in {} s)", self.ops_per_s, self.ops, self.seconds),
            ),
            ("latency mean", us(self.mean_us)),
            ("latency p50", us(self.p50_us)),
            ("latency p99", us(self.p99_us)),
            ("latency p99.9", us(self.p999_us)),
            ("latency max", us(self.max_us)),
            ("longest gap", format!("{} ms", self.gap_ms_max)),
        ];
        if let Some(items_per_s) = self.items_per_s {
            rows.insert(2, ("items", format!("{items_per_s:.0} items/s")));
        }
        if let Some(rate) = self.rate {
            rows.insert(1, ("asked for", format!("{rate} ops/s")));
        }
        rows.push(("errors", format!("{}, of which {} unknown", self.errors, self.unknown)));
        for (code, count) in &self.errors_by_code {
            rows.push(("", format!("{code}: {count}")));
        }
        rows.push(("reconnects", self.reconnects.to_string()));
        for (name, value) in rows {
            writeln!(f, "{name:<15} {value}")?;
        }
        Ok(())
    }
}

fn us(us: f64) -> String {
    match us {
        us if us >= 10_000.0 => format!("{:.1} ms", us / 1000.0),
        us => format!("{us:.1} µs"),
    }
}

/// To a tenth.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53 are exact")]
fn per_second(count: u64, seconds: f64) -> f64 {
    (count as f64 / seconds * 10.0).round() / 10.0
}

/// To a thousandth.
fn seconds(ns: u64) -> f64 {
    (seconds_of(ns) * 1000.0).round() / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "times below 2^53 ns, some hundred days, are exact")]
fn seconds_of(ns: u64) -> f64 {
    ns as f64 / 1e9
}
