//! Keys that change within the kernel (Linux 6.14), on Debian's newest kernel: the program with
//! OpenSSL's client, and the engine with rustls's.

use std::process::Output;

use super::support::{heavy, need, program};
use super::tls_vm::{CLIENTS, FILE, assert_by_sendfile, engine_tests, part_of, tls_vm};
use super::vm::{example, newest_kernel_is_there};

#[test]
fn the_kernel_changes_its_keys() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "curl", "openssl", "cmp"];
    if !programs.into_iter().all(need) || !newest_kernel_is_there() {
        return;
    }
    let _turn = heavy();
    let mut vm = tls_vm();
    vm.args(["--newest", "--seconds", "400", "--memory", "1024", "--with"]).arg(program());
    vm.arg("--with").arg(example("tls_file"));
    for program in ["curl", "openssl", "cmp"] {
        vm.args(["--with", program]);
    }
    for (path, name) in engine_tests().iter().zip(["engine_tests", "library_tests"]) {
        vm.arg("--file").arg(format!("{}:/usr/bin/{name}", path.display()));
    }
    let script = CLIENTS.to_owned() + include_str!("rekey_vm.sh");
    let Output { status, stdout, stderr } = vm.args(["sh", "-uc", &script]).output().unwrap();
    let (said, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{said}{stderr}");
    println!("{said}{stderr}");
    let part = |name: &str| part_of(&said, name);
    assert!(part("clients").starts_with("sandbox: only served files can be read (landlock"));
    assert_eq!(part("clients").lines().filter(|line| *line == "same").count(), 6, "{said}");
    assert_by_sendfile(part("clients"), 6);
    for suite in SUITES {
        assert_followed(part(suite));
    }
    assert_by_sendfile(part("log"), SUITES.len() * 4);
    // Twice for each cipher; and each process has asked the kernel once.
    let by_program = SUITES.len() * 2 + 1;
    assert_counted(part("counters"), by_program);
    assert_engine(part("engine"));
    let rows: Vec<&str> =
        part("example").lines().filter(|line| line.starts_with("TLS13")).collect();
    let expected = format!(",true,{FILE},true,true,0,sendfile,");
    assert!(rows.len() == 3 && rows.iter().all(|row| row.contains(&expected)), "{rows:?}");
    // In a full socket, when they are used up, and in the example.
    let by_engine = (SUITES.len() * 5 + 1) + (3 + 1) + (SUITES.len() + 1);
    assert_counted(part("counters afterwards"), by_program + by_engine);
}

const SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Four downloads in one connection, equal, ended by close_notify. Within each of the first three
/// the client changed its keys, and asked for the server's but once.
fn assert_followed(part: &str) {
    assert!(part.starts_with(&"same\n".repeat(4)), "{part}");
    assert!(part.contains("\nstatus 0\n"), "{part}");
    let messages = |of: &str| {
        part.lines().filter(|line| line.starts_with(of) && line.contains("KeyUpdate")).count()
    };
    assert_eq!((messages(">>>"), messages("<<<")), (3, 2), "{part}");
    assert!(part.contains("<<< TLS 1.3, Alert [length 0002], warning close_notify"), "{part}");
}

/// Keys were changed so often, and nothing went wrong.
fn assert_counted(part: &str, changes: usize) {
    let count = |name: &str| {
        let row = part.lines().find_map(|line| line.strip_prefix(name));
        row.unwrap_or_else(|| panic!("no {name} in {part}")).trim().parse().ok()
    };
    assert_eq!(count("TlsTxRekeyOk"), Some(changes), "{part}");
    assert_eq!(count("TlsTxRekeyError"), Some(0), "{part}");
    assert_eq!(count("TlsDecryptError"), Some(0), "{part}");
    assert_eq!(count("TlsRxSw"), Some(0), "{part}");
}

/// Asked for while the socket is full, and made because the old ones are used up.
fn assert_engine(part: &str) {
    assert!(!part.contains("panicked"), "{part}");
    let full = "kernel: in the kernel true, refused false, Ok(())";
    assert_eq!(part.lines().filter(|line| *line == full).count(), SUITES.len(), "{part}");
    assert!(part.contains("keys were changed in the kernel"), "{part}");
}
