//! Which pages of other origins may read responses (CORS, the Fetch standard). PURE: request
//! fields in, response fields out. Called by `service.rs`.

use std::str::FromStr;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Uri};

use crate::rules::Rules;

/// Whose pages may read responses: `*`, or the origin that a browser sends, such as
/// `https://example.org` or `http://localhost:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(HeaderValue);

/// Why a text is no origin.
#[derive(Debug, thiserror::Error)]
#[error("'{origin}' is neither '*' nor an origin, such as https://example.org:8443")]
pub struct OriginError {
    origin: String,
}

/// What scripts may read beside the few fields that they always may.
const EXPOSED: &str =
    "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Range, ETag, Repr-Digest";

/// How long a browser may remember a preflight's answer, in seconds: the most that Chromium does.
const PREFLIGHT_SECONDS: &str = "7200";

impl FromStr for CorsOrigin {
    type Err = OriginError;

    fn from_str(origin: &str) -> Result<Self, OriginError> {
        // As browsers write it (RFC 6454, section 6.2): nothing behind the port.
        let is_origin = || {
            let uri = origin.parse::<Uri>().ok()?;
            let authority = uri.authority()?.as_str();
            let written = format!("{}://{authority}", uri.scheme_str()?);
            (written == origin && !authority.contains(['@', '*'])).then_some(())
        };
        let error = || OriginError { origin: origin.to_owned() };
        if origin != "*" {
            is_origin().ok_or_else(error)?;
        }
        HeaderValue::try_from(origin.to_ascii_lowercase()).map(Self).map_err(|_| error())
    }
}

/// The origins of a site.
#[derive(Clone, Debug)]
pub(crate) enum Cors {
    Nobody,
    Anybody,
    These(Vec<HeaderValue>),
}

impl Cors {
    pub(crate) fn new(origins: &[CorsOrigin]) -> Self {
        match origins {
            [] => Self::Nobody,
            origins if origins.iter().any(|origin| origin.0 == "*") => Self::Anybody,
            origins => Self::These(origins.iter().map(|origin| origin.0.clone()).collect()),
        }
    }

    /// What of it is the same for every response.
    pub(crate) fn add_to(&self, rules: &mut Rules) {
        match self {
            Self::Nobody => return,
            Self::Anybody => rules.always(ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            Self::These(_) => {}
        }
        rules.always(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }

    /// What depends on who asks.
    pub(crate) fn allow(&self, asked: &HeaderMap, fields: &mut HeaderMap) {
        let Self::These(origins) = self else { return };
        fields.append(VARY, HeaderValue::from_static("Origin"));
        let known = asked.get(ORIGIN).filter(|origin| origins.contains(origin));
        if let Some(origin) = known {
            fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
    }

    /// What a preflight request is told (the Fetch standard, section "CORS-preflight fetch"):
    /// that anything may be asked for with GET. What the fields of such requests say means
    /// nothing here or is harmless.
    pub(crate) fn preflight(&self, asked: &HeaderMap, fields: &mut HeaderMap) {
        let is_preflight = asked.contains_key(ORIGIN);
        if matches!(self, Self::Nobody)
            || !is_preflight
            || !asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return;
        }
        let fixed = HeaderValue::from_static;
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, HEAD, OPTIONS"));
        fields.insert(ACCESS_CONTROL_MAX_AGE, fixed(PREFLIGHT_SECONDS));
        fields.append(VARY, fixed("Access-Control-Request-Headers"));
        if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for origin in ["*", "https://example.org", "http://localhost:3000", "http://[::1]:80"] {
            assert_eq!(origin.parse::<CorsOrigin>().unwrap().0, origin);
        }
        for origin in [
            "",
            "example.org",
            "https://example.org/",
            "https://example.org/path",
            "https://*.example.org",
            "https://user@example.org",
            "null",
            "https://",
            "https://a b",
        ] {
            let error = origin.parse::<CorsOrigin>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{origin}' is neither")), "{error}");
        }
    }
}
