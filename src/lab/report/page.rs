//! PURE: the report as one HTML file that needs nothing else: templates/report.html, filled.
//! It has no script; light, dark, narrow, wide and paper are the style sheet's.

use askama::Template;

use super::chart::{draw, slug};
use super::figure::{Cell, NOISY_SPREAD};
use super::model::{Column, Experiment, Report, Table};
use super::svg::CHART_CSS;
use super::unit::{Unit, digits, print_bytes};

/// A table of more rows is folded away at first.
const LONG_ROWS: usize = 16;

/// The whole page.
pub(crate) fn html(report: &Report) -> Result<String, askama::Error> {
    let page = Page {
        report,
        day: report.started.split('T').next().unwrap_or_default(),
        machine: machine(report),
        experiments: report.experiments.iter().map(Shelf::of).collect(),
        chart_css: CHART_CSS,
        noisy_percent: digits(NOISY_SPREAD * 100.0),
    };
    page.render()
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    day: &'a str,
    machine: Vec<(&'static str, String)>,
    experiments: Vec<Shelf<'a>>,
    chart_css: &'static str,
    noisy_percent: String,
}

/// One experiment, ready to be shown.
struct Shelf<'a> {
    of: &'a Experiment,
    id: String,
    wide: Vec<Both>,
    narrow: Vec<String>,
    tables: Vec<Grid<'a>>,
    took: String,
}

/// A picture that is another one where there is room.
struct Both {
    narrow: String,
    wide: String,
}

struct Grid<'a> {
    of: &'a Table,
    heads: Vec<Head<'a>>,
    rows: Vec<Line>,
}

struct Head<'a> {
    title: &'a str,
    symbol: &'static str,
    number: bool,
}

struct Line {
    keys: Vec<String>,
    cells: Vec<Shown>,
}

enum Shown {
    Number {
        text: String,
        spread: String,
        range: String,
        noisy: bool,
    },
    Words(String),
    /// Why, for so many columns.
    Missing {
        text: String,
        columns: usize,
    },
}

impl<'a> Shelf<'a> {
    fn of(experiment: &'a Experiment) -> Self {
        let id = slug(&experiment.name);
        let (mut wide, mut narrow) = (Vec::new(), Vec::new());
        for (index, chart) in experiment.charts.iter().enumerate() {
            let picture = draw(experiment, chart, &format!("{id}-chart-{index}"));
            match picture.wide {
                Some(both) => {
                    wide.push(Both { narrow: picture.narrow.inline(), wide: both.inline() });
                }
                None => narrow.push(picture.narrow.inline()),
            }
        }
        let tables = experiment.tables.iter().map(Grid::of).collect();
        let took = Unit::Seconds.print(experiment.seconds);
        Self { of: experiment, id, wide, narrow, tables, took }
    }
}

impl<'a> Grid<'a> {
    fn of(table: &'a Table) -> Self {
        let keys = table.keys.iter().map(|key| Head { number: false, ..Head::of(key) });
        let heads = keys.chain(table.columns.iter().map(Head::of)).collect();
        let rows = table.rows.iter().map(|row| Line {
            keys: table.keys.iter().zip(&row.keys).map(|(key, text)| key.print_key(text)).collect(),
            cells: match row.missing() {
                Some(why) => {
                    vec![Shown::Missing { text: why.to_owned(), columns: row.cells.len() }]
                }
                None => {
                    table.columns.iter().zip(&row.cells).map(|(at, cell)| shown(at, cell)).collect()
                }
            },
        });
        Self { of: table, heads, rows: rows.collect() }
    }

    /// Whether it is folded away; what it says is in a chart, too.
    fn is_long(&self) -> bool {
        self.rows.len() > LONG_ROWS
    }
}

impl<'a> Head<'a> {
    fn of(column: &'a Column) -> Self {
        let symbol = column.unit.map_or("", Unit::symbol);
        Self { title: &column.title, symbol, number: column.unit.is_some() }
    }
}

fn shown(column: &Column, cell: &Cell) -> Shown {
    match cell {
        Cell::Measured(figure) => {
            let (low, high) = (column.print_whole(figure.min()), column.print_whole(figure.max()));
            let range = match figure.samples().len() {
                1 => "one round".to_owned(),
                rounds => format!("{rounds} rounds from {low} to {high}"),
            };
            let (text, noisy) = (column.print(figure.median()), figure.is_noisy());
            Shown::Number { text, spread: figure.print_spread(), range, noisy }
        }
        Cell::Said(words) => Shown::Words(words.clone()),
        Cell::Missing(why) => Shown::Missing { text: why.clone(), columns: 1 },
    }
}

