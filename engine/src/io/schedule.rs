//! Which waiting operation goes to the device next.
//!
//! Commits go first, always. The other classes share what is left by weight (a stride scheduler that counts bytes), and
//! each has a limit on what it may have running, in operations and in bytes, as have the bulk classes together: all but
//! commits and reads. A commit finds no more before it in the device's queue than those limits add up to, whatever floods
//! which class. While commits come the others have a quarter of their limits: they stay near the device's speed, and
//! a commit waits for a quarter as long.
//!
//! Invariants:
//! - An operation that is larger than its class's limit runs when nothing else of its class does.
//! - No class is starved: the one whose turn it is is waited for, also when the bulk classes together have no room for
//!   its operation but would have for another's.

use std::collections::VecDeque;

use super::Class;

const CLASSES: usize = 8;
const OTHERS: [Class; 7] = [
    Class::Read,
    Class::Growth,
    Class::CatchUp,
    Class::Cleaning,
    Class::Checkpoint,
    Class::Background,
    Class::Scrub,
];
const COMMIT: usize = Class::Commit as usize;

/// What a turn costs a class: the inverse of its share. In the order of [`Class`].
const STRIDES: [u64; CLASSES] = [0, 1, 1, 2, 4, 4, 8, 16];

/// Up to this many bytes are one turn; more are as many as it takes.
const TURN_BYTES: usize = 64 << 10;

/// Commits are taken to have ended when the others have moved this much since the last one: about 10 ms of reading.
const CALM_BYTES: usize = 8 << 20;

/// What the limits of the others are divided by while commits come.
const BESIDE_COMMITS: usize = 4;

/// How much may run at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limit {
    /// Operations; not 0.
    pub(super) operations: usize,
    /// Bytes that they read or write. A single larger operation is let through.
    pub(super) bytes: usize,
}

impl Limit {
    pub(super) const fn new(operations: usize, bytes: usize) -> Limit {
        Limit { operations, bytes }
    }

    fn beside_commits(self) -> Limit {
        let Limit { operations, bytes } = self;
        let fewer = (operations / BESIDE_COMMITS).max(2).min(operations);
        Limit::new(fewer, bytes / BESIDE_COMMITS)
    }
}

/// How much of each may run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Per class, in the order of [`Class`].
    pub(super) of_class: [Limit; CLASSES],
    /// The bulk classes together.
    pub(super) bulk: Limit,
}

impl Limits {
    /// The most operations that can ever run at once.
    pub(super) const fn total(&self) -> usize {
        let (mut total, mut class) = (0, 0);
        while class < CLASSES {
            total += self.of_class[class].operations;
            class += 1;
        }
        total
    }
}

/// Lets one operation run; given back when it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) struct Permit {
    class: Class,
    bytes: usize,
}

/// What runs of a class.
#[derive(Clone, Copy, Default, Debug)]
struct Running {
    operations: usize,
    bytes: usize,
}

impl Running {
    fn has_room(&self, bytes: usize, limit: Limit) -> bool {
        self.operations == 0
            || (self.operations < limit.operations && self.bytes + bytes <= limit.bytes)
    }

    fn begin(&mut self, bytes: usize) {
        self.operations += 1;
        self.bytes += bytes;
    }

    fn end(&mut self, bytes: usize) {
        assert!(self.operations > 0);
        assert!(self.bytes >= bytes);
        self.operations -= 1;
        self.bytes -= bytes;
    }
}

#[derive(Debug)]
pub(super) struct Schedule<T> {
    queues: [VecDeque<(usize, T)>; CLASSES],
    running: [Running; CLASSES],
    /// Of the bulk classes together.
    bulk: Running,
    /// Virtual time up to which each class has been served.
    passes: [u64; CLASSES],
    virtual_now: u64,
    /// What the others have moved since the last commit; no more is counted than makes it calm.
    moved: usize,
    limits: Limits,
}

impl<T> Schedule<T> {
    /// Requires: no limit is 0.
    pub(super) fn new(limits: Limits) -> Schedule<T> {
        assert!(limits.bulk.operations > 0);
        assert!(limits.of_class.iter().all(|limit| limit.operations > 0));
        Schedule {
            queues: Default::default(),
            running: [Running::default(); CLASSES],
            bulk: Running::default(),
            passes: [0; CLASSES],
            virtual_now: 0,
            moved: CALM_BYTES,
            limits,
        }
    }

