//! The fault model, claim by claim.

use super::*;
use crate::buffer::AlignedBuf;
use crate::io::{Done, FileId, OpenMode, WriteBuf, WriteSync};

const PAGE: u64 = PAGE_BYTES as u64;

fn page(byte: u8) -> WriteBuf {
    let mut buf = AlignedBuf::zeroed(PAGE_BYTES);
    buf.as_mut_slice().fill(byte);
    WriteBuf::Owned(Arc::new(buf))
}

fn write(file: FileId, offset: u64, byte: u8, sync: WriteSync) -> Op {
    Op::Write { file, offset, buf: page(byte), sync }
}

/// Submits one operation and waits for its end.
fn run(disk: &mut SimHandle, op: Op) -> io::Result<Done> {
    disk.submit(Class::Commit, Tag(7), op);
    let mut out = Vec::new();
    while out.is_empty() {
        disk.wait(None);
        disk.poll(&mut out);
    }
    assert_eq!(out.len(), 1);
    out.remove(0).result
}

fn opened(result: io::Result<Done>) -> FileId {
    match result.unwrap() {
        Done::Opened { file, .. } => file,
        other @ (Done::Read { .. } | Done::Nothing) => panic!("{other:?}"),
    }
}

fn open(disk: &mut SimHandle, path: &str, mode: OpenMode) -> FileId {
    opened(run(disk, Op::Open { path: path.to_owned(), mode }))
}

/// A disk with one durable file of four pages of ones, open.
fn disk_with_file() -> (SimDisk, SimHandle, FileId) {
    let disk = SimDisk::new(1, SimFaults::none());
    disk.write_file("seg/a", &[1; 4 * PAGE_BYTES]);
    let mut handle = disk.handle();
    let file = open(&mut handle, "seg/a", OpenMode::Existing);
    (disk, handle, file)
}

fn bytes_of_pages(disk: &SimDisk, path: &str) -> Vec<u8> {
    disk.read_file(path).unwrap().chunks(PAGE_BYTES).map(|page| page[0]).collect()
}

#[test]
fn durable_bytes_survive_and_deferred_ones_need_a_sync() {
    let (disk, mut handle, file) = disk_with_file();
    run(&mut handle, write(file, 0, 2, WriteSync::Durable)).unwrap();
    run(&mut handle, write(file, PAGE, 3, WriteSync::Deferred)).unwrap();
    run(&mut handle, Op::Sync { file }).unwrap();
    run(&mut handle, write(file, 2 * PAGE, 4, WriteSync::Deferred)).unwrap();
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [2, 3, 4, 1]);
    disk.crash_drop_all();
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [2, 3, 1, 1]);
}

#[test]
fn a_sync_covers_only_what_was_seen_before_it() {
    let (disk, mut handle, file) = disk_with_file();
    handle.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Deferred));
    handle.submit(Class::Commit, Tag(2), Op::Sync { file });
    disk.advance(u64::MAX / 2);
    let mut out = Vec::new();
    handle.poll(&mut out);
    assert_eq!(out.len(), 2);
    disk.crash_drop_all();
    assert_eq!(bytes_of_pages(&disk, "seg/a")[0], 1);
}

#[test]
fn a_write_in_flight_may_survive_or_not_even_if_it_was_to_be_durable() {
    for (fate, byte) in [(Fate::New, 2), (Fate::Old, 1), (Fate::Zero, 0)] {
        let (disk, mut handle, file) = disk_with_file();
        handle.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Durable));
        assert_eq!(disk.in_flight(), 1);
        disk.crash_with(|_| fate);
        assert_eq!(bytes_of_pages(&disk, "seg/a")[0], byte);
    }
}

#[test]
fn every_sector_of_a_torn_page_has_its_own_fate() {
    let (disk, mut handle, file) = disk_with_file();
    handle.submit(Class::Commit, Tag(1), write(file, PAGE, 2, WriteSync::Durable));
    let image = disk.snapshot();
    for mask in 0..256_u32 {
        disk.restore(&image);
        let mut number = 0;
        disk.crash_with(|item| {
            assert!(matches!(item, Unsynced::Sector { changes: true, .. }));
            let fate = if mask >> number & 1 == 1 { Fate::New } else { Fate::Old };
            number += 1;
            fate
        });
        assert_eq!(number, SECTORS_PER_PAGE);
        let bytes = disk.read_file("seg/a").unwrap();
        for (sector, bytes) in bytes[PAGE_BYTES..2 * PAGE_BYTES].chunks(SECTOR_BYTES).enumerate() {
            let expected = if mask >> sector & 1 == 1 { 2 } else { 1 };
            assert_eq!(bytes, [expected; SECTOR_BYTES]);
        }
    }
}

