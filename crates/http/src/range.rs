//! From a Range header and a file's length to byte ranges (RFC 9110, section 14). PURE: knows
//! neither requests nor files. Called by `partial.rs`.
#![deny(clippy::indexing_slicing)]

use smallvec::SmallVec;

/// The most ranges of one request. Browsers and download managers ask for a handful; each range
/// costs a part of the body, so that hundreds of tiny ones are an attack.
pub(crate) const RANGES_MAX: usize = 32;

/// Bytes of a file; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) first: u64,
    /// The last byte is in the range, as in the header.
    pub(crate) last: u64,
}

impl ByteRange {
    pub(crate) fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What of a file a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All of it: there is no Range header, or one in a unit that is not known here.
    Whole,
    /// These bytes, in this order; at least one range.
    Ranges(SmallVec<[ByteRange; 1]>),
    /// Nothing that can be sent: no range lies within the file, the header is malformed, or its
    /// set of ranges is one that only costs (section 14.2): too many, or overlapping until they
    /// amount to more than the file.
    Unsatisfiable,
}

/// What `range`, the value of a Range header, asks of a file of `len` bytes.
pub(crate) fn asked(range: &str, len: u64) -> Asked {
    let Some((unit, set)) = range.split_once('=') else {
        return Asked::Unsatisfiable;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    let mut ranges = SmallVec::new();
    let (mut specs, mut total) = (0, 0_u128);
    for spec in set.split(',').map(trimmed).filter(|spec| !spec.is_empty()) {
        specs += 1;
        match parse_one(spec, len) {
            Some(Some(range)) => {
                total += u128::from(range.len());
                ranges.push(range);
            }
            Some(None) => {}
            None => return Asked::Unsatisfiable,
        }
        if specs > RANGES_MAX || total > u128::from(len) {
            return Asked::Unsatisfiable;
        }
    }
    if ranges.is_empty() { Asked::Unsatisfiable } else { Asked::Ranges(ranges) }
}

fn trimmed(spec: &str) -> &str {
    spec.trim_matches([' ', '\t'])
}

/// `None` when malformed, `Some(None)` when it lies outside of the file.
fn parse_one(spec: &str, len: u64) -> Option<Option<ByteRange>> {
    let (first, last) = spec.split_once('-')?;
    let last_byte = len.checked_sub(1);
    if first.is_empty() {
        let suffix = number(last)?;
        let range = |last_byte| ByteRange { first: len.saturating_sub(suffix), last: last_byte };
        return Some(last_byte.filter(|_| suffix > 0).map(range));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    let within = last_byte.filter(|last_byte| first <= *last_byte);
    Some(within.map(|last_byte| ByteRange { first, last: last.min(last_byte) }))
}

/// Decimal digits; those that do not fit 64 bits lie past the end of every file.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(range: &str, len: u64, expected: &[(u64, u64)]) {
        let expected = match expected {
            [] => Asked::Unsatisfiable,
            ranges => {
                let ranges = ranges.iter().map(|(first, last)| (*first, *last));
                Asked::Ranges(ranges.map(|(first, last)| ByteRange { first, last }).collect())
            }
        };
        assert_eq!(asked(range, len), expected, "{range} of {len}");
    }

    #[test]
    fn single_ranges() {
        check("bytes=0-0", 10, &[(0, 0)]);
        check("bytes=0-", 10, &[(0, 9)]);
        check("bytes=3-5", 10, &[(3, 5)]);
        check("bytes=9-", 10, &[(9, 9)]);
        check("bytes=0-99", 10, &[(0, 9)]);
        check("bytes=-1", 10, &[(9, 9)]);
        check("bytes=-10", 10, &[(0, 9)]);
        check("bytes=-11", 10, &[(0, 9)]);
        check("BYTES=1-2", 10, &[(1, 2)]);
        check("bytes= 1-2 ", 10, &[(1, 2)]);
        check("bytes=0-18446744073709551615", 10, &[(0, 9)]);
        check("bytes=0-99999999999999999999999", 10, &[(0, 9)]);
    }

    #[test]
    fn nothing_to_satisfy() {
        for range in [
            "bytes=10-",
            "bytes=10-20",
            "bytes=-0",
            "bytes=99999999999999999999999-",
            "bytes=",
            "bytes=,",
            "bytes",
            "",
            "bytes=5-3",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=-",
            "bytes=--1",
            "bytes=1 - 2",
            "bytes=0-0,x",
        ] {
            check(range, 10, &[]);
        }
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0", "bytes=-0"] {
            check(range, 0, &[]);
        }
    }

    #[test]
    fn other_units_are_ignored() {
        for range in ["lines=1-2", "=1-2", "none=x", "bytes =1-2"] {
            assert_eq!(asked(range, 10), Asked::Whole, "{range}");
        }
    }

    #[test]
    fn several_ranges_keep_their_order() {
        check("bytes=0-0,-1", 10, &[(0, 0), (9, 9)]);
        check("bytes=5-6, 0-1 ,,\t8-", 10, &[(5, 6), (0, 1), (8, 9)]);
        check("bytes=0-1,100-200", 10, &[(0, 1)]);
    }

    #[test]
    fn sets_that_only_cost_are_refused() {
        check("bytes=0-,0-", 10, &[]);
        check("bytes=0-5,3-8", 10, &[]);
        check("bytes=0-4,3-7", 10, &[(0, 4), (3, 7)]);
        let tiny = |count: usize| format!("bytes={}", vec!["1-1"; count].join(","));
        assert!(matches!(asked(&tiny(RANGES_MAX), 1000), Asked::Ranges(_)));
        check(&tiny(RANGES_MAX + 1), 1000, &[]);
        // Found by fuzzing: a sum that stuck at the largest number was not more than the file.
        check("bytes=0-,-1", u64::MAX, &[]);
        check(&format!("bytes={}", vec!["9999-"; RANGES_MAX + 1].join(",")), 10, &[]);
    }

    /// The bytes that a set of ranges asks for, one by one: RFC 9110, sections 14.1.1 and 14.1.2,
    /// word by word and without arithmetic. `None` when there are none.
    fn byte_by_byte(specs: &[Spec], len: u64) -> Option<Vec<Vec<u64>>> {
        let of_one = |spec: &Spec| -> Vec<u64> {
            match *spec {
                Spec::From(first) => (0..len).filter(|at| *at >= first).collect(),
                Spec::Between(first, last) => {
                    (0..len).filter(|at| (first..=last).contains(at)).collect()
                }
                Spec::Last(count) => (0..len).filter(|at| len - at <= count).collect(),
            }
        };
        let found: Vec<_> = specs.iter().map(of_one).filter(|bytes| !bytes.is_empty()).collect();
        let total: usize = found.iter().map(Vec::len).sum();
        (!found.is_empty() && total as u64 <= len).then_some(found)
    }

    #[derive(Clone, Debug)]
    enum Spec {
        From(u64),
        Between(u64, u64),
        Last(u64),
    }

    fn spec() -> impl Strategy<Value = Spec> {
        prop_oneof![
            (0..60_u64).prop_map(Spec::From),
            (0..60_u64, 0..60_u64).prop_map(|(a, b)| Spec::Between(a.min(b), a.max(b))),
            (0..60_u64).prop_map(Spec::Last),
        ]
    }

    proptest! {
        #[test]
        fn the_same_bytes_as_by_the_letter(
            specs in prop::collection::vec(spec(), 1..6), len in 0..50_u64,
        ) {
            let written = specs.iter().map(|spec| match spec {
                Spec::From(first) => format!("{first}-"),
                Spec::Between(first, last) => format!("{first}-{last}"),
                Spec::Last(count) => format!("-{count}"),
            });
            let header = format!("bytes={}", written.collect::<Vec<_>>().join(", "));
            let found = match asked(&header, len) {
                Asked::Ranges(ranges) => {
                    Some(ranges.iter().map(|range| (range.first..=range.last).collect()).collect())
                }
                Asked::Whole | Asked::Unsatisfiable => None,
            };
            prop_assert_eq!(found, byte_by_byte(&specs, len), "{} of {}", header, len);
        }

        #[test]
        fn every_range_lies_within_the_file(range in "(bytes=)?[0-9,\\- ]{0,40}", len: u64) {
            if let Asked::Ranges(ranges) = asked(&range, len) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= RANGES_MAX);
                for range in &ranges {
                    prop_assert!(range.first <= range.last && range.last < len);
                }
                let total: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
                prop_assert!(total <= u128::from(len));
            }
        }

        #[test]
        fn what_is_written_is_read_back(first: u64, last: u64, len: u64) {
            let written = format!("bytes={first}-{last}");
            let expected = if first <= last && first < len {
                Asked::Ranges([ByteRange { first, last: last.min(len - 1) }].into_iter().collect())
            } else {
                Asked::Unsatisfiable
            };
            prop_assert_eq!(asked(&written, len), expected);
        }

        #[test]
        fn any_text_is_answered(range: String, len: u64) {
            asked(&range, len);
        }
    }
}
