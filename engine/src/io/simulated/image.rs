//! The content of a file in pages that copies share until one of them changes. Copies share the list of pages too: a
//! test that tries millions of crashes copies every file for each and changes one.

use std::sync::Arc;

use super::{PAGE_BYTES, SECTOR_BYTES};

pub(super) type Page = [u8; PAGE_BYTES];

/// A page that was never written reads as zeros and takes no memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pages: Arc<Vec<Option<Arc<Page>>>>,
    bytes: u64,
}

const ZEROS: &Page = &[0; PAGE_BYTES];

pub(super) fn page_of(offset: u64) -> usize {
    usize::try_from(offset / PAGE_BYTES as u64).expect("a simulated file fits into memory")
}

/// Splits whole pages out of a write.
pub(super) fn pages_of(bytes: &[u8]) -> Vec<Arc<Page>> {
    let (pages, rest) = bytes.as_chunks::<PAGE_BYTES>();
    assert!(rest.is_empty(), "writes are whole pages");
    pages.iter().map(|page| Arc::new(*page)).collect()
}

impl Image {
    pub(super) fn from_bytes(bytes: &[u8]) -> Image {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        let pages = pages_of(&padded).into_iter().map(Some).collect();
        Image { pages: Arc::new(pages), bytes: bytes.len() as u64 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Cuts or grows with zeros.
    pub(super) fn set_bytes(&mut self, bytes: u64) {
        let pages = page_of(bytes.next_multiple_of(PAGE_BYTES as u64));
        if bytes < self.bytes {
            let list = Arc::make_mut(&mut self.pages);
            list.truncate(pages);
            let kept = usize::try_from(bytes % PAGE_BYTES as u64).expect("less than a page");
            if kept > 0
                && let Some(Some(last)) = list.get_mut(pages - 1)
            {
                Arc::make_mut(last)[kept..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    pub(super) fn grow_to(&mut self, bytes: u64) {
        self.bytes = self.bytes.max(bytes);
    }

    pub(super) fn page(&self, at: usize) -> &Page {
        match self.pages.get(at) {
            Some(Some(page)) => page,
            Some(None) | None => ZEROS,
        }
    }

    /// Replaces a page; what lies beyond the size is not seen until the file grows over it.
    pub(super) fn set_page(&mut self, at: usize, page: Arc<Page>) {
        let pages = Arc::make_mut(&mut self.pages);
        if pages.len() <= at {
            pages.resize(at + 1, None);
        }
        pages[at] = Some(page);
    }

    /// Reads up to the end of the file; returns how much.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let available = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = available.min(out.len());
        let (mut at, mut read) = (offset, 0);
        while read < wanted {
            let start = usize::try_from(at % PAGE_BYTES as u64).expect("less than a page");
            let count = (PAGE_BYTES - start).min(wanted - read);
            let part = &mut out[read..read + count];
            match self.pages.get(page_of(at)) {
                Some(Some(page)) => part.copy_from_slice(&page[start..start + count]),
                Some(None) | None => part.fill(0),
            }
            read += count;
            at += count as u64;
        }
        read
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let bytes = usize::try_from(self.bytes).expect("a simulated file fits into memory");
        let mut out = vec![0; bytes];
        assert_eq!(self.read(0, &mut out), bytes);
        out
    }

    /// Requires: `bit` lies within the file.
    pub(super) fn flip_bit(&mut self, bit: u64) {
        let byte = bit / 8;
        assert!(byte < self.bytes, "bit {bit} lies beyond the end of the file");
        let at = page_of(byte);
        let mut page = *self.page(at);
        page[usize::try_from(byte % PAGE_BYTES as u64).expect("less than a page")] ^=
            1 << (bit % 8);
        self.set_page(at, Arc::new(page));
    }
}

/// The bytes of one sector of a page.
pub(super) fn sector(page: &Page, number: usize) -> &[u8] {
    &page[number * SECTOR_BYTES..(number + 1) * SECTOR_BYTES]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_file_grows_with_zeros_and_not_with_what_was_there() {
        let mut image = Image::from_bytes(&[7; 3 * PAGE_BYTES]);
        image.set_bytes(PAGE_BYTES as u64 + 10);
        image.set_bytes(3 * PAGE_BYTES as u64);
        let bytes = image.to_vec();
        assert_eq!(bytes[..PAGE_BYTES + 10], [7; PAGE_BYTES + 10]);
        assert_eq!(bytes[PAGE_BYTES + 10..], [0; 2 * PAGE_BYTES - 10]);
    }

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut image = Image::from_bytes(&[1; PAGE_BYTES]);
        let copy = image.clone();
        image.flip_bit(0);
        assert_eq!(copy.to_vec()[0], 1);
        assert_eq!(image.to_vec()[0], 0);
    }

    #[test]
    fn a_read_ends_at_the_end_of_the_file() {
        let image = Image::from_bytes(&[5; PAGE_BYTES + 3]);
        let mut out = [0; 2 * PAGE_BYTES];
        assert_eq!(image.read(PAGE_BYTES as u64, &mut out), 3);
        assert_eq!(image.read(2 * PAGE_BYTES as u64, &mut out), 0);
    }
}
