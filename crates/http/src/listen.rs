//! Where a server listens and who connects: TCP addresses and Unix sockets. Binds them and accepts
//! from them; what is said on a connection is not here.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pagewire_engine::pacing;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::error::StartError;
use crate::tls::Tls;
use crate::unix_socket::{SocketName, listen_at};

/// Connections that may wait to be accepted; the kernel takes less where `net.core.somaxconn` is.
pub(crate) const BACKLOG: u32 = 1024;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A TCP address. Port 0 takes any that is free; `[::]` is IPv4 too, unless `0.0.0.0` is
    /// listened on with the same port.
    Tcp(SocketAddr),
    /// A Unix socket. One that nobody listens on any more is replaced.
    Unix {
        /// Where in the file system, of at most 108 bytes.
        path: PathBuf,
        /// Its permission bits; `None` for those that the umask leaves.
        mode: Option<u32>,
    },
}

/// Why a text is no [`ListenAddress`].
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no address: give IP:PORT, such as 127.0.0.1:8080 for this host only or [::]:8080 for \
     all who can reach it, or unix:/PATH"
)]
pub struct ListenAddressError(String);

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ListenAddressError(text.to_owned());
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| wrong());
        };
        let octal = |mode: &str| {
            let digits = (3..=4).contains(&mode.len()) && !mode.starts_with(['+', '-']);
            u32::from_str_radix(mode, 8).ok().filter(|mode| digits && *mode <= 0o777)
        };
        let with_mode =
            path.rsplit_once(':').and_then(|(path, mode)| Some((path, Some(octal(mode)?))));
        let (path, mode) = with_mode.unwrap_or((path, None));
        let path = PathBuf::from(path);
        match SocketAddrUnix::new(&path) {
            Ok(_) if !path.as_os_str().is_empty() => Ok(Self::Unix { path, mode }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One place to listen on, and how it is talked there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listen {
    /// The place.
    pub address: ListenAddress,
    /// How it is talked there.
    pub security: Security,
    /// A socket that listens there already.
    socket: Option<Arc<OwnedFd>>,
}

/// Whether what is said on a listener's connections is secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// Without TLS.
    Plain,
    /// Without TLS, and each request is answered with where the same is to be had by HTTPS: at the
    /// port of the first TCP listener with TLS. Challenges of ACME are answered as ever.
    SendOn,
    /// Over TLS.
    Tls(Tls),
}

impl Listen {
    /// Without TLS.
    #[must_use]
    pub fn plain(address: ListenAddress) -> Self {
        Self { address, security: Security::Plain, socket: None }
    }

    /// The same place, talked to in another way.
    #[must_use]
    pub fn with(self, security: Security) -> Self {
        Self { security, ..self }
    }

    /// On the address of a socket that listens already, such as one that systemd made.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2); of the kind `Unsupported` for what is neither TCP nor a Unix
    /// socket with a path, or does not listen.
    pub fn on_socket(socket: OwnedFd) -> io::Result<Self> {
        let not = |what| io::Error::new(io::ErrorKind::Unsupported, what);
        if sockopt::socket_type(&socket)? != SocketType::STREAM {
            return Err(not("it is no stream socket"));
        }
        if !sockopt::socket_acceptconn(&socket)? {
            return Err(not("it does not listen"));
        }
        let name = rustix::net::getsockname(&socket)?;
        let address = match SocketAddrAny::address_family(&name) {
            AddressFamily::UNIX => {
                let name = SocketAddrUnix::try_from(name)?;
                let path = name.path_bytes().filter(|path| !path.is_empty());
                let path = path.ok_or_else(|| not("its Unix socket has no path"))?;
                let path = PathBuf::from(OsStr::from_bytes(path));
                ListenAddress::Unix { path, mode: None }
            }
            AddressFamily::INET | AddressFamily::INET6 => {
                ListenAddress::Tcp(SocketAddr::try_from(name)?)
            }
            _ => return Err(not("it is neither TCP nor a Unix socket")),
        };
        Ok(Self { address, security: Security::Plain, socket: Some(Arc::new(socket)) })
    }

    /// The same address on the socket of `other`, if that listens there.
    #[must_use]
    pub fn or_on(self, other: &Self) -> Self {
        let is_there = match (&self.address, &other.address) {
            (ListenAddress::Unix { path, .. }, ListenAddress::Unix { path: other, .. }) => {
                path == other
            }
            (one, other) => one == other,
        };
        if is_there { Self { socket: other.socket.clone(), ..self } } else { self }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// A TCP address. That of an IPv4 client of a `[::]` listener is an IPv4 address.
    Tcp(SocketAddr),
    /// A process of this host that came by a Unix socket.
    Unix {
        /// The user that it ran as when it connected (SO_PEERCRED); none where that is not known.
        uid: Option<u32>,
    },
}

impl PeerAddress {
    /// Its IP address, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}

/// A listener that accepts.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// With the name that is removed at the end, if it is this server's.
    Unix(UnixListener, Result<SocketName, PathBuf>),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepted {
    /// Says in a word why this connection ends; to the kernel, which may or may not have room. What
    /// was asked by now is taken first: the peer's kernel drops answers of a connection that ended
    /// with something unread. Where TLS is spoken nothing is said: who has not shaken hands could
    /// not make sense of it.
    pub(crate) fn turn_away(&self, security: &Security) {
        if matches!(security, Security::Tls(_)) {
            return;
        }
        const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 36\r\n\
            Retry-After: 5\r\nConnection: close\r\n\r\ntoo many connections; try again ...\n";
        let said = match self {
            Self::Tcp(stream) => {
                stream.try_read(&mut [0; 2048]).ok();
                stream.try_write(BUSY)
            }
            Self::Unix(stream) => {
                stream.try_read(&mut [0; 2048]).ok();
                stream.try_write(BUSY)
            }
        };
        if let Err(error) = said {
            tracing::debug!(%error, "a connection ends without a word");
        }
    }
}

impl Listener {
    /// Listens as `asked`, at one of `all` addresses.
    pub(crate) fn bind(asked: &Listen, all: &[ListenAddress]) -> Result<Self, StartError> {
        let Listen { address, socket, .. } = asked;
        let listener = match (address, socket) {
            (address, Some(socket)) => take_over(address, socket),
            (ListenAddress::Tcp(tcp), None) => bind_tcp(*tcp, all).map(Self::Tcp),
            (ListenAddress::Unix { path, mode }, None) => bind_unix(path, *mode),
        };
        listener.map_err(|source| StartError::Listen { address: address.clone(), source })
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Self::Unix(_, file) => {
                let path = file.as_ref().map_or_else(Clone::clone, |name| name.path().to_owned());
                Ok(ListenAddress::Unix { path, mode: None })
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Accepted, PeerAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, mut peer) = listener.accept().await?;
                peer.set_ip(peer.ip().to_canonical());
                Ok((Accepted::Tcp(stream), PeerAddress::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok((Accepted::Unix(stream), PeerAddress::Unix { uid }))
            }
        }
    }
}

fn bind_tcp(address: SocketAddr, all: &[ListenAddress]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // Said, because what it is else is the host's choice (net.ipv6.bindv6only). An IPv4
        // listener of the same port needs the port for itself.
        let v4_apart = all.iter().any(|other| {
            matches!(other, ListenAddress::Tcp(other)
                if other.is_ipv4() && other.port() == address.port() && other.port() != 0)
        });
        sockopt::set_ipv6_v6only(&socket, v4_apart)?;
    }
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    tune(&listener, address);
    Ok(listener)
}

/// How the kernel sends on connections of this listener.
fn tune(listener: &TcpListener, address: SocketAddr) {
    if let Err(error) = pacing::spare_loopback(listener, address.ip()) {
        tracing::debug!(%address, %error, "connections are paced as the host chose");
    }
    if let Err(error) = pacing::bound_unsent(listener) {
        tracing::debug!(%address, %error, "what connections hold unsent is not bounded");
    }
}

/// Another descriptor of a socket that listens: the one that was inherited stays open, for the
/// next reload.
fn take_over(address: &ListenAddress, socket: &OwnedFd) -> io::Result<Listener> {
    let socket = socket.try_clone()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    match address {
        ListenAddress::Tcp(address) => {
            let listener = TcpListener::from_std(std::net::TcpListener::from(socket))?;
            tune(&listener, *address);
            Ok(Listener::Tcp(listener))
        }
        ListenAddress::Unix { path, .. } => {
            let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
            Ok(Listener::Unix(listener, Err(path.clone())))
        }
    }
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Listener> {
    let (listener, name) = listen_at(path, mode)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(UnixListener::from_std(listener)?, Ok(name)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:80", "[::]:0", "unix:/run/x.sock", "unix:here.sock", "unix:/a:b"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        let address: ListenAddress = "unix:/run/x.sock:660".parse().unwrap();
        let path = PathBuf::from("/run/x.sock");
        assert_eq!(address, ListenAddress::Unix { path, mode: Some(0o660) });
        let long = format!("unix:/{}", "x".repeat(108));
        for text in ["", "unix:", "localhost:80", "127.0.0.1", "unix::660", "tcp:[::]:80", &long] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_when_nobody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let address = ListenAddress::Unix { path: path.clone(), mode: Some(0o640) };
        let first = Listener::bind(&Listen::plain(address.clone()), &[]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        let taken = Listener::bind(&Listen::plain(address.clone()), &[]).unwrap_err();
        assert!(matches!(&taken, StartError::Listen { source, .. }
            if source.kind() == io::ErrorKind::AddrInUse));
        drop(first);
        assert!(!path.exists());
        // As a killed server leaves it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = Listener::bind(&Listen::plain(address.clone()), &[]).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "somebody else's by now").unwrap();
        drop(second);
        assert!(path.exists());
        let refused = Listener::bind(&Listen::plain(address.clone()), &[]).unwrap_err();
        assert!(matches!(&refused, StartError::Listen { source, .. }
            if source.kind() == io::ErrorKind::AlreadyExists));
    }

    #[tokio::test]
    async fn v6_any_is_v4_too_unless_that_has_a_listener() {
        let any = ListenAddress::Tcp("[::]:0".parse().unwrap());
        let listener = Listener::bind(&Listen::plain(any), &[]).unwrap();
        let ListenAddress::Tcp(bound) = listener.address().unwrap() else { unreachable!() };
        let client = std::net::TcpStream::connect(("127.0.0.1", bound.port())).unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, PeerAddress::Tcp(client.local_addr().unwrap()));
        drop(listener);
        let port = bound.port();
        let both = [format!("[::]:{port}"), format!("0.0.0.0:{port}")];
        let both = both.map(|address| address.parse().unwrap());
        let bind = |address: &ListenAddress| Listener::bind(&Listen::plain(address.clone()), &both);
        let listeners = [bind(&both[0]), bind(&both[1])];
        assert!(listeners.iter().all(Result::is_ok), "{listeners:?}");
    }
}