#[test]
fn a_seeded_crash_tears_keeps_and_drops() {
    let mut counters = SimCounters::default();
    let (mut kept, mut dropped) = (0, 0);
    for seed in 0..200 {
        let (disk, mut handle, file) = disk_with_file();
        disk.reseed(seed);
        handle.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Durable));
        disk.crash();
        let bytes = disk.read_file("seg/a").unwrap();
        kept += u32::from(bytes[..PAGE_BYTES] == [2; PAGE_BYTES]);
        dropped += u32::from(bytes[..PAGE_BYTES] == [1; PAGE_BYTES]);
        counters = disk.counters();
        assert_eq!(bytes[PAGE_BYTES..], [1; 3 * PAGE_BYTES]);
    }
    assert!(kept > 20 && dropped > 20 && kept + dropped < 180, "{kept} {dropped}");
    assert_eq!(counters.crashes, 1);
}

#[test]
fn a_new_name_needs_a_sync_of_its_directory() {
    let disk = SimDisk::new(3, SimFaults::none());
    let mut handle = disk.handle();
    run(&mut handle, Op::MakeDir { path: "seg".to_owned() }).unwrap();
    run(&mut handle, Op::SyncDir { path: String::new() }).unwrap();
    for (path, synced) in [("seg/a", true), ("seg/b", false)] {
        let file = open(&mut handle, path, OpenMode::CreateNew);
        run(&mut handle, write(file, 0, 5, WriteSync::Durable)).unwrap();
        if synced {
            run(&mut handle, Op::SyncDir { path: "seg".to_owned() }).unwrap();
        }
    }
    assert_eq!(disk.files(), ["seg/a", "seg/b"]);
    disk.crash_drop_all();
    assert_eq!(disk.files(), ["seg/a"]);
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [5]);
}

#[test]
fn a_rename_is_undone_whole_unless_its_directory_was_synced() {
    let renamed = |synced: bool| {
        let disk = SimDisk::new(3, SimFaults::none());
        disk.write_file("META.tmp", b"new");
        disk.write_file("META", b"old");
        let mut handle = disk.handle();
        let (from, to) = ("META.tmp".to_owned(), "META".to_owned());
        run(&mut handle, Op::Rename { from, to }).unwrap();
        if synced {
            run(&mut handle, Op::SyncDir { path: String::new() }).unwrap();
        }
        disk.crash_drop_all();
        (disk.files(), disk.read_file("META").unwrap())
    };
    assert_eq!(renamed(true), (vec!["META".to_owned()], b"new".to_vec()));
    let both = vec!["META".to_owned(), "META.tmp".to_owned()];
    assert_eq!(renamed(false), (both, b"old".to_vec()));
}

#[test]
fn names_are_lost_with_a_directory_that_was_never_synced() {
    let disk = SimDisk::new(3, SimFaults::none());
    let mut handle = disk.handle();
    run(&mut handle, Op::MakeDir { path: "seg".to_owned() }).unwrap();
    open(&mut handle, "seg/a", OpenMode::CreateNew);
    run(&mut handle, Op::SyncDir { path: "seg".to_owned() }).unwrap();
    disk.crash_drop_all();
    assert_eq!(disk.files(), Vec::<String>::new());
    let error = disk.handle().list("seg").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_removed_file_comes_back_with_its_bytes_until_the_directory_is_synced() {
    let (disk, mut handle, file) = disk_with_file();
    run(&mut handle, write(file, 0, 2, WriteSync::Durable)).unwrap();
    run(&mut handle, Op::Remove { path: "seg/a".to_owned() }).unwrap();
    assert_eq!(disk.files(), Vec::<String>::new());
    disk.crash_drop_all();
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [2, 1, 1, 1]);
}

#[test]
fn a_size_needs_a_sync() {
    let (disk, mut handle, file) = disk_with_file();
    run(&mut handle, Op::Allocate { file, bytes: 6 * PAGE }).unwrap();
    disk.crash_drop_all();
    assert_eq!(disk.read_file("seg/a").unwrap().len(), 4 * PAGE_BYTES);

    let mut handle = disk.handle();
    let file = open(&mut handle, "seg/a", OpenMode::Existing);
    run(&mut handle, Op::Allocate { file, bytes: 6 * PAGE }).unwrap();
    run(&mut handle, Op::Sync { file }).unwrap();
    disk.crash_drop_all();
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [1, 1, 1, 1, 0, 0]);
}

