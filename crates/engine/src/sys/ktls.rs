//! The kernel's TLS records (kTLS, linux/tls.h): keys by setsockopt(2), control records by
//! sendmsg(2) with a control message. `sockopt.rs` puts the layer on a socket.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::sockopt::set;

/// Gives the kernel the keys for what is sent (TLS_TX, Linux 4.13; again with new keys, Linux
/// 6.14). `info` is one of the `tls12_crypto_info_*` of linux/tls.h, byte for byte.
///
/// ENOENT when the cipher is neither built in nor loaded; EINVAL when this kernel does not know
/// it; EBUSY when there are keys and this kernel cannot change them.
pub(crate) fn set_tls_tx(socket: impl AsFd, info: &[u8]) -> io::Result<()> {
    set(socket, libc::SOL_TLS, libc::TLS_TX, info)
}

/// Has a device that seals records read files from the page cache, without a copy
/// (TLS_TX_ZEROCOPY_RO, Linux 5.19): only for files that never change. Where the kernel seals,
/// it is taken and changes nothing.
///
/// ENOPROTOOPT when this kernel does not know it, or the socket has no TLS layer.
pub(crate) fn set_tls_tx_zerocopy_ro(socket: impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    set(socket, libc::SOL_TLS, libc::TLS_TX_ZEROCOPY_RO, &on.to_ne_bytes())
}

/// `struct cmsghdr` with the one byte of TLS_SET_RECORD_TYPE behind it.
#[repr(C)]
struct RecordType {
    len: usize,
    level: c_int,
    kind: c_int,
    record: u8,
    padding: [u8; 7],
}

/// The `cmsg_len` of one byte: without the padding.
const RECORD_TYPE_LEN: usize = 17;
const _: () = assert!(size_of::<RecordType>() == 24 && size_of::<libc::cmsghdr>() == 16);

/// Sends `payload` as one record of this content type; all of it or nothing, never waiting.
pub(crate) fn send_record(socket: BorrowedFd<'_>, record: u8, payload: &[u8]) -> io::Result<()> {
    let mut slice =
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    let mut control = RecordType {
        len: RECORD_TYPE_LEN,
        level: libc::SOL_TLS,
        kind: libc::TLS_SET_RECORD_TYPE,
        record,
        padding: [0; 7],
    };
    // SAFETY: a `msghdr` is numbers and pointers that may be null.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<RecordType>();
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open, being borrowed; the message points to one slice and one
    // control message, which outlive the call and which the kernel only reads.
    match unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) } {
        -1 => Err(io::Error::last_os_error()),
        sent if usize::try_from(sent) == Ok(payload.len()) => Ok(()),
        _ => Err(io::Error::other("a TLS control record was cut")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn sockets_without_the_layer_take_no_keys_no_promise_and_no_records() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let refusal = set_tls_tx(&socket, &[0; 40]).unwrap_err();
        let errno = Errno::from_io_error(&refusal);
        assert!(matches!(errno, Some(Errno::NOPROTOOPT | Errno::OPNOTSUPP)), "{refusal}");
        let refusal = set_tls_tx_zerocopy_ro(&socket).unwrap_err();
        let errno = Errno::from_io_error(&refusal);
        assert!(matches!(errno, Some(Errno::NOPROTOOPT | Errno::OPNOTSUPP)), "{refusal}");
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let refusal = send_record(read.as_fd(), 21, &[1, 0]).unwrap_err();
        assert_eq!(Errno::from_io_error(&refusal), Some(Errno::NOTSOCK));
    }
}
