//! The places of connections: so many in all, so many an address. Full, the connection that has
//! been idle longest makes room.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pagewire_engine::Patience;

use crate::refusals::Refusal;

/// The places of one server.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
    /// Runs out sooner while more than half of the places are taken.
    pub(crate) patience: Arc<Patience>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Connections that are between two requests, in the order in which they became so.
    idle: BTreeMap<u64, Waker>,
    /// The key of the next one that is idle.
    next_idle: u64,
}

impl Taken {
    /// Has the connection that has been idle longest end. False where none is.
    fn ask_for_room(&mut self) -> bool {
        let longest = self.idle.pop_first();
        longest.map(|(_, waker)| waker.wake()).is_some()
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    address: Option<IpAddr>,
}

impl Slots {
    pub(crate) fn new(max: usize, per_address_max: usize, patience: Patience) -> Self {
        Self { max, per_address_max, taken: Mutex::default(), patience: Arc::new(patience) }
    }

    /// A place for a connection from `address`; from this host without one (a Unix socket) if
    /// `None`.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Slot, Refusal> {
        let address = address.map(network_of);
        let mut taken = self.lock();
        let is_full = taken.total >= self.max;
        if is_full && taken.idle.is_empty() {
            return Err(Refusal::Connections);
        }
        let of_address = address.and_then(|address| taken.by_address.get(&address));
        if of_address.is_some_and(|count| *count >= self.per_address_max) {
            return Err(Refusal::Address);
        }
        // Who makes room takes a moment to go, and that one place more is there: a part of the
        // descriptors is kept back.
        if is_full {
            taken.ask_for_room();
        }
        if let Some(address) = address {
            *taken.by_address.entry(address).or_default() += 1;
        }
        taken.total += 1;
        self.patience.press(taken.total * 2 > self.max);
        Ok(Slot { slots: Arc::clone(self), address })
    }

    /// Has the connection that has been idle longest end. False where none is.
    pub(crate) fn ask_for_room(&self) -> bool {
        self.lock().ask_for_room()
    }

    /// Ready when this idle connection is to make room.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { slots: self, key: None }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    pub(crate) fn taken(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An idle connection, from its first poll on.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    slots: &'a Slots,
    key: Option<u64>,
}

impl Future for Wanted<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut taken = self.slots.lock();
        let Some(key) = self.key else {
            let key = taken.next_idle;
            taken.next_idle += 1;
            taken.idle.insert(key, cx.waker().clone());
            drop(taken);
            self.key = Some(key);
            return Poll::Pending;
        };
        if let Some(waker) = taken.idle.get_mut(&key) {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        drop(taken);
        self.key = None;
        Poll::Ready(())
    }
}

/// Who was asked and has become busy at the same moment passes it on.
impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut taken = self.slots.lock();
        if taken.idle.remove(&key).is_none() {
            taken.ask_for_room();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &self.slots;
        let mut taken = slots.lock();
        taken.total -= 1;
        slots.patience.press(taken.total * 2 > slots.max);
        if let Some(address) = self.address
            && let Some(count) = taken.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

/// What one client can be told by: an IPv6 one has a whole /64 to choose from (RFC 6177).
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pagewire_engine::Tolerance;

    use super::*;

    fn slots(max: usize, per_address_max: usize) -> Arc<Slots> {
        let tolerance = Tolerance { stalled_max: Duration::from_secs(60), pace_min: 0 };
        let patience = Patience::new(tolerance, tolerance);
        Arc::new(Slots::new(max, per_address_max, patience))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn places_come_back() {
        let slots = slots(3, 2);
        let held = [slots.take(address("10.0.0.1")), slots.take(address("10.0.0.1"))];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(slots.take(address("10.0.0.1")).unwrap_err(), Refusal::Address);
        let other = slots.take(address("::ffff:10.0.0.2")).unwrap();
        assert_eq!(slots.take(None).unwrap_err(), Refusal::Connections);
        drop((held, other));
        assert_eq!(slots.taken(), 0);
        assert!(slots.lock().by_address.is_empty());
        assert!(slots.take(address("10.0.0.1")).is_ok());
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let slots = slots(9, 1);
        let _one = slots.take(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(slots.take(address("2001:db8:0:1:ffff::9")).unwrap_err(), Refusal::Address);
        assert!(slots.take(address("2001:db8:0:2::1")).is_ok());
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room() {
        let slots = slots(2, 2);
        let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..2 {
            let slot = slots.take(None).unwrap();
            let (idle, told) = (Arc::clone(&slots), told.clone());
            tokio::spawn(async move {
                idle.wanted().await;
                told.send(number).unwrap();
                drop(slot);
            });
            tokio::task::yield_now().await;
        }
        let third = slots.take(None);
        assert!(third.is_ok());
        assert_eq!(gone.recv().await, Some(0));
        drop(third);
        assert_eq!(slots.taken(), 1);
    }

    #[tokio::test]
    async fn who_is_no_longer_idle_is_not_asked() {
        let slots = slots(1, 1);
        let _slot = slots.take(None).unwrap();
        {
            let mut wanted = std::pin::pin!(slots.wanted());
            assert!(futures_poll(wanted.as_mut()).is_pending());
        }
        assert_eq!(slots.take(None).unwrap_err(), Refusal::Connections);
    }

    #[tokio::test]
    async fn who_was_asked_too_late_passes_it_on() {
        let slots = slots(2, 2);
        let _held = [slots.take(None).unwrap(), slots.take(None).unwrap()];
        let mut first = Box::pin(slots.wanted());
        let mut second = std::pin::pin!(slots.wanted());
        assert!(futures_poll(first.as_mut()).is_pending());
        assert!(futures_poll(second.as_mut()).is_pending());
        let third = slots.take(None);
        assert!(third.is_ok());
        drop(first);
        assert!(futures_poll(second.as_mut()).is_ready());
        assert_eq!(slots.take(None).unwrap_err(), Refusal::Connections);
    }

    /// Nobody is asked later for what nobody could give.
    #[tokio::test]
    async fn who_becomes_idle_later_was_not_asked() {
        let slots = slots(1, 1);
        let _slot = slots.take(None).unwrap();
        let mut busy = Box::pin(slots.wanted());
        assert!(futures_poll(busy.as_mut()).is_pending());
        let second = slots.take(None);
        assert!(second.is_ok());
        drop(busy);
        let mut idle = std::pin::pin!(slots.wanted());
        assert!(futures_poll(idle.as_mut()).is_pending());
    }

    /// Who may have no more anyway costs no other its place.
    #[tokio::test]
    async fn who_has_all_of_an_address_asks_nobody() {
        let slots = slots(2, 1);
        let _held = [slots.take(address("10.0.0.1")), slots.take(address("10.0.0.2"))];
        let mut idle = std::pin::pin!(slots.wanted());
        assert!(futures_poll(idle.as_mut()).is_pending());
        assert_eq!(slots.take(address("10.0.0.1")).unwrap_err(), Refusal::Address);
        assert!(futures_poll(idle.as_mut()).is_pending());
        assert!(slots.take(address("10.0.0.3")).is_ok());
        assert!(futures_poll(idle.as_mut()).is_ready());
    }

    fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> std::task::Poll<T> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
