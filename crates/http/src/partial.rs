//! Narrows the response that sends a whole file to what the request asks for: one range, several,
//! nothing because the client has it, or a refusal. Decides by `conditional.rs` and `range.rs`.

use std::hash::{BuildHasher, RandomState};

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use pagewire_engine::{FileRange, Payload, SourceFile};

use crate::body::FileBody;
use crate::conditional::{Validators, Verdict, range_applies, verdict};
use crate::range::{Asked, ByteRange, asked};
use crate::respond::text;

/// The response to a GET or HEAD request with these `headers`, where `whole` would send all of
/// `source` and carries its validators.
pub(crate) fn narrowed(
    mut whole: Response<FileBody>,
    source: &SourceFile,
    method: &Method,
    headers: &HeaderMap,
) -> Response<FileBody> {
    whole.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let Some(etag) = whole.headers().get(ETAG) else {
        return whole;
    };
    let identity = source.identity();
    let now = Validators { etag, modified: identity.modified.seconds };
    match verdict(headers, now) {
        Verdict::Send => {}
        Verdict::NotModified => return not_modified(whole),
        Verdict::Failed => return text(StatusCode::PRECONDITION_FAILED, "the file is another"),
    }
    // Section 14.2: for other methods than GET, Range means nothing.
    let range = headers.get(RANGE).filter(|_| *method == Method::GET);
    let Some(range) = range.filter(|_| range_applies(headers, now)) else {
        return whole;
    };
    match asked(range.to_str().unwrap_or_default(), identity.len) {
        Asked::Whole => whole,
        Asked::Unsatisfiable => unsatisfiable(identity.len),
        Asked::Ranges(ranges) => match ranges.as_slice() {
            [range] => part(whole, source, *range),
            ranges => parts(whole, source, ranges),
        },
    }
}

fn not_modified(mut response: Response<FileBody>) -> Response<FileBody> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, ACCEPT_RANGES] {
        response.headers_mut().remove(name);
    }
    response.map(|_| FileBody::default())
}

fn unsatisfiable(len: u64) -> Response<FileBody> {
    let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
    response.headers_mut().insert(CONTENT_RANGE, header(format!("bytes */{len}")));
    response
}

fn part(
    mut response: Response<FileBody>,
    source: &SourceFile,
    range: ByteRange,
) -> Response<FileBody> {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, range.len().into());
    headers.insert(CONTENT_RANGE, header(content_range(range, source.len())));
    response.map(|_| file_range(source, range).into())
}

/// multipart/byteranges (section 14.6).
fn parts(
    mut response: Response<FileBody>,
    source: &SourceFile,
    ranges: &[ByteRange],
) -> Response<FileBody> {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    // By chance, so that no file can be made to contain it.
    let [one, two] = [0, 1].map(|word: u8| RandomState::new().hash_one(word));
    let boundary = format!("pagewire-{one:016x}{two:016x}");
    let headers = response.headers_mut();
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or("application/octet-stream").to_owned();
    let mut payload = Payload::new();
    for (index, range) in ranges.iter().enumerate() {
        let line_end = if index == 0 { "" } else { "\r\n" };
        let content_range = content_range(*range, source.len());
        payload = payload
            .bytes(format!(
                "{line_end}--{boundary}\r\nContent-Type: {media_type}\r\n\
                 Content-Range: {content_range}\r\n\r\n"
            ))
            .file(file_range(source, *range));
    }
    payload = payload.bytes(format!("\r\n--{boundary}--\r\n"));
    headers.insert(CONTENT_LENGTH, payload.len().into());
    headers.insert(CONTENT_TYPE, header(format!("multipart/byteranges; boundary={boundary}")));
    response.map(|_| payload.into())
}

fn file_range(source: &SourceFile, range: ByteRange) -> FileRange {
    let part = source.range(range.first, range.len());
    part.expect("ranges were cut to the length of this file")
}

fn content_range(ByteRange { first, last }: ByteRange, len: u64) -> String {
    format!("bytes {first}-{last}/{len}")
}

fn header(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("digits and ASCII words are a header value")
}
