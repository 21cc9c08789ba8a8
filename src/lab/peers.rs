//! The servers that are compared: how each is found, configured and started. Every one runs with
//! its own best settings for static files on one processor.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use pagewire_engine::RouteChoice;
use rustix::process::{Resource, geteuid, getrlimit};

/// A server that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    program: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pagewire(RouteChoice),
    Nginx,
    /// With `aio threads`, which costs hot traffic and spares it from cold files.
    NginxAio,
    Lighttpd,
    H2o,
    Caddy,
    Apache,
    StaticWebServer,
    Dufs,
    Miniserve,
    Python,
}

/// Others than pagewire, in the order of the tables.
const OTHERS: [Kind; 9] = [
    Kind::Nginx,
    Kind::Lighttpd,
    Kind::H2o,
    Kind::Caddy,
    Kind::Apache,
    Kind::StaticWebServer,
    Kind::Dufs,
    Kind::Miniserve,
    Kind::Python,
];

/// What a server is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) address: SocketAddr,
    /// What it serves.
    pub(crate) files: &'a Path,
    /// A directory of its own, for configuration and whatever it writes.
    pub(crate) home: &'a Path,
}

impl Peer {
    /// This program, by `route`.
    pub(crate) fn pagewire(route: RouteChoice) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's file")?;
        Ok(Self { program, kind: Kind::Pagewire(route) })
    }

    /// One of another kind, if its program is on the PATH.
    pub(crate) fn find(kind: Kind) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::env::split_paths(&path).map(|dir| dir.join(kind.program()));
        let program = candidates.find(|file| is_executable(file))?;
        Some(Self { program, kind })
    }

    /// All others that are on the PATH.
    pub(crate) fn found() -> Vec<Self> {
        OTHERS.into_iter().filter_map(Self::find).collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// How to start it; writes its configuration to its home.
    pub(crate) fn command(&self, setup: &Setup<'_>) -> anyhow::Result<Command> {
        if let Some((name, text)) = self.kind.configuration(setup) {
            let file = setup.home.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut command = Command::new(&self.program);
        command.args(self.kind.arguments(setup));
        // Some keep what they cache or learn below the home directory.
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            if self.kind == Kind::Caddy {
                command.env(variable, setup.home);
            }
        }
        Ok(command)
    }

    /// What it says of its version, in one line.
    pub(crate) fn version(&self) -> Option<String> {
        let flag = match self.kind {
            Kind::Pagewire(_) => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            Kind::Nginx | Kind::NginxAio | Kind::Lighttpd | Kind::H2o | Kind::Apache => "-v",
            Kind::Caddy => "version",
            Kind::StaticWebServer | Kind::Dufs | Kind::Miniserve | Kind::Python => "--version",
        };
        let output = Command::new(&self.program).arg(flag).stdin(Stdio::null()).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        said.lines().next().map(|line| line.trim().to_owned())
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pagewire(_) => "pagewire",
            Self::NginxAio => "nginx, aio threads",
            Self::Python => "python http.server",
            Self::Nginx
            | Self::Lighttpd
            | Self::H2o
            | Self::Caddy
            | Self::Apache
            | Self::StaticWebServer
            | Self::Dufs
            | Self::Miniserve => self.program(),
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Pagewire(_) => "pagewire",
            Self::Nginx | Self::NginxAio => "nginx",
            Self::Lighttpd => "lighttpd",
            Self::H2o => "h2o",
            Self::Caddy => "caddy",
            Self::Apache => "apache2",
            Self::StaticWebServer => "static-web-server",
            Self::Dufs => "dufs",
            Self::Miniserve => "miniserve",
            Self::Python => "python3",
        }
    }

    /// Words of the command line, with {placeholders}.
    fn line(self) -> &'static str {
        match self {
            Self::Pagewire(_) => {
                "serve {files} --listen {ip}:{port} --route {route} --threads 1 --quiet \
                 --max-connections-per-address 1000000"
            }
            Self::Nginx | Self::NginxAio => "-p {home} -c {home}/nginx.conf -e stderr",
            Self::Lighttpd => "-D -f {home}/lighttpd.conf",
            Self::H2o => "-c {home}/h2o.conf",
            Self::Caddy => "run --config {home}/Caddyfile --adapter caddyfile",
            Self::Apache => "-f {home}/apache2.conf -DFOREGROUND",
            Self::StaticWebServer => "-a {ip} -p {port} -d {files} --threads-multiplier 1 -g error",
            // No log: its format is empty.
            Self::Dufs => "{files} -b {ip} -p {port} --log-format ",
            Self::Miniserve => "{files} -i {ip} -p {port}",
            Self::Python => {
                "-m http.server {port} --bind {ip} --directory {files} --protocol HTTP/1.1"
            }
        }
    }

    fn arguments(self, setup: &Setup<'_>) -> Vec<String> {
        let Setup { address, files, home } = setup;
        let route = if let Self::Pagewire(route) = self { route } else { RouteChoice::Auto };
        let filled = |word: &str| {
            word.replace("{files}", &files.display().to_string())
                .replace("{home}", &home.display().to_string())
                .replace("{ip}", &address.ip().to_string())
                .replace("{port}", &address.port().to_string())
                .replace("{route}", &route.to_string())
        };
        self.line().split(' ').map(filled).collect()
    }

    /// The name and the text of its configuration, if it has one.
    fn configuration(self, setup: &Setup<'_>) -> Option<(&'static str, String)> {
        match self {
            Self::Nginx => Some(("nginx.conf", nginx(setup, ""))),
            Self::NginxAio => Some(("nginx.conf", nginx(setup, "aio threads;"))),
            Self::Lighttpd => Some(("lighttpd.conf", lighttpd(setup))),
            Self::H2o => Some(("h2o.conf", h2o(setup))),
            Self::Caddy => Some(("Caddyfile", caddy(setup))),
            Self::Apache => Some(("apache2.conf", apache(setup))),
            Self::Pagewire(_)
            | Self::StaticWebServer
            | Self::Dufs
            | Self::Miniserve
            | Self::Python => None,
        }
    }
}

