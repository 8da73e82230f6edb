//! The disk through io_uring: one ring, used by one thread, and no thread of its own.
//!
//! Invariants:
//!
//! - What an entry points to (buffers, paths) belongs to a `Flight` in the `Table` from before the
//!   submission until its completion has been reaped. A flight is never dropped in between: when the disk
//!   goes away it drains, and what does not end in time is leaked, never freed (P8).
//! - There are at most as many flights as the submission queue has entries, and half as many as the
//!   completion queue has: a push always finds room, and completions do not overflow. The kernel is also
//!   required to keep those that would (`IORING_FEAT_NODROP`).
//! - Every result is compared with what was asked for (P7); a sync is submitted only by a caller who has
//!   seen the completions that it is to cover, or here, after the one it belongs to (P6).
//! - The ring belongs to the thread that first polls or waits. A disk without operations in flight may
//!   move: the next use from another thread makes a new ring there. With operations in flight it must
//!   not, because they live and die with the thread that submitted them; then they and all later ones
//!   end with an error.
//!
//! An error of the ring itself is final: everything ends with it, and what the kernel may still hold is
//! leaked.

#![expect(
    unsafe_code,
    reason = "the kernel is handed pointers that it uses until it says otherwise"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;

use super::bell::Bell;
use super::data_dir::{self, DataDir, PageCache};
use super::schedule::{Limit, Limits, Schedule};
use super::{Class, Completion, Disk, Done, Op, Tag, Wake};

mod files;
mod flight;
mod setup;

use files::Files;
use flight::{Flight, Next, Surroundings};
use setup::{Made, Rung};

const SUBMISSION_ENTRIES: u32 = 128;

/// What may be at the device at once.
const LIMITS: Limits = Limits {
    of_class: [
        // Commits are limited by how many frames may be in flight.
        Limit::new(32, usize::MAX),
        Limit::new(64, 1 << 20),
        // Growth, catch-up, cleaning, checkpoint, background, scrub.
        Limit::new(1, 512 << 10),
        Limit::new(8, 512 << 10),
        Limit::new(4, 512 << 10),
        Limit::new(2, 512 << 10),
        Limit::new(2, 512 << 10),
        Limit::new(1, 256 << 10),
    ],
    bulk: Limit::new(8, 1 << 20),
};

// Each flight has one entry at a time, and the waker has one.
const _: () = assert!(LIMITS.total() < SUBMISSION_ENTRIES as usize);

/// Kernel threads for operations that would block: on files, on anything else.
const KERNEL_WORKERS: [u32; 2] = [16, 2];

/// The completion that says "somebody woke you".
const WAKE: u64 = u64::MAX;

/// How often one turn enters the kernel: for each step of an operation whose steps end at once, and no
/// more when the kernel, short of memory, takes nothing.
const ROUNDS_MAX: u32 = 4;

/// How long a disk that goes away waits for what is in flight before it leaks it.
const DRAIN: Duration = Duration::from_secs(10);

/// How the files are used.
#[derive(Clone, Copy, Debug, Default)]
pub struct UringOptions {
    /// Whether to bypass the page cache.
    pub page_cache: PageCache,
}

/// A [`Disk`] on one io_uring.
pub struct UringDisk {
    ring: IoUring,
    rung: Rung,
    can_truncate: bool,
    owner: Option<ThreadId>,
    dir: DataDir,
    files: Files,
    schedule: Schedule<Flight>,
    table: Table,
    ready: Vec<Completion>,
    arrived: Vec<Arrival>,
    waker: Arc<Waker>,
    is_wake_armed: bool,
    broken: Option<(io::ErrorKind, String)>,
}

/// A completion as the ring has it.
struct Arrival {
    user_data: u64,
    result: i32,
    has_more: bool,
}

/// How long to stay in the kernel.
#[derive(Clone, Copy)]
enum Stay {
    /// Hand over and come back.
    Not,
    UntilCompletion,
    AtMost(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Returned,
    TimedOut,
}

impl UringDisk {
    /// Opens the data directory, which must exist, and makes a ring.
    ///
    /// An error without a ring says who refuses it; the caller may fall back to system calls.
    pub fn open(dir: &Path, options: UringOptions) -> io::Result<UringDisk> {
        let made = setup::make(SUBMISSION_ENTRIES)?;
        UringDisk::with_ring(made, DataDir::open(dir, options.page_cache)?)
    }

