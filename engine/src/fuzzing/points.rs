//! The moments of a script at which a power cut is tried: the device as it is, with what is in flight to it, and what
//! must be found after it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::io::Op;
use crate::io::simulated::{SimDisk, SimImage, Unsynced};
use crate::types::CheckpointInfo;

use super::cabinet::Cabinet;
use super::oracle::Oracle;

/// What must be found.
#[derive(Clone, Default, Debug)]
pub(super) struct Truth {
    pub(super) oracle: Oracle,
    /// The newest checkpoint that was reported durable.
    pub(super) checkpoint: Option<CheckpointInfo>,
    /// The state in each checkpoint that was begun, by its index.
    pub(super) cabinets: BTreeMap<u64, Cabinet>,
}

/// One moment.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) image: SimImage,
    pub(super) truth: Truth,
    /// Whether a directory was being opened.
    pub(super) in_open: bool,
}

/// Notes the moments of a script. Clones are the same recorder.
#[derive(Clone, Default, Debug)]
pub(super) struct Recorder(Rc<RefCell<Recording>>);

#[derive(Default, Debug)]
struct Recording {
    truth: Truth,
    in_open: bool,
    /// What tells one moment from the one before it.
    last: Option<(Vec<Unsynced>, usize, u64)>,
    points: Vec<Point>,
}

impl Recorder {
    /// From now on this must be found.
    pub(super) fn expect(&self, truth: Truth, in_open: bool) {
        let mut recording = self.0.borrow_mut();
        recording.truth = truth;
        recording.in_open = in_open;
    }

    /// Notes the moment before this operation, if it changes anything.
    pub(super) fn before(&self, device: &SimDisk, op: &Op) {
        let reads = matches!(op, Op::Read { .. } | Op::Close { .. });
        if !reads && self.0.borrow().in_open {
            self.note(device);
        }
    }

    /// Notes this moment unless the last one that was noted is the same.
    pub(super) fn note(&self, device: &SimDisk) {
        let recording = &mut *self.0.borrow_mut();
        let unsynced = device.unsynced();
        let told = recording.truth.oracle.told();
        let durable = recording.truth.checkpoint.map_or(0, |info| info.at.index);
        let moment = Some((unsynced, told, durable));
        if recording.last != moment {
            recording.last = moment;
            recording.points.push(Point {
                image: device.snapshot(),
                truth: recording.truth.clone(),
                in_open: recording.in_open,
            });
        }
    }

    pub(super) fn take(&self) -> Vec<Point> {
        std::mem::take(&mut self.0.borrow_mut().points)
    }
}
