//! What needs another kernel than this machine's: `scripts/vm`, and in its guest the count of
//! bytes that the kernel copies on each route.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::support::{ROUTES, heavy, need, program, skip};

/// What the guest does. Its status tells that it came to its end.
const SCRIPT: &str = "
    truncate -s 64M /tmp/disk
    mkfs.ext4 -q /tmp/disk
    mkdir /mnt
    mount -t ext4 -o loop /tmp/disk /mnt
    ip netns add peer
    ip link add va type veth peer name vb netns peer
    ip address add 10.9.0.1/24 dev va
    ip link set va up
    ip -n peer address add 10.9.0.2/24 dev vb
    ip -n peer link set vb up
    echo = loopback, tmpfs
    copies /tmp
    echo = loopback, ext4
    copies /mnt
    echo = scatter-gather, ext4
    copies /mnt peer 10.9.0.2
    ethtool -K va sg off >/dev/null
    echo = no scatter-gather, ext4
    copies /mnt peer 10.9.0.2
    cd /sys/kernel/tracing
    cat kprobe_events >&2
    ls instances >&2
    echo nothing left behind >&2
    exit 3
";

/// A server in the sandbox: what it is to do works, what lies outside is out of its reach, though
/// it is root's.
const SANDBOX: &str = "
    mkdir -p /etc/pagewire /srv/in /srv/out
    head -c 3000000 /dev/urandom >/srv/in/file
    echo secret >/srv/out/file
    cd /etc/pagewire
    configure() {
        echo \"listen = '127.0.0.1:80'\" >new
        echo \"root = '$1'\" >>new
        mv new pagewire.toml
    }
    last_line() {
        for _ in $(seq 100); do
            grep -c reloaded /tmp/log | grep -qx $1 && break
            usleep 100000
        done
        grep reloaded /tmp/log | tail -n 1
    }
    ip link set lo up
    for FLAGS in '' --no-sandbox; do
    configure /srv/in
    pagewire serve --config pagewire.toml $FLAGS >/tmp/out 2>/tmp/log &
    until grep -q ^route: /tmp/out; do usleep 100000; done
    grep ^sandbox: /tmp/out
    echo 3 >/proc/sys/vm/drop_caches
    wget -q -O /tmp/got http://127.0.0.1/file
    cmp /tmp/got /srv/in/file && echo the same
    configure /srv/out
    last_line 1
    configure /srv/in
    last_line 2
    wget -q -O /tmp/got http://127.0.0.1/file
    cmp /tmp/got /srv/in/file && echo the same
    kill $!
    wait $!
    done
";

#[test]
fn the_sandbox_keeps_the_server_from_all_other_files() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "ip"];
    if !programs.into_iter().all(need) || !kernel_is_there() {
        return;
    }
    let _turn = heavy();
    let mut vm = vm();
    vm.args(["--seconds", "120", "--with", "ip", "--with"]).arg(program());
    let output = vm.args(["sh", "-uc", SANDBOX]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let [sandbox, first, refused, back, second, without @ ..] = &lines[..] else {
        panic!("{said}")
    };
    assert!(sandbox.starts_with("sandbox: only served files can be read (landlock"), "{said}");
    assert_eq!((*first, *second), ("the same", "the same"));
    let expected = "pagewire: not reloaded, all stays as it was: cannot serve /srv/out: \
                    Permission denied (os error 13); the sandbox was closed around what was \
                    served at start: restart";
    assert_eq!(*refused, expected);
    assert_eq!(*back, "pagewire: reloaded: nothing changed");
    let changed = "pagewire: reloaded: site changed: /";
    let off = "sandbox: off (--no-sandbox)";
    assert_eq!(without, [off, "the same", changed, changed, "the same"]);
}

/// How often each byte passes by: out of the file, user memory, packets, by reference.
type Passes = [u64; 4];

/// In the order of [`ROUTES`].
const BY_REFERENCE: [Passes; 4] = [[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0]];
/// The device cannot gather: each packet is copied together for it.
const GATHERED: [Passes; 4] = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]];

