//! setsockopt(2) for options that neither rustix nor socket2 has.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Allows MSG_ZEROCOPY on a socket (SO_ZEROCOPY, Linux 4.14).
pub(crate) fn set_zerocopy(socket: impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    set(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &on.to_ne_bytes())
}

/// Puts the kernel's TLS layer on a connected TCP socket (TCP_ULP, Linux 4.13). It sends as
/// before until it is given keys.
///
/// ENOENT when the kernel has no such layer, or its module is not loaded and the caller may not
/// load it (CAP_NET_ADMIN); ENOTCONN when the socket is not connected.
pub(crate) fn set_tls_layer(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

pub(super) fn set(socket: impl AsFd, level: c_int, option: c_int, value: &[u8]) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, being borrowed; the kernel reads `len`
    // bytes of `value`, which is as long and borrowed too.
    match unsafe { libc::setsockopt(fd, level, option, value.as_ptr().cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn tcp_takes_zerocopy_and_pipes_do_not() {
        set_zerocopy(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let refusal = set_zerocopy(read).unwrap_err();
        assert_eq!(Errno::from_io_error(&refusal), Some(Errno::NOTSOCK));
    }

    #[test]
    fn tls_needs_a_connection() {
        let refusal = set_tls_layer(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap_err();
        let errno = Errno::from_io_error(&refusal);
        assert!(matches!(errno, Some(Errno::NOTCONN | Errno::NOENT)), "{refusal}");
    }
}