    /// Takes in an operation that has so many bytes at the device at once.
    pub(super) fn push(&mut self, class: Class, bytes: usize, item: T) {
        let at = class as usize;
        if self.queues[at].is_empty() {
            // Idle time earns no credit.
            self.passes[at] = self.passes[at].max(self.virtual_now);
        }
        self.queues[at].push_back((bytes, item));
    }

    /// The next operation of any class.
    pub(super) fn next(&mut self) -> Option<(Permit, T)> {
        self.next_commit().or_else(|| self.next_other())
    }

    /// The next commit, unless too many run.
    pub(super) fn next_commit(&mut self) -> Option<(Permit, T)> {
        self.has_room(Class::Commit).then(|| self.start(Class::Commit))?
    }

    /// Whether one commit waits and none runs.
    pub(super) fn is_lone_commit(&self) -> bool {
        self.queues[COMMIT].len() == 1 && self.running[COMMIT].operations == 0
    }

    /// The next operation that is not a commit, by weight among the classes below their limits.
    pub(super) fn next_other(&mut self) -> Option<(Permit, T)> {
        let first = |classes: &[Class]| {
            let waiting = classes.iter().copied().filter(|class| self.has_room(*class));
            waiting.min_by_key(|class| self.passes[*class as usize])
        };
        let class = match first(&OTHERS)? {
            class if !is_bulk(class) || self.has_bulk_room(class) => class,
            // What else is bulk waits with it, or it might wait for ever.
            _ => first(&[Class::Read])?,
        };
        self.start(class)
    }

    fn start(&mut self, class: Class) -> Option<(Permit, T)> {
        let at = class as usize;
        let (bytes, item) = self.queues[at].pop_front()?;
        self.running[at].begin(bytes);
        if is_bulk(class) {
            self.bulk.begin(bytes);
        }
        if class == Class::Commit {
            self.moved = 0;
        } else {
            self.virtual_now = self.passes[at];
            self.passes[at] += STRIDES[at] * bytes.div_ceil(TURN_BYTES).max(1) as u64;
        }
        Some((Permit { class, bytes }, item))
    }

    /// An operation that `next` handed out has ended.
    pub(super) fn finished(&mut self, permit: Permit) {
        let Permit { class, bytes } = permit;
        self.running[class as usize].end(bytes);
        if class != Class::Commit && self.running[COMMIT].operations == 0 {
            self.moved = self.moved.saturating_add(bytes.max(TURN_BYTES / 16)).min(CALM_BYTES);
        }
        if is_bulk(class) {
            self.bulk.end(bytes);
        }
    }

    /// Removes what has not been handed out.
    pub(super) fn take_queued(&mut self) -> Vec<T> {
        let queues = self.queues.iter_mut().flat_map(std::mem::take);
        queues.map(|(_, item)| item).collect()
    }

    /// Whether something of this class waits that its own limit lets run.
    fn has_room(&self, class: Class) -> bool {
        let at = class as usize;
        let limit = self.limit(class, self.limits.of_class[at]);
        let next = self.queues[at].front();
        next.is_some_and(|(bytes, _)| self.running[at].has_room(*bytes, limit))
    }

    /// What becomes of a limit while commits come.
    fn limit(&self, class: Class, limit: Limit) -> Limit {
        let is_beside = class != Class::Commit && self.moved < CALM_BYTES;
        if is_beside { limit.beside_commits() } else { limit }
    }

    fn has_bulk_room(&self, class: Class) -> bool {
        let next = self.queues[class as usize].front();
        let limit = self.limit(class, self.limits.bulk);
        next.is_some_and(|(bytes, _)| self.bulk.has_room(*bytes, limit))
    }
}

