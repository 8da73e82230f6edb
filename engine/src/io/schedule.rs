//! Which waiting operation goes to the device next.
//!
//! Commits go first, always. The other classes share what is left by weight (a stride scheduler), and
//! each has a limit on what it may have running, as have the bulk classes together; so a checkpoint can
//! fill neither the device's queue nor the threads, and none of them is starved by another.

use std::collections::VecDeque;

use super::Class;

const CLASSES: usize = 5;
const OTHERS: [Class; 4] = [Class::Read, Class::CatchUp, Class::Checkpoint, Class::Background];
const COMMIT: usize = Class::Commit as usize;

/// What a turn costs a class: the inverse of its share.
const STRIDES: [u64; CLASSES] = [0, 1, 2, 4, 8];

/// How many operations may run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Per class, in the order of [`Class`].
    pub(super) of_class: [usize; CLASSES],
    /// Catch-up, checkpoint and background together.
    pub(super) bulk: usize,
}

impl Limits {
    /// The most that can ever run at once.
    pub(super) const fn total(&self) -> usize {
        self.of_class[0] + self.of_class[1] + self.of_class[2] + self.of_class[3] + self.of_class[4]
    }
}

#[derive(Debug)]
pub(super) struct Schedule<T> {
    queues: [VecDeque<T>; CLASSES],
    running: [usize; CLASSES],
    /// Virtual time up to which each class has been served.
    passes: [u64; CLASSES],
    virtual_now: u64,
    limits: Limits,
}

impl<T> Schedule<T> {
    /// Requires: no limit is 0.
    pub(super) fn new(limits: Limits) -> Schedule<T> {
        assert!(limits.bulk > 0);
        assert!(limits.of_class.iter().all(|&limit| limit > 0));
        Schedule {
            queues: Default::default(),
            running: [0; CLASSES],
            passes: [0; CLASSES],
            virtual_now: 0,
            limits,
        }
    }

    pub(super) fn push(&mut self, class: Class, item: T) {
        let at = class as usize;
        if self.queues[at].is_empty() {
            // Idle time earns no credit.
            self.passes[at] = self.passes[at].max(self.virtual_now);
        }
        self.queues[at].push_back(item);
    }

    /// The next operation of any class.
    pub(super) fn next(&mut self) -> Option<(Class, T)> {
        self.next_commit().or_else(|| self.next_other())
    }

    /// The next commit, unless too many run.
    pub(super) fn next_commit(&mut self) -> Option<(Class, T)> {
        if self.running[COMMIT] == self.limits.of_class[COMMIT] {
            return None;
        }
        let item = self.queues[COMMIT].pop_front()?;
        self.running[COMMIT] += 1;
        Some((Class::Commit, item))
    }

    /// Whether one commit waits and none runs.
    pub(super) fn is_lone_commit(&self) -> bool {
        self.queues[COMMIT].len() == 1 && self.running[COMMIT] == 0
    }

    /// The next operation that is not a commit, by weight among the classes below their limits.
    pub(super) fn next_other(&mut self) -> Option<(Class, T)> {
        let class = OTHERS
            .into_iter()
            .filter(|&class| self.may_run(class))
            .min_by_key(|&class| self.passes[class as usize])?;
        let at = class as usize;
        let item = self.queues[at].pop_front()?;
        self.virtual_now = self.passes[at];
        self.passes[at] += STRIDES[at];
        self.running[at] += 1;
        Some((class, item))
    }

    /// An operation that `next` handed out has ended.
    pub(super) fn finished(&mut self, class: Class) {
        let running = &mut self.running[class as usize];
        assert!(*running > 0);
        *running -= 1;
    }

    /// Removes what has not been handed out.
    pub(super) fn take_queued(&mut self) -> Vec<T> {
        self.queues.iter_mut().flat_map(std::mem::take).collect()
    }