#[test]
fn bytes_beyond_a_lost_size_do_not_come_back_when_the_file_grows() {
    let (disk, mut handle, file) = disk_with_file();
    run(&mut handle, write(file, 4 * PAGE, 9, WriteSync::Deferred)).unwrap();
    disk.crash_with(|item| match item {
        Unsynced::Size { .. } => Fate::Old,
        Unsynced::Sector { .. } | Unsynced::Entry { .. } => Fate::New,
    });
    disk.set_len("seg/a", 5 * PAGE);
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [1, 1, 1, 1, 0]);
}

#[test]
fn a_dead_process_gets_nothing_and_changes_nothing() {
    let (disk, mut old, file) = disk_with_file();
    old.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Durable));
    disk.crash_drop_all();
    let mut new = disk.handle();
    old.submit(Class::Commit, Tag(2), write(file, 0, 3, WriteSync::Durable));
    disk.advance(u64::MAX / 2);
    old.wait(None);
    let mut out = Vec::new();
    old.poll(&mut out);
    assert!(out.is_empty());
    assert!(!old.is_alive());
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [1, 1, 1, 1]);
    let error = run(&mut new, write(file, 0, 4, WriteSync::Durable)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_death_of_a_process_loses_nothing_that_had_completed() {
    let (disk, mut handle, file) = disk_with_file();
    run(&mut handle, write(file, 0, 2, WriteSync::Deferred)).unwrap();
    disk.kill();
    assert_eq!(bytes_of_pages(&disk, "seg/a")[0], 2);
    let mut handle = disk.handle();
    let file = open(&mut handle, "seg/a", OpenMode::Existing);
    run(&mut handle, Op::Sync { file }).unwrap();
    disk.crash_drop_all();
    assert_eq!(bytes_of_pages(&disk, "seg/a")[0], 2);
}

#[test]
fn a_failed_sync_leaves_pages_that_no_later_sync_brings_back() {
    let (mut lost, mut kept, mut reverted) = (0, 0, 0);
    for seed in 0..100 {
        let (disk, mut handle, file) = disk_with_file();
        disk.reseed(seed);
        run(&mut handle, write(file, 0, 2, WriteSync::Deferred)).unwrap();
        disk.fail_next(OpKind::Sync, io::ErrorKind::Other);
        run(&mut handle, Op::Sync { file }).unwrap_err();
        run(&mut handle, Op::Sync { file }).unwrap();
        let read = bytes_of_pages(&disk, "seg/a")[0];
        disk.crash_keep_all();
        let left = bytes_of_pages(&disk, "seg/a")[0];
        lost += u32::from((read, left) == (2, 1));
        kept += u32::from((read, left) == (2, 2));
        reverted += u32::from((read, left) == (1, 1));
    }
    assert_eq!(lost + kept + reverted, 100);
    assert!(lost > 0 && kept > 0 && reverted > 0);
}

#[test]
fn a_failed_write_reports_its_error_and_a_short_one_leaves_a_prefix() {
    let (disk, mut handle, file) = disk_with_file();
    disk.fail_after(OpKind::Write, 1, io::ErrorKind::Other);
    run(&mut handle, write(file, 0, 2, WriteSync::Durable)).unwrap();
    run(&mut handle, write(file, PAGE, 2, WriteSync::Durable)).unwrap_err();
    disk.fail_next(OpKind::Write, io::ErrorKind::WriteZero);
    let mut buf = AlignedBuf::zeroed(4 * PAGE_BYTES);
    buf.as_mut_slice().fill(3);
    let buf = WriteBuf::Owned(Arc::new(buf));
    let op = Op::Write { file, offset: 0, buf, sync: WriteSync::Durable };
    assert_eq!(run(&mut handle, op).unwrap_err().kind(), io::ErrorKind::WriteZero);
    let pages = bytes_of_pages(&disk, "seg/a");
    let written = pages.iter().take_while(|byte| **byte == 3).count();
    assert!(written < 4 && !pages[written..].contains(&3), "{pages:?}");
}

#[test]
fn a_lost_write_and_a_misdirected_one_report_success() {
    let (disk, mut handle, file) = disk_with_file();
    disk.lose_next_write();
    run(&mut handle, write(file, 0, 2, WriteSync::Durable)).unwrap();
    assert_eq!(bytes_of_pages(&disk, "seg/a"), [1; 4]);
    disk.misdirect_next_write();
    run(&mut handle, write(file, 64 * PAGE, 2, WriteSync::Durable)).unwrap();
    let pages = bytes_of_pages(&disk, "seg/a");
    let landed: Vec<&u8> = pages.iter().filter(|byte| **byte == 2).collect();
    assert_eq!(landed.len(), 1, "{pages:?}");
    assert_eq!(disk.counters().lost_writes, 1);
    assert_eq!(disk.counters().misdirected_writes, 1);
}

#[test]
fn a_full_disk_refuses_to_grow_and_still_overwrites() {
    let (disk, mut handle, file) = disk_with_file();
    disk.set_capacity(Some(5 * PAGE));
    let error = run(&mut handle, Op::Allocate { file, bytes: 6 * PAGE }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    run(&mut handle, Op::Allocate { file, bytes: 5 * PAGE }).unwrap();
    run(&mut handle, write(file, 0, 2, WriteSync::Durable)).unwrap();
    run(&mut handle, write(file, 5 * PAGE, 2, WriteSync::Durable)).unwrap_err();
}

#[test]
fn a_flipped_bit_stays_flipped() {
    let (disk, ..) = disk_with_file();
    disk.flip_bit("seg/a", 8 * 4096 + 3);
    assert_eq!(disk.read_file("seg/a").unwrap()[4096], 1 ^ 8);
    disk.crash_drop_all();
    assert_eq!(disk.read_file("seg/a").unwrap()[4096], 1 ^ 8);
}

#[test]
fn a_stalled_disk_completes_nothing_before_its_time() {
    let (disk, mut handle, file) = disk_with_file();
    let start_us = disk.now_us();
    handle.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Durable));
    disk.stall(1_000_000);
    handle.submit(Class::Commit, Tag(2), write(file, PAGE, 2, WriteSync::Durable));
    disk.advance(start_us + 999_999);
    assert_eq!(disk.in_flight(), 2);
    disk.advance(disk.next_due().unwrap());
    assert_eq!(disk.in_flight(), 1);
}