/// A line that root's servers need to stay root, so that all may read the same files.
fn as_root(line: &str) -> &str {
    if geteuid().is_root() { line } else { "" }
}

/// Descriptors that a server may open: it inherits our limit.
fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.map_or(65_536, |limit| limit.min(65_536))
}

fn nginx(setup: &Setup<'_>, aio: &str) -> String {
    let Setup { address, files, home } = setup;
    let (files, home, user) = (files.display(), home.display(), as_root("user root;"));
    let connections = descriptors().saturating_sub(64).max(64);
    format!(
        "worker_processes 1;
daemon off;
{user}
pid {home}/pid;
error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    sendfile on;
    {aio}
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    open_file_cache max=10000 inactive=60s;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{ listen {address} reuseport; root \"{files}\"; }}
}}
"
    )
}

fn lighttpd(setup: &Setup<'_>) -> String {
    let (ip, port, files) = (setup.address.ip(), setup.address.port(), setup.files.display());
    let descriptors = descriptors();
    format!(
        "server.port = {port}
server.bind = \"{ip}\"
server.document-root = \"{files}\"
server.max-keep-alive-requests = 1000000000
server.max-keep-alive-idle = 600
server.network-backend = \"sendfile\"
server.max-fds = {descriptors}
server.max-connections = {}
",
        descriptors / 2
    )
}

fn h2o(setup: &Setup<'_>) -> String {
    let Setup { address, files, home } = setup;
    let (ip, port) = (address.ip(), address.port());
    let connections = descriptors().saturating_sub(64).max(64);
    let (files, home, user) = (files.display(), home.display(), as_root("user: root"));
    format!(
        "{user}
num-threads: 1
max-connections: {connections}
http1-request-timeout: 600
pid-file: {home}/pid
error-log: /dev/stderr
listen:
  host: {ip}
  port: {port}
hosts:
  default:
    paths:
      /:
        file.dir: \"{files}\"
"
    )
}

fn caddy(setup: &Setup<'_>) -> String {
    let Setup { address, files, .. } = setup;
    let (ip, files) = (address.ip(), files.display());
    format!(
        "{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
}}
http://:{port} {{
    bind {ip}
    root * \"{files}\"
    file_server
}}
",
        port = address.port()
    )
}

/// Debian's apache2; `apache2 -V` names the folder above the modules.
fn apache(setup: &Setup<'_>) -> String {
    let Setup { address, files, home } = setup;
    let (files, home) = (files.display(), home.display());
    let user = as_root("User nobody\nGroup nogroup");
    format!(
        "ServerRoot /usr/lib/apache2
ServerName localhost
Listen {address}
PidFile {home}/pid
DefaultRuntimeDir {home}
ErrorLog /dev/stderr
LogLevel error
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
{user}
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
AsyncRequestWorkerFactor 1000
KeepAlive On
KeepAliveTimeout 600
MaxKeepAliveRequests 0
EnableSendfile On
DocumentRoot \"{files}\"
<Directory \"{files}\">
    Require all granted
</Directory>
"
    )
}

/// What `--show-config` prints: the command line and the configuration of every server known,
/// and whether it was found.
pub(crate) fn shown() -> anyhow::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let (files, home) = (Path::new("FILES"), Path::new("HOME"));
    let setup = Setup { address, files, home };
    let mut shown = String::new();
    let ours = Kind::Pagewire(RouteChoice::Auto);
    for kind in [ours].into_iter().chain(OTHERS).chain([Kind::NginxAio]) {
        let where_it_is = match Peer::find(kind) {
            _ if kind == ours => "this program".to_owned(),
            Some(peer) => peer.program.display().to_string(),
            None => "not found on the PATH".to_owned(),
        };
        writeln!(shown, "# {} ({where_it_is})", kind.name())?;
        writeln!(shown, "{} {}", kind.program(), kind.arguments(&setup).join(" "))?;
        if let Some((name, text)) = kind.configuration(&setup) {
            writeln!(shown, "## HOME/{name}")?;
            text.lines()
                .filter(|line| !line.trim().is_empty())
                .try_for_each(|line| writeln!(shown, "{line}"))?;
        }
        writeln!(shown)?;
    }
    Ok(shown)
}

/// The names of the programs that are looked for.
pub(crate) fn names() -> String {
    OTHERS.map(Kind::program).join(", ")
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
