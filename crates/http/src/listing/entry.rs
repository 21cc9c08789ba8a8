//! What a directory holds, and the orders in which people look for it. PURE.

use std::cmp::Ordering;

use pagewire_engine::Modified;

use crate::listing::asked::Sort;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Any bytes but `/` and NUL.
    pub(crate) name: Box<[u8]>,
    pub(crate) directory: bool,
    /// It is a symbolic link to what the other fields describe.
    pub(crate) link: bool,
    /// Not asked for yet, or gone since the directory was read.
    pub(crate) facts: Option<Facts>,
}

/// What costs a system call for each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// In bytes; of a directory it means nothing.
    pub(crate) len: u64,
    pub(crate) modified: Modified,
}

/// The order of two entries: directories first, and by name where the rest is equal.
pub(crate) fn compare(one: &Entry, two: &Entry, sort: Sort, descending: bool) -> Ordering {
    let directed = |order: Ordering| if descending { order.reverse() } else { order };
    let len = |entry: &Entry| entry.facts.filter(|_| !entry.directory).map(|facts| facts.len);
    let modified = |entry: &Entry| {
        entry.facts.map(|facts| (facts.modified.seconds, facts.modified.nanoseconds))
    };
    let names = || natural(&one.name, &two.name);
    two.directory.cmp(&one.directory).then_with(|| match sort {
        Sort::Name => directed(names()),
        Sort::Size => directed(len(one).cmp(&len(two))).then_with(names),
        Sort::Date => directed(modified(one).cmp(&modified(two))).then_with(names),
    })
}

/// As people count: `9.txt` before `10.txt`, and `b` between `A` and `C`. Names that differ only
/// in case or in leading zeros are still in one order, that of their bytes.
fn natural(one: &[u8], two: &[u8]) -> Ordering {
    let (mut left, mut right) = (one, two);
    while let (Some(first), Some(second)) = (left.first(), right.first()) {
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let (number, rest) = take_number(left);
            left = rest;
            let (other, rest) = take_number(right);
            right = rest;
            number.len().cmp(&other.len()).then_with(|| number.cmp(other))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            first.to_ascii_lowercase().cmp(&second.to_ascii_lowercase())
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| one.cmp(two))
}

/// The digits at the front, without leading zeros, and what follows them.
fn take_number(name: &[u8]) -> (&[u8], &[u8]) {
    let end = name.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(name.len());
    let (digits, rest) = name.split_at(end);
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (&digits[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_ordered_as_people_do() {
        let ordered = [
            "", "-", "0", "00", "01", "1", "2", "9.txt", "10.txt", "A", "a", "a1", "a2b", "a10",
            "b", "C", "file 1", "file 2", "file 12", "z", "\u{e4}",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other, two) in ordered.iter().enumerate() {
                let order = natural(one.as_bytes(), two.as_bytes());
                assert_eq!(order, at.cmp(&other), "{one:?} {two:?}");
            }
        }
    }

    fn entry(name: &str, directory: bool, len: u64, seconds: i64) -> Entry {
        let modified = Modified { seconds, nanoseconds: 0 };
        let facts = Some(Facts { len, modified });
        Entry { name: name.as_bytes().into(), directory, link: false, facts }
    }

    #[track_caller]
    fn check(sort: Sort, descending: bool, expected: [&str; 5]) {
        let mut entries = [
            entry("b", false, 5, 3),
            entry("a", false, 9, 1),
            entry("c", false, 5, 2),
            entry("y", true, 1, 8),
            entry("x", true, 2, 9),
        ];
        entries.sort_by(|one, two| compare(one, two, sort, descending));
        assert_eq!(entries.map(|entry| entry.name), expected.map(|name| name.as_bytes().into()));
    }

    #[test]
    fn directories_come_first_in_every_order() {
        check(Sort::Name, false, ["x", "y", "a", "b", "c"]);
        check(Sort::Name, true, ["y", "x", "c", "b", "a"]);
        check(Sort::Size, false, ["x", "y", "b", "c", "a"]);
        check(Sort::Size, true, ["x", "y", "a", "b", "c"]);
        check(Sort::Date, false, ["y", "x", "a", "c", "b"]);
        check(Sort::Date, true, ["x", "y", "b", "c", "a"]);
    }

    proptest! {
        #[test]
        fn the_order_of_names_is_total(names in proptest::collection::vec("[aB01_]{0,5}", 3)) {
            let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
            let (one, two, three) = (names[0], names[1], names[2]);
            prop_assert_eq!(natural(one, two), natural(two, one).reverse());
            prop_assert_eq!(natural(one, two).is_eq(), one == two);
            if natural(one, two).is_le() && natural(two, three).is_le() {
                prop_assert!(natural(one, three).is_le());
            }
        }
    }
}
