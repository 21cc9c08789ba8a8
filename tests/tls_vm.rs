//! kTLS, which few build machines have, on a stock Debian kernel: the engine's example, server and
//! client in one process; and the program, in its sandbox, with curl and OpenSSL.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::support::{LogLine, heavy, need, program};
use super::vm::{example, kernel_is_there, target, vm};

/// What the guest does.
const SCRIPT: &str = "
    head -c 6000001 /dev/urandom > /tmp/file
    echo = kernel
    tls_file /tmp/file kernel
    echo = counters
    grep -E '^Tls(TxSw|RxSw|DecryptError)' /proc/net/tls_stat
    echo = rekey
    tls_file /tmp/file kernel --rekey
    echo = auto
    tls_file /tmp/file auto
";

/// With a `?` those that newer kernels have within others, or by another name.
const MODULES: [&str; 9] = [
    "tls",
    "gcm",
    "ghash_generic?",
    "chacha20poly1305",
    "chacha_generic?",
    "chacha?",
    "poly1305_generic?",
    // Not needed, but quicker, also where qemu does them.
    "aesni_intel",
    "ghash_clmulni_intel?",
];

/// A guest whose kernel seals TLS records.
pub(crate) fn tls_vm() -> Command {
    let mut vm = vm();
    for module in MODULES {
        vm.args(["--module", module]);
    }
    vm
}

/// What `tls_vm.sh` and `rekey_vm.sh` do it with.
pub(crate) const CLIENTS: &str = include_str!("tls_vm_clients.sh");

const DOWNLOADS: &str = include_str!("tls_vm_downloads.sh");

#[test]
fn the_kernel_seals_what_sendfile_sends() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio"];
    if !programs.into_iter().all(need) || !kernel_is_there() {
        return;
    }
    let _turn = heavy();
    let mut vm = tls_vm();
    vm.args(["--seconds", "300", "--with"]).arg(example("tls_file"));
    let Output { status, stdout, stderr } = vm.args(["sh", "-euc", SCRIPT]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}{stderr}");
    // What either way costs there, for whoever asks with --nocapture.
    println!("{stdout}");
    let part = |name: &str| part_of(&stdout, name);
    let rows = |name| part(name).lines().filter(|line| line.starts_with("TLS"));
    for row in rows("kernel") {
        // Sealed by the kernel, whole, equal, ended by close_notify, nothing copied.
        assert!(row.contains(",true,6000001,true,true,0,sendfile,"), "{row}");
    }
    assert_eq!(rows("kernel").count(), 6, "{stdout}");
    let counter = |name: &str| {
        let row = part("counters").lines().find(|row| row.starts_with(name));
        row.and_then(|row| row.split_whitespace().last()?.parse::<u64>().ok())
    };
    assert_eq!(counter("TlsTxSw"), Some(6), "{stdout}");
    assert_eq!(counter("TlsRxSw"), Some(0), "what comes in is opened by us");
    assert_rekeyed(part("rekey"));
    for row in rows("auto") {
        assert!(row.contains(",6000001,true,true,"), "{row}");
    }
    assert_eq!(rows("auto").count(), 6, "{stdout}");
    assert!(!part("auto").contains("kernel's records"), "{stdout}");
}

/// A client that asks for new keys gets them, or where the kernel cannot change them (before
/// Linux 6.14) an alert: what came until then is the file's.
fn assert_rekeyed(part: &str) {
    let rows: Vec<&str> = part.lines().filter(|line| line.starts_with("TLS13")).collect();
    assert_eq!(rows.len(), 3, "{part}");
    for row in rows {
        let fields: Vec<&str> = row.split(',').collect();
        assert_eq!((fields[1], fields[3]), ("true", "true"), "{row}");
        let whole = fields[2] == "6000001" && fields[4] == "true";
        assert!(whole || fields[4] == "false", "{row}");
    }
    let ended = part.contains("this kernel (before 6.14) does not take");
    let alerted = part.contains("received fatal alert: InternalError");
    assert!(ended == alerted, "{part}");
}

