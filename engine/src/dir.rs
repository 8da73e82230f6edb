//! The lock file of a data directory. Taken before a disk is opened on it, held until the process ends.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, FlockOperation, access, flock};

use crate::error::OpenError;

/// A dead process's last writes may still be in flight in the kernel, which holds its files open until they end.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// A data directory that no other process opens. The lock ends with the value.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Creates the directory if it is missing, durably and for this user alone, and locks it. Waits up to two seconds for another process to end.
    ///
    /// Errors: [`OpenError::Locked`] names the holder where the lock file tells it.
    pub fn acquire(dir: &Path) -> Result<DirLock, OpenError> {
        create_dir(dir).map_err(|source| failed("create", dir, source))?;
        let path = dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0))
            .open(&path)
            .map_err(|source| failed("open", &path, source))?;
        for attempt in 0..ATTEMPTS {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    sign(&mut file).map_err(|source| failed("write", &path, source))?;
                    return Ok(DirLock { _file: file });
                }
                Err(rustix::io::Errno::WOULDBLOCK) if attempt + 1 < ATTEMPTS => pause(),
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(failed("lock", &path, error.into())),
            }
        }
        Err(OpenError::Locked { dir: dir.display().to_string(), holder: holder(&mut file) })
    }
}

/// Keeps a data directory from being opened while it is looked at. The lock ends with the value.
#[derive(Debug)]
pub struct LookLock {
    /// A directory whose lock file is gone, a copy perhaps, is nobody's.
    _file: Option<File>,
}

impl LookLock {
    /// Locks the directory against nodes, but not against others who look. Changes nothing.
    ///
    /// Errors: [`OpenError::Locked`] where a node has it open.
    pub fn acquire(dir: &Path) -> Result<LookLock, OpenError> {
        let path = dir.join("LOCK");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LookLock { _file: None });
            }
            Err(error) => return Err(failed("open", &path, error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(LookLock { _file: Some(file) }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(OpenError::Locked { dir: dir.display().to_string(), holder: holder(&mut file) })
            }
            Err(error) => Err(failed("lock", &path, error.into())),
        }
    }
}

/// Creates what is missing of a path, for this user alone, and makes its names durable (P9). Those that are there too:
/// an earlier start may have made them and died before they were.
fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for (_, parent) in names(dir).take_while(|(name, parent)| may_be_ours(name, parent)) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Every name that a path consists of, the last one first, with the directory that it lies in.
fn names(dir: &Path) -> impl Iterator<Item = (&Path, &Path)> {
    dir.ancestors().filter_map(|name| {
        let parent = name.parent()?;
        let is_here = parent.as_os_str().is_empty();
        Some((name, if is_here { Path::new(".") } else { parent }))
    })
}

/// Whether this user can have made the name: not where it may not write, and not the root of a file system.
fn may_be_ours(name: &Path, parent: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let may_write = access(parent, Access::WRITE_OK).is_ok();
    may_write && device(name) == device(parent)
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when another process's lock ends")]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let pid = match file.take(32).read_to_string(&mut text) {
        Ok(_) => text.trim().parse::<u32>().ok(),
        Err(_) => None,
    };
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn failed(what: &str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { what: format!("{what} {}", path.display()), source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_name_and_the_next_one_gets_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let refused = DirLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn who_looks_keeps_nodes_out_but_not_others_who_look() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        assert!(matches!(LookLock::acquire(dir.path()), Err(OpenError::Locked { .. })));
        drop(lock);
        let looks = [(); 2].map(|()| LookLock::acquire(dir.path()).unwrap());
        assert!(matches!(DirLock::acquire(dir.path()), Err(OpenError::Locked { .. })));
        drop(looks);
        DirLock::acquire(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("LOCK")).unwrap();
        LookLock::acquire(dir.path()).unwrap();
        assert!(!dir.path().join("LOCK").exists());
    }

    #[test]
    fn a_missing_directory_is_created_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a/b");
        DirLock::acquire(&nested).unwrap();
        assert!(nested.join("LOCK").exists());
        for made in [dir.path().join("a"), nested] {
            assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o700);
        }
    }

    /// A name without a directory part was synced nowhere, and of several new ones only the last.
    #[test]
    fn every_name_of_a_path_is_synced_in_its_directory() {
        let parents = |dir| names(Path::new(dir)).map(|(_, parent)| parent).collect::<Vec<_>>();
        assert_eq!(parents("data"), [Path::new(".")]);
        assert_eq!(parents("a/b/c"), [Path::new("a/b"), Path::new("a"), Path::new(".")]);
        assert_eq!(parents("/srv/data"), [Path::new("/srv"), Path::new("/")]);
        assert!(parents("/").is_empty());
    }

    #[test]
    fn a_name_that_this_user_cannot_have_made_is_left_to_who_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a");
        std::fs::create_dir(&made).unwrap();
        assert!(may_be_ours(&made, dir.path()));
        assert!(!may_be_ours(Path::new("/proc"), Path::new("/")), "a mount point");
    }
}