/// Facts by name; those that the system did not tell are left out.
fn machine(report: &Report) -> Vec<(&'static str, String)> {
    let machine = &report.machine;
    let processors = match (&machine.processor, machine.processors) {
        (Some(model), count) => format!("{count} × {model}"),
        (None, count) => count.to_string(),
    };
    let memory = machine.memory_bytes.map(print_bytes);
    let user = if machine.root { "root" } else { "an ordinary one" };
    let facts = [
        ("Kernel", Some(machine.kernel.clone())),
        ("Processors", Some(processors)),
        ("Memory", memory),
        ("Congestion control", machine.congestion_control.clone()),
        ("File system", machine.file_system.clone()),
        ("User", Some(user.to_owned())),
        ("Started", Some(minute(&report.started))),
        ("Took", Some(Unit::Seconds.print(report.seconds))),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect()
}

/// "2026-11-22 21:47 UTC"; what is no such time, as it is.
fn minute(time: &str) -> String {
    match (time.get(..10), time.get(10..11), time.get(11..16), time.ends_with('Z')) {
        (Some(day), Some("T"), Some(minute), true) => format!("{day} {minute} UTC"),
        _ => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use roxmltree::{Document, Node, ParsingOptions};

    use super::super::samples;
    use super::*;

    /// The page is written so that it is XML, too: what an XML parser takes has no tag left open
    /// and no sign unescaped.
    fn check(report: &Report, look: impl Fn(&Document, &str)) {
        let page = html(report).unwrap();
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        let document = Document::parse_with_options(&page, options);
        look(&document.unwrap_or_else(|error| panic!("{error}: {page}")), &page);
    }

    fn all<'a>(document: &'a Document, tag: &str) -> Vec<Node<'a, 'a>> {
        let nodes = document.descendants().filter(|node| node.tag_name().name() == tag);
        nodes.collect()
    }

    fn has(node: Node, tag: &str) -> bool {
        node.descendants().any(|below| below.tag_name().name() == tag)
    }

    #[test]
    fn the_page_needs_nothing_else_and_runs_nothing() {
        check(&samples::report(), |document, page| {
            for tag in ["script", "link", "img", "iframe", "object", "image", "use"] {
                assert!(all(document, tag).is_empty(), "{tag}");
            }
            let attributes = document.descendants().flat_map(|node| node.attributes());
            for attribute in attributes {
                assert!(!attribute.name().starts_with("on"), "{attribute:?}");
                let leads_out = attribute.value().contains("//");
                assert!(!leads_out, "{attribute:?}");
            }
            assert!(!page.contains("url(") && !page.contains("@import"), "styles fetch nothing");
        });
    }

    #[test]
    fn readers_of_screens_get_names_for_all() {
        check(&samples::report(), |document, _| {
            let ids: Vec<&str> = document.descendants().filter_map(|n| n.attribute("id")).collect();
            let once: BTreeSet<&str> = ids.iter().copied().collect();
            assert_eq!(ids.len(), once.len(), "each id is there once: {ids:?}");
            for svg in all(document, "svg") {
                assert!(has(svg, "title") && has(svg, "desc"), "{svg:?}");
                let named = svg.attribute("aria-labelledby").unwrap_or_default();
                assert!(named.split(' ').all(|id| once.contains(id)), "{named}");
            }
            for table in all(document, "table") {
                assert!(has(table, "caption"), "{table:?}");
            }
            for head in all(document, "th") {
                assert!(matches!(head.attribute("scope"), Some("col" | "row")), "{head:?}");
            }
            for link in all(document, "a") {
                let to = link.attribute("href").and_then(|to| to.strip_prefix('#'));
                assert!(to.is_some_and(|id| once.contains(id)), "{link:?}");
            }
        });
    }

    #[test]
    fn every_row_has_as_many_places_as_the_head() {
        check(&samples::report(), |document, _| {
            for table in all(document, "table") {
                let places = |row: Node| -> usize {
                    let cells = row.children().filter(Node::is_element);
                    cells
                        .map(|cell| cell.attribute("colspan").map_or(1, |n| n.parse().unwrap()))
                        .sum()
                };
                let rows = table.descendants().filter(|node| node.tag_name().name() == "tr");
                let widths: BTreeSet<usize> = rows.map(places).collect();
                assert_eq!(widths.len(), 1, "{widths:?}");
            }
        });
    }

    #[test]
    fn what_was_measured_is_there_with_its_noise_and_its_gaps() {
        check(&samples::report(), |document, page| {
            let text: String = document.descendants().filter_map(|node| node.text()).collect();
            for shown in [
                "sendfile copied nothing & cost a quarter of read-write.",
                "\"Quoted\" <b>note</b>",
                "2 × Abacus <3>",
                "2001-02-03 04:05 UTC",
                "pagewire lab --dir \"a & b\"",
                "did not start: address in use",
                "This run was interrupted",
                "more than 25",
            ] {
                assert!(text.contains(shown), "{shown:?} is not in {text}");
            }
            let noisy = "3 rounds from 83,760/s to 125,640/s";
            assert!(page.contains(&format!("<abbr title=\"noisy: {noisy}\">~</abbr>104,700")));
        });
    }

    #[test]
    fn a_run_of_nothing_is_a_page_too() {
        let report = Report { experiments: Vec::new(), interrupted: false, ..samples::report() };
        check(&report, |document, page| {
            assert!(all(document, "table").is_empty());
            assert!(!page.contains("was interrupted"));
        });
    }
}