#[test]
fn the_kernel_copies_what_the_routes_say() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "ip", "ethtool", "mkfs.ext4"];
    if !programs.into_iter().all(need) || !kernel_is_there() {
        return;
    }
    let _turn = heavy();
    let copies = counting_program();
    let mut vm = vm();
    vm.args(["--seconds", "300", "--module", "loop", "--module", "veth", "--with"]).arg(copies);
    vm.args(["--with", "ip", "--with", "ethtool", "--with", "mkfs.ext4"]);
    let Output { status, stdout, stderr } = vm.args(["sh", "-euc", SCRIPT]).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), &*stderr), (Some(3), "nothing left behind\n"));
    let stdout = String::from_utf8(stdout).unwrap();
    for (place, expected) in [
        ("loopback, tmpfs", BY_REFERENCE),
        ("loopback, ext4", BY_REFERENCE),
        ("scatter-gather, ext4", BY_REFERENCE),
        ("no scatter-gather, ext4", GATHERED),
    ] {
        let (_, rows) = stdout.split_once(&format!("= {place}\n")).expect("the guest said less");
        let mut rows = rows.lines();
        assert_eq!(
            rows.next().unwrap(),
            "route,bytes,out_of_file,user_memory,packets,by_reference"
        );
        for (route, passes) in ROUTES.into_iter().zip(expected) {
            assert_row(place, rows.next().unwrap(), route, passes);
        }
    }
}

fn assert_row(place: &str, row: &str, route: &str, passes: Passes) {
    let (name, counts) = row.split_once(',').unwrap();
    assert_eq!(name, route, "{place}");
    let counts: Vec<u64> = counts.split(',').map(|count| count.parse().unwrap()).collect();
    let (bytes, counts) = counts.split_first().unwrap();
    assert!(*bytes > 1 << 20, "{bytes}");
    for (count, times) in counts.iter().zip(passes) {
        // Never less. A little more: packet heads, arguments of system calls, packets sent again.
        let least = times * bytes;
        let expected = least..=least + bytes / 10;
        assert!(expected.contains(count), "{place}: {row}: {count} is not in {expected:?}");
    }
}

/// Bad input is refused by name, before anything is fetched or booted.
#[test]
fn a_wrong_call_is_refused() {
    for (arguments, expected) in [
        (&["--memory", "5x", "true"][..], "--memory takes a whole number above 0, not '5x'"),
        (&["--seconds"], "--seconds needs a value"),
        (&["--net", "true"], "no such option: --net"),
        (&["--module", "tls"], "no COMMAND"),
    ] {
        let Output { status, stdout, stderr } = vm().args(arguments).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(125), 0), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

pub(crate) fn vm() -> Command {
    let mut vm = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/vm"));
    vm.env("CARGO_TARGET_DIR", target());
    vm
}

pub(crate) fn kernel_is_there() -> bool {
    fetched(&[])
}

/// Debian's newest kernel, for `--newest`.
pub(crate) fn newest_kernel_is_there() -> bool {
    fetched(&["--newest"])
}

fn fetched(kernel: &[&str]) -> bool {
    let Output { status, stderr, .. } = vm().arg("--fetch").args(kernel).output().unwrap();
    if !status.success() {
        skip(&format!("no kernel for the guest: {}", String::from_utf8_lossy(&stderr)));
    }
    status.success()
}

/// The engine's example; `cargo test --test tests` does not build it, `cargo test` has.
fn counting_program() -> PathBuf {
    example("copies")
}

pub(crate) fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--workspace", "--example", name]);
    let built = cargo.arg("--target-dir").arg(target()).status().unwrap();
    assert!(built.success(), "{cargo:?}: {built}");
    target().join("debug/examples").join(name)
}

/// The build directory that these tests are from.
pub(crate) fn target() -> PathBuf {
    program().ancestors().nth(2).unwrap().to_owned()
}
