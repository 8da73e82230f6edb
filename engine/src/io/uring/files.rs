//! Open files by name, with their places in the ring's table of registered files.
//!
//! A registered file saves the kernel the look-up of its descriptor with each operation. The table has a
//! fixed number of places; files beyond it are used by descriptor.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use io_uring::Submitter;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;

use crate::io::{FileId, data_dir};

const PLACES: u32 = 1_024;
const VACANT: RawFd = -1;
const NOWHERE: u32 = u32::MAX;

pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    pub(super) direct: bool,
    /// Where it is in the table, or [`NOWHERE`]. Only the ring's thread looks.
    place: AtomicU32,
}

impl OpenFile {
    /// What the entry of an operation names; [`OpenFile::aim`] tells the kernel what kind of name it is.
    pub(super) fn target(&self) -> Fd {
        match self.place() {
            Some(place) => Fd(place.cast_signed()),
            None => Fd(self.fd.as_raw_fd()),
        }
    }

    pub(super) fn aim(&self, entry: Entry) -> Entry {
        match self.place() {
            Some(_) => entry.flags(Flags::FIXED_FILE),
            None => entry,
        }
    }

    fn place(&self) -> Option<u32> {
        let place = self.place.load(Ordering::Relaxed);
        (place != NOWHERE).then_some(place)
    }
}

#[derive(Default)]
pub(super) struct Files {
    open: BTreeMap<FileId, Arc<OpenFile>>,
    opened: u32,
    vacant: Vec<u32>,
    /// Places whose file was closed and is still in the kernel's table.
    left: Vec<u32>,
}

impl Files {
    /// Gives a new ring a table with every open file. Without one everything works by descriptor.
    ///
    /// Requires: nothing is in flight on another ring.
    pub(super) fn move_to(&mut self, ring: &Submitter<'_>) {
        let vacant = vec![VACANT; PLACES as usize];
        self.vacant = match ring.register_files(&vacant) {
            Ok(()) => (0..PLACES).rev().collect(),
            Err(_) => Vec::new(),
        };
        self.left.clear();
        let open: Vec<Arc<OpenFile>> = self.open.values().cloned().collect();
        for file in open {
            file.place.store(self.register(ring, &file.fd), Ordering::Relaxed);
        }
    }

    pub(super) fn add(&mut self, ring: &Submitter<'_>, fd: OwnedFd, direct: bool) -> FileId {
        let place = AtomicU32::new(self.register(ring, &fd));
        let id = FileId(self.opened);
        self.opened = self.opened.checked_add(1).expect("fewer than 2^32 opens in one life");
        self.open.insert(id, Arc::new(OpenFile { fd, direct, place }));
        id
    }

    fn register(&mut self, ring: &Submitter<'_>, fd: &OwnedFd) -> u32 {
        let Some(place) = self.vacant.pop() else { return NOWHERE };
        if ring.register_files_update(place, &[fd.as_raw_fd()]).is_ok() {
            return place;
        }
        self.vacant.push(place);
        NOWHERE
    }

    pub(super) fn file(&self, id: FileId) -> io::Result<Arc<OpenFile>> {
        self.open.get(&id).cloned().ok_or_else(|| data_dir::not_open(id))
    }

    /// Takes a file out of the names and hands its descriptor to whoever closes it.
    pub(super) fn close(&mut self, id: FileId) -> io::Result<OwnedFd> {
        let file = self.open.remove(&id).ok_or_else(|| data_dir::not_open(id))?;
        match Arc::try_unwrap(file) {
            Ok(file) => {
                self.left.extend(file.place());
                Ok(file.fd)
            }
            Err(file) => {
                self.open.insert(id, file);
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("file {} has operations in flight", id.0),
                ))
            }
        }
    }

    /// Empties the places of closed files. Before their descriptors are closed, so that the close is the
    /// last one and its work falls to the worker that does it.
    pub(super) fn leave_places(&mut self, ring: &Submitter<'_>) {
        for place in self.left.drain(..) {
            if ring.register_files_update(place, &[VACANT]).is_ok() {
                self.vacant.push(place);
            }
        }
    }

    /// As if the table were full.
    #[cfg(test)]
    pub(super) fn forget_places(&mut self) {
        self.vacant.clear();
    }
}
