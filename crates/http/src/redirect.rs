//! What a listener answers that only sends clients on to HTTPS. PURE: a request's head in, where
//! it is to go out.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use crate::body::FileBody;
use crate::respond;

/// What stays with the site: who proves by it that the name is theirs cannot have a certificate
/// yet (RFC 8555 section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answer to a request that came without TLS; none to one that is to be answered as ever.
/// 308 (RFC 9110 section 15.4.9): whatever the method, the same request goes there.
pub(crate) fn to_https<B>(request: &Request<B>, port: u16) -> Option<Response<FileBody>> {
    if request.uri().path().starts_with(CHALLENGES) {
        return None;
    }
    let Some(location) = location(request.uri(), request.headers(), port) else {
        let line = "this address only sends clients on to HTTPS, and needs a Host field for that";
        return Some(respond::text(StatusCode::BAD_REQUEST, line));
    };
    let line = format!("this site is at {}\n", location.to_str().unwrap_or_default());
    let len = line.len();
    let body = if request.method() == Method::HEAD { FileBody::default() } else { line.into() };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let fields = response.headers_mut();
    fields.insert(LOCATION, location);
    fields.insert(CONTENT_LENGTH, len.into());
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(response)
}

fn location(target: &Uri, fields: &HeaderMap, port: u16) -> Option<HeaderValue> {
    // A target with a host in it goes before the field (RFC 9112 section 3.2.2).
    let of_field = || fields.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let authority = target.authority().cloned().or_else(of_field)?;
    let host = authority.host();
    // What a user's name before the host is for, nobody knows.
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let path = target.path_and_query().map(|path| path.as_str());
    let path = path.filter(|path| path.starts_with('/')).unwrap_or("/");
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    HeaderValue::try_from(format!("https://{host}{port}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(target: &str, host: Option<&str>, port: u16) -> Option<(u16, Option<String>)> {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().unwrap();
        if let Some(host) = host {
            request.headers_mut().insert(HOST, host.parse().unwrap());
        }
        let response = to_https(&request, port)?;
        let location = response.headers().get(LOCATION);
        let location = location.map(|location| location.to_str().unwrap().to_owned());
        Some((response.status().as_u16(), location))
    }

    #[test]
    fn host_and_path_are_kept() {
        for (target, host, port, expected) in [
            ("/", "a.example", 443, "https://a.example/"),
            ("/x%20y?q=1", "a.example:8080", 443, "https://a.example/x%20y?q=1"),
            ("/x", "a.example:80", 8443, "https://a.example:8443/x"),
            ("/x", "[2001:db8::1]:80", 8443, "https://[2001:db8::1]:8443/x"),
            ("http://b.example:80/x?y", "a.example", 443, "https://b.example/x?y"),
            ("*", "a.example", 443, "https://a.example/"),
        ] {
            let expected = Some((308, Some(expected.to_owned())));
            assert_eq!(answer(target, Some(host), port), expected, "{target} {host}");
        }
    }

    #[test]
    fn without_a_host_there_is_nowhere_to_go() {
        for host in [None, Some(""), Some("a b"), Some("user@a.example"), Some("a/b"), Some(":80")]
        {
            assert_eq!(answer("/x", host, 443), Some((400, None)), "{host:?}");
        }
    }

    #[test]
    fn challenges_stay() {
        assert_eq!(answer("/.well-known/acme-challenge/token", Some("a.example"), 443), None);
        let near = answer("/.well-known/acme-challenge", Some("a.example"), 443);
        assert_eq!(near.unwrap().0, 308);
    }
}
