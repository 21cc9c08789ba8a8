//! What holds for every input of the rooms that read what peers send: the bodies of the fuzz
//! targets in `fuzz/`. Compiled for those only (`--cfg fuzzing`).

use http::header::{
    ACCEPT, ACCEPT_ENCODING, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::archive;
use crate::conditional::Validators;
use crate::encoding::{Coding, Codings, preferred};
use crate::listing;
use crate::partial::{Due, due};
use crate::range::{Asked, RANGES_MAX, asked};
use crate::resolve::TargetPath;

/// Ranges lie within the file, are few, and amount to no more than it.
pub fn range(data: &[u8]) {
    let Some((len, header)) = data.split_first_chunk() else { return };
    let len = u64::from_le_bytes(*len);
    let Ok(header) = std::str::from_utf8(header) else { return };
    if let Asked::Ranges(ranges) = asked(header, len) {
        assert!((1..=RANGES_MAX).contains(&ranges.len()));
        assert!(ranges.iter().all(|range| range.first <= range.last && range.last < len));
        let total: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
        assert!(total <= u128::from(len));
    }
}

/// A target that is taken holds only names, and its redirect leads to it, on this host.
pub fn target(data: &[u8]) {
    let Ok(uri) = Uri::try_from(data) else { return };
    // As the service does: of any target.
    archive::asked(uri.query());
    let Ok(target) = TargetPath::parse(uri.path()) else { return };
    for name in target.names() {
        assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&0) && !name.contains(&b'/'));
    }
    assert!(target.relative().is_relative());
    if target.names().next().is_some() {
        let place = target.with_slash();
        assert!(place.starts_with('/') && !place.starts_with("//"));
        assert!(place.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
        assert_eq!(TargetPath::parse(&place).expect("it was taken"), target.directory());
    }
}

/// Nothing is sent that was not offered, twice, or refused by weight 0.
pub fn accept_encoding(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, value)]);
    let all = Coding::ALL.into_iter().fold(Codings::default(), Codings::with);
    let found = preferred(&headers, all);
    for (index, coding) in found.iter().enumerate() {
        assert!(!found[..index].contains(coding));
        let alone = preferred(&headers, Codings::default().with(*coding));
        assert_eq!(alone.as_slice(), [*coding]);
    }
    assert!(preferred(&headers, Codings::default()).is_empty());
}

/// Lines of the input are the fields of one request, in this order.
pub fn preconditions(data: &[u8]) {
    const FIELDS: [HeaderName; 6] =
        [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];
    let mut headers = HeaderMap::new();
    for (name, line) in FIELDS.into_iter().zip(data.split(|byte| *byte == b'\n')) {
        match HeaderValue::from_bytes(line) {
            Ok(value) if !line.is_empty() => drop(headers.insert(name, value)),
            _ => {}
        }
    }
    let etag = HeaderValue::from_static("\"a,b\"");
    let now = Validators { etag: &etag, modified: Some(784_111_777) };
    let has = |name| headers.contains_key(name);
    match due(&Method::GET, &headers, now, 1000) {
        Due::Whole => {}
        Due::NotModified => assert!(has(IF_NONE_MATCH) || has(IF_MODIFIED_SINCE)),
        Due::Failed => assert!(has(IF_MATCH) || has(IF_UNMODIFIED_SINCE)),
        Due::Unsatisfiable | Due::Ranges(_) => assert!(has(RANGE)),
    }
    // Section 14.2: a range means nothing to a HEAD request.
    let head = due(&Method::HEAD, &headers, now, 1000);
    assert!(matches!(head, Due::Whole | Due::NotModified | Due::Failed));
}

/// The first line is the query, the second an Accept header.
pub fn listing_query(data: &[u8]) {
    let (query, accept) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let Ok(query) = std::str::from_utf8(query) else { return };
    let accept = HeaderValue::from_bytes(accept).ok();
    let headers = HeaderMap::from_iter(accept.map(|accept| (ACCEPT, accept)));
    listing::check_query(query, &headers);
}
