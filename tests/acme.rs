//! Certificates by ACME, from Pebble, the test server of those who run Let's Encrypt.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::support::{Lines, PATIENCE, Server, curl, need, pagewire, plain_dir, wait_until};

/// Addresses that are free now.
fn free<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|held| held.local_addr().unwrap())
}

/// A directory with all that the programs keep, and what they are given.
struct Stage {
    dir: TempDir,
    /// Where the ACME server is, or will be.
    acme: SocketAddr,
}

impl Stage {
    /// None where Pebble is missing.
    #[track_caller]
    fn new() -> Option<Self> {
        if !["pebble", "pebble-challtestsrv", "openssl"].into_iter().all(need) {
            return None;
        }
        let [acme] = free();
        let stage = Self { dir: plain_dir(), acme };
        fs::create_dir(stage.path("site")).unwrap();
        fs::write(stage.path("site/file"), "content").unwrap();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-nodes", "-days", "2", "-subj", "/CN=pebble", "-addext"]);
        command.args(["subjectAltName=DNS:localhost,DNS:own.example", "-addext"]);
        command.args(["basicConstraints=critical,CA:FALSE", "-out", "own.pem", "-keyout"]);
        let made = command.arg("own.key").current_dir(stage.path("")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/dir", self.acme.port())
    }

    /// Serves by HTTPS, with what `more` says of certificates.
    fn serve(&self, more: &[&str]) -> Server {
        let mut command = pagewire(&["serve", "site"]);
        command.args(["--acme-ca", "own.pem", "--state-dir", "state"]);
        command.args(["--acme-directory", &self.url(), "--acme-contact", "a@b.example"]);
        command.args(["--listen", "127.0.0.1:0"]).args(more).current_dir(self.path(""));
        Server::spawn(command)
    }

    /// An ACME server that looks for proofs at `port`.
    fn pebble(&self, port: u16, more: &str) -> Pebble {
        let [manage, dns, names_manage] = free();
        let (dns, names_manage) = (dns.to_string(), names_manage.to_string());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &dns, "-defaultIPv6", "", "-management", &names_manage]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let names = Running::start(names);
        let acme = self.acme;
        let config = format!(
            "{{\"pebble\": {{\"listenAddress\": \"{acme}\", \"managementListenAddress\": \
             \"{manage}\", \"certificate\": \"own.pem\", \"privateKey\": \"own.key\", \
             \"httpPort\": {port}, \"tlsPort\": {port}{more}}}}}"
        );
        fs::write(self.path("pebble.json"), config).unwrap();
        let mut command = Command::new("pebble");
        command.args(["-config", "pebble.json", "-dnsserver", &dns]);
        command.env("PEBBLE_VA_NOSLEEP", "1").current_dir(self.path(""));
        let pebble = Pebble { program: Running::start(command), _names: names };
        pebble.waits_for("ACME directory available");
        let roots = format!("https://localhost:{}/roots/0", manage.port());
        let own = self.path("own.pem");
        let root = curl(&["--fail", "--cacert", own.to_str().unwrap(), &roots]).stdout;
        fs::write(self.path("root.pem"), root).unwrap();
        pebble
    }

    /// What curl gets from `server` by `domain`, if the certificate leads to `authority`.
    fn get(&self, server: &Server, domain: &str, authority: &str) -> Option<Vec<u8>> {
        let port = server.address().port();
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--max-time", "20", "--cacert"]);
        command.arg(self.path(authority));
        command.args(["--resolve", &format!("{domain}:{port}:127.0.0.1")]);
        let output = command.arg(format!("https://{domain}:{port}/file")).output().unwrap();
        output.status.success().then_some(output.stdout)
    }

    #[track_caller]
    fn waits_for_certificate(&self, server: &Server, domain: &str) {
        let got = wait_until("the certificate", || self.get(server, domain, "root.pem"));
        assert_eq!(got, b"content");
    }

