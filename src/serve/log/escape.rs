//! Text of strangers as it may stand in a line that people read on a terminal and programs take
//! apart: it forges neither. PURE.

use std::fmt::Write;

/// Printable ASCII as it is, but quotes and backslashes after a backslash; every other byte as
/// `\xNN`. So it is read back without loss, and is one line.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => write!(out, "\\x{byte:02x}").expect("a string takes everything"),
        }
    }
    out
}

/// The same for a word, which blanks end and not quotes.
pub(crate) fn word(bytes: &[u8]) -> String {
    quoted(bytes).replace("\\\"", "\"").replace(' ', "\\x20")
}

/// JSON, in which what terminals act upon is escaped. JSON itself escapes only what is below the
/// space; DEL, C1 controls and line separators may stand in its strings, and only there.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped_and_nothing_lost() {
        assert_eq!(quoted(b"a \"b\" \\ \x1b[2J\n\xff"), r#"a \"b\" \\ \x1b[2J\x0a\xff"#);
        assert_eq!(word(br#"a b"\"#), r#"a\x20b"\\"#);
        let text = "a\u{9b}31m\u{2028}b\u{202e}";
        let escaped = json(&serde_json::to_string(text).unwrap());
        assert!(escaped.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }
}
