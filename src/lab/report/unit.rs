//! PURE: the units that the lab measures in, and how each prints itself.

use serde::{Deserialize, Serialize};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Prints in powers of 1024.
    Bytes,
    /// Prints in powers of 1000, as network rates do.
    BytesPerSecond,
    Calls,
    CallsPerMebibyte,
    /// Hundredths of a second of processor time for 10⁹ bytes.
    CentisecondsPerGigabyte,
    Connections,
    /// How often the processor copied each byte: bytes copied for each byte sent.
    Copies,
    Microseconds,
    Ratio,
    RequestsPerSecond,
    Seconds,
    /// Changes between user and kernel mode: two a system call.
    Switches,
    SwitchesPerMebibyte,
}

/// Which way a quantity is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

impl Better {
    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::Less => "less is better",
            Self::More => "more is better",
        }
    }
}

impl Unit {
    /// For the head of a column; empty for those units that each number carries itself.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::CallsPerMebibyte | Self::SwitchesPerMebibyte => "/MiB",
            Self::CentisecondsPerGigabyte => "cs/GB",
            Self::RequestsPerSecond => "/s",
            Self::Bytes
            | Self::BytesPerSecond
            | Self::Calls
            | Self::Connections
            | Self::Copies
            | Self::Microseconds
            | Self::Ratio
            | Self::Seconds
            | Self::Switches => "",
        }
    }

    /// None where it depends on the question.
    pub(crate) fn better(self) -> Option<Better> {
        match self {
            Self::BytesPerSecond | Self::RequestsPerSecond => Some(Better::More),
            Self::Bytes
            | Self::Calls
            | Self::CallsPerMebibyte
            | Self::CentisecondsPerGigabyte
            | Self::Copies
            | Self::Microseconds
            | Self::Seconds
            | Self::Switches
            | Self::SwitchesPerMebibyte => Some(Better::Less),
            Self::Connections | Self::Ratio => None,
        }
    }

    /// A number with three digits that count, and with its unit where the head of the column
    /// does not say it.
    pub(crate) fn print(self, value: f64) -> String {
        match self {
            Self::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
            Self::BytesPerSecond => scaled(value, 1e3, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]),
            Self::Microseconds => scaled(value, 1e3, &["µs", "ms", "s"]),
            Self::Seconds => format!("{} s", digits(value)),
            Self::Ratio => format!("{}×", digits(value)),
            Self::Calls
            | Self::CallsPerMebibyte
            | Self::CentisecondsPerGigabyte
            | Self::Connections
            | Self::Copies
            | Self::RequestsPerSecond
            | Self::Switches
            | Self::SwitchesPerMebibyte => digits(value),
        }
    }
}

/// A count of bytes, in powers of 1024.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
pub(crate) fn print_bytes(bytes: u64) -> String {
    Unit::Bytes.print(bytes as f64)
}

/// In the largest of the units, each `step` times the one before, that leaves a digit before the
/// point.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut rest = value;
    let mut names = units.iter().peekable();
    while let Some(name) = names.next() {
        // 999.96 prints as 1,000, which is one of the next.
        if names.peek().is_none() || rest.abs() < step - 0.5 {
            return format!("{} {name}", digits(rest));
        }
        rest /= step;
    }
    digits(value)
}

/// Three digits that count, no zeros behind the last of them, commas between thousands.
pub(crate) fn digits(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        _ if magnitude >= 99.95 => 0,
        _ if magnitude >= 9.995 => 1,
        _ if magnitude >= 0.9995 || magnitude == 0.0 => 2,
        _ if magnitude >= 0.0005 => 3,
        _ => return format!("{value:.1e}"),
    };
    let plain = format!("{value:.decimals$}");
    let plain = match plain.split_once('.') {
        Some(_) => plain.trim_end_matches('0').trim_end_matches('.'),
        None => &plain,
    };
    with_commas(plain)
}

fn with_commas(plain: &str) -> String {
    let (whole, decimals) = match plain.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (plain, None),
    };
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut printed = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            printed.push(',');
        }
        printed.push(digit);
    }
    if let Some(decimals) = decimals {
        printed.push('.');
        printed.push_str(decimals);
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_with_three_digits_that_count() {
        for (value, printed) in [
            (0.0, "0"),
            (4.0, "4"),
            (2.5, "2.5"),
            (0.1234, "0.123"),
            (0.00001, "1.0e-5"),
            (11.84, "11.8"),
            (99.96, "100"),
            (109_123.4, "109,123"),
            (-1234.0, "-1,234"),
            (1e12, "1,000,000,000,000"),
        ] {
            assert_eq!(digits(value), printed);
        }
    }

    #[test]
    fn units_print_themselves() {
        for (unit, value, printed) in [
            (Unit::Bytes, 0.0, "0 B"),
            (Unit::Bytes, 1023.0, "1,023 B"),
            (Unit::Bytes, 4096.0, "4 KiB"),
            (Unit::Bytes, 1_048_575.0, "1 MiB"),
            (Unit::Bytes, 1e18, "909,495 TiB"),
            (Unit::BytesPerSecond, 9.384e9, "9.38 GB/s"),
            (Unit::Microseconds, 250.0, "250 µs"),
            (Unit::Microseconds, 999.9, "1 ms"),
            (Unit::Microseconds, 1_825_000.0, "1.82 s"),
            (Unit::Ratio, 0.854, "0.854×"),
            (Unit::CentisecondsPerGigabyte, 11.8, "11.8"),
        ] {
            assert_eq!(unit.print(value), printed);
        }
    }
}
