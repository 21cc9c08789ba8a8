//! `pagewire lab`: every experiment in a small run, what it refuses, and that nothing stays
//! behind. No figure that depends on time is looked at.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{heavy, need, need_root, open_dir, pagewire, program, wait_until};

/// Enough to go through everything once.
const SMALL: [&str; 8] =
    ["--size", "1M", "--seconds", "0.05", "--rounds", "1", "--connections", "120"];
const EXPERIMENTS: [&str; 6] = ["routes", "sizes", "steps", "cold", "peers", "connections"];
const TRACED: &str = "traced_calls_per_mib";
const RATE: &str = "rate_bytes_per_second";

/// A directory for the lab's files, with a report beside.
struct Stage {
    home: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let home = open_dir();
        let files = home.path().join("files");
        fs::create_dir(&files).unwrap();
        for dir in [home.path(), &files] {
            // Another user than the one of the tests may write here.
            fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        }
        Stage { home }
    }

    fn files(&self) -> PathBuf {
        self.home.path().join("files")
    }

    fn report(&self, kind: &str) -> PathBuf {
        self.home.path().join("report").with_extension(kind)
    }

    /// The arguments of a small run that writes its report as JSON.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pagewire(&["lab"]);
        self.fill(&mut command, arguments);
        command
    }

    fn fill(&self, command: &mut Command, arguments: &[&str]) {
        command.args(arguments).args(SMALL).arg("--json").arg(self.report("json"));
        // All that the lab makes lies there.
        command.env("TMPDIR", self.files()).stdin(Stdio::null());
    }

    #[track_caller]
    fn read(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.report("json")).unwrap()).unwrap()
    }

    /// Command lines that name the lab's files: the lab itself, and its servers.
    fn processes(&self) -> Vec<String> {
        let home = self.home.path().to_str().unwrap();
        let dirs = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = dirs.filter_map(|dir| fs::read_to_string(dir.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(home)).collect()
    }

    /// No file, no process, no cgroup. Network namespaces have no names: they went with the
    /// processes.
    #[track_caller]
    fn check_nothing_left(&self, lab: u32) {
        let left: Vec<_> = fs::read_dir(self.files()).unwrap().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        wait_until("the end of all servers", || self.processes().is_empty().then_some(()));
        let ours = format!("pagewire-lab-{lab}-");
        let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/blkio"].map(fs::read_dir);
        for group in groups.into_iter().flatten().flatten().filter_map(Result::ok) {
            assert!(!group.file_name().to_string_lossy().starts_with(&ours), "{group:?} is left");
        }
    }
}

/// The number of the process, and what it wrote; it must succeed.
#[track_caller]
fn succeed(mut command: Command) -> (u32, Output) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (pid, output) = (child.id(), child.wait_with_output().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {said}", output.status);
    (pid, output)
}

/// The command must end by itself with `code` and name all of `named` on stderr.
#[track_caller]
fn check_refusal(command: &mut Command, code: i32, named: &[&str]) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    for part in named {
        assert!(said.contains(part), "{command:?} does not name {part}: {said}");
    }
    assert!(!said.contains("panicked"), "{command:?}: {said}");
}

/// The cell of `column` in the row of `table` with these keys.
#[track_caller]
fn cell<'a>(
    report: &'a Value,
    experiment: &str,
    table: &str,
    keys: &[&str],
    column: &str,
) -> &'a Value {
    let named = |list: &'a Value, name: &str| {
        let found = list.as_array().unwrap().iter().position(|each| each["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {list}"))
    };
    let experiments = &report["experiments"];
    let tables = &experiments[named(experiments, experiment)]["tables"];
    let table = &tables[named(tables, table)];
    let column = named(&table["columns"], column);
    let rows = table["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["keys"] == serde_json::json!(keys));
    &row.unwrap_or_else(|| panic!("no row {keys:?} in {table}"))["cells"][column]
}

#[track_caller]
fn median(report: &Value, experiment: &str, table: &str, keys: &[&str], column: &str) -> f64 {
    let cell = cell(report, experiment, table, keys, column);
    cell["measured"]["median"].as_f64().unwrap_or_else(|| panic!("{keys:?} {column}: {cell}"))
}

/// All that must hold of any report, whoever ran it.
#[track_caller]
fn check_report(report: &Value, experiments: &[&str]) {
    assert_eq!(report["schema"], 1);
    assert_eq!(report["interrupted"], false);
    for key in ["pagewire", "command", "started", "seconds", "machine"] {
        assert!(!report[key].is_null(), "{key}");
    }
    let names = report["experiments"].as_array().unwrap().iter().map(|each| &each["name"]);
    assert_eq!(names.collect::<Vec<_>>(), experiments);
    for experiment in report["experiments"].as_array().unwrap() {
        for key in ["title", "question", "finding"] {
            assert_ne!(experiment[key], "", "{} of {}", key, experiment["name"]);
        }
        assert!(!experiment["tables"].as_array().unwrap().is_empty(), "{experiment}");
    }
}

