//! Files, their names, and what is on its way to them.
//!
//! Names follow the same rule as bytes: an operation changes what the process sees at once, and what a
//! power cut leaves only when a sync of the directory has covered it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::file::File;
use super::image::Page;
use super::random::Random;
use super::{Covered, Crash, Fate, OpNumber, PAGE_BYTES, Unsynced};
use crate::io::{WriteSync, path};

/// A file whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Inode(u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Dir,
    File(Inode),
}

/// A change of a directory that no sync of it has covered.
#[derive(Clone, Debug)]
struct Change {
    op: OpNumber,
    removes: Option<String>,
    adds: Option<(String, Node)>,
}

impl Change {
    fn path(&self) -> &str {
        match (&self.adds, &self.removes) {
            (Some((path, _)), _) | (None, Some(path)) => path,
            (None, None) => "",
        }
    }

    fn apply(self, names: &mut BTreeMap<String, Node>) {
        if let Some(path) = self.removes {
            names.remove(&path);
        }
        if let Some((path, node)) = self.adds {
            names.insert(path, node);
        }
    }
}

/// What an operation in flight will do, so that a crash can do it partly.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Write { inode: Inode, offset: u64, pages: Vec<Arc<Page>>, sync: WriteSync },
    Size { inode: Inode, bytes: u64 },
    Create { path: String },
    Rename { from: String, to: String },
    Remove { path: String },
    MakeDir { path: String },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Volume {
    files: BTreeMap<Inode, File>,
    names: BTreeMap<String, Node>,
    durable_names: BTreeMap<String, Node>,
    changes: Vec<Change>,
    flying: BTreeMap<OpNumber, Effect>,
    inodes: u64,
}

impl Volume {
    /// An operation leaves the process.
    pub(super) fn start(&mut self, op: OpNumber, effect: Effect) {
        self.flying.insert(op, effect);
    }

    /// It arrives: the process sees its effect from now on.
    pub(super) fn arrive(&mut self, op: OpNumber) -> io::Result<()> {
        match self.flying.remove(&op) {
            Some(effect) => self.perform(op, effect),
            None => Ok(()),
        }
    }

    /// It ends without having been performed; returns what it would have done.
    pub(super) fn abandon(&mut self, op: OpNumber) -> Option<Effect> {
        self.flying.remove(&op)
    }

    fn perform(&mut self, op: OpNumber, effect: Effect) -> io::Result<()> {
        match effect {
            Effect::Write { inode, offset, pages, sync } => {
                let file = self.file_mut(inode);
                match sync {
                    WriteSync::Durable => file.write_durable(offset, &pages),
                    WriteSync::Deferred => file.write_cached(op, offset, &pages),
                }
                Ok(())
            }
            Effect::Size { inode, bytes } => {
                self.file_mut(inode).set_bytes(op, bytes);
                Ok(())
            }
            Effect::Create { path } => self.create(op, path),
            Effect::Rename { from, to } => self.rename(op, from, to),
            Effect::Remove { path } => self.remove(op, path),
            Effect::MakeDir { path } => self.make_dir(op, path),
        }
    }

