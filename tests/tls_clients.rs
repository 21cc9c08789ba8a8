//! TLS by the libraries that clients have (OpenSSL, Python's ssl, Chromium, Java): every version
//! and cipher, resumption, half-close, new keys, and clients that stop in the middle.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

use super::clients::{run, sha256, told_by_chromium};
use super::support::{
    MIB, Outcome, Peer, Server, curl, curl_command, is_there, need, noise, plain_dir, skip,
    wait_until,
};
use super::vm::target;

/// As `tests/tls_client.py` has it, too.
const LARGE: usize = 3_000_001;

/// By OpenSSL's names.
const SUITES: [[&str; 3]; 6] = [
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
];

/// A server with a certificate of its own, and what it serves.
struct Site {
    dir: TempDir,
    state: TempDir,
    server: Server,
    large: Vec<u8>,
}

impl Site {
    fn new(more: &[&str]) -> Site {
        let (dir, state) = (plain_dir(), plain_dir());
        let large = noise(LARGE as u64, 31);
        fs::write(dir.path().join("large"), &large).unwrap();
        fs::write(dir.path().join("small"), "content").unwrap();
        fs::File::create(dir.path().join("huge")).unwrap().set_len(64 * MIB).unwrap();
        let flags = ["--tls-self-signed", "--admin", "0", "--state-dir"];
        let flags = [&flags[..], &[state.path().to_str().unwrap()], more].concat();
        let server = Server::start(dir.path(), &flags);
        Site { dir, state, server, large }
    }

    fn authority(&self) -> PathBuf {
        self.state.path().join("self-signed.pem")
    }

    fn port(&self) -> String {
        self.server.address().port().to_string()
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("localhost:{}", self.port())]);
        command.args(["-4", "-servername", "localhost", "-verify_return_error", "-CAfile"]);
        command.arg(self.authority());
        command
    }

    /// One case of `tests/tls_client.py`.
    #[track_caller]
    fn python(&self, case: &str, address: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls_client.py");
        run(Command::new("python3")
            .args([script, case])
            .arg(self.authority())
            .arg(address)
            .env_remove("SSL_CERT_FILE"));
    }

    /// A sample of the metrics; none where it is not there.
    fn metric(&self, name: &str) -> Option<u64> {
        let banner = self.server.banner();
        let admin = banner.iter().find_map(|line| line.strip_prefix("admin: http://")).unwrap();
        let admin: SocketAddr = admin.trim_end_matches('/').parse().unwrap();
        let mut peer = Peer::connect(admin);
        peer.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let page = String::from_utf8(peer.answer().body).unwrap();
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn failed(&self, reason: &str) -> Option<u64> {
        self.metric(&format!("pagewire_tls_failed_total{{reason=\"{reason}\"}}"))
    }

    /// Answers logged for `target`, which a query tells apart.
    fn logged(&self, target: &str) -> usize {
        self.server.log_lines().iter().filter(|line| line.target == target).count()
    }
}

/// `openssl s_client`, spoken to as by hand: a line that begins with a command is one.
struct Talk {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: PathBuf,
}

impl Talk {
    fn start(site: &Site, command: &mut Command) -> Talk {
        let stderr = site.state.path().join("stderr");
        command.stderr(fs::File::create(&stderr).unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Talk { child, stdin, stdout: BufReader::new(stdout), stderr }
    }

    fn say(&mut self, words: &str) {
        self.stdin.write_all(words.as_bytes()).unwrap();
    }

    fn ask(&mut self, target: &str, fields: &str) {
        self.say(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    }

    /// The body of an answer of 200.
    #[track_caller]
    fn answer(&mut self) -> Vec<u8> {
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "{head}");
            head.push_str(&line);
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; len.parse().unwrap()];
        self.stdout.read_exact(&mut body).unwrap();
        body
    }

    /// New keys by a command, once it has read that: it drops what follows in the same read.
    fn change_keys(&mut self, command: &str, times: usize) {
        self.say(command);
        let said = || fs::read_to_string(&self.stderr).unwrap().matches("KEYUPDATE").count();
        wait_until("new keys", || (said() == times).then_some(()));
    }

