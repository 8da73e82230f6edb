//! What the two real backends share: the data directory, how its files are opened, and whether the page
//! cache can be bypassed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::{FileId, OpenMode, path};
use crate::buffer::AlignedBuf;
use crate::format::BLOCK_BYTES;

/// Files are the server's alone.
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
pub(super) const DIR_MODE: Mode = Mode::RWXU;
pub(super) const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// How often a call that is no sync is made again after EINTR or EAGAIN. More than that is an error of its own.
pub(super) const RETRIES_MAX: u32 = 1_000;

/// Whether a backend goes through the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum PageCache {
    /// `O_DIRECT` where the file system allows it.
    #[default]
    Avoid,
    /// Buffered writes, each durable one followed by `fdatasync`.
    Use,
}

/// The data directory, open.
#[derive(Debug)]
pub(super) struct DataDir {
    pub(super) root: OwnedFd,
    direct: bool,
}

impl DataDir {
    /// Opens an existing directory and finds out how its file system wants to be written.
    pub(super) fn open(dir: &Path, cache: PageCache) -> io::Result<DataDir> {
        // The path may be a symbolic link of the operator's; what is inside may not.
        let root = fs::open(dir, DIR_FLAGS.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let direct = cache == PageCache::Avoid && accepts_direct_writes(&root)?;
        Ok(DataDir { root, direct })
    }

    /// Whether files are opened with `O_DIRECT`.
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// The names in a directory, without "." and "..".
    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        path::check_dir(dir)?;
        let opened = fs::openat(&self.root, dir_name(dir), DIR_FLAGS, Mode::empty())?;
        let mut names = Vec::new();
        for entry in fs::Dir::new(opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(utf8_name(name)?);
            }
        }
        Ok(names)
    }
}

/// "" names the data directory itself, which the system calls know as ".".
pub(super) fn dir_name(dir: &str) -> &str {
    if dir.is_empty() { "." } else { dir }
}

const OPEN_FLAGS: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The flags of an open, with `O_DIRECT` where `direct` says so.
pub(super) fn open_flags(mode: OpenMode, direct: bool) -> OFlags {
    let create = match mode {
        OpenMode::Existing => OFlags::empty(),
        OpenMode::CreateNew => OFlags::CREATE | OFlags::EXCL,
    };
    let direct = if direct { OFlags::DIRECT } else { OFlags::empty() };
    OPEN_FLAGS | create | direct
}

/// The flags of the second open, after `O_DIRECT` was refused.
///
/// The kernel creates the entry before it looks at `O_DIRECT`, so a refused creation has left an empty
/// file. That there was none before is known: the refusal would have read "exists".
pub(super) fn reopen_flags(mode: OpenMode) -> OFlags {
    match mode {
        OpenMode::Existing => OPEN_FLAGS,
        OpenMode::CreateNew => OPEN_FLAGS | OFlags::CREATE,
    }
}

/// The size of an open file.
pub(super) fn file_bytes(fd: &OwnedFd) -> io::Result<u64> {
    let bytes = fs::fstat(fd)?.st_size;
    u64::try_from(bytes).map_err(|_| io::Error::other(format!("the file claims {bytes} bytes")))
}

/// The error of an operation on a file that is not open.
pub(super) fn not_open(file: FileId) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("file {} is not open", file.0))
}

/// The error of a write that ended early. Final: what reached the device is unknown.
pub(super) fn short_write(written: usize, wanted: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::WriteZero,
        format!("the device took {written} of {wanted} bytes of a write"),
    )
}

/// Names of ours are ASCII. A name that is not even UTF-8 is foreign, and what is foreign is not skipped.
fn utf8_name(name: &[u8]) -> io::Result<String> {
    String::from_utf8(name.to_vec()).map_err(|_| {
        let shown = OsStr::from_bytes(name).display();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the data directory holds `{shown}`, which is not a file of this program"),
        )
    })
}

/// Writes one block to an unnamed file the way a commit is written.
///
/// Opening with `O_DIRECT` is not enough to know: some file systems accept the flag and refuse the write,
/// or know no `RWF_DSYNC`. A refusal means buffered; a full disk decides nothing and must not keep an
/// existing log from being opened.
fn accepts_direct_writes(root: &OwnedFd) -> io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = match fs::openat(root, ".", flags, FILE_MODE) {
        Ok(file) => file,
        // No unnamed files here: each open finds out for itself, see `is_refusal`.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSPC | Errno::DQUOT) => return Ok(true),
        Err(errno) if is_refusal(errno) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let block = AlignedBuf::zeroed(BLOCK_BYTES);
    let slices = [io::IoSlice::new(block.as_slice())];
    match rustix::io::pwritev2(&file, &slices, 0, ReadWriteFlags::DSYNC) {
        Ok(_) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(true),
        Err(errno) if is_refusal(errno) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// How a file system says that it has no `O_DIRECT`.
pub(super) fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::OPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = DataDir::open(&dir.path().join("none"), PageCache::Avoid).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_page_cache_is_used_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!DataDir::open(dir.path(), PageCache::Use).unwrap().is_direct());
    }

    #[test]
    fn the_probe_leaves_no_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let opened = DataDir::open(dir.path(), PageCache::Avoid).unwrap();
        assert_eq!(opened.list("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_is_not_text_is_reported_and_not_skipped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(OsStr::from_bytes(b"\xff")), b"").unwrap();
        let opened = DataDir::open(dir.path(), PageCache::Use).unwrap();
        assert_eq!(opened.list("").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
