//! A disk that is full when the directory has what it was allowed.
//!
//! The limit is kept where files grow: an allocation beyond it ends with the error of a full file system, and everything
//! above behaves as on one. Nothing else makes a file of the engine larger, but for `META`, which is small.
//!
//! Invariant: what is counted is at least what the open files have; a file that has no name any more counts until it is
//! closed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::io::{Class, Completion, Disk, Done, FileId, Op, Tag, Wake};
use crate::mutant::{self, Mutant};

/// A disk whose files may have so many bytes together.
pub(crate) struct Limited<D> {
    disk: D,
    bytes_max: u128,
    bytes: BTreeMap<FileId, u64>,
    used: u128,
    /// The ends of operations that the disk never saw.
    refused: Vec<Completion>,
}

impl<D: Disk> Limited<D> {
    /// A limit of 0 is none.
    pub(crate) fn new(disk: D, bytes_max: u64) -> Limited<D> {
        let bytes_max = if bytes_max == 0 { u128::MAX } else { u128::from(bytes_max) };
        Limited { disk, bytes_max, bytes: BTreeMap::new(), used: 0, refused: Vec::new() }
    }

    /// Whether the file may have this size. It counts from now on, also if the disk refuses it.
    fn may_have(&mut self, file: FileId, bytes: u64) -> bool {
        let now = self.bytes.get(&file).copied().unwrap_or(0);
        let used = self.used - u128::from(now) + u128::from(bytes);
        if bytes > now && used > self.bytes_max && !mutant::is(Mutant::LimitIgnored) {
            return false;
        }
        self.bytes.insert(file, bytes);
        self.used = used;
        true
    }

    fn closed(&mut self, file: FileId) {
        self.used -= u128::from(self.bytes.remove(&file).unwrap_or(0));
    }

    fn opened(&mut self, file: FileId, bytes: u64) {
        self.closed(file);
        self.bytes.insert(file, bytes);
        self.used += u128::from(bytes);
    }
}

impl<D: Disk> Disk for Limited<D> {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        if let Op::Allocate { file, bytes } = op
            && !self.may_have(file, bytes)
        {
            let what = "the directory has all the space that it is allowed";
            let full = io::Error::new(io::ErrorKind::StorageFull, what);
            self.refused.push(Completion { tag, result: Err(full) });
            return;
        }
        if let Op::Close { file } = op {
            self.closed(file);
        }
        self.disk.submit(class, tag, op);
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.refused);
        let before = out.len();
        self.disk.poll(out);
        for completion in &out[before..] {
            if let Ok(Done::Opened { file, bytes }) = completion.result {
                self.opened(file, bytes);
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        if self.refused.is_empty() {
            self.disk.wait(timeout);
        }
    }

    fn may_move(&self) -> bool {
        self.disk.may_move()
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
