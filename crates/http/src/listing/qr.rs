//! The QR code of a page's address, for a phone's camera.

use http::uri::Authority;
use qrcode::{Color, EcLevel, QrCode};

/// What of a page can be shown to a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phone {
    /// The address, and its code as the data of an SVG path on a square of `side` units.
    Code { address: String, path: String, side: usize },
    /// The page is at an address that no other device can reach.
    Unreachable,
    /// The client did not say where it found the page, or nothing of a usable form.
    Unknown,
}

/// Empty modules around the code, which readers need (ISO/IEC 18004).
const QUIET: usize = 4;

impl Phone {
    /// `host` is the value of the request's Host header, `path` starts with a slash and is
    /// percent-encoded.
    pub(crate) fn new(host: Option<&str>, path: &str) -> Self {
        let authority = host.and_then(|host| host.parse::<Authority>().ok());
        let Some(authority) = authority.filter(|name| !name.as_str().contains('@')) else {
            return Self::Unknown;
        };
        if is_loopback(authority.host()) {
            return Self::Unreachable;
        }
        let address = format!("http://{authority}{path}");
        match QrCode::with_error_correction_level(&address, EcLevel::L) {
            Ok(code) => {
                let side = code.width() + 2 * QUIET;
                Self::Code { path: svg_path(&code), side, address }
            }
            Err(_) => Self::Unknown,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.eq_ignore_ascii_case("localhost") || host.ends_with(".localhost");
    name || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One rectangle for each run of dark modules in a row.
fn svg_path(code: &QrCode) -> String {
    let mut path = String::new();
    for (y, row) in code.to_colors().chunks(code.width()).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|one, two| one == two) {
            if run.first() == Some(&Color::Dark) {
                path += &format!("M{} {}h{}v1h-{2}z", x + QUIET, y + QUIET, run.len());
            }
            x += run.len();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_for_addresses_that_others_can_reach() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:80", "a.localhost"] {
            assert_eq!(Phone::new(Some(host), "/"), Phone::Unreachable, "{host}");
        }
        for host in [None, Some(""), Some("a b"), Some("<script>"), Some("me@host"), Some("a/b")] {
            assert_eq!(Phone::new(host, "/"), Phone::Unknown, "{host:?}");
        }
        assert_eq!(Phone::new(Some("host"), &"/x".repeat(2000)), Phone::Unknown);
        let phone = Phone::new(Some("192.0.2.1:8080"), "/a%20b/");
        let Phone::Code { address, path, side } = phone else { panic!("{phone:?}") };
        assert_eq!(address, "http://192.0.2.1:8080/a%20b/");
        assert_eq!(side, 25 + 2 * QUIET);
        // The upper left finder pattern: seven dark modules, then its sides.
        assert!(path.starts_with("M4 4h7v1h-7z"), "{path}");
    }
}
