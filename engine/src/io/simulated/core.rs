//! The device itself: operations in flight, the clock they wait for, and what becomes of each.

use std::io;
use std::time::Duration;

use super::faults::Fault;
use super::file::File;
use super::volume::{Effect, Inode};
use super::{
    BTreeMap, BTreeSet, Completion, Covered, Crash, Fate, Op, OpKind, OpNumber, PAGE_BYTES, Random,
    SimCounters, SimFaults, Tag, Unsynced, VecDeque, Volume, image,
};
use crate::buffer::AlignedBuf;
use crate::io::{Done, FileId, OpenMode, WriteBuf, WriteSync, data_dir, path};

pub(super) struct Core {
    pub(super) random: Random,
    pub(super) faults: SimFaults,
    pub(super) counters: SimCounters,
    pub(super) now_us: u64,
    pub(super) volume: Volume,
    /// By due time, then in the order of submission.
    pub(super) flights: BTreeMap<(u64, OpNumber), Flight>,
    /// Completed and not yet polled.
    ready: VecDeque<(OpNumber, Completion)>,
    /// In flight or not yet polled.
    unseen: BTreeSet<OpNumber>,
    /// Counts process lives: a handle of an earlier one is dead.
    pub(super) process: u64,
    open: BTreeMap<FileId, Inode>,
    opened: u32,
    ops: OpNumber,
    injected: Vec<Injected>,
    /// Pages that no read brings.
    refused: BTreeSet<(Inode, u64)>,
    stalled_until_us: u64,
}

pub(super) struct Flight {
    tag: Tag,
    action: Action,
    fault: Option<Fault>,
}

/// What remains to be done when an operation is due. Changes wait in the volume as effects.
enum Action {
    Open { path: String, mode: OpenMode },
    Close { file: FileId },
    Write { inode: Inode, end: u64 },
    Allocate { inode: Inode, bytes: u64 },
    Read { inode: Inode, offset: u64, buf: AlignedBuf },
    Sync { inode: Inode, covered: Covered },
    SyncDir { path: String, covered: Covered },
    Names,
    Refused(io::Error),
}

struct Injected {
    kind: OpKind,
    skip: u64,
    fault: Fault,
}

impl Core {
    pub(super) fn new(seed: u64, faults: SimFaults) -> Core {
        Core {
            random: Random::new(seed),
            faults,
            counters: SimCounters::default(),
            now_us: 0,
            volume: Volume::default(),
            flights: BTreeMap::new(),
            ready: VecDeque::new(),
            unseen: BTreeSet::new(),
            process: 0,
            open: BTreeMap::new(),
            opened: 0,
            ops: 0,
            injected: Vec::new(),
            refused: BTreeSet::new(),
            stalled_until_us: 0,
        }
    }

    pub(super) fn submit(&mut self, tag: Tag, op: Op) {
        let number = self.ops;
        self.ops += 1;
        self.counters.count(&op);
        let kind = OpKind::of(&op);
        let fault = self.fault_of(kind);
        let due_us = self.now_us.max(self.stalled_until_us) + self.latency_us(kind);
        let action = self.begin(number, op, fault).unwrap_or_else(Action::Refused);
        self.unseen.insert(number);
        self.flights.insert((due_us, number), Flight { tag, action, fault });
    }

    fn latency_us(&mut self, kind: OpKind) -> u64 {
        let latency_us = self.faults.latency_us(kind, &mut self.random);
        if !self.random.chance(self.faults.stall_ppm) {
            return latency_us;
        }
        self.counters.stalls += 1;
        latency_us + self.random.within(&self.faults.stall_us)
    }

    fn fault_of(&mut self, kind: OpKind) -> Option<Fault> {
        let mut injected = None;
        for (at, entry) in self.injected.iter_mut().enumerate().filter(|(_, i)| i.kind == kind) {
            if entry.skip == 0 {
                injected = injected.or(Some(at));
            } else {
                entry.skip -= 1;
            }
        }
        let fault = match injected {
            Some(at) => Some(self.injected.remove(at).fault),
            None => self.faults.draw(kind, &mut self.random),
        };
        if let Some(fault) = fault {
            self.counters.count_fault(kind, fault);
        }
        fault
    }

