//! Flags of `pagewire serve` that protect it and its host. docs/limits.md has what is fixed.

use std::num::{NonZeroU64, NonZeroUsize};

use clap::Args;
use pagewire_http::Limits;

#[derive(Debug, Args)]
pub(crate) struct LimitFlags {
    /// Connections at most [default: as many as descriptors allow]
    #[arg(long, value_name = "N")]
    max_connections: Option<NonZeroUsize>,

    /// Connections of one IPv4 address or IPv6 /64 at most [default: a quarter of all]
    #[arg(long, value_name = "N")]
    max_connections_per_address: Option<NonZeroUsize>,

    /// Bytes per second that a connection is sent at most, as in 500k, 2M or 1Mi
    ///
    /// The kernel keeps to it (SO_MAX_PACING_RATE), so that pages still leave by reference.
    /// Connections over Unix sockets are not limited.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit_rate: Option<NonZeroU64>,

    /// Bytes per second that all connections together are sent at most
    ///
    /// Those that are busy get the same share each.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit_rate_total: Option<NonZeroU64>,

    /// Seconds that running responses get at a graceful end [default: as long as they take]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) grace: Option<u64>,
}

impl LimitFlags {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            connections_max: self.max_connections,
            per_address_max: self.max_connections_per_address,
            rate: self.limit_rate,
            rate_total: self.limit_rate_total,
        }
    }
}

/// Bytes per second: a whole number, and k, M, G (powers of 1000) or Ki, Mi, Gi (of 1024).
fn rate(text: &str) -> Result<NonZeroU64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => {
            return Err(format!(
                "the unit '{unit}' is none of k, M, G, Ki, Mi, Gi (bytes per second)"
            ));
        }
    };
    let number: u64 = number.parse().map_err(|_| "give a whole number, as in 500k".to_owned())?;
    let rate = number.checked_mul(factor).and_then(NonZeroU64::new);
    rate.ok_or_else(|| "it is nothing, or too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, expected) in
            [("1", 1), ("500k", 500_000), ("2Mi", 2 << 20), ("1G", 1_000_000_000)]
        {
            assert_eq!(rate(text).unwrap().get(), expected, "{text}");
        }
        for text in ["", "k", "0", "0M", "1MB", "1.5M", "-1", "99999999999G"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
