//! PURE: judges the routes from a directory, and the file system that it lies on.

use std::io::{self, ErrorKind};

use pagewire_engine::Route;
use pagewire_engine::proof::{Passage, ProofError};

use crate::doctor::facts::{Directory, Ground, Residency};
use crate::doctor::judge::{Findings, answer};
use crate::doctor::report::{
    Check, DirectoryReport, Group, MeasuredWith, PassageReport, Reason, RouteReport, State,
};
use crate::mount::Mount;

const MEMORY: [&str; 3] = ["tmpfs", "ramfs", "hugetlbfs"];
const MADE_UP: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs"];
/// As the engine's `Storage` has them.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse", "virtiofs"];

pub(crate) fn judge_routes(directory: &Directory, findings: &mut Findings) -> Vec<RouteReport> {
    let mut reports = Vec::new();
    for (route, passage) in &directory.passages {
        let report = report_route(*route, passage);
        let is_taken = report.passage != PassageReport::Refused
            && reports.iter().all(|report: &RouteReport| report.passage == PassageReport::Refused);
        findings.checks.push(route_check(*route, &report, is_taken));
        reports.push(report);
    }
    judge_taken(directory, &reports, findings);
    reports
}

/// Large files take the first route that is not refused.
fn judge_taken(directory: &Directory, reports: &[RouteReport], findings: &mut Findings) {
    let file_system = name_of(directory.mount.as_ref());
    let taken = reports.iter().find(|report| report.passage != PassageReport::Refused);
    match taken.map(|report| (report, report.passage)) {
        Some((_, PassageReport::ByReference)) => {}
        Some((report, PassageReport::NotMeasured)) => {
            let error = report.error.as_deref().unwrap_or("no reason");
            let what = format!("{} could not be measured ({error})", report.route);
            findings.unproven.push(Reason { what, fix: None });
        }
        Some((report, _)) => {
            let what = format!("{} from {file_system} copies", report.route);
            let fix = "serve from ext4, XFS, btrfs or tmpfs".to_owned();
            findings.copied.push(Reason { what, fix: Some(fix) });
        }
        None => {
            let what = format!("{file_system} refuses every route");
            findings.copied.push(Reason { what, fix: None });
        }
    }
    if let Ground::Memory(error) = &directory.ground {
        let path = directory.path.display();
        let what = format!("no file can be made in {path} to measure with ({error})");
        findings.unproven.push(Reason { what, fix: elsewhere(error).map(str::to_owned) });
    }
}

/// What may help who cannot make a file.
fn elsewhere(error: &io::Error) -> Option<&'static str> {
    if error.kind() == ErrorKind::PermissionDenied {
        return Some("run it as a user who may write there, such as root");
    }
    let may_write = "ask about a directory on a file system of the same type that takes files";
    (error.kind() == ErrorKind::ReadOnlyFilesystem).then_some(may_write)
}

fn report_route(route: Route, passage: &Result<Passage, ProofError>) -> RouteReport {
    let (passage, error) = match passage {
        Ok(Passage::ByReference) => (PassageReport::ByReference, None),
        Ok(_) => (PassageReport::Copied, None),
        Err(ProofError::RouteRefused { .. }) => (PassageReport::Refused, None),
        Err(error @ ProofError::Mixed { .. }) => (PassageReport::Copied, Some(error)),
        Err(error) => (PassageReport::NotMeasured, Some(error)),
    };
    RouteReport { route: route.name(), passage, error: error.map(ToString::to_string) }
}

/// `is_taken`: large files go this way.
fn route_check(route: Route, report: &RouteReport, is_taken: bool) -> Check {
    let is_large = matches!(route, Route::Sendfile | Route::Splice);
    let (state, value) = match report.passage {
        PassageReport::ByReference => (State::Good, "by reference"),
        PassageReport::Copied if is_taken => (State::Bad, "copied"),
        PassageReport::Copied if is_large => (State::Note, "copied"),
        PassageReport::Copied => (State::Info, "copied"),
        PassageReport::Refused => (State::Note, "refused"),
        PassageReport::NotMeasured => (State::Unknown, "not measured"),
    };
    let meaning = match (route, report.passage) {
        (_, PassageReport::Refused) => {
            "the kernel refuses it for files of this file system: the next route is taken"
        }
        (_, PassageReport::NotMeasured) => "the measurement failed",
        (Route::Splice, PassageReport::ByReference) => {
            "as sendfile, with one more system call a step"
        }
        (_, PassageReport::ByReference) => "the socket gets the file's own pages",
        (Route::Sendfile | Route::Splice, PassageReport::Copied) => {
            "the kernel copies every byte, though nothing enters this program"
        }
        (Route::MmapWrite, PassageReport::Copied) => {
            "one copy, into the socket; small files go this way, in one call with their head"
        }
        (_, PassageReport::Copied) => "two copies, into the program and into the socket",
    };
    let taken = if is_taken { "; large files go this way" } else { "" };
    let error = report.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
    let meaning = format!("{meaning}{taken}{error}");
    Check::new(Group::Routes, route.name(), state, value).meaning(meaning)
}

pub(crate) fn judge(directory: &Directory, findings: &mut Findings) -> DirectoryReport {
    let mount = directory.mount.as_ref();
    let measured_with = match directory.ground {
        Ground::Directory => MeasuredWith::Directory,
        Ground::Beside(_) => MeasuredWith::SameFileSystem,
        Ground::Memory(_) => MeasuredWith::Memory,
    };
    findings.checks.push(ground(&directory.ground));
    findings.checks.push(file_system(mount));
    if let Some(residency) = &directory.residency {
        findings.checks.extend(residency_checks(mount, residency));
    }
    findings.checks.push(beneath(&directory.beneath_lookups));
    findings.checks.push(cached(&directory.cached_lookups));
    DirectoryReport {
        path: directory.path.display().to_string(),
        file_system: mount.map(|mount| mount.file_system.clone()),
        mount_point: mount.map(|mount| mount.point.clone()),
        source: mount.map(|mount| mount.source.clone()),
        measured_with,
    }
}

