//! What an archive is made of. PURE.

use pagewire_engine::{Modified, SourceFile};

/// One file, directory or link of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its path in the archive, without a closing slash.
    pub(crate) path: Box<[u8]>,
    pub(crate) kind: Kind,
    /// Its permission bits; nothing that would give rights, such as setuid.
    pub(crate) mode: u32,
    pub(crate) modified: Modified,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Stamp),
    /// A symbolic link, and where it leads.
    Link(Box<[u8]>),
}

/// What a file was when its archive was laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// In bytes.
    pub(crate) len: u64,
    pub(crate) modified: Modified,
}

impl Stamp {
    pub(crate) fn of(source: &SourceFile) -> Self {
        let identity = source.identity();
        Self {
            device: identity.device,
            inode: identity.inode,
            len: identity.len,
            modified: identity.modified,
        }
    }
}

impl Member {
    /// The bytes of a file; 0 for anything else.
    pub(crate) fn content_len(&self) -> u64 {
        match self.kind {
            Kind::File(stamp) => stamp.len,
            Kind::Directory | Kind::Link(_) => 0,
        }
    }
}
