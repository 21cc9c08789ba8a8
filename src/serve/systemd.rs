//! What systemd is told (sd_notify(3)) and what it gives: sockets that it listens on already.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use listenfd::ListenFd;
use pagewire_http::Listen;
use rustix::time::{ClockId, clock_gettime};

/// Tells the service manager what the server is at; nobody, if it did not ask.
#[derive(Debug, Default)]
pub(crate) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connected at once: later a sandbox may not let it.
    pub(crate) fn connect() -> Self {
        let Some(place) = env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        match connect(&place) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                eprintln!("pagewire: cannot reach NOTIFY_SOCKET {}: {error}", place.display());
                Self(None)
            }
        }
    }

    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// With the time, without which `Type=notify-reload` does not know which reload is meant.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line that `systemctl status` shows.
    pub(crate) fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", text.replace('\n', " ")));
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(text.as_bytes())
        {
            eprintln!("pagewire: the service manager was not told {text:?}: {error}");
        }
    }
}

/// The sockets that the service manager listens on (sd_listen_fds(3)), each as what there is to
/// listen on. To be called once.
pub(crate) fn inherited() -> io::Result<Vec<Listen>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(given.len());
    for at in 0..given.len() {
        // A socket of the wrong kind stays where it is.
        let socket = match given.take_tcp_listener(at) {
            Ok(socket) => socket.map(OwnedFd::from),
            Err(_) => given.take_unix_listener(at)?.map(OwnedFd::from),
        };
        sockets.extend(socket.map(Listen::on_socket).transpose()?);
    }
    Ok(sockets)
}

fn connect(place: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match place.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(place)?,
    }
    Ok(socket)
}
