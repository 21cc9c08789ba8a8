//! The network device that traffic to an address leaves by, the devices it is stacked on, and
//! whether they take pages by reference. Asks the kernel; sends nothing. `pagewire doctor` calls.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::sys::ethtool::{feature_blocks, feature_names};

/// Why a device cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No route leads there (ENETUNREACH, EHOSTUNREACH, or a route that forbids it).
    #[error("no route leads to {address}")]
    NoRoute {
        /// Where it was to lead.
        address: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel routes by a device that it does not list.
    #[error("the kernel names device {index} for the way to {address}, and does not list it")]
    Unlisted {
        /// Where the way leads.
        address: IpAddr,
        /// The number of the device; 0 when it named none.
        index: u32,
    },
    /// Asking failed, or the answer has a form that is not known (`InvalidData`).
    #[error("asking the kernel for devices and routes failed")]
    Io(#[from] io::Error),
}

/// One network device, as the kernel lists it (RTM_GETLINK).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind of virtual device it is, by the kernel's name (`veth`, `bridge`, `vlan`);
    /// `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
    /// Whether it is up and has a carrier.
    pub is_running: bool,
    /// The device that has this one as a port: a bridge, a bond, a VRF.
    controller: Option<u32>,
    /// The device that this one lies on or, for a veth, its other end.
    other: Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    None,
    Here(u32),
    InAnotherNamespace,
}

/// What a device is to the one that traffic leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the one.
    Outermost,
    /// The one above lies on it (vlan, macvlan, tunnels): all traffic passes it.
    Lower,
    /// One of several below (bridge, bond, team): traffic may pass it.
    Port,
    /// The other end of a veth: traffic arrives here.
    Peer,
}

/// A device of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The device.
    pub device: Device,
    /// What it is to the one above.
    pub role: Role,
    /// How many devices are above it.
    pub depth: usize,
    /// Whether it lies on, or ends in, a device of another network namespace, which cannot be
    /// seen from here.
    pub leads_elsewhere: bool,
}

/// The devices of this network namespace at one moment.
#[derive(Clone, Debug)]
pub struct Devices(BTreeMap<u32, Device>);

impl Devices {
    /// Asks the kernel for all of them.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Io`].
    pub fn list() -> Result<Self, DeviceError> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut devices = BTreeMap::new();
        ask(question, NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                devices.insert(link.header.index, Device::of(link));
            }
        })?;
        Ok(Self(devices))
    }

    /// All of them, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.0.values()
    }

    /// The device of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Device> {
        self.iter().find(|device| device.name == name)
    }

    /// The loopback device; a network namespace always has one.
    #[must_use]
    pub fn loopback(&self) -> Option<&Device> {
        self.iter().find(|device| device.is_loopback)
    }

    /// The device by which traffic to `address` leaves (RTM_GETROUTE): the kernel looks up what
    /// a connection would take, so that an address of this host leads to loopback.
    ///
    /// # Errors
    ///
    /// Those of [`DeviceError`].
    pub fn toward(&self, address: SocketAddr) -> Result<&Device, DeviceError> {
        let ip = address.ip().to_canonical();
        let mut question = RouteMessage::default();
        question.header.address_family = ip.into();
        question.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(RouteAddress::from(ip)));
        if let SocketAddr::V6(address) = address
            && address.scope_id() != 0
        {
            question.attributes.push(RouteAttribute::Oif(address.scope_id()));
        }
        let mut index = 0;
        let asked = ask(RouteNetlinkMessage::GetRoute(question), 0, |answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else { return };
            for attribute in route.attributes {
                if let RouteAttribute::Oif(device) = attribute {
                    index = device;
                }
            }
        });
        match asked {
            Ok(()) => self.0.get(&index).ok_or(DeviceError::Unlisted { address: ip, index }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.into()),
            Err(source) => Err(DeviceError::NoRoute { address: ip, source }),
        }
    }

    /// `device` and all that it is stacked on, from above to below.
    #[must_use]
    pub fn stack(&self, device: &Device) -> Vec<Layer> {
        let mut layers = Vec::new();
        self.descend(device, Role::Outermost, 0, &mut layers);
        layers
    }

    fn descend(&self, device: &Device, role: Role, depth: usize, layers: &mut Vec<Layer>) {
        // A device may be reached in two ways: a vlan on a port of its own bridge.
        if layers.iter().any(|layer| layer.device.index == device.index) {
            return;
        }
        let leads_elsewhere = device.other == Other::InAnotherNamespace;
        layers.push(Layer { device: device.clone(), role, depth, leads_elsewhere });
        if role == Role::Peer {
            return;
        }
        if let Other::Here(index) = device.other
            && let Some(other) = self.0.get(&index)
        {
            let role = if device.is_pair() { Role::Peer } else { Role::Lower };
            self.descend(other, role, depth + 1, layers);
        }
        for port in self.iter().filter(|port| port.controller == Some(device.index)) {
            self.descend(port, Role::Port, depth + 1, layers);
        }
    }
}

impl Device {
    fn of(link: LinkMessage) -> Self {
        let flags = link.header.flags;
        let mut device = Self {
            index: link.header.index,
            name: String::new(),
            kind: None,
            is_loopback: flags.contains(LinkFlags::Loopback),
            is_running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            controller: None,
            other: Other::None,
        };
        let mut is_elsewhere = false;
        for attribute in link.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                device.name = name;
            } else if let LinkAttribute::Controller(index) = attribute {
                device.controller = Some(index);
            } else if let LinkAttribute::Link(index) = attribute {
                device.other = Other::Here(index);
            } else if let LinkAttribute::LinkNetNsId(_) = attribute {
                is_elsewhere = true;
            } else if let LinkAttribute::LinkInfo(infos) = attribute {
                device.kind = infos.into_iter().find_map(kind);
            }
        }
        if is_elsewhere {
            device.other = Other::InAnotherNamespace;
        }
        device
    }

    /// Whether it is one end of a pair, and what it sends arrives at the other.
    #[must_use]
    pub fn is_pair(&self) -> bool {
        matches!(self.kind.as_deref(), Some("veth" | "netkit"))
    }
}

