//! A server whose configuration changes while it runs: sites are swapped, listeners come and go.
//! Connections stay; requests under way end on what they began with.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

use crate::error::StartError;
use crate::listen::{Listen, ListenAddress, Listener, Security};
use crate::serve::{Phase, Shared, listen};
use crate::sites::{Mount, Sites};

/// Hands a running [`Server`](crate::Server) another configuration.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<Order>);

/// What a reload did about the listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relistened {
    /// Addresses that are listened on since, with the ports that the kernel chose.
    pub opened: Vec<ListenAddress>,
    /// Those that are not any more. Their connections end after the responses under way.
    pub closed: Vec<ListenAddress>,
}

pub(crate) struct Order {
    listen: Vec<Listen>,
    sites: Vec<Mount>,
    done: oneshot::Sender<Result<Relistened, StartError>>,
}

impl Reloader {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(1);
        (Self(orders), queue)
    }

    /// Has the server listen on `listen` and serve `sites`, all of it or none. `None` when the
    /// server is ending.
    ///
    /// # Errors
    ///
    /// Those of [`Server::bind`](crate::Server::bind); then everything stays as it was.
    pub async fn reload(
        &self,
        listen: Vec<Listen>,
        sites: Vec<Mount>,
    ) -> Option<Result<Relistened, StartError>> {
        let (done, outcome) = oneshot::channel();
        self.0.send(Order { listen, sites, done }).await.ok()?;
        outcome.await.ok()
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

/// The listeners of a running server.
pub(crate) struct Doors {
    shared: Arc<Shared>,
    open: Vec<Door>,
    /// Of doors that were closed and still have connections.
    closing: Vec<watch::Sender<Phase>>,
    tasks: JoinSet<()>,
}

struct Door {
    /// As it was asked for.
    asked: Listen,
    bound: ListenAddress,
    /// For connections from now on.
    security: Arc<ArcSwap<Security>>,
    phase: watch::Sender<Phase>,
}

impl Door {
    fn is_for(&self, listen: &Listen) -> bool {
        self.asked.address == listen.address
    }
}

impl Doors {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: Vec::new(), closing: Vec::new(), tasks: JoinSet::new() }
    }

    pub(crate) fn open(&mut self, asked: Listen, listener: Listener) {
        let bound = listener.address().unwrap_or_else(|_| asked.address.clone());
        let security = Arc::new(ArcSwap::from_pointee(asked.security.clone()));
        let (phase, seen) = watch::channel(Phase::Serving);
        self.tasks.spawn(listen(listener, Arc::clone(&security), Arc::clone(&self.shared), seen));
        self.open.push(Door { asked, bound, security, phase });
        self.find_https_port();
    }

    /// Where clients are sent on to.
    fn find_https_port(&self) {
        let port = self.open.iter().find_map(|door| match (&door.bound, &**door.security.load()) {
            (ListenAddress::Tcp(address), Security::Tls(_)) => Some(address.port()),
            _ => None,
        });
        self.shared.set_https_port(port.unwrap_or(443));
    }

    pub(crate) fn all_reach(&self, phase: Phase) {
        let open = self.open.iter().map(|door| &door.phase);
        for sender in open.chain(&self.closing) {
            sender.send_replace(phase);
        }
    }

    /// Until the last connection of the last listener is gone.
    pub(crate) async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Does as ordered, and says what came of it.
    pub(crate) async fn obey(&mut self, order: Order) {
        let Order { listen, sites, done } = order;
        let outcome = self.reload(listen, sites).await;
        // Who ordered it may be gone.
        done.send(outcome).ok();
    }

    async fn reload(
        &mut self,
        listen: Vec<Listen>,
        mounts: Vec<Mount>,
    ) -> Result<Relistened, StartError> {
        // On a thread that may wait: the directories may lie behind a server that hangs.
        let digests = self.shared.sites.load().digests.clone();
        let sites = spawn_blocking(move || Sites::open(&mounts, &digests)).await;
        let sites =
            sites.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))?;
        let mut listeners = Vec::new();
        let addresses: Vec<_> = listen.iter().map(|listen| listen.address.clone()).collect();
        let is_open = |asked: &Listen| self.open.iter().any(|door| door.is_for(asked));
        for asked in listen.iter().filter(|asked| !is_open(asked)) {
            listeners.push((asked.clone(), Listener::bind(asked, &addresses)?));
        }
        self.shared.serve_instead(sites);
        let mut closed = Vec::new();
        let stays = |door: &Door| listen.iter().any(|listen| door.is_for(listen));
        let (stay, go): (_, Vec<_>) = self.open.drain(..).partition(stays);
        self.open = stay;
        for door in &self.open {
            if let Some(listen) = listen.iter().find(|listen| door.is_for(listen)) {
                door.security.store(Arc::new(listen.security.clone()));
            }
        }
        self.find_https_port();
        for door in go {
            door.phase.send_replace(Phase::Stopping);
            self.closing.push(door.phase);
            closed.push(door.bound);
        }
        self.closing.retain(|phase| phase.receiver_count() > 0);
        let known = self.open.len();
        for (asked, listener) in listeners {
            self.open(asked, listener);
        }
        let opened = self.open[known..].iter().map(|door| door.bound.clone()).collect();
        Ok(Relistened { opened, closed })
    }
}
