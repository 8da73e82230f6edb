//! Which backend a directory is used through: chosen at the start, overridable, and never silently.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::data_dir::PageCache;
use super::syscall::{SyscallDisk, SyscallOptions};
use super::uring::{UringDisk, UringOptions};
use super::{Class, Completion, Disk, Op, Tag, Wake};

/// What the operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Backend {
    /// The ring, or system calls where the kernel refuses it.
    #[default]
    Auto,
    /// The ring or nothing.
    Uring,
    /// System calls.
    Syscall,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenDiskError {
    /// The ring was asked for by name and cannot be had.
    #[error("io_uring was asked for and cannot be used; use automatic choice or system calls")]
    Uring {
        /// Who refuses it.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be opened, or the threads not be started.
    #[error("cannot use {path} as a data directory")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One of the real backends.
pub enum AnyDisk {
    /// Through io_uring.
    Uring(Box<UringDisk>),
    /// Through system calls.
    Syscall(SyscallDisk),
}

/// Opens the data directory, which must exist. With the disk comes the reason if it is not the ring that
/// [`Backend::Auto`] prefers, for one line in the log.
pub fn open_disk(dir: &Path, backend: Backend) -> Result<(AnyDisk, Option<String>), OpenDiskError> {
    open_with(dir, backend, |dir| UringDisk::open(dir, UringOptions::default()))
}

fn open_with(
    dir: &Path,
    backend: Backend,
    ring: impl FnOnce(&Path) -> io::Result<UringDisk>,
) -> Result<(AnyDisk, Option<String>), OpenDiskError> {
    // Whatever is wrong with the directory is not the ring's fault.
    super::data_dir::DataDir::open(dir, PageCache::Use)
        .map_err(|source| of_directory(dir, source))?;
    let why = match backend {
        Backend::Syscall => None,
        Backend::Auto | Backend::Uring => match ring(dir) {
            Ok(disk) => return Ok((AnyDisk::Uring(Box::new(disk)), None)),
            Err(source) if backend == Backend::Uring => {
                return Err(OpenDiskError::Uring { source });
            }
            Err(source) => Some(source.to_string()),
        },
    };
    let disk = SyscallDisk::open(dir, SyscallOptions::default())
        .map_err(|source| of_directory(dir, source))?;
    Ok((AnyDisk::Syscall(disk), why))
}

fn of_directory(dir: &Path, source: io::Error) -> OpenDiskError {
    OpenDiskError::Directory { path: dir.to_owned(), source }
}

impl Disk for AnyDisk {
    fn submit(&mut self, class: Class, tag: Tag, op: Op) {
        match self {
            AnyDisk::Uring(disk) => disk.submit(class, tag, op),
            AnyDisk::Syscall(disk) => disk.submit(class, tag, op),
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        match self {
            AnyDisk::Uring(disk) => disk.poll(out),
            AnyDisk::Syscall(disk) => disk.poll(out),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        match self {
            AnyDisk::Uring(disk) => disk.wait(timeout),
            AnyDisk::Syscall(disk) => disk.wait(timeout),
        }
    }

    fn may_move(&self) -> bool {
        match self {
            AnyDisk::Uring(disk) => disk.may_move(),
            AnyDisk::Syscall(disk) => disk.may_move(),
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        match self {
            AnyDisk::Uring(disk) => disk.waker(),
            AnyDisk::Syscall(disk) => disk.waker(),
        }
    }

    fn list(&mut self, dir: &str) -> io::Result<Vec<String>> {
        match self {
            AnyDisk::Uring(disk) => disk.list(dir),
            AnyDisk::Syscall(disk) => disk.list(dir),
        }
    }

    fn backend(&self) -> &'static str {
        match self {
            AnyDisk::Uring(disk) => disk.backend(),
            AnyDisk::Syscall(disk) => disk.backend(),
        }
    }

    fn is_direct(&self) -> bool {
        match self {
            AnyDisk::Uring(disk) => disk.is_direct(),
            AnyDisk::Syscall(disk) => disk.is_direct(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(_: &Path) -> io::Result<UringDisk> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "forbidden here"))
    }

    #[test]
    fn automatic_choice_falls_back_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, why) = open_with(dir.path(), Backend::Auto, refused).unwrap();
        assert_eq!(disk.backend(), "syscall");
        assert_eq!(why.as_deref(), Some("forbidden here"));
    }

    #[test]
    fn a_ring_asked_for_by_name_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let error = open_with(dir.path(), Backend::Uring, refused).err().unwrap();
        assert!(matches!(error, OpenDiskError::Uring { .. }), "{error}");
    }

    #[test]
    fn system_calls_asked_for_by_name_need_no_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, why) = open_disk(dir.path(), Backend::Syscall).unwrap();
        assert_eq!((disk.backend(), why), ("syscall", None));
    }

    #[test]
    fn a_missing_directory_is_named_and_no_reason_to_fall_back() {
        let dir = tempfile::tempdir().unwrap();
        for backend in [Backend::Auto, Backend::Uring, Backend::Syscall] {
            let error = open_disk(&dir.path().join("none"), backend).err().unwrap();
            assert!(error.to_string().contains("none"), "{error}");
        }
    }
}