    fn begin(&mut self, number: OpNumber, op: Op, fault: Option<Fault>) -> io::Result<Action> {
        let action = match op {
            Op::Open { path, mode } => {
                if mode == OpenMode::CreateNew {
                    self.volume.start(number, Effect::Create { path: path.clone() });
                }
                Action::Open { path, mode }
            }
            Op::Close { file } => Action::Close { file },
            Op::Allocate { file, bytes } => {
                let inode = self.inode(file)?;
                self.volume.start(number, Effect::Size { inode, bytes });
                Action::Allocate { inode, bytes }
            }
            Op::Write { file, offset, buf, sync } => {
                let inode = self.inode(file)?;
                self.begin_write(number, inode, offset, &buf, sync, fault)
            }
            Op::Read { file, offset, buf } => {
                let inode = self.inode(file)?;
                self.check_readable(inode, offset, buf.len() as u64)?;
                Action::Read { inode, offset, buf }
            }
            Op::Sync { file } => {
                Action::Sync { inode: self.inode(file)?, covered: self.covered(number) }
            }
            Op::SyncDir { path } => Action::SyncDir { path, covered: self.covered(number) },
            Op::Rename { from, to } => self.begin_names(number, Effect::Rename { from, to }),
            Op::Remove { path } => self.begin_names(number, Effect::Remove { path }),
            Op::MakeDir { path } => self.begin_names(number, Effect::MakeDir { path }),
        };
        Ok(action)
    }

    fn begin_names(&mut self, number: OpNumber, effect: Effect) -> Action {
        self.volume.start(number, effect);
        Action::Names
    }

    fn begin_write(
        &mut self,
        number: OpNumber,
        inode: Inode,
        offset: u64,
        buf: &WriteBuf,
        sync: WriteSync,
        fault: Option<Fault>,
    ) -> Action {
        let pages = image::pages_of(buf.as_slice());
        self.counters.bytes_written += buf.as_slice().len() as u64;
        let end = offset + buf.as_slice().len() as u64;
        let target = match fault {
            Some(Fault::Lost) => None,
            Some(Fault::Misdirected) => self.volume.elsewhere(pages.len(), &mut self.random),
            Some(Fault::Error(_) | Fault::Flipped) | None => Some((inode, offset)),
        };
        if let Some((inode, offset)) = target {
            self.volume.start(number, Effect::Write { inode, offset, pages, sync });
        }
        Action::Write { inode, end }
    }

    fn covered(&self, before: OpNumber) -> Covered {
        Covered { before, unseen: self.unseen.clone() }
    }

    fn inode(&self, file: FileId) -> io::Result<Inode> {
        self.open.get(&file).copied().ok_or_else(|| data_dir::not_open(file))
    }

    pub(super) fn file_mut(&mut self, path: &str) -> Option<&mut File> {
        let inode = self.volume.open(path).ok()?;
        Some(self.volume.file_mut(inode))
    }

    fn check_readable(&self, inode: Inode, offset: u64, bytes: u64) -> io::Result<()> {
        let pages = (inode, offset)..(inode, offset + bytes);
        match self.refused.range(pages).next() {
            Some(_) => Err(io::Error::other("the simulated disk cannot read this page")),
            None => Ok(()),
        }
    }

    pub(super) fn refuse(&mut self, path: &str, offset: u64) {
        let inode = self.volume.open(path).expect("a test refuses pages of a file that exists");
        self.refused.insert((inode, offset));
    }

    pub(super) fn mend(&mut self) {
        self.refused.clear();
    }

