//! PURE: what all charts share: finding their rows, the title above, the words for who cannot
//! see them. `bars.rs`, `lines.rs` and `textbook.rs` draw one kind each.

use super::figure::Figure;
use super::model::{Chart, Column, Experiment, Report, Table};
use super::svg::{Anchor, BOLD, Element, Svg, wrapped};
use super::{bars, lines, textbook};

/// Narrow enough that its text can be read on a telephone, where it is shown at four fifths.
pub(crate) const WIDTH: f64 = 460.0;

/// One chart, drawn for the room there is.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) narrow: Element,
    /// For screens with room for it, if that is another drawing.
    pub(crate) wide: Option<Element>,
}

/// Draws a chart from the table of the experiment that it names. The id must be the only one of
/// its kind on the page.
pub(crate) fn draw(experiment: &Experiment, chart: &Chart, id: &str) -> Picture {
    let table = experiment.tables.iter().find(|table| table.name == chart.table());
    let narrow = match (chart, table) {
        (Chart::Bars { group, label, column, ours, .. }, Some(table)) => {
            let keys = (group.as_deref(), label.as_str());
            bars::draw(chart.title(), table, keys, column, ours.as_deref(), id)
        }
        (Chart::Lines { x, series, column, scale, marks, .. }, Some(table)) => {
            lines::draw(chart.title(), table, (x, series), column, (*scale, marks), id)
        }
        (Chart::Textbook { rows, .. }, Some(table)) => {
            let of = |layout, id: &str| textbook::draw(chart.title(), table, rows, layout, id);
            let narrow = of(textbook::Layout::Narrow, id);
            let wide = of(textbook::Layout::Wide, &format!("{id}-wide"));
            return Picture { narrow, wide: Some(wide) };
        }
        (_, None) => nothing(chart.title(), &format!("no table {} was made", chart.table()), id),
    };
    Picture { narrow, wide: None }
}

/// All charts of a report as files of their own, each with its name: "routes-0.svg".
pub(crate) fn pictures(report: &Report) -> Vec<(String, String)> {
    let charts = report.experiments.iter().flat_map(|experiment| {
        experiment.charts.iter().enumerate().map(move |(index, chart)| (experiment, index, chart))
    });
    let files = charts.map(|(experiment, index, chart)| {
        let picture = draw(experiment, chart, "chart");
        let element = picture.wide.unwrap_or(picture.narrow);
        (format!("{}-{index}.svg", slug(&experiment.name)), element.alone())
    });
    files.collect()
}

/// A name that a file or an address on a page can have.
pub(crate) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// A chart that says why it is empty.
pub(crate) fn nothing(title: &str, why: &str, id: &str) -> Element {
    let mut svg = Svg::new(WIDTH);
    let y = head(&mut svg, title, why, WIDTH);
    svg.finish(y, id, title, why)
}

/// Title and what is measured; says where the rest may begin.
pub(crate) fn head(svg: &mut Svg, title: &str, measured: &str, width: f64) -> f64 {
    let (size, class) = if width > WIDTH { (21.0, "title large") } else { (16.0, "title") };
    let mut y = 4.0;
    for line in wrapped(title, size * BOLD, width) {
        y += size + 4.0;
        svg.text(0.0, y, Anchor::Start, class, &line);
    }
    for line in wrapped(measured, 13.0, width) {
        y += 19.0;
        svg.text(0.0, y, Anchor::Start, "soft", &line);
    }
    y + 12.0
}

/// "CPU per GB, cs/GB: less is better"
pub(crate) fn measured(column: &Column) -> String {
    let symbol = match column.unit.map_or("", |unit| unit.symbol()) {
        "" => String::new(),
        symbol if symbol.starts_with('/') => format!(" {symbol}"),
        symbol => format!(", {symbol}"),
    };
    let better = column.unit.and_then(|unit| unit.better());
    let better = better.map_or(String::new(), |better| format!(" ({})", better.says()));
    format!("{}{symbol}{better}", column.title)
}

