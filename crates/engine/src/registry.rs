//! Recognises memory by its address: what is a mapping of a file, and what is a run that somebody
//! wants to see arrive. Written by `source.rs` and `delivery.rs`, asked by `wire.rs`.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard, Weak};

use crate::delivery::Run;
use crate::source::{FileRange, WeakSource};

/// Who owns a piece of memory.
#[derive(Clone)]
pub(crate) enum Owner {
    /// It is the mapping of this file.
    File(WeakSource),
    /// It is a traced run of some delivery.
    Run(Weak<Run>),
}

/// What a slice turned out to be.
pub(crate) enum Recognised {
    /// Bytes of a file.
    File(FileRange),
    /// A traced run, from its first byte on.
    Run(std::sync::Arc<Run>),
}

/// The memory that is known now, by the address at which it starts.
///
/// Whoever registers memory takes it out again before it is freed, and two pieces of memory never
/// overlap. A borrowed slice keeps its memory alive. So a slice that starts inside a registered
/// mapping *is* bytes of that file, whoever made the slice, and one that starts where a run does
/// is that run, untouched.
static REGISTERED: RwLock<BTreeMap<usize, Registered>> = RwLock::new(BTreeMap::new());

struct Registered {
    /// The first address behind it.
    end: usize,
    owner: Owner,
}

pub(crate) fn insert(memory: &[u8], owner: Owner) {
    let start = memory.as_ptr().addr();
    registered_mut().insert(start, Registered { end: start + memory.len(), owner });
}

pub(crate) fn remove(address: usize) {
    registered_mut().remove(&address);
}

fn registered_mut() -> RwLockWriteGuard<'static, BTreeMap<usize, Registered>> {
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner)
}

/// What `slice` is, if somebody registered it.
pub(crate) fn recognise(slice: &[u8]) -> Option<Recognised> {
    let address = slice.as_ptr().addr();
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    let (start, found) = registered.range(..=address).next_back()?;
    if address >= found.end {
        return None;
    }
    let start = *start;
    // Cloned, because the last holder of what is upgraded here takes it out of the registry.
    let owner = found.owner.clone();
    drop(registered);
    match owner {
        Owner::File(source) => {
            let position = (address - start) as u64;
            let range = source.upgrade()?.range(position, slice.len() as u64);
            range.ok().map(Recognised::File)
        }
        Owner::Run(run) if start == address => run.upgrade().map(Recognised::Run),
        Owner::Run(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::source::SourceFile;

    fn source(content: &[u8]) -> SourceFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        SourceFile::new(file).unwrap()
    }

    fn range_of(slice: &[u8]) -> Option<FileRange> {
        recognise(slice).and_then(|recognised| match recognised {
            Recognised::File(range) => Some(range),
            Recognised::Run(_) => None,
        })
    }

    #[test]
    fn slices_of_mapped_bytes_are_recognised() {
        let source = source(&[7; 10_000]);
        let bytes = source.range(100, 9_000).unwrap().mapped_bytes().unwrap();
        assert_eq!(bytes.len(), 9_000);
        let range = range_of(&bytes.slice(50..60)).unwrap();
        assert!(range.source().is(&source));
        assert_eq!((range.position(), range.len()), (150, 10));
    }

    #[test]
    fn other_memory_is_not_recognised() {
        let source = source(&[7; 10]);
        let _mapped = source.whole().mapped_bytes().unwrap();
        assert!(recognise(b"on the stack or in the program").is_none());
        assert!(recognise(&vec![0; 100_000]).is_none());
    }

    #[test]
    fn a_mapping_is_forgotten_with_its_last_user() {
        let source = source(&[7; 10]);
        let bytes = source.whole().mapped_bytes().unwrap();
        let address = bytes.as_ptr().addr();
        drop(source);
        assert!(range_of(&bytes).is_some());
        drop(bytes);
        assert!(!registered_mut().contains_key(&address));
    }
}
