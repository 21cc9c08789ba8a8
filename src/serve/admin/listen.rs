//! Where the admin pages are: an address or a Unix socket, and the thread that answers there.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pagewire_http::{ListenAddress, SocketName, listen_at};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Admin, text};

/// So many may look at once.
const CONNECTIONS_MAX: usize = 32;

/// How long a head may take, and a connection be idle.
const HEAD_MAX: Duration = Duration::from_secs(20);

/// A connection ends after so long: pages ask anew.
const CONNECTION_MAX: Duration = Duration::from_secs(600);

/// Accepting pauses when descriptors are out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What the pages tell is for whoever runs the server.
const OWNER_ONLY: u32 = 0o600;

/// Where the admin pages are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    Tcp(SocketAddr),
    /// With permission bits, where others than [`OWNER_ONLY`] are wanted.
    Unix {
        path: PathBuf,
        mode: Option<u32>,
    },
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_path = text.contains('/') && !text.starts_with("unix:");
        let named = if is_path { format!("unix:{text}") } else { text.to_owned() };
        if let Ok(ListenAddress::Unix { path, mode }) = named.parse() {
            return Ok(Self::Unix { path, mode });
        }
        if let Ok(port) = text.parse() {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        let address = text.parse().map_err(|_| {
            "it is neither a port (then on 127.0.0.1), nor IP:PORT, nor the path of a Unix socket, \
             which may have 108 bytes and end in :MODE"
                .to_owned()
        })?;
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}/"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listens, and does not answer yet.
pub(crate) struct AdminListener {
    socket: Socket,
    address: AdminAddress,
    name: Option<SocketName>,
}

enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl AdminListener {
    pub(crate) fn bind(address: &AdminAddress) -> anyhow::Result<Self> {
        let bound = match address {
            AdminAddress::Tcp(address) => bind_tcp(*address),
            AdminAddress::Unix { path, mode } => bind_unix(path, *mode),
        };
        bound.with_context(|| format!("cannot listen on {address} (--admin)"))
    }

    /// Where it listens, with the port that the kernel chose.
    pub(crate) fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Whether other hosts may reach it.
    pub(crate) fn is_public(&self) -> bool {
        matches!(&self.address, AdminAddress::Tcp(address) if !address.ip().is_loopback())
    }

    /// Answers on a thread of its own, for as long as the process runs. The name of its socket is
    /// removed when what this returns is dropped.
    pub(crate) fn start(self, admin: Admin) -> anyhow::Result<Option<SocketName>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let serve = move || runtime.block_on(serve(self.socket, Arc::new(admin)));
        let named = thread::Builder::new().name("admin".to_owned());
        named.spawn(move || {
            if let Err(error) = serve() {
                tracing::error!(%error, "the admin pages are gone");
            }
        })?;
        Ok(self.name)
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<AdminListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = AdminAddress::Tcp(listener.local_addr()?);
    Ok(AdminListener { socket: Socket::Tcp(listener), address, name: None })
}

fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<AdminListener> {
    let (listener, name) = listen_at(path, Some(mode.unwrap_or(OWNER_ONLY)))?;
    listener.set_nonblocking(true)?;
    let address = AdminAddress::Unix { path: path.to_owned(), mode };
    Ok(AdminListener { socket: Socket::Unix(listener), address, name: Some(name) })
}

async fn serve(socket: Socket, admin: Arc<Admin>) -> io::Result<()> {
    let ticking = Arc::clone(&admin);
    tokio::spawn(async move {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 1.. {
            seconds.tick().await;
            ticking.second(number);
        }
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    match socket {
        Socket::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            let local = listener.local_addr()?.ip().is_loopback();
            accept(async || Ok(TokioIo::new(listener.accept().await?.0)), local, admin, places)
                .await
        }
        Socket::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            accept(async || Ok(TokioIo::new(listener.accept().await?.0)), false, admin, places)
                .await
        }
    }
}

async fn accept<S: Read + Write + Unpin + Send + 'static>(
    next: impl AsyncFn() -> io::Result<S>,
    local: bool,
    admin: Arc<Admin>,
    places: Arc<Semaphore>,
) -> io::Result<()> {
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let stream = match next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin pages cannot accept");
                sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = if local && !is_local(request.headers()) {
                    text(StatusCode::FORBIDDEN, "ask by an address of this host, or localhost\n")
                } else {
                    admin.answer(&request)
                };
                async { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
            let served = timeout(CONNECTION_MAX, http.serve_connection(stream, answer)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "a connection to the admin pages ended early");
            }
            drop(place);
        });
    }
}

/// Whether a request that came over loopback names this host: a page of somebody else's, whose
/// name leads to 127.0.0.1, names itself, and is not to read what goes on here (DNS rebinding).
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn addresses() {
        let parsed = |text: &str| text.parse::<AdminAddress>().map(|address| address.to_string());
        assert_eq!(parsed("9100").unwrap(), "http://127.0.0.1:9100/");
        assert_eq!(parsed("[::]:0").unwrap(), "http://[::]:0/");
        assert_eq!(parsed("unix:admin").unwrap(), "unix:admin");
        assert_eq!(parsed("/run/x.sock").unwrap(), "unix:/run/x.sock");
        let group = AdminAddress::Unix { path: "/run/x.sock".into(), mode: Some(0o660) };
        assert_eq!("/run/x.sock:660".parse(), Ok(group));
        assert!(parsed("localhost").is_err() && parsed("70000").is_err());
    }

    #[test]
    fn names_of_others_are_refused() {
        let says = |host: &'static str| {
            is_local(&HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]))
        };
        for host in ["127.0.0.1:9100", "localhost", "LOCALHOST:1", "[::1]:9100", "[::1]"] {
            assert!(says(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9100", "localhost.evil.example"] {
            assert!(!says(host), "{host}");
        }
    }
}
