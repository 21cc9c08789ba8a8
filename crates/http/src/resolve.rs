//! From a request target to an open file that cannot lie outside the root: openat2(2) with
//! RESOLVE_BENEATH (Linux 5.6), or cap-std's walk where the kernel or a sandbox has none.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::{ffi::OsString, io};

use cap_std::fs::OpenOptionsExt;
use pagewire_engine::{SourceFile, Storage};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::devices;
use crate::error::RequestError;

const INDEX: &str = "index.html";

/// RFC 3986, section 2.3: what needs no encoding in a path segment.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// O_NONBLOCK keeps a pipe without a writer from holding the caller, and means nothing for
/// regular files.
const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// With RESOLVE_BENEATH, openat2 answers EAGAIN when it follows `..` in a link and anything on
/// the host is renamed meanwhile: it is asked again so often before the walk is taken.
const RACES_MAX: usize = 8;

/// A request target, decoded and known to hold only names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TargetPath {
    /// The names, joined by `/`; empty for the root.
    names: Vec<u8>,
    /// The target ended in a slash.
    directory: bool,
}

impl TargetPath {
    /// Decodes the path of a request target (RFC 9112, section 3.2).
    pub(crate) fn parse(path: &str) -> Result<Self, RequestError> {
        let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
        if decoded.contains(&0) {
            return Err(RequestError::Nul);
        }
        let mut names = Vec::with_capacity(decoded.len());
        let mut directory = true;
        for segment in decoded.split(|byte| *byte == b'/') {
            directory = matches!(segment, b"" | b".");
            match segment {
                b"" | b"." => {}
                b".." => return Err(RequestError::DotDot),
                name => {
                    if !names.is_empty() {
                        names.push(b'/');
                    }
                    names.extend_from_slice(name);
                }
            }
        }
        Ok(Self { names, directory })
    }

    /// The target of a path below the root, as the one who runs the server writes it.
    pub(crate) fn of_names(path: &Path) -> Result<Self, RequestError> {
        let mut target = Self::default();
        for component in path.components() {
            match component {
                Component::Normal(name) => target = target.child(name.as_bytes()),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(RequestError::DotDot),
            }
        }
        Ok(target)
    }

    /// The same target as a directory's, to redirect to. Starts with one slash and never with
    /// two, which a browser would take for another host.
    pub(crate) fn with_slash(&self) -> String {
        let mut slashed = "/".to_owned();
        for name in self.names() {
            slashed += &encoded(name);
            slashed.push('/');
        }
        slashed
    }

    /// The target of the file that this one stands for: its index, where it is a directory's.
    pub(crate) fn file(&self) -> Self {
        if self.directory { self.index() } else { self.clone() }
    }

    /// The same target as a directory's.
    pub(crate) fn directory(&self) -> Self {
        Self { names: self.names.clone(), directory: true }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.directory
    }

    /// The target of a file beside this one, whose name goes on with `suffix`.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        Self { names: [self.names.as_slice(), suffix.as_bytes()].concat(), directory: false }
    }

    fn index(&self) -> Self {
        self.child(INDEX.as_bytes())
    }

    /// The target of what is called `name` in this directory.
    pub(crate) fn child(&self, name: &[u8]) -> Self {
        let mut names = self.names.clone();
        if !names.is_empty() {
            names.push(b'/');
        }
        names.extend_from_slice(name);
        Self { names, directory: false }
    }

    pub(crate) fn root() -> Self {
        Self { names: Vec::new(), directory: true }
    }

    /// What is left of it below a `prefix` of whole names, if it begins with that.
    pub(crate) fn below(self, prefix: &Self) -> Option<Self> {
        if prefix.names.is_empty() {
            return Some(self);
        }
        let Self { names, directory } = self;
        match names.strip_prefix(prefix.names.as_slice())? {
            [] => Some(Self { names: Vec::new(), directory }),
            [b'/', rest @ ..] => Some(Self { names: rest.into(), directory }),
            _ => None,
        }
    }

    /// Its names, from the root on.
    pub(crate) fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.names.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// Whether one of its names starts with a dot. `/.well-known/` (RFC 8615) is there to be
    /// found.
    pub(crate) fn is_hidden(&self) -> bool {
        let names = self.names().enumerate();
        names
            .into_iter()
            .any(|(depth, name)| is_hidden(name) && !(depth == 0 && name == b".well-known"))
    }

    /// As a path from the root of the site on, which is `/`.
    pub(crate) fn absolute(&self) -> PathBuf {
        let slash: &[u8] = if self.directory && !self.names.is_empty() { b"/" } else { b"" };
        OsString::from_vec([b"/", self.names.as_slice(), slash].concat()).into()
    }

    /// As a path below the root.
    pub(crate) fn relative(&self) -> &Path {
        Path::new(match self.names.as_slice() {
            b"" => OsStr::new("."),
            names => OsStr::from_bytes(names),
        })
    }
}

