//! Narrows the response that sends a whole file to what the request asks for: one range, several,
//! nothing because the client has it, or a refusal. Decides by `conditional.rs` and `range.rs`.

use std::hash::{BuildHasher, RandomState};

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use pagewire_engine::{FileRange, Payload, SourceFile};
use smallvec::SmallVec;

use crate::body::FileBody;
use crate::conditional::{Validators, Verdict, only, range_applies, verdict};
use crate::range::{Asked, ByteRange, asked};
use crate::respond::text;

/// What a GET or HEAD request is to get of what it asks for.
#[derive(Debug)]
pub(crate) enum Due {
    Whole,
    NotModified,
    Failed,
    Unsatisfiable,
    Ranges(SmallVec<[ByteRange; 1]>),
}

/// What a request with these `headers` is to get of `len` bytes.
pub(crate) fn due(method: &Method, headers: &HeaderMap, now: Validators<'_>, len: u64) -> Due {
    match verdict(headers, now) {
        Verdict::Send => {}
        Verdict::NotModified => return Due::NotModified,
        Verdict::Failed => return Due::Failed,
    }
    // Section 14.2: for other methods than GET, Range means nothing.
    let is_for_range = *method == Method::GET && headers.contains_key(RANGE);
    if !is_for_range || !range_applies(headers, now) {
        return Due::Whole;
    }
    // Several lines are one list of several units, which is none.
    let range = only(headers, &RANGE).and_then(|range| range.to_str().ok());
    match asked(range.unwrap_or_default(), len) {
        Asked::Whole => Due::Whole,
        Asked::Unsatisfiable => Due::Unsatisfiable,
        Asked::Ranges(ranges) => Due::Ranges(ranges),
    }
}

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
    let now = Validators { etag, modified: Some(identity.modified.seconds) };
    match due(method, headers, now, identity.len) {
        Due::Whole => whole,
        Due::NotModified => not_modified(whole),
        Due::Failed => failed(),
        Due::Unsatisfiable => unsatisfiable(identity.len),
        Due::Ranges(ranges) => match ranges.as_slice() {
            [range] => part(whole, *range, |range| file_range(source, range).into()),
            ranges => parts(whole, source, ranges),
        },
    }
}

/// The same for a text, which goes out whole or not at all.
pub(crate) fn conditioned(
    whole: Response<FileBody>,
    method: &Method,
    headers: &HeaderMap,
) -> Response<FileBody> {
    let now = whole.headers().get(ETAG).map(|etag| Validators { etag, modified: None });
    match now.map_or(Verdict::Send, |now| verdict(headers, now)) {
        Verdict::NotModified => not_modified(whole),
        Verdict::Failed => failed(),
        Verdict::Send if *method == Method::HEAD => whole.map(|_| FileBody::default()),
        Verdict::Send => whole,
    }
}

pub(crate) fn failed() -> Response<FileBody> {
    text(StatusCode::PRECONDITION_FAILED, "the file is another")
}

pub(crate) fn not_modified(mut response: Response<FileBody>) -> Response<FileBody> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, ACCEPT_RANGES] {
        response.headers_mut().remove(name);
    }
    response.map(|_| FileBody::default())
}

pub(crate) fn unsatisfiable(len: u64) -> Response<FileBody> {
    let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE, "no such range");
    response.headers_mut().insert(CONTENT_RANGE, header(format!("bytes */{len}")));
    response
}

/// One range of what `whole` would send, cut out of it by `cut`.
pub(crate) fn part(
    whole: Response<FileBody>,
    range: ByteRange,
    cut: impl FnOnce(ByteRange) -> FileBody,
) -> Response<FileBody> {
    let mut response = whole;
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    let len = headers.insert(CONTENT_LENGTH, range.len().into());
    let len = len.and_then(|len| len.to_str().ok()?.parse().ok()).unwrap_or(range.last + 1);
    headers.insert(CONTENT_RANGE, header(content_range(range, len)));
    response.map(|_| cut(range))
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
