//! `pagewire doctor`: what it says of real file systems and devices, held against the mutation
//! oracle and ethtool; and what it says to questions that make no sense.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pagewire_engine::Route;
use pagewire_engine::proof::{Passage, mutation_oracle, scratch_file_in};
use serde_json::Value;

use super::support::{
    FileSystem, Netns, Place, need, need_root, open_dir, pagewire, plain_dir, program, veth,
};

const YES: i32 = 0;
const NO: i32 = 1;
const USAGE: i32 = 2;
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// What it said with `--json`, and its exit status.
struct Said {
    report: Value,
    status: i32,
}

impl Said {
    #[track_caller]
    fn of(mut command: Command) -> Said {
        let output = command.arg("--json").output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{command:?}: {error}: {complaint}"));
        let said = Said { report, status: output.status.code().unwrap() };
        assert_eq!(said.report["version"], 1);
        assert_eq!(said.report["verdict"]["exit_status"], said.status, "{}", said.line());
        said
    }

    fn line(&self) -> &str {
        self.report["verdict"]["line"].as_str().unwrap()
    }

    fn answer(&self) -> &str {
        self.report["verdict"]["answer"].as_str().unwrap()
    }

    /// The passage of a route, as JSON has it.
    fn passage(&self, route: &str) -> &str {
        let routes = self.report["routes"].as_array().unwrap();
        let report = routes.iter().find(|report| report["route"] == route).unwrap();
        report["passage"].as_str().unwrap()
    }

    fn layer(&self, device: &str) -> &Value {
        let layers = self.report["way"]["layers"].as_array().unwrap();
        let layer = layers.iter().find(|layer| layer["device"] == device);
        layer.unwrap_or_else(|| panic!("no layer {device}: {layers:?}"))
    }

    fn check(&self, id: &str) -> &Value {
        let checks = self.report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}"))
    }
}

/// Asks about `directory`; `words` are split at spaces.
#[track_caller]
fn ask(directory: &Path, words: &str) -> Said {
    let mut command = pagewire(&["doctor"]);
    command.arg(directory).args(words.split_whitespace());
    Said::of(command)
}

/// As `ask`, in a network namespace.
#[track_caller]
fn ask_in(netns: &Netns, directory: &Path, words: &str) -> Said {
    let mut command = netns.command(program().to_str().unwrap());
    command.arg("doctor").arg(directory).args(words.split_whitespace());
    Said::of(command)
}

#[test]
fn on_loopback_nothing_is_copied() {
    for (place, name) in [(Place::Ext4, "ext4"), (Place::Tmpfs, "tmpfs")] {
        let Some(dir) = place.scratch() else { continue };
        for to in ["127.0.0.1:9", "[::1]:9", "localhost:9"] {
            let said = ask(dir.path(), &format!("--to {to}"));
            assert_eq!((said.status, said.answer()), (YES, "yes"), "{}", said.line());
            assert_eq!(said.report["way"]["device"], "lo");
            assert_eq!(said.report["way"]["to"], to);
            assert_eq!(said.report["directory"]["file_system"], name);
            assert_eq!(said.report["directory"]["measured_with"], "directory");
            for (route, passage) in [
                ("sendfile", "by-reference"),
                ("splice", "by-reference"),
                ("mmap-write", "copied"),
                ("read-write", "copied"),
            ] {
                assert_eq!(said.passage(route), passage, "{route} on {name}");
            }
        }
    }
}

#[test]
fn every_file_system_is_measured() {
    for file_system in FileSystem::ALL {
        let Some(disk) = file_system.make() else { continue };
        let said = ask(disk.path(), "--device lo");
        let (name, residency) = match file_system {
            FileSystem::Ext4 => ("ext4", "good"),
            FileSystem::Fuse => ("fuse", "note"),
            FileSystem::Overlay => ("overlay", "note"),
            FileSystem::Tmpfs => ("tmpfs", "good"),
            FileSystem::Xfs => ("xfs", "good"),
        };
        assert_eq!(said.report["directory"]["file_system"], name);
        assert_eq!(said.report["directory"]["mount_point"], disk.path().to_str().unwrap());
        assert_eq!(said.report["directory"]["measured_with"], "directory", "{name}");
        assert_eq!(said.check("rwf-nowait")["state"], residency, "{name}");
        assert_eq!((said.status, said.answer()), (YES, "yes"), "{}", said.line());
    }
}

#[test]
fn what_cannot_be_measured_is_not_claimed() {
    let Some(disk) = FileSystem::Ext4.make() else { return };
    disk.make_read_only();
    let said = ask(disk.path(), "--device lo");
    assert_eq!((said.status, said.answer()), (NO, "unproven"), "{}", said.line());
    assert_eq!(said.report["directory"]["measured_with"], "memory");
    assert!(said.line().contains("Read-only file system"), "{}", said.line());
    // Nothing is known of its files, and nothing is said of them.
    let checks = said.report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["id"] != "cachestat"), "{checks:?}");
}

