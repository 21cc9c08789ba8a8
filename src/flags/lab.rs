//! Flags of `pagewire lab`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Measure the routes, this server and its peers on this machine
///
/// Every figure is measured in the run that prints it. Servers get one processor and the load
/// another one; what is compared is measured in turns, and shown as medians. As root the lab can
/// also limit disks and use network namespaces of its own; it says what it could not do without.
#[derive(Debug, Args)]
pub(crate) struct LabFlags {
    /// Experiments to run [default: all]
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) experiments: Vec<Topic>,

    /// Largest file, in bytes or with K, M or G; those above 1G are sparse
    #[arg(long, value_name = "N", value_parser = bytes, default_value = "10G")]
    pub(crate) size: u64,

    /// Most connections at once
    #[arg(long, value_name = "N", default_value = "10000")]
    pub(crate) connections: NonZeroUsize,

    /// Seconds that one measurement takes [default: each experiment's own, all within ten minutes]
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,

    /// Rounds, whose median is shown [default: each experiment's own]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<NonZeroUsize>,

    /// Read and hash every body instead of dropping it in the kernel: slower, and sure
    #[arg(long)]
    pub(crate) verify: bool,

    /// Directory for the files that are served, which are removed in the end
    /// [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write every sample as CSV
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Write the report as one HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Write each chart as a file of its own
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,

    /// Measure nothing: show or write the report that --json wrote
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "experiments",
            "size",
            "connections",
            "seconds",
            "rounds",
            "verify",
            "dir",
            "show_config",
        ]
    )]
    pub(crate) from: Option<PathBuf>,

    /// Print how the servers are started and configured, and measure nothing
    #[arg(long)]
    pub(crate) show_config: bool,
}

/// The name of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topic {
    /// System calls, copies and CPU of each route
    Routes,
    /// Where the routes cross, by file size
    Sizes,
    /// CPU per gigabyte by step size and connections
    Steps,
    /// Hot clients beside cold downloads
    Cold,
    /// This server beside every peer on the PATH
    Peers,
    /// From one connection to ten thousand
    Connections,
}

impl Topic {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Sizes => "sizes",
            Self::Steps => "steps",
            Self::Cold => "cold",
            Self::Peers => "peers",
            Self::Connections => "connections",
        }
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: give bytes, or a number with K, M or G, as 64K");
    let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let shift = match unit {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < 1024 {
        return Err(format!("{bytes} bytes are too few: the smallest file that is measured is 1K"));
    }
    Ok(bytes)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: give seconds, from 0.01 to 3600");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.01..=3600.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, expected) in [("1024", 1 << 10), ("64K", 64 << 10), ("3MiB", 3 << 20)] {
            assert_eq!(bytes(text), Ok(expected));
        }
        for text in ["", "K", "1T", "-1K", "1.5M", "0", "1023", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "0", "-1", "NaN", "inf", "1h", "1e9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