    fn kept(&self) -> PathBuf {
        self.path("state/acme").join(format!("localhost-{}-dir", self.acme.port()))
    }
}

/// A program, until this is dropped.
struct Running {
    child: Child,
    out: Lines,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let out = Lines::collect(child.stdout.take().unwrap());
        Self { child, out }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Pebble {
    program: Running,
    /// Says that every name is this host's.
    _names: Running,
}

impl Pebble {
    #[track_caller]
    fn waits_for(&self, what: &str) {
        wait_until(what, || (self.lines(what) > 0).then_some(()));
    }

    fn lines(&self, what: &str) -> usize {
        self.program.out.all().iter().filter(|line| line.contains(what)).count()
    }
}

/// The first line on standard error that has all of `parts`, waited for.
#[track_caller]
fn says(server: &Server, parts: &[&str]) -> String {
    let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
    wait_until(&format!("{parts:?}, in {:#?} ({PATIENCE:?})", server.raw_log().all()), || {
        server.raw_log().all().into_iter().find(has_all)
    })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_is_ordered_when_the_acme_server_is_there_and_kept() {
    let Some(stage) = Stage::new() else { return };
    let domains = ["--acme-domain", "a.example,B.example"];
    let own = ["--tls-cert", "own.pem", "--tls-key", "own.key"];
    let server = stage.serve(&[&domains[..], &own].concat());
    let reason = says(&server, &["no certificate for a.example", "Connection refused"]);
    assert!(reason.contains(&stage.url()) && reason.contains("--acme-directory"), "{reason}");
    // What is there is served all the same.
    assert_eq!(stage.get(&server, "own.example", "own.pem").as_deref(), Some(&b"content"[..]));

    let pebble = stage.pebble(server.address().port(), "");
    kill_process(server.pid(), Signal::HUP).unwrap();
    stage.waits_for_certificate(&server, "a.example");
    stage.waits_for_certificate(&server, "b.example");
    assert_eq!(pebble.lines("There are now 1 accounts"), 1);
    assert_eq!(pebble.lines("Issued certificate"), 2);
    let kept = stage.kept();
    assert_eq!([&kept, &stage.path("state/acme")].map(|path| mode(path)), [0o700; 2]);
    let files = ["account.json", "a.example.pem", "b.example.pem"].map(|name| kept.join(name));
    assert_eq!([0, 1, 2].map(|at| mode(&files[at])), [0o600; 3]);
    server.finish();

    let orders = pebble.lines("POST /order-plz");
    let again = stage.serve(&domains);
    let shown = again.banner().into_iter().filter(|line| line.starts_with("certificate for"));
    assert_eq!(shown.filter(|line| line.contains("valid until")).count(), 2);
    assert_eq!(stage.get(&again, "b.example", "root.pem").as_deref(), Some(&b"content"[..]));
    again.finish();
    assert_eq!(pebble.lines("POST /order-plz"), orders, "what is kept is not ordered");
}

#[test]
fn it_is_replaced_before_it_ends() {
    let Some(stage) = Stage::new() else { return };
    let server = stage.serve(&["--acme-domain", "a.example", "--admin", "0"]);
    says(&server, &["no certificate for a.example"]);
    // Each is to be replaced after some six seconds.
    let _pebble = stage.pebble(server.address().port(), ", \"certificateValidityPeriod\": 9");
    kill_process(server.pid(), Signal::HUP).unwrap();
    stage.waits_for_certificate(&server, "a.example");
    let expires = |at: usize| {
        wait_until("a certificate", || {
            let lines = server.raw_log().all();
            let mut ends = lines.iter().filter_map(|line| line.split("valid until ").nth(1));
            ends.nth(at).and_then(|end| end.split(',').next().map(str::to_owned))
        })
    };
    let (first, second) = (expires(0), expires(1));
    assert!(first < second, "{first} {second}");
    stage.waits_for_certificate(&server, "a.example");
    let banner = server.banner();
    let admin = banner.iter().find_map(|line| line.strip_prefix("admin: ")).unwrap();
    let metrics = curl(&["--fail", &format!("{}/metrics", admin.trim_end_matches('/'))]).stdout;
    let metrics = String::from_utf8(metrics).unwrap();
    let sample = "pagewire_certificate_expiration_timestamp_seconds{name=\"a.example\"} ";
    let end = metrics.lines().find_map(|line| line.strip_prefix(sample)).unwrap();
    assert!(end.parse::<u64>().unwrap() > 1_600_000_000, "{end}");
}

#[test]
fn a_reload_changes_the_names() {
    let Some(stage) = Stage::new() else { return };
    let file = stage.path("pagewire.toml");
    fs::write(&file, "acme-domain = 'a.example'").unwrap();
    let server = stage.serve(&["--config", "pagewire.toml"]);
    let banner = server.banner();
    assert!(banner.iter().any(|line| line.contains("no --listen has port 443")), "{banner:#?}");
    says(&server, &["no certificate for a.example"]);
    let pebble = stage.pebble(server.address().port(), "");
    fs::write(&file, "acme-domain = ['a.example', 'b.example']").unwrap();
    says(&server, &["reloaded: certificates by ACME are for a.example, b.example"]);
    stage.waits_for_certificate(&server, "a.example");
    stage.waits_for_certificate(&server, "b.example");
    assert_eq!(pebble.lines("Issued certificate"), 2);
}

#[test]
fn what_the_acme_server_refuses_is_said() {
    let Some(stage) = Stage::new() else { return };
    // There nobody proves anything.
    let [elsewhere] = free();
    let pebble = stage.pebble(elsewhere.port(), "");
    let own = ["--tls-cert", "own.pem", "--tls-key", "own.key"];
    let mut server = stage.serve(&[&["--acme-domain", "a.example"], &own[..]].concat());
    let reason = says(&server, &["no certificate for a.example", "the proof was refused"]);
    assert!(reason.contains("port 443 of a.example"), "{reason}");
    assert_eq!(stage.get(&server, "own.example", "own.pem").as_deref(), Some(&b"content"[..]));

    // Another ACME server at the same place, which knows no accounts.
    drop(pebble);
    let pebble = stage.pebble(server.address().port(), "");
    kill_process(server.pid(), Signal::HUP).unwrap();
    says(&server, &["accountDoesNotExist", "another account is made"]);
    kill_process(server.pid(), Signal::HUP).unwrap();
    stage.waits_for_certificate(&server, "a.example");
    assert_eq!(pebble.lines("Issued certificate"), 1);

    // Nobody else is shown a proof, nor anything in its place.
    let address = server.address().to_string();
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-alpn", "acme-tls/1"]);
    let output = command.args(["-servername", "a.example"]).stdin(Stdio::null()).output();
    let said = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    assert!(said.contains("access denied"), "{said}");
    server.interrupt();
    server.totals();
    let banner = server.banner();
    assert!(banner.iter().any(|line| line.contains("1 no certificate")), "{banner:#?}");
}

#[test]
fn what_cannot_be_is_said_at_start() {
    let dir = plain_dir();
    let state = dir.path().join("state");
    fs::write(&state, "").unwrap();
    let (site, state) = (dir.path().to_str().unwrap(), state.to_str().unwrap());
    for (arguments, expected) in [
        (&["--acme-contact", "a@b.example"][..], "--acme-contact without --acme-domain"),
        (&["--acme-domain", "*.a.example"], "--tls-cert"),
        (&["--acme-domain", "192.0.2.1"], "a host's name"),
        (&["--acme-domain", "a.example", "--tls-self-signed"], "cannot be used with"),
        (&["--acme-domain", "a", "--acme-directory", "http://a/"], "https://"),
        (&["--acme-domain", "a", "--acme-contact", "nobody"], "e-mail"),
        (&["--acme-domain", "a", "--state-dir", state], "cannot write"),
    ] {
        let output = pagewire(&["serve", site, "--check"]).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
}