    fn with_ring(made: Made, dir: DataDir) -> io::Result<UringDisk> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(UringDisk {
            ring: made.ring,
            rung: made.rung,
            can_truncate: made.can_truncate,
            owner: None,
            dir,
            files: Files::default(),
            schedule: Schedule::new(LIMITS),
            table: Table::new(LIMITS.total()),
            ready: Vec::new(),
            arrived: Vec::new(),
            waker: Arc::new(Waker { bell: Bell::default(), eventfd }),
            is_wake_armed: false,
            broken: None,
        })
    }

    /// Makes the calling thread the ring's, see the module's head.
    fn attach(&mut self) {
        let here = thread::current().id();
        if self.owner == Some(here) || self.broken.is_some() {
            return;
        }
        let attached = if self.owner.is_none() {
            self.enable()
        } else if self.table.is_empty() {
            self.renew()
        } else {
            Err(io::Error::other("the disk moved to another thread with operations in flight"))
        };
        self.owner = Some(here);
        if let Err(error) = attached {
            self.break_down(&error);
        }
    }

    fn enable(&mut self) -> io::Result<()> {
        let ring = self.ring.submitter();
        if self.rung == Rung::Deferred {
            ring.register_enable_rings()?;
        }
        // A limit only; kernels before 5.15 have another.
        drop(ring.register_iowq_max_workers(&mut KERNEL_WORKERS.clone()));
        self.files.move_to(&ring);
        Ok(())
    }

    fn renew(&mut self) -> io::Result<()> {
        let made = setup::make(SUBMISSION_ENTRIES)?;
        self.ring = made.ring;
        self.rung = made.rung;
        self.is_wake_armed = false;
        self.enable()
    }

    /// Ends everything with `error`. The kernel may still hold what the table owns, so it stays there.
    fn break_down(&mut self, error: &io::Error) {
        if self.broken.is_some() {
            return;
        }
        self.broken = Some((error.kind(), format!("io_uring is out of order: {error}")));
        let queued = self.schedule.take_queued();
        let tags = queued.iter().map(|flight| flight.tag).chain(self.table.tags());
        let ends: Vec<Completion> = tags
            .filter_map(|tag| Some(Completion { tag, result: Err(self.broken_error()?) }))
            .collect();
        self.ready.extend(ends);
    }

    fn broken_error(&self) -> Option<io::Error> {
        self.broken.as_ref().map(|(kind, message)| io::Error::new(*kind, message.clone()))
    }

    /// Moves what the schedule allows into the submission queue.
    fn fill(&mut self) {
        if !self.is_wake_armed {
            let (fd, events) = (Fd(self.waker.eventfd.as_raw_fd()), PollFlags::IN.bits().into());
            let entry = opcode::PollAdd::new(fd, events).multi(true).build().user_data(WAKE);
            self.push(&entry);
            self.is_wake_armed = true;
        }
        self.files.leave_places(&self.ring.submitter());
        while let Some((permit, mut flight)) = self.schedule.next() {
            flight.permit = Some(permit);
            let place = self.table.insert(flight);
            self.push_flight(place);
        }
    }

    fn push_flight(&mut self, place: usize) {
        let entry = self.table.flight(place).entry(&self.dir).user_data(place as u64);
        self.push(&entry);
    }

    fn push(&mut self, entry: &Entry) {
        // SAFETY: the entry is the waker's poll, which points to nothing, or of a flight in `self.table`,
        // which owns what it points to, is not changed before its completion is reaped and, by `Drop`,
        // not freed either. Its descriptors are those of `self.dir`, `self.waker`, or of the flight.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("fewer flights than submission entries");
    }