const LARGE: u64 = 256 << 20;
pub(crate) const FILE: u64 = 4_000_001;

/// 256 MiB with one cipher, which takes a minute here, and 4 MB with the others and OpenSSL.
#[test]
fn the_program_serves_curl_and_openssl_from_the_kernel() {
    let script = [CLIENTS, DOWNLOADS, include_str!("tls_vm.sh")].concat();
    let Some(said) = guest_says("600", &script) else { return };
    let part = |name: &str| part_of(&said, name);
    assert_served(part("clients"));
    assert_only_downloads(part("counters"));
    let large = part("clients").lines().filter_map(LogLine::parse);
    assert_eq!(large.filter(|line| line.target == "/large?curl").count(), 1, "{said}");
    assert_new_keys(part("k"), part("K"));
    let refused = part("renegotiation");
    assert!(refused.starts_with("same\n0\nstatus 1\n"), "{refused}");
    assert!(refused.contains("RENEGOTIATING") && refused.contains("no renegotiation"), "{refused}");
    assert!(refused.contains("<<< TLS 1.2, Alert [length 0002], warning no_renegotiation"));
    assert_by_sendfile(part("log"), 4);
    assert_traced(part("strace"));
    let engine = part("engine");
    assert_eq!(engine.matches("... ok").count(), 5, "{engine}");
    let sealed = engine.lines().find_map(|line| line.strip_prefix("sealed by the kernel: "));
    assert_measured(part("doctor"));
    // 32 of the garbage alone.
    assert!(sealed.is_some_and(|count| count.parse::<u32>().unwrap() >= 32), "{engine}");
}

#[test]
#[ignore = "takes a quarter of an hour: qemu translates every instruction of the ciphers"]
fn every_cipher_moves_256_mib() {
    let script = [CLIENTS, "each=large\n", DOWNLOADS].concat();
    let Some(said) = guest_says("7200", &script) else { return };
    assert_served(part_of(&said, "clients"));
    assert_only_downloads(part_of(&said, "counters"));
    let lines = part_of(&said, "clients").lines().filter_map(LogLine::parse);
    assert_eq!(lines.filter(|line| line.target.starts_with("/large?")).count(), 12, "{said}");
}

/// What a script says in a guest with the program, clients and the tests of the engine.
fn guest_says(seconds: &str, script: &str) -> Option<String> {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "curl", "openssl", "cmp", "strace"];
    if !programs.into_iter().all(need) || !kernel_is_there() {
        return None;
    }
    let _turn = heavy();
    let mut vm = tls_vm();
    vm.args(["--seconds", seconds, "--memory", "1024", "--with"]).arg(program());
    for program in ["curl", "openssl", "cmp", "strace"] {
        vm.args(["--with", program]);
    }
    let [tests, _] = engine_tests();
    vm.arg("--file").arg(format!("{}:/usr/bin/engine_tests", tests.display()));
    let Output { status, stdout, stderr } = vm.args(["sh", "-uc", script]).output().unwrap();
    let (said, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{said}{stderr}");
    println!("{said}{stderr}");
    Some(said.into_owned())
}

/// What the guest said after `= name`.
pub(crate) fn part_of<'said>(said: &'said str, name: &str) -> &'said str {
    let (_, part) = said.split_once(&format!("= {name}\n")).expect("the guest said less");
    part.split("\n= ").next().unwrap_or_default()
}