fn ground(ground: &Ground) -> Check {
    let check = |state, value: &str| Check::new(Group::Directory, "measured-with", state, value);
    match ground {
        Ground::Directory => check(State::Good, "a file in the directory")
            .meaning("the routes above are those of its file system"),
        Ground::Beside(path) => check(State::Good, &format!("a file in {}", path.display()))
            .meaning("the directory takes none, and this one is on the same file system"),
        Ground::Memory(error) => {
            let check = check(State::Unknown, "a file in memory").meaning(format!(
                "the directory takes none ({error}): the routes above show what this kernel does \
                 with memory, not with this file system"
            ));
            Check { advice: elsewhere(error).map(str::to_owned), ..check }
        }
    }
}

fn name_of(mount: Option<&Mount>) -> &str {
    mount.map_or("its file system", |mount| &mount.file_system)
}

fn is_one_of(mount: Option<&Mount>, kinds: &[&str]) -> bool {
    // fuse.sshfs is FUSE, and fuseblk too.
    let kind = mount.map_or("", |mount| mount.file_system.split('.').next().unwrap_or_default());
    kinds.contains(&kind) || kind == "fuseblk" && kinds.contains(&"fuse")
}

fn file_system(mount: Option<&Mount>) -> Check {
    let Some(mount) = mount else {
        return Check::new(Group::Directory, "file-system", State::Unknown, "not found").meaning(
            "the kernel does not list the mount of the directory in /proc/self/mountinfo",
        );
    };
    let of = format!("{} from {} on {}", mount.file_system, mount.source, mount.point);
    let check = |state| Check::new(Group::Directory, "file-system", state, &of);
    if mount.has("dax=always") || mount.has("dax") {
        return check(State::Note)
            .meaning("files are not in the page cache (DAX): sendfile copies from the device")
            .advice("mount it without dax");
    }
    if is_one_of(Some(mount), &MEMORY) {
        return check(State::Good).meaning("files are in memory: no page is ever cold");
    }
    if is_one_of(Some(mount), &REMOTE) {
        return check(State::Note).meaning(
            "behind a server or a process: pages go by reference once they are here, and who \
             opens a file waits for as long as that hangs",
        );
    }
    match mount.file_system.as_str() {
        "overlay" => check(State::Note).meaning(
            "over other file systems: measured on the upper one; files of a lower one go as that \
             lets them",
        ),
        "zfs" => check(State::Note)
            .meaning("it has a cache of its own, from which pages are copied to the page cache"),
        kind if MADE_UP.contains(&kind) => check(State::Note)
            .meaning("its files are made while they are read: there is no page to pass on"),
        _ => check(State::Good).meaning("files go through the page cache of this kernel"),
    }
}

fn residency_checks(mount: Option<&Mount>, residency: &Residency) -> [Check; 2] {
    [cachestat(mount, &residency.cachestat), nowait_reads(mount, &residency.nowait_reads)]
}

fn cachestat(mount: Option<&Mount>, found: &io::Result<u64>) -> Check {
    let check = |state, value: &str| Check::new(Group::Directory, "cachestat", state, value);
    match found {
        _ if is_one_of(mount, &REMOTE) => {
            check(State::Info, "not asked").meaning("another host or process may hold its pages")
        }
        Ok(0) => check(State::Info, "blind")
            .meaning("the kernel keeps the pages of its files where cachestat does not look"),
        Ok(_) => check(State::Good, "answers")
            .meaning("the kernel says which pages are in memory, of files that this user owns"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            check(State::Info, "forbidden").meaning("single pages are asked instead")
        }
        Err(error) => check(State::Info, &format!("no ({error})"))
            .meaning("single pages are asked instead (it came with Linux 6.5)"),
    }
}

fn nowait_reads(mount: Option<&Mount>, found: &io::Result<()>) -> Check {
    let check = |state, value: &str| Check::new(Group::Directory, "rwf-nowait", state, value);
    let pool = "its files go by the pool of threads that brings cold pages in, window by window, \
        even when they are in memory";
    match found {
        _ if is_one_of(mount, &REMOTE) => check(State::Note, "not asked").meaning(pool),
        Ok(()) => check(State::Good, "answers")
            .meaning("whether a page is in memory can be asked without waiting for a disk"),
        Err(_) if is_one_of(mount, &MEMORY) => {
            check(State::Good, "no").meaning("nor need it: memory is never cold")
        }
        Err(error) => check(State::Note, &format!("no ({error})")).meaning(pool),
    }
}

fn beneath(found: &io::Result<()>) -> Check {
    let check = |state, value: &str| Check::new(Group::Directory, "openat2", state, value);
    match answer(found) {
        None => check(State::Good, "there").meaning("the kernel keeps names below the directory"),
        Some(error) => check(State::Note, &format!("no ({error})"))
            .meaning("`pagewire serve` cannot open files below the directory")
            .advice("Linux 5.6 or newer, and no filter of system calls that forbids openat2"),
    }
}

fn cached(found: &io::Result<()>) -> Check {
    let check = |state, value: &str| Check::new(Group::Directory, "resolve-cached", state, value);
    match answer(found) {
        None => check(State::Good, "there")
            .meaning("known names are opened at once; others by another thread"),
        Some(error) => check(State::Note, &format!("no ({error})"))
            .meaning("every file is opened by another thread (it came with Linux 5.12)"),
    }
}
