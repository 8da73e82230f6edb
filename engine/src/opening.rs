//! Opening a directory: whose it is, what its slots and checkpoints hold, and the engine that goes on from there.
//! This is the only time that the engine waits for the disk.
//!
//! Order: `META`; every slot synced and every directory synced before anything is read (P5); checkpoints read; the log
//! recovered. Only then is anything changed: damaged checkpoints are moved aside, what a crash left unfinished goes.
//!
//! Invariants: a directory that is refused for what it holds is left as it was; an open that is repeated, also after a
//! crash or an error of the device in its middle, finds the same.

use std::path::Path;
use std::sync::Arc;

use crate::blocking::{Blocking, failed};
use crate::buffer::AlignedBuf;
use crate::checkpoint::{
    CheckpointHeader, Verifier, block_body_bytes, block_count, block_file_bytes, block_offset,
    decode_slots, footer_offset, open_block,
};
use crate::checkpoint_writer::pieces;
use crate::cleaning::Cleaning;
use crate::engine::{Engine, Parts};
use crate::error::{Check, OpenError, Unusable};
use crate::format::{
    BLOCK_BYTES, CHECKPOINT_DIR, CHECKPOINT_HEADER_BYTES, FORMAT_VERSION, META_PATH, SLOT_DIR,
    SPARE_PATH, checkpoint_path, slot_path, slot_temporary_path,
};
use crate::io::{Disk, FileId, Op, WriteBuf, WriteSync};
use crate::log::Log;
use crate::meta;
use crate::mutant::{self, Mutant};
use crate::options::{OnDamage, Options};
use crate::recovery::{Known, RecoveredLog, Slots, recover};
use crate::report::{Recovered, Report};
use crate::retained::{KEPT_COUNT, Kept, Retained};
use crate::slots::{SlotTable, is_full};
use crate::space::Limited;
use crate::spare::{Spare, SpareFile};
use crate::types::{CheckpointInfo, Identity, Meta, ValueSlots};
use crate::value_log::ValueLog;

pub(crate) mod inspect;

/// An engine and what it found.
pub struct Opened<D: Disk> {
    /// Ready to append.
    pub engine: Engine<D>,
    /// What the caller goes on from.
    pub recovered: Recovered,
}

/// Takes the newest sound checkpoint while an open reads it, so that it is read once.
pub trait CheckpointSink {
    /// The body of this checkpoint follows. What came before is to be forgotten: it was damaged further on.
    fn begin(&mut self, info: &CheckpointInfo);

    /// The next bytes of the body, verified on their own; that all of them are sound is known when the open has ended.
    fn push(&mut self, body: &[u8]);
}

/// Has no use for a checkpoint.
struct Nobody;

impl CheckpointSink for Nobody {
    fn begin(&mut self, _: &CheckpointInfo) {}
    fn push(&mut self, _: &[u8]) {}
}

/// [`open_with`] without anybody who takes the checkpoint; see [`Engine::load_checkpoint`].
pub fn open<D: Disk>(
    disk: D,
    dir_for_messages: &Path,
    options: Options,
    identity: Identity,
) -> Result<Opened<D>, OpenError> {
    open_with(disk, dir_for_messages, options, identity, &mut Nobody)
}

