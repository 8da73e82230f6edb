//! One operation on its way: the submission entry of its current step, and what follows from a result.
//!
//! A flight owns everything its entry points to. Nothing in it is touched between the submission and the
//! completion of a step; the table that holds it sees to that.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};
use rustix::fs::{self, Advice, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::files::{Files, OpenFile};
use crate::buffer::AlignedBuf;
use crate::format::BLOCK_BYTES;
use crate::io::data_dir::{self, DataDir, RETRIES_MAX};
use crate::io::schedule::Permit;
use crate::io::{Done, FileId, Op, OpenMode, READ_BYTES_MAX, Tag, WriteBuf, WriteSync, path};

pub(super) struct Flight {
    /// From the schedule, once it lets this run.
    pub(super) permit: Option<Permit>,
    pub(super) tag: Tag,
    work: Work,
    retries: u32,
}

/// An operation and which of its steps it is at.
enum Work {
    Open {
        path: CString,
        mode: OpenMode,
        step: OpenStep,
    },
    /// The descriptor goes with the submission: the kernel closes it even if the close fails.
    Close {
        fd: Option<OwnedFd>,
    },
    Allocate {
        file: Arc<OpenFile>,
        bytes: u64,
        step: AllocateStep,
    },
    Write {
        file: Arc<OpenFile>,
        offset: u64,
        buf: WriteBuf,
        sync: WriteSync,
        is_written: bool,
    },
    Read {
        file: Arc<OpenFile>,
        offset: u64,
        buf: Option<AlignedBuf>,
        read: usize,
    },
    Sync {
        file: Arc<OpenFile>,
    },
    SyncDir {
        path: CString,
        dir: Option<OwnedFd>,
    },
    Rename {
        from: CString,
        to: CString,
    },
    Remove {
        path: CString,
    },
    MakeDir {
        path: CString,
        exists: bool,
    },
}

enum OpenStep {
    /// As the file system is known to want it.
    First,
    /// Through the page cache, after `O_DIRECT` was refused.
    Again,
    /// Open through the page cache: drop what an earlier process left there.
    Forget(OwnedFd),
}

#[derive(Clone, Copy)]
enum AllocateStep {
    Reserve,
    SetSize,
}

/// What follows when a step has ended.
pub(super) enum Next {
    /// Submit the entry that the flight now makes.
    Submit,
    /// A file is open; it needs a name.
    Opened { fd: OwnedFd, direct: bool },
    /// That was all.
    Ended(io::Result<Done>),
}

/// What a step needs to know of the disk.
pub(super) struct Surroundings<'a> {
    pub(super) dir: &'a DataDir,
    pub(super) can_truncate: bool,
}

impl Flight {
    /// Checks an operation and resolves the names in it.
    pub(super) fn new(tag: Tag, op: Op, files: &mut Files) -> io::Result<Flight> {
        let work = match op {
            Op::Open { path, mode } => {
                Work::Open { path: file_path(&path)?, mode, step: OpenStep::First }
            }
            Op::Close { file } => Work::Close { fd: Some(files.close(file)?) },
            Op::Allocate { file, bytes } => {
                let step = if bytes > 0 { AllocateStep::Reserve } else { AllocateStep::SetSize };
                Work::Allocate { file: files.file(file)?, bytes, step }
            }
            Op::Write { file, offset, buf, sync } => new_write(files, file, offset, buf, sync)?,
            Op::Read { file, offset, buf } => {
                length(buf.len())?;
                Work::Read { file: files.file(file)?, offset, buf: Some(buf), read: 0 }
            }
            Op::Sync { file } => Work::Sync { file: files.file(file)? },
            Op::SyncDir { path } => Work::SyncDir { path: dir_path(&path)?, dir: None },
            Op::Rename { from, to } => {
                Work::Rename { from: file_path(&from)?, to: file_path(&to)? }
            }
            Op::Remove { path } => Work::Remove { path: file_path(&path)? },
            Op::MakeDir { path } => Work::MakeDir { path: file_path(&path)?, exists: false },
        };
        Ok(Flight { permit: None, tag, work, retries: 0 })
    }

