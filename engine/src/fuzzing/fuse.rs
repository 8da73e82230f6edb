//! A disk whose power goes at a chosen operation, so that a crash can be tried at every one.

use std::cell::Cell;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::points::Recorder;
use crate::io::simulated::{SimDisk, SimHandle};
use crate::io::{Class, Completion, Disk, Op, Tag, Wake};

/// What unwinds out of the process when its power goes.
#[derive(Debug)]
pub struct PowerCut;

/// How many operations are left before the power goes. Clones are the same fuse.
#[derive(Clone, Debug)]
pub struct Fuse(Rc<Cell<u64>>);

impl Default for Fuse {
    fn default() -> Fuse {
        Fuse(Rc::new(Cell::new(u64::MAX)))
    }
}

impl Fuse {
    /// The power goes in place of operation number `left`, from 0.
    pub fn set(&self, left: u64) {
        self.0.set(left);
    }

    /// The power stays.
    pub fn disarm(&self) {
        self.0.set(u64::MAX);
    }
}

/// A simulated disk behind a fuse.
pub struct FusedDisk {
    device: SimDisk,
    disk: SimHandle,
    fuse: Fuse,
    recorder: Option<Recorder>,
}

impl FusedDisk {
    /// The disk of a new process.
    pub(super) fn new(device: &SimDisk, fuse: &Fuse, recorder: Option<Recorder>) -> FusedDisk {
        let (disk, device) = (device.handle(), device.clone());
        FusedDisk { device, disk, fuse: fuse.clone(), recorder }
    }
}

impl Disk for FusedDisk {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        let Some(left) = self.fuse.0.get().checked_sub(1) else {
            self.fuse.disarm();
            self.device.crash();
            resume_unwind(Box::new(PowerCut));
        };
        self.fuse.0.set(left);
        if let Some(recorder) = &self.recorder {
            recorder.before(&self.device, &op);
        }
        self.disk.submit(class, tag, op);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.disk.poll(out);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.disk.wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.disk.waker()
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn backend(&self) -> &'static str {
        self.disk.backend()
    }

    fn is_direct(&self) -> bool {
        self.disk.is_direct()
    }
}