/// Whether listings leave this name out unless they are to have all.
pub(crate) fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
}

/// A name as a segment of a URL's path (RFC 3986, section 3.3).
pub(crate) fn encoded(name: &[u8]) -> String {
    percent_encode(name, ENCODED).to_string()
}

/// What lies at a target.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    File {
        source: SourceFile,
        /// Its path below the root.
        path: PathBuf,
    },
    /// A directory whose target lacks the closing slash.
    DirectoryWithoutSlash,
}

/// The directory that is served.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    directory: Arc<OwnedFd>,
    storage: Storage,
    /// What names may lead through.
    links: Links,
}

/// Which symbolic links are followed: those that stay below the root, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    Inside,
    None,
}

/// What a look at a name that may not wait for a server says.
#[derive(Debug)]
pub(crate) enum Local {
    Found(Result<Found, RequestError>),
    /// The kernel has to ask the disk, or has no openat2.
    Unknown,
    /// The name leads to another mount than the root's, where a server may have to be asked; or
    /// out of the root.
    Elsewhere,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = Arc::new(rustix::fs::open(path, flags, Mode::empty())?);
        let storage = Storage::of(&directory);
        Ok(Self { directory, storage, links: Links::Inside })
    }

    pub(crate) fn following_symlinks(self, follow: bool) -> Self {
        Self { links: if follow { Links::Inside } else { Links::None }, ..self }
    }

    /// What lies at `target`, if the kernel can tell without waiting for anything
    /// (RESOLVE_CACHED, Linux 5.12).
    pub(crate) fn find_cached(&self, target: &TargetPath) -> Local {
        self.find_on_mount(target, ResolveFlags::CACHED)
    }

    /// What lies at `target`, if that is on the root's own mount. May wait for a disk.
    pub(crate) fn find_local(&self, target: &TargetPath) -> Local {
        self.find_on_mount(target, ResolveFlags::empty())
    }

    /// That a name is in the kernel's cache says nothing about opening it: FUSE and NFS ask their
    /// server (and wait for one that hangs) at each open. So the mount is not left, on which
    /// the kind of file system is known.
    fn find_on_mount(&self, target: &TargetPath, resolve: ResolveFlags) -> Local {
        if self.storage == Storage::Remote {
            return Local::Elsewhere;
        }
        let open = |path: &Path| {
            let opened = self.open_beneath(path, resolve | ResolveFlags::NO_XDEV);
            // Seccomp filters older than openat2 answer EPERM for calls unknown to them.
            opened.map_err(|errno| if errno == Errno::PERM { Errno::NOSYS } else { errno })
        };
        match look_up(target, open, Some(self.storage)) {
            Err(LookUpError::CannotTell) => Local::Unknown,
            Err(LookUpError::Request(RequestError::Outside)) => Local::Elsewhere,
            Err(LookUpError::Request(error)) => Local::Found(Err(error)),
            Ok(found) => Local::Found(Ok(found)),
        }
    }

    /// What lies at `target`. May wait for a disk, or a server.
    pub(crate) fn find(&self, target: &TargetPath) -> Result<Found, RequestError> {
        look_up(target, |path| self.open_path(path), None).map_err(|error| match error {
            LookUpError::CannotTell => RequestError::Io(Errno::AGAIN.into()),
            LookUpError::Request(error) => error,
        })
    }

    /// What lies at a path below the root, a directory or anything else. May wait for a disk.
    pub(crate) fn open_path(&self, path: &Path) -> io::Result<OwnedFd> {
        for _ in 0..RACES_MAX {
            match self.open_beneath(path, ResolveFlags::empty()) {
                Err(Errno::AGAIN) => {}
                // Seccomp filters older than openat2 answer EPERM for calls unknown to them.
                Err(Errno::NOSYS | Errno::PERM) => break,
                opened => return opened.map_err(io::Error::from),
            }
        }
        self.walk_beneath(path)
    }

    fn open_beneath(&self, path: &Path, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve = match self.links {
            Links::Inside => resolve,
            Links::None => resolve | ResolveFlags::NO_SYMLINKS,
        };
        rustix::fs::openat2(&self.directory, path, OPEN, Mode::empty(), resolve)
    }

    fn walk_beneath(&self, path: &Path) -> io::Result<OwnedFd> {
        let directory = File::from(self.directory.as_fd().try_clone_to_owned()?);
        let flags = i32::try_from(OFlags::NONBLOCK.union(OFlags::NOCTTY).bits())
            .expect("open flags fit an int: it is what open(2) takes");
        let mut options = cap_std::fs::OpenOptions::new();
        options.read(true).custom_flags(flags);
        let directory = cap_std::fs::Dir::from_std_file(directory);
        if self.links == Links::None {
            // Whoever may make links where the kernel has no openat2 may make one between the two
            // looks; cap-std still keeps it inside.
            for ancestor in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                if directory.symlink_metadata(ancestor)?.file_type().is_symlink() {
                    return Err(Errno::LOOP.into());
                }
            }
        }
        let file = directory.open_with(path, &options);
        file.map(|file| file.into_std().into()).map_err(|error| {
            // cap-std has no errno for "leads out of the directory", openat2 has EXDEV.
            match (error.kind(), error.raw_os_error()) {
                (io::ErrorKind::PermissionDenied, None) => Errno::XDEV.into(),
                _ => error,
            }
        })
    }
}

