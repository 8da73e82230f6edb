//! A directory that is only looked at: files are opened for reading, and nothing is ever changed.
//!
//! Every operation is done when it is submitted, by plain reads through the page cache, so that one thread and no ring
//! will do. Syncs have nothing to make durable and succeed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::data_dir::{self, DataDir, PageCache};
use super::{Class, Completion, Disk, Done, FileId, Op, OpenMode, Tag, Wake, path};
use crate::buffer::AlignedBuf;

/// A [`Disk`] that reads and refuses everything else.
pub struct OfflineDisk {
    dir: DataDir,
    files: BTreeMap<FileId, OwnedFd>,
    opened: u32,
    ended: Vec<Completion>,
    on_read: Box<dyn FnMut(u64)>,
}

impl OfflineDisk {
    /// Opens the data directory, which must exist. `on_read` is told of the bytes of each read, for a progress bar.
    pub fn open(dir: &Path, on_read: impl FnMut(u64) + 'static) -> io::Result<OfflineDisk> {
        Ok(OfflineDisk {
            dir: DataDir::open(dir, PageCache::Use)?,
            files: BTreeMap::new(),
            opened: 0,
            ended: Vec::new(),
            on_read: Box::new(on_read),
        })
    }

    fn run(&mut self, op: Op) -> io::Result<Done> {
        match op {
            Op::Open { path, mode: OpenMode::Existing } => self.open_file(&path),
            Op::Read { file, offset, buf } => self.read(file, offset, buf),
            Op::Close { file } => self
                .files
                .remove(&file)
                .map(|_| Done::Nothing)
                .ok_or_else(|| data_dir::not_open(file)),
            Op::Sync { .. } | Op::SyncDir { .. } => Ok(Done::Nothing),
            Op::Open { mode: OpenMode::CreateNew, .. }
            | Op::Allocate { .. }
            | Op::Write { .. }
            | Op::Rename { .. }
            | Op::Remove { .. }
            | Op::MakeDir { .. } => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory is only looked at",
            )),
        }
    }

    fn open_file(&mut self, name: &str) -> io::Result<Done> {
        path::check_file(name)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.dir.root, name, flags, Mode::empty())?;
        let bytes = data_dir::file_bytes(&fd)?;
        self.opened += 1;
        let file = FileId(self.opened);
        self.files.insert(file, fd);
        Ok(Done::Opened { file, bytes })
    }

    fn read(&mut self, file: FileId, offset: u64, mut buf: AlignedBuf) -> io::Result<Done> {
        let fd = self.files.get(&file).ok_or_else(|| data_dir::not_open(file))?;
        let mut read = 0;
        while read < buf.len() {
            match rustix::io::pread(fd, &mut buf.as_mut_slice()[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        (self.on_read)(read as u64);
        Ok(Done::Read { buf, read })
    }
}

impl Disk for OfflineDisk {
    fn submit(&mut self, _: Class, tag: Tag, op: Op) {
        let result = self.run(op);
        self.ended.push(Completion { tag, result });
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.ended);
    }

    /// Never blocks: what was submitted has ended.
    fn wait(&mut self, _: Option<Duration>) {}

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(Nobody)
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        self.dir.list(dir)
    }

    fn backend(&self) -> &'static str {
        "offline"
    }

    fn is_direct(&self) -> bool {
        false
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}
