//! The disk through plain system calls, for systems that forbid io_uring.
//!
//! It owns threads, because a system call on a file blocks: some for commits alone, some for the rest, so
//! that a checkpoint never stands before a commit. Threads take their work from one `Schedule` and leave
//! completions in one list; the owner and the threads meet at a single short lock.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{self, AtFlags, FallocateFlags, Mode};
use rustix::io::{Errno, ReadWriteFlags};

use super::bell::Bell;
use super::data_dir::{self, DataDir, PageCache};
use super::schedule::{Limit, Limits, Permit, Schedule};
use super::{
    Class, Completion, Disk, Done, FileId, Op, OpenMode, READ_BYTES_MAX, Tag, Wake, WriteSync, path,
};
use crate::buffer::AlignedBuf;

/// How many threads, and through which path.
#[derive(Clone, Copy, Debug)]
pub struct SyscallOptions {
    /// Threads that only commit: as many frames can be in flight. At least 1.
    pub commit_threads: usize,
    /// Threads for everything else. At least 1; with 2, reads need not wait for bulk work.
    pub other_threads: usize,
    /// Whether a commit that is alone is left to the owner's next [`Disk::wait`], which then makes the system call itself:
    /// two changes of threads less, for an owner that waits soon after it has submitted. Such a wait lasts as long as the
    /// write, whatever its timeout and the waker say.
    pub inline_commits: bool,
    /// Whether to bypass the page cache.
    pub page_cache: PageCache,
}

impl Default for SyscallOptions {
    fn default() -> SyscallOptions {
        SyscallOptions {
            commit_threads: 4,
            other_threads: 2,
            inline_commits: false,
            page_cache: PageCache::Avoid,
        }
    }
}

/// A [`Disk`] that makes its system calls on threads of its own.
pub struct SyscallDisk {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    inline_commits: bool,
}

impl SyscallDisk {
    /// Opens the data directory, which must exist, and starts the threads.
    pub fn open(dir: &Path, options: SyscallOptions) -> io::Result<SyscallDisk> {
        assert!(options.commit_threads > 0);
        assert!(options.other_threads > 0);
        let shared = Arc::new(Shared {
            dir: DataDir::open(dir, options.page_cache)?,
            files: Mutex::default(),
            state: Mutex::new(State {
                schedule: Schedule::new(limits(&options)),
                done: Vec::new(),
                is_stopping: false,
            }),
            commit_waits: Condvar::new(),
            other_waits: Condvar::new(),
            owner: Condvar::new(),
            bell: Bell::default(),
        });
        let mut disk =
            SyscallDisk { shared, threads: Vec::new(), inline_commits: options.inline_commits };
        disk.start(options.commit_threads, Lane::Commits)?;
        disk.start(options.other_threads, Lane::Others)?;
        Ok(disk)
    }

    fn start(&mut self, threads: usize, lane: Lane) -> io::Result<()> {
        for number in 0..threads {
            let shared = Arc::clone(&self.shared);
            let name = format!("disk-{}-{number}", lane.name());
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.work(lane))?;
            self.threads.push(thread);
        }
        Ok(())
    }
}

impl Disk for SyscallDisk {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        op.assert_aligned();
        let mut state = self.shared.state.lock();
        state.schedule.push(class, op.device_bytes(), (tag, op));
        // When a second one comes, a thread takes the first and the second is left to the owner.
        let is_left_to_owner = self.inline_commits && state.schedule.is_lone_commit();
        drop(state);
        match class {
            Class::Commit if is_left_to_owner => false,
            Class::Commit => self.shared.commit_waits.notify_one(),
            Class::Read
            | Class::Growth
            | Class::CatchUp
            | Class::Cleaning
            | Class::Checkpoint
            | Class::Background
            | Class::Scrub => self.shared.other_waits.notify_one(),
        };
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.shared.state.lock().done);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if !shared.bell.arm() {
            return;
        }
        if self.inline_commits
            && state.done.is_empty()
            && let Some((permit, (tag, op))) = state.schedule.next_commit()
        {
            drop(state);
            let result = shared.execute(op);
            shared.finish(permit, Completion { tag, result });
            shared.bell.disarm();
            return;
        }
        while state.done.is_empty() && !shared.bell.is_rung() {
            match timeout {
                None => shared.owner.wait(&mut state),
                Some(timeout) => {
                    if shared.owner.wait_for(&mut state, timeout).timed_out() {
                        break;
                    }
                }
            }
        }
        shared.bell.disarm();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.shared) as Arc<dyn Wake>
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        self.shared.dir.list(dir)
    }

    fn backend(&self) -> &'static str {
        "syscall"
    }

    fn is_direct(&self) -> bool {
        self.shared.dir.is_direct()
    }
}

