//! What a seed, or many, have done: the numbers by which a green run is believed.

use std::collections::BTreeMap;
use std::fmt;

use engine::io::simulated::SimCounters;

use super::book::Book;
use super::ground::{Counters, Ground};
use super::network::NetCounters;
use super::profile::{Floor, Plan, Profile};

/// The numbers of one seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What it came out as.
    pub profile: Profile,
    /// What it must have done to count.
    pub floor: Floor,
    /// The trace's hash.
    pub trace_hash: u128,
    /// The trace's events.
    pub events: u64,
    /// Simulated microseconds.
    pub simulated_us: u64,
    /// Terms in which somebody led.
    pub elections: u64,
    /// Requests that were answered well.
    pub acknowledged: u64,
    /// By numbers.
    pub counters: Counters,
    /// Of the network.
    pub net: NetCounters,
    /// Of all disks.
    pub disk: BTreeMap<&'static str, u64>,
}

impl Report {
    /// The numbers of a world at its end.
    pub fn new(
        seed: u64,
        plan: &Plan,
        ground: &Ground,
        book: &Book,
        disks: &[SimCounters],
    ) -> Report {
        let mut disk = BTreeMap::new();
        for counters in disks {
            for (name, count) in numbers_of(counters) {
                *disk.entry(name).or_default() += count;
            }
        }
        Report {
            seed,
            profile: plan.profile,
            floor: plan.floor(),
            trace_hash: ground.trace.hash(),
            events: ground.trace.events(),
            simulated_us: ground.now_us(),
            elections: ground.oracle.elections(),
            acknowledged: book.acknowledged() as u64,
            counters: ground.counters.clone(),
            net: ground.network.counters(),
            disk,
        }
    }

    /// Whether it did too little to show anything (P55).
    pub fn is_thin(&self) -> bool {
        self.acknowledged < self.floor.ops || self.counters.faults_total() < self.floor.faults
    }
}

fn numbers_of(counters: &SimCounters) -> [(&'static str, u64); 12] {
    [
        ("writes", counters.writes),
        ("bytes written", counters.bytes_written),
        ("reads", counters.reads),
        ("syncs", counters.syncs),
        ("renames (checkpoints and META)", counters.renames),
        ("errors injected", counters.errors_injected + counters.short_writes),
        ("stalls", counters.stalls),
        ("crashes", counters.crashes),
        ("kills", counters.kills),
        ("sectors dropped at crashes", counters.sectors_dropped),
        ("sectors mangled at crashes", counters.sectors_mangled),
        ("names undone at crashes", counters.entries_dropped),
    ]
}

/// The numbers of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    seeds: u64,
    failed: u64,
    thin: Vec<u64>,
    profiles: BTreeMap<&'static str, u64>,
    ops: BTreeMap<(&'static str, &'static str), u64>,
    numbers: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    disk: BTreeMap<&'static str, u64>,
    simulated_us: u64,
    trace_hash: u128,
}

impl Summary {
    /// How many seeds there were.
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    /// The seeds that did too little to show anything.
    pub fn thin(&self) -> &[u64] {
        &self.thin
    }

    /// A number by the name that the summary prints.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }

    /// Adds one seed.
    pub fn add(&mut self, report: &Report, is_ok: bool) {
        self.seeds += 1;
        self.failed += u64::from(!is_ok);
        if report.is_thin() {
            self.thin.push(report.seed);
        }
        *self.profiles.entry(report.profile.name()).or_default() += 1;
        add_all(&mut self.ops, &report.counters.ops);
        add_all(&mut self.faults, &report.counters.faults);
        add_all(&mut self.disk, &report.disk);
        self.simulated_us += report.simulated_us;
        // The sum does not depend on the order in which threads finish.
        self.trace_hash = self.trace_hash.wrapping_add(report.trace_hash);
        let counters = &report.counters;
        let numbers = [
            ("acknowledged", report.acknowledged),
            ("elections", report.elections),
            ("events", report.events),
            ("turns", counters.turns),
            ("starts", counters.starts),
            ("starts that lost power", counters.crashed_starts),
            ("processes ended by a disk error", counters.failures),
            ("snapshots offered", counters.snapshots_offered),
            ("snapshot chunks", counters.snapshot_chunks),
            ("appends rejected", counters.appends_rejected),
            ("sessions", counters.sessions),
            ("sessions lost or closed", counters.sessions_lost),
            ("connections", report.net.conns),
            ("packets", report.net.packets),
            ("packets sent again", report.net.resends),
            ("connections broken", report.net.resets),
        ];
        for (name, count) in numbers {
            *self.numbers.entry(name).or_default() += count;
        }
    }

    /// Adds what another thread has counted.
    pub fn merge(&mut self, other: &Summary) {
        self.seeds += other.seeds;
        self.failed += other.failed;
        self.thin.extend(&other.thin);
        add_all(&mut self.profiles, &other.profiles);
        add_all(&mut self.ops, &other.ops);
        add_all(&mut self.numbers, &other.numbers);
        add_all(&mut self.faults, &other.faults);
        add_all(&mut self.disk, &other.disk);
        self.simulated_us += other.simulated_us;
        self.trace_hash = self.trace_hash.wrapping_add(other.trace_hash);
    }
}

fn add_all<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (name, count) in from {
        *to.entry(*name).or_default() += count;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.simulated_us / 1_000_000;
        writeln!(
            f,
            "seeds      {} ({} failed), {seconds} simulated seconds",
            self.seeds, self.failed
        )?;
        writeln!(f, "profiles   {}", listed(&self.profiles))?;
        let ops =
            self.ops.iter().map(|((kind, outcome), count)| format!("{kind} {outcome} {count}"));
        writeln!(f, "requests   {}", ops.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "faults     {}", listed(&self.faults))?;
        writeln!(f, "cluster    {}", listed(&self.numbers))?;
        writeln!(f, "disks      {}", listed(&self.disk))?;
        if !self.thin.is_empty() {
            let thin: Vec<String> = self.thin.iter().take(20).map(u64::to_string).collect();
            writeln!(f, "too thin   {} seeds, such as {}", self.thin.len(), thin.join(" "))?;
        }
        write!(f, "trace      {:032x}", self.trace_hash)
    }
}

fn listed(numbers: &BTreeMap<&'static str, u64>) -> String {
    let each = numbers.iter().map(|(name, count)| format!("{name} {count}"));
    each.collect::<Vec<_>>().join(", ")
}
