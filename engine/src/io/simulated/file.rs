//! One file: what reads see, what a power cut leaves for certain, and the writes in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::{self, Image, Page};
use super::random::Random;
use super::{Covered, Crash, Fate, OpNumber, PAGE_BYTES, SECTOR_BYTES, SECTORS_PER_PAGE, Unsynced};

/// A write of one page that no sync has covered.
#[derive(Clone, Debug)]
struct Version {
    op: OpNumber,
    page: Arc<Page>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) current: Image,
    pub(super) durable: Image,
    /// Oldest first. A page without versions is clean, which after a failed sync does not mean durable.
    dirty: BTreeMap<usize, Vec<Version>>,
    /// Sizes that no sync has covered, oldest first.
    sizes: Vec<(OpNumber, u64)>,
}

impl File {
    pub(super) fn with_bytes(bytes: &[u8]) -> File {
        let image = Image::from_bytes(bytes);
        File { current: image.clone(), durable: image, ..File::default() }
    }

    /// A write reaches the medium.
    pub(super) fn write_durable(&mut self, offset: u64, pages: &[Arc<Page>]) {
        let end = offset + (pages.len() * PAGE_BYTES) as u64;
        for (at, page) in (image::page_of(offset)..).zip(pages) {
            self.dirty.remove(&at);
            self.current.set_page(at, Arc::clone(page));
            self.durable.set_page(at, Arc::clone(page));
        }
        self.current.grow_to(end);
        self.durable.grow_to(end);
    }

    /// A write reaches the cache: reads see it, a power cut may do anything with it.
    pub(super) fn write_cached(&mut self, op: OpNumber, offset: u64, pages: &[Arc<Page>]) {
        let end = offset + (pages.len() * PAGE_BYTES) as u64;
        for (at, page) in (image::page_of(offset)..).zip(pages) {
            self.current.set_page(at, Arc::clone(page));
            self.dirty.entry(at).or_default().push(Version { op, page: Arc::clone(page) });
        }
        if end > self.current.bytes() {
            self.current.grow_to(end);
            self.sizes.push((op, end));
        }
    }

    /// What a write that reports an error leaves: of each page the old, the new, or a mix.
    pub(super) fn write_mangled(
        &mut self,
        op: OpNumber,
        offset: u64,
        pages: &[Arc<Page>],
        random: &mut Random,
    ) {
        for (number, new) in pages.iter().enumerate() {
            let at = offset + (number * PAGE_BYTES) as u64;
            let page = match random.below(3) {
                0 => continue,
                1 => Arc::clone(new),
                _ => Arc::new(mix(self.current.page(image::page_of(at)), new, random)),
            };
            self.write_cached(op, at, &[page]);
        }
    }

    pub(super) fn set_bytes(&mut self, op: OpNumber, bytes: u64) {
        self.current.set_bytes(bytes);
        let pages = image::page_of(bytes.next_multiple_of(PAGE_BYTES as u64));
        self.dirty.retain(|&at, _| at < pages);
        let last = image::page_of(bytes);
        if let Some(versions) = self.dirty.get_mut(&last) {
            versions.push(Version { op, page: Arc::new(*self.current.page(last)) });
        }
        self.sizes.push((op, bytes));
    }

    pub(super) fn sync(&mut self, covered: &Covered) {
        if let Some(at) = self.sizes.iter().rposition(|(op, _)| covered.contains(*op)) {
            self.durable.set_bytes(self.sizes[at].1);
            self.sizes.drain(..=at);
        }
        self.take_covered(covered, |file, at, newest| file.durable.set_page(at, newest));
    }

    /// A failed sync leaves the pages clean: what was lost stays lost, and no later sync brings it back.
    /// What reads see from then on is the new page or the old one, as file systems differ in it.
    pub(super) fn sync_failed(&mut self, covered: &Covered, random: &mut Random) {
        self.take_covered(covered, |file, at, newest| match random.below(3) {
            0 => file.durable.set_page(at, newest),
            1 => {}
            _ => {
                let old = Arc::new(*file.durable.page(at));
                file.current.set_page(at, old);
            }
        });
    }

    /// Takes the covered versions of every page and hands out the newest of each.
    fn take_covered(
        &mut self,
        covered: &Covered,
        mut each: impl FnMut(&mut File, usize, Arc<Page>),
    ) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.retain(|&at, versions| {
            if let Some(newest) = versions.iter().rposition(|version| covered.contains(version.op))
            {
                let page = Arc::clone(&versions[newest].page);
                versions.drain(..=newest);
                each(self, at, page);
            }
            !versions.is_empty()
        });
        assert!(self.dirty.is_empty());
        self.dirty = dirty;
    }

    pub(super) fn crash(&mut self, path: &Arc<str>, crash: &mut Crash<'_>) {
        let bytes = self.size_after_crash(path, crash);
        for (at, versions) in std::mem::take(&mut self.dirty) {
            if (at * PAGE_BYTES) as u64 >= bytes {
                continue;
            }
            let old = *self.durable.page(at);
            let page = page_after_crash(path, at, &old, &versions, crash);
            self.durable.set_page(at, Arc::new(page));
        }
        self.durable.set_bytes(bytes);
        self.sizes.clear();
        self.current = self.durable.clone();
    }

    fn size_after_crash(&self, path: &Arc<str>, crash: &mut Crash<'_>) -> u64 {
        let durable = self.durable.bytes();
        let Some(&(_, newest)) = self.sizes.last() else {
            return durable;
        };
        let item = Unsynced::Size { path: Arc::clone(path), durable, newest };
        match (crash.choose)(&item) {
            Fate::New => newest,
            Fate::Version(at) => self.sizes.get(at).map_or(newest, |(_, bytes)| *bytes),
            Fate::Old | Fate::Garbage | Fate::Zero => {
                crash.counters.sizes_dropped += 1;
                durable
            }
        }
    }
}

fn page_after_crash(
    path: &Arc<str>,
    at: usize,
    old: &Page,
    versions: &[Version],
    crash: &mut Crash<'_>,
) -> Page {
    let newest = &versions.last().expect("a dirty page has a version").page;
    let mut page = *old;
    for number in 0..SECTORS_PER_PAGE {
        let item = Unsynced::Sector {
            path: Arc::clone(path),
            offset: (at * PAGE_BYTES + number * SECTOR_BYTES) as u64,
            versions: versions.len(),
            changes: image::sector(old, number) != image::sector(newest, number),
        };
        let out = &mut page[number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES];
        let fate = (crash.choose)(&item);
        match fate {
            Fate::New => out.copy_from_slice(image::sector(newest, number)),
            Fate::Old => {}
            Fate::Version(version) => {
                let page = versions.get(version).map_or(newest, |version| &version.page);
                out.copy_from_slice(image::sector(page, number));
            }
            Fate::Garbage => crash.random.fill(out),
            Fate::Zero => out.fill(0),
        }
        crash.count_sector(fate);
    }
    page
}

fn mix(old: &Page, new: &Page, random: &mut Random) -> Page {
    let mut page = *old;
    for number in 0..SECTORS_PER_PAGE {
        if random.chance(500_000) {
            let range = number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES;
            page[range.clone()].copy_from_slice(&new[range]);
        }
    }
    page
}
