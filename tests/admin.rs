//! `--admin`: metrics that Prometheus reads and that agree with what was served, health, and the
//! live page in a browser.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{
    Answer, Lines, MIB, Peer, Server, curl, need, noise, pagewire, plain_dir, skip, wait_until,
};

const LARGE: u64 = 32 * MIB;

/// A server of one large and one small file, with admin pages.
struct Fixture {
    _dir: tempfile::TempDir,
    server: Server,
    admin: SocketAddr,
}

impl Fixture {
    fn new(arguments: &[&str]) -> Fixture {
        let dir = plain_dir();
        fs::write(dir.path().join("large.bin"), noise(LARGE, 1)).unwrap();
        fs::write(dir.path().join("small.txt"), "content").unwrap();
        let server = Server::start(dir.path(), &[&["--admin", "0"], arguments].concat());
        let banner = server.banner();
        let admin = banner.iter().find_map(|line| line.strip_prefix("admin: http://"));
        let admin = admin.unwrap().trim_end_matches('/').parse().unwrap();
        Fixture { _dir: dir, server, admin }
    }

    fn ask(&self, target: &str) -> Answer {
        let mut peer = Peer::connect(self.admin);
        peer.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        peer.answer()
    }

    fn text(&self, target: &str) -> String {
        let answer = self.ask(target);
        assert_eq!(answer.head.status, 200, "{target}");
        String::from_utf8(answer.body).unwrap()
    }

    fn live(&self) -> Value {
        serde_json::from_str(&self.text("/live.json")).unwrap()
    }

    fn get(&self, target: &str) -> Answer {
        let mut peer = Peer::connect(self.server.address());
        peer.get(target);
        peer.answer()
    }

    /// A download of the large file that goes on.
    fn slow(&self) -> Peer {
        let mut peer = Peer::with_receive_buffer(self.server.address(), 16 << 10);
        peer.get("/large.bin");
        assert_eq!(peer.head().status, 200);
        peer.body(1 << 20);
        peer
    }
}

/// The samples of a page of metrics, by name and labels. Panics where the format is not kept.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family: Option<(&str, Option<&str>)> = None;
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty(), "{line}");
            family = Some((name, None));
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(family, Some((name, None)), "HELP comes before TYPE: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = Some((name, Some(kind)));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let (of, kind) = family.unwrap();
            let kind = kind.unwrap_or_else(|| panic!("no TYPE: {line}"));
            let suffix = name.strip_prefix(of).unwrap_or_else(|| panic!("{of}: {line}"));
            let suffixes = ["_bucket", "_sum", "_count"];
            assert!(if kind == "histogram" {
                suffixes.contains(&suffix)
            } else {
                suffix.is_empty()
            });
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            let twice = samples.insert(series.to_owned(), value.parse().unwrap());
            assert_eq!(twice, None, "{line}");
        }
    }
    samples
}

#[test]
fn metrics_are_prometheus_and_agree_with_what_was_served() {
    let fixture = Fixture::new(&[]);
    assert_eq!(fixture.get("/large.bin").body.len() as u64, LARGE);
    for _ in 0..3 {
        assert_eq!(fixture.get("/small.txt").head.status, 200);
    }
    assert_eq!(fixture.get("/missing").head.status, 404);
    let page = wait_until("five responses", || {
        let page = fixture.text("/metrics");
        let ended =
            |class| samples(&page)[&format!("pagewire_responses_total{{class=\"{class}\"}}")];
        (ended("2xx") + ended("4xx") >= 5.0).then_some(page)
    });
    let samples = samples(&page);
    #[expect(clippy::cast_precision_loss, reason = "it is a power of two")]
    let large = LARGE as f64;
    let sent = |route: &str| samples[&format!("pagewire_sent_bytes_total{{route=\"{route}\"}}")];
    let by_file = ["sendfile", "splice", "mmap-write", "read-write"].map(sent);
    assert!(by_file.iter().sum::<f64>() >= large + 21.0, "{page}");
    assert!(sent("sendfile") >= large, "{page}");
    assert_eq!(samples["pagewire_user_copied_bytes_total{route=\"sendfile\"}"], 0.0);
    assert_eq!(samples["pagewire_responses_total{class=\"2xx\"}"], 4.0);
    assert_eq!(samples["pagewire_responses_total{class=\"4xx\"}"], 1.0);
    assert_eq!(samples["pagewire_connections_total"], 5.0);
    assert_eq!(samples["pagewire_response_seconds_count"], 5.0);
    assert_eq!(samples["pagewire_response_seconds_bucket{le=\"+Inf\"}"], 5.0);
    assert!(samples["process_open_fds"] > 3.0 && samples["process_resident_memory_bytes"] > 1e6);
    assert_eq!(samples["pagewire_refused_total{reason=\"address\"}"], 0.0);
    // As promtool has it: buckets only ever rise.
    let bounds = page.lines().filter(|line| line.starts_with("pagewire_first_byte_seconds_bucket"));
    let counts: Vec<f64> =
        bounds.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(counts.len() > 10 && counts.is_sorted(), "{counts:?}");
}

/// Prints the families that Prometheus's own Python client reads from standard input.
const READ_METRICS: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation and family.samples, family
    for sample in family.samples:
        print(family.type, sample.name, sample.value)
";

