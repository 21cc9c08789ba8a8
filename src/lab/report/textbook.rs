//! PURE: the picture that textbooks draw from memory, drawn from measurements: for each route
//! where the processor copies bytes between disk and network, and how often the mode switches.
//! The higher a path climbs and the fatter it is, the more it costs.

use super::axis::Axis;
use super::chart::{head, in_words, median, nothing};
use super::figure::{Cell, Figure};
use super::model::{Column, Row, Scale, Table, textbook_columns};
use super::strip::{self, Flow, Strip};
use super::svg::{Anchor, Element, Svg, shortened};

const NARROW: f64 = super::chart::WIDTH;
const WIDE: f64 = 960.0;
const WIDE_NAME: f64 = 205.0;
const WIDE_MEASURES: f64 = 720.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The parts of a route below each other.
    Narrow,
    /// Beside each other.
    Wide,
}

/// A strip for each of these rows, named by their keys, of a table that has `textbook_columns`.
pub(crate) fn draw(
    title: &str,
    table: &Table,
    rows: &[Vec<String>],
    layout: Layout,
    id: &str,
) -> Element {
    let names = textbook_columns();
    if let Some(lacks) = names.iter().find(|column| table.column(&column.name).is_none()) {
        return nothing(title, &format!("{} has no {}", table.name, lacks.name), id);
    }
    let rows = rows.iter().filter_map(|keys| table.rows.iter().find(|row| row.keys == *keys));
    let rows: Vec<&Row> = rows.collect();
    if rows.is_empty() {
        return nothing(title, "nothing was measured", id);
    }
    let picture = Picture::over(table, &rows, layout);
    let mut svg = Svg::new(picture.width);
    let under = "Each way from a file in the page cache to the network: how often a step switches \
                 between user and kernel mode, and where the processor copies the bytes.";
    let mut y = head(&mut svg, title, under, picture.width);
    let mut words = Vec::new();
    for row in rows {
        svg.line((0.0, y), (picture.width, y), "rule");
        let route = Route::of(table, row);
        words.push(route.in_words(&picture));
        y = picture.route(&mut svg, y + 14.0, &route);
    }
    svg.line((0.0, y), (picture.width, y), "rule");
    let y = strip::legend(&mut svg, y + 24.0, picture.width);
    svg.finish(y, id, title, &words.join(" "))
}

/// What a row says.
struct Route<'a> {
    name: &'a str,
    /// The other keys, such as the network.
    place: String,
    switches: &'a Cell,
    cpu: &'a Cell,
    rate: &'a Cell,
    strip: Strip<'a>,
}

impl<'a> Route<'a> {
    fn of(table: &'a Table, row: &'a Row) -> Self {
        let name_key = table.key("route").unwrap_or(0);
        let keys = table.keys.iter().zip(&row.keys).enumerate();
        let others = keys.filter(|(index, _)| *index != name_key);
        let others: Vec<_> = others.map(|(_, (key, value))| key.print_key(value)).collect();
        let name = row.keys.get(name_key).map_or("", String::as_str);
        let [switches, into_process, into_socket, for_device, cpu, rate] = [
            "switches_per_step",
            "copies_into_process",
            "copies_into_socket",
            "copies_for_device",
            "cpu_cs_per_gb",
            "rate_bytes_per_second",
        ]
        .map(|name| cell(table, row, name));
        let strip = Strip {
            route: name,
            switches: switches.figure().map(Figure::median),
            into_process: Flow::of(into_process),
            into_socket: Flow::of(into_socket),
            for_device: Flow::of(for_device),
        };
        Self { name, place: others.join(", "), switches, cpu, rate, strip }
    }

    fn in_words(&self, picture: &Picture) -> String {
        let mut parts = Vec::new();
        for (cell, column) in [
            (self.switches, None),
            (self.cpu, Some(picture.cpu.0)),
            (self.rate, Some(picture.rate.0)),
        ] {
            match (cell, column) {
                (Cell::Measured(figure), None) => {
                    parts.push(format!("{} switches a step", figure.median()));
                }
                (Cell::Measured(figure), Some(column)) => parts.push(in_words(figure, column)),
                (Cell::Said(_) | Cell::Missing(_), _) => {}
            }
        }
        let copies = self.strip.copies();
        let place = if self.place.is_empty() { "" } else { " over " };
        format!(
            "{}{place}{}: {copies} copies by the processor, {}.",
            self.name,
            self.place,
            parts.join(", ")
        )
    }
}