    /// Hands the submission queue to the kernel.
    fn enter(&mut self, stay: Stay) -> Entered {
        let ring = self.ring.submitter();
        let result = match stay {
            Stay::Not => ring.submit(),
            Stay::UntilCompletion => ring.submit_and_wait(1),
            Stay::AtMost(timeout) => {
                let time = Timespec::from(timeout);
                ring.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        let Err(error) = result else { return Entered::Returned };
        match Errno::from_io_error(&error) {
            Some(Errno::TIME) => return Entered::TimedOut,
            // Entries that were not taken stay queued; a later call hands them over.
            Some(Errno::INTR | Errno::AGAIN | Errno::BUSY) => {}
            _ => self.break_down(&error),
        }
        Entered::Returned
    }

    /// Whether the kernel has something to take or, perhaps, to give.
    ///
    /// Not a condition to loop on: when a completion races with the work that delivers it, the kernel
    /// raises the "something to give" flag after that work has lowered it, and with nothing left to give
    /// it stays up until the next completion.
    fn is_kernel_needed(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Everything that can be done without blocking.
    fn turn(&mut self) {
        if self.broken.is_some() {
            return;
        }
        self.fill();
        self.reap();
        if !self.is_kernel_needed() {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            self.enter(Stay::Not);
            self.reap();
            self.fill();
            if self.broken.is_some() || self.ring.submission().is_empty() {
                break;
            }
        }
    }

    /// Hands over what is queued and blocks until an operation has ended, the bell was rung or time is up.
    fn sleep(&mut self, timeout: Option<Duration>) {
        // A deadline beyond the end of time is none.
        let deadline = timeout.and_then(|timeout| now().checked_add(timeout));
        while self.broken.is_none() && self.ready.is_empty() {
            let stay = match deadline {
                None => Stay::UntilCompletion,
                Some(deadline) => Stay::AtMost(deadline.saturating_duration_since(now())),
            };
            let entered = self.enter(stay);
            self.reap();
            self.fill();
            if entered == Entered::TimedOut || self.waker.bell.is_rung() {
                break;
            }
        }
    }

    /// Takes the completions out of the ring and acts on them.
    fn reap(&mut self) {
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.extend(self.ring.completion().map(|entry| Arrival {
            user_data: entry.user_data(),
            result: entry.result(),
            has_more: cqueue::more(entry.flags()),
        }));
        for arrival in arrived.drain(..) {
            if self.broken.is_some() {
                // Everything has ended already.
                break;
            }
            if arrival.user_data == WAKE {
                self.on_wake(&arrival);
            } else {
                self.on_flight(&arrival);
            }
        }
        self.arrived = arrived;
    }

    fn on_wake(&mut self, arrival: &Arrival) {
        if !arrival.has_more {
            self.is_wake_armed = false;
        }
        if arrival.result < 0 {
            self.break_down(&Errno::from_raw_os_error(-arrival.result).into());
        }
    }

    fn on_flight(&mut self, arrival: &Arrival) {
        let place = usize::try_from(arrival.user_data).expect("a place in the table");
        let (result, opened) = self.outcome(place, arrival.result);
        let around = Surroundings { dir: &self.dir, can_truncate: self.can_truncate };
        match self.table.flight(place).advance(result, opened, &around) {
            Next::Submit => self.push_flight(place),
            Next::Opened { fd, direct } => {
                let opened = self.add_file(fd, direct);
                self.end(place, opened);
            }
            Next::Ended(result) => self.end(place, result),
        }
    }

    /// The result of a step, and the descriptor it brought, which from here on has an owner.
    fn outcome(&mut self, place: usize, result: i32) -> (Result<u32, Errno>, Option<OwnedFd>) {
        let Ok(count) = u32::try_from(result) else {
            return (Err(Errno::from_raw_os_error(-result)), None);
        };
        if !self.table.flight(place).is_opening() {
            return (Ok(count), None);
        }
        // SAFETY: the kernel has just opened this descriptor for the step that now ends, and each
        // completion is reaped once: nobody else owns it.
        let opened = unsafe { OwnedFd::from_raw_fd(result) };
        (Ok(count), Some(opened))
    }

    fn add_file(&mut self, fd: OwnedFd, direct: bool) -> io::Result<Done> {
        // The inode of an open file is in memory: this does not wait for the device.
        let bytes = data_dir::file_bytes(&fd)?;
        let file = self.files.add(&self.ring.submitter(), fd, direct);
        Ok(Done::Opened { file, bytes })
    }

    fn end(&mut self, place: usize, result: io::Result<Done>) {
        let flight = self.table.remove(place);
        self.schedule.finished(flight.permit.expect("it came from the schedule"));
        self.ready.push(Completion { tag: flight.tag, result });
    }

    /// Waits for what the kernel holds; the steps that would follow are left out.
    fn drain(&mut self) {
        let deadline = now() + DRAIN;
        while !self.table.is_empty() && self.broken.is_none() {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() || self.enter(Stay::AtMost(left)) == Entered::TimedOut {
                return;
            }
            let arrived: Vec<(u64, i32)> = self
                .ring
                .completion()
                .map(|entry| (entry.user_data(), entry.result()))
                .filter(|(user_data, _)| *user_data != WAKE)
                .collect();
            for (user_data, result) in arrived {
                let place = usize::try_from(user_data).expect("a place in the table");
                // What a step opened is closed again.
                drop(self.outcome(place, result));
                drop(self.table.remove(place));
            }
        }
    }
}

impl Disk for UringDisk {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        op.assert_aligned();
        let bytes = op.device_bytes();
        let taken = match self.broken_error() {
            Some(error) => Err(error),
            None => Flight::new(tag, op, &mut self.files),
        };
        match taken {
            Ok(flight) => self.schedule.push(class, bytes, flight),
            Err(error) => self.ready.push(Completion { tag, result: Err(error) }),
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.attach();
        self.turn();
        out.append(&mut self.ready);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.attach();
        if !self.waker.bell.arm() {
            return self.turn();
        }
        self.fill();
        self.reap();
        if self.ready.is_empty() {
            self.sleep(timeout);
        } else {
            self.turn();
        }
        self.waker.bell.disarm();
    }

    fn may_move(&self) -> bool {
        self.table.is_empty()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        self.dir.list(dir)
    }

    fn backend(&self) -> &'static str {
        "uring"
    }

    fn is_direct(&self) -> bool {
        self.dir.is_direct()
    }
}

impl Drop for UringDisk {
    /// Waits for what is in flight; leaks what cannot be waited for.
    fn drop(&mut self) {
        if self.owner == Some(thread::current().id()) {
            self.drain();
        }
        self.table.leak();
    }
}

struct Waker {
    bell: Bell,
    eventfd: OwnedFd,
}

impl Wake for Waker {
    fn wake(&self) {
        if self.bell.ring() {
            #[expect(
                clippy::host_endian_bytes,
                reason = "an eventfd counts in the machine's order"
            )]
            let one = 1_u64.to_ne_bytes();
            // The counter is never read: each write ends the ring's wait by itself, and 2^64 of them
            // are not to be reached. So there is no error that could come back.
            drop(rustix::io::write(&self.eventfd, &one).map_err(io::Error::from));
        }
    }
}

