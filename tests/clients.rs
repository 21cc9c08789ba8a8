//! The clients that people have: each does what it is for against the running server, and what
//! the server said about it is what it should be.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::support::{
    MIB, Server, curl, digest, is_root, need, noise, plain_dir, request, wait_for, wait_until,
};

/// Runs a program to its end; any status but 0 fails the test.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    // A proxy of the machine is not asked for what is on the machine.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
    {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said.join("\n"));
    output
}

#[expect(clippy::disallowed_methods, reason = "these files are small and made here")]
fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// In hexadecimal digits, as tools say it.
pub(crate) fn sha256(content: &[u8]) -> String {
    digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The statuses of so many answers for `target`, once the server has said them all.
#[track_caller]
fn said_of(server: &Server, target: &str, count: usize) -> Vec<u16> {
    wait_until("the server's lines", || {
        let lines = server.log_lines().into_iter().filter(|line| line.target == target);
        let statuses: Vec<u16> = lines.map(|line| line.status).collect();
        (statuses.len() >= count).then_some(statuses)
    })
}

/// The first half of what is to be downloaded, as an interrupted download leaves it.
fn half(content: &[u8], path: &Path) {
    fs::write(path, &content[..content.len() / 2]).unwrap();
}

#[test]
fn curl_asks_for_ranges_of_all_forms() {
    if !need("curl") {
        return;
    }
    let dir = plain_dir();
    let content = noise(3 * MIB + 1, 11);
    fs::write(dir.path().join("f"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    let url = server.url("/f");
    let end = content.len() - 1;
    for (range, expected) in [
        ("0-0", &content[..1]),
        ("0-1048575", &content[..1 << 20]),
        ("1048577-", &content[(1 << 20) + 1..]),
        ("-5", &content[end - 4..]),
        ("-99999999", &content),
        (&format!("{end}-"), &content[end..]),
    ] {
        let got = curl(&["--fail", "--range", range, &url]);
        assert_eq!(digest(&got.stdout), digest(expected), "{range}");
    }
    let several = curl(&["--include", "--range", "0-9,-10", &url]).stdout;
    let text = String::from_utf8_lossy(&several);
    assert!(text.starts_with("HTTP/1.1 206 ") && text.contains("multipart/byteranges"), "{text}");
    let part = dir.path().join("part");
    half(&content, &part);
    curl(&["--fail", "--continue-at", "-", "--output", part.to_str().unwrap(), &url]);
    assert_eq!(digest(&read(&part)), digest(&content));
    assert!(server.log_lines().iter().all(|line| line.status == 206), "{:?}", server.log_lines());
    // What it has is not sent again.
    let tag = dir.path().join("tag");
    let tag = tag.to_str().unwrap();
    curl(&["--output", "/dev/null", "--etag-save", tag, &url]);
    let again = curl(&["--write-out", "%{http_code}", "--etag-compare", tag, &url]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "304");
    let newer = ["--write-out", "%{http_code}", "--time-cond", part.to_str().unwrap(), &url];
    assert_eq!(String::from_utf8_lossy(&curl(&newer).stdout), "304");
}

#[test]
fn wget_goes_on_where_it_was() {
    if !need("wget") {
        return;
    }
    let (dir, place) = (plain_dir(), plain_dir());
    let content = noise(3 * MIB + 1, 12);
    fs::write(dir.path().join("f"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    half(&content, &place.path().join("f"));
    let wget = |flag: &str| {
        let arguments = ["--no-proxy", "--quiet", flag, &server.url("/f")];
        run(Command::new("wget").args(arguments).current_dir(place.path()));
    };
    wget("--continue");
    assert_eq!(digest(&read(&place.path().join("f"))), digest(&content));
    let line = server.log_line_for("/f");
    assert_eq!((line.status, line.due), (206, (content.len() - content.len() / 2) as u64));
    // All of it is there: a range that begins at its end is none.
    wget("--continue");
    wget("--timestamping");
    assert_eq!(said_of(&server, "/f", 3), [206, 416, 304]);
}

#[test]
fn aria2_uses_sixteen_connections() {
    if !need("aria2c") {
        return;
    }
    let (dir, place) = (plain_dir(), plain_dir());
    let content = noise(32 * MIB + 5, 13);
    fs::write(dir.path().join("f"), &content).unwrap();
    let server = Server::start(dir.path(), &[]);
    let sum = sha256(&content);
    let dir_flag = format!("--dir={}", place.path().display());
    let checksum = format!("--checksum=sha-256={sum}");
    run(Command::new("aria2c")
        .args(["--no-conf", "--quiet", "--split=16", "--max-connection-per-server=16"])
        .args(["--min-split-size=1M", "--file-allocation=none", "--allow-overwrite=true"])
        .args([&dir_flag, &checksum, &server.url("/f")]));
    assert_eq!(digest(&read(&place.path().join("f"))), digest(&content));
    let totals = server.finish();
    assert!(totals.connections >= 16, "{totals:?}");
}

#[test]
fn rclone_copies_a_tree_by_its_listing() {
    if !need("rclone") {
        return;
    }
    let (dir, place) = (plain_dir(), plain_dir());
    let names = ["one", "sub/two words", "sub/deep/\u{e4}#%&?.txt", "sub/empty"];
    fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
    for (seed, name) in names.iter().enumerate() {
        let len = if name.ends_with("empty") { 0 } else { 100_000 };
        fs::write(dir.path().join(name), noise(len, seed as u64)).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    let mut rclone = Command::new("rclone");
    rclone.env("RCLONE_CONFIG", place.path().join("none")).env("HOME", place.path());
    rclone.args(["copy", "--http-url", &server.url("/"), ":http:"]).arg(place.path().join("copy"));
    run(&mut rclone);
    for name in names {
        let copied = read(&place.path().join("copy").join(name));
        assert_eq!(copied, read(&dir.path().join(name)), "{name}");
    }
}

/// A page that seeks to the end of a sound, and says so by what it asks for next.
const PLAYER: &str = "<audio id=a preload=metadata src=long.wav></audio><script>
    a.onloadedmetadata = () => { a.currentTime = a.duration - 1 };
    a.onseeked = () => { new Image().src = '/told-seeked-' + Math.round(a.currentTime) };
    a.onerror = () => { new Image().src = '/told-failed-' + a.error.code };
</script>";

#[test]
fn chromium_seeks_by_ranges() {
    if !need("chromium") {
        return;
    }
    let dir = plain_dir();
    fs::write(dir.path().join("index.html"), PLAYER).unwrap();
    let seconds = 400;
    fs::write(dir.path().join("long.wav"), silence(seconds)).unwrap();
    let server = Server::start(dir.path(), &[]);
    let said = told_by_chromium(&server, &server.url("/"), &[]);
    assert_eq!(said, format!("/told-seeked-{}", seconds - 1));
    let sounds: Vec<_> =
        server.log_lines().into_iter().filter(|line| line.target == "/long.wav").collect();
    // The first range is of all of it; that of the last second is shorter by far. What it has
    // it may ask for again, only to be told so.
    assert!(sounds.iter().all(|line| matches!(line.status, 206 | 304)), "{sounds:?}");
    let len = fs::metadata(dir.path().join("long.wav")).unwrap().len();
    let is_seek = |due: u64| (1..len / 10).contains(&due);
    assert!(sounds.iter().any(|line| line.status == 206 && is_seek(line.due)), "{sounds:?}");
}

/// Has Chromium open the server's page, until that asks for a name that begins with `told`.
pub(crate) fn told_by_chromium(server: &Server, url: &str, more: &[&str]) -> String {
    let profile = plain_dir();
    let mut chromium = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--remote-debugging-port=0", url])
        .args(more)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told =
        wait_for(|| server.log_lines().into_iter().find(|line| line.target.starts_with("/told-")));
    chromium.kill().unwrap();
    chromium.wait().unwrap();
    told.unwrap_or_else(|| panic!("the page told nothing: {:?}", server.log_lines())).target
}

/// A page that asks two other origins for a part of a file, with a field that takes a preflight,
/// and tells what it may see of the answers.
const READER: &str = "<script>
    const fields = { 'Range': 'bytes=2-4', 'X-Mine': 'yes' };
    const ask = (url) => fetch(url, { headers: fields }).then(
        async (got) => [got.status, await got.text(), got.headers.get('content-range'),
            got.headers.get('etag') !== null].join('_'),
        () => 'refused');
    Promise.all(['OPEN', 'CLOSED'].map(ask)).then((told) => {
        new Image().src = '/told-' + encodeURIComponent(told.join('-'));
    });
</script>";

#[test]
fn chromium_reads_what_another_origin_allows() {
    if !need("chromium") {
        return;
    }
    let (pages, files) = (plain_dir(), plain_dir());
    fs::write(files.path().join("f"), "0123456789").unwrap();
    let site = Server::start(pages.path(), &[]);
    let origin = format!("http://{}", site.address());
    let open = Server::start(files.path(), &["--cors", &origin]);
    let closed = Server::start(files.path(), &["--cors", "https://example.org"]);
    let page = READER.replace("OPEN", &open.url("/f")).replace("CLOSED", &closed.url("/f"));
    fs::write(pages.path().join("index.html"), page).unwrap();
    assert_eq!(
        told_by_chromium(&site, &site.url("/"), &[]),
        "/told-206_234_bytes%202-4%2F10_true-refused"
    );
    assert_eq!(said_of(&open, "/f", 2), [204, 206]);
    assert_eq!(said_of(&closed, "/f", 1), [204]);
}

/// So many seconds of nothing to hear: 16 bit, 44.1 kHz, two channels.
fn silence(seconds: u32) -> Vec<u8> {
    let (rate, frame) = (44_100_u32, 4_u16);
    let bytes = seconds * rate * u32::from(frame);
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(frame)).to_le_bytes());
    wav.extend(frame.to_le_bytes());
    wav.extend(b"\x10\0data");
    wav.extend(bytes.to_le_bytes());
    wav.resize(wav.len() + bytes as usize, 0);
    wav
}

#[test]
fn pip_installs_from_an_index() {
    if !need("pip") || !need("python3") {
        return;
    }
    let (dir, place) = (plain_dir(), plain_dir());
    let build = place.path().join("build");
    let info = build.join("demo-1.0.dist-info");
    fs::create_dir_all(&info).unwrap();
    fs::write(build.join("demo.py"), "ANSWER = 42\n").unwrap();
    fs::write(info.join("METADATA"), "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n").unwrap();
    let wheel_info = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    fs::write(info.join("WHEEL"), wheel_info).unwrap();
    let record = "demo.py,,\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n\
        demo-1.0.dist-info/RECORD,,\n";
    fs::write(info.join("RECORD"), record).unwrap();
    let name = "demo-1.0-py3-none-any.whl";
    let wheel = dir.path().join("wheels").join(name);
    fs::create_dir_all(dir.path().join("wheels")).unwrap();
    let zip = ["-m", "zipfile", "-c"];
    run(Command::new("python3")
        .args(zip)
        .arg(&wheel)
        .args(["demo.py", "demo-1.0.dist-info"])
        .current_dir(&build));
    // The simple repository interface (PEP 503).
    let sum = sha256(&read(&wheel));
    fs::create_dir_all(dir.path().join("simple/demo")).unwrap();
    let page = format!("<a href=\"../../wheels/{name}#sha256={sum}\">{name}</a>");
    fs::write(dir.path().join("simple/demo/index.html"), page).unwrap();
    let server = Server::start(dir.path(), &[]);
    let target = place.path().join("installed");
    run(Command::new("pip")
        .args(["--isolated", "--disable-pip-version-check", "install", "--no-cache-dir"])
        .args(["--no-deps", "--root-user-action=ignore", "--index-url", &server.url("/simple/")])
        .arg("--target")
        .arg(&target)
        .arg("demo"));
    assert_eq!(read(&target.join("demo.py")), b"ANSWER = 42\n");
    assert_eq!(server.log_line_for(&format!("/wheels/{name}")).status, 200);
}

#[test]
fn apt_downloads_from_a_repository() {
    if !need("apt-get") || !need("dpkg-deb") {
        return;
    }
    let (dir, place) = (plain_dir(), plain_dir());
    let package = place.path().join("demo");
    fs::create_dir_all(package.join("DEBIAN")).unwrap();
    fs::set_permissions(package.join("DEBIAN"), fs::Permissions::from_mode(0o755)).unwrap();
    let control = "Package: demo\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.org>\n\
        Description: a package\n";
    fs::write(package.join("DEBIAN/control"), control).unwrap();
    let deb = dir.path().join("demo_1.0_all.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&package).arg(&deb));
    let content = read(&deb);
    let sum = sha256(&content);
    let entry = format!(
        "{control}Filename: ./demo_1.0_all.deb\nSize: {}\nSHA256: {sum}\n\n",
        content.len()
    );
    fs::write(dir.path().join("Packages"), entry).unwrap();
    let server = Server::start(dir.path(), &[]);
    let root = place.path().join("root");
    for sub in [
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
    ] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    File::create(root.join("var/lib/dpkg/status")).unwrap();
    let source = format!("deb [trusted=yes] {} ./\n", server.url("/"));
    fs::write(root.join("etc/apt/sources.list"), source).unwrap();
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-o", &format!("Dir={}", root.display()), "-o", "Acquire::http::Proxy=DIRECT"]);
        apt.args(["-o", &format!("Dir::State::status={}/var/lib/dpkg/status", root.display())]);
        if is_root() {
            apt.args(["-o", "APT::Sandbox::User=root"]);
        }
        run(apt.args(arguments).current_dir(place.path()).env("LC_ALL", "C"))
    };
    apt(&["update"]);
    apt(&["download", "demo"]);
    assert_eq!(read(&place.path().join("demo_1.0_all.deb")), content);
    // The second time it is told that nothing changed.
    apt(&["update"]);
    assert_eq!(said_of(&server, "/./Packages", 2), [200, 304]);
}

#[test]
fn git_clones_what_is_only_files() {
    if !need("git") {
        return;
    }
    let (dir, place) = (plain_dir(), plain_dir());
    let git = |arguments: &[&str], at: &Path| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        run(git.current_dir(at))
    };
    let work = place.path().join("work");
    fs::create_dir(&work).unwrap();
    git(&["init", "--quiet"], &work);
    fs::write(work.join("file"), noise(MIB, 14)).unwrap();
    git(&["add", "file"], &work);
    git(&["commit", "--quiet", "--message=one"], &work);
    git(
        &["clone", "--quiet", "--bare", "work", dir.path().join("r").to_str().unwrap()],
        place.path(),
    );
    git(&["update-server-info"], &dir.path().join("r"));
    let server = Server::start(dir.path(), &[]);
    git(&["clone", "--quiet", &server.url("/r"), "clone"], place.path());
    assert_eq!(read(&place.path().join("clone/file")), noise(MIB, 14));
    assert_eq!(request(&server, "GET /r/info/refs", &[""; 0]).head.status, 200);
}