    /// Its status, the rest of stdout, and stderr, when the server has ended the connection.
    fn end(mut self) -> (ExitStatus, String, String) {
        let mut rest = Vec::new();
        while let piece @ [_, ..] = self.stdout.fill_buf().unwrap() {
            rest.extend_from_slice(piece);
            let len = piece.len();
            self.stdout.consume(len);
        }
        drop(self.stdin);
        let status = self.child.wait().unwrap();
        (status, text(&rest), fs::read_to_string(&self.stderr).unwrap())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn openssl_downloads_by_every_version_and_cipher() {
    if !need("openssl") {
        return;
    }
    let site = Site::new(&[]);
    let messages = site.state.path().join("messages");
    for suite in SUITES {
        let mut command = site.openssl();
        command.args(suite).args(["-brief", "-msg", "-msgfile"]).arg(&messages);
        let mut talk = Talk::start(&site, &mut command);
        let target = format!("/large?{}", suite[2]);
        talk.ask(&target, "Connection: close\r\n");
        let body = talk.answer();
        assert!(body == site.large, "{suite:?}: {} bytes", body.len());
        let (_, rest, summary) = talk.end();
        assert!(rest.is_empty() && summary.contains(suite[2]), "{summary}");
        let said = fs::read_to_string(&messages).unwrap();
        let from_server = |line: &&str| line.starts_with("<<<") && line.contains("close_notify");
        assert_eq!(said.lines().filter(from_server).count(), 1, "{suite:?}: {said}");
        site.server.log_line_for(&target).assert_complete(LARGE as u64);
    }
    assert_eq!(site.server.finish().responses, 6);
}

#[test]
fn openssl_changes_keys_between_and_within_answers() {
    if !need("openssl") {
        return;
    }
    // Slow enough for a command to be read while there is more to come.
    let site = Site::new(&["--limit-rate", "2M"]);
    let mut talk = Talk::start(&site, site.openssl().args(SUITES[0]).arg("-brief"));
    let mut times = 0;
    // The capital asks for new keys of the server, too.
    for command in ["K\n", "k\n"] {
        talk.ask(&format!("/large?{times}"), "");
        assert!(!talk.stdout.fill_buf().unwrap().is_empty());
        times += 1;
        talk.change_keys(command, times);
        assert!(talk.answer() == site.large, "{command}");
        times += 1;
        talk.change_keys(command, times);
    }
    talk.ask("/small", "Connection: close\r\n");
    assert_eq!(talk.answer(), b"content");
    let (status, rest, said) = talk.end();
    assert!(status.success() && rest.is_empty(), "{said}");
    assert_eq!(site.server.finish().aborted, 0);
}

/// Also on a connection that is parked: there the refusal was once kept until the next answer, so
/// that the client waited.
#[test]
fn openssl_may_not_negotiate_anew() {
    if !need("openssl") {
        return;
    }
    let site = Site::new(&[]);
    for seconds in [0, 3] {
        let mut talk = Talk::start(&site, site.openssl().args(SUITES[3]).arg("-brief"));
        talk.ask("/large", "");
        assert!(talk.answer() == site.large);
        let pause = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let mut silent = [PollFd::new(talk.stdout.get_ref(), PollFlags::IN)];
        assert_eq!(poll(&mut silent, Some(&pause)).unwrap(), 0, "nothing was asked");
        talk.say("R\n");
        let (status, rest, said) = talk.end();
        assert!(!status.success() && rest.is_empty(), "{said}");
        assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    }
    assert_eq!(site.server.finish().aborted, 0);
}

#[test]
fn openssl_resumes_sessions() {
    if !need("openssl") {
        return;
    }
    let site = Site::new(&[]);
    for suite in [SUITES[0], SUITES[3]] {
        let session = site.state.path().join("session");
        for (flag, expected) in [("-sess_out", "New, TLSv1."), ("-sess_in", "Reused, TLSv1.")] {
            let mut talk = Talk::start(&site, site.openssl().args(suite).arg(flag).arg(&session));
            talk.ask("/small", "Connection: close\r\n");
            let (_, said, _) = talk.end();
            assert!(said.contains(expected) && said.contains("\r\n\r\ncontent"), "{said}");
        }
    }
    assert_eq!(site.metric("pagewire_tls_handshakes_total "), Some(4));
    assert_eq!(site.metric("pagewire_tls_resumed_total "), Some(2));
}

#[test]
fn python_resumes_half_closes_and_leaves() {
    if !need("python3") {
        return;
    }
    let site = Site::new(&[]);
    site.python("resume", &site.port());
    assert_eq!(site.metric("pagewire_tls_resumed_total "), Some(4));
    site.python("half_close", &site.port());
    site.python("unread", &site.port());
    let cut = site.server.log_line_for("/huge");
    assert_ne!(cut.outcome, Outcome::Complete, "{cut:?}");
    wait_until("two whole answers", || (site.logged("/large?half") == 2).then_some(()));
    assert_eq!(site.server.finish().aborted, 1);
}

/// Records are sealed from where a file is mapped: what is cut away under the cipher is SIGBUS,
/// which must end no more than this response.
#[test]
fn a_file_that_is_cut_under_the_cipher() {
    const ROUNDS: u64 = 12;
    let site = Site::new(&[]);
    let (path, content) = (site.dir.path().join("cut"), noise(24 * MIB, 37));
    for round in 1..=ROUNDS {
        fs::write(&path, &content).unwrap();
        let url = format!("https://localhost:{}/cut", site.port());
        let mut command = curl_command(&["--http1.1", &url, "--cacert"]);
        let command = command.arg(site.authority()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut curl = command.spawn().unwrap();
        let mut stdout = curl.stdout.take().unwrap();
        let mut got = vec![0; usize::try_from(round * MIB / 2).unwrap()];
        stdout.read_exact(&mut got).unwrap();
        // Behind what has left, which is not known: at a page, and within one.
        let cut = (12 + round) * MIB + round % 2 * 1000;
        fs::File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
        curl.stdout = Some(stdout);
        let rest = curl.wait_with_output().unwrap();
        got.extend(&rest.stdout);
        assert!(content.starts_with(&got), "{round}: not the file's");
        let whole = rest.status.success();
        assert_eq!(whole, got.len() == content.len(), "{round}: {} bytes", got.len());
        let lines = wait_until("a log line", || {
            Some(site.server.log_lines()).filter(|lines| lines.len() as u64 == round)
        });
        if !whole {
            let reason = lines.last().unwrap().reason();
            assert!(reason.contains(&cut.to_string()), "{round}: no {cut} in {reason:?}");
        }
    }
    let url = format!("https://localhost:{}/small", site.port());
    let authority = site.authority();
    assert_eq!(curl(&["--cacert", authority.to_str().unwrap(), &url]).stdout, b"content");
    assert!(site.server.log_lines().iter().any(|line| line.outcome != Outcome::Complete));
}

/// A parked TLS connection was once given the bytes of its next request twice.
#[test]
fn each_request_of_a_parked_connection_is_answered_and_logged_once() {
    if !need("python3") {
        return;
    }
    let site = Site::new(&[]);
    site.python("parked", &site.port());
    for target in ["/small?TLSv1_2", "/small?TLSv1_3"] {
        wait_until("four lines", || (site.logged(target) == 4).then_some(()));
    }
    let (dir, state) = (site.dir, site.state);
    let totals = site.server.finish();
    assert_eq!((totals.responses, totals.aborted, totals.connections), (8, 0, 2));
    drop((dir, state));
}

#[test]
fn tls_over_a_unix_socket() {
    if !need("python3") {
        return;
    }
    let place = plain_dir();
    let path = place.path().join("socket");
    let unix = format!("unix:{}", path.display());
    let site = Site::new(&["--listen", "127.0.0.1:0", "--listen", &unix]);
    site.python("whole", path.to_str().unwrap());
    site.server.log_line_for("/large?unix").assert_complete(LARGE as u64);
}

/// Who says nothing, or half of a ClientHello, is let go after the deadline, and is counted.
#[test]
fn a_handshake_has_a_deadline() {
    let site = Site::new(&[]);
    let mut silent = Peer::connect(site.server.address());
    let mut half = Peer::connect(site.server.address());
    half.send(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]);
    assert_eq!((silent.rest(), half.rest()), (Vec::new(), Vec::new()));
    wait_until("the counts", || (site.failed("too slow") == Some(2)).then_some(()));
    wait_until("no connection", || (site.metric("pagewire_connections ") == Some(0)).then_some(()));
}

#[test]
fn failed_handshakes_are_counted_by_reason() {
    if !need("openssl") {
        return;
    }
    let site = Site::new(&[]);
    let address = site.server.address();
    drop(TcpStream::connect(address).unwrap());
    let mut plain = Peer::connect(address);
    plain.get("/small");
    plain.rest();
    // Its only cipher is none of ours; and it does not trust our certificate.
    let refused = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address.to_string()]).args(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
    };
    refused(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"]);
    refused(&["-tls1_2", "-verify_return_error"]);
    for reason in ["closed by peer", "not TLS", "nothing in common", "alert from peer"] {
        wait_until(reason, || (site.failed(reason) == Some(1)).then_some(()));
    }
    let url = format!("https://{address}/small");
    assert_eq!(curl(&["--insecure", &url]).stdout, b"content", "others are served");
}

/// Each is answered by an alert, where rustls has one for it, and the end; each is counted.
#[test]
fn malformed_handshakes_are_refused() {
    let python = target().join("python");
    if !need("python3") {
        return;
    }
    if !python.join("tlslite").is_dir() {
        return skip("no tlslite-ng in the build directory (scripts/test puts it there)");
    }
    let site = Site::new(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls_malformed.py");
    let mut command = Command::new("python3");
    let output = run(command.args([script, &site.port()]).env("PYTHONPATH", python));
    let said = text(&output.stdout);
    let count = said.lines().count();
    assert_eq!(count, 21, "{said}");
    for line in said.lines() {
        // To an alert there is no answer; and who sends on may lose it to a reset.
        let may_hear_nothing = ["unknown alert", "message of 16 MiB", "record of 65535 bytes"];
        let silent = line.ends_with(": nothing");
        assert!(!silent || may_hear_nothing.iter().any(|name| line.starts_with(name)), "{line}");
    }
    for (case, alert) in [
        ("data first", "10"),
        ("hello that is cut", "50"),
        ("no common cipher", "40"),
        ("TLS 1.1", "40"),
        ("SSLv3", "40"),
        ("version to come only", "70"),
        ("garbage behind the hello", "sealed sealed"),
    ] {
        let expected = [format!("{case}: {alert}"), format!("{case} {alert}")];
        assert!(said.lines().any(|line| expected.iter().any(|one| line == one)), "{case}: {said}");
    }
    let reasons = ["not TLS", "misbehaved", "nothing in common", "alert from peer"];
    wait_until("the counts", || {
        let counts = reasons.map(|reason| site.failed(reason).unwrap_or_default());
        (counts.iter().sum::<u64>() == count as u64).then_some(())
    });
    assert_eq!(site.failed("other"), None);
    let url = format!("https://{}/small", site.server.address());
    assert_eq!(curl(&["--insecure", &url]).stdout, b"content", "others are served");
}

/// A page that fetches two files and tells how long the large one is, and by which protocol.
const PAGE: &str = "<script>
    Promise.all(['small', 'large'].map((name) => fetch(name).then((got) => got.blob())))
        .then((got) => {
            const by = performance.getEntriesByType('resource').map((one) => one.nextHopProtocol);
            new Image().src = '/told-' + got.map((one) => one.size).join('-') + '-' + by[0];
        }, (why) => { new Image().src = '/told-' + why; });
</script>";

#[test]
fn chromium_reads_a_page() {
    if !need("chromium") {
        return;
    }
    let site = Site::new(&[]);
    fs::write(site.dir.path().join("index.html"), PAGE).unwrap();
    let url = format!("https://localhost:{}/", site.port());
    let told = told_by_chromium(&site.server, &url, &["--ignore-certificate-errors"]);
    assert_eq!(told, format!("/told-7-{LARGE}-h2"));
}

#[test]
fn java_downloads_by_every_version_and_cipher() {
    // Too large to be installed for this.
    if !is_there("java") {
        return;
    }
    let site = Site::new(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls_client.java");
    let url = format!("https://localhost:{}/large", site.port());
    let output = run(Command::new("java").arg(script).arg(site.authority()).arg(url));
    let said = text(&output.stdout);
    let sum = sha256(&site.large);
    assert_eq!(said.lines().count(), 12, "{said}");
    for (line, suite) in said.lines().zip(SUITES.iter().flat_map(|suite| [suite, suite])) {
        let version = if suite[0] == "-tls1_3" { "TLSv1.3 " } else { "TLSv1.2 " };
        assert!(line.starts_with(version), "{line}");
        assert!(line.ends_with(&format!(" {LARGE} {sum}")), "{line}");
    }
    assert_eq!(site.metric("pagewire_tls_resumed_total "), Some(6));
}