/// Opens the file at a path that the program chose, not a peer: symbolic links are followed.
/// `None` where that may have to wait for a disk or a server; then [`open_path`] will.
pub(crate) fn open_path_cached(path: &Path) -> Option<Result<SourceFile, RequestError>> {
    let open = |flags| {
        let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        match opened {
            Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS | Errno::PERM) => None,
            opened => Some(opened.map_err(|errno| RequestError::from(io::Error::from(errno)))),
        }
    };
    // Neither this open nor this look at what the kernel has in memory asks a server.
    let storage = match open(OFlags::PATH | OFlags::CLOEXEC)? {
        Ok(place) => devices::known(&place)?,
        Err(error) => return Some(Err(error)),
    };
    open(OPEN).map(|opened| source_of(opened?, Some(storage)))
}

/// The same, and may wait.
pub(crate) fn open_path(path: &Path) -> Result<SourceFile, RequestError> {
    let opened = rustix::fs::open(path, OPEN, Mode::empty()).map_err(io::Error::from)?;
    let source = source_of(opened, None)?;
    devices::remember(&source);
    Ok(source)
}

/// On `storage`, where that is known.
pub(crate) fn source_of(
    opened: OwnedFd,
    storage: Option<Storage>,
) -> Result<SourceFile, RequestError> {
    let file = File::from(opened);
    let source = match storage {
        Some(storage) => SourceFile::on(storage, file),
        None => SourceFile::new(file),
    };
    source.map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidInput {
            RequestError::NotRegular
        } else {
            error.into()
        }
    })
}

enum LookUpError {
    /// Only openat2 with RESOLVE_CACHED says so.
    CannotTell,
    Request(RequestError),
}