    /// The entry of the current step. It points into the flight, which must not change or go away
    /// before the completion of the entry.
    pub(super) fn entry(&mut self, dir: &DataDir) -> Entry {
        let root = Fd(dir.root.as_raw_fd());
        match &mut self.work {
            Work::Open { path, mode, step } => match step {
                OpenStep::First => open(root, path, data_dir::open_flags(*mode, dir.is_direct())),
                OpenStep::Again => open(root, path, data_dir::reopen_flags(*mode)),
                OpenStep::Forget(fd) => {
                    let advice = Advice::DontNeed as i32;
                    opcode::Fadvise::new(Fd(fd.as_raw_fd()), 0, advice).build()
                }
            },
            Work::Close { fd } => {
                let fd = fd.take().expect("a close has one step").into_raw_fd();
                // On a worker: the last close of a removed file frees its blocks, which takes time.
                opcode::Close::new(Fd(fd)).build().flags(Flags::ASYNC)
            }
            Work::Allocate { file, bytes, step } => match step {
                AllocateStep::Reserve => {
                    file.aim(opcode::Fallocate::new(file.target(), *bytes).build())
                }
                AllocateStep::SetSize => {
                    file.aim(opcode::Ftruncate::new(file.target(), *bytes).build())
                }
            },
            Work::Write { file, offset, buf, sync, is_written } => {
                if *is_written {
                    sync_entry(file)
                } else {
                    write(file, *offset, buf, *sync)
                }
            }
            Work::Read { file, offset, buf, read } => {
                let buf = buf.as_mut().expect("the buffer is here until the read has ended");
                read_entry(file, *offset, buf, *read)
            }
            Work::Sync { file } => sync_entry(file),
            Work::SyncDir { path, dir } => match dir {
                None => open(root, path, data_dir::DIR_FLAGS),
                Some(dir) => opcode::Fsync::new(Fd(dir.as_raw_fd())).build(),
            },
            Work::Rename { from, to } => {
                opcode::RenameAt::new(root, from.as_ptr(), root, to.as_ptr()).build()
            }
            Work::Remove { path } => opcode::UnlinkAt::new(root, path.as_ptr()).build(),
            Work::MakeDir { path, exists: false } => {
                let mode = data_dir::DIR_MODE.as_raw_mode();
                opcode::MkDirAt::new(root, path.as_ptr()).mode(mode).build()
            }
            Work::MakeDir { path, exists: true } => open(root, path, data_dir::DIR_FLAGS),
        }
    }

    /// Whether the current step brings a descriptor.
    pub(super) fn is_opening(&self) -> bool {
        match &self.work {
            Work::Open { step, .. } => !matches!(step, OpenStep::Forget(_)),
            Work::SyncDir { dir, .. } => dir.is_none(),
            Work::MakeDir { exists, .. } => *exists,
            Work::Close { .. }
            | Work::Allocate { .. }
            | Work::Write { .. }
            | Work::Read { .. }
            | Work::Sync { .. }
            | Work::Rename { .. }
            | Work::Remove { .. } => false,
        }
    }

