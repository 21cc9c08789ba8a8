//! What the doctor says, as data: the schema of `--json`, which docs/doctor.md describes. A field
//! that goes or changes its meaning raises `VERSION`; one that comes does not.

use serde::Serialize;

pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    /// The version of this program.
    pub(crate) pagewire: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) directory: DirectoryReport,
    pub(crate) routes: Vec<RouteReport>,
    pub(crate) way: WayReport,
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// Do large files leave without a copy by the CPU of this host?
    pub(crate) answer: Answer,
    /// The same for a person, in one line.
    pub(crate) line: String,
    /// Why not; empty when they do.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) exit_status: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Yes,
    No,
    /// Nothing speaks against it, but it was not shown.
    Unproven,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    pub(crate) what: String,
    pub(crate) fix: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DirectoryReport {
    pub(crate) path: String,
    pub(crate) file_system: Option<String>,
    pub(crate) mount_point: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) measured_with: MeasuredWith,
}

/// Where the file lay that the routes were measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MeasuredWith {
    Directory,
    SameFileSystem,
    Memory,
}

#[derive(Debug, Serialize)]
pub(crate) struct RouteReport {
    pub(crate) route: &'static str,
    pub(crate) passage: PassageReport,
    /// What came instead of an answer.
    pub(crate) error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PassageReport {
    ByReference,
    Copied,
    /// The kernel refuses the route for files of this file system.
    Refused,
    NotMeasured,
}

#[derive(Debug, Serialize)]
pub(crate) struct WayReport {
    pub(crate) chosen_by: ChosenBy,
    /// The peer as it was named, and its address.
    pub(crate) to: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) device: String,
    pub(crate) layers: Vec<LayerReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChosenBy {
    To,
    Device,
    Internet,
    NoWayOut,
}

#[derive(Debug, Serialize)]
pub(crate) struct LayerReport {
    pub(crate) device: String,
    pub(crate) index: u32,
    pub(crate) kind: Option<String>,
    pub(crate) role: RoleReport,
    pub(crate) depth: usize,
    pub(crate) is_running: bool,
    /// It lies on, or ends in, a device of another network namespace.
    pub(crate) leads_elsewhere: bool,
    /// Whether it takes pages by reference; null where that is of no concern or was not found.
    pub(crate) takes_references: Option<bool>,
    pub(crate) features: Option<FeaturesReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoleReport {
    Outermost,
    Lower,
    Port,
    Peer,
}

#[derive(Debug, Serialize)]
pub(crate) struct FeaturesReport {
    pub(crate) scatter_gather: FeatureReport,
    /// For the versions of IP in question; where there are two, what both have.
    pub(crate) checksum: FeatureReport,
    pub(crate) segmentation: FeatureReport,
    pub(crate) tls: FeatureReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FeatureReport {
    pub(crate) on: bool,
    pub(crate) can_change: bool,
}

/// One line: what it is, its state, what that means for copies, what to do about it.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) group: Group,
    pub(crate) id: &'static str,
    /// The device that it is about, in the group of the device.
    pub(crate) device: Option<String>,
    pub(crate) state: State,
    pub(crate) value: String,
    pub(crate) meaning: String,
    pub(crate) advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    Routes,
    Directory,
    Device,
    Kernel,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Good,
    /// Of no effect on copies.
    Info,
    /// Costs something, but no copy of large files.
    Note,
    /// Large files are copied.
    Bad,
    Unknown,
}

impl Check {
    pub(crate) fn new(group: Group, id: &'static str, state: State, value: &str) -> Self {
        let (device, meaning, advice) = (None, String::new(), None);
        Self { group, id, device, state, value: value.to_owned(), meaning, advice }
    }

    pub(crate) fn meaning(mut self, text: impl Into<String>) -> Self {
        self.meaning = text.into();
        self
    }

    pub(crate) fn advice(mut self, text: impl Into<String>) -> Self {
        self.advice = Some(text.into());
        self
    }

    pub(crate) fn of_device(mut self, name: &str) -> Self {
        self.device = Some(name.to_owned());
        self
    }
}