impl From<io::Error> for LookUpError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            // EINVAL: Linux 5.6 to 5.11 know openat2 but not RESOLVE_CACHED.
            Some(Errno::AGAIN | Errno::INVAL | Errno::NOSYS) => Self::CannotTell,
            _ => Self::Request(error.into()),
        }
    }
}

fn look_up<E: Into<io::Error>>(
    target: &TargetPath,
    open: impl Fn(&Path) -> Result<OwnedFd, E>,
    storage: Option<Storage>,
) -> Result<Found, LookUpError> {
    let opened = open(target.relative()).map_err(Into::into)?;
    if file_type(&opened)? != FileType::Directory {
        return match target.directory {
            true => Err(LookUpError::Request(RequestError::Missing)),
            false => found(opened, target.clone(), storage),
        };
    }
    if !target.directory {
        return Ok(Found::DirectoryWithoutSlash);
    }
    let index = target.index();
    match open(index.relative()).map_err(Into::into) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {
            Err(LookUpError::Request(RequestError::NoIndex))
        }
        opened => found(opened?, index, storage),
    }
}

fn file_type(opened: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(opened)?.st_mode))
}

fn found(
    opened: OwnedFd,
    target: TargetPath,
    storage: Option<Storage>,
) -> Result<Found, LookUpError> {
    let source = source_of(opened, storage).map_err(LookUpError::Request)?;
    let path = PathBuf::from(OsString::from_vec(target.names));
    Ok(Found::File { source, path })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_parse(path: &str, expected: Result<(&[u8], bool), u16>) {
        let parsed = TargetPath::parse(path);
        let parsed = parsed.as_ref().map(|target| (target.names.as_slice(), target.directory));
        assert_eq!(parsed.map_err(|error| error.status().as_u16()), expected, "{path}");
    }

    #[test]
    fn targets_are_decoded_to_names() {
        check_parse("/", Ok((b"", true)));
        check_parse("", Ok((b"", true)));
        check_parse("/a/b", Ok((b"a/b", false)));
        check_parse("/a/b/", Ok((b"a/b", true)));
        check_parse("//a///b/./c/.", Ok((b"a/b/c", true)));
        check_parse("/%61%2Fb", Ok((b"a/b", false)));
        check_parse("/%ff%", Ok((b"\xff%", false)));
        check_parse("/a%252e", Ok((b"a%2e", false)));
        check_parse("/...", Ok((b"...", false)));
        check_parse("/%00", Err(400));
        check_parse("/..", Err(400));
        check_parse("/a/%2e%2E/b", Err(400));
        check_parse("/a%2f..%2fb", Err(400));
    }

    #[test]
    fn redirects_stay_on_this_host() {
        for (path, location) in [
            ("//evil.example", "/evil.example/"),
            ("/%2f/evil.example", "/evil.example/"),
            ("/\\evil.example", "/%5Cevil.example/"),
            ("/", "/"),
            ("/a b/c%0d%0aSet-Cookie:x", "/a%20b/c%0D%0ASet%2DCookie%3Ax/"),
        ] {
            let location = location.replace("%2D", "-");
            assert_eq!(TargetPath::parse(path).unwrap().with_slash(), location);
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(
            names in prop::collection::vec(prop::collection::vec(1..=255_u8, 1..8), 0..5),
            slash: bool,
        ) {
            let is_name = |name: &Vec<u8>| !name.contains(&b'/') && name != b"." && name != b"..";
            prop_assume!(names.iter().all(is_name));
            let encoded: Vec<String> = names.iter().map(|name| encoded(name)).collect();
            let end = if slash && !names.is_empty() { "/" } else { "" };
            let path = format!("/{}{end}", encoded.join("/"));
            let target = TargetPath::parse(&path).unwrap();
            prop_assert_eq!(target.names().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
            prop_assert_eq!(target.is_directory(), slash || names.is_empty());
            prop_assert_eq!(TargetPath::parse(&target.with_slash()).unwrap(), target.directory());
        }

        /// By the letter: decode once, cut at slashes, then look at the pieces.
        #[test]
        fn targets_are_what_their_segments_say(path in "(/|\\.|%2e|%2F|%00|%|a|\u{e4}){0,12}") {
            let decoded: Vec<u8> = percent_decode_str(&path).collect();
            let pieces: Vec<&[u8]> = decoded.split(|byte| *byte == b'/').collect();
            let is_refused = decoded.contains(&0) || pieces.contains(&&b".."[..]);
            let parsed = TargetPath::parse(&path);
            prop_assert_eq!(parsed.is_err(), is_refused);
            if let Ok(target) = parsed {
                let names: Vec<&[u8]> =
                    pieces.into_iter().filter(|piece| !matches!(*piece, b"" | b".")).collect();
                prop_assert_eq!(target.names().collect::<Vec<_>>(), names);
                prop_assert!(!target.with_slash().starts_with("//") || target.names.is_empty());
            }
        }
    }

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// A served directory `root` beside a secret, with every kind of way out.
        fn new() -> Self {
            let tree = tempfile::tempdir().unwrap();
            let root = tree.path().join("root");
            fs::create_dir_all(root.join("sub")).unwrap();
            fs::write(tree.path().join("secret"), "secret").unwrap();
            fs::write(root.join("sub/file"), "inside").unwrap();
            fs::write(root.join("sub/index.html"), "index").unwrap();
            symlink("../secret", root.join("out")).unwrap();
            symlink(tree.path().join("secret"), root.join("absolute")).unwrap();
            symlink("..", root.join("parent")).unwrap();
            symlink("sub/../sub/file", root.join("inside")).unwrap();
            symlink("loop", root.join("loop")).unwrap();
            Self(tree)
        }

        fn root(&self) -> Root {
            Root::open(&self.0.path().join("root")).unwrap()
        }
    }

    const CASES: [(&str, Result<&str, u16>); 13] = [
        ("/sub/file", Ok("sub/file")),
        ("/sub/", Ok("sub/index.html")),
        ("/sub", Ok("redirect")),
        ("/inside", Ok("inside")),
        ("/sub/file/", Err(404)),
        ("/sub/file/x", Err(404)),
        ("/", Err(404)),
        ("/none", Err(404)),
        ("/out", Err(404)),
        ("/absolute", Err(404)),
        ("/parent/secret", Err(404)),
        ("/parent/root/sub/file", Err(404)),
        ("/loop", Err(404)),
    ];

    #[track_caller]
    fn check(path: &str, found: Result<Found, RequestError>, expected: Result<&str, u16>) {
        let found = found.map_err(|error| error.status().as_u16());
        let found = found.map(|found| match found {
            Found::File { path, .. } => path.into_os_string().into_string().unwrap(),
            Found::DirectoryWithoutSlash => "redirect".to_owned(),
        });
        assert_eq!(found, expected.map(str::to_owned), "{path}");
    }

    #[test]
    fn nothing_outside_the_root_is_found() {
        let tree = Tree::new();
        for (path, expected) in CASES {
            let target = TargetPath::parse(path).unwrap();
            check(path, tree.root().find(&target), expected);
            for local in [tree.root().find_local(&target), tree.root().find_cached(&target)] {
                if let Local::Found(found) = local {
                    check(path, found, expected);
                }
            }
        }
    }

    #[test]
    fn the_walk_is_as_strict_as_the_kernel() {
        let tree = Tree::new();
        let root = tree.root();
        for (path, expected) in CASES {
            let target = TargetPath::parse(path).unwrap();
            let found = look_up(&target, |path: &Path| root.walk_beneath(path), None);
            let found = found.map_err(|error| match error {
                LookUpError::CannotTell => RequestError::Io(Errno::AGAIN.into()),
                LookUpError::Request(error) => error,
            });
            check(path, found, expected);
        }
    }

    #[test]
    fn pipes_and_devices_are_refused_without_waiting() {
        let tree = Tree::new();
        let root = tree.root();
        rustix::fs::mknodat(&root.directory, "pipe", FileType::Fifo, Mode::RUSR, 0).unwrap();
        let pipe = TargetPath::parse("/pipe").unwrap();
        check("/pipe", root.find(&pipe), Err(403));
    }
}
