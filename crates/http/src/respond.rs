//! Status and headers of responses. PURE: facts in, a response out.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use pagewire_engine::{Identity, Modified, SourceFile};

use crate::body::FileBody;
use crate::error::RequestError;
use crate::files::{OpenFile, Representation};
use crate::partial::narrowed;

/// The head of a file's responses, made once for many.
#[derive(Clone, Debug)]
pub(crate) struct FileHead(HeaderMap);

impl FileHead {
    pub(crate) fn new(identity: &Identity, path: &Path) -> Self {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(CONTENT_LENGTH, identity.len.into());
        headers.insert(CONTENT_TYPE, media_type(path));
        headers.insert(ETAG, etag(identity));
        if let Some(last_modified) = last_modified(identity.modified) {
            headers.insert(LAST_MODIFIED, last_modified);
        }
        Self(headers)
    }

    /// The same with another media type.
    pub(crate) fn of_type(self, media_type: &HeaderValue) -> Self {
        self.with(CONTENT_TYPE, media_type.clone())
    }

    pub(crate) fn fields(&mut self) -> &mut HeaderMap {
        &mut self.0
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.insert(name, value);
        self
    }
}

/// The response to a GET or HEAD request with these `headers` for `file`.
pub(crate) fn respond(method: &Method, headers: &HeaderMap, file: &OpenFile) -> Response<FileBody> {
    let Representation { source, head } = &**file.preferred(headers);
    let response = narrowed(whole_file(source, head), source, method, headers);
    if *method == Method::HEAD { response.map(|_| FileBody::default()) } else { response }
}

/// The response that sends all of `source`.
pub(crate) fn whole_file(source: &SourceFile, head: &FileHead) -> Response<FileBody> {
    let mut response = Response::new(FileBody::from(source.whole()));
    // Cheaper than to insert its fields one by one: nothing is hashed.
    *response.headers_mut() = head.0.clone();
    response
}

pub(crate) fn redirect(location: &str) -> Response<FileBody> {
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "the directory's name ends in a slash");
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

pub(crate) fn refusal(error: &RequestError) -> Response<FileBody> {
    let mut response = text(error.status(), error);
    let (name, value) = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => (ALLOW, "GET, HEAD"),
        // RFC 7617, section 2.1.
        StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Basic realm=\"files\", charset=\"UTF-8\""),
        StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, "60"),
        StatusCode::SERVICE_UNAVAILABLE => (RETRY_AFTER, "1"),
        _ => return response,
    };
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// One readable line.
pub(crate) fn text(status: StatusCode, line: impl std::fmt::Display) -> Response<FileBody> {
    let body = format!("{status}: {line}\n");
    let len = body.len();
    let mut response = Response::new(FileBody::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, len.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The media type by the file's extension; text is taken for UTF-8.
pub(crate) fn media_type(path: &Path) -> HeaderValue {
    let Some(media_type) = mime_guess::from_path(path).first_raw() else {
        return HeaderValue::from_static("application/octet-stream");
    };
    if media_type.starts_with("text/") {
        let with_charset = HeaderValue::try_from(format!("{media_type}; charset=utf-8"));
        return with_charset.unwrap_or(HeaderValue::from_static(media_type));
    }
    HeaderValue::from_static(media_type)
}

/// A strong entity tag (RFC 9110, section 8.8.3): another file, another length or another
/// modification time, to the nanosecond, is another tag.
fn etag(identity: &Identity) -> HeaderValue {
    let Identity { device, inode, len, modified, .. } = identity;
    let mut tag = String::with_capacity(64);
    let Modified { seconds, nanoseconds } = modified;
    write!(tag, "\"{device:x}-{inode:x}-{len:x}-{seconds:x}.{nanoseconds:x}\"")
        .expect("writing to a String does not fail");
    HeaderValue::try_from(tag).expect("hex digits, dashes and quotes are visible ASCII")
}

/// The Last-Modified date, in whole seconds; none before 1970 or after 9999, which HTTP's dates
/// cannot say.
fn last_modified(modified: Modified) -> Option<HeaderValue> {
    HeaderValue::try_from(http_date(modified.seconds.try_into().ok()?)?).ok()
}

/// The date of a second since 1970 (RFC 9110, section 5.6.7); none after 9999.
pub(crate) fn http_date(second: u64) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    (second < YEAR_10000).then(|| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second)))
}

/// The head of a response with 200 as it is written (RFC 9112, section 2.1), but for the date and
/// the empty line; none of any other.
pub(crate) fn written_head(response: &Response<FileBody>) -> Option<Box<[u8]>> {
    if response.status() != StatusCode::OK {
        return None;
    }
    let mut head = Vec::from(*b"HTTP/1.1 200 OK\r\n");
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    Some(head.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_follow_the_extension() {
        for (path, expected) in [
            ("a.txt", "text/plain; charset=utf-8"),
            ("a/b.HTML", "text/html; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.tar.gz", "application/gzip"),
            ("a", "application/octet-stream"),
            (".txt", "application/octet-stream"),
        ] {
            assert_eq!(media_type(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn dates_outside_of_what_http_can_say_are_left_out() {
        let date = |seconds| last_modified(Modified { seconds, nanoseconds: 999_999_999 });
        assert_eq!(date(0).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(253_402_300_799).unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
        for seconds in [-1, i64::MIN, 253_402_300_800, i64::MAX] {
            assert_eq!(date(seconds), None, "{seconds}");
        }
    }
}
