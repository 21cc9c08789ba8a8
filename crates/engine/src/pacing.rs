//! How fast the kernel lets a socket send, apart from what the peer takes.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::os::fd::AsFd;

use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
use socket2::SockRef;

use crate::sys::sockopt;

/// Keeps connections that `listener` accepts on a loopback address from being paced.
///
/// BBR spreads packets over time, with a timer for each burst; between two programs on one host
/// there is no bottleneck to spare, but the timers can cost more than sendfile itself: nginx
/// spends 32 cs/GB on files of 1 MiB with BBR and 10 with Reno (docs/benchmarks.md). Where the
/// host's default is BBR, such connections get Reno, which every kernel has and every user may
/// choose. It must be asked of the listener: a connection that began with BBR stays paced.
///
/// # Errors
///
/// Those of getsockopt(2) and setsockopt(2) with TCP_CONGESTION (Linux 2.6.13). The listener
/// works on without.
pub fn spare_loopback(listener: impl AsFd, address: IpAddr) -> io::Result<()> {
    if address.is_loopback() && tcp_congestion(&listener)?.starts_with("bbr") {
        set_tcp_congestion(&listener, "reno")?;
    }
    Ok(())
}

/// Bytes that a socket may hold which were not yet sent; it counts as full beyond.
///
/// From 64 KiB to no bound at all the cost per byte is the same within the spread on loopback
/// (`bench/runs/2026-11-22-2core-linux6.18/unsent`); half a step keeps a fast client busy while
/// others have their turn.
const UNSENT_BYTES_MAX: u32 = 256 * 1024;

/// Bounds what a connection that `listener` accepts holds unsent (TCP_NOTSENT_LOWAT, Linux
/// 3.12): without it a client that stopped reading pins megabytes of pages, as many as the send
/// buffer grows to (`net.ipv4.tcp_wmem`).
///
/// # Errors
///
/// Those of setsockopt(2). The listener works on without.
pub fn bound_unsent(listener: impl AsFd) -> io::Result<()> {
    SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

/// Bounds how fast the kernel sends what a connection is given, in bytes per second
/// (SO_MAX_PACING_RATE, Linux 3.13; by TCP itself, whatever the device's queue, since 4.13). Pages
/// still leave by reference. A listener hands it on to the connections that it accepts.
///
/// # Errors
///
/// Those of setsockopt(2).
pub fn limit_rate(socket: impl AsFd, bytes_per_second: NonZeroU64) -> io::Result<()> {
    sockopt::set_max_pacing_rate(socket, bytes_per_second.get())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn loopback_listeners_do_not_pace() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        spare_loopback(&listener, listener.local_addr().unwrap().ip()).unwrap();
        assert!(!tcp_congestion(&listener).unwrap().starts_with("bbr"));
    }

    #[test]
    fn accepted_connections_hold_little_unsent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bound_unsent(&listener).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let unsent_max = SockRef::from(&accepted).tcp_notsent_lowat().unwrap();
        assert_eq!(unsent_max, UNSENT_BYTES_MAX);
    }

    #[test]
    fn others_keep_what_the_host_chose() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let before = tcp_congestion(&listener).unwrap();
        spare_loopback(&listener, listener.local_addr().unwrap().ip()).unwrap();
        assert_eq!(tcp_congestion(&listener).unwrap(), before);
    }
}