#[test]
fn anybody_may_ask() {
    if !need_root("another user") || !need("setpriv") {
        return;
    }
    let ask = |directory: &Path| {
        let mut command = Command::new(NOBODY[0]);
        command.args(&NOBODY[1..]).arg(program()).arg("doctor").arg(directory);
        command.args(["--device", "lo"]);
        Said::of(command)
    };
    // A directory of root's in one that takes files of all: measured there.
    let dir = open_dir();
    let said = ask(dir.path());
    assert_eq!(said.report["directory"]["measured_with"], "same-file-system");
    assert_eq!((said.status, said.answer()), (YES, "yes"), "{}", said.line());
    assert_eq!(said.check("user")["value"], "65534");
    assert!(said.check("user")["meaning"].as_str().unwrap().contains("root would add"));
    // A file system on which nothing is theirs.
    let Some(disk) = FileSystem::Tmpfs.make() else { return };
    std::fs::set_permissions(disk.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let said = ask(disk.path());
    assert_eq!(said.report["directory"]["measured_with"], "memory");
    assert_eq!((said.status, said.answer()), (NO, "unproven"), "{}", said.line());
    assert!(said.line().contains("such as root"), "{}", said.line());
}

/// The features of the device, as ethtool sets them, and the fix.
const DEVICES: [(&str, Option<&str>); 5] = [
    ("sg on tx on", None),
    ("sg off", Some("ethtool -K va sg on")),
    ("sg on tx off", Some("ethtool -K va tx on")),
    ("sg off tx off", Some("ethtool -K va sg on tx on")),
    ("tx on sg on", None),
];

#[test]
fn it_agrees_with_the_oracle_and_with_ethtool_about_a_device() {
    if !need_root("network namespaces") || !need("ip") || !need("ethtool") {
        return;
    }
    let (a, b) = veth();
    let dir = plain_dir();
    for (features, fix) in DEVICES {
        a.run(&format!("ethtool -K va {features}"));
        let said = ask_in(&a, dir.path(), "--to 10.9.0.2:80");
        assert_eq!(said.report["way"]["device"], "va");
        let layer = said.layer("va");
        assert_eq!(layer["leads_elsewhere"], true, "{layer}");
        for (name, ethtool) in
            [("scatter_gather", "tx-scatter-gather"), ("checksum", "tx-checksum-ip-generic")]
        {
            let on = shown_by_ethtool(&a, "va", ethtool);
            assert_eq!(layer["features"][name]["on"], on, "{name}, {features}");
        }
        let by_reference = through_device(&a, &b, dir.path()) == Passage::ByReference;
        assert_eq!(layer["takes_references"], by_reference, "{features}");
        let status = if by_reference { YES } else { NO };
        assert_eq!(said.status, status, "{features}: {}", said.line());
        assert_eq!(said.report["verdict"]["reasons"][0]["fix"].as_str(), fix, "{features}");
        for part in fix.into_iter().chain(["va"]) {
            assert!(said.line().contains(part), "{features}: {}", said.line());
        }
        if let Some(fix) = fix {
            a.run(fix);
            let said = ask_in(&a, dir.path(), "--to 10.9.0.2:80");
            assert_eq!(said.status, YES, "after {fix}: {}", said.line());
        }
    }
}

fn shown_by_ethtool(netns: &Netns, device: &str, feature: &str) -> bool {
    let output = netns.command(&format!("ethtool -k {device}")).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let mut lines = shown.lines().filter_map(|line| line.trim().split_once(": "));
    let (_, state) = lines.find(|(name, _)| *name == feature).unwrap();
    state.starts_with("on")
}

/// How sendfile passes a file from 10.9.0.1 to 10.9.0.2.
fn through_device(a: &Netns, b: &Netns, directory: &Path) -> Passage {
    let listener = b.enter(|| TcpListener::bind("10.9.0.2:0").unwrap());
    let address = listener.local_addr().unwrap();
    let sender = a.enter(|| TcpStream::connect(address).unwrap());
    let (receiver, _) = listener.accept().unwrap();
    let scratch = scratch_file_in(directory).unwrap();
    mutation_oracle(Route::Sendfile, &scratch, &sender, &receiver).unwrap()
}

/// How each kind of stacked device is put over `va`, which then has no address of its own.
const STACKS: [(&str, &str, &[&str]); 5] = [
    ("bridge", "port", &["ip link add top type bridge", "ip link set va master top"]),
    (
        "bond",
        "port",
        &[
            "ip link add top type bond mode active-backup",
            "ip link set va down",
            "ip link set va master top",
        ],
    ),
    ("macvlan", "lower", &["ip link add link va name top type macvlan"]),
    ("ipvlan", "lower", &["ip link add link va name top type ipvlan"]),
    ("vlan", "lower", &["ip link add link va name top type vlan id 7"]),
];

/// A macvlan says "scatter-gather on" whatever the device below it says.
#[test]
fn every_layer_of_a_stack_counts() {
    if !need_root("network namespaces") || !need("ip") || !need("ethtool") {
        return;
    }
    for (kind, role, commands) in STACKS {
        let (a, b) = veth();
        if !a.command(commands[0]).output().unwrap().status.success() {
            // Not `skip`: kernels are built without some of these, that of CI too.
            writeln!(std::io::stderr(), "SKIPPED stacks: the kernel makes no {kind}").unwrap();
            continue;
        }
        for command in &commands[1..] {
            a.run(command);
        }
        for command in [
            "ip address flush dev va",
            "ip address add 10.9.0.1/24 dev top",
            "ip link set top up",
            "ip link set va up",
        ] {
            a.run(command);
        }
        let dir = plain_dir();
        for (features, status) in [("sg on tx on", YES), ("sg off", NO)] {
            a.run(&format!("ethtool -K va {features}"));
            let said = ask_in(&a, dir.path(), "--to 10.9.0.2:80");
            assert_eq!(said.status, status, "{kind}, {features}: {}", said.line());
            assert_eq!(said.report["way"]["device"], "top");
            assert_eq!(said.layer("top")["kind"], kind);
            assert_eq!(said.layer("va")["role"], role, "{kind}");
            assert_eq!(said.layer("va")["takes_references"], status == YES, "{kind}");
            if status == NO {
                assert!(said.line().contains("ethtool -K va sg on"), "{kind}: {}", said.line());
            }
            // VLAN tags are stripped by nobody at the other end.
            if kind != "vlan" {
                let passage = through_device(&a, &b, dir.path());
                assert_eq!(passage == Passage::ByReference, status == YES, "{kind}, {features}");
            }
        }
    }
}

/// A tun hands its packets to a program, which copies them, whatever its features say.
#[test]
fn a_tunnel_to_a_program_copies() {
    if !need_root("network namespaces") || !need("ip") {
        return;
    }
    let netns = Netns::new();
    if !netns.command("ip tuntap add dev top mode tun").output().unwrap().status.success() {
        return writeln!(std::io::stderr(), "SKIPPED: the kernel makes no tun").unwrap();
    }
    let said = ask_in(&netns, plain_dir().path(), "--device top");
    assert_eq!((said.status, said.answer()), (NO, "no"), "{}", said.line());
    assert_eq!(said.layer("top")["kind"], "tun");
    assert!(said.line().contains("a program reads its packets"), "{}", said.line());
}

#[test]
fn without_a_way_out_it_looks_at_loopback_and_says_so() {
    if !need_root("network namespaces") || !need("ip") {
        return;
    }
    let netns = Netns::new();
    let dir = plain_dir();
    let said = ask_in(&netns, dir.path(), "");
    assert_eq!(said.report["way"]["chosen_by"], "no-way-out");
    assert_eq!((said.status, said.answer()), (YES, "yes"), "{}", said.line());
    let mut command = netns.command(program().to_str().unwrap());
    let output = command.arg("doctor").arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no way leads to the internet: lo"), "{text}");
    // The same namespace, once there is a default route.
    netns.run("ip link add out type veth peer name in");
    netns.run("ip link set out up");
    netns.run("ip link set in up");
    netns.run("ip address add 10.9.0.1/24 dev out");
    netns.run("ip route add default via 10.9.0.2");
    let said = ask_in(&netns, dir.path(), "");
    assert_eq!(said.report["way"]["chosen_by"], "internet");
    assert_eq!(said.report["way"]["device"], "out");
    assert_eq!(said.layer("in")["role"], "peer");
}

/// sendfile is refused, as by a file system that has none: splice is the next. Then that, too.
#[test]
fn the_route_that_is_taken_decides() {
    if !need("strace") {
        return;
    }
    let dir = plain_dir();
    let refusing = |calls: &[&str]| {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null"]);
        for call in calls {
            command.arg("-e").arg(format!("inject={call}:error=EINVAL"));
        }
        command.arg(program()).arg("doctor").arg(dir.path()).args(["--device", "lo"]);
        Said::of(command)
    };
    let said = refusing(&["sendfile"]);
    assert_eq!(said.passage("sendfile"), "refused");
    assert_eq!((said.status, said.answer()), (YES, "yes"), "{}", said.line());
    let said = refusing(&["sendfile", "splice"]);
    assert_eq!((said.status, said.answer()), (NO, "no"), "{}", said.line());
    assert!(said.line().contains("mmap-write from"), "{}", said.line());
}

#[test]
fn a_file_system_that_hangs_is_named() {
    let Some(disk) = FileSystem::Fuse.make() else { return };
    let _hung = disk.hang();
    let path = disk.path().to_str().unwrap();
    check_refusal(&[path], &[path, "did not answer"]);
}

#[test]
fn questions_that_make_no_sense() {
    let dir = plain_dir();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let missing = dir.path().join("missing");
    let (file, missing) = (file.to_str().unwrap(), missing.to_str().unwrap());
    for (arguments, named) in [
        (&[missing][..], missing),
        (&[file], file),
        (&[".", "--device", "pagewire-none"], "pagewire-none"),
        (&[".", "--device", "pagewire-none"], "lo"),
        (&[".", "--device", ""], "network device"),
        (&[".", "--to", "pagewire.invalid:80"], "pagewire.invalid"),
        (&[".", "--to", "pagewire.invalid"], "HOST:PORT"),
        (&[".", "--to", "127.0.0.1:70000"], "HOST:PORT"),
        (&[".", "--to", ":80"], "HOST:PORT"),
        (&[".", "--to", "127.0.0.1:80", "--device", "lo"], "--device"),
        (&[".", "--nonsense"], "--nonsense"),
        (&[".", "."], "'.'"),
    ] {
        check_refusal(arguments, &[named]);
    }
}

#[test]
fn an_address_without_a_route_is_named() {
    if !need_root("network namespaces") || !need("ip") {
        return;
    }
    let netns = Netns::new();
    for address in ["192.0.2.7", "2001:db8::7"] {
        let to = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut command = netns.command(program().to_str().unwrap());
        let output = command.args(["doctor", ".", "--to", &format!("{to}:80")]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(USAGE), "{message}");
        assert!(message.contains(&format!("no route leads to {address}")), "{message}");
    }
}

#[track_caller]
fn check_refusal(arguments: &[&str], named: &[&str]) {
    let output = pagewire(&["doctor"]).args(arguments).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    for part in named {
        assert!(message.contains(part), "{arguments:?} does not name {part}: {message}");
    }
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
}

/// The last line is the verdict, and colours are for terminals.
#[test]
fn a_person_reads_the_verdict_last() {
    let dir = plain_dir();
    let ask = |variables: &[(&str, &str)]| {
        let mut command = pagewire(&["doctor"]);
        command.arg(dir.path()).args(["--device", "lo"]).envs(variables.iter().copied());
        let output = command.env_remove("NO_COLOR").envs(variables.iter().copied()).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(YES));
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = ask(&[]);
    let dir_name = dir.path().canonicalize().unwrap();
    let verdict = format!(
        "YES: large files of {} leave by loopback without a copy by the CPU",
        dir_name.display()
    );
    assert_eq!(plain.lines().last(), Some(verdict.as_str()));
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = ask(&[("CLICOLOR_FORCE", "1")]);
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    let silenced = ask(&[("NO_COLOR", "1")]);
    assert_eq!(silenced, plain);
}

#[test]
fn settings_are_those_of_the_kernel() {
    let said = ask(plain_dir().path(), "--device lo");
    let setting = |path: &str| std::fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap();
    let congestion_control = setting("net/ipv4/tcp_congestion_control");
    assert_eq!(said.check("congestion-control")["value"], congestion_control.trim());
    assert_eq!(said.check("max-map-count")["value"], setting("vm/max_map_count").trim());
    let layers = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    let is_there = layers.is_ok_and(|layers| layers.split_whitespace().any(|name| name == "tls"));
    let tls = if is_there { "available" } else { "absent" };
    assert_eq!(said.check("ktls")["value"], tls);
}

/// docs/doctor.md is the promise of what `--json` has: each key and each check stands there.
#[test]
fn the_schema_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let said = ask(plain_dir().path(), "--device lo");
    let mut words = BTreeSet::new();
    collect_keys(&said.report, &mut words);
    let checks = said.report["checks"].as_array().unwrap();
    words.extend(checks.iter().map(|check| check["id"].as_str().unwrap().to_owned()));
    assert!(words.len() > 40, "{words:?}");
    for word in words {
        assert!(docs.contains(&format!("`{word}`")), "docs/doctor.md does not explain {word}");
    }
}

fn collect_keys(value: &Value, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                keys.insert(key.clone());
                collect_keys(value, keys);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_keys(value, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
