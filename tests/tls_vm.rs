//! kTLS, which few build machines have: the engine's example on a stock Debian kernel, server and
//! client in one process.

use std::process::Output;

use super::support::{heavy, need};
use super::vm::{example, kernel_is_there, vm};

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

const MODULES: [&str; 6] =
    ["tls", "gcm", "ghash_generic", "chacha20poly1305", "chacha_generic", "poly1305_generic"];

#[test]
fn the_kernel_seals_what_sendfile_sends() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio"];
    if !programs.into_iter().all(need) || !kernel_is_there() {
        return;
    }
    let _turn = heavy();
    let mut vm = vm();
    vm.args(["--seconds", "300", "--with"]).arg(example("tls_file"));
    for module in MODULES {
        vm.args(["--module", module]);
    }
    let Output { status, stdout, stderr } = vm.args(["sh", "-euc", SCRIPT]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}{stderr}");
    // What either way costs there, for whoever asks with --nocapture.
    println!("{stdout}");
    let part = |name: &str| {
        let (_, part) = stdout.split_once(&format!("= {name}\n")).expect("the guest said less");
        part.split("= ").next().unwrap_or_default()
    };
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