    pub(super) fn open(&self, path: &str) -> io::Result<Inode> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(error(io::ErrorKind::IsADirectory, path)),
            None => Err(error(io::ErrorKind::NotFound, path)),
        }
    }

    pub(super) fn file(&self, inode: Inode) -> &File {
        self.files.get(&inode).expect("an inode lives as long as a name or an open file")
    }

    pub(super) fn file_mut(&mut self, inode: Inode) -> &mut File {
        self.files.get_mut(&inode).expect("an inode lives as long as a name or an open file")
    }

    /// All files with a name, for misdirected operations.
    pub(super) fn inodes(&self) -> Vec<Inode> {
        self.names.values().filter_map(Node::inode).collect()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let linked: BTreeSet<Inode> = self.names.values().filter_map(Node::inode).collect();
        linked.iter().map(|inode| self.file(*inode).current.bytes()).sum()
    }

    fn create(&mut self, op: OpNumber, path: String) -> io::Result<()> {
        path::check_file(&path)?;
        self.check_parent(&path)?;
        if self.names.contains_key(&path) {
            return Err(error(io::ErrorKind::AlreadyExists, &path));
        }
        let inode = self.add_file(File::default());
        self.change(Change { op, removes: None, adds: Some((path, Node::File(inode))) });
        Ok(())
    }

    fn rename(&mut self, op: OpNumber, from: String, to: String) -> io::Result<()> {
        path::check_file(&to)?;
        let node = Node::File(self.open(&from)?);
        self.check_parent(&to)?;
        if self.names.get(&to) == Some(&Node::Dir) {
            return Err(error(io::ErrorKind::IsADirectory, &to));
        }
        self.change(Change { op, removes: Some(from), adds: Some((to, node)) });
        Ok(())
    }

    fn remove(&mut self, op: OpNumber, path: String) -> io::Result<()> {
        self.open(&path)?;
        self.change(Change { op, removes: Some(path), adds: None });
        Ok(())
    }

    fn make_dir(&mut self, op: OpNumber, path: String) -> io::Result<()> {
        path::check_file(&path)?;
        self.check_parent(&path)?;
        match self.names.get(&path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(error(io::ErrorKind::NotADirectory, &path)),
            None => {
                self.change(Change { op, removes: None, adds: Some((path, Node::Dir)) });
                Ok(())
            }
        }
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.changes.push(change);
    }

    fn add_file(&mut self, file: File) -> Inode {
        let inode = Inode(self.inodes);
        self.inodes += 1;
        self.files.insert(inode, file);
        inode
    }

    fn check_parent(&self, path: &str) -> io::Result<()> {
        self.check_dir(parent_of(path))
    }

    pub(super) fn check_dir(&self, dir: &str) -> io::Result<()> {
        match self.names.get(dir) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(error(io::ErrorKind::NotADirectory, dir)),
            None if dir.is_empty() => Ok(()),
            None => Err(error(io::ErrorKind::NotFound, dir)),
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &str, covered: &Covered) {
        let (synced, rest): (Vec<Change>, _) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| covered.contains(change.op) && parent_of(change.path()) == dir);
        self.changes = rest;
        for change in synced {
            change.apply(&mut self.durable_names);
        }
    }

    /// Forgets files that no name, no un-synced change and no open file refers to.
    pub(super) fn forget_unlinked(&mut self, open: &BTreeSet<Inode>) {
        let flying = self.flying.values().filter_map(Effect::inode);
        let added = self.changes.iter().filter_map(|change| change.adds.as_ref()?.1.inode());
        let named = self.names.values().chain(self.durable_names.values()).filter_map(Node::inode);
        let kept: BTreeSet<Inode> =
            named.chain(added).chain(flying).chain(open.iter().copied()).collect();
        self.files.retain(|inode, _| kept.contains(inode));
    }

    /// The process dies and the machine goes on: what was on its way arrives or does not.
    pub(super) fn kill(&mut self, random: &mut Random) {
        for (op, effect) in std::mem::take(&mut self.flying) {
            if random.chance(500_000) {
                // An effect that is impossible by now does nothing.
                drop(self.perform(op, effect));
            }
        }
    }

    /// Power is cut: what no sync has covered becomes what `crash` chooses.
    pub(super) fn crash(&mut self, crash: &mut Crash<'_>) {
        for (op, effect) in std::mem::take(&mut self.flying) {
            self.catch(op, effect);
        }
        for (inode, path) in self.paths() {
            self.file_mut(inode).crash(&path, crash);
        }
        for change in std::mem::take(&mut self.changes) {
            let item = Unsynced::Entry { path: change.path().into() };
            match (crash.choose)(&item) {
                Fate::New => change.apply(&mut self.durable_names),
                Fate::Old | Fate::Version(_) | Fate::Garbage | Fate::Zero => {
                    crash.counters.entries_dropped += 1;
                }
            }
        }
        self.drop_orphans();
        self.names = self.durable_names.clone();
        self.forget_unlinked(&BTreeSet::new());
    }

    /// An operation in flight at a power cut is one more un-synced change, also if it was to be durable.
    fn catch(&mut self, op: OpNumber, effect: Effect) {
        match effect {
            Effect::Write { inode, offset, pages, sync: _ } => {
                self.file_mut(inode).write_cached(op, offset, &pages);
            }
            other @ (Effect::Size { .. }
            | Effect::Create { .. }
            | Effect::Rename { .. }
            | Effect::Remove { .. }
            | Effect::MakeDir { .. }) => drop(self.perform(op, other)),
        }
    }

    /// Every file with a name of any kind, in the order of the names.
    fn paths(&self) -> Vec<(Inode, Arc<str>)> {
        let mut seen = BTreeSet::new();
        let added = self.changes.iter().filter_map(|change| change.adds.as_ref());
        let named = self.names.iter().chain(&self.durable_names);
        named
            .chain(added.map(|(path, node)| (path, node)))
            .filter_map(|(path, node)| Some((node.inode()?, Arc::from(path.as_str()))))
            .filter(|(inode, _)| seen.insert(*inode))
            .collect()
    }

    /// A name is gone when its directory is.
    fn drop_orphans(&mut self) {
        let names = &mut self.durable_names;
        let dirs: BTreeSet<String> = names
            .iter()
            .filter(|(_, node)| **node == Node::Dir)
            .map(|(path, _)| path.clone())
            .collect();
        names.retain(|path, _| parent_of(path).is_empty() || dirs.contains(parent_of(path)));
    }

    /// The names directly in a directory.
    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.check_dir(dir)?;
        let inside = self.names.keys().filter(|path| parent_of(path) == dir);
        Ok(inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    pub(super) fn paths_of_files(&self) -> Vec<String> {
        let files = self.names.iter().filter(|(_, node)| node.inode().is_some());
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Puts a durable file there, with its directory.
    pub(super) fn place(&mut self, path: &str, bytes: &[u8]) {
        path::check_file(path).expect("a test names files inside the data directory");
        let inode = self.add_file(File::with_bytes(bytes));
        for names in [&mut self.names, &mut self.durable_names] {
            if !parent_of(path).is_empty() {
                names.insert(parent_of(path).to_owned(), Node::Dir);
            }
            names.insert(path.to_owned(), Node::File(inode));
        }
        self.changes.retain(|change| change.path() != path);
    }

    /// Takes a file away for good.
    pub(super) fn take_away(&mut self, path: &str) {
        self.names.remove(path);
        self.durable_names.remove(path);
        self.changes.retain(|change| change.path() != path);
    }

    /// Another place that a write of `pages` pages could land at by mistake.
    pub(super) fn elsewhere(&self, pages: usize, random: &mut Random) -> Option<(Inode, u64)> {
        let candidates: Vec<(Inode, u64)> = self
            .inodes()
            .into_iter()
            .filter_map(|inode| {
                let room = self.file(inode).current.bytes() / PAGE_BYTES as u64;
                Some((inode, room.checked_sub(pages as u64)? + 1))
            })
            .collect();
        let (inode, places) = *candidates.get(random.index(candidates.len().max(1)))?;
        Some((inode, random.below(places) * PAGE_BYTES as u64))
    }
}

impl Node {
    fn inode(&self) -> Option<Inode> {
        match self {
            Node::File(inode) => Some(*inode),
            Node::Dir => None,
        }
    }
}

impl Effect {
    fn inode(&self) -> Option<Inode> {
        match self {
            Effect::Write { inode, .. } | Effect::Size { inode, .. } => Some(*inode),
            Effect::Create { .. }
            | Effect::Rename { .. }
            | Effect::Remove { .. }
            | Effect::MakeDir { .. } => None,
        }
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn error(kind: io::ErrorKind, path: &str) -> io::Error {
    io::Error::new(kind, format!("{path}: {kind}"))
}
