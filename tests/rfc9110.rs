//! What RFC 9110 says of conditions and ranges, rule by rule with the number of its section,
//! asked of the running server.

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use super::support::{Answer, Server, plain_dir, request as ask};

/// 1994-11-06 08:49:37, the example of section 5.6.7.
const MODIFIED: u64 = 784_111_777;

/// One rule, by section, as a request and what comes of it.
type Case = (&'static str, &'static str, &'static [&'static str], Gets);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    Whole,
    Part(u64, u64),
    Parts(&'static [(u64, u64)]),
    NotModified,
    Failed,
    Unsatisfiable,
    Status(u16),
}

use Gets::{Failed, NotModified, Part, Parts, Status, Unsatisfiable, Whole};

/// In fields: `{tag}` is the file's entity tag, `{date}` its date, `{before}` and `{after}` a
/// second off. The file has 100 bytes.
const CASES: &[Case] = &[
    // If-Match
    ("13.1.1", "GET /f", &["If-Match: *"], Whole),
    ("13.1.1", "GET /f", &["If-Match: {tag}"], Whole),
    ("13.1.1", "GET /f", &["If-Match: \"x\", {tag}"], Whole),
    ("13.1.1", "GET /f", &["If-Match: \"x\"", "If-Match: {tag}"], Whole),
    ("13.1.1", "GET /f", &["If-Match: \"x\""], Failed),
    ("13.1.1", "HEAD /f", &["If-Match: \"x\""], Failed),
    ("13.1.1 strong comparison", "GET /f", &["If-Match: W/{tag}"], Failed),
    ("13.1.1 of nothing, even *", "GET /none", &["If-Match: *"], Status(404)),
    // If-None-Match
    ("13.1.2", "GET /f", &["If-None-Match: *"], NotModified),
    ("13.1.2", "HEAD /f", &["If-None-Match: {tag}"], NotModified),
    ("13.1.2", "GET /f", &["If-None-Match: \"x\",{tag} , \"y\""], NotModified),
    ("13.1.2 weak comparison", "GET /f", &["If-None-Match: W/{tag}"], NotModified),
    ("13.1.2", "GET /f", &["If-None-Match: \"x\""], Whole),
    ("13.1.2", "GET /f", &["If-None-Match: \"x\"", "If-None-Match: {tag}"], NotModified),
    // If-Modified-Since
    ("13.1.3", "GET /f", &["If-Modified-Since: {date}"], NotModified),
    ("13.1.3", "HEAD /f", &["If-Modified-Since: {date}"], NotModified),
    ("13.1.3", "GET /f", &["If-Modified-Since: {after}"], NotModified),
    ("13.1.3", "GET /f", &["If-Modified-Since: {before}"], Whole),
    ("13.1.3 no date", "GET /f", &["If-Modified-Since: yesterday"], Whole),
    ("13.1.3 two", "GET /f", &["If-Modified-Since: {date}", "If-Modified-Since: {date}"], Whole),
    ("13.1.3 not GET", "OPTIONS /f", &["If-Modified-Since: {date}"], Status(204)),
    ("13.1.3 tag first", "GET /f", &["If-None-Match: \"x\"", "If-Modified-Since: {date}"], Whole),
    ("5.6.7", "GET /f", &["If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"], NotModified),
    ("5.6.7", "GET /f", &["If-Modified-Since: Sun Nov  6 08:49:37 1994"], NotModified),
    // If-Unmodified-Since
    ("13.1.4", "GET /f", &["If-Unmodified-Since: {date}"], Whole),
    ("13.1.4", "GET /f", &["If-Unmodified-Since: {after}"], Whole),
    ("13.1.4", "GET /f", &["If-Unmodified-Since: {before}"], Failed),
    ("13.1.4", "HEAD /f", &["If-Unmodified-Since: {before}"], Failed),
    ("13.1.4 no date", "GET /f", &["If-Unmodified-Since: 0"], Whole),
    (
        "13.1.4 two",
        "GET /f",
        &["If-Unmodified-Since: {before}", "If-Unmodified-Since: {before}"],
        Whole,
    ),
    ("13.1.4 tag first", "GET /f", &["If-Match: {tag}", "If-Unmodified-Since: {before}"], Whole),
    // If-Range
    ("13.1.5", "GET /f", &["If-Range: {tag}", "Range: bytes=0-1"], Part(0, 1)),
    ("13.1.5", "GET /f", &["If-Range: \"x\"", "Range: bytes=0-1"], Whole),
    ("13.1.5 strong comparison", "GET /f", &["If-Range: W/{tag}", "Range: bytes=0-1"], Whole),
    ("13.1.5 exact match", "GET /f", &["If-Range: {date}", "Range: bytes=0-1"], Part(0, 1)),
    ("13.1.5 exact match", "GET /f", &["If-Range: {after}", "Range: bytes=0-1"], Whole),
    ("13.1.5 exact match", "GET /f", &["If-Range: {before}", "Range: bytes=0-1"], Whole),
    ("13.1.5 no validator", "GET /f", &["If-Range: 1", "Range: bytes=0-1"], Whole),
    ("13.1.5 without Range", "GET /f", &["If-Range: \"x\""], Whole),
    ("13.1.5 unsatisfiable", "GET /f", &["If-Range: \"x\"", "Range: bytes=100-"], Whole),
    // When to evaluate
    ("13.2.1", "GET /none", &["If-None-Match: *"], Status(404)),
    ("13.2.1", "GET /none", &["If-Unmodified-Since: {before}", "Range: bytes=0-"], Status(404)),
    ("13.2.1", "POST /f", &["If-Match: \"x\""], Status(405)),
    ("13.2.1", "GET /sub", &["If-None-Match: *"], Status(308)),
    ("13.2.1", "OPTIONS /f", &["If-Match: \"x\""], Status(204)),
    // Precedence
    ("13.2.2 1 before 2", "GET /f", &["If-Match: \"x\"", "If-Unmodified-Since: {date}"], Failed),
    ("13.2.2 1 before 3", "GET /f", &["If-None-Match: {tag}", "If-Match: \"x\""], Failed),
    ("13.2.2 1, then 3", "GET /f", &["If-None-Match: {tag}", "If-Match: {tag}"], NotModified),
    ("13.2.2 2 before 3", "GET /f", &["If-None-Match: *", "If-Unmodified-Since: {before}"], Failed),
    (
        "13.2.2 2 before 4",
        "GET /f",
        &["If-Modified-Since: {date}", "If-Unmodified-Since: {before}"],
        Failed,
    ),
    (
        "13.2.2 3 instead of 4",
        "GET /f",
        &["If-None-Match: {tag}", "If-Modified-Since: {before}"],
        NotModified,
    ),
    (
        "13.2.2 3 before 5",
        "GET /f",
        &["If-None-Match: {tag}", "If-Range: {tag}", "Range: bytes=0-1"],
        NotModified,
    ),
    ("13.2.2 3 before 5", "GET /f", &["If-None-Match: {tag}", "Range: bytes=500-"], NotModified),
    ("13.2.2 4 before 5", "GET /f", &["If-Modified-Since: {date}", "Range: bytes=0-"], NotModified),
    ("13.2.2 1 before 5", "GET /f", &["If-Match: \"x\"", "Range: bytes=0-1"], Failed),
    ("13.2.2 6", "GET /f", &["If-Match: {tag}", "Range: bytes=0-1"], Part(0, 1)),
    // Range
    ("14.1.1 case of units", "GET /f", &["Range: BYTES=0-1"], Part(0, 1)),
    ("14.1.2", "GET /f", &["Range: bytes=0-0"], Part(0, 0)),
    ("14.1.2", "GET /f", &["Range: bytes=10-19"], Part(10, 19)),
    ("14.1.2 to the end", "GET /f", &["Range: bytes=90-"], Part(90, 99)),
    ("14.1.2 past the end", "GET /f", &["Range: bytes=90-100"], Part(90, 99)),
    (
        "14.1.2 numbers of any size",
        "GET /f",
        &["Range: bytes=90-99999999999999999999"],
        Part(90, 99),
    ),
    ("14.1.2 suffix", "GET /f", &["Range: bytes=-1"], Part(99, 99)),
    ("14.1.2 suffix", "GET /f", &["Range: bytes=-100"], Part(0, 99)),
    ("14.1.2 longer suffix", "GET /f", &["Range: bytes=-101"], Part(0, 99)),
    ("14.1.2", "GET /f", &["Range: bytes=100-"], Unsatisfiable),
    ("14.1.2", "GET /f", &["Range: bytes=-0"], Unsatisfiable),
    ("14.1.2 first after last", "GET /f", &["Range: bytes=2-1"], Unsatisfiable),
    ("14.2 unknown unit", "GET /f", &["Range: lines=1-2"], Whole),
    ("14.2 malformed", "GET /f", &["Range: bytes=a-b"], Unsatisfiable),
    ("14.2 malformed", "GET /f", &["Range: bytes=0-1", "Range: bytes=2-3"], Unsatisfiable),
    ("14.2 only GET", "HEAD /f", &["Range: bytes=0-1"], Whole),
    ("14.2 only GET", "HEAD /f", &["Range: bytes=100-"], Whole),
    ("14.2 only GET", "POST /f", &["Range: bytes=0-1"], Status(405)),
    ("14.2 of what is there", "GET /none", &["Range: bytes=0-1"], Status(404)),
    ("14.2 in the order asked", "GET /f", &["Range: bytes=-1,0-0"], Parts(&[(99, 99), (0, 0)])),
    ("14.2 many", "GET /f", &["Range: bytes=0-,0-,0-"], Unsatisfiable),
    ("5.6.1 empty elements", "GET /f", &["Range: bytes=,0-0 , ,,\t-1"], Parts(&[(0, 0), (99, 99)])),
    ("15.3.7.2", "GET /f", &["Range: bytes=0-9,20-29"], Parts(&[(0, 9), (20, 29)])),
    ("15.3.7.2 one of them", "GET /f", &["Range: bytes=0-9,200-"], Part(0, 9)),
    ("15.3.7.2", "GET /f", &["If-Range: {tag}", "Range: bytes=0-9,-1"], Parts(&[(0, 9), (99, 99)])),
    ("15.5.17", "GET /f", &["Range: bytes=200-,300-"], Unsatisfiable),
    ("15.5.17 of nothing", "GET /empty", &["Range: bytes=0-"], Unsatisfiable),
    ("15.5.17 of nothing", "GET /empty", &["Range: bytes=-1"], Unsatisfiable),
];