/// The median as a chart shows it, with the sign for noise.
pub(crate) fn median(figure: &Figure, column: &Column) -> String {
    let sign = if figure.is_noisy() { "~" } else { "" };
    format!("{sign}{}", column.print(figure.median()))
}

/// All that a chart shows of a figure, in words.
pub(crate) fn in_words(figure: &Figure, column: &Column) -> String {
    let median = column.print_whole(figure.median());
    if figure.min() == figure.max() {
        return median;
    }
    let (low, high) = (column.print(figure.min()), column.print(figure.max()));
    let noise = if figure.is_noisy() { ", noisy" } else { "" };
    format!("{median} (from {low} to {high}{noise})")
}

/// Values of a key in the order in which rows have them.
pub(crate) fn values(table: &Table, key: usize) -> Vec<&str> {
    let mut values: Vec<&str> = Vec::new();
    for value in table.rows.iter().filter_map(|row| row.keys.get(key)) {
        if !values.contains(&value.as_str()) {
            values.push(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roxmltree::{Document, Node};

    use super::super::figure::Cell;
    use super::super::model::{Mark, Row, Scale, textbook_columns};
    use super::super::samples;
    use super::super::unit::Unit;
    use super::*;

    fn numbers(text: &str) -> Vec<f64> {
        let parts = text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != '-');
        parts.filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
    }

    /// Everything has a place, and it is within the picture.
    fn check(picture: &Element) -> Result<(), TestCaseError> {
        let text = picture.alone();
        let document =
            Document::parse(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
        let size = numbers(document.root_element().attribute("viewBox").unwrap());
        let (margin, width, height) = (size[0], size[2] + size[0], size[3] + size[1]);
        for node in document.descendants().filter(Node::is_element) {
            let number = |name| -> f64 {
                // What is no number fails here.
                node.attribute(name).map_or(0.0, |text: &str| text.parse().unwrap())
            };
            prop_assert!(node.attribute("d").is_none_or(|way| !way.contains('N')), "{node:?}");
            for side in ["width", "height", "r"] {
                prop_assert!(number(side) >= 0.0, "{node:?}");
            }
            for x in ["x", "x1", "x2", "cx"] {
                prop_assert!((margin - 1.0..=width + 1.0).contains(&number(x)), "{x} of {node:?}");
            }
            for y in ["y", "y1", "y2", "cy"] {
                prop_assert!((margin - 1.0..=height + 1.0).contains(&number(y)), "{y} of {node:?}");
            }
            prop_assert!(number("x") + number("width") <= width + 1.0, "{node:?}");
            prop_assert!(number("y") + number("height") <= height + 1.0, "{node:?}");
            for (index, place) in numbers(node.attribute("d").unwrap_or("")).iter().enumerate() {
                let end = if index % 2 == 0 { width } else { height };
                prop_assert!((-8.0..=end + 8.0).contains(place), "{place} of {node:?}");
            }
        }
        Ok(())
    }

    fn any_cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            4 => prop::collection::vec(prop::num::f64::ANY, 0..4).prop_map(Cell::measured),
            4 => prop::collection::vec(0.0..1e6, 1..4).prop_map(Cell::measured),
            1 => any::<String>().prop_map(Cell::Said),
            1 => any::<String>().prop_map(Cell::Missing),
        ]
    }

    fn any_table() -> impl Strategy<Value = Table> {
        let row = (any::<String>(), prop::num::f64::ANY, prop::collection::vec(any_cell(), 6));
        prop::collection::vec(row, 0..5).prop_map(|rows| {
            let keys = vec![Column::words("route", "r"), Column::new("x_bytes", "x", Unit::Bytes)];
            let mut table = Table::new("t", "<&>", keys, textbook_columns());
            for (key, x, cells) in rows {
                table.push(&[&key, &x.to_string()], cells);
            }
            table
        })
    }

    fn charts(title: &str, at: f64, rows: &[Row]) -> [Chart; 5] {
        let (title, table) = (title.to_owned(), "t".to_owned());
        let lines = |scale| Chart::Lines {
            title: title.clone(),
            table: table.clone(),
            x: "x_bytes".to_owned(),
            series: "route".to_owned(),
            column: "cpu_cs_per_gb".to_owned(),
            scale,
            marks: vec![Mark { at, label: title.clone() }],
        };
        let bars = |group: Option<&str>| Chart::Bars {
            title: title.clone(),
            table: table.clone(),
            group: group.map(str::to_owned),
            label: "x_bytes".to_owned(),
            column: "rate_bytes_per_second".to_owned(),
            ours: None,
        };
        let rows = rows.iter().map(|row| row.keys.clone()).collect();
        let textbook = Chart::Textbook { title: title.clone(), table: table.clone(), rows };
        [lines(Scale::Log), lines(Scale::Linear), bars(None), bars(Some("route")), textbook]
    }

    proptest! {
        #[test]
        fn any_figures_make_a_picture(
            table in any_table(),
            title: String,
            mark in prop::num::f64::ANY,
        ) {
            let charts = charts(&title, mark, &table.rows);
            let experiment = Experiment { tables: vec![table], ..Experiment::default() };
            for chart in charts {
                let picture = draw(&experiment, &chart, "id");
                check(&picture.narrow)?;
                if let Some(wide) = picture.wide {
                    check(&wide)?;
                }
            }
        }
    }

    #[test]
    fn charts_show_the_figures_and_mark_noise() {
        let report = samples::report();
        let files = pictures(&report);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["routes-0.svg", "sizes-0.svg", "sizes-1.svg", "peers-0.svg", "peers-1.svg"];
        assert_eq!(names, expected);
        let of = |name: &str| &files.iter().find(|(file, _)| file == name).unwrap().1;
        let bars = of("peers-0.svg");
        assert!(bars.contains(">92,300</text>"), "{bars}");
        assert!(bars.contains(">~104,700</text>") && bars.contains("bar noisy"), "{bars}");
        assert!(bars.contains(">python3 -m http.server</text>"), "{bars}");
        assert!(bars.contains("static-web-server &lt;fast&gt; 31,000/s (from"), "{bars}");
        let lines = of("sizes-0.svg");
        assert_eq!(lines.matches("class=\"run\"").count(), 4, "{lines}");
        assert_eq!(lines.matches("point noisy").count(), 4, "64 KiB on four routes: {lines}");
        assert!(lines.contains(">sendfile from here</text>"), "{lines}");
        for (_, picture) in &files {
            assert!(picture.contains("prefers-color-scheme: dark"), "{picture}");
        }
    }

    #[test]
    fn the_textbook_is_drawn_from_the_figures() {
        let (_, picture) = pictures(&samples::report()).swap_remove(0);
        // read-write has two copies, mmap-write one, sendfile without scatter-gather one; one
        // more is in the legend.
        assert_eq!(picture.matches("<path class=\"copy\"").count(), 2 + 1 + 1 + 1, "{picture}");
        assert_eq!(picture.matches(">copied 1.02×</text>").count(), 1, "{picture}");
        assert_eq!(picture.matches(">by reference</text>").count(), 3, "{picture}");
        assert_eq!(picture.matches("class=\"switch\"").count(), 4 + 2 + 2 + 4 + 2 + 2, "{picture}");
        assert_eq!(picture.matches(">not measured</text>").count(), 2, "{picture}");
        let said =
            "read-write over loopback: 2 copies by the processor, 4 switches a step, 41 cs/GB";
        assert!(picture.contains(said), "{picture}");
    }

    #[test]
    fn a_chart_of_what_is_not_there_says_so() {
        let chart =
            Chart::Textbook { title: "A title".to_owned(), table: "lost".to_owned(), rows: vec![] };
        let picture = draw(&Experiment::default(), &chart, "id").narrow.alone();
        assert!(picture.contains(">no table lost was made</text>"), "{picture}");
    }
}
