//! HTTPS by real clients: versions, ALPN, SNI, reload, redirect, and what is refused.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};

use super::support::{MIB, Peer, Server, curl, digest, need, noise, plain_dir, wait_until};

/// A certificate for `names` and its key, by openssl.
pub(super) fn make_certificate(dir: &Path, file: &str, names: &str) -> (PathBuf, PathBuf) {
    let (chain, key) = (dir.join(format!("{file}.pem")), dir.join(format!("{file}.key")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", &format!("/CN={file}")]);
    command.args(["-addext", &format!("subjectAltName={names}")]);
    let made = command.arg("-out").arg(&chain).arg("-keyout").arg(&key).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (chain, key)
}

/// Serves `dir` by HTTPS, with a certificate of its own that is kept in `state`.
fn self_signed(dir: &Path, state: &Path, more: &[&str]) -> Server {
    let state = state.to_str().unwrap();
    Server::start(dir, &[&["--tls-self-signed", "--state-dir", state], more].concat())
}

fn https(server: &Server, target: &str) -> String {
    format!("https://localhost:{}{target}", server.address().port())
}

#[test]
fn curl_downloads_by_every_version() {
    let (dir, state) = (plain_dir(), plain_dir());
    let content = noise(3 * MIB + 5, 21);
    fs::write(dir.path().join("file"), &content).unwrap();
    let server = self_signed(dir.path(), state.path(), &[]);
    let authority = state.path().join("self-signed.pem");
    let authority = authority.to_str().unwrap();
    for (tls, max) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
        for (http, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let target = format!("/file?{max}-{version}");
            let url = https(&server, &target);
            let common = [tls, "--tls-max", max, http, "--cacert", authority, "--fail", &url];
            let body = curl(&common).stdout;
            assert_eq!(digest(&body), digest(&content), "{target}");
            server.log_line_for(&target).assert_complete(content.len() as u64);
            let part = curl(&[&common[..], &["-r", "100000-300000"]].concat()).stdout;
            assert!(part == content[100_000..=300_000], "{target}");
            let asked = ["--output", "/dev/null", "-w", "%{http_version}"];
            let said = curl(&[&common[..], &asked].concat()).stdout;
            assert_eq!(String::from_utf8(said).unwrap(), version, "{target}");
        }
    }
    let totals = server.finish();
    assert_eq!((totals.responses, totals.aborted), (12, 0));
}

#[test]
fn the_fast_lane_says_what_hyper_says() {
    let (dir, state) = (plain_dir(), plain_dir());
    let lines = [("empty", 0), ("page.html", 300), ("odd", 5_001), ("most", 69_000)];
    for (name, lines) in lines {
        // Text, so that heads and bodies can be told apart by lines.
        fs::write(dir.path().join(name), "0123456789abcd\n".repeat(lines)).unwrap();
    }
    let server = self_signed(dir.path(), state.path(), &[]);
    let authority = state.path().join("self-signed.pem");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let max = version.strip_prefix("--tlsv").unwrap();
        let [lane, hyper] = ["Accept: */*", "X-Other: field"].map(|field| {
            let mut arguments = vec![version, "--tls-max", max, "--http1.1", "-i", "-H", field];
            arguments.extend(["--cacert", authority.to_str().unwrap()]);
            arguments.extend(["-w", "%{stderr}%{num_connects}"]);
            let urls = lines.map(|(name, _)| https(&server, &format!("/{name}")));
            arguments.extend(urls.iter().map(String::as_str));
            let output = curl(&arguments);
            assert_eq!(String::from_utf8(output.stderr).unwrap(), "1000", "{version}");
            let said = String::from_utf8(output.stdout).unwrap();
            let kept = said.lines().filter(|line| !line.starts_with("date: "));
            let mut kept: Vec<String> = kept.map(str::to_owned).collect();
            kept.sort();
            kept
        });
        assert!(lane.iter().filter(|line| line.starts_with("HTTP/1.1 200")).count() == 4);
        assert!(lane == hyper, "{version}");
    }
    let totals = server.finish();
    assert_eq!((totals.responses, totals.connections, totals.aborted), (16, 4, 0));
}

#[test]
fn the_name_chooses_the_certificate_and_reload_changes_it() {
    if !need("openssl") {
        return;
    }
    let (dir, certs) = (plain_dir(), plain_dir());
    let content = noise(4 * MIB, 22);
    fs::write(dir.path().join("file"), &content).unwrap();
    let (a, a_key) = make_certificate(certs.path(), "a", "DNS:a.example,DNS:localhost");
    let (b, b_key) = make_certificate(certs.path(), "b", "DNS:b.example");
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let pairs = [text(&a), text(&a_key), text(&b), text(&b_key)];
    let server = Server::start(
        dir.path(),
        &[
            "--tls-cert",
            &pairs[0],
            "--tls-key",
            &pairs[1],
            "--tls-cert",
            &pairs[2],
            "--tls-key",
            &pairs[3],
        ],
    );
    let port = server.address().port();
    let works = |name: &str, authority: &PathBuf| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--max-time", "20", "--cacert"]);
        command.arg(authority).args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
        let output = command.arg(format!("https://{name}:{port}/file?{name}")).output().unwrap();
        output.status.success() && output.stdout.len() == content.len()
    };
    assert!(works("a.example", &a) && works("b.example", &b));
    assert!(!works("b.example", &a), "that is another certificate");

    // A download that is held until the certificate is another one.
    let old = certs.path().join("old.pem");
    fs::copy(&a, &old).unwrap();
    let mut slow = Command::new("curl");
    slow.args(["--silent", "--noproxy", "*", "--limit-rate", "1M", "--cacert"]).arg(&old);
    slow.arg(https(&server, "/file?slow")).stdout(Stdio::piped());
    let slow = slow.spawn().unwrap();
    let (new, new_key) = make_certificate(certs.path(), "new", "DNS:a.example");
    fs::rename(&new_key, &a_key).unwrap();
    fs::rename(&new, &a).unwrap();
    let said = |what: &str| {
        let all = server.raw_log().all();
        all.into_iter().find(|line| line.contains("reloaded:") && line.contains(what))
    };
    wait_until("the reload", || said("certificate for a.example"));
    assert!(works("a.example", &a) && !works("a.example", &old));
    let slow = slow.wait_with_output().unwrap();
    assert_eq!(digest(&slow.stdout), digest(&content), "a reload cuts nothing");

    fs::write(&a, "nonsense").unwrap();
    kill_process(server.pid(), Signal::HUP).unwrap();
    let bad = wait_until("the refusal", || {
        server.raw_log().all().into_iter().find(|line| line.contains("not reloaded"))
    });
    assert!(bad.contains(&pairs[0]), "{bad}");
    assert!(works("b.example", &b), "the old ones stay");
}