fn kind(info: LinkInfo) -> Option<String> {
    if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None }
}

/// Sends one question to the kernel and hands each answer on, until the last.
fn ask(
    question: RouteNetlinkMessage,
    flags: u16,
    mut hand_on: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut question = NetlinkMessage::new(header, NetlinkPayload::from(question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let len = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            // Messages of a datagram begin at multiples of 4.
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(answer) = answer.payload {
                hand_on(answer);
            } else if let NetlinkPayload::Error(error) = answer.payload {
                return if error.code.is_some() { Err(error.to_io()) } else { Ok(()) };
            } else if let NetlinkPayload::Done(_) = answer.payload {
                return Ok(());
            }
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// The version of IP that packets have: checksums are offloaded for each alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IpVersion {
    V4,
    V6,
}

impl IpVersion {
    /// That of an address; of one of IPv4 within IPv6, the one on the wire.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// One thing that a device can do, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// Whether it does it.
    pub is_on: bool,
    /// Whether `ethtool -K` may change that.
    pub can_change: bool,
    /// Whether it was asked for: one that was and is off lacks something it builds on.
    pub is_requested: bool,
}

impl Feature {
    /// Two of which both are needed.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            is_on: self.is_on && other.is_on,
            can_change: self.can_change && other.can_change,
            is_requested: self.is_requested && other.is_requested,
        }
    }
}

/// What a device can do (SIOCETHTOOL, `ethtool -k`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(BTreeMap<String, Feature>);

impl Features {
    /// Asks the device of this name, of this network namespace.
    ///
    /// # Errors
    ///
    /// ENODEV when there is none; those of ioctl(2).
    pub fn of(device: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let names = feature_names(&socket, device)?;
        let blocks = feature_blocks(&socket, device)?;
        let state = |bit: usize| {
            let (block, mask) = (blocks.get(bit / 32)?, 1 << (bit % 32));
            let can_change = block.available & !block.never_changed & mask != 0;
            let (is_on, is_requested) = (block.active & mask != 0, block.requested & mask != 0);
            Some(Feature { is_on, can_change, is_requested })
        };
        let named = names.into_iter().enumerate();
        Ok(Self(named.filter_map(|(bit, name)| Some((name, state(bit)?))).collect()))
    }

    /// One by the kernel's name for it; off and fixed where the kernel does not know it.
    #[must_use]
    pub fn named(&self, name: &str) -> Feature {
        let unknown = Feature { is_on: false, can_change: false, is_requested: false };
        self.0.get(name).copied().unwrap_or(unknown)
    }

    /// A packet may consist of pieces that lie apart, such as a head and pages of a file. Without
    /// it the kernel copies them into one.
    #[must_use]
    pub fn scatter_gather(&self) -> Feature {
        self.named("tx-scatter-gather")
    }

    /// The device makes the checksum of TCP. Without it the kernel does, over a copy where pages
    /// are shared: a file's may change under it.
    #[must_use]
    pub fn checksum(&self, version: IpVersion) -> Feature {
        let generic = self.named("tx-checksum-ip-generic");
        let own = self.named(match version {
            IpVersion::V4 => "tx-checksum-ipv4",
            IpVersion::V6 => "tx-checksum-ipv6",
        });
        // A device has the generic one or those of the versions.
        Feature {
            is_on: generic.is_on || own.is_on,
            can_change: generic.can_change || own.can_change,
            is_requested: generic.is_requested || own.is_requested,
        }
    }

    /// The device cuts large packets into segments (TSO).
    #[must_use]
    pub fn segmentation(&self, version: IpVersion) -> Feature {
        self.named(match version {
            IpVersion::V4 => "tx-tcp-segmentation",
            IpVersion::V6 => "tx-tcp6-segmentation",
        })
    }

    /// The kernel cuts them just above the device (GSO), which costs no copy.
    #[must_use]
    pub fn late_segmentation(&self) -> Feature {
        self.named("tx-generic-segmentation")
    }

    /// The device encrypts TLS records that the kernel hands it.
    #[must_use]
    pub fn tls(&self) -> Feature {
        self.named("tls-hw-tx-offload")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_leads_to_loopback() {
        let devices = Devices::list().unwrap();
        let loopback = devices.loopback().unwrap();
        assert_eq!(devices.named("lo"), Some(loopback));
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(devices.toward(address.parse().unwrap()).unwrap(), loopback, "{address}");
        }
        let [layer] = &devices.stack(loopback)[..] else { panic!("a stack under loopback") };
        assert_eq!((layer.role, layer.depth, layer.leads_elsewhere), (Role::Outermost, 0, false));
    }

    #[test]
    fn loopback_takes_pages() {
        let features = Features::of("lo").unwrap();
        let gathers = features.scatter_gather();
        assert!(gathers.is_on && !gathers.can_change, "{gathers:?}");
        for version in [IpVersion::V4, IpVersion::V6] {
            assert!(features.checksum(version).is_on, "{version:?}");
        }
        assert!(!features.named("no such feature").is_on);
    }

    #[test]
    fn no_device_has_no_features() {
        assert!(Devices::list().unwrap().named("pagewire-none").is_none());
        assert!(Features::of("pagewire-none").is_err());
    }
}