impl Drop for SyscallDisk {
    /// Ends after what runs has ended: nothing of this disk touches a file once it is gone.
    fn drop(&mut self) {
        let queued = {
            let mut state = self.shared.state.lock();
            state.is_stopping = true;
            state.schedule.take_queued()
        };
        drop(queued);
        self.shared.commit_waits.notify_all();
        self.shared.other_waits.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has already said so.
            drop(thread.join());
        }
    }
}

/// A commit thread takes nothing but commits, so the limit of that class is their number. Of the others one is left to
/// reads.
fn limits(options: &SyscallOptions) -> Limits {
    let others = options.other_threads;
    let bulk = others.saturating_sub(1).max(1);
    Limits {
        of_class: [
            Limit::new(options.commit_threads, usize::MAX),
            Limit::new(others, 1 << 20),
            // Growth, catch-up, cleaning, checkpoint, background, scrub.
            Limit::new(1, 512 << 10),
            Limit::new(bulk, 512 << 10),
            Limit::new(bulk, 512 << 10),
            Limit::new(bulk, 512 << 10),
            Limit::new(1, 512 << 10),
            Limit::new(1, 256 << 10),
        ],
        bulk: Limit::new(bulk, 1 << 20),
    }
}

#[derive(Clone, Copy)]
enum Lane {
    Commits,
    Others,
}

impl Lane {
    fn name(self) -> &'static str {
        match self {
            Lane::Commits => "commit",
            Lane::Others => "other",
        }
    }
}

struct State {
    schedule: Schedule<(Tag, Op)>,
    done: Vec<Completion>,
    is_stopping: bool,
}

#[derive(Default)]
struct Files {
    open: BTreeMap<FileId, Arc<OpenFile>>,
    opened: u32,
}

struct OpenFile {
    fd: OwnedFd,
    direct: bool,
}

struct Shared {
    dir: DataDir,
    files: Mutex<Files>,
    state: Mutex<State>,
    commit_waits: Condvar,
    other_waits: Condvar,
    owner: Condvar,
    bell: Bell,
}

impl Wake for Shared {
    fn wake(&self) {
        if self.bell.ring() {
            // The owner holds the lock from its look at the bell until it sleeps.
            drop(self.state.lock());
            self.owner.notify_one();
        }
    }
}

impl Shared {
    /// The life of a thread.
    fn work(&self, lane: Lane) {
        while let Some((permit, tag, op)) = self.next(lane) {
            let result = self.execute(op);
            self.finish(permit, Completion { tag, result });
        }
    }

    /// Blocks until there is work; `None` when the disk goes away.
    fn next(&self, lane: Lane) -> Option<(Permit, Tag, Op)> {
        let mut state = self.state.lock();
        loop {
            if state.is_stopping {
                return None;
            }
            let (next, waits) = match lane {
                Lane::Commits => (state.schedule.next_commit(), &self.commit_waits),
                Lane::Others => (state.schedule.next_other(), &self.other_waits),
            };
            if let Some((permit, (tag, op))) = next {
                return Some((permit, tag, op));
            }
            waits.wait(&mut state);
        }
    }

    /// Leaves a completion and wakes the owner if it sleeps.
    ///
    /// The thread itself comes back for the work that the end of this operation allows, so no other
    /// thread has to be woken for it.
    fn finish(&self, permit: Permit, completion: Completion) {
        let mut state = self.state.lock();
        state.schedule.finished(permit);
        state.done.push(completion);
        self.owner.notify_one();
    }

    fn execute(&self, op: Op) -> io::Result<Done> {
        match op {
            Op::Open { path, mode } => self.open_file(&path, mode),
            Op::Close { file } => self.close_file(file),
            Op::Allocate { file, bytes } => allocate(&*self.file(file)?, bytes),
            Op::Write { file, offset, buf, sync } => {
                write(&*self.file(file)?, offset, buf.as_slice(), sync)
            }
            Op::Read { file, offset, buf } => read(&*self.file(file)?, offset, buf),
            Op::Sync { file } => nothing(fs::fdatasync(&self.file(file)?.fd)),
            Op::SyncDir { path } => self.sync_dir(&path),
            Op::Rename { from, to } => self.rename(&from, &to),
            Op::Remove { path } => self.remove(&path),
            Op::MakeDir { path } => self.make_dir(&path),
        }
    }

