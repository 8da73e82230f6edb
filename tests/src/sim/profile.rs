//! What a seed runs with. A profile says what may happen; the seed switches parts of that on or off and draws the
//! rest (swarm testing, P54), so that no two seeds have the same shape.

use std::ops::RangeInclusive;

use engine::io::simulated::SimFaults;

use super::network::NetFaults;
use super::random::Random;

/// A family of seeds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Profile {
    /// Nothing fails; the network and the disks are merely not equally fast.
    Calm,
    /// Processes and machines end and come back, alone and together.
    Crash,
    /// The network is cut, slow and unreliable.
    Partition,
    /// Disks stall, and fail for good: the process ends and is started again.
    Disk,
    /// All of it.
    Chaos,
    /// Each seed is one of the others.
    Mixed,
}

/// One thing that is done to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// A process ends, or all of them.
    Down(Down),
    /// Something happens to one machine.
    Machine(Machine),
    /// Something happens to the network.
    Net(Cut),
    /// A client process dies with everything it had under way.
    ClientDeath,
}

/// How processes end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Down {
    /// A machine loses power, between two turns.
    Crash,
    /// A machine loses power for so long that the others go on without it.
    Absence,
    /// All machines lose power.
    CrashAll,
    /// A process is killed; its machine runs on.
    Kill,
    /// All processes are killed.
    KillAll,
}

/// What happens to one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Machine {
    /// It loses power within the next operations of its disk.
    CrashSoon,
    /// Its process is asked to stop, and started again.
    Stop,
    /// Its process gets no time for a while.
    Pause,
    /// Its disk completes nothing for a while.
    Stall,
    /// The next write, sync or so on of its disk fails: final for the process.
    DiskError,
    /// Its disk has no room for a while.
    DiskFull,
    /// Its wall clock jumps.
    WallJump,
}

/// What happens to the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cut {
    /// One node is cut off from the others, both ways.
    Isolate,
    /// One node is cut off for so long that the others go on without it.
    Exile,
    /// One direction between two nodes is cut.
    OneWay,
    /// The nodes are cut into two groups.
    Halves,
    /// One pair of nodes is cut, both ways.
    Pair,
    /// Clients do not reach one node.
    Clients,
    /// A connection breaks.
    Reset,
    /// One direction between two nodes becomes slow.
    Clog,
}

impl Fault {
    /// Its name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Down(Down::Crash) => "crash",
            Fault::Down(Down::Absence) => "absence",
            Fault::Down(Down::CrashAll) => "crash-all",
            Fault::Down(Down::Kill) => "kill",
            Fault::Down(Down::KillAll) => "kill-all",
            Fault::Machine(Machine::CrashSoon) => "crash-soon",
            Fault::Machine(Machine::Stop) => "stop",
            Fault::Machine(Machine::Pause) => "pause",
            Fault::Machine(Machine::Stall) => "stall",
            Fault::Machine(Machine::DiskError) => "disk-error",
            Fault::Machine(Machine::DiskFull) => "disk-full",
            Fault::Machine(Machine::WallJump) => "wall-jump",
            Fault::Net(Cut::Isolate) => "isolate",
            Fault::Net(Cut::Exile) => "exile",
            Fault::Net(Cut::OneWay) => "one-way",
            Fault::Net(Cut::Halves) => "halves",
            Fault::Net(Cut::Pair) => "pair",
            Fault::Net(Cut::Clients) => "client-cut",
            Fault::Net(Cut::Reset) => "reset",
            Fault::Net(Cut::Clog) => "clog",
            Fault::ClientDeath => "client-death",
        }
    }

    /// Whether it does nothing to a node that has no process.
    pub fn needs_process(self) -> bool {
        match self {
            Fault::Down(down) => !matches!(down, Down::CrashAll | Down::KillAll),
            Fault::Machine(machine) => !matches!(machine, Machine::Stall | Machine::WallJump),
            Fault::Net(_) | Fault::ClientDeath => false,
        }
    }
}

const CRASH_FAULTS: &[(Fault, u32)] = &[
    (Fault::Down(Down::Crash), 4),
    (Fault::Down(Down::Absence), 3),
    (Fault::Machine(Machine::CrashSoon), 6),
    (Fault::Down(Down::CrashAll), 2),
    (Fault::Down(Down::Kill), 3),
    (Fault::Down(Down::KillAll), 1),
    (Fault::Machine(Machine::Stop), 2),
    (Fault::Machine(Machine::Pause), 3),
    (Fault::ClientDeath, 2),
];

