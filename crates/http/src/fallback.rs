//! What a site sends in place of what it has not: the page of a single-page application, or one
//! that says so. PURE: request fields and a target in, which file out. Called by `service.rs`.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::resolve::TargetPath;

/// The file that says that there is none, where the site names no other. Static hosts agree on
/// this name.
const NOT_FOUND: &str = "404.html";

/// The files of a site for what it has not.
#[derive(Clone, Debug)]
pub(crate) struct Fallback {
    application: Option<TargetPath>,
    not_found: TargetPath,
}

/// What is sent in place of a missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead<'a> {
    /// The page of the application, with 200: it makes sense of the target by itself.
    Application(&'a TargetPath),
    /// This file, with 404.
    NotFound(&'a TargetPath),
}

impl Fallback {
    pub(crate) fn new(application: Option<TargetPath>, not_found: Option<TargetPath>) -> Self {
        let not_found =
            not_found.unwrap_or_else(|| TargetPath::default().child(NOT_FOUND.as_bytes()));
        Self { application, not_found }
    }

    /// What it depends on, for Vary.
    pub(crate) fn chosen_by(&self) -> &'static str {
        if self.application.is_some() { "Accept, Sec-Fetch-Mode" } else { "Accept" }
    }

    /// What is sent in place of `target`, to those who take pages.
    pub(crate) fn instead(&self, target: &TargetPath, headers: &HeaderMap) -> Option<Instead<'_>> {
        if !takes_html(headers) {
            return None;
        }
        let application = self.application.as_ref();
        let application = application.filter(|_| !has_extension(target) && navigates(headers));
        Some(match application {
            Some(page) => Instead::Application(page),
            None => Instead::NotFound(&self.not_found),
        })
    }
}

/// Whether the last name has a dot: then it is taken for a file's, and its absence for a fault.
fn has_extension(target: &TargetPath) -> bool {
    target.names().next_back().is_some_and(|name| name.contains(&b'.'))
}

/// A browser says so for what goes into its address line; what scripts fetch is told apart by
/// that. Who does not say is believed.
fn navigates(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
}

fn takes_html(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter().peekable();
    if lines.peek().is_none() {
        return true;
    }
    let ranges = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let mut names = ranges.map(|range| range.split(';').next().unwrap_or_default().trim());
    names.any(|name| {
        ["text/html", "text/*", "*/*"].iter().any(|html| name.eq_ignore_ascii_case(html))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn target(path: &str) -> TargetPath {
        TargetPath::parse(path).unwrap()
    }

    #[track_caller]
    fn check(path: &str, fields: &[(&'static str, &'static str)], expected: Option<&str>) {
        let headers =
            HeaderMap::from_iter(fields.iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            }));
        let fallback = Fallback::new(Some(target("/app.html")), None);
        let found = fallback.instead(&target(path), &headers).map(|instead| match instead {
            Instead::Application(page) => (200, page.relative().to_str().unwrap()),
            Instead::NotFound(page) => (404, page.relative().to_str().unwrap()),
        });
        let expected = expected.map(|page| (if page == "app.html" { 200 } else { 404 }, page));
        assert_eq!(found, expected, "{path} {fields:?}");
    }

    #[test]
    fn pages_are_for_those_who_navigate() {
        let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let (application, not_found) = (Some("app.html"), Some("404.html"));
        check("/users/7", &[], application);
        check("/users/7", &[("accept", "*/*")], application);
        check("/users/7", &[browser, ("sec-fetch-mode", "navigate")], application);
        check("/users/", &[browser], application);
        check("/users/7", &[browser, ("sec-fetch-mode", "cors")], not_found);
        check("/users/7", &[("accept", "application/json")], None);
        check("/app.js", &[browser], not_found);
        check("/v1.2/users", &[browser], application);
        check("/logo.png", &[("accept", "image/png")], None);
    }
}
