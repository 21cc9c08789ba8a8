//! Fields that a site adds to its responses, by the path of what is sent. PURE: texts become
//! rules, and rules and a path become fields. `files.rs` asks once for each file that it opens.

use std::path::Path;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONNECTION,
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A field of responses: `NAME: VALUE` for all, `GLOB=NAME: VALUE` for paths that match.
///
/// A glob that begins with a slash is matched against the whole path from the root of the site,
/// any other one against the end of it, from some slash on: `*.js` is `/**/*.js`. `*` and `?`
/// match no slash, `**` matches any number of names, and there are `[a-z]` and `{a,b}`. The path
/// of a directory's index.html is that of the file.
#[derive(Clone, Debug)]
pub struct HeaderRule {
    glob: Option<GlobMatcher>,
    name: HeaderName,
    /// `None`: the field is not sent.
    value: Option<HeaderValue>,
}

/// Cache-Control of files: `GLOB=VALUE`, with globs as [`HeaderRule`] has them.
#[derive(Clone, Debug)]
pub struct CacheRule(HeaderRule);

/// Why a text is no rule.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// There is no `=` behind a glob.
    #[error("'{0}' is not GLOB=VALUE, such as '/assets/**=max-age=3600'")]
    NoGlob(String),
    /// There is no colon behind a name.
    #[error("'{0}' is neither 'NAME: VALUE' nor 'GLOB=NAME: VALUE'")]
    NoColon(String),
    /// What stands before the colon is not a field name (RFC 9110, section 5.1).
    #[error("'{0}' is not a field name")]
    Name(String),
    /// The value holds what no field may: control characters, or none where one is needed.
    #[error("'{0}' is not a field value")]
    Value(String),
    /// The glob cannot be read.
    #[error("'{glob}' is not a glob")]
    Glob {
        /// What was to be one.
        glob: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// The field frames the message or is made from the file: another value would be a lie.
    #[error("'{0}' is made by the server for each response and cannot be set")]
    Reserved(HeaderName),
    /// A flag does that, and does it right.
    #[error("'{0}' is for --cors, which also answers preflight requests")]
    Cors(HeaderName),
}

/// Fields that a rule may not touch.
const RESERVED: [HeaderName; 15] = [
    ACCEPT_RANGES,
    ALLOW,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    DATE,
    ETAG,
    HeaderName::from_static("keep-alive"),
    LAST_MODIFIED,
    LOCATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VARY,
];

/// Fields that say something of a file: pages made by the server have their own.
const OF_FILES: [HeaderName; 5] =
    [CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE];

impl FromStr for HeaderRule {
    type Err = RuleError;

    fn from_str(rule: &str) -> Result<Self, RuleError> {
        let no_colon = || RuleError::NoColon(rule.to_owned());
        let (name, value) = rule.split_once(':').ok_or_else(no_colon)?;
        // Names have no `=`; in a value it may be.
        let (glob, name) = match name.rsplit_once('=') {
            Some((glob, name)) => (Some(compiled(glob)?), name),
            None => (None, name),
        };
        let name = HeaderName::from_str(name.trim())
            .map_err(|_| RuleError::Name(name.trim().to_owned()))?;
        if name == ACCESS_CONTROL_ALLOW_ORIGIN {
            return Err(RuleError::Cors(name));
        }
        if RESERVED.contains(&name) || name == "repr-digest" {
            return Err(RuleError::Reserved(name));
        }
        let value = Some(value.trim()).filter(|value| !value.is_empty());
        Ok(Self { glob, name, value: value.map(field_value).transpose()? })
    }
}

impl FromStr for CacheRule {
    type Err = RuleError;

    fn from_str(rule: &str) -> Result<Self, RuleError> {
        let (glob, value) =
            rule.split_once('=').ok_or_else(|| RuleError::NoGlob(rule.to_owned()))?;
        let glob = Some(compiled(glob)?);
        let value = Some(field_value(value.trim())?);
        Ok(Self(HeaderRule { glob, name: CACHE_CONTROL, value }))
    }
}

fn compiled(glob: &str) -> Result<GlobMatcher, RuleError> {
    let whole = if glob.starts_with('/') { glob.to_owned() } else { format!("/**/{glob}") };
    let compiled = GlobBuilder::new(&whole).literal_separator(true).build();
    let compiled = compiled.map_err(|source| RuleError::Glob { glob: glob.to_owned(), source })?;
    Ok(compiled.compile_matcher())
}

fn field_value(value: &str) -> Result<HeaderValue, RuleError> {
    let text = Some(value).filter(|value| !value.is_empty());
    let value_of = |text: &str| HeaderValue::try_from(text).ok();
    text.and_then(value_of).ok_or_else(|| RuleError::Value(value.escape_default().to_string()))
}

/// The rules of a site. For each name the first one that matches counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Vec<HeaderRule>);

impl Rules {
    /// Those of `cache` and `headers`, then what every site has unless told otherwise.
    pub(crate) fn new(cache: &[CacheRule], headers: &[HeaderRule]) -> Self {
        let cache = cache.iter().map(|rule| rule.0.clone());
        let mut rules = Self(cache.chain(headers.iter().cloned()).collect());
        // A browser is not to take a text for a program, or a picture for a page.
        rules.always(X_CONTENT_TYPE_OPTIONS, "nosniff");
        rules
    }

    /// Adds a field for every path.
    pub(crate) fn always(&mut self, name: HeaderName, value: &'static str) {
        let value = Some(HeaderValue::from_static(value));
        self.0.push(HeaderRule { glob: None, name, value });
    }