const PARTITION_FAULTS: &[(Fault, u32)] = &[
    (Fault::Net(Cut::Isolate), 5),
    (Fault::Net(Cut::Exile), 4),
    (Fault::Net(Cut::OneWay), 5),
    (Fault::Net(Cut::Halves), 3),
    (Fault::Net(Cut::Pair), 4),
    (Fault::Net(Cut::Clients), 2),
    (Fault::Net(Cut::Reset), 6),
    (Fault::Net(Cut::Clog), 4),
    (Fault::Machine(Machine::Pause), 2),
    (Fault::ClientDeath, 1),
];

const DISK_FAULTS: &[(Fault, u32)] = &[
    (Fault::Machine(Machine::Stall), 5),
    (Fault::Machine(Machine::DiskError), 3),
    (Fault::Machine(Machine::DiskFull), 3),
    (Fault::Machine(Machine::CrashSoon), 3),
    (Fault::Down(Down::Absence), 2),
    (Fault::Machine(Machine::WallJump), 2),
];

impl Profile {
    /// All profiles, by name.
    pub const ALL: [(&'static str, Profile); 6] = [
        ("calm", Profile::Calm),
        ("crash", Profile::Crash),
        ("partition", Profile::Partition),
        ("disk", Profile::Disk),
        ("chaos", Profile::Chaos),
        ("mixed", Profile::Mixed),
    ];

    /// The profile of this name.
    pub fn by_name(name: &str) -> Option<Profile> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, profile)| *profile == self);
        found.expect("every profile is in the table").0
    }

    fn faults(self) -> Vec<(Fault, u32)> {
        match self {
            Profile::Calm => Vec::new(),
            Profile::Crash => CRASH_FAULTS.to_vec(),
            Profile::Partition => PARTITION_FAULTS.to_vec(),
            Profile::Disk => DISK_FAULTS.to_vec(),
            Profile::Chaos | Profile::Mixed => {
                [CRASH_FAULTS, PARTITION_FAULTS, DISK_FAULTS].concat()
            }
        }
    }

    /// What `random` makes of a mixed seed.
    fn resolve(self, random: &mut Random) -> Profile {
        if self != Profile::Mixed {
            return self;
        }
        random.weighted(&[
            (Profile::Calm, 1),
            (Profile::Crash, 5),
            (Profile::Partition, 5),
            (Profile::Disk, 3),
            (Profile::Chaos, 6),
        ])
    }
}

/// One kind of request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OpKind {
    /// Set a key.
    Put,
    /// Read a key.
    Get,
    /// Delete a key.
    Del,
    /// Compare and set a key.
    Cas,
    /// Read all keys, in pages.
    Range,
    /// Read a key from any node, however old.
    StaleGet,
    /// Acquire or release a lock.
    Lock,
    /// Look at a lock.
    LockQuery,
    /// Set one of many keys that nobody reads, so that the state gets large.
    Ballast,
    /// Delete many of those keys at once.
    DropBallast,
    /// Ask a node how it is.
    Status,
}

impl OpKind {
    /// Its name in the summary.
    pub fn name(self) -> &'static str {
        match self {
            OpKind::Put => "put",
            OpKind::Get => "get",
            OpKind::Del => "del",
            OpKind::Cas => "cas",
            OpKind::Range => "range",
            OpKind::StaleGet => "stale-get",
            OpKind::Lock => "lock",
            OpKind::LockQuery => "lock-query",
            OpKind::Ballast => "ballast",
            OpKind::DropBallast => "drop-ballast",
            OpKind::Status => "status",
        }
    }
}

const OPS: &[(OpKind, u32)] = &[
    (OpKind::Put, 10),
    (OpKind::Get, 8),
    (OpKind::Del, 2),
    (OpKind::Cas, 4),
    (OpKind::Range, 2),
    (OpKind::StaleGet, 2),
    (OpKind::Lock, 5),
    (OpKind::LockQuery, 1),
    (OpKind::Status, 1),
];

/// When faults pause.
#[derive(Clone, Debug)]
pub struct Truce {
    /// From the end of one to the next, in microseconds.
    pub pause_us: RangeInclusive<u64>,
    /// How long each is, in microseconds.
    pub length_us: RangeInclusive<u64>,
}

impl Truce {
    fn draw(random: &mut Random) -> Truce {
        let pause_us = random.skewed(&(2_000_000..=12_000_000));
        Truce { pause_us: pause_us / 2..=pause_us, length_us: 700_000..=2_500_000 }
    }
}

