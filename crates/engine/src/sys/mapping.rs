//! A read-only shared mapping of a whole file, and of one page behind it: mmap(2) and munmap(2),
//! by memmap2.
//! Made by `source.rs`; handed to system calls and to `Bytes`, not read by this crate.

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};
use rustix::param::page_size;

/// The first `len` bytes of a file, mapped with `PROT_READ` and `MAP_SHARED`.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Up to a page's end, and one page more.
    pages: Mmap,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes from the start of `file`. No page is touched, so none is read.
    ///
    /// ENODEV when the file system cannot map, ENOMEM when the address space or
    /// `vm.max_map_count` is used up, EINVAL when `len` is zero.
    pub(crate) fn of(file: &File, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let page = page_size();
        let pages = len.checked_next_multiple_of(page).and_then(|end| end.checked_add(page));
        let pages = pages.ok_or(rustix::io::Errno::OVERFLOW)?;
        // SAFETY: the mapping is private to this struct, lives as long as it, and is never
        // written through. What other processes do to the file meanwhile cannot be ruled out by
        // any program: the crate's documentation ("Mapped bytes") says what then happens, and
        // this crate hands the slice to system calls only, which answer EFAULT past the end.
        let pages = unsafe { MmapOptions::new().len(pages).map(file) }?;
        Ok(Self { pages, len })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.pages[..self.len]
    }

    pub(crate) fn address(&self) -> usize {
        self.pages.as_ptr().addr()
    }

    /// All of its pages, for mincore(2): the last of them lies behind the file.
    pub(crate) fn pages(&self) -> &[u8] {
        &self.pages
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn maps_the_bytes_of_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"page cache").unwrap();
        let mapping = Mapping::of(&file, 10).unwrap();
        assert_eq!(mapping.as_slice(), b"page cache");
        assert_eq!(mapping.address() % 4096, 0);
        assert_eq!(mapping.pages().len(), 2 * page_size());
    }

    #[test]
    fn refuses_an_empty_mapping() {
        let file = tempfile::tempfile().unwrap();
        let refusal = Mapping::of(&file, 0).unwrap_err();
        assert_eq!(refusal.raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()));
    }

    #[test]
    fn refuses_a_file_that_cannot_be_mapped() {
        let Ok(file) = File::open("/proc/self/status") else {
            return eprintln!("skipped: /proc is not mounted");
        };
        let refusal = Mapping::of(&file, 10).unwrap_err();
        assert!(refusal.raw_os_error().is_some(), "{refusal}");
    }
}
