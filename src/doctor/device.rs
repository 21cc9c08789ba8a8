//! PURE: judges the devices that traffic leaves by. A device takes a file's pages by reference
//! when it gathers and makes the checksum (docs/routes.md has it measured).

use std::io;

use pagewire_engine::device::{Feature, Features, IpVersion, Layer, Role};

use crate::doctor::facts::{Chosen, Way};
use crate::doctor::judge::Findings;
use crate::doctor::report::{
    Check, ChosenBy, FeatureReport, FeaturesReport, Group, LayerReport, Reason, RoleReport, State,
    WayReport,
};

/// Kinds of devices behind which every byte is made anew, whatever their features say.
const REMAKING: [(&str, &str); 7] = [
    ("tun", "a program reads its packets, such as a VPN or a virtual machine, and copies them"),
    ("wireguard", ENCRYPTS),
    ("ovpn", ENCRYPTS),
    ("xfrm", ENCRYPTS),
    ("vti", ENCRYPTS),
    ("vti6", ENCRYPTS),
    ("macsec", ENCRYPTS),
];
const ENCRYPTS: &str = "it encrypts, so that the CPU makes every byte anew";

pub(crate) fn judge(way: &Way, findings: &mut Findings) -> WayReport {
    let mut layers = Vec::new();
    for (layer, features) in &way.layers {
        layers.push(judge_layer(layer, features, &way.versions, findings));
    }
    let (chosen_by, to, address) = match &way.chosen {
        Chosen::To(target, address) => {
            (ChosenBy::To, Some(target.to_string()), Some(address.ip().to_string()))
        }
        Chosen::Named => (ChosenBy::Device, None, None),
        Chosen::Internet => (ChosenBy::Internet, None, None),
        Chosen::NoWayOut => (ChosenBy::NoWayOut, None, None),
    };
    let device = layers.first().map(|layer| layer.device.clone()).unwrap_or_default();
    WayReport { chosen_by, to, address, device, layers }
}

fn judge_layer(
    layer: &Layer,
    features: &io::Result<Features>,
    versions: &[IpVersion],
    findings: &mut Findings,
) -> LayerReport {
    let device = &layer.device;
    let mut report = LayerReport {
        device: device.name.clone(),
        index: device.index,
        kind: device.kind.clone(),
        role: role(layer.role),
        depth: layer.depth,
        is_running: device.is_running,
        leads_elsewhere: layer.leads_elsewhere,
        takes_references: None,
        features: None,
    };
    findings.checks.push(position(layer));
    if layer.role == Role::Peer {
        return report;
    }
    let features = match features {
        Ok(features) => features,
        Err(error) => {
            let name = &device.name;
            let check = Check::new(Group::Device, "features", State::Unknown, "not told");
            let meaning = format!("whether it takes pages by reference is not known: {error}");
            findings.checks.push(check.of_device(name).meaning(meaning));
            let what = format!("{name} does not tell its features ({error})");
            findings.unproven.push(Reason { what, fix: None });
            return report;
        }
    };
    let features = features_of(features, versions);
    let is_passed = layer.role != Role::Port || device.is_running;
    findings.checks.extend(feature_checks(&device.name, &features, is_passed));
    let remade = remade(device.kind.as_deref());
    let missing = features.missing();
    report.takes_references = Some(missing.is_empty() && remade.is_none());
    report.features = Some(features.report());
    if is_passed {
        let what = |why: &str| format!("{}: {why}", device.name);
        if let Some(why) = remade {
            findings.copied.push(Reason { what: what(why), fix: None });
        }
        if !missing.is_empty() {
            let what = what(&format!("{} off", missing.join(" and ")));
            findings.copied.push(Reason { what, fix: features.fix(&device.name) });
        }
    }
    report
}

fn role(role: Role) -> RoleReport {
    match role {
        Role::Lower => RoleReport::Lower,
        Role::Port => RoleReport::Port,
        Role::Peer => RoleReport::Peer,
        Role::Outermost => RoleReport::Outermost,
    }
}

fn remade(kind: Option<&str>) -> Option<&'static str> {
    REMAKING.iter().find(|(name, _)| kind == Some(name)).map(|(_, why)| *why)
}

/// The line that says what the device is, and what it is to the one above.
fn position(layer: &Layer) -> Check {
    let device = &layer.device;
    let kind = match (device.is_loopback, device.kind.as_deref()) {
        (true, _) => "loopback",
        (false, None) => "network card",
        (false, Some(kind)) => kind,
    };
    let carrier = if device.is_running { "" } else { ", down" };
    let check = Check::new(Group::Device, "kind", State::Info, &format!("{kind}{carrier}"));
    let check = check.of_device(&device.name);
    let is_pair = device.is_pair();
    let meaning = match layer.role {
        Role::Peer => {
            "the other end: it receives, which copies nothing; where it forwards to is \
            not followed"
        }
        Role::Port if !device.is_running => "a port that carries nothing now",
        Role::Port => "a port: traffic may leave by it",
        _ if layer.leads_elsewhere && is_pair => {
            "the other end lies in another network namespace: run the doctor there for what \
             comes after"
        }
        _ if layer.leads_elsewhere => {
            "it lies on a device of another network namespace: run the doctor there too"
        }
        Role::Lower => "the device above lies on it: all traffic passes it",
        Role::Outermost if device.is_loopback => {
            "nothing leaves this host; the receiving program copies, whatever the sender does"
        }
        Role::Outermost if device.kind.is_some() => "traffic leaves by it",
        Role::Outermost => {
            "traffic leaves by it; what the card does, or the host of a virtual machine, cannot be \
             seen from here"
        }
    };
    match remade(device.kind.as_deref()) {
        None => check.meaning(meaning),
        Some(why) => Check { state: State::Bad, ..check }.meaning(format!("{meaning}; {why}")),
    }
}