/// What the routes cost in calls and copies depends on no clock.
#[track_caller]
fn check_routes(report: &Value) {
    let calls = |route, column| median(report, "routes", "calls", &[route], column);
    let textbook =
        |route, column| median(report, "routes", "textbook", &["loopback", route], column);
    for (route, switches, into_process, into_socket) in [
        ("sendfile", 2.0, 0.0, 0.0),
        ("splice", 4.0, 0.0, 0.0),
        ("mmap-write", 2.0, 0.0, 1.0),
        ("read-write", 4.0, 1.0, 1.0),
    ] {
        assert_eq!(textbook(route, "switches_per_step"), switches, "{route}");
        // Where the kernel's copy functions are counted, a few other bytes pass them as well.
        for (column, copies) in
            [("copies_into_process", into_process), ("copies_into_socket", into_socket)]
        {
            let found = textbook(route, column);
            assert!((found - copies).abs() < 0.05, "{route}, {column}: {found}");
        }
        assert_eq!(calls(route, "user_copies"), into_process, "{route}");
    }
    assert!(calls("sendfile", "calls_per_mib") < calls("read-write", "calls_per_mib"));
}

#[test]
fn every_experiment_as_whoever_runs_the_tests() {
    let _turn = heavy();
    let stage = Stage::new();
    let mut command = stage.command(&["--verify"]);
    command.arg("--csv").arg(stage.report("csv")).arg("--html").arg(stage.report("html"));
    let (lab, output) = succeed(command);
    let report = stage.read();
    check_report(&report, &EXPERIMENTS);
    check_routes(&report);
    let rate = median(&report, "peers", "large_files", &["1048576", "8", "pagewire"], RATE);
    assert!(rate > 0.0);
    median(&report, "sizes", "sizes", &["1024", "auto"], "cpu_cs_per_gb");
    median(&report, "steps", "steps", &["4", "65536"], "cpu_cs_per_gb");
    median(&report, "connections", "connections", &["100", "pagewire"], "connection_bytes");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("sendfile") && shown.contains("pagewire"), "{shown}");
    let html = fs::read_to_string(stage.report("html")).unwrap();
    assert!(html.contains("<svg") && html.trim_end().ends_with("</html>"), "{html}");
    let csv = fs::read_to_string(stage.report("csv")).unwrap();
    assert!(csv.lines().count() > 100, "{csv}");
    stage.check_nothing_left(lab);
}

/// As an ordinary user: the same experiments, and words for what only root can.
#[test]
fn every_experiment_as_an_ordinary_user() {
    if !need_root("becoming an ordinary user") || !need("setpriv") {
        return;
    }
    let _turn = heavy();
    let stage = Stage::new();
    // The build folder may lie where that user may not look.
    let copy = stage.home.path().join("pagewire");
    fs::copy(program(), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).arg("lab");
    stage.fill(&mut command, &[]);
    let (lab, _) = succeed(command);
    let report = stage.read();
    check_report(&report, &EXPERIMENTS);
    check_routes(&report);
    assert_eq!(report["machine"]["root"], false);
    for (experiment, wish) in [(0, "root"), (2, "root"), (3, "root")] {
        let notes = report["experiments"][experiment]["notes"].to_string();
        assert!(notes.contains(wish), "{notes}");
    }
    stage.check_nothing_left(lab);
}

/// Through a device: the oracle's answer follows the device's features, and steps cost something.
#[test]
fn routes_and_steps_through_a_device() {
    if !need_root("network namespaces") || !need("ip") || !need("ethtool") || !need("strace") {
        return;
    }
    let _turn = heavy();
    let stage = Stage::new();
    let (lab, _) = succeed(stage.command(&["routes", "steps"]));
    let report = stage.read();
    assert!(median(&report, "steps", "steps_veth", &["4", "2097152"], "cpu_cs_per_gb") > 0.0);
    for (network, passage, copies) in [
        ("loopback", "by reference", 0.0),
        ("veth", "by reference", 0.0),
        ("veth, sg off", "copied", 1.0),
        ("veth, tx checksum off", "copied", 1.0),
    ] {
        for route in ["sendfile", "splice"] {
            let keys = [network, route];
            let said = cell(&report, "routes", "textbook", &keys, "passage");
            assert_eq!(said["said"], passage, "{keys:?}");
            let found = median(&report, "routes", "textbook", &keys, "copies_for_device");
            assert!((found - copies).abs() < 0.05, "{keys:?}: {found}");
        }
    }
    // Two witnesses: the meter counts calls that carry bytes of the file, the kernel also those
    // that carry requests.
    let calls = |route, column| median(&report, "routes", "calls", &[route], column);
    for route in ["sendfile", "splice", "mmap-write", "read-write"] {
        let (meter, strace) = (calls(route, "calls_per_mib"), calls(route, TRACED));
        assert!(strace >= meter, "{route}: {meter} and {strace}");
    }
    assert!(calls("sendfile", TRACED) < calls("read-write", TRACED));
    stage.check_nothing_left(lab);
}