/// Opens the directory of `disk`, which the caller has locked ([`crate::DirLock`]), and creates what is missing.
/// `dir_for_messages` names it; `sink` is given the newest checkpoint, the one that [`Recovered`] names. Blocks.
///
/// Errors: one that speaks of what the directory holds leaves it as it was. [`OpenError::NoSpace`] of a first open and
/// [`OpenError::Io`] may leave files half made, which the next open removes or goes on from.
pub fn open_with<D: Disk>(
    disk: D,
    dir_for_messages: &Path,
    options: Options,
    identity: Identity,
    sink: &mut dyn CheckpointSink,
) -> Result<Opened<D>, OpenError> {
    options.validate()?;
    let mut disk = Limited::new(disk, options.space_bytes_max);
    let mut opening = Opening::new(&mut disk, dir_for_messages);
    let dir = opening.dir.clone();
    let (mut meta, created) = opening.meta(&options, identity)?;
    let mut files = opening.slots(&meta)?;
    let checkpoints = opening.checkpoints(&meta, sink)?;
    opening.check_named_slots(&files, &checkpoints)?;
    let log = opening.recover(&meta, &files, &checkpoints, options.on_damage)?;
    let kept = opening.settle(checkpoints, &log)?;
    if files.is_empty() {
        files.push(opening.make_first_slot(&meta)?);
        meta.slots_min = 1;
        meta::store(&mut opening.io, &meta)?;
    }
    let spare = Spare::new(opening.spare()?);
    let report = opening.report;
    let recovered = recovered(created, &log, &kept, report);
    let retained = Retained::new(kept);
    let slots = SlotTable::new(files, &options);
    let values = ValueLog::new(meta.log_id, &options, log.values_number, log.epoch + 1);
    let cleaning = Cleaning::new(meta.log_id, &options);
    let log = Log::new(meta.log_id, options, log);
    let parts = Parts { meta, slots, log, values, cleaning, retained, spare };
    Ok(Opened { engine: Engine::new(disk, dir, parts), recovered })
}

fn recovered(created: bool, log: &RecoveredLog, kept: &[Kept], report: Report) -> Recovered {
    Recovered {
        created,
        hard_state: log.hard_state,
        checkpoint: kept.first().map(Kept::info),
        log_start: log.index.start(),
        last: log.index.last(),
        terms: log.index.runs(),
        faulty: log.index.faulty(),
        report: Report {
            segments: log.chain.len(),
            frames: log.frames,
            bytes_scanned: log.bytes_scanned,
            torn: log.torn,
            holes: log.holes.clone(),
            was_reset: log.was_reset,
            ..report
        },
    }
}

struct Opening<'a> {
    io: Blocking<'a>,
    dir: String,
    report: Report,
    /// Slots and checkpoints that a crash left half made.
    unfinished: Vec<String>,
    /// Whether space is held for the next checkpoint.
    has_spare: bool,
}

/// The checkpoints of a directory, before anything is done about them.
#[derive(Default)]
struct Checkpoints {
    /// Newest first.
    good: Vec<Kept>,
    bad: Vec<(u64, Check)>,
    /// Older than the two that are kept.
    superseded: Vec<String>,
}

impl Checkpoints {
    /// Slots that have not been free since the newest good checkpoint was durable: it needs them, and it is kept until
    /// two newer ones are.
    fn held(&self) -> &[u32] {
        match self.good.first() {
            Some(newest) if self.bad.len() < KEPT_COUNT => newest.slots(),
            _ => &[],
        }
    }
}

impl<'a> Opening<'a> {
    fn new(disk: &'a mut dyn Disk, dir_for_messages: &Path) -> Opening<'a> {
        Opening {
            io: Blocking::new(disk),
            dir: dir_for_messages.display().to_string(),
            report: Report::default(),
            unfinished: Vec::new(),
            has_spare: false,
        }
    }
}

impl Opening<'_> {
    /// Reads `META`, or creates it in an empty directory. Whether it was created.
    fn meta(&mut self, options: &Options, identity: Identity) -> Result<(Meta, bool), OpenError> {
        let exists = self.io.list("")?.iter().any(|name| name == META_PATH);
        let meta = if exists {
            let meta = meta::load(&mut self.io, &self.dir)?;
            self.check_meta(&meta, options, identity)?;
            meta
        } else {
            self.refuse_leftovers()?;
            let Identity { node, incarnation, log_id } = identity;
            let (format, slot_bytes) = (FORMAT_VERSION, options.slot_bytes);
            let application = Vec::new();
            let meta =
                Meta { format, log_id, node, incarnation, slot_bytes, slots_min: 0, application };
            meta::store(&mut self.io, &meta)?;
            meta
        };
        for dir in [SLOT_DIR, CHECKPOINT_DIR] {
            self.io.run("create directory", dir, Op::MakeDir { path: dir.to_owned() })?;
        }
        self.io.sync_dir("")?;
        Ok((meta, !exists))
    }