/// What of the features matters, for all versions of IP in question.
struct Considered {
    scatter_gather: Feature,
    checksum: Feature,
    segmentation: Feature,
    late_segmentation: Feature,
    tls: Feature,
}

fn features_of(features: &Features, versions: &[IpVersion]) -> Considered {
    let all = |feature: &dyn Fn(IpVersion) -> Feature| {
        let mut found = versions.iter().map(|version| feature(*version));
        let first = found.next().unwrap_or_else(|| feature(IpVersion::V4));
        found.fold(first, Feature::and)
    };
    Considered {
        scatter_gather: features.scatter_gather(),
        checksum: all(&|version| features.checksum(version)),
        segmentation: all(&|version| features.segmentation(version)),
        late_segmentation: features.late_segmentation(),
        tls: features.tls(),
    }
}

impl Considered {
    fn missing(&self) -> Vec<&'static str> {
        let needed = [("scatter-gather", self.scatter_gather), ("checksum offload", self.checksum)];
        needed.iter().filter(|(_, feature)| !feature.is_on).map(|(name, _)| *name).collect()
    }

    /// The command that turns on what is off, where that may help.
    fn fix(&self, device: &str) -> Option<String> {
        let switches = [("sg", self.scatter_gather), ("tx", self.checksum)];
        let missing = || switches.iter().filter(|(_, feature)| !feature.is_on);
        if missing().any(|(_, feature)| !feature.can_change || feature.is_requested) {
            return None;
        }
        let switches: Vec<_> = missing().map(|(switch, _)| format!("{switch} on")).collect();
        Some(format!("ethtool -K {device} {}", switches.join(" ")))
    }

    fn report(&self) -> FeaturesReport {
        let report =
            |feature: Feature| FeatureReport { on: feature.is_on, can_change: feature.can_change };
        FeaturesReport {
            scatter_gather: report(self.scatter_gather),
            checksum: report(self.checksum),
            segmentation: report(self.segmentation),
            tls: report(self.tls),
        }
    }
}

fn feature_checks(device: &str, features: &Considered, is_passed: bool) -> Vec<Check> {
    let off = if is_passed { State::Bad } else { State::Note };
    let scatter_gather = check(
        ("scatter-gather", features.scatter_gather, off),
        "packets are made of the file's pages where they lie",
        "the kernel copies every packet into one piece for it",
    );
    let checksum = check(
        ("checksum", features.checksum, off),
        "the device makes the checksum of TCP: the CPU need not touch the bytes",
        "the kernel makes the checksum, over a copy of every packet",
    );
    let cut = if features.late_segmentation.is_on {
        "the kernel cuts large packets just above the device: no copy, more CPU a byte"
    } else {
        "TCP makes every packet by itself: no copy, much more CPU a byte"
    };
    let segmentation = check(
        ("segmentation", features.segmentation, State::Note),
        "the device cuts large packets into segments: the least CPU a byte",
        cut,
    );
    // Few devices can: no fault of this host.
    let tls = check(
        ("tls-offload", features.tls, State::Info),
        "the device can encrypt TLS records, without a copy with --tls-records kernel-immutable",
        "TLS records would be encrypted by the CPU",
    );
    let with_advice = |(check, switch, feature): (Check, &str, Feature)| {
        let check = check.of_device(device);
        if feature.is_on {
            return check;
        }
        check.advice(if feature.is_requested {
            "it was asked for and is off: a device below, or another feature, does not allow it"
                .to_owned()
        } else if feature.can_change {
            format!("ethtool -K {device} {switch} on")
        } else {
            "this device or its driver cannot: take another one".to_owned()
        })
    };
    let mut checks: Vec<Check> = [
        (scatter_gather, "sg", features.scatter_gather),
        (checksum, "tx", features.checksum),
        (segmentation, "tso", features.segmentation),
    ]
    .map(with_advice)
    .into();
    checks.push(tls.of_device(device));
    checks
}

/// A feature that is good where it is on, and `off` where it is not.
fn check(
    (id, feature, off): (&'static str, Feature, State),
    meaning_on: &str,
    meaning_off: &str,
) -> Check {
    let fixed = if feature.can_change { "" } else { ", fixed" };
    let (word, meaning) = if feature.is_on { ("on", meaning_on) } else { ("off", meaning_off) };
    let state = if feature.is_on { State::Good } else { off };
    Check::new(Group::Device, id, state, &format!("{word}{fixed}")).meaning(meaning)
}