fn is_bulk(class: Class) -> bool {
    !matches!(class, Class::Commit | Class::Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUCH: usize = usize::MAX / 2;

    fn limits(operations: [usize; CLASSES], bulk: usize) -> Limits {
        Limits {
            of_class: operations.map(|operations| Limit::new(operations, MUCH)),
            bulk: Limit::new(bulk, MUCH),
        }
    }

    fn schedule() -> Schedule<u32> {
        Schedule::new(limits([2, 4, 1, 2, 2, 2, 1, 1], 3))
    }

    fn drain(schedule: &mut Schedule<u32>) -> Vec<(Class, u32)> {
        let next = || schedule.next().map(|(permit, item)| (permit.class, item));
        std::iter::from_fn(next).collect()
    }

    /// Serves the classes other than commits one operation at a time, and counts the bytes of each.
    fn serve(schedule: &mut Schedule<u32>, turns: usize) -> [usize; CLASSES] {
        let mut served = [0; CLASSES];
        for _ in 0..turns {
            let (permit, _) = schedule.next_other().unwrap();
            served[permit.class as usize] += permit.bytes.max(1);
            schedule.finished(permit);
        }
        served
    }

    #[test]
    fn commits_go_first_whatever_was_queued_before() {
        let mut schedule = schedule();
        schedule.push(Class::Background, 0, 1);
        schedule.push(Class::Read, 0, 2);
        schedule.push(Class::Commit, 0, 3);
        let classes: Vec<Class> =
            drain(&mut schedule).into_iter().map(|(class, _)| class).collect();
        assert_eq!(classes, [Class::Commit, Class::Read, Class::Background]);
    }

    #[test]
    fn a_class_keeps_its_own_order() {
        let mut schedule = schedule();
        (0..4).for_each(|item| schedule.push(Class::Read, 0, item));
        let items: Vec<u32> = drain(&mut schedule).into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [0, 1, 2, 3]);
    }

    #[test]
    fn bulk_classes_together_stay_below_their_limit_and_leave_reads_alone() {
        let mut schedule = schedule();
        for item in 0..10 {
            OTHERS[1..].iter().for_each(|class| schedule.push(*class, 0, item));
        }
        assert_eq!(drain(&mut schedule).len(), 3);
        schedule.push(Class::Read, 0, 0);
        schedule.push(Class::Commit, 0, 0);
        assert_eq!(drain(&mut schedule), [(Class::Commit, 0), (Class::Read, 0)]);
    }

    #[test]
    fn a_flood_of_any_class_leaves_no_more_bytes_before_a_commit_than_its_limit() {
        for class in OTHERS {
            let mut limits = limits([64; CLASSES], 64);
            limits.of_class[class as usize].bytes = 1_000;
            let mut schedule = Schedule::new(limits);
            (0..100).for_each(|item| schedule.push(class, 300, item));
            let running: Vec<Permit> =
                std::iter::from_fn(|| schedule.next()).map(|(permit, _)| permit).collect();
            assert_eq!(running.iter().map(|permit| permit.bytes).sum::<usize>(), 900, "{class:?}");
            schedule.push(Class::Commit, 1 << 20, 7);
            assert_eq!(drain(&mut schedule), [(Class::Commit, 7)]);
        }
    }

    #[test]
    fn while_commits_come_the_others_have_a_quarter_and_all_of_it_when_they_have_ended() {
        for class in OTHERS {
            let limits = limits([64; CLASSES], 64);
            let bytes = Limit::new(64, 64 << 10);
            let limits = Limits { of_class: [bytes; CLASSES], ..limits };
            let mut schedule = Schedule::new(limits);
            (0..10_000).for_each(|item| schedule.push(class, 1 << 10, item));
            schedule.push(Class::Commit, 1 << 20, 7);
            let (commit, _) = schedule.next().unwrap();
            let mut running = VecDeque::new();
            let mut moved = 0;
            schedule.finished(commit);
            while running.len() <= 16 {
                running.extend(std::iter::from_fn(|| schedule.next()).map(|(permit, _)| permit));
                assert!(running.len() == 16 || moved >= CALM_BYTES, "{class:?}");
                schedule.finished(running.pop_front().unwrap());
                moved += TURN_BYTES / 16;
                running.extend(std::iter::from_fn(|| schedule.next()).map(|(permit, _)| permit));
            }
            assert_eq!(running.len(), 64, "{class:?}");
        }
    }

    /// Cleaning and checkpoints had most of the device while entries waited for a slot in the making.
    #[test]
    fn a_slot_in_the_making_that_entries_wait_for_has_half_of_what_bulk_work_leaves() {
        let mut schedule = Schedule::new(limits([1; CLASSES], 1));
        schedule.push(Class::Growth, 256 << 10, 0);
        for item in 0..1_000 {
            schedule.push(Class::Cleaning, 512 << 10, item);
            schedule.push(Class::Checkpoint, 512 << 10, item);
        }
        let mut served = [0; CLASSES];
        for item in 0..60 {
            let (permit, _) = schedule.next_other().unwrap();
            served[permit.class as usize] += permit.bytes;
            if permit.class == Class::Growth {
                // The next piece of a slot follows the one before.
                schedule.push(Class::Growth, 256 << 10, item);
            }
            schedule.finished(permit);
        }
        let bulk = served[Class::Cleaning as usize] + served[Class::Checkpoint as usize];
        assert!(served[Class::Growth as usize] >= bulk, "{served:?}");
    }

    #[test]
    fn bulk_classes_together_stay_below_their_bytes() {
        let bulk = Limit::new(64, 1_000);
        let mut schedule = Schedule::new(Limits { bulk, ..limits([64; CLASSES], 64) });
        for item in 0..10 {
            OTHERS[1..].iter().for_each(|class| schedule.push(*class, 300, item));
        }
        assert_eq!(drain(&mut schedule).len(), 3);
    }

    #[test]
    fn an_operation_larger_than_the_limit_runs_alone_of_its_class() {
        let mut limits = limits([8; CLASSES], 8);
        limits.of_class[Class::Read as usize].bytes = 1_000;
        let mut schedule = Schedule::new(limits);
        schedule.push(Class::Read, 10, 1);
        schedule.push(Class::Read, 5_000, 2);
        schedule.push(Class::Read, 10, 3);
        for item in 1..=3 {
            let (permit, next) = schedule.next().unwrap();
            assert_eq!(next, item);
            assert!(schedule.next().is_none(), "{item} runs alone");
            schedule.finished(permit);
        }
    }

    /// Small operations of the other bulk classes went on taking what became free, and a large one waited for ever.
    #[test]
    fn a_large_operation_of_a_bulk_class_is_not_passed_by_small_ones_for_ever() {
        let bulk = Limit::new(8, 1_000);
        let mut schedule = Schedule::new(Limits { bulk, ..limits([8; CLASSES], 8) });
        (0..8).for_each(|item| schedule.push(Class::CatchUp, 250, item));
        let mut running = VecDeque::new();
        running.extend(std::iter::from_fn(|| schedule.next()).map(|(permit, _)| permit));
        schedule.push(Class::Cleaning, 1_000, 100);
        let mut has_run = false;
        for item in 0..50 {
            schedule.finished(running.pop_front().unwrap());
            schedule.push(Class::CatchUp, 250, item);
            while let Some((permit, _)) = schedule.next() {
                has_run |= permit.class == Class::Cleaning;
                running.push_back(permit);
            }
        }
        assert!(has_run);
    }

    #[test]
    fn a_finished_operation_makes_room_for_the_next_of_its_class() {
        let mut schedule = schedule();
        (0..3).for_each(|item| schedule.push(Class::Commit, 0, item));
        let (permit, _) = schedule.next().unwrap();
        assert_eq!(drain(&mut schedule).len(), 1);
        schedule.finished(permit);
        assert_eq!(drain(&mut schedule), [(Class::Commit, 2)]);
    }

    #[test]
    fn each_class_gets_its_share_and_none_is_starved() {
        let mut schedule = Schedule::new(limits([1; CLASSES], 1));
        for class in OTHERS {
            (0..1_000).for_each(|item| schedule.push(class, 0, item));
        }
        assert_eq!(serve(&mut schedule, 510), [0, 160, 160, 80, 40, 40, 20, 10]);
        // Those that read much at once get their share of bytes, not of operations.
        let mut schedule = Schedule::new(limits([1; CLASSES], 1));
        for item in 0..10_000 {
            schedule.push(Class::Read, 4 << 10, item);
            schedule.push(Class::Scrub, 256 << 10, item);
            schedule.push(Class::Checkpoint, 1 << 20, item);
        }
        let served = serve(&mut schedule, 660);
        assert_eq!(served[Class::Read as usize], 640 * (4 << 10));
        assert_eq!(served[Class::Scrub as usize], 10 * (256 << 10));
        assert_eq!(served[Class::Checkpoint as usize], 10 * (1 << 20));
    }

    #[test]
    fn idle_time_earns_no_credit() {
        let mut schedule = Schedule::new(limits([1; CLASSES], 1));
        (0..1_000).for_each(|item| schedule.push(Class::Read, 0, item));
        serve(&mut schedule, 500);
        (0..10).for_each(|item| schedule.push(Class::Background, 0, item));
        let background = serve(&mut schedule, 18)[Class::Background as usize];
        assert!(background <= 3, "{background} of 18");
    }

    #[test]
    fn what_was_not_handed_out_can_be_taken_back() {
        let mut schedule = schedule();
        schedule.push(Class::Commit, 0, 1);
        schedule.push(Class::Read, 0, 2);
        let (permit, item) = schedule.next().unwrap();
        assert_eq!((permit.class, item), (Class::Commit, 1));
        assert_eq!(schedule.take_queued(), [2]);
        assert_eq!(schedule.next(), None);
    }
}
