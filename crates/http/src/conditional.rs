//! Preconditions of requests, in the order of RFC 9110, section 13.2.2. PURE: header values and
//! what a file is now, in; what to do, out. Called by `partial.rs`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use http::{HeaderName, HeaderValue};

/// What a file is now: its entity tag, a strong one, and the second of its last change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    pub(crate) etag: &'a HeaderValue,
    /// In seconds since 1970; negative before. What is made of many files has none.
    pub(crate) modified: Option<i64>,
}

/// What the preconditions of a GET or HEAD request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    NotModified,
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD request for a file that exists.
pub(crate) fn verdict(headers: &HeaderMap, now: Validators<'_>) -> Verdict {
    let unchanged_since = |name| Some(now.modified? <= date(headers, name)?);
    let matched = tags(headers, &IF_MATCH).map(|tags| tags.holds(|tag| tag == now.etag));
    if matched.or_else(|| unchanged_since(IF_UNMODIFIED_SINCE)) == Some(false) {
        return Verdict::Failed;
    }
    let known = tags(headers, &IF_NONE_MATCH)
        .map(|tags| tags.holds(|tag| tag.strip_prefix(b"W/").unwrap_or(tag) == now.etag));
    if known.or_else(|| unchanged_since(IF_MODIFIED_SINCE)) == Some(true) {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// Whether a Range header is to be obeyed, as far as If-Range (section 13.1.5) is concerned.
pub(crate) fn range_applies(headers: &HeaderMap, now: Validators<'_>) -> bool {
    if !headers.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = only(headers, &IF_RANGE) else {
        return false;
    };
    // A date has to be the very one, not a later one; a weak tag never matches.
    value == now.etag || parse_date(value).is_some_and(|date| Some(date) == now.modified)
}

/// The entity tags of all header lines of one name.
struct Tags<'a> {
    lines: http::header::GetAll<'a, HeaderValue>,
}

fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Tags<'a>> {
    headers.contains_key(name).then(|| Tags { lines: headers.get_all(name) })
}

impl Tags<'_> {
    /// Whether the condition is `*`, which every file meets, or one of its tags `matches`.
    fn holds(&self, matches: impl Fn(&[u8]) -> bool) -> bool {
        self.lines.iter().any(|line| {
            let line = line.as_bytes().trim_ascii();
            line == b"*" || split_tags(line).any(&matches)
        })
    }
}

/// The elements of a list of entity tags: a comma within quotes does not separate them.
fn split_tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    line.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == b',' && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// Seconds since 1970. Anything but one valid date is ignored, as the section says of each field.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<i64> {
    parse_date(only(headers, &name)?)
}

/// The value of a field that is there once.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn parse_date(value: &HeaderValue) -> Option<i64> {
    let time: SystemTime = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    let since: Duration = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const MODIFIED: i64 = 784_111_777;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn check(lines: &[(&str, &str)], expected: Verdict) {
        let etag = HeaderValue::from_static("\"a,b\"");
        let now = Validators { etag: &etag, modified: Some(MODIFIED) };
        assert_eq!(verdict(&headers(lines), now), expected, "{lines:?}");
    }

    #[test]
    fn one_precondition() {
        use Verdict::{Failed, NotModified, Send};
        check(&[], Send);
        for (value, expected) in [
            ("*", Send),
            ("\"a,b\"", Send),
            ("\"x\", \"a,b\"", Send),
            ("\"a,b\" ,", Send),
            ("W/\"a,b\"", Failed),
            ("\"x\"", Failed),
            ("\"a\", b\"", Failed),
            ("a,b", Failed),
            ("", Failed),
        ] {
            check(&[("if-match", value)], expected);
        }
        for (value, expected) in [
            ("*", NotModified),
            ("\"a,b\"", NotModified),
            ("W/\"a,b\"", NotModified),
            ("\"x\",W/\"a,b\"", NotModified),
            ("\"x\"", Send),
            ("", Send),
        ] {
            check(&[("if-none-match", value)], expected);
        }
        for (value, since, unchanged) in [
            (EARLIER, Send, Failed),
            (NOW, NotModified, Send),
            (LATER, NotModified, Send),
            ("Sunday, 06-Nov-94 08:49:37 GMT", NotModified, Send),
            ("Sun Nov  6 08:49:37 1994", NotModified, Send),
            ("yesterday", Send, Send),
            ("", Send, Send),
        ] {
            check(&[("if-modified-since", value)], since);
            check(&[("if-unmodified-since", value)], unchanged);
        }
    }

    #[test]
    fn tags_go_before_dates() {
        use Verdict::{Failed, NotModified, Send};
        check(&[("if-match", "\"a,b\""), ("if-unmodified-since", EARLIER)], Send);
        check(&[("if-match", "\"x\""), ("if-unmodified-since", LATER)], Failed);
        check(&[("if-none-match", "\"x\""), ("if-modified-since", LATER)], Send);
        check(&[("if-none-match", "\"a,b\""), ("if-modified-since", EARLIER)], NotModified);
    }

    #[test]
    fn failing_goes_before_not_modified() {
        use Verdict::{Failed, NotModified};
        check(&[("if-match", "\"x\""), ("if-none-match", "\"a,b\"")], Failed);
        check(&[("if-match", "*"), ("if-none-match", "*")], NotModified);
        check(&[("if-unmodified-since", EARLIER), ("if-none-match", "*")], Failed);
        check(&[("if-unmodified-since", NOW), ("if-modified-since", NOW)], NotModified);
    }

    #[test]
    fn dates_mean_nothing_where_there_is_none() {
        let etag = HeaderValue::from_static("\"a\"");
        let now = Validators { etag: &etag, modified: None };
        for name in ["if-modified-since", "if-unmodified-since"] {
            assert_eq!(verdict(&headers(&[(name, LATER)]), now), Verdict::Send);
            assert_eq!(verdict(&headers(&[(name, EARLIER)]), now), Verdict::Send);
        }
        assert!(!range_applies(&headers(&[("if-range", NOW)]), now));
        assert!(!range_applies(&headers(&[("if-range", "")]), now));
        assert!(range_applies(&headers(&[("if-range", "\"a\"")]), now));
    }

    #[test]
    fn several_lines_are_one_list() {
        check(&[("if-match", "\"x\""), ("if-match", "\"a,b\"")], Verdict::Send);
        check(&[("if-none-match", "\"x\""), ("if-none-match", "W/\"a,b\"")], Verdict::NotModified);
        // Dates are no lists: two of them say nothing.
        check(&[("if-modified-since", NOW), ("if-modified-since", NOW)], Verdict::Send);
        check(&[("if-unmodified-since", EARLIER), ("if-unmodified-since", NOW)], Verdict::Send);
    }

    #[test]
    fn ranges_apply_to_the_same_file_only() {
        let etag = HeaderValue::from_static("\"a,b\"");
        let now = Validators { etag: &etag, modified: Some(MODIFIED) };
        assert!(range_applies(&HeaderMap::new(), now));
        for (value, expected) in [
            ("\"a,b\"", true),
            ("W/\"a,b\"", false),
            ("\"x\"", false),
            (NOW, true),
            (EARLIER, false),
            (LATER, false),
            ("", false),
            ("*", false),
        ] {
            assert_eq!(range_applies(&headers(&[("if-range", value)]), now), expected, "{value}");
        }
    }
}