    fn check_meta(
        &self,
        meta: &Meta,
        options: &Options,
        identity: Identity,
    ) -> Result<(), OpenError> {
        let dir = self.dir.clone();
        if meta.node != identity.node {
            let (found, expected) = (meta.node, identity.node);
            return Err(OpenError::WrongNode { dir, found, expected });
        }
        if meta.slot_bytes != options.slot_bytes {
            let (found, expected) = (meta.slot_bytes, options.slot_bytes);
            return Err(OpenError::WrongSlotBytes { dir, found, expected });
        }
        Ok(())
    }

    /// Slots and checkpoints without `META` may be all that is left of somebody's data.
    fn refuse_leftovers(&mut self) -> Result<(), OpenError> {
        let names = self.io.list("")?;
        for dir in [SLOT_DIR, CHECKPOINT_DIR] {
            if !names.iter().any(|name| name == dir) {
                continue;
            }
            if let Some(name) = self.io.list(dir)?.first() {
                let found = format!("{dir}/{name}");
                return Err(OpenError::MetaMissing { dir: self.dir.clone(), found });
            }
        }
        Ok(())
    }

    /// Opens and syncs every slot.
    fn slots(&mut self, meta: &Meta) -> Result<Vec<FileId>, OpenError> {
        let mut numbers = Vec::new();
        for name in self.io.list(SLOT_DIR)? {
            match slot_number(&name) {
                Some((number, SlotName::Slot)) => numbers.push(number),
                Some((number, SlotName::Temporary)) => {
                    // It holds zeros and nobody has ever used it.
                    self.unfinished.push(slot_temporary_path(number));
                }
                None => self.report.unknown.push(format!("{SLOT_DIR}/{name}")),
            }
        }
        self.report.slots = numbers.len();
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX).max(meta.slots_min);
        if let Some(slot) = (0..count)
            .zip(numbers.iter().map(Some).chain(std::iter::repeat(None)))
            .find_map(|(slot, found)| (found != Some(&slot)).then_some(slot))
        {
            return Err(OpenError::SlotMissing { dir: self.dir.clone(), slot });
        }
        let files = self.open_slots(&numbers, meta.slot_bytes)?;
        self.io.sync_dir(SLOT_DIR)?;
        self.io.sync_dir(CHECKPOINT_DIR)?;
        Ok(files)
    }

    fn open_slots(&mut self, numbers: &[u32], expected: u64) -> Result<Vec<FileId>, OpenError> {
        let mut files = Vec::new();
        for slot in numbers {
            let (file, found) = self.io.open(&slot_path(*slot))?;
            if found != expected {
                let (dir, slot) = (self.dir.clone(), *slot);
                return Err(OpenError::SlotLength { dir, slot, found, expected });
            }
            files.push(file);
        }
        if mutant::is(Mutant::OpenWithoutSync) {
            return Ok(files);
        }
        let syncs = files.iter().map(|file| Op::Sync { file: *file }).collect();
        for (slot, result) in numbers.iter().zip(self.io.run_all(syncs)) {
            result.map_err(|source| failed("sync", &slot_path(*slot), source))?;
        }
        Ok(files)
    }

    /// Reads the newest checkpoints until two are good, the first of them whole; one that is bad is read twice.
    fn checkpoints(
        &mut self,
        meta: &Meta,
        sink: &mut dyn CheckpointSink,
    ) -> Result<Checkpoints, OpenError> {
        let mut found = Checkpoints::default();
        let mut indices = Vec::new();
        for name in self.io.list(CHECKPOINT_DIR)? {
            match checkpoint_name(&name) {
                Some(CheckpointName::Durable(index)) => indices.push(index),
                Some(CheckpointName::Temporary) => {
                    self.unfinished.push(format!("{CHECKPOINT_DIR}/{name}"));
                }
                Some(CheckpointName::Spare) => self.has_spare = true,
                Some(CheckpointName::Quarantined) => {}
                None => self.report.unknown.push(format!("{CHECKPOINT_DIR}/{name}")),
            }
        }
        for index in indices.into_iter().rev() {
            if found.good.len() == KEPT_COUNT {
                found.superseded.push(checkpoint_path(index));
                continue;
            }
            let is_first = found.good.is_empty();
            let mut read = |sink: &mut dyn CheckpointSink| {
                let extent = if is_first { Extent::Whole(sink) } else { Extent::Ends };
                self.checkpoint(meta, index, extent)
            };
            let mut result = read(sink)?;
            // It may be the reading that is wrong: what is sound must not be moved aside.
            if result.is_err() && !mutant::is(Mutant::ReadOnceIsCut) {
                result = read(sink)?;
            }
            match result {
                Ok(kept) => found.good.push(kept),
                Err(check) => found.bad.push((index, check)),
            }
        }
        Ok(found)
    }

    /// Reads one checkpoint. The older of two is read whole only when it is needed.
    fn checkpoint(
        &mut self,
        meta: &Meta,
        index: u64,
        extent: Extent<'_>,
    ) -> Result<Result<Kept, Check>, OpenError> {
        let path = checkpoint_path(index);
        let (file, bytes) = self.io.open(&path)?;
        match self.read_checkpoint(meta, index, file, bytes, extent) {
            Ok(kept) => Ok(Ok(kept)),
            Err(Unusable::Damaged(check)) => {
                self.io.run("close", &path, Op::Close { file })?;
                Ok(Err(check))
            }
            Err(Unusable::Unreadable(offset)) => {
                Err(OpenError::Unreadable { dir: self.dir.clone(), path, offset })
            }
        }
    }

    fn read_checkpoint(
        &mut self,
        meta: &Meta,
        index: u64,
        file: FileId,
        file_bytes: u64,
        extent: Extent<'_>,
    ) -> Result<Kept, Unusable> {
        let mut bytes = Vec::new();
        self.io.read_whole(file, 0, CHECKPOINT_HEADER_BYTES as u64, &mut bytes)?;
        let (header, checksum) = CheckpointHeader::decode(&bytes, meta.log_id, file_bytes)?;
        if header.info.at.index != index || header.node != meta.node {
            return Err(Check::Address.into());
        }
        let is_older = matches!(extent, Extent::Ends);
        match extent {
            Extent::Whole(sink) => {
                let mut verifier = Verifier::new(header, checksum);
                let stored = header.info.stored_bytes();
                sink.begin(&header.info);
                verify(&mut self.io, file, &mut verifier, stored, &mut |body| {
                    sink.push(body);
                    Ok(())
                })?;
            }
            Extent::Ends => {
                let offset = footer_offset(header.info.stored_bytes());
                self.io.read_whole(file, offset, BLOCK_BYTES as u64, &mut bytes)?;
                header.check_footer(checksum, &bytes)?;
            }
        }
        let mut slots = self.checkpoint_slots(&header, file)?;
        if is_older && mutant::is(Mutant::OlderCheckpointForgotten) {
            slots.clear();
        }
        Ok(Kept::new(header.info, header.salt, file, ValueSlots { slots, shown: 0 }))
    }

    /// A slot whose absence leaves no hole is missed by the checkpoint whose values lie in it.
    fn check_named_slots(
        &self,
        files: &[FileId],
        checkpoints: &Checkpoints,
    ) -> Result<(), OpenError> {
        let named = checkpoints.good.iter().flat_map(Kept::slots);
        match named.copied().find(|slot| *slot as usize >= files.len()) {
            Some(slot) => Err(OpenError::SlotMissing { dir: self.dir.clone(), slot }),
            None => Ok(()),
        }
    }

    /// The table of slots at the start of a checkpoint.
    fn checkpoint_slots(
        &mut self,
        header: &CheckpointHeader,
        file: FileId,
    ) -> Result<Vec<u32>, Unusable> {
        let info = &header.info;
        let (mut table, mut bytes) = (Vec::new(), Vec::new());
        for block in 0..block_count(info.table_bytes()) {
            let file_bytes = block_file_bytes(block, info.stored_bytes());
            self.io.read_whole(file, block_offset(block), file_bytes as u64, &mut bytes)?;
            let length = block_body_bytes(block, info.stored_bytes());
            table.extend_from_slice(open_block(&bytes, header.salt, block, length)?.0);
        }
        Ok(decode_slots(&table, info.slots_count).ok_or(Check::Length)?)
    }

    fn recover(
        &mut self,
        meta: &Meta,
        files: &[FileId],
        checkpoints: &Checkpoints,
        on_damage: OnDamage,
    ) -> Result<RecoveredLog, OpenError> {
        let infos: Vec<CheckpointInfo> = checkpoints.good.iter().map(Kept::info).collect();
        let known = Known {
            dir: &self.dir,
            log_id: meta.log_id,
            slot_bytes: meta.slot_bytes,
            checkpoints: &infos,
            held: checkpoints.held(),
            on_damage,
        };
        let log = recover(&mut SlotFiles { io: &mut self.io, files }, &known)?;
        let last = log.index.last().index;
        match checkpoints.bad.iter().find(|(index, _)| *index > last) {
            Some((index, check)) => Err(OpenError::CheckpointLost {
                dir: self.dir.clone(),
                index: *index,
                check: *check,
                last,
            }),
            None => Ok(log),
        }
    }

    /// Moves damaged checkpoints aside and removes unfinished and superseded ones.
    fn settle(
        &mut self,
        checkpoints: Checkpoints,
        log: &RecoveredLog,
    ) -> Result<Vec<Kept>, OpenError> {
        for (index, check) in checkpoints.bad {
            assert!(index <= log.index.last().index);
            self.quarantine(index, check)?;
        }
        for path in self.unfinished.iter().chain(&checkpoints.superseded) {
            self.io.remove_if_there(path)?;
        }
        self.io.sync_dir(SLOT_DIR)?;
        self.io.sync_dir(CHECKPOINT_DIR)?;
        Ok(checkpoints.good)
    }

    fn quarantine(&mut self, index: u64, check: Check) -> Result<(), OpenError> {
        let taken = self.io.list(CHECKPOINT_DIR)?;
        let name = format!("{index:016x}.ckpt");
        let free = (0..=taken.len()).map(|n| format!("{name}.bad.{n}"));
        let aside = free.into_iter().find(|aside| !taken.contains(aside));
        let aside = aside.expect("one more name than there are files");
        let aside = format!("{CHECKPOINT_DIR}/{aside}");
        if mutant::is(Mutant::DamageRemoved) {
            self.io.remove_if_there(&checkpoint_path(index))?;
        } else {
            self.io.rename(&checkpoint_path(index), &aside)?;
        }
        self.report.quarantined.push((aside, check));
        Ok(())
    }

    /// The file that holds space for the next checkpoint, whatever is in it.
    fn spare(&mut self) -> Result<Option<SpareFile>, OpenError> {
        if !self.has_spare {
            return Ok(None);
        }
        let (file, bytes) = self.io.open(SPARE_PATH)?;
        Ok(Some(SpareFile { file, bytes }))
    }

    /// Makes slot 0 of a new directory at once, so that the first write need not wait.
    fn make_first_slot(&mut self, meta: &Meta) -> Result<FileId, OpenError> {
        let path = slot_temporary_path(0);
        let file = self.io.create(&path)?;
        let bytes = meta.slot_bytes;
        self.fill_slot(file, bytes).map_err(|source| {
            if is_full(&source) {
                OpenError::NoSpace { dir: self.dir.clone(), bytes, source: Arc::new(source) }
            } else {
                failed("write", &path, source)
            }
        })?;
        self.io.run("sync", &path, Op::Sync { file })?;
        self.io.rename(&path, &slot_path(0))?;
        self.io.sync_dir(SLOT_DIR)?;
        self.report.slots = 1;
        Ok(file)
    }

    fn fill_slot(&mut self, file: FileId, bytes: u64) -> std::io::Result<()> {
        self.io.run_raw(Op::Allocate { file, bytes })?;
        let piece = usize::try_from(bytes.min(1 << 20)).expect("at most 1 MiB");
        let zeros = Arc::new(AlignedBuf::zeroed(piece));
        let writes = (0..bytes).step_by(zeros.len()).map(|offset| {
            let buf = WriteBuf::Owned(Arc::clone(&zeros));
            Op::Write { file, offset, buf, sync: WriteSync::Deferred }
        });
        self.io.run_all(writes.collect()).into_iter().try_for_each(|result| result.map(|_| ()))
    }
}

