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

/// Has the kernel send at most so many bytes per second (SO_MAX_PACING_RATE, Linux 3.13; TCP paces
/// by itself since 4.13). Other sockets than TCP's take it and do nothing.
pub(crate) fn set_max_pacing_rate(socket: impl AsFd, bytes_per_second: u64) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the kernel takes a number of its own")]
    let rate = bytes_per_second.to_ne_bytes();
    set(socket, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &rate)
}

/// How many bytes the peer of a TCP socket has acknowledged (TCP_INFO, its field
/// `tcpi_bytes_acked`, Linux 4.1).
///
/// EOPNOTSUPP when the socket is no TCP socket.
pub(crate) fn bytes_acknowledged(socket: impl AsFd) -> io::Result<u64> {
    // Where the field lies in struct tcp_info, which only ever grows at its end.
    const FIELD: std::ops::Range<usize> = 120..128;
    let mut info = [0_u8; FIELD.end];
    let read = get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let field = info.get(..read).and_then(|info| info.get(FIELD)?.try_into().ok());
    field.map(u64::from_ne_bytes).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Returns how many bytes of `value` the kernel wrote.
fn get(socket: impl AsFd, level: c_int, option: c_int, value: &mut [u8]) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let mut len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, being borrowed; the kernel writes at most
    // `len` bytes to `value`, which is as long and borrowed too, and their number to `len`.
    match unsafe { libc::getsockopt(fd, level, option, value.as_mut_ptr().cast(), &raw mut len) } {
        0 => usize::try_from(len).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
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
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

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
    fn a_pacing_rate_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_max_pacing_rate(&listener, 12_345).unwrap();
        let mut rate = [0; 8];
        get(&listener, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &mut rate).unwrap();
        assert_eq!(u64::from_ne_bytes(rate), 12_345);
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let refusal = set_max_pacing_rate(read, 1).unwrap_err();
        assert_eq!(Errno::from_io_error(&refusal), Some(Errno::NOTSOCK));
    }

    #[test]
    fn what_a_peer_acknowledged_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let before = bytes_acknowledged(&accepted).unwrap();
        accepted.write_all(&[1; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        // On loopback the segment is acknowledged within the call that sends it, or the read.
        let after = bytes_acknowledged(&accepted).unwrap();
        assert!(after - before <= 1000);
        // What is sent back acknowledges it at the latest.
        client.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        assert_eq!(bytes_acknowledged(&accepted).unwrap() - before, 1000);
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(bytes_acknowledged(one).is_err());
    }

    #[test]
    fn tls_needs_a_connection() {
        let refusal = set_tls_layer(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap_err();
        let errno = Errno::from_io_error(&refusal);
        assert!(matches!(errno, Some(Errno::NOTCONN | Errno::NOENT)), "{refusal}");
    }
}
