//! Flags of `pagewire doctor`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Tell whether large files leave this host without a copy by the CPU
///
/// Measures the routes from DIR to a socket, asks the kernel and the network device what they
/// offer, and says of each thing what it means for copies and what to do about it.
///
/// Exit status: 0 when large files go out without a copy by the CPU, 1 when they do not or it
/// cannot be shown, 2 when the question makes no sense. Changes nothing; sends nothing.
#[derive(Debug, Args)]
pub(crate) struct DoctorFlags {
    /// The directory whose files are to be sent
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,

    /// Look at the way to this peer
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "device")]
    pub(crate) to: Option<Target>,

    /// Look at this network device [default: the one on the way to the internet]
    #[arg(long, value_name = "DEV")]
    pub(crate) device: Option<String>,

    /// Print JSON (docs/doctor.md has the schema)
    #[arg(long)]
    pub(crate) json: bool,
}

/// A peer by name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Not of the form HOST:PORT.
#[derive(Debug, thiserror::Error)]
#[error("not HOST:PORT, such as example.org:443, 192.0.2.7:80 or [2001:db8::7]:80")]
pub(crate) struct NotATarget;

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let (host, port) = text.rsplit_once(':').ok_or(NotATarget)?;
        let port = port.parse().map_err(|_| NotATarget)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains(':') {
            return Err(NotATarget);
        }
        match bare.unwrap_or(host) {
            "" => Err(NotATarget),
            host => Ok(Self { host: host.to_owned(), port }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_with_ports() {
        for (text, host) in [
            ("example.org:443", "example.org"),
            ("192.0.2.7:443", "192.0.2.7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("[fe80::7%eth0]:443", "fe80::7%eth0"),
        ] {
            let target = Target { host: host.to_owned(), port: 443 };
            assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "example.org", ":443", "[]:443", "2001:db8::7", "a:b", "a:70000", "a:"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
