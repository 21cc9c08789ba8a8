//! Why clients are turned away, or given up on, and how often that was.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a client was turned away, or given up on, to protect the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// All connections were in use.
    Connections,
    /// All that one address may have were in use.
    Address,
    /// accept(2) failed: no descriptors or memory.
    Accept,
    /// The head of a request did not come in time.
    HeadTime,
    /// The head of a request was too long, or had too many lines: 431.
    HeadSize,
    /// The target of a request was too long: 414.
    TargetLength,
    /// The peer took its response too slowly.
    TooSlow,
    /// No or a wrong password: 401.
    Password,
    /// Too many wrong passwords from one address: 429.
    PasswordAttempts,
    /// Too many passwords were being checked: 503.
    PasswordChecks,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Connections,
        Self::Address,
        Self::Accept,
        Self::HeadTime,
        Self::HeadSize,
        Self::TargetLength,
        Self::TooSlow,
        Self::Password,
        Self::PasswordAttempts,
        Self::PasswordChecks,
    ];

    /// As metrics and documents call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::Accept => "accept",
            Self::HeadTime => "head-time",
            Self::HeadSize => "head-size",
            Self::TargetLength => "target-length",
            Self::TooSlow => "too-slow",
            Self::Password => "password",
            Self::PasswordAttempts => "password-attempts",
            Self::PasswordChecks => "password-checks",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|one| *one == self).expect("it is one of all")
    }
}

/// How often clients were turned away, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused([u64; Refusal::ALL.len()]);

impl Refused {
    /// How often for this reason.
    #[must_use]
    pub fn by(&self, reason: Refusal) -> u64 {
        self.0[reason.index()]
    }

    /// In all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&self, reason: Refusal) {
        self.0[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Refused {
        Refused(std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed)))
    }
}