    /// Sets the fields of a file at `path`, which begins with a slash.
    pub(crate) fn of_file(&self, path: &Path, fields: &mut HeaderMap) {
        for (name, value) in self.of(path) {
            fields.insert(name, value.clone());
        }
    }

    /// Adds those of something else at `path` that it has not.
    pub(crate) fn of_page(&self, path: &Path, fields: &mut HeaderMap) {
        for (name, value) in self.of(path).filter(|(name, _)| !OF_FILES.contains(name)) {
            if !fields.contains_key(name) {
                fields.insert(name, value.clone());
            }
        }
    }

    fn of<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let matching =
            move |rule: &HeaderRule| rule.glob.as_ref().is_none_or(|glob| glob.is_match(path));
        let is_first = move |index: usize, name: &HeaderName| {
            !self.0[..index].iter().any(|before| before.name == *name && matching(before))
        };
        let rules = self.0.iter().enumerate();
        let first =
            rules.filter(move |(index, rule)| matching(rule) && is_first(*index, &rule.name));
        first.filter_map(|(_, rule)| Some((&rule.name, rule.value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(cache: &[&str], headers: &[&str]) -> Rules {
        let cache: Vec<_> = cache.iter().map(|rule| rule.parse().unwrap()).collect();
        let headers: Vec<_> = headers.iter().map(|rule| rule.parse().unwrap()).collect();
        Rules::new(&cache, &headers)
    }

    #[track_caller]
    fn check(rules: &Rules, path: &str, name: &str, expected: Option<&str>) {
        let mut fields = HeaderMap::new();
        rules.of_file(Path::new(path), &mut fields);
        let found = fields.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(found, expected, "{name} of {path}");
    }

    #[test]
    fn the_first_that_matches_counts() {
        let rules = rules(
            &["/assets/**=public, max-age=31536000, immutable", "*.html=no-cache", "**=max-age=60"],
            &["cache-control: never", "X-One: 1", "/a/**=X-One: 2", "/a/**=X-Two: a=b: c"],
        );
        for (path, expected) in [
            ("/assets/app.js", "public, max-age=31536000, immutable"),
            ("/assets/deep/er.html", "public, max-age=31536000, immutable"),
            ("/index.html", "no-cache"),
            ("/a/b/index.html", "no-cache"),
            ("/assets", "max-age=60"),
            ("/other", "max-age=60"),
            ("/a/b.htmlx", "max-age=60"),
        ] {
            check(&rules, path, "cache-control", Some(expected));
        }
        check(&rules, "/a/b", "x-one", Some("1"));
        check(&rules, "/a/b", "x-two", Some("a=b: c"));
        check(&rules, "/b", "x-two", None);
    }

    #[test]
    fn globs_mind_the_slash() {
        let rules =
            rules(&[], &["/one/*=X-A: 1", "*.{js,css}=X-B: 1", "/d?r/**=X-C: 1", "name=X-D: 1"]);
        for (name, path, matches) in [
            ("x-a", "/one/two", true),
            ("x-a", "/one/two/three", false),
            ("x-a", "/zero/one/two", false),
            ("x-b", "/a.js", true),
            ("x-b", "/a/b/c.css", true),
            ("x-b", "/a.js/b", false),
            ("x-b", "/a.jsx", false),
            ("x-c", "/dir/a/b", true),
            ("x-c", "/d/r/a", false),
            ("x-d", "/name", true),
            ("x-d", "/a/name", true),
            ("x-d", "/rename", false),
        ] {
            check(&rules, path, name, matches.then_some("1"));
        }
    }

    #[test]
    fn defaults_can_be_changed_and_taken_away() {
        check(&rules(&[], &[]), "/a", "x-content-type-options", Some("nosniff"));
        let away = rules(&[], &["*.old=X-Content-Type-Options:"]);
        check(&away, "/a.old", "x-content-type-options", None);
        check(&away, "/a.new", "x-content-type-options", Some("nosniff"));
    }

    #[test]
    fn pages_keep_what_they_have_and_get_nothing_that_is_for_files() {
        let rules = rules(&["**=max-age=60"], &["Content-Type: a/b", "X-A: rule", "X-B: rule"]);
        let mut fields = HeaderMap::from_iter([(
            HeaderName::from_static("x-a"),
            HeaderValue::from_static("page"),
        )]);
        rules.of_page(Path::new("/"), &mut fields);
        let found = |name| fields.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((found("x-a"), found("x-b")), (Some("page"), Some("rule")));
        assert_eq!((found("content-type"), found("cache-control")), (None, None));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for (rule, expected) in [
            ("", "'' is neither"),
            ("X-A", "'X-A' is neither"),
            ("=: v", "'' is not a field name"),
            ("a b: v", "'a b' is not a field name"),
            ("X-A: \u{7f}", "'\\u{7f}' is not a field value"),
            ("[=X-A: v", "'[' is not a glob"),
            ("Content-Length: 3", "'content-length' is made by the server"),
            ("/a=Vary: x", "'vary' is made by the server"),
            ("Access-Control-Allow-Origin: *", "'access-control-allow-origin' is for --cors"),
        ] {
            let error = rule.parse::<HeaderRule>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{rule}: {error}");
        }
        for (rule, expected) in [("no-cache", "'no-cache' is not GLOB"), ("/a=", "'' is not a")] {
            let error = rule.parse::<CacheRule>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{rule}: {error}");
        }
    }
}