/// The flights that the kernel has or is about to get, at places that do not move.
struct Table {
    flights: Vec<Option<Flight>>,
    vacant: Vec<usize>,
}

impl Table {
    fn new(places: usize) -> Table {
        let flights = std::iter::repeat_with(|| None).take(places).collect();
        Table { flights, vacant: (0..places).rev().collect() }
    }

    fn is_empty(&self) -> bool {
        self.vacant.len() == self.flights.len()
    }

    fn insert(&mut self, flight: Flight) -> usize {
        let place = self.vacant.pop().expect("the schedule's limits fit into the table");
        self.flights[place] = Some(flight);
        place
    }

    fn flight(&mut self, place: usize) -> &mut Flight {
        self.flights[place].as_mut().expect("a completion comes once, to a flight in the table")
    }

    fn remove(&mut self, place: usize) -> Flight {
        self.vacant.push(place);
        self.flights[place].take().expect("a completion comes once, to a flight in the table")
    }

    fn tags(&self) -> impl Iterator<Item = Tag> {
        self.flights.iter().flatten().map(|flight| flight.tag)
    }

    /// Gives up what the kernel may still use.
    fn leak(&mut self) {
        let left = self.flights.iter_mut().filter_map(Option::take);
        left.for_each(std::mem::forget);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how much of a timeout is left is the kernel's business"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