/// Everything that a seed decides before it begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which profile it came out as.
    pub profile: Profile,
    /// How many nodes there are.
    pub nodes: usize,
    /// For how long faults happen and clients ask, in simulated microseconds.
    pub duration_us: u64,
    /// How many client processes there are.
    pub clients: usize,
    /// How many requests at once each of them makes.
    pub workers: usize,
    /// How many keys are in use.
    pub keys: usize,
    /// How many locks are in use.
    pub locks: usize,
    /// Bytes of a value.
    pub value_bytes: RangeInclusive<u64>,
    /// Pause between an answer and the next request, in microseconds.
    pub think_us: RangeInclusive<u64>,
    /// How long a client waits for an answer, in microseconds.
    pub deadline_us: RangeInclusive<u64>,
    /// Out of a million workers, how many have a session.
    pub sessions_ppm: u32,
    /// Time to live of a session, in milliseconds.
    pub ttl_ms: RangeInclusive<u64>,
    /// Out of a million requests, how many are given up long before their deadline.
    pub abandon_ppm: u32,
    /// The kinds of requests and how often each comes.
    pub ops: Vec<(OpKind, u32)>,
    /// The kinds of faults and how often each comes.
    pub faults: Vec<(Fault, u32)>,
    /// Out of a million faults of one node, how many look for the leader.
    pub leader_ppm: u32,
    /// Whether all machines lose power before the last reads.
    pub final_crash: bool,
    /// Pause between two faults, in microseconds.
    pub fault_pause_us: RangeInclusive<u64>,
    /// When nothing strikes.
    pub truce: Option<Truce>,
    /// How long a fault lasts, in microseconds.
    pub fault_us: RangeInclusive<u64>,
    /// The network.
    pub net: NetFaults,
    /// The disks.
    pub disk: SimFaults,
    /// How far a node's clock runs fast or slow, in millionths.
    pub drift_ppm: u64,
    /// Out of a million turns, how many are held up by the machine.
    pub hiccup_ppm: u32,
    /// Out of a million starts, how many lose power before they are done.
    pub crash_in_start_ppm: u32,
    /// Bytes of a log slot.
    pub slot_bytes: u64,
    /// Log bytes between two checkpoints.
    pub checkpoint_interval_bytes: u64,
}

impl Plan {
    /// What `profile` and `seed` decide.
    pub fn new(profile: Profile, seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x0070_6c61_6e00);
        let profile = profile.resolve(&mut random);
        let shape = Shape::draw(&mut random);
        Plan {
            nodes: random.weighted(&[(3, 17), (5, 2), (1, 1)]),
            duration_us: random.within(&(15_000_000..=25_000_000)),
            clients: random.index(3) + 2,
            workers: random.index(3) + 1,
            keys: random.index(5) + 2,
            locks: random.index(2) + 1,
            value_bytes: random.pick(&[8..=64, 8..=1_024, 8..=16_384, 2_048..=16_384]).clone(),
            think_us: 1_000..=random.skewed(&(5_000..=100_000)),
            deadline_us: random.pick(&[300_000..=2_000_000, 2_000_000..=6_000_000]).clone(),
            sessions_ppm: *random.pick(&[300_000, 700_000, 1_000_000]),
            ttl_ms: random.pick(&[1_000..=2_000, 1_000..=5_000]).clone(),
            abandon_ppm: *random.pick(&[0, 0, 5_000, 50_000]),
            ops: ops(&mut random),
            faults: faults(profile, &mut random),
            leader_ppm: *random.pick(&[0, 300_000, 800_000]),
            final_crash: random.chance(500_000),
            fault_pause_us: 50_000..=random.skewed(&(300_000..=2_500_000)),
            truce: random.chance(900_000).then(|| Truce::draw(&mut random)),
            fault_us: 10_000..=random.skewed(&(200_000..=6_000_000)),
            net: shape.net(profile),
            disk: shape.disk(profile),
            drift_ppm: *random.pick(&[0, 200, 20_000, 200_000]),
            hiccup_ppm: *random.pick(&[0, 0, 1_000, 10_000]),
            crash_in_start_ppm: crash_in_start_ppm(profile, &mut random),
            slot_bytes: random.weighted(&[(1 << 20, 3), (2 << 20, 1)]),
            checkpoint_interval_bytes: random.skewed(&(128 << 10..=2 << 20)),
            profile,
        }
    }
}

fn crash_in_start_ppm(profile: Profile, random: &mut Random) -> u32 {
    match profile {
        Profile::Crash | Profile::Chaos | Profile::Disk => *random.pick(&[0, 100_000, 400_000]),
        Profile::Calm | Profile::Partition | Profile::Mixed => 0,
    }
}

