//! A directory's README as safe HTML. PURE: text in, HTML out.

use ammonia::Builder;
use pulldown_cmark::{Event, Options, Parser, html};

/// The longest README that is shown.
pub(crate) const README_BYTES_MAX: u64 = 128 * 1024;

/// How deep its lists and quotes may lie in each other, and how many tags of raw HTML it may hold
/// before it is shown as plain text: an HTML parser's time grows with the square of either.
const DEPTH_MAX: usize = 64;
const RAW_TAGS_MAX: usize = 2000;

/// How a README is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Markup {
    Markdown,
    Text,
}

/// How the file called `name` is written, if it is a README; the greater is the better one.
pub(crate) fn markup(name: &[u8]) -> Option<(u8, Markup)> {
    match name.to_ascii_lowercase().as_slice() {
        b"readme.md" => Some((4, Markup::Markdown)),
        b"readme.markdown" => Some((3, Markup::Markdown)),
        b"readme.txt" => Some((2, Markup::Text)),
        b"readme" => Some((1, Markup::Text)),
        _ => None,
    }
}

/// HTML that runs nothing, loads nothing from elsewhere by itself (the page's policy forbids it
/// once more) and cannot pass for the page around it.
pub(crate) fn to_html(text: &str, markup: Markup) -> String {
    let plain = || format!("<pre>{}</pre>", ammonia::clean_text(text));
    match markup {
        Markup::Text => plain(),
        Markup::Markdown => rendered(text).unwrap_or_else(plain),
    }
}

/// `None` for what is too deep or too much.
fn rendered(text: &str) -> Option<String> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let (mut depth, mut raw_tags) = (0_usize, 0);
    let events: Option<Vec<Event<'_>>> = Parser::new_ext(text, options)
        .map(|event| {
            if let Event::Start(_) = event {
                depth += 1;
            } else if let Event::End(_) = event {
                depth = depth.saturating_sub(1);
            } else if let Event::Html(raw) | Event::InlineHtml(raw) = &event {
                raw_tags += raw.matches('<').count();
            }
            (depth <= DEPTH_MAX && raw_tags <= RAW_TAGS_MAX).then_some(event)
        })
        .collect();
    let mut page = String::new();
    html::push_html(&mut page, events?.into_iter());
    let mut safe = Builder::default();
    safe.link_rel(Some("noopener noreferrer nofollow"));
    Some(safe.clean(&page).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_readmes() {
        for (name, expected) in [
            ("README.md", Some(Markup::Markdown)),
            ("readme.MD", Some(Markup::Markdown)),
            ("README.txt", Some(Markup::Text)),
            ("README", Some(Markup::Text)),
            ("README.md.bak", None),
            ("AREADME", None),
        ] {
            assert_eq!(markup(name.as_bytes()).map(|(_, markup)| markup), expected, "{name}");
        }
        let rank = |name: &[u8]| markup(name).map(|(rank, _)| rank);
        assert!(rank(b"README.md") > rank(b"README.txt"));
    }

    #[test]
    fn markdown_becomes_html() {
        let html = to_html("# A\n\n| a |\n|-|\n| b |\n\n~~c~~ [d](e/f.txt)", Markup::Markdown);
        for piece in ["<h1>A</h1>", "<td>b</td>", "<del>c</del>", "<a href=\"e/f.txt\""] {
            assert!(html.contains(piece), "{piece} in {html}");
        }
    }

    #[test]
    fn nothing_in_a_readme_runs() {
        for text in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[a](javascript:alert(1))",
            "<a href='JaVaScRiPt:alert(1)'>x</a>",
            "<svg><animate onbegin=alert(1)></svg>",
            "<iframe src=//evil.example></iframe>",
            "<style>body{display:none}</style>",
            "<form action=//evil.example><input name=x></form>",
        ] {
            let html = to_html(text, Markup::Markdown).to_ascii_lowercase();
            for piece in ["<script", "onerror=a", "javascript:", "onbegin", "<iframe", "<style"] {
                assert!(!html.contains(piece), "{piece} of {text} in {html}");
            }
            assert!(!html.contains("<form") && !html.contains("<input"), "{html}");
        }
        // What looks like a tag inside of an attribute stays there.
        let inside = "<b title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">x</b>";
        assert_eq!(to_html(inside, Markup::Markdown), format!("<p>{inside}</p>\n"));
        assert_eq!(to_html("<b>&", Markup::Text), "<pre>&lt;b&gt;&amp;</pre>");
    }

    #[test]
    fn what_is_too_deep_is_shown_as_text() {
        for text in [">".repeat(100_000), "<div>".repeat(20_000), "*a ".repeat(40_000)] {
            let html = to_html(&text, Markup::Markdown);
            assert!(html.len() < 1_000_000, "{} bytes", html.len());
        }
        assert!(to_html(&"> ".repeat(100), Markup::Markdown).starts_with("<pre>"));
        assert!(to_html(&"<div>".repeat(5000), Markup::Markdown).starts_with("<pre>"));
    }
}
