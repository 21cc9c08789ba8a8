//! A read-only shared mapping of a whole file: mmap(2) and munmap(2), by memmap2.
//! Made by `source.rs`; handed to system calls and to `Bytes`, not read by this crate.

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// The first `len` bytes of a file, mapped with `PROT_READ` and `MAP_SHARED`.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps `len` bytes from the start of `file`. No page is touched, so none is read.
    ///
    /// ENODEV when the file system cannot map, ENOMEM when the address space or
    /// `vm.max_map_count` is used up, EINVAL when `len` is zero.
    pub(crate) fn of(file: &File, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(rustix::io::Errno::INVAL.into());
        }
        // SAFETY: the mapping is private to this struct, lives as long as it, and is never
        // written through. What other processes do to the file meanwhile cannot be ruled out by
        // any program: the crate's documentation ("Mapped bytes") says what then happens, and
        // this crate hands the slice to system calls only, which answer EFAULT past the end.
        let mapping = unsafe { MmapOptions::new().len(len).map(file) }?;
        Ok(Self(mapping))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr().addr()
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
