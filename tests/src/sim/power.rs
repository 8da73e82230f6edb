//! A disk whose power can fail in the middle of a turn: after a number of operations from now.
//!
//! The simulated disk decides what a cut leaves; this one only decides when. From the cut on every operation ends
//! with an error, so that a start that waits for its reads comes to an end too.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use engine::io::simulated::{SimDisk, SimHandle};
use engine::io::{Class, Completion, Disk, Op, Tag, Wake};

/// Says when the power fails; shared by the world and the process it will end.
#[derive(Clone, Debug)]
pub struct Fuse {
    left: Arc<AtomicU64>,
    blown: Arc<AtomicBool>,
}

impl Fuse {
    /// Fails with the `operations`-th operation from now; `None`: never.
    ///
    /// Requires: `operations` is not 0.
    pub fn new(operations: Option<u64>) -> Fuse {
        let left = operations.unwrap_or(u64::MAX);
        assert!(left > 0);
        Fuse { left: Arc::new(AtomicU64::new(left)), blown: Arc::default() }
    }

    /// Like [`Fuse::new`], for a process that runs already. Does nothing to a blown fuse.
    pub fn set(&self, operations: u64) {
        assert!(operations > 0);
        self.left.store(operations, Ordering::Relaxed);
    }

    /// Whether the power has failed.
    pub fn is_blown(&self) -> bool {
        self.blown.load(Ordering::Relaxed)
    }

    /// Counts an operation; true when it is the last one.
    fn burn(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return false;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        left == 1
    }
}

/// The simulated disk in the hands of a process whose power may fail.
pub struct Power {
    disk: SimDisk,
    handle: SimHandle,
    fuse: Fuse,
    in_flight: BTreeSet<Tag>,
}

impl Power {
    /// The disk of a new process.
    pub fn new(disk: &SimDisk, fuse: Fuse) -> Power {
        let (disk, handle) = (disk.clone(), disk.handle());
        Power { disk, handle, fuse, in_flight: BTreeSet::new() }
    }

    fn cut(&mut self) {
        self.disk.crash();
        self.fuse.blown.store(true, Ordering::Relaxed);
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power of this simulated machine has failed")
}

impl Disk for Power {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        self.in_flight.insert(tag);
        if self.fuse.is_blown() {
            return;
        }
        self.handle.submit(class, tag, op);
        if self.fuse.burn() {
            self.cut();
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        if self.fuse.is_blown() {
            let dead = std::mem::take(&mut self.in_flight).into_iter();
            out.extend(dead.map(|tag| Completion { tag, result: Err(no_power()) }));
            return;
        }
        let before = out.len();
        self.handle.poll(out);
        for completion in out.iter().skip(before) {
            self.in_flight.remove(&completion.tag);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if !self.fuse.is_blown() {
            self.handle.wait(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.handle.waker()
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        if self.fuse.is_blown() {
            return Err(no_power());
        }
        self.handle.list(dir)
    }

    fn backend(&self) -> &'static str {
        self.handle.backend()
    }

    fn is_direct(&self) -> bool {
        self.handle.is_direct()
    }
}

#[cfg(test)]
mod tests {
    use engine::io::OpenMode;
    use engine::io::simulated::SimFaults;

    use super::*;

    fn open(power: &mut Power, tag: u64) {
        let op = Op::Open { path: format!("file{tag}"), mode: OpenMode::CreateNew };
        power.submit(Class::Background, Tag(tag), op);
    }

    #[test]
    fn operations_end_with_an_error_once_the_power_has_failed() {
        let disk = SimDisk::new(1, SimFaults::none());
        let mut power = Power::new(&disk, Fuse::new(Some(2)));
        open(&mut power, 1);
        assert!(!power.fuse.is_blown());
        open(&mut power, 2);
        assert!(power.fuse.is_blown());
        open(&mut power, 3);
        let mut out = Vec::new();
        power.poll(&mut out);
        assert_eq!(out.iter().map(|done| done.tag.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(out.iter().all(|done| done.result.is_err()));
        assert_eq!(disk.counters().crashes, 1);
    }
}
