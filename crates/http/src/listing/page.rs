//! The page of a directory. PURE: what a directory holds in, HTML out. Looks and scripts are in
//! `templates/`, and nothing is loaded from elsewhere.

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine, prelude::BASE64_STANDARD};
use pagewire_engine::Modified;
use sha2::{Digest, Sha256};

use crate::listing::asked::{Asked, Sort};
use crate::listing::entry::{Entry, Facts};
use crate::listing::qr::Phone;
use crate::listing::read::Listed;
use crate::listing::{kind, readme, show};
use crate::resolve::{TargetPath, encoded};

const STYLE: &str = include_str!("../../templates/listing.css");
const SCRIPT: &str = include_str!("../../templates/listing.js");

/// What the page may do: use its own style and script, and show pictures that its README names
/// and that lie on this server.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; img-src 'self' data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// The page as HTML.
pub(crate) fn render(
    root_name: &str,
    target: &TargetPath,
    asked: &Asked,
    listed: &Listed,
    phone: Phone,
) -> Result<String, askama::Error> {
    let crumbs = crumbs(root_name, target);
    let name = crumbs.last().map_or("", |crumb| crumb.name.as_str());
    let is_sorted = (asked.sort, asked.descending) != (Sort::Name, false);
    let page = Page {
        title: name.to_owned(),
        css: STYLE,
        script: SCRIPT,
        whole: listed.pages == 1,
        summary: summary(asked, listed),
        filter: &asked.filter,
        sorted: is_sorted
            .then(|| Sorted { name: asked.sort.name(), order: order(asked.descending) }),
        phone,
        has_parent: crumbs.len() > 1,
        columns: Sort::ALL.map(|sort| Column::new(sort, asked)),
        rows: listed.entries.iter().map(Row::new).collect(),
        turn: (listed.pages > 1).then(|| Turn::new(asked, listed)),
        readme: listed.readme.as_ref().map(|readme| Readme {
            name: show::name(&readme.name),
            html: readme::to_html(&readme.text, readme.markup),
        }),
        crumbs,
    };
    page.render()
}

#[derive(Template)]
#[template(path = "listing.html")]
struct Page<'a> {
    title: String,
    css: &'static str,
    script: &'static str,
    /// All that there is stands on this one page.
    whole: bool,
    crumbs: Vec<Crumb>,
    summary: String,
    filter: &'a str,
    sorted: Option<Sorted>,
    phone: Phone,
    has_parent: bool,
    columns: [Column; 3],
    rows: Vec<Row>,
    turn: Option<Turn>,
    readme: Option<Readme>,
}

struct Crumb {
    name: String,
    href: String,
}

/// All links are relative: the page is right behind proxies that put a prefix before its path.
fn crumbs(root_name: &str, target: &TargetPath) -> Vec<Crumb> {
    let names: Vec<String> = target.names().map(show::name).collect();
    let depth = names.len();
    let names = std::iter::once(root_name.to_owned()).chain(names);
    names
        .enumerate()
        .map(|(at, name)| match depth - at {
            0 => Crumb { name, href: "./".to_owned() },
            up => Crumb { name, href: "../".repeat(up) },
        })
        .collect()
}

fn summary(asked: &Asked, listed: &Listed) -> String {
    let folders = listed.directories;
    let files = listed.found - folders;
    let count = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {many}", show::count(count as u64)),
    };
    let mut parts = Vec::new();
    if folders > 0 {
        parts.push(count(folders, "folder", "folders"));
    }
    if files > 0 || folders == 0 {
        parts.push(count(files, "file", "files"));
    }
    if listed.pages == 1 && files > 0 {
        let files = listed.entries.iter().filter(|entry| !entry.directory);
        let lens = files.filter_map(|entry| entry.facts).map(|facts| facts.len);
        parts.push(show::size(lens.fold(0, u64::saturating_add)));
    }
    let counted = parts.join(", ");
    if asked.filter.is_empty() {
        return counted;
    }
    format!("{counted} of {} with “{}”", show::count(listed.total as u64), asked.filter)
}

fn order(descending: bool) -> &'static str {
    if descending { "desc" } else { "asc" }
}

struct Sorted {
    name: &'static str,
    order: &'static str,
}

struct Column {
    key: &'static str,
    title: &'static str,
    /// In which direction the page is sorted by this column, if it is.
    direction: Option<&'static str>,
    /// The order that a press of the button asks for.
    next: &'static str,
}

impl Column {
    fn new(sort: Sort, asked: &Asked) -> Self {
        let title = match sort {
            Sort::Name => "Name",
            Sort::Size => "Size",
            Sort::Date => "Modified",
        };
        let is_sorted = sort == asked.sort;
        let direction = if asked.descending { "descending" } else { "ascending" };
        Self {
            key: sort.name(),
            title,
            direction: is_sorted.then_some(direction),
            // Of sizes and dates the greatest are what one looks for first.
            next: order(if is_sorted { !asked.descending } else { sort != Sort::Name }),
        }
    }
}

struct Row {
    href: String,
    name: String,
    icon: &'static str,
    link: bool,
    directory: bool,
    /// Of files.
    len: Option<u64>,
    /// A day and the time of it.
    date: String,
    exact_date: String,
}

impl Row {
    fn new(entry: &Entry) -> Self {
        let Entry { name, directory, link, facts } = entry;
        let slash = if *directory { "/" } else { "" };
        let of = |text: fn(Modified) -> String| {
            facts.map_or_else(String::new, |Facts { modified, .. }| text(modified))
        };
        Self {
            href: format!("{}{slash}", encoded(name)),
            name: format!("{}{slash}", show::name(name)),
            icon: kind::of(name, *directory),
            link: *link,
            directory: *directory,
            len: facts.filter(|_| !directory).map(|facts| facts.len),
            date: of(show::date),
            exact_date: of(show::exact_date),
        }
    }

    fn size(&self) -> String {
        self.len.map_or_else(String::new, show::size)
    }

    fn exact_size(&self) -> String {
        self.len.map_or_else(String::new, show::exact_size)
    }

    fn day(&self) -> &str {
        self.date.split(' ').next().unwrap_or_default()
    }

    fn clock(&self) -> &str {
        self.date.split(' ').nth(1).unwrap_or_default()
    }
}

/// The way to the pages before and after this one.
struct Turn {
    page: usize,
    pages: usize,
    back: Option<String>,
    on: Option<String>,
}

impl Turn {
    fn new(asked: &Asked, listed: &Listed) -> Self {
        let (page, pages) = (listed.page, listed.pages);
        let back = page.checked_sub(1).map(|page| asked.for_page(page));
        let on = (page + 1 < pages).then(|| asked.for_page(page + 1));
        Self { page: page + 1, pages, back, on }
    }
}

struct Readme {
    name: String,
    html: String,
}
