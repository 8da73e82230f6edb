//! What every `Disk` does alike: one suite, run on each backend with and without the page cache, and on the
//! simulated disk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use engine::buffer::{AlignedBuf, FramePool};
use engine::io::simulated::{SimDisk, SimFaults};
use engine::io::syscall::{SyscallDisk, SyscallOptions};
use engine::io::uring::{UringDisk, UringOptions};
use engine::io::{
    Class, Completion, Disk, Done, FileId, Op, OpenMode, PageCache, Tag, WriteBuf, WriteSync,
};
use tempfile::TempDir;

const PAGE: usize = 4096;

type AnyDisk = Box<dyn Disk + Send>;

/// A disk, its directory, and the way to use it one operation at a time.
struct Bench {
    disk: AnyDisk,
    dir: TempDir,
    tags: u64,
}

impl Bench {
    /// `None`, and a line that says so, where the backend cannot be had.
    fn new(make: fn(&Path) -> io::Result<AnyDisk>) -> Option<Bench> {
        let dir = tempfile::tempdir().unwrap();
        match make(dir.path()) {
            Ok(disk) => Some(Bench { disk, dir, tags: 0 }),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn submit(&mut self, class: Class, op: Op) -> Tag {
        let tag = Tag(self.tags);
        self.tags += 1;
        self.disk.submit(class, tag, op);
        tag
    }

    fn collect(&mut self, count: usize) -> Vec<Completion> {
        let mut out = Vec::new();
        while out.len() < count {
            self.disk.wait(None);
            self.disk.poll(&mut out);
        }
        assert_eq!(out.len(), count);
        out
    }

    fn run(&mut self, op: Op) -> io::Result<Done> {
        let tag = self.submit(Class::Commit, op);
        let end = self.collect(1).remove(0);
        assert_eq!(end.tag, tag);
        end.result
    }

    fn try_open(&mut self, path: &str, mode: OpenMode) -> io::Result<(FileId, u64)> {
        match self.run(Op::Open { path: path.to_owned(), mode })? {
            Done::Opened { file, bytes } => Ok((file, bytes)),
            other @ (Done::Read { .. } | Done::Nothing) => panic!("{other:?}"),
        }
    }

    fn create(&mut self, path: &str) -> FileId {
        let (file, bytes) = self.try_open(path, OpenMode::CreateNew).unwrap();
        assert_eq!(bytes, 0);
        file
    }

    fn write(&mut self, file: FileId, page: usize, byte: u8) {
        self.run(write(file, page, byte, WriteSync::Durable)).unwrap();
    }

    fn read(&mut self, file: FileId, page: usize, pages: usize) -> Vec<u8> {
        let buf = AlignedBuf::zeroed(pages * PAGE);
        let offset = (page * PAGE) as u64;
        match self.run(Op::Read { file, offset, buf }).unwrap() {
            Done::Read { buf, read } => buf.as_slice()[..read].to_vec(),
            other @ (Done::Opened { .. } | Done::Nothing) => panic!("{other:?}"),
        }
    }

    fn kind_of(&mut self, op: Op) -> ErrorKind {
        self.run(op).unwrap_err().kind()
    }
}

fn filled(pages: usize, byte: u8) -> WriteBuf {
    let mut buf = AlignedBuf::zeroed(pages * PAGE);
    buf.as_mut_slice().fill(byte);
    WriteBuf::Owned(Arc::new(buf))
}

fn write(file: FileId, page: usize, byte: u8, sync: WriteSync) -> Op {
    Op::Write { file, offset: (page * PAGE) as u64, buf: filled(1, byte), sync }
}

fn written_bytes_come_back(mut bench: Bench) {
    let file = bench.create("a");
    bench.write(file, 0, 7);
    bench.run(write(file, 1, 8, WriteSync::Deferred)).unwrap();
    bench.run(Op::Sync { file }).unwrap();
    let pool = FramePool::default();
    let mut buf = pool.take(2 * PAGE);
    buf.as_mut_slice().fill(9);
    let frame = WriteBuf::Frame(pool.freeze(buf, 2 * PAGE));
    let op = Op::Write { file, offset: 2 * PAGE as u64, buf: frame, sync: WriteSync::Durable };
    bench.run(op).unwrap();
    let expected = [vec![7; PAGE], vec![8; PAGE], vec![9; 2 * PAGE]].concat();
    assert_eq!(bench.read(file, 0, 4), expected);
    let (again, bytes) = bench.try_open("a", OpenMode::Existing).unwrap();
    assert_eq!(bytes, 4 * PAGE as u64);
    assert_eq!(bench.read(again, 0, 4), expected);
}

fn many_operations_in_flight_end_once_each(mut bench: Bench) {
    const COUNT: usize = 300;
    let file = bench.create("a");
    let classes = [
        Class::Commit,
        Class::Read,
        Class::CatchUp,
        Class::Cleaning,
        Class::Checkpoint,
        Class::Background,
        Class::Scrub,
    ];
    let mut expected = Vec::new();
    for page in 0..COUNT {
        let class = classes[page % classes.len()];
        let byte = u8::try_from(page % 251).unwrap();
        expected.push(bench.submit(class, write(file, page, byte, WriteSync::Durable)));
    }
    let mut ends = bench.collect(COUNT);
    assert!(ends.iter().all(|end| end.result.is_ok()));
    ends.sort_by_key(|end| end.tag);
    assert_eq!(ends.iter().map(|end| end.tag).collect::<Vec<_>>(), expected);
    for (page, bytes) in bench.read(file, 0, COUNT).chunks(PAGE).enumerate() {
        assert!(bytes.iter().all(|byte| usize::from(*byte) == page % 251), "page {page}");
    }
}

fn a_read_beyond_the_end_is_short(mut bench: Bench) {
    let file = bench.create("a");
    bench.write(file, 0, 1);
    bench.write(file, 1, 2);
    assert_eq!(bench.read(file, 1, 4), [2; PAGE]);
    assert_eq!(bench.read(file, 2, 1), []);
    assert_eq!(bench.read(file, 80, 1), []);
}

fn an_open_finds_what_its_mode_expects_or_fails(mut bench: Bench) {
    let error = bench.try_open("a", OpenMode::Existing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    bench.create("a");
    let error = bench.try_open("a", OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    bench.try_open("a", OpenMode::Existing).unwrap();
    let error = bench.try_open("none/a", OpenMode::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn a_size_is_set_up_and_down(mut bench: Bench) {
    let file = bench.create("a");
    for pages in [16, 3, 5, 0, 1] {
        let bytes = (pages * PAGE) as u64;
        bench.run(Op::Allocate { file, bytes }).unwrap();
        bench.run(Op::Sync { file }).unwrap();
        assert_eq!(bench.try_open("a", OpenMode::Existing).unwrap().1, bytes);
    }
    assert_eq!(bench.read(file, 0, 2), [0; PAGE]);
}

fn names_are_made_changed_listed_and_removed(mut bench: Bench) {
    bench.run(Op::MakeDir { path: "seg".to_owned() }).unwrap();
    bench.run(Op::MakeDir { path: "seg".to_owned() }).unwrap();
    bench.run(Op::SyncDir { path: String::new() }).unwrap();
    for (name, byte) in [("seg/a", 1), ("seg/b", 2), ("seg/c", 3)] {
        let file = bench.create(name);
        bench.write(file, 0, byte);
        bench.run(Op::Close { file }).unwrap();
    }
    bench.run(Op::Rename { from: "seg/a".to_owned(), to: "seg/b".to_owned() }).unwrap();
    bench.run(Op::Remove { path: "seg/c".to_owned() }).unwrap();
    bench.run(Op::SyncDir { path: "seg".to_owned() }).unwrap();
    assert_eq!(bench.disk.list("seg").unwrap(), ["b"]);
    assert_eq!(bench.disk.list("").unwrap(), ["seg"]);
    let (file, _) = bench.try_open("seg/b", OpenMode::Existing).unwrap();
    assert_eq!(bench.read(file, 0, 1), [1; PAGE]);
    assert_eq!(bench.disk.list("none").unwrap_err().kind(), ErrorKind::NotFound);
}

fn what_is_not_there_is_not_found(mut bench: Bench) {
    let (from, to) = ("none".to_owned(), "other".to_owned());
    assert_eq!(bench.kind_of(Op::Rename { from, to }), ErrorKind::NotFound);
    assert_eq!(bench.kind_of(Op::Remove { path: "none".to_owned() }), ErrorKind::NotFound);
    assert_eq!(bench.kind_of(Op::SyncDir { path: "none".to_owned() }), ErrorKind::NotFound);
    bench.create("file");
    assert_eq!(bench.kind_of(Op::MakeDir { path: "file".to_owned() }), ErrorKind::NotADirectory);
}

fn names_outside_the_directory_are_refused(mut bench: Bench) {
    let bad = || "../x".to_owned();
    let mode = OpenMode::CreateNew;
    for op in [
        Op::Open { path: bad(), mode },
        Op::Open { path: "/x".to_owned(), mode },
        Op::Open { path: "a/b/c".to_owned(), mode },
        Op::MakeDir { path: bad() },
        Op::Rename { from: "a".to_owned(), to: bad() },
    ] {
        let shown = format!("{op:?}");
        let kind = bench.kind_of(op);
        assert!(matches!(kind, ErrorKind::InvalidInput | ErrorKind::NotFound), "{shown}: {kind}");
    }
    assert_eq!(bench.disk.list("").unwrap(), Vec::<String>::new());
}

fn a_closed_file_is_gone_and_its_name_is_not_used_again(mut bench: Bench) {
    let file = bench.create("a");
    bench.run(Op::Close { file }).unwrap();
    for op in [
        Op::Close { file },
        Op::Sync { file },
        Op::Allocate { file, bytes: 0 },
        Op::Read { file, offset: 0, buf: AlignedBuf::zeroed(PAGE) },
        write(file, 0, 1, WriteSync::Durable),
    ] {
        assert_eq!(bench.kind_of(op), ErrorKind::InvalidInput);
    }
    let (again, _) = bench.try_open("a", OpenMode::Existing).unwrap();
    assert_ne!(again, file);
}

fn files_come_and_go_by_the_thousand(mut bench: Bench) {
    for round in 0..1_500_u32 {
        let file = bench.create("a");
        if round % 100 == 0 {
            bench.write(file, 0, 1);
        }
        bench.run(Op::Close { file }).unwrap();
        bench.run(Op::Remove { path: "a".to_owned() }).unwrap();
    }
    assert_eq!(bench.disk.list("").unwrap(), Vec::<String>::new());
}

fn a_wake_before_the_wait_is_not_lost(mut bench: Bench) {
    let waker = bench.disk.waker();
    for timeout in [None, Some(Duration::MAX), None] {
        waker.wake();
        waker.wake();
        bench.disk.wait(timeout);
    }
}

/// Two thousand turns in which the waiter can only go on if it was woken.
fn a_wake_from_another_thread_ends_the_wait(mut bench: Bench) {
    const ROUNDS: u64 = 2_000;
    let waker = bench.disk.waker();
    let rung = Arc::new(AtomicU64::new(0));
    let (answer, answered) = mpsc::channel();
    let ringer = std::thread::spawn({
        let rung = Arc::clone(&rung);
        move || {
            for _ in 0..ROUNDS {
                rung.fetch_add(1, Ordering::Release);
                waker.wake();
                answered.recv().unwrap();
            }
        }
    });
    for round in 1..=ROUNDS {
        while rung.load(Ordering::Acquire) < round {
            bench.disk.wait(None);
        }
        answer.send(()).unwrap();
    }
    ringer.join().unwrap();
}

/// Wakes and completions at the same time: neither hides the other.
fn writes_go_on_while_others_wake(mut bench: Bench) {
    let file = bench.create("a");
    let waker = bench.disk.waker();
    let (stop, stopped) = mpsc::channel::<()>();
    let ringer = std::thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            waker.wake();
            std::thread::yield_now();
        }
    });
    for page in 0..300 {
        bench.write(file, page, 5);
    }
    drop(stop);
    ringer.join().unwrap();
    assert_eq!(bench.read(file, 0, 300), vec![5; 300 * PAGE]);
}

/// Long enough for a completion to arrive at every point of the owner's turn.
fn completions_that_race_with_the_owner_are_all_seen(mut bench: Bench) {
    const INFLIGHT: usize = 4;
    const COUNT: usize = 3_000;
    let file = bench.create("a");
    let bytes = (INFLIGHT * PAGE) as u64;
    bench.run(Op::Allocate { file, bytes }).unwrap();
    let buf = filled(1, 1);
    let mut left = COUNT;
    let write = |tag: u64| Op::Write {
        file,
        offset: tag * PAGE as u64,
        buf: buf.clone(),
        sync: WriteSync::Deferred,
    };
    for tag in 0..INFLIGHT as u64 {
        bench.disk.submit(Class::Commit, Tag(tag), write(tag));
    }
    let (mut ends, mut seen) = (Vec::new(), 0);
    while seen < COUNT + INFLIGHT {
        bench.disk.wait(None);
        bench.disk.poll(&mut ends);
        for end in ends.drain(..) {
            end.result.unwrap();
            seen += 1;
            if left > 0 {
                left -= 1;
                bench.disk.submit(Class::Commit, end.tag, write(end.tag.0));
            }
        }
    }
}

fn a_wait_ends_at_its_timeout(mut bench: Bench) {
    bench.disk.wait(Some(Duration::from_millis(2)));
    bench.disk.wait(Some(Duration::ZERO));
    let mut out = Vec::new();
    bench.disk.poll(&mut out);
    assert!(out.is_empty());
}

fn an_idle_disk_moves_to_another_thread(mut bench: Bench) {
    let file = bench.create("a");
    bench.write(file, 0, 1);
    let mut bench = std::thread::spawn(move || {
        bench.write(file, 1, 2);
        bench.submit(Class::Commit, write(file, 2, 3, WriteSync::Durable));
        bench
    })
    .join()
    .unwrap();
    // Submitted there and never handed over, so it starts here.
    bench.collect(1).remove(0).result.unwrap();
    let expected = [[1; PAGE], [2; PAGE], [3; PAGE]].concat();
    assert_eq!(bench.read(file, 0, 4), expected);
}

fn a_dropped_disk_leaves_whole_writes(mut bench: Bench) {
    let file = bench.create("a");
    bench.run(Op::Allocate { file, bytes: 64 * PAGE as u64 }).unwrap();
    for page in 0..64 {
        bench.submit(Class::Commit, write(file, page, 1, WriteSync::Durable));
        bench.submit(Class::Read, Op::Read { file, offset: 0, buf: AlignedBuf::zeroed(64 * PAGE) });
    }
    bench.disk.poll(&mut Vec::new());
    let Bench { disk, dir, .. } = bench;
    drop(disk);
    // The simulated disk keeps its files elsewhere.
    let Ok(bytes) = std::fs::read(dir.path().join("a")) else { return };
    for page in bytes.chunks(PAGE) {
        assert!(page == [0; PAGE] || page == [1; PAGE]);
    }
    assert_eq!(bytes.len(), 64 * PAGE);
}

macro_rules! suite {
    ($backend:ident, $make:expr) => {
        mod $backend {
            use super::*;
            suite!(@tests $make;
                written_bytes_come_back
                many_operations_in_flight_end_once_each
                a_read_beyond_the_end_is_short
                an_open_finds_what_its_mode_expects_or_fails
                a_size_is_set_up_and_down
                names_are_made_changed_listed_and_removed
                what_is_not_there_is_not_found
                names_outside_the_directory_are_refused
                a_closed_file_is_gone_and_its_name_is_not_used_again
                files_come_and_go_by_the_thousand
                a_wake_before_the_wait_is_not_lost
                a_wake_from_another_thread_ends_the_wait
                writes_go_on_while_others_wake
                completions_that_race_with_the_owner_are_all_seen
                a_wait_ends_at_its_timeout
                an_idle_disk_moves_to_another_thread
                a_dropped_disk_leaves_whole_writes
            );
        }
    };
    (@tests $make:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                if let Some(bench) = Bench::new($make) {
                    super::$name(bench);
                }
            }
        )*
    };
}

fn uring(dir: &Path, page_cache: PageCache) -> io::Result<AnyDisk> {
    Ok(Box::new(UringDisk::open(dir, UringOptions { page_cache })?))
}

fn syscall(dir: &Path, page_cache: PageCache) -> io::Result<AnyDisk> {
    let options = SyscallOptions { page_cache, ..SyscallOptions::default() };
    Ok(Box::new(SyscallDisk::open(dir, options)?))
}

fn syscall_inline(dir: &Path) -> io::Result<AnyDisk> {
    let options = SyscallOptions { inline_commits: true, ..SyscallOptions::default() };
    Ok(Box::new(SyscallDisk::open(dir, options)?))
}

suite!(uring_direct, |dir| uring(dir, PageCache::Avoid));
suite!(uring_buffered, |dir| uring(dir, PageCache::Use));
suite!(syscall_direct, |dir| syscall(dir, PageCache::Avoid));
suite!(syscall_buffered, |dir| syscall(dir, PageCache::Use));
suite!(syscall_inline_commits, syscall_inline);
suite!(simulated, |_| Ok(Box::new(SimDisk::new(1, SimFaults::none()).handle())));

#[test]
fn real_files_are_their_owners_alone_and_links_are_not_followed() {
    use std::os::unix::fs::{MetadataExt, symlink};
    for make in [uring, syscall] {
        let dir = tempfile::tempdir().unwrap();
        let Ok(disk) = make(dir.path(), PageCache::Avoid) else { continue };
        let mut bench = Bench { disk, dir, tags: 0 };
        bench.create("a");
        let mode = bench.dir.path().join("a").metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        symlink("a", bench.dir.path().join("link")).unwrap();
        bench.try_open("link", OpenMode::Existing).unwrap_err();
    }
}

#[test]
fn a_disk_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let disk = syscall(dir.path(), PageCache::Use).unwrap();
    assert_eq!((disk.backend(), disk.is_direct()), ("syscall", false));
    if let Ok(disk) = uring(dir.path(), PageCache::Use) {
        assert_eq!((disk.backend(), disk.is_direct()), ("uring", false));
    }
}

#[test]
fn a_disk_may_move_to_another_thread_unless_that_would_end_its_operations() {
    for make in [uring, syscall] {
        let dir = tempfile::tempdir().unwrap();
        let Ok(mut disk) = make(dir.path(), PageCache::Avoid) else { continue };
        for number in 0..2_u64 {
            let path = format!("file-{number}");
            disk = thread::spawn(move || {
                let op = Op::Open { path, mode: OpenMode::CreateNew };
                disk.submit(Class::Background, Tag(number), op);
                let mut out = Vec::new();
                while out.is_empty() || !disk.may_move() {
                    disk.poll(&mut out);
                    disk.wait(Some(Duration::from_millis(1)));
                }
                assert!(out.iter().all(|end| end.result.is_ok()), "{out:?}");
                disk
            })
            .join()
            .unwrap();
        }
    }
}