#[test]
fn garbage_and_silence_harm_nobody() {
    let (dir, state) = (plain_dir(), plain_dir());
    fs::write(dir.path().join("file"), "content").unwrap();
    let server = self_signed(dir.path(), state.path(), &["--threads", "1"]);
    let silent = TcpStream::connect(server.address()).unwrap();
    let mut half = TcpStream::connect(server.address()).unwrap();
    half.write_all(&[0x16, 3, 1]).unwrap();
    let mut plain = Peer::connect(server.address());
    plain.get("/file");
    let answer = plain.rest();
    assert!(!answer.windows(7).any(|part| part == b"content"), "{}", answer.escape_ascii());
    let body = curl(&["--insecure", &https(&server, "/file")]).stdout;
    assert_eq!(body, b"content");
    drop((silent, half));
    server.interrupt();
    let failed = wait_until("the totals", || {
        server
            .banner()
            .into_iter()
            .find(|line| line.contains("tls failed") && line.contains("not TLS"))
    });
    assert!(failed.contains('1'), "{failed}");
}

/// What the kernel does is for tests/tls_vm.rs; here it mostly has none.
#[test]
fn the_start_says_who_seals_records() {
    let (dir, state) = (plain_dir(), plain_dir());
    let said_of = |choice: &[&str]| {
        let server = self_signed(dir.path(), state.path(), choice);
        let banner = server.banner();
        server.finish();
        let mut said = banner
            .into_iter()
            .filter_map(|line| line.strip_prefix("TLS records: sealed by ").map(str::to_owned));
        said.next().unwrap_or_else(|| panic!("nothing for {choice:?}"))
    };
    assert_eq!(said_of(&["--tls-records", "user-space"]), "this process (user-space)");
    let auto = said_of(&[]);
    assert!(auto.starts_with("this process") || auto.starts_with("the kernel"), "{auto}");
    for choice in ["kernel", "kernel-immutable"] {
        let said = said_of(&["--tls-records", choice]);
        let unmet = format!("this process, against --tls-records {choice}: this kernel ");
        let met = format!("the kernel where it takes the keys ({choice})");
        assert!(said == met || said.starts_with(&unmet) && said.contains("modprobe"), "{said}");
    }
    let plain = Server::start(dir.path(), &[]);
    assert!(!plain.banner().iter().any(|line| line.contains("TLS")));
    plain.finish();
}

#[test]
fn no_old_protocol_and_no_weak_cipher() {
    if !need("sslscan") {
        return;
    }
    let (dir, state) = (plain_dir(), plain_dir());
    let server = self_signed(dir.path(), state.path(), &[]);
    let address = server.address().to_string();
    let output = Command::new("sslscan").args(["--no-colour", &address]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let state_of = |protocol: &str| {
        let mut lines = said.lines().filter(|line| line.starts_with(protocol));
        lines.next().unwrap_or_else(|| panic!("no {protocol}: {said}")).ends_with("enabled")
    };
    for (protocol, on) in [
        ("SSLv2", false),
        ("SSLv3", false),
        ("TLSv1.0", false),
        ("TLSv1.1", false),
        ("TLSv1.2", true),
        ("TLSv1.3", true),
    ] {
        assert_eq!(state_of(protocol), on, "{protocol}: {said}");
    }
    for cipher in
        said.lines().filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"))
    {
        assert!(cipher.contains("GCM") || cipher.contains("CHACHA20"), "{cipher}");
    }
    assert!(said.contains("Session renegotiation not supported"), "{said}");
}

#[test]
fn plain_clients_are_sent_on() {
    let (dir, state) = (plain_dir(), plain_dir());
    fs::create_dir_all(dir.path().join(".well-known/acme-challenge")).unwrap();
    fs::write(dir.path().join(".well-known/acme-challenge/token"), "proof").unwrap();
    fs::write(dir.path().join("file"), "content").unwrap();
    let server = self_signed(dir.path(), state.path(), &["--https-redirect", "127.0.0.2:0"]);
    let [secure, plain] = server.addresses() else { panic!("{server:?}") };
    let mut peer = Peer::connect(*plain);
    peer.send(b"GET /file?x=%20 HTTP/1.1\r\nHost: localhost:1\r\n\r\n");
    let answer = peer.answer();
    assert_eq!(answer.head.status, 308);
    let location = format!("https://localhost:{}/file?x=%20", secure.port());
    assert_eq!(answer.head.header("location"), Some(location.as_str()));
    let url = format!("http://{plain}/.well-known/acme-challenge/token");
    assert_eq!(curl(&["--fail", &url]).stdout, b"proof");
}
