//! A directory as JSON, for programs. PURE. `docs/listing.md` describes it; fields are added,
//! never changed.

use serde::Serialize;

use crate::listing::asked::Asked;
use crate::listing::entry::{Entry, Facts};
use crate::listing::read::Listed;
use crate::listing::show;
use crate::resolve::{TargetPath, encoded};

/// The directory as JSON.
pub(crate) fn render(
    target: &TargetPath,
    asked: &Asked,
    listed: &Listed,
) -> serde_json::Result<String> {
    let names = target.names().map(|name| encoded(name) + "/");
    let directory = Directory {
        path: std::iter::once("/".to_owned()).chain(names).collect(),
        total: listed.total,
        found: listed.found,
        page: listed.page + 1,
        pages: listed.pages,
        next: (listed.page + 1 < listed.pages).then(|| asked.for_page(listed.page + 1)),
        entries: listed.entries.iter().map(Named::new).collect(),
    };
    serde_json::to_string(&directory)
}

#[derive(Serialize)]
struct Directory {
    /// Percent-encoded, as in a URL.
    path: String,
    /// Entries in all.
    total: usize,
    /// Those whose names contain what was asked for.
    found: usize,
    page: usize,
    pages: usize,
    /// A relative reference to the next page.
    next: Option<String>,
    entries: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    /// As text; bytes that are not UTF-8 are U+FFFD, and only `href` is exact.
    name: String,
    /// A relative reference.
    href: String,
    #[serde(rename = "type")]
    kind: &'static str,
    symlink: bool,
    /// In bytes; of files.
    size: Option<u64>,
    /// RFC 3339, in UTC, to the second.
    modified: Option<String>,
}

impl Named {
    fn new(entry: &Entry) -> Self {
        let Entry { name, directory, link, facts } = entry;
        let modified = facts.map(|Facts { modified, .. }| show::exact_date(modified));
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            href: encoded(name) + if *directory { "/" } else { "" },
            kind: if *directory { "directory" } else { "file" },
            symlink: *link,
            size: facts.filter(|_| !directory).map(|facts| facts.len),
            modified: modified.filter(|date| !date.is_empty()),
        }
    }
}