#[test]
fn waiting_stops_at_its_timeout() {
    let (disk, mut handle, file) = disk_with_file();
    let start_us = disk.now_us();
    disk.stall(1_000);
    handle.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Durable));
    handle.wait(Some(Duration::from_micros(10)));
    assert_eq!(disk.now_us(), start_us + 10);
    assert_eq!(disk.in_flight(), 1);
}

/// Everything that happens in a fixed run of many operations with many faults.
fn trace(seed: u64) -> (Vec<(u64, String)>, Vec<u8>, SimCounters) {
    let faults = SimFaults {
        write_error_ppm: 50_000,
        lost_write_ppm: 50_000,
        misdirected_write_ppm: 50_000,
        read_error_ppm: 50_000,
        flipped_read_ppm: 50_000,
        sync_error_ppm: 100_000,
        stall_ppm: 50_000,
        ..SimFaults::none()
    };
    let disk = SimDisk::new(seed, faults);
    disk.write_file("a", &vec![1; 16 * PAGE_BYTES]);
    let mut handle = disk.handle();
    let file = open(&mut handle, "a", OpenMode::Existing);
    let mut out = Vec::new();
    for round in 0..40 {
        let (at, byte) = (round % 16 * PAGE, 2 + (round % 7) as u8);
        handle.submit(Class::Commit, Tag(round * 3), write(file, at, byte, WriteSync::Deferred));
        let buf = AlignedBuf::zeroed(PAGE_BYTES);
        handle.submit(Class::Read, Tag(round * 3 + 1), Op::Read { file, offset: at, buf });
        handle.submit(Class::Commit, Tag(round * 3 + 2), Op::Sync { file });
        handle.wait(None);
        handle.poll(&mut out);
    }
    disk.crash();
    let trace = out.into_iter().map(|end| (end.tag.0, format!("{:?}", end.result.is_ok())));
    (trace.collect(), disk.read_file("a").unwrap(), disk.counters())
}

#[test]
fn the_same_seed_brings_the_same_run_and_another_seed_another() {
    assert_eq!(trace(11), trace(11));
    assert_ne!(trace(11), trace(12));
}

#[test]
fn listing_what_is_unsynced_changes_nothing() {
    let (disk, mut handle, file) = disk_with_file();
    handle.submit(Class::Commit, Tag(1), write(file, 0, 2, WriteSync::Durable));
    let items = disk.unsynced();
    assert_eq!(items.len(), SECTORS_PER_PAGE);
    assert_eq!(disk.unsynced(), items);
    assert_eq!(disk.in_flight(), 1);
}