#[test]
fn metrics_are_read_by_the_client_library_of_prometheus() {
    // The distribution's own has the distribution's modules.
    let has_it = |python: &&&str| {
        let mut command = Command::new(python);
        let imported = command.args(["-c", "import prometheus_client"]).output();
        imported.is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].iter().find(has_it) else {
        return skip("the Python module prometheus_client is missing (scripts/test installs it)");
    };
    let fixture = Fixture::new(&[]);
    assert_eq!(fixture.get("/small.txt").head.status, 200);
    let page = fixture.text("/metrics");
    let mut command = Command::new(python);
    command.args(["-c", READ_METRICS]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let read = String::from_utf8(output.stdout).unwrap();
    assert_eq!(read.lines().count(), samples(&page).len(), "{read}");
    for line in read.lines() {
        let (kind, sample) = line.split_once(' ').unwrap();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        assert_eq!(kind == "counter", sample.contains("_total "), "{line}");
    }
}

#[test]
fn metrics_count_handshakes() {
    if !need("curl") {
        return;
    }
    let state = plain_dir();
    let state = state.path().to_str().unwrap();
    let fixture = Fixture::new(&["--tls-self-signed", "--state-dir", state]);
    let url = format!("https://{}/small.txt", fixture.server.address());
    assert_eq!(curl(&["--insecure", &url]).stdout, b"content");
    // Plain text is no ClientHello.
    let mut peer = Peer::connect(fixture.server.address());
    peer.get("/small.txt");
    peer.rest();
    let samples = wait_until("the failed handshake", || {
        let samples = samples(&fixture.text("/metrics"));
        samples.contains_key("pagewire_tls_failed_total{reason=\"not TLS\"}").then_some(samples)
    });
    assert_eq!(samples["pagewire_tls_handshakes_total"], 1.0);
    assert_eq!(samples["pagewire_tls_resumed_total"], 0.0);
    assert_eq!(samples["pagewire_tls_failed_total{reason=\"not TLS\"}"], 1.0);
}

#[test]
fn a_transfer_is_seen_while_it_is_under_way() {
    let fixture = Fixture::new(&[]);
    let peer = fixture.slow();
    // A step is counted when it is over, and its bytes may have been read before that.
    let live = wait_until("what the client has read to be counted", || {
        let live = fixture.live();
        (live["transfers"][0]["sent"].as_u64()? >= 1 << 20).then_some(live)
    });
    let transfer = &live["transfers"][0];
    assert_eq!(transfer["target"], "/large.bin");
    assert_eq!(transfer["route"], "sendfile");
    assert!(transfer["sent"].as_u64().unwrap() < LARGE, "{transfer}");
    assert_eq!(transfer["due"], LARGE);
    assert_eq!((&live["transfers_now"], &live["responses"]["in_flight"]), (&1.into(), &1.into()));
    peer.reset();
    wait_until("the transfer to go", || (fixture.live()["transfers_now"] == 0).then_some(()));
    let live = fixture.live();
    assert_eq!(
        (&live["responses"]["aborted"], &live["connections"]["now"]),
        (&1.into(), &0.into())
    );
    assert_eq!(live["hottest"][0]["path"], "/large.bin");
}

#[test]
fn health_changes_when_the_server_stops() {
    let mut fixture = Fixture::new(&[]);
    assert_eq!(fixture.ask("/healthz").head.status, 200);
    let mut peer = fixture.slow();
    fixture.server.interrupt();
    wait_until("503", || (fixture.ask("/healthz").head.status == 503).then_some(()));
    assert_eq!(fixture.live()["stopping"], true);
    assert_eq!(peer.rest().len() as u64, LARGE - (1 << 20));
    assert_eq!(fixture.server.totals().aborted, 0);
}

#[test]
fn it_answers_when_the_server_is_full_and_not_to_pages_of_others() {
    let fixture = Fixture::new(&["--max-connections", "1"]);
    let _busy = fixture.slow();
    assert_eq!(fixture.live()["connections"]["now"], 1);
    let mut peer = Peer::connect(fixture.admin);
    peer.send(b"GET /live.json HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(peer.answer().head.status, 403);
    let mut peer = Peer::connect(fixture.admin);
    peer.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(peer.answer().head.status, 405);
    assert_eq!(fixture.ask("/nothing").head.status, 404);
    let page = fixture.ask("/");
    let policy = page.head.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}

#[test]
fn a_socket_of_the_admin_pages_is_its_owners_and_goes_with_the_server() {
    if !need("curl") {
        return;
    }
    let (dir, run) = (plain_dir(), plain_dir());
    let path = run.path().join("admin.sock");
    // As a killed server leaves it.
    drop(UnixListener::bind(&path).unwrap());
    let place = path.to_str().unwrap();
    for (asked, mode) in [(place.to_owned(), 0o600), (format!("unix:{place}:660"), 0o660)] {
        let server = Server::start(dir.path(), &["--admin", &asked]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{asked}");
        let health = curl(&["--unix-socket", place, "http://localhost/healthz"]).stdout;
        assert_eq!(health, b"serving\n");
        let mut second = pagewire(&["serve", "--listen", "127.0.0.1:0", "--admin", &asked]);
        let second = second.arg(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success() && said.contains(place), "{said}");
        server.finish();
        assert!(!path.exists(), "{asked}");
    }
}

#[test]
fn the_live_page_moves_in_a_browser() {
    if !need("chromium") {
        return;
    }
    let fixture = Fixture::new(&[]);
    let _slow = fixture.slow();
    let profile = plain_dir();
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update"]);
    chromium.args(["--disable-sync", "--virtual-time-budget=4000", "--dump-dom"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.arg(format!("http://{}/", fixture.admin));
    let mut child = chromium.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = Lines::collect(child.stdout.take().unwrap());
    assert!(wait_until("chromium", || child.try_wait().unwrap()).success());
    let page = wait_until("the page's end", || {
        let page = lines.all().join("\n");
        page.contains("</html>").then_some(page)
    });
    for piece in ["id=\"said\">serving<", "/large.bin", "class=\"r-sendfile\"", "1&nbsp;of"] {
        let piece = piece.replace("1&nbsp;of", "1 of more than 1");
        assert!(page.contains(&piece), "{piece} in {page}");
    }
}