enum Extent<'a> {
    /// All of it, given to somebody.
    Whole(&'a mut dyn CheckpointSink),
    /// Header and footer.
    Ends,
}

/// Reads a checkpoint from its first block to its footer.
pub(crate) fn verify(
    io: &mut Blocking<'_>,
    file: FileId,
    verifier: &mut Verifier,
    body_bytes: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Check>,
) -> Result<(), Unusable> {
    io.read_pieces(file, pieces(body_bytes), &mut |piece| match piece.refused.first() {
        Some(refused) => Err(Unusable::Unreadable(*refused)),
        None => Ok(verifier.blocks(piece.bytes, sink)?),
    })?;
    let mut footer = Vec::new();
    io.read_whole(file, footer_offset(body_bytes), CHECKPOINT_HEADER_BYTES as u64, &mut footer)?;
    Ok(verifier.footer(&footer)?)
}

struct SlotFiles<'a, 'b> {
    io: &'a mut Blocking<'b>,
    files: &'a [FileId],
}

impl Slots for SlotFiles<'_, '_> {
    fn count(&self) -> u32 {
        u32::try_from(self.files.len()).expect("slots are numbered in 32 bits")
    }

    fn read(&mut self, slot: u32, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Vec<u64> {
        self.io.read_range(self.files[slot as usize], offset, bytes, into)
    }

    fn read_along(
        &mut self,
        slot: u32,
        bytes: u64,
        into: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Vec<u64> {
        self.io.read_along(self.files[slot as usize], 0, bytes, into, seen)
    }
}

enum SlotName {
    Slot,
    Temporary,
}

fn slot_number(name: &str) -> Option<(u32, SlotName)> {
    let (digits, kind) = match name.split_once('.')? {
        (digits, "seg") => (digits, SlotName::Slot),
        (digits, "tmp") => (digits, SlotName::Temporary),
        _ => return None,
    };
    let number = u32::from_str_radix(digits, 16).ok()?;
    (format!("{number:08x}") == digits).then_some((number, kind))
}

enum CheckpointName {
    Durable(u64),
    Temporary,
    Spare,
    Quarantined,
}

fn checkpoint_name(name: &str) -> Option<CheckpointName> {
    if SPARE_PATH.strip_prefix(CHECKPOINT_DIR).and_then(|spare| spare.strip_prefix('/'))
        == Some(name)
    {
        return Some(CheckpointName::Spare);
    }
    let (digits, kind) = name.split_once('.')?;
    let index = u64::from_str_radix(digits, 16).ok()?;
    if format!("{index:016x}") != digits {
        return None;
    }
    match kind {
        "ckpt" => Some(CheckpointName::Durable(index)),
        kind if kind.starts_with("ckpt.bad.") => Some(CheckpointName::Quarantined),
        kind if kind.strip_suffix(".tmp").is_some() => Some(CheckpointName::Temporary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_shape_are_touched() {
        for name in ["0.seg", "0000000g.seg", "00000001.seg.bak", "00000001", "0000000A.seg"] {
            assert!(slot_number(name).is_none(), "{name}");
        }
        assert!(matches!(slot_number("0000000a.seg"), Some((10, SlotName::Slot))));
        assert!(matches!(slot_number("0000000a.tmp"), Some((10, SlotName::Temporary))));
        for name in ["1.ckpt", "notes.tmp", "000000000000000a.old"] {
            assert!(checkpoint_name(name).is_none(), "{name}");
        }
        assert!(matches!(checkpoint_name("spare.tmp"), Some(CheckpointName::Spare)));
        let name = "000000000000000a.ckpt";
        assert!(matches!(checkpoint_name(name), Some(CheckpointName::Durable(10))));
    }
}