fn content() -> Vec<u8> {
    (0..50).flat_map(|number: u8| format!("{number:02}").into_bytes()).collect()
}

#[test]
fn conditions_and_ranges_are_as_rfc_9110_says() {
    let dir = plain_dir();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("f"), content()).unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED);
    let file = File::options().write(true).open(dir.path().join("f")).unwrap();
    file.set_modified(modified).unwrap();
    let server = Server::start(dir.path(), &[]);
    let tag = ask(&server, "HEAD /f", &[""; 0]).head.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"'), "8.8.3: a strong tag: {tag}");
    for (section, request, fields, gets) in CASES {
        let fields: Vec<String> = fields
            .iter()
            .map(|field| {
                field
                    .replace("{tag}", &tag)
                    .replace("{date}", "Sun, 06 Nov 1994 08:49:37 GMT")
                    .replace("{before}", "Sun, 06 Nov 1994 08:49:36 GMT")
                    .replace("{after}", "Sun, 06 Nov 1994 08:49:38 GMT")
            })
            .collect();
        let context = format!("section {section}: {request} with {fields:?}");
        check(&ask(&server, request, &fields), request, &tag, *gets, &context);
    }
}

#[track_caller]
fn check(answer: &Answer, request: &str, tag: &str, gets: Gets, context: &str) {
    let Answer { head, body } = answer;
    let context = format!("{context} got\n{}", head.text);
    let is_get = request.starts_with("GET ");
    let part = |range: RangeInclusive<u64>| {
        let (first, last) = (usize::try_from(*range.start()), usize::try_from(*range.end()));
        content()[first.unwrap()..=last.unwrap()].to_owned()
    };
    let status = match gets {
        Whole => 200,
        Part(..) | Parts(_) => 206,
        NotModified => 304,
        Failed => 412,
        Unsatisfiable => 416,
        Status(status) => status,
    };
    assert_eq!(head.status, status, "{context}");
    assert!(head.header("date").is_some(), "6.6.1: {context}");
    let is_of_file = matches!(gets, Whole | Part(..) | Parts(_) | NotModified);
    assert_eq!(head.header("etag"), is_of_file.then_some(tag), "8.8.3, 15.3.7, 15.4.5: {context}");
    let content_range = head.header("content-range");
    match gets {
        Whole => {
            assert_eq!(head.content_length(), 100, "8.6, 9.3.2: {context}");
            assert_eq!(head.header("accept-ranges"), Some("bytes"), "14.3: {context}");
            assert_eq!(head.header("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
            assert_eq!(content_range, None, "14.4: {context}");
            assert!(!is_get || *body == content(), "{context}");
        }
        Part(first, last) => {
            let expected = format!("bytes {first}-{last}/100");
            assert_eq!(content_range, Some(expected.as_str()), "14.4: {context}");
            assert_eq!(*body, part(first..=last), "{context}");
            assert!(!is_multipart(answer), "15.3.7.2: {context}");
        }
        Parts(ranges) => {
            assert_eq!(content_range, None, "15.3.7.2: {context}");
            assert!(is_multipart(answer), "15.3.7.2: {context}");
            let found: Vec<(String, Vec<u8>)> = parts_of(answer);
            let expected: Vec<_> = ranges
                .iter()
                .map(|(first, last)| (format!("bytes {first}-{last}/100"), part(*first..=*last)))
                .collect();
            assert_eq!(found, expected, "14.6: {context}");
        }
        NotModified => {
            assert_eq!(head.header("content-length"), None, "15.4.5: {context}");
            assert_eq!(head.header("vary"), Some("Accept-Encoding"), "15.4.5: {context}");
        }
        Unsatisfiable => {
            let len = if request == "GET /empty" { 0 } else { 100 };
            let expected = format!("bytes */{len}");
            assert_eq!(content_range, Some(expected.as_str()), "15.5.17: {context}");
        }
        Failed => assert_eq!(content_range, None, "{context}"),
        Status(status) => {
            let allow = matches!(status, 204 | 405).then_some("GET, HEAD, OPTIONS");
            assert_eq!(head.header("allow"), allow, "9.3.7, 15.5.6: {context}");
            assert_eq!(content_range, None, "14.4: {context}");
        }
    }
}

fn is_multipart(answer: &Answer) -> bool {
    answer.head.header("content-type").is_some_and(|of| of.starts_with("multipart/byteranges;"))
}

/// The parts of multipart/byteranges: Content-Range and bytes of each.
fn parts_of(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let media_type = answer.head.header("content-type").unwrap();
    let boundary = media_type.split_once("boundary=").unwrap().1;
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let delimiter = format!("--{boundary}");
    let (between, end) = text.rsplit_once(&delimiter).unwrap();
    assert_eq!(end, "--\r\n", "the closing delimiter");
    let mut parts = between.split(&delimiter);
    assert_eq!(parts.next(), Some(""), "nothing before the first part");
    parts
        .map(|part| {
            let part = part.strip_prefix("\r\n").unwrap().strip_suffix("\r\n").unwrap();
            let (head, bytes) = part.split_once("\r\n\r\n").unwrap();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            assert_eq!(field("Content-Type: "), Some("application/octet-stream"));
            (field("Content-Range: ").unwrap().to_owned(), bytes.as_bytes().to_owned())
        })
        .collect()
}
