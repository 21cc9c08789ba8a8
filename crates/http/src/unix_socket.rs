//! A Unix socket with a name in the file system: bound, with its permission bits, in the place of
//! one that was left behind, and removed at the end. For listeners, and for the binary's admin
//! pages.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{bind, listen, socket_with};

use crate::listen::BACKLOG;

/// The name of a Unix socket, removed when it is dropped, if it still is this one.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Listens at `path` with the permission bits `mode`, or those that the umask leaves. A socket
/// that nobody listens on any more, as a killed server leaves it, is replaced; nothing else is.
///
/// # Errors
///
/// Those of bind(2), listen(2) and chmod(2); of the kind `AddrInUse` where somebody listens, and
/// `AlreadyExists` where something lies that is no socket.
pub fn listen_at(path: &Path, mode: Option<u32>) -> io::Result<(UnixListener, SocketName)> {
    remove_stale(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Its own from here on: removed if something below fails, too.
    let name = SocketName::bound_at(path)?;
    if let Some(mode) = mode {
        // Before it listens, so that nobody connects who may not.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    listen(&socket, BACKLOG.cast_signed())?;
    Ok((UnixListener::from(socket), name))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl SocketName {
    fn bound_at(path: &Path) -> io::Result<Self> {
        let there = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: there.dev(), inode: there.ino() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays behind");
        }
    }
}
