//! What a request wants to know of content's digest: Want-Repr-Digest (RFC 9530, section 4).
//! PURE. Called by `mod.rs`.

use http::{HeaderMap, HeaderName};

/// The one algorithm that is answered with; the others of the registry are broken or rare.
const ALGORITHM: &str = "sha-256";

const WANT: HeaderName = HeaderName::from_static("want-repr-digest");

/// Whether a sha-256 is wanted: the field is a dictionary of preferences from 0, not at all, to
/// 10 (RFC 8941, section 3.2). A line that is malformed says nothing.
pub(crate) fn wants_sha256(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(WANT).into_iter();
    let mut members = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    // Of a key that is there twice, the last value counts.
    let last = members.rfind(|member| weight(member).is_some());
    last.and_then(weight).is_some_and(|weight| weight > 0)
}

/// How much a member of the dictionary wants a sha-256; `None` when it is about something else.
fn weight(member: &str) -> Option<u8> {
    let (key, value) = member.split_once('=')?;
    if key.trim_matches([' ', '\t']) != ALGORITHM {
        return None;
    }
    let value = value.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    Some(value.parse().ok().filter(|weight| *weight <= 10).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn preferences_are_read() {
        for (lines, expected) in [
            (&[][..], false),
            (&["sha-256=10"], true),
            (&["sha-256=1"], true),
            (&["sha-512=3, sha-256=10, unixsum=0"], true),
            (&["sha-512=10 ,\tsha-256=5;x=y"], true),
            (&["sha-512=10", "sha-256=5"], true),
            (&["sha-256=0"], false),
            (&["sha-512=10"], false),
            (&["sha-256"], false),
            (&["SHA-256=10"], false),
            (&["sha-256=11"], false),
            (&["sha-256=-1"], false),
            (&["sha-256=a"], false),
            (&["sha-256=0, sha-256=3"], true),
            (&["sha-256=3, sha-256=0"], false),
            (&[""], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("want-repr-digest", HeaderValue::from_static(line));
            }
            assert_eq!(wants_sha256(&headers), expected, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_answered(value in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert("want-repr-digest", HeaderValue::try_from(value).unwrap());
            wants_sha256(&headers);
        }
    }
}
