//! A pair of devices between two network namespaces of our own: nearer to a network than
//! loopback is, and its features can be taken away.

use std::net::Ipv4Addr;

use anyhow::Context;

use crate::lab::netns::{Netns, succeed};
use crate::lab::place::Place;
use crate::lab::stage::{CONGESTION_CONTROL, RENO};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Features of the sending device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    All,
    NoScatterGather,
    NoChecksumOffload,
}

impl Features {
    pub(crate) const ALL: [Self; 3] = [Self::All, Self::NoScatterGather, Self::NoChecksumOffload];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "veth",
            Self::NoScatterGather => "veth, sg off",
            Self::NoChecksumOffload => "veth, tx checksum off",
        }
    }

    /// In ethtool's words.
    fn flags(self) -> &'static str {
        match self {
            Self::All => "tx on sg on tso on gso on",
            Self::NoScatterGather => "tx on sg off",
            // What was off with scatter-gather comes back with it.
            Self::NoChecksumOffload => "sg on tx off",
        }
    }
}

/// The pair; it goes with its namespaces.
#[derive(Debug)]
pub(crate) struct Veth {
    pub(crate) server: Place,
    pub(crate) client: Place,
}

impl Veth {
    /// Makes it. Neither side paces: what is measured is the route.
    pub(crate) fn make(server: &Place, client: &Place) -> anyhow::Result<Self> {
        let (near, at_server) = Netns::make(server)?;
        let (far, at_client) = Netns::make(client)?;
        let pair = format!("ip link add va type veth peer name vb netns {}", far.path());
        for (place, lines) in [
            (&at_server, vec![pair, format!("ip address add {SERVER}/24 dev va")]),
            (&at_client, vec![format!("ip address add {CLIENT}/24 dev vb")]),
            (&at_server, vec!["ip link set va up".to_owned()]),
            (&at_client, vec!["ip link set vb up".to_owned()]),
        ] {
            place.run(|| {
                std::fs::write(CONGESTION_CONTROL, RENO).context("cannot choose reno")?;
                lines.iter().try_for_each(|line| succeed(line))
            })?;
        }
        Ok(Self {
            server: server.within(&near, SERVER.into()),
            client: client.within(&far, CLIENT.into()),
        })
    }

    /// Gives the sending device these features.
    pub(crate) fn set(&self, features: Features) -> anyhow::Result<()> {
        self.server.run(|| succeed(&format!("ethtool -K va {}", features.flags())))
    }
}