/// What the kernel's records cost, for each version and cipher.
fn assert_measured(part: &str) {
    let report: Value = serde_json::from_str(part.trim()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let suites = checks.iter().filter(|check| check["id"] == "tls-records");
    let values: Vec<_> = suites.map(|check| check["value"].as_str().unwrap()).collect();
    assert_eq!(values.len(), 6, "{values:?}");
    let measured = |value: &&str| value.contains(": kernel ") && value.ends_with(" cs/GB");
    assert!(values.iter().all(measured), "{values:?}");
}

/// Every download equal, ended by close_notify, in the sandbox, by sendfile.
fn assert_served(part: &str) {
    assert!(part.starts_with("sandbox: only served files can be read (landlock"), "{part}");
    let who = "\nTLS records: sealed by the kernel where it takes the keys (kernel)\n";
    assert!(part.contains(who), "{part}");
    assert_eq!(part.lines().filter(|line| *line == "same").count(), 12, "{part}");
    let orderly = |line: &&str| line.starts_with("<<<") && line.contains("close_notify");
    assert_eq!(part.lines().filter(orderly).count(), 6, "{part}");
    assert_eq!(part.lines().filter(|line| *line == "status 0").count(), 6, "{part}");
    assert_by_sendfile(part, 12);
}

/// Twelve connections were sealed by the kernel, and nothing was opened.
fn assert_only_downloads(counters: &str) {
    assert!(counters.contains("TlsTxSw                         \t12\n"), "{counters}");
    assert!(counters.contains("TlsDecryptError                 \t0"), "{counters}");
}

/// The answers of so many requests: whole, sent by reference.
pub(crate) fn assert_by_sendfile(part: &str, count: usize) {
    let lines: Vec<LogLine> = part.lines().filter_map(LogLine::parse).collect();
    assert_eq!(lines.len(), count, "{part}");
    for line in lines {
        line.assert_complete(if line.target.starts_with("/large") { LARGE } else { FILE });
        assert_eq!((&*line.route, line.user_copied), ("sendfile", 0), "{line:?}");
    }
}

/// What is under way arrives whole. A client that then wants new keys of this kernel, which
/// changes none (before Linux 6.14), gets an alert; one that only changed its own is served on.
fn assert_new_keys(its_own: &str, ours_too: &str) {
    for part in [its_own, ours_too] {
        assert!(part.starts_with("same\n") && part.contains("KEYUPDATE"), "{part}");
    }
    assert!(its_own.contains(&format!("\n{FILE}\nstatus 0\n")), "{its_own}");
    assert!(its_own.contains("<<< TLS 1.3, Alert [length 0002], warning close_notify"));
    assert!(ours_too.contains("\n0\nstatus 1\n"), "{ours_too}");
    assert!(ours_too.contains("<<< TLS 1.3, Alert [length 0002], fatal internal_error"));
}

/// The kernel has the keys and a promise about the files, then every byte of the file leaves by
/// sendfile(2), and none is read.
fn assert_traced(part: &str) {
    assert!(part.starts_with("same\n"), "{part}");
    let keys = part.find("SOL_TLS").expect("the keys are handed over");
    let promised = |line: &&str| {
        // By its number, where strace does not know it.
        let of_immutable = line.contains("TLS_TX_ZEROCOPY_RO,") || line.contains("SOL_TLS, 0x3 ");
        of_immutable && line.ends_with(" 4) = 0")
    };
    assert_eq!(part[keys..].lines().filter(promised).count(), 1, "{part}");
    let sent = |line: &str| line.rsplit_once("= ")?.1.trim().parse::<u64>().ok();
    let after = part[keys..].lines().filter(|line| line.contains("sendfile("));
    assert_eq!(after.filter_map(sent).sum::<u64>(), FILE, "{part}");
    let read = part[keys..].lines().filter(|line| line.contains("pread"));
    assert_eq!(read.filter_map(sent).sum::<u64>(), 0, "{part}");
}

/// The tests of the engine's TLS, those outside and those within its library, as `cargo test` has
/// built them.
pub(crate) fn engine_tests() -> [PathBuf; 2] {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--quiet", "--locked", "--workspace", "--lib", "--test", "tls"]);
    cargo.args(["--no-run", "--message-format", "json", "--target-dir"]).arg(target());
    let built = cargo.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = built.stdout.split(|byte| *byte == b'\n');
    let messages: Vec<Value> =
        messages.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    ["tls", "pagewire_engine"].map(|name| {
        let of = messages.iter().filter(|message| message["target"]["name"] == name);
        let mut paths = of.filter_map(|message| message["executable"].as_str());
        PathBuf::from(paths.next().expect("cargo builds the engine's tests"))
    })
}
