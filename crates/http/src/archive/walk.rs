//! Finds what an archive of a directory holds: on a thread that may wait for a disk.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pagewire_engine::Modified;
use rustix::fs::{Access, AtFlags, Dir, FileType, Stat};

use crate::archive::member::{Kind, Member, Stamp};
use crate::error::RequestError;
use crate::resolve::{Root, TargetPath, is_hidden};

/// The most members of an archive, in some hundred megabytes of memory.
const MEMBERS_MAX: usize = 1_000_000;

/// What a walk goes by.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub(crate) root: &'a Root,
    pub(crate) target: &'a TargetPath,
    /// What the directory is called in the archive.
    pub(crate) name: &'a [u8],
    /// Names that start with a dot are packed, too.
    pub(crate) hidden: bool,
}

impl Walk<'_> {
    /// All that lies below the target and would be served: directories, files, and links within
    /// the root, as links. Always in the same order.
    pub(crate) fn members(&self) -> Result<Vec<Member>, RequestError> {
        let mut members = Vec::new();
        // Below the target; the last one is next.
        let mut directories = vec![PathBuf::new()];
        while let Some(below) = directories.pop() {
            let directory = match self.root.open_path(&self.target.relative().join(&below)) {
                // Gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !members.is_empty() => {
                    continue;
                }
                opened => opened.map_err(|error| unreadable(&below, error))?,
            };
            let stat = rustix::fs::fstat(&directory).map_err(io::Error::from)?;
            members.push(self.member(&below, Kind::Directory, &stat));
            let names = self.names(&directory, &below, members.len())?;
            let first = directories.len();
            for name in names {
                let path = below.join(OsStr::from_bytes(&name));
                match self.look_at(&directory, &path, &name)? {
                    Seen::Directory => directories.push(path),
                    Seen::Member(member) => members.push(member),
                    Seen::NotServed => {}
                }
            }
            directories[first..].reverse();
            if members.len() + directories.len() > MEMBERS_MAX {
                return Err(RequestError::TooManyEntries { max: MEMBERS_MAX });
            }
        }
        Ok(members)
    }

    fn names(
        &self,
        directory: &OwnedFd,
        below: &Path,
        members: usize,
    ) -> Result<Vec<Box<[u8]>>, RequestError> {
        let failed = |errno: rustix::io::Errno| unreadable(below, errno.into());
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || !self.hidden && is_hidden(name) {
                continue;
            }
            if members + names.len() >= MEMBERS_MAX {
                return Err(RequestError::TooManyEntries { max: MEMBERS_MAX });
            }
            names.push(name.into());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn look_at(&self, directory: &OwnedFd, path: &Path, name: &[u8]) -> Result<Seen, RequestError> {
        let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            // Gone meanwhile.
            return Ok(Seen::NotServed);
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Ok(Seen::Directory),
            FileType::RegularFile => {
                let access =
                    rustix::fs::accessat(directory, name, Access::READ_OK, AtFlags::EACCESS);
                access.map_err(|errno| unreadable(path, errno.into()))?;
                Kind::File(Stamp {
                    device: stat.st_dev,
                    inode: stat.st_ino,
                    len: u64::try_from(stat.st_size).unwrap_or(0),
                    modified: modified(&stat),
                })
            }
            FileType::Symlink => {
                let mut target = self.target.clone();
                path.iter().for_each(|name| target = target.child(name.as_bytes()));
                if self.root.find(&target).is_err() {
                    return Ok(Seen::NotServed);
                }
                let Ok(leads_to) = rustix::fs::readlinkat(directory, name, Vec::new()) else {
                    return Ok(Seen::NotServed);
                };
                Kind::Link(leads_to.into_bytes().into())
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Ok(Seen::NotServed),
        };
        Ok(Seen::Member(self.member(path, kind, &stat)))
    }

    fn member(&self, below: &Path, kind: Kind, stat: &Stat) -> Member {
        let mut path = Vec::from(self.name);
        if !below.as_os_str().is_empty() {
            path.push(b'/');
            path.extend_from_slice(below.as_os_str().as_bytes());
        }
        Member { path: path.into(), kind, mode: stat.st_mode & 0o777, modified: modified(stat) }
    }
}

enum Seen {
    Directory,
    Member(Member),
    /// By whatever leads to it.
    NotServed,
}

fn modified(stat: &Stat) -> Modified {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Modified { seconds: stat.st_mtime, nanoseconds }
}

fn unreadable(below: &Path, source: io::Error) -> RequestError {
    if below.as_os_str().is_empty() {
        // It is what was asked for.
        return source.into();
    }
    RequestError::Unpackable { path: below.to_owned(), source }
}