/// A row that lacks the cell is one where it is missing.
fn cell<'a>(table: &Table, row: &'a Row, name: &str) -> &'a Cell {
    static NONE: Cell = Cell::Missing(String::new());
    table.column(name).and_then(|index| row.cells.get(index)).unwrap_or(&NONE)
}

/// What all routes of a picture share.
struct Picture<'a> {
    layout: Layout,
    width: f64,
    cpu: (&'a Column, Axis),
    rate: (&'a Column, Axis),
}

impl<'a> Picture<'a> {
    fn over(table: &'a Table, rows: &[&Row], layout: Layout) -> Self {
        let scale = |name: &str| {
            let index = table.column(name).unwrap_or(0);
            let cells = rows.iter().filter_map(|row| row.cells.get(index));
            let numbers = cells.filter_map(Cell::figure).map(Figure::max);
            (&table.columns[index], Axis::over(numbers, Scale::Linear))
        };
        let width = if layout == Layout::Wide { WIDE } else { NARROW };
        Self { layout, width, cpu: scale("cpu_cs_per_gb"), rate: scale("rate_bytes_per_second") }
    }

    /// Draws a route from y on; says where the next may begin.
    fn route(&self, svg: &mut Svg, y: f64, route: &Route) -> f64 {
        let (cpu, rate) =
            (("CPU for a gigabyte", route.cpu, &self.cpu), ("Rate", route.rate, &self.rate));
        match self.layout {
            Layout::Wide => {
                svg.text(0.0, y + 20.0, Anchor::Start, "route", route.name);
                let place = shortened(&route.place, 13.0, WIDE_NAME);
                svg.text(0.0, y + 39.0, Anchor::Start, "soft", &place);
                counts(svg, (0.0, 86.0), y + 92.0, route);
                strip::draw(svg, (WIDE_NAME + 20.0, y), &route.strip);
                let room = WIDE - WIDE_MEASURES;
                measure(svg, (WIDE_MEASURES, y + 34.0), room, cpu);
                measure(svg, (WIDE_MEASURES, y + 88.0), room, rate);
                y + strip::HEIGHT + 14.0
            }
            Layout::Narrow => {
                svg.text(0.0, y + 20.0, Anchor::Start, "route", route.name);
                let place = shortened(&route.place, 13.0, 250.0);
                svg.text(0.0, y + 39.0, Anchor::Start, "soft", &place);
                counts(svg, (262.0, 350.0), y + 32.0, route);
                strip::draw(svg, (0.0, y + 68.0), &route.strip);
                let below = y + 68.0 + strip::HEIGHT + 20.0;
                measure(svg, (0.0, below), 215.0, cpu);
                measure(svg, (245.0, below), 215.0, rate);
                below + 40.0
            }
        }
    }
}

/// The two numbers that the textbook has for each route.
fn counts(svg: &mut Svg, (left, right): (f64, f64), y: f64, route: &Route) {
    let switches = match route.switches {
        Cell::Measured(figure) => super::unit::digits(figure.median()),
        Cell::Said(_) | Cell::Missing(_) => "?".to_owned(),
    };
    svg.text(left, y, Anchor::Start, "big figure", &switches);
    svg.text(left, y + 18.0, Anchor::Start, "soft small", "switches");
    let copies = route.strip.copies();
    let tone = if copies == "0" { "big figure calm-text" } else { "big figure loud-text" };
    svg.text(right, y, Anchor::Start, tone, &copies);
    svg.text(right, y + 18.0, Anchor::Start, "soft small", "copies by CPU");
}

/// A name and a number, and the bar below them.
fn measure(
    svg: &mut Svg,
    (x, y): (f64, f64),
    width: f64,
    (name, cell, (column, axis)): (&str, &Cell, &(&Column, Axis)),
) {
    svg.text(x, y, Anchor::Start, "soft small", name);
    svg.rect(x, y + 8.0, (width, 10.0), "track");
    match cell {
        Cell::Measured(figure) => {
            let noisy = if figure.is_noisy() { "bar ours noisy" } else { "bar ours" };
            svg.rect(x, y + 8.0, (width * axis.place(figure.median()), 10.0), noisy);
            let symbol = column.unit.map_or("", |unit| unit.symbol());
            let number = format!("{} {symbol}", median(figure, column));
            svg.text(x + width, y, Anchor::End, "strong figure", number.trim_end());
        }
        Cell::Said(words) | Cell::Missing(words) => {
            let words = shortened(words, 12.0, width * 0.6);
            svg.text(x + width, y, Anchor::End, "soft small", &words);
        }
    }
}
