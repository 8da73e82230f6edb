//! What only the ring can get wrong: its settings, its thread, and memory that the kernel still uses.

use super::*;
use crate::buffer::AlignedBuf;
use crate::io::{FileId, OpenMode, WriteBuf, WriteSync};

const PAGE: usize = 4096;

fn disk(dir: &Path) -> Option<UringDisk> {
    UringDisk::open(dir, UringOptions::default())
        .inspect_err(|error| eprintln!("skipped: {error}"))
        .ok()
}

fn run(disk: &mut UringDisk, op: Op) -> io::Result<Done> {
    disk.submit(Class::Commit, Tag(0), op);
    let mut out = Vec::new();
    while out.is_empty() {
        disk.wait(None);
        disk.poll(&mut out);
    }
    out.remove(0).result
}

fn create(disk: &mut UringDisk) -> FileId {
    let op = Op::Open { path: "a".to_owned(), mode: OpenMode::CreateNew };
    match run(disk, op).unwrap() {
        Done::Opened { file, .. } => file,
        other @ (Done::Read { .. } | Done::Nothing) => panic!("{other:?}"),
    }
}

fn write(file: FileId) -> Op {
    let buf = WriteBuf::Owned(Arc::new(AlignedBuf::zeroed(PAGE)));
    Op::Write { file, offset: 0, buf, sync: WriteSync::Durable }
}

/// A disk on a ring with exactly these settings.
fn disk_on(rung: Rung, dir: &Path) -> Option<UringDisk> {
    let made = setup::make_with(&mut |tried, builder| {
        if tried == rung { builder.build(SUBMISSION_ENTRIES) } else { Err(Errno::INVAL.into()) }
    });
    let dir = DataDir::open(dir, PageCache::Avoid).unwrap();
    UringDisk::with_ring(made.ok()?, dir).ok()
}

#[test]
fn every_rung_writes_wakes_and_waits() {
    for rung in [Rung::Deferred, Rung::Cooperative, Rung::Plain] {
        let dir = tempfile::tempdir().unwrap();
        let Some(mut disk) = disk_on(rung, dir.path()) else { continue };
        let file = create(&mut disk);
        run(&mut disk, write(file)).unwrap();
        let waker = disk.waker();
        let ringer = thread::spawn(move || waker.wake());
        disk.wait(None);
        ringer.join().unwrap();
        run(&mut disk, Op::Sync { file }).unwrap();
        run(&mut disk, Op::Close { file }).unwrap();
    }
}

/// A FIFO never becomes readable here, so its poll stands for an operation that does not end.
fn stuck_read(disk: &mut UringDisk, dir: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo"),
        rustix::fs::FileType::Fifo,
        data_dir::FILE_MODE,
        0,
    )
    .unwrap();
    let fifo = rustix::fs::open(
        dir.join("fifo"),
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let file = disk.files.add(&disk.ring.submitter(), fifo, true);
    let buf = AlignedBuf::zeroed(PAGE);
    disk.submit(Class::Read, Tag(9), Op::Read { file, offset: 0, buf });
    disk.poll(&mut Vec::new());
    assert!(!disk.table.is_empty());
}

#[test]
fn a_disk_that_moves_with_operations_in_flight_ends_them_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = disk(dir.path()) else { return };
    let file = create(&mut disk);
    stuck_read(&mut disk, dir.path());
    thread::spawn(move || {
        let mut out = Vec::new();
        disk.poll(&mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].tag, Tag(9));
        let message = out[0].result.as_ref().unwrap_err().to_string();
        assert!(message.contains("another thread"), "{message}");
        // And so does everything after it; the kernel still has the buffer, so it is leaked here.
        run(&mut disk, write(file)).unwrap_err();
    })
    .join()
    .unwrap();
}

#[test]
fn a_wait_on_a_broken_ring_returns() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = disk(dir.path()) else { return };
    let file = create(&mut disk);
    disk.break_down(&Errno::BADF.into());
    disk.wait(None);
    let error = run(&mut disk, write(file)).unwrap_err();
    assert!(error.to_string().contains("out of order"), "{error}");
}

#[test]
fn files_beyond_the_table_of_registered_ones_work_by_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = disk(dir.path()) else { return };
    let registered = create(&mut disk);
    disk.files.forget_places();
    let op = Op::Open { path: "a".to_owned(), mode: OpenMode::Existing };
    let Done::Opened { file, .. } = run(&mut disk, op).unwrap() else { panic!("not opened") };
    run(&mut disk, write(file)).unwrap();
    run(&mut disk, write(registered)).unwrap();
    run(&mut disk, Op::Close { file: registered }).unwrap();
    let op = Op::Open { path: "a".to_owned(), mode: OpenMode::Existing };
    let Done::Opened { file, .. } = run(&mut disk, op).unwrap() else { panic!("not opened") };
    run(&mut disk, write(file)).unwrap();
}

#[test]
fn a_file_with_operations_in_flight_is_not_closed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = disk(dir.path()) else { return };
    let file = create(&mut disk);
    disk.submit(Class::Commit, Tag(1), write(file));
    disk.submit(Class::Commit, Tag(2), Op::Close { file });
    let mut out = Vec::new();
    while out.len() < 2 {
        disk.wait(None);
        disk.poll(&mut out);
    }
    out.sort_by_key(|end| end.tag);
    out[0].result.as_ref().unwrap();
    out[1].result.as_ref().unwrap_err();
    run(&mut disk, Op::Close { file }).unwrap();
}

/// What follows when each step of an operation is interrupted once: whether it is submitted again.
fn is_submitted_again(disk: &mut UringDisk, op: Op, steps: Vec<(u32, Option<OwnedFd>)>) -> bool {
    let mut flight = Flight::new(Tag(0), op, &mut disk.files).unwrap();
    let around = Surroundings { dir: &disk.dir, can_truncate: true };
    for (result, opened) in steps {
        assert!(matches!(flight.advance(Ok(result), opened, &around), Next::Submit));
    }
    matches!(flight.advance(Err(Errno::INTR), None, &around), Next::Submit)
}

/// A kernel that has reported an error may have dropped the pages, and the next sync speaks of none of them (P4).
#[test]
fn an_interrupted_sync_is_never_submitted_again_and_everything_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = disk(dir.path()) else { return };
    let direct = create(&mut disk);
    let fd = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
    let buffered = disk.files.add(&disk.ring.submitter(), fd(), false);
    let bytes = u32::try_from(PAGE).unwrap();
    let sync_dir = || Op::SyncDir { path: String::new() };

    assert!(!is_submitted_again(&mut disk, Op::Sync { file: direct }, vec![]));
    assert!(!is_submitted_again(&mut disk, write(buffered), vec![(bytes, None)]));
    assert!(!is_submitted_again(&mut disk, sync_dir(), vec![(0, Some(fd()))]));

    assert!(is_submitted_again(&mut disk, write(buffered), vec![]));
    assert!(is_submitted_again(&mut disk, write(direct), vec![]));
    assert!(is_submitted_again(&mut disk, sync_dir(), vec![]));
}
