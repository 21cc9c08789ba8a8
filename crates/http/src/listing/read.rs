//! Reads a directory below the root: on a thread that may wait for a disk.

use std::os::fd::OwnedFd;

use pagewire_engine::Modified;
use rustix::fs::{AtFlags, Dir, FileType};

use crate::error::RequestError;
use crate::listing::asked::{Asked, Form, Sort};
use crate::listing::entry::{Entry, Facts, compare};
use crate::listing::readme::{Markup, README_BYTES_MAX, markup};
use crate::resolve::{Found, Root, TargetPath, is_hidden};

/// Entries on a page: more make browsers slow.
const PAGE_ENTRIES: usize = 1000;
/// Entries of one JSON document, some megabytes.
const JSON_ENTRIES: usize = 10_000;
/// The most entries of a directory that is listed, in some hundred megabytes of memory.
const ENTRIES_MAX: usize = 1_000_000;

/// What is shown of a directory.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Those of the page that was asked for, in order.
    pub(crate) entries: Vec<Entry>,
    /// How many there are.
    pub(crate) total: usize,
    /// How many of them pass the filter, directories included.
    pub(crate) found: usize,
    pub(crate) directories: usize,
    /// From 0 on.
    pub(crate) page: usize,
    /// At least 1.
    pub(crate) pages: usize,
    pub(crate) readme: Option<Readme>,
}

/// The text that a directory says about itself.
#[derive(Debug)]
pub(crate) struct Readme {
    pub(crate) name: Box<[u8]>,
    pub(crate) text: String,
    pub(crate) markup: Markup,
}

/// Reads the directory at `target`. What cannot be fetched is not listed: devices, pipes,
/// sockets, and links that lead nowhere or out of the root.
pub(crate) fn read(
    root: &Root,
    target: &TargetPath,
    hidden: bool,
    asked: &Asked,
    form: Form,
) -> Result<Listed, RequestError> {
    let directory = root.open_path(target.relative())?;
    let mut entries = Vec::new();
    for name in names(&directory, hidden)? {
        entries.extend(look_at(root, target, &directory, name));
    }
    let readme = best_readme(&entries);
    let total = entries.len();
    let sought = asked.filter.to_lowercase();
    if !sought.is_empty() {
        let name = |entry: &Entry| String::from_utf8_lossy(&entry.name).to_lowercase();
        entries.retain(|entry| name(entry).contains(&sought));
    }
    if asked.sort != Sort::Name {
        ask_for_facts(&directory, &mut entries);
    }
    entries.sort_unstable_by(|one, two| compare(one, two, asked.sort, asked.descending));
    let found = entries.len();
    let directories = entries.iter().filter(|entry| entry.directory).count();
    let len = if form == Form::Json { JSON_ENTRIES } else { PAGE_ENTRIES };
    let pages = found.div_ceil(len).max(1);
    let page = asked.page.min(pages - 1);
    let mut entries: Vec<Entry> = entries.into_iter().skip(page * len).take(len).collect();
    if asked.sort == Sort::Name {
        ask_for_facts(&directory, &mut entries);
    }
    let readme = readme.filter(|_| form == Form::Page && page == 0 && sought.is_empty());
    let readme = readme.and_then(|(name, markup)| read_readme(root, target, name, markup));
    Ok(Listed { entries, total, found, directories, page, pages, readme })
}

/// A name and what the directory says of it.
type Named = (Box<[u8]>, FileType);

fn names(directory: &OwnedFd, hidden: bool) -> Result<Vec<Named>, RequestError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(std::io::Error::from)? {
        let entry = entry.map_err(std::io::Error::from)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") || !hidden && is_hidden(name) {
            continue;
        }
        if names.len() == ENTRIES_MAX {
            return Err(RequestError::TooManyEntries { max: ENTRIES_MAX });
        }
        names.push((name.into(), entry.file_type()));
    }
    Ok(names)
}

/// Of a link and of what the directory does not know: what lies there, if it could be fetched.
fn look_at(
    root: &Root,
    target: &TargetPath,
    directory: &OwnedFd,
    (name, mut file_type): Named,
) -> Option<Entry> {
    if file_type == FileType::Unknown {
        let stat = rustix::fs::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        file_type = FileType::from_raw_mode(stat.st_mode);
    }
    let plain = |directory| Entry { name: name.clone(), directory, link: false, facts: None };
    match file_type {
        FileType::Directory => Some(plain(true)),
        FileType::RegularFile => Some(plain(false)),
        FileType::Symlink => match root.find(&target.child(&name)).ok()? {
            Found::File { source, .. } => {
                let identity = source.identity();
                let facts = Facts { len: identity.len, modified: identity.modified };
                Some(Entry { link: true, facts: Some(facts), ..plain(false) })
            }
            Found::DirectoryWithoutSlash => Some(Entry { link: true, ..plain(true) }),
        },
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => None,
    }
}

fn ask_for_facts(directory: &OwnedFd, entries: &mut [Entry]) {
    for entry in entries.iter_mut().filter(|entry| entry.facts.is_none()) {
        // One that is gone meanwhile is shown without them.
        let stat = rustix::fs::statat(directory, &*entry.name, AtFlags::SYMLINK_NOFOLLOW).ok();
        entry.facts = stat.map(|stat| Facts {
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Modified {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        });
    }
}

fn best_readme(entries: &[Entry]) -> Option<(Box<[u8]>, Markup)> {
    let readmes = entries.iter().filter(|entry| !entry.directory).filter_map(|entry| {
        let (rank, markup) = markup(&entry.name)?;
        Some((rank, entry, markup))
    });
    let best = readmes.max_by(|one, two| one.0.cmp(&two.0).then(two.1.name.cmp(&one.1.name)));
    best.map(|(_, entry, markup)| (entry.name.clone(), markup))
}

/// `None` for one that cannot be read or is too long: it is listed like any other file.
fn read_readme(
    root: &Root,
    target: &TargetPath,
    name: Box<[u8]>,
    markup: Markup,
) -> Option<Readme> {
    let Ok(Found::File { source, .. }) = root.find(&target.child(&name)) else {
        return None;
    };
    let mut range = source.whole();
    if range.is_empty() || range.len() > README_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    while !range.is_empty() {
        bytes.extend_from_slice(&range.read_front(README_BYTES_MAX).ok()?);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Some(Readme { name, text, markup })
}
