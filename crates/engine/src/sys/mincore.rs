//! mincore(2): which pages of a mapping are in memory. rustix lacks it.

use rustix::io::Errno;
use rustix::param::page_size;

use super::mapping::Mapping;

/// So many pages are asked about at once.
const PAGES_MAX: usize = 1024;

/// Whether all pages under the `len` bytes of `mapping` from `position` on can be read without
/// waiting: in the page cache, and not still being read. `None` if the kernel does not say.
///
/// Since Linux 5.2 it says of files that the caller neither owns nor may write to that all of
/// their pages are in memory. Then the page behind the file is, too, which cannot be: so that
/// one is asked about first. (Where it is, for the file has grown, no answer is the safe one.)
///
/// ENOMEM when the range is not within the mapping.
pub(crate) fn in_memory(
    mapping: &Mapping,
    position: usize,
    len: usize,
) -> Result<Option<bool>, Errno> {
    let (pages, page) = (mapping.pages(), page_size());
    if all_in_memory(&pages[pages.len() - page..])? {
        return Ok(None);
    }
    let start = position - position % page;
    let end = position.checked_add(len).and_then(|end| end.checked_next_multiple_of(page));
    let range = end.and_then(|end| pages.get(start..end)).ok_or(Errno::NOMEM)?;
    for chunk in range.chunks(PAGES_MAX * page) {
        if !all_in_memory(chunk)? {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

/// `chunk` starts at a page, and has at most `PAGES_MAX`.
fn all_in_memory(chunk: &[u8]) -> Result<bool, Errno> {
    let mut answers = [0_u8; PAGES_MAX];
    let asked = chunk.len().div_ceil(page_size());
    let answers = answers.get_mut(..asked).ok_or(Errno::INVAL)?;
    let start = chunk.as_ptr().cast_mut().cast();
    // SAFETY: the range is mapped for the whole call, being borrowed, and is not accessed; the
    // kernel writes one byte a page, for which `answers` has room.
    let returned = unsafe { libc::mincore(start, chunk.len(), answers.as_mut_ptr()) };
    if returned == 0 {
        // Only the lowest bit has a meaning.
        return Ok(answers.iter().all(|answer| answer & 1 == 1));
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn written_pages_are_in_memory_and_holes_are_not() {
        let mut file = tempfile::tempfile().unwrap();
        let page = page_size();
        file.write_all(&vec![1; 3 * page]).unwrap();
        file.set_len(5 * page as u64).unwrap();
        let mapping = Mapping::of(&file, 5 * page).unwrap();
        assert_eq!(in_memory(&mapping, 5, 3 * page - 5), Ok(Some(true)));
        assert_eq!(in_memory(&mapping, page, 3 * page), Ok(Some(false)));
        assert_eq!(in_memory(&mapping, 4 * page, 1), Ok(Some(false)));
        assert_eq!(in_memory(&mapping, 0, 7 * page), Err(Errno::NOMEM));
    }

    #[test]
    fn no_answer_is_told_from_a_good_one() {
        // A file that grew has a page where else none can be.
        let mut file = tempfile::tempfile().unwrap();
        let page = page_size();
        file.write_all(&vec![1; 2 * page]).unwrap();
        let mapping = Mapping::of(&file, page).unwrap();
        assert_eq!(in_memory(&mapping, 0, page), Ok(None));
    }
}