#[test]
fn an_interrupted_run_cleans_up_and_writes_what_it_has() {
    let _turn = heavy();
    for signal in [Signal::INT, Signal::TERM] {
        let stage = Stage::new();
        // Hours, if nobody ended it.
        let mut command = pagewire(&["lab", "cold", "peers", "--size", "1M", "--seconds", "3600"]);
        command.arg("--json").arg(stage.report("json")).env("TMPDIR", stage.files());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let lab = child.id();
        wait_until("the lab and a server", || (stage.processes().len() > 1).then_some(()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        assert_eq!(stage.read()["interrupted"], true);
        stage.check_nothing_left(lab);
    }
}

#[test]
fn usage_errors() {
    for (arguments, named) in [
        (&["lab", "teleport"][..], "teleport"),
        (&["lab", "--size", "1T"], "1T"),
        (&["lab", "--size", "512"], "512"),
        (&["lab", "--seconds", "0"], "--seconds"),
        (&["lab", "--rounds", "0"], "--rounds"),
        (&["lab", "--connections", "0"], "--connections"),
    ] {
        check_refusal(&mut pagewire(arguments), 2, &[named]);
    }
}

#[test]
fn places_that_cannot_be_written_to() {
    let stage = Stage::new();
    let missing = stage.files().join("missing");
    let missing = missing.to_str().unwrap();
    check_refusal(&mut pagewire(&["lab", "steps", "--dir", missing]), 1, &[missing, "--dir"]);
    let json = format!("{missing}/report.json");
    let mut command = pagewire(&["lab", "steps", "--json", &json]);
    check_refusal(command.env("TMPDIR", stage.files()), 1, &[&json]);
    stage.check_nothing_left(0);
}

#[test]
fn no_space_is_told_before_anything_is_measured() {
    if !need_root("mounting a small file system") {
        return;
    }
    let stage = Stage::new();
    let files = stage.files();
    let files = files.to_str().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=80m", "pagewire-lab-test", files];
    succeed({
        let mut command = Command::new("mount");
        command.args(mount);
        command
    });
    let mut command = pagewire(&["lab", "peers", "steps", "--size", "1G", "--dir", files]);
    check_refusal(&mut command, 1, &[files, "bytes", "--size"]);
    // What is never cold is not measured, and says so.
    let mut command = stage.command(&["cold"]);
    let (lab, _) = succeed({
        command.args(["--dir", files]);
        command
    });
    let report = stage.read();
    let finding = report["experiments"][0]["finding"].as_str().unwrap();
    assert!(finding.contains("in memory") && finding.contains("--dir"), "{finding}");
    stage.check_nothing_left(lab);
    succeed({
        let mut command = Command::new("umount");
        command.arg(files);
        command
    });
}

#[test]
fn without_peers() {
    let stage = Stage::new();
    let mut command = stage.command(&["peers"]);
    check_refusal(command.env("PATH", stage.files()), 1, &["no peer", "nginx", "miniserve"]);
}

/// A peer that does not start is told in its own words, and the others are measured.
#[test]
fn a_peer_that_does_not_start() {
    let _turn = heavy();
    let stage = Stage::new();
    let peers = stage.home.path().join("peers");
    fs::create_dir(&peers).unwrap();
    let peer = peers.join("lighttpd");
    fs::write(&peer, "#!/bin/sh\necho 'out of cheese' >&2\nexit 3\n").unwrap();
    fs::set_permissions(&peer, Permissions::from_mode(0o755)).unwrap();
    let mut command = stage.command(&["peers"]);
    check_refusal(command.env("PATH", &peers), 1, &["lighttpd", "out of cheese", "exit status: 3"]);
    let report = stage.read();
    let large = |server| ["1048576", "8", server];
    assert!(median(&report, "peers", "large_files", &large("pagewire"), RATE) > 0.0);
    let missing =
        cell(&report, "peers", "large_files", &large("lighttpd"), RATE)["missing"].clone();
    assert!(missing.as_str().unwrap().contains("out of cheese"), "{missing}");
    stage.check_nothing_left(0);
}

#[test]
fn a_report_is_shown_again() {
    let _turn = heavy();
    let stage = Stage::new();
    let (_, first) = succeed(stage.command(&["steps"]));
    let json = stage.report("json");
    let mut command = pagewire(&["lab", "--from"]);
    command.arg(&json);
    let (_, again) = succeed(command);
    assert_eq!(String::from_utf8(again.stdout), String::from_utf8(first.stdout));
    fs::write(&json, "{}").unwrap();
    let mut command = pagewire(&["lab", "--from"]);
    check_refusal(command.arg(&json), 1, &[json.to_str().unwrap()]);
}

#[test]
fn configurations_are_shown() {
    let (_, output) = succeed(pagewire(&["lab", "--show-config"]));
    let shown = String::from_utf8(output.stdout).unwrap();
    for part in ["sendfile on;", "server.network-backend", "file_server", "http.server"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