    fn open_file(&self, path: &str, mode: OpenMode) -> io::Result<Done> {
        path::check_file(path)?;
        let (fd, direct) = self.open_as_wanted(path, mode)?;
        let bytes = data_dir::file_bytes(&fd)?;
        if !direct {
            // What an earlier process left in the cache may never have reached the device (P5).
            fs::fadvise(&fd, 0, None, fs::Advice::DontNeed)?;
        }
        let mut files = self.files.lock();
        let file = FileId(files.opened);
        files.opened = files.opened.checked_add(1).expect("fewer than 2^32 opens in one life");
        files.open.insert(file, Arc::new(OpenFile { fd, direct }));
        Ok(Done::Opened { file, bytes })
    }

    fn open_as_wanted(&self, path: &str, mode: OpenMode) -> io::Result<(OwnedFd, bool)> {
        let open = |flags| fs::openat(&self.dir.root, path, flags, data_dir::FILE_MODE);
        let direct = self.dir.is_direct();
        match open(data_dir::open_flags(mode, direct)) {
            Ok(fd) => Ok((fd, direct)),
            Err(errno) if direct && data_dir::is_refusal(errno) => {
                Ok((open(data_dir::reopen_flags(mode))?, false))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn close_file(&self, file: FileId) -> io::Result<Done> {
        let closed =
            self.files.lock().open.remove(&file).ok_or_else(|| data_dir::not_open(file))?;
        // Outside the lock: the last close of a removed file frees its blocks, which takes time.
        drop(closed);
        Ok(Done::Nothing)
    }

    fn file(&self, file: FileId) -> io::Result<Arc<OpenFile>> {
        self.files.lock().open.get(&file).cloned().ok_or_else(|| data_dir::not_open(file))
    }

    fn sync_dir(&self, path: &str) -> io::Result<Done> {
        path::check_dir(path)?;
        let name = data_dir::dir_name(path);
        let dir = fs::openat(&self.dir.root, name, data_dir::DIR_FLAGS, Mode::empty())?;
        nothing(fs::fsync(&dir))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<Done> {
        path::check_file(from)?;
        path::check_file(to)?;
        nothing(fs::renameat(&self.dir.root, from, &self.dir.root, to))
    }

    fn remove(&self, path: &str) -> io::Result<Done> {
        path::check_file(path)?;
        nothing(fs::unlinkat(&self.dir.root, path, AtFlags::empty()))
    }

    fn make_dir(&self, path: &str) -> io::Result<Done> {
        path::check_file(path)?;
        match fs::mkdirat(&self.dir.root, path, data_dir::DIR_MODE) {
            Err(Errno::EXIST) => {
                nothing(fs::openat(&self.dir.root, path, data_dir::DIR_FLAGS, Mode::empty()))
            }
            made => nothing(made),
        }
    }
}

fn nothing<T>(result: rustix::io::Result<T>) -> io::Result<Done> {
    result?;
    Ok(Done::Nothing)
}

/// Interrupted, or refused for now, with nothing done: the one case that is tried again.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..data_dir::RETRIES_MAX {
        match call() {
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
    call()
}

/// Reserves what the size asks for, then makes it the size; also where nothing can be reserved.
fn allocate(file: &OpenFile, bytes: u64) -> io::Result<Done> {
    if bytes > 0 {
        match retry(|| fs::fallocate(&file.fd, FallocateFlags::empty(), 0, bytes)) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if data_dir::file_bytes(&file.fd)? != bytes {
        retry(|| fs::ftruncate(&file.fd, bytes))?;
    }
    Ok(Done::Nothing)
}

fn write(file: &OpenFile, offset: u64, bytes: &[u8], sync: WriteSync) -> io::Result<Done> {
    let flags = match sync {
        WriteSync::Durable if file.direct => ReadWriteFlags::DSYNC,
        WriteSync::Durable | WriteSync::Deferred => ReadWriteFlags::empty(),
    };
    let slices = [IoSlice::new(bytes)];
    let written = retry(|| rustix::io::pwritev2(&file.fd, &slices, offset, flags))?;
    if written != bytes.len() {
        return Err(data_dir::short_write(written, bytes.len()));
    }
    if sync == WriteSync::Durable && !file.direct {
        fs::fdatasync(&file.fd)?;
    }
    Ok(Done::Nothing)
}

/// Reads until the buffer is full or the file ends.
fn read(file: &OpenFile, offset: u64, mut buf: AlignedBuf) -> io::Result<Done> {
    let mut read = 0;
    while read < buf.len() {
        let end = buf.len().min(read + READ_BYTES_MAX);
        let rest = &mut buf.as_mut_slice()[read..end];
        let count = retry(|| rustix::io::pread(&file.fd, &mut *rest, offset + read as u64))?;
        read += count;
        // A direct read goes on at a block boundary only; one that ended elsewhere has met the end.
        if count == 0 || !read.is_multiple_of(crate::format::BLOCK_BYTES) {
            break;
        }
    }
    Ok(Done::Read { buf, read })
}