    /// The current step has ended with `result`; `opened` is the descriptor if it brought one.
    pub(super) fn advance(
        &mut self,
        result: Result<u32, Errno>,
        opened: Option<OwnedFd>,
        around: &Surroundings<'_>,
    ) -> Next {
        if self.is_to_be_retried(result) {
            self.retries += 1;
            return Next::Submit;
        }
        match &mut self.work {
            Work::Open { mode: _, step, .. } => advance_open(step, result, opened, around),
            Work::Allocate { file, bytes, step } => {
                advance_allocate(file, *bytes, step, result, around)
            }
            Work::Write { file, buf, sync, is_written, .. } => {
                let needs_sync = *sync == WriteSync::Durable && !file.direct;
                advance_write(buf.as_slice().len(), needs_sync, is_written, result)
            }
            Work::Read { buf, read, .. } => advance_read(buf, read, result),
            Work::SyncDir { dir, .. } => match (result, opened) {
                (Ok(_), Some(opened)) => {
                    *dir = Some(opened);
                    Next::Submit
                }
                (result, _) => Next::Ended(nothing(result)),
            },
            Work::MakeDir { exists: exists @ false, .. } if result == Err(Errno::EXIST) => {
                *exists = true;
                Next::Submit
            }
            // An interrupted close has closed all the same.
            Work::Close { .. } if result == Err(Errno::INTR) => Next::Ended(Ok(Done::Nothing)),
            Work::Close { .. }
            | Work::Sync { .. }
            | Work::Rename { .. }
            | Work::Remove { .. }
            | Work::MakeDir { .. } => Next::Ended(nothing(result)),
        }
    }

    /// Interrupted, or refused for now, with nothing done.
    fn is_to_be_retried(&self, result: Result<u32, Errno>) -> bool {
        matches!(result, Err(Errno::INTR | Errno::AGAIN))
            && self.work.is_repeatable()
            && self.retries < RETRIES_MAX
    }
}

impl Work {
    /// Whether the current step may be submitted again. A sync never is, whatever it reported: the next one may
    /// succeed and speak of pages that the first has dropped (P4). An interrupted close has closed.
    fn is_repeatable(&self) -> bool {
        match self {
            Work::Close { .. } | Work::Sync { .. } => false,
            Work::Write { is_written, .. } => !is_written,
            Work::SyncDir { dir, .. } => dir.is_none(),
            Work::Open { .. }
            | Work::Allocate { .. }
            | Work::Read { .. }
            | Work::Rename { .. }
            | Work::Remove { .. }
            | Work::MakeDir { .. } => true,
        }
    }
}

fn new_write(
    files: &Files,
    file: FileId,
    offset: u64,
    buf: WriteBuf,
    sync: WriteSync,
) -> io::Result<Work> {
    length(buf.as_slice().len())?;
    Ok(Work::Write { file: files.file(file)?, offset, buf, sync, is_written: false })
}

fn advance_open(
    step: &mut OpenStep,
    result: Result<u32, Errno>,
    opened: Option<OwnedFd>,
    around: &Surroundings<'_>,
) -> Next {
    let direct = around.dir.is_direct() && matches!(step, OpenStep::First);
    match (std::mem::replace(step, OpenStep::Again), result, opened) {
        (OpenStep::Forget(fd), result, _) => match result {
            Ok(_) => Next::Opened { fd, direct: false },
            Err(errno) => Next::Ended(Err(errno.into())),
        },
        (_, Ok(_), Some(fd)) if direct => Next::Opened { fd, direct },
        (_, Ok(_), Some(fd)) => {
            *step = OpenStep::Forget(fd);
            Next::Submit
        }
        (_, Err(errno), _) if direct && data_dir::is_refusal(errno) => Next::Submit,
        (_, result, _) => Next::Ended(nothing(result)),
    }
}

fn advance_allocate(
    file: &OpenFile,
    bytes: u64,
    step: &mut AllocateStep,
    result: Result<u32, Errno>,
    around: &Surroundings<'_>,
) -> Next {
    match (*step, result) {
        // Where nothing can be reserved, the size is set all the same.
        (AllocateStep::Reserve, Ok(_) | Err(Errno::OPNOTSUPP)) => {}
        (AllocateStep::Reserve | AllocateStep::SetSize, result) => {
            return Next::Ended(nothing(result));
        }
    }
    match data_dir::file_bytes(&file.fd) {
        Ok(now) if now == bytes => Next::Ended(Ok(Done::Nothing)),
        Ok(_) if around.can_truncate => {
            *step = AllocateStep::SetSize;
            Next::Submit
        }
        // Old kernels know no other way; it blocks, and cutting a file is rare.
        Ok(_) => Next::Ended(nothing(fs::ftruncate(&file.fd, bytes))),
        Err(error) => Next::Ended(Err(error)),
    }
}