/// Two thirds of the kinds of requests, puts and gets among them; and in some seeds a large state.
fn ops(random: &mut Random) -> Vec<(OpKind, u32)> {
    let mut ops = swarm(OPS, &[OpKind::Put, OpKind::Get], random);
    if random.chance(250_000) {
        ops.extend([(OpKind::Ballast, 60), (OpKind::DropBallast, 1)]);
    }
    ops
}

/// Half of the faults of a profile, at least one.
fn faults(profile: Profile, random: &mut Random) -> Vec<(Fault, u32)> {
    let all = profile.faults();
    if all.is_empty() {
        return all;
    }
    let always = random.pick(&all).0;
    swarm(&all, &[always], random)
}

/// Each of `all` in two seeds out of three, those of `always` in every one.
fn swarm<T: Copy + PartialEq>(
    all: &[(T, u32)],
    always: &[T],
    random: &mut Random,
) -> Vec<(T, u32)> {
    let mut chosen = Vec::new();
    for (item, weight) in all {
        let factor = u32::try_from(random.below(3)).expect("below 3");
        if factor > 0 || always.contains(item) {
            chosen.push((*item, weight * factor.max(1)));
        }
    }
    chosen
}

/// How fast things are in a seed.
struct Shape {
    net_us: u64,
    is_lossy: bool,
    disk_us: u64,
    is_stalling: bool,
    crash_style: u64,
}

impl Shape {
    fn draw(random: &mut Random) -> Shape {
        Shape {
            net_us: random.skewed(&(50..=4_000)),
            is_lossy: random.chance(600_000),
            disk_us: random.skewed(&(50..=3_000)),
            is_stalling: random.chance(300_000),
            crash_style: random.below(4),
        }
    }

    fn net(&self, profile: Profile) -> NetFaults {
        let is_bad = matches!(profile, Profile::Partition | Profile::Chaos) && self.is_lossy;
        NetFaults {
            delay_us: self.net_us / 2..=self.net_us * 3,
            loss_ppm: if is_bad { 20_000 } else { 500 },
            resend_us: 20_000..=300_000,
            reset_ppm: if is_bad { 1_500 } else { 0 },
        }
    }

    fn disk(&self, profile: Profile) -> SimFaults {
        let stalls = matches!(profile, Profile::Disk | Profile::Chaos) && self.is_stalling;
        let (torn_ppm, keeps_all, drops_all) = match self.crash_style {
            0 => (900_000, 50_000, 50_000),
            1 => (200_000, 50_000, 50_000),
            2 => (500_000, 400_000, 100_000),
            _ => (500_000, 100_000, 400_000),
        };
        SimFaults {
            write_us: self.disk_us / 2..=self.disk_us * 2,
            read_us: 30..=self.disk_us + 30,
            sync_us: self.disk_us / 2..=self.disk_us * 4,
            stall_ppm: if stalls { 3_000 } else { 0 },
            stall_us: 1_000..=800_000,
            torn_ppm,
            crash_keeps_all_ppm: keeps_all,
            crash_drops_all_ppm: drops_all,
            ..SimFaults::none()
        }
    }
}

/// What a seed must have done to count (P55).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    /// Requests that were answered well.
    pub ops: u64,
    /// Faults that were injected.
    pub faults: u64,
}

impl Plan {
    /// What this seed must have done to count.
    pub fn floor(&self) -> Floor {
        Floor { ops: 100, faults: if self.faults.is_empty() { 0 } else { 5 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name() {
        for (name, profile) in Profile::ALL {
            assert_eq!(Profile::by_name(name), Some(profile));
            assert_eq!(profile.name(), name);
        }
    }

    #[test]
    fn seeds_of_a_profile_differ_in_their_shape_and_always_write_and_read() {
        let plans: Vec<Plan> = (0..50).map(|seed| Plan::new(Profile::Mixed, seed)).collect();
        for plan in &plans {
            let has = |kind| plan.ops.iter().any(|(op, _)| *op == kind);
            assert!(has(OpKind::Put) && has(OpKind::Get));
            assert_eq!(plan.faults.is_empty(), plan.profile == Profile::Calm);
        }
        assert!(plans.iter().any(|plan| plan.nodes == 5));
        assert!(plans.iter().any(|plan| plan.ops.len() < OPS.len()));
        assert!(plans.iter().any(|plan| plan.profile == Profile::Disk));
    }
}