    fn may_run(&self, class: Class) -> bool {
        let at = class as usize;
        let bulk: usize = self.running[Class::CatchUp as usize..].iter().sum();
        !self.queues[at].is_empty()
            && self.running[at] < self.limits.of_class[at]
            && (class == Class::Read || bulk < self.limits.bulk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule<u32> {
        Schedule::new(Limits { of_class: [2, 4, 2, 2, 1], bulk: 3 })
    }

    fn drain(schedule: &mut Schedule<u32>) -> Vec<(Class, u32)> {
        std::iter::from_fn(|| schedule.next()).collect()
    }

    #[test]
    fn commits_go_first_whatever_was_queued_before() {
        let mut schedule = schedule();
        schedule.push(Class::Background, 1);
        schedule.push(Class::Read, 2);
        schedule.push(Class::Commit, 3);
        let classes: Vec<Class> =
            drain(&mut schedule).into_iter().map(|(class, _)| class).collect();
        assert_eq!(classes, [Class::Commit, Class::Read, Class::Background]);
    }

    #[test]
    fn a_class_keeps_its_own_order() {
        let mut schedule = schedule();
        (0..4).for_each(|item| schedule.push(Class::Read, item));
        let items: Vec<u32> = drain(&mut schedule).into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [0, 1, 2, 3]);
    }

    #[test]
    fn bulk_classes_together_stay_below_their_limit_and_leave_reads_alone() {
        let mut schedule = schedule();
        for item in 0..10 {
            schedule.push(Class::CatchUp, item);
            schedule.push(Class::Checkpoint, item);
            schedule.push(Class::Background, item);
        }
        assert_eq!(drain(&mut schedule).len(), 3);
        schedule.push(Class::Read, 0);
        schedule.push(Class::Commit, 0);
        assert_eq!(drain(&mut schedule), [(Class::Commit, 0), (Class::Read, 0)]);
    }

    #[test]
    fn a_finished_operation_makes_room_for_the_next_of_its_class() {
        let mut schedule = schedule();
        (0..3).for_each(|item| schedule.push(Class::Commit, item));
        assert_eq!(drain(&mut schedule).len(), 2);
        schedule.finished(Class::Commit);
        assert_eq!(drain(&mut schedule), [(Class::Commit, 2)]);
    }

    #[test]
    fn a_busy_class_does_not_starve_the_others() {
        let mut schedule = Schedule::new(Limits { of_class: [1, 1, 1, 1, 1], bulk: 1 });
        let mut served = [0; CLASSES];
        for class in OTHERS {
            (0..1_000).for_each(|item| schedule.push(class, item));
        }
        for _ in 0..150 {
            let (class, _) = schedule.next_other().unwrap();
            served[class as usize] += 1;
            schedule.finished(class);
        }
        assert_eq!(served, [0, 80, 40, 20, 10]);
    }

    #[test]
    fn idle_time_earns_no_credit() {
        let mut schedule = Schedule::new(Limits { of_class: [1, 1, 1, 1, 1], bulk: 1 });
        (0..1_000).for_each(|item| schedule.push(Class::Read, item));
        for _ in 0..500 {
            schedule.next_other().unwrap();
            schedule.finished(Class::Read);
        }
        (0..10).for_each(|item| schedule.push(Class::Background, item));
        let mut background = 0;
        for _ in 0..18 {
            let (class, _) = schedule.next_other().unwrap();
            background += u32::from(class == Class::Background);
            schedule.finished(class);
        }
        assert!(background <= 3, "{background} of 18");
    }

    #[test]
    fn what_was_not_handed_out_can_be_taken_back() {
        let mut schedule = schedule();
        schedule.push(Class::Commit, 1);
        schedule.push(Class::Read, 2);
        assert_eq!(schedule.next(), Some((Class::Commit, 1)));
        assert_eq!(schedule.take_queued(), [2]);
        assert_eq!(schedule.next(), None);
    }
}