fn advance_write(
    bytes: usize,
    needs_sync: bool,
    is_written: &mut bool,
    result: Result<u32, Errno>,
) -> Next {
    let written = match result {
        Ok(written) => written as usize,
        Err(errno) => return Next::Ended(Err(errno.into())),
    };
    if *is_written {
        return Next::Ended(Ok(Done::Nothing));
    }
    if written != bytes {
        return Next::Ended(Err(data_dir::short_write(written, bytes)));
    }
    *is_written = true;
    if needs_sync { Next::Submit } else { Next::Ended(Ok(Done::Nothing)) }
}

/// Reads on until the buffer is full or the file ends.
fn advance_read(
    buf: &mut Option<AlignedBuf>,
    read: &mut usize,
    result: Result<u32, Errno>,
) -> Next {
    let count = match result {
        Ok(count) => count as usize,
        Err(errno) => return Next::Ended(Err(errno.into())),
    };
    *read += count;
    let wanted = buf.as_ref().map_or(0, AlignedBuf::len);
    assert!(*read <= wanted);
    // A direct read goes on at a block boundary only; one that ended elsewhere has met the end.
    if count > 0 && *read < wanted && read.is_multiple_of(BLOCK_BYTES) {
        return Next::Submit;
    }
    let buf = buf.take().expect("the buffer is here until the read has ended");
    Next::Ended(Ok(Done::Read { buf, read: *read }))
}

fn open(root: Fd, path: &CString, flags: OFlags) -> Entry {
    opcode::OpenAt::new(root, path.as_ptr())
        .flags(flags.bits().cast_signed())
        .mode(data_dir::FILE_MODE.as_raw_mode())
        .build()
}

fn write(file: &OpenFile, offset: u64, buf: &WriteBuf, sync: WriteSync) -> Entry {
    let bytes = buf.as_slice();
    let flags = match sync {
        WriteSync::Durable if file.direct => ReadWriteFlags::DSYNC,
        WriteSync::Durable | WriteSync::Deferred => ReadWriteFlags::empty(),
    };
    let count = length(bytes.len()).expect("checked when the operation was taken");
    let entry = opcode::Write::new(file.target(), bytes.as_ptr(), count)
        .offset(offset)
        .rw_flags(flags.bits().cast_signed());
    file.aim(entry.build())
}

fn read_entry(file: &OpenFile, offset: u64, buf: &mut AlignedBuf, read: usize) -> Entry {
    let rest = &mut buf.as_mut_slice()[read..];
    let count = length(rest.len().min(READ_BYTES_MAX)).expect("it is small");
    let entry =
        opcode::Read::new(file.target(), rest.as_mut_ptr(), count).offset(offset + read as u64);
    file.aim(entry.build())
}

fn sync_entry(file: &OpenFile) -> Entry {
    file.aim(opcode::Fsync::new(file.target()).flags(FsyncFlags::DATASYNC).build())
}

/// The kernel moves less than 2 GiB at once and cuts what is longer.
fn length(bytes: usize) -> io::Result<u32> {
    match i32::try_from(bytes) {
        Ok(bytes) => Ok(bytes.cast_unsigned()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{bytes} bytes are more than one operation can move"),
        )),
    }
}

fn file_path(path: &str) -> io::Result<CString> {
    path::check_file(path)?;
    Ok(CString::new(path)?)
}

fn dir_path(path: &str) -> io::Result<CString> {
    path::check_dir(path)?;
    Ok(CString::new(data_dir::dir_name(path))?)
}

fn nothing<T>(result: Result<T, Errno>) -> io::Result<Done> {
    result?;
    Ok(Done::Nothing)
}
