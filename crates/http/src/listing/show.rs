//! Names, sizes and dates for people. PURE.

use std::fmt::Write;

use jiff::Timestamp;
use pagewire_engine::Modified;

/// A name as text that can be read and shows nothing else than what it is: bytes that are not
/// UTF-8, control characters and marks that turn the direction of writing are spelled out.
pub(crate) fn name(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_invisible_mark(character) {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").expect("writing to a String does not fail");
        }
    }
    shown
}

/// Characters that have no looks of their own and change those of what is around them.
fn is_invisible_mark(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Bytes in two or three digits, in powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    let bytes = u128::from(bytes);
    let mut unit = 1;
    for name in ["kB", "MB", "GB", "TB", "PB", "EB"] {
        if bytes < 1000 {
            break;
        }
        unit *= 1000;
        let tenths = (bytes * 10 + unit / 2) / unit;
        let whole = (bytes + unit / 2) / unit;
        match (tenths, whole) {
            (..100, _) => return format!("{}.{} {name}", tenths / 10, tenths % 10),
            (_, ..1000) => return format!("{whole} {name}"),
            _ => {}
        }
    }
    format!("{bytes} B")
}

/// Bytes, all digits of them.
pub(crate) fn exact_size(bytes: u64) -> String {
    let unit = if bytes == 1 { "byte" } else { "bytes" };
    format!("{} {unit}", count(bytes))
}

/// A number with its digits in groups of three.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A moment as `2026-11-22 21:47` in UTC; empty outside of the years that have four digits.
pub(crate) fn date(modified: Modified) -> String {
    within_four_digits(modified)
        .map_or_else(String::new, |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// The same to the second, as RFC 3339 has it.
pub(crate) fn exact_date(modified: Modified) -> String {
    within_four_digits(modified).map_or_else(String::new, |time| time.to_string())
}

fn within_four_digits(modified: Modified) -> Option<Timestamp> {
    let time = Timestamp::from_second(modified.seconds).ok()?;
    time.to_string().starts_with(|first: char| first.is_ascii_digit()).then_some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_show_what_they_are() {
        for (bytes, expected) in [
            (&b"a b.txt"[..], "a b.txt"),
            ("\u{e4}\u{5d0}\u{1f600}".as_bytes(), "\u{e4}\u{5d0}\u{1f600}"),
            (b"<script>\"'&", "<script>\"'&"),
            (b"a\nb\t\x7f", "a\\nb\\t\\u{7f}"),
            (b"\xff\xfea", "\\xff\\xfea"),
            (b"\xe4\xb8", "\\xe4\\xb8"),
            ("a\u{202e}gpj.exe".as_bytes(), "a\\u{202e}gpj.exe"),
        ] {
            assert_eq!(name(bytes), expected);
        }
    }

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1049, "1.0 kB"),
            (1050, "1.1 kB"),
            (9949, "9.9 kB"),
            (9950, "10 kB"),
            (123_456, "123 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (5_368_709_120, "5.4 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        assert_eq!(exact_size(1), "1 byte");
        assert_eq!(exact_size(1_234_567), "1,234,567 bytes");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let modified = |seconds| Modified { seconds, nanoseconds: 999_999_999 };
        let at = |seconds| (date(modified(seconds)), exact_date(modified(seconds)));
        let shown = |date: &str, exact: &str| (date.to_owned(), exact.to_owned());
        assert_eq!(at(0), shown("1970-01-01 00:00", "1970-01-01T00:00:00Z"));
        assert_eq!(at(1_795_384_058), shown("2026-11-22 21:47", "2026-11-22T21:47:38Z"));
        assert_eq!(at(-1), shown("1969-12-31 23:59", "1969-12-31T23:59:59Z"));
        assert_eq!(at(i64::MAX), shown("", ""));
        assert_eq!(at(i64::MIN), shown("", ""));
    }

    proptest! {
        #[test]
        fn any_size_is_short(bytes: u64) {
            let shown = size(bytes);
            prop_assert!(shown.len() <= 6, "{}", shown);
            let (number, unit) = shown.split_once(' ').unwrap();
            let power = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
            let power = power.iter().position(|name| *name == unit).unwrap();
            let meant = number.parse::<f64>().unwrap() * 1000_f64.powi(power.try_into().unwrap());
            #[expect(clippy::cast_precision_loss, reason = "two digits are compared")]
            let bytes = bytes as f64;
            prop_assert!((meant - bytes).abs() <= bytes * 0.051, "{}", shown);
        }

        #[test]
        fn no_name_hides_anything(bytes: Vec<u8>) {
            let shown = name(&bytes);
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible_mark(c)));
        }
    }
}
