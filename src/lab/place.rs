//! Where work runs: on which processor, and in which network namespace. Whatever a thread starts
//! inherits both, so servers are started from a thread that was put there first.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, anyhow};
use rustix::thread::{
    CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_setaffinity,
};

use crate::lab::netns::Netns;

/// The processors that measurements use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processors {
    /// Servers run here.
    pub(crate) server: usize,
    /// The load runs here: another one, if there is another one.
    pub(crate) client: usize,
}

impl Processors {
    /// The first two that this process may use.
    pub(crate) fn first_two() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask for the processors")?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
        let server = allowed.next().context("this process may use no processor")?;
        Ok(Self { server, client: allowed.next().unwrap_or(server) })
    }

    /// Whether servers and load disturb each other.
    pub(crate) fn are_one(self) -> bool {
        self.server == self.client
    }
}

/// A processor and a network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    processor: usize,
    /// The one of this process, if none.
    network: Option<Arc<Netns>>,
    /// Where a server listens there.
    pub(crate) address: IpAddr,
}

impl Place {
    /// On `processor`, in the network of this process; servers listen on loopback.
    pub(crate) fn on(processor: usize) -> Self {
        Self { processor, network: None, address: Ipv4Addr::LOCALHOST.into() }
    }

    /// The same processor in another network, where servers listen on `address`.
    pub(crate) fn within(&self, network: &Arc<Netns>, address: IpAddr) -> Self {
        Self { processor: self.processor, network: Some(Arc::clone(network)), address }
    }

    /// Calls `work` on a thread that was put here.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let here = || {
            self.enter()?;
            work()
        };
        thread::scope(|scope| scope.spawn(here).join())
            .map_err(|_| anyhow!("a measuring thread panicked"))?
    }

    fn enter(&self) -> anyhow::Result<()> {
        let mut only = CpuSet::new();
        only.set(self.processor);
        sched_setaffinity(None, &only)
            .with_context(|| format!("cannot move to processor {}", self.processor))?;
        let Some(network) = &self.network else { return Ok(()) };
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter a network namespace")
    }
}