    pub(super) fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        while let Some(entry) = self.flights.first_entry() {
            let (due_us, number) = *entry.key();
            if due_us > self.now_us {
                break;
            }
            let flight = entry.remove();
            let tag = flight.tag;
            let result = self.land(number, flight);
            self.ready.push_back((number, Completion { tag, result }));
        }
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        if self.ready.is_empty() {
            self.flights.keys().next().map(|(due_us, _)| *due_us)
        } else {
            Some(self.now_us)
        }
    }

    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        let limit_us = timeout.map(|timeout| {
            self.now_us.saturating_add(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX))
        });
        let until_us = match (self.next_due(), limit_us) {
            (Some(due_us), Some(limit_us)) => due_us.min(limit_us),
            (Some(only_us), None) | (None, Some(only_us)) => only_us,
            (None, None) => return,
        };
        self.advance(until_us);
    }

    pub(super) fn deliver(&mut self, out: &mut Vec<Completion>) {
        self.advance(self.now_us);
        for (number, completion) in self.ready.drain(..) {
            self.unseen.remove(&number);
            out.push(completion);
        }
    }

    fn land(&mut self, number: OpNumber, flight: Flight) -> io::Result<Done> {
        match flight.fault {
            Some(Fault::Error(kind)) => self.land_failed(number, flight.action, kind),
            fault => self.land_well(number, flight.action, fault),
        }
    }

    fn land_well(
        &mut self,
        number: OpNumber,
        action: Action,
        fault: Option<Fault>,
    ) -> io::Result<Done> {
        match action {
            Action::Refused(error) => return Err(error),
            Action::Open { path, mode } => return self.land_open(number, &path, mode),
            Action::Read { inode, offset, buf } => return Ok(self.read(inode, offset, buf, fault)),
            Action::Close { file } => {
                self.open.remove(&file).ok_or_else(|| data_dir::not_open(file))?;
            }
            Action::Write { inode, end } => {
                self.check_room(number, inode, end)?;
                self.volume.arrive(number)?;
            }
            Action::Allocate { inode, bytes } => {
                self.check_room(number, inode, bytes)?;
                self.volume.arrive(number)?;
            }
            Action::Sync { inode, covered } => self.volume.file_mut(inode).sync(&covered),
            Action::SyncDir { path, covered } => {
                self.volume.check_dir(&path)?;
                self.volume.sync_dir(&path, &covered);
                self.forget_unlinked();
            }
            Action::Names => self.volume.arrive(number)?,
        }
        Ok(Done::Nothing)
    }

    fn land_failed(
        &mut self,
        number: OpNumber,
        action: Action,
        kind: io::ErrorKind,
    ) -> io::Result<Done> {
        let abandoned = self.volume.abandon(number);
        match (action, abandoned) {
            (Action::Write { .. }, Some(Effect::Write { inode, offset, pages, .. })) => {
                let file = self.volume.file_mut(inode);
                if kind == io::ErrorKind::WriteZero {
                    let written = self.random.index(pages.len().max(1));
                    file.write_cached(number, offset, &pages[..written]);
                } else {
                    file.write_mangled(number, offset, &pages, &mut self.random);
                }
            }
            (Action::Sync { inode, covered }, _) => {
                self.volume.file_mut(inode).sync_failed(&covered, &mut self.random);
            }
            // The operation did nothing.
            _ => {}
        }
        Err(io::Error::new(kind, "injected by the simulated disk"))
    }

    fn land_open(&mut self, number: OpNumber, path: &str, mode: OpenMode) -> io::Result<Done> {
        path::check_file(path)?;
        if mode == OpenMode::CreateNew {
            self.volume.arrive(number)?;
        }
        let inode = self.volume.open(path)?;
        let file = FileId(self.opened);
        self.opened += 1;
        self.open.insert(file, inode);
        Ok(Done::Opened { file, bytes: self.volume.file(inode).current.bytes() })
    }

    fn read(
        &mut self,
        inode: Inode,
        offset: u64,
        mut buf: AlignedBuf,
        fault: Option<Fault>,
    ) -> Done {
        let elsewhere = match fault {
            Some(Fault::Misdirected) => {
                self.volume.elsewhere(buf.len() / PAGE_BYTES, &mut self.random)
            }
            _ => None,
        };
        let (inode, offset) = elsewhere.unwrap_or((inode, offset));
        let read = self.volume.file(inode).current.read(offset, buf.as_mut_slice());
        self.counters.bytes_read += read as u64;
        if fault == Some(Fault::Flipped) && read > 0 {
            for _ in 0..=self.random.below(8) {
                let at = self.random.index(read);
                buf.as_mut_slice()[at] ^= 1 << self.random.below(8);
            }
        }
        Done::Read { buf, read }
    }

    /// The device is full when the file would make all of them larger than the capacity.
    fn check_room(&mut self, number: OpNumber, inode: Inode, bytes: u64) -> io::Result<()> {
        let Some(capacity) = self.faults.capacity_bytes else {
            return Ok(());
        };
        let more = bytes.saturating_sub(self.volume.file(inode).current.bytes());
        if more == 0 || self.volume.used_bytes() + more <= capacity {
            return Ok(());
        }
        self.volume.abandon(number);
        self.counters.full_errors += 1;
        Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"))
    }

    fn forget_unlinked(&mut self) {
        let reading = self.flights.values().filter_map(|flight| flight.action.inode());
        let open = self.open.values().copied().chain(reading).collect();
        self.volume.forget_unlinked(&open);
    }

    pub(super) fn fail_after(&mut self, kind: OpKind, skip: u64, error: io::ErrorKind) {
        self.inject_after(kind, skip, Fault::Error(error));
    }

    pub(super) fn inject(&mut self, kind: OpKind, fault: Fault) {
        self.inject_after(kind, 0, fault);
    }

    pub(super) fn inject_after(&mut self, kind: OpKind, skip: u64, fault: Fault) {
        self.injected.push(Injected { kind, skip, fault });
    }

    pub(super) fn stall(&mut self, us: u64) {
        self.counters.stalls += 1;
        self.stalled_until_us = self.now_us + us;
        let stalled = std::mem::take(&mut self.flights);
        let until = self.stalled_until_us;
        self.flights =
            stalled.into_iter().map(|((due, op), flight)| ((due.max(until), op), flight)).collect();
    }

    /// The process is gone; what it had in flight happens or does not.
    pub(super) fn end_process(&mut self) {
        self.volume.kill(&mut self.random);
        self.forget_process();
        self.forget_unlinked();
    }

    pub(super) fn forget_process(&mut self) {
        self.process += 1;
        self.flights.clear();
        self.ready.clear();
        self.unseen.clear();
        self.open.clear();
    }

    pub(super) fn crash(&mut self, choose: &mut dyn FnMut(&Unsynced) -> Fate) {
        self.forget_process();
        self.counters.crashes += 1;
        let (random, counters) = (&mut self.random, &mut self.counters);
        self.volume.crash(&mut Crash { choose, random, counters });
    }

    pub(super) fn crash_seeded(&mut self) {
        let mut random = Random::new(self.random.next());
        if random.chance(self.faults.crash_keeps_all_ppm) {
            self.crash(&mut |_| Fate::New);
        } else if random.chance(self.faults.crash_drops_all_ppm) {
            self.crash(&mut |_| Fate::Old);
        } else {
            let mut pages = Pages { torn_ppm: self.faults.torn_ppm, random, last: None };
            self.crash(&mut |item| pages.choose(item));
        }
    }

    pub(super) fn unsynced(&self) -> Vec<Unsynced> {
        let mut items = Vec::new();
        let mut choose = |item: &Unsynced| {
            items.push(item.clone());
            Fate::Old
        };
        self.volume.clone().crash(&mut Crash {
            choose: &mut choose,
            random: &mut self.random.clone(),
            counters: &mut self.counters.clone(),
        });
        items
    }
}

impl Action {
    fn inode(&self) -> Option<Inode> {
        match self {
            Action::Write { inode, .. }
            | Action::Allocate { inode, .. }
            | Action::Read { inode, .. }
            | Action::Sync { inode, .. } => Some(*inode),
            Action::Open { .. }
            | Action::Close { .. }
            | Action::SyncDir { .. }
            | Action::Names
            | Action::Refused(_) => None,
        }
    }
}

/// The fates of a seeded crash: decided by page, and for torn pages by sector.
struct Pages {
    torn_ppm: u32,
    random: Random,
    last: Option<(std::sync::Arc<str>, u64, PageFate)>,
}

#[derive(Clone, Copy)]
enum PageFate {
    Whole(Fate),
    Torn,
}

impl Pages {
    fn choose(&mut self, item: &Unsynced) -> Fate {
        let Unsynced::Sector { path, offset, versions, .. } = item else {
            return self.kept_or_dropped();
        };
        let page = offset / PAGE_BYTES as u64;
        let fate = match &self.last {
            Some((last_path, last_page, fate)) if last_path == path && *last_page == page => *fate,
            _ => self.page_fate(*versions),
        };
        self.last = Some((std::sync::Arc::clone(path), page, fate));
        match fate {
            PageFate::Whole(fate) => fate,
            PageFate::Torn => self.sector_fate(*versions),
        }
    }

    fn page_fate(&mut self, versions: usize) -> PageFate {
        if self.random.chance(self.torn_ppm) {
            return PageFate::Torn;
        }
        let fate = self.kept_or_dropped();
        if fate == Fate::New && versions > 1 {
            return PageFate::Whole(Fate::Version(self.random.index(versions)));
        }
        PageFate::Whole(fate)
    }

    fn sector_fate(&mut self, versions: usize) -> Fate {
        match self.random.below(8) {
            0..3 => Fate::Version(self.random.index(versions)),
            3..6 => Fate::Old,
            6 => Fate::Garbage,
            _ => Fate::Zero,
        }
    }

    fn kept_or_dropped(&mut self) -> Fate {
        if self.random.chance(500_000) { Fate::New } else { Fate::Old }
    }
}
