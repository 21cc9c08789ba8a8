//! PURE: level bars with their figures at the ends, and whiskers from the lowest round to the
//! highest. Level, because names then stand beside them whole, on narrow screens too.

use super::axis::Axis;
use super::chart::{WIDTH, head, in_words, measured, median, nothing, values};
use super::figure::{Cell, Figure};
use super::model::{Column, Row, Scale, Table};
use super::svg::{Anchor, BOLD, Element, Svg, shortened, text_width};

const BAR_HEIGHT: f64 = 20.0;
const ROW_HEIGHT: f64 = 28.0;
const GROUP_HEIGHT: f64 = 25.0;
const LABEL_WIDTH_MAX: f64 = 190.0;
const TEXT_SIZE: f64 = 13.0 * BOLD;

/// A bar for each row of the table, below the value of the key `group` that it shares with its
/// neighbours.
pub(crate) fn draw(
    title: &str,
    table: &Table,
    (group, label): (Option<&str>, &str),
    column: &str,
    ours: Option<&str>,
    id: &str,
) -> Element {
    let (Some(label), Some(cell)) = (table.key(label), table.column(column)) else {
        return nothing(title, &format!("{} has no {label} or no {column}", table.name), id);
    };
    if table.rows.is_empty() {
        return nothing(title, "nothing was measured", id);
    }
    let chart = Bars::over(table, label, cell, ours);
    let groups = groups(table, group.and_then(|group| table.key(group)));
    let scales = if groups.len() > 1 { "; own scale for each group" } else { "" };
    let mut svg = Svg::new(WIDTH);
    let mut words = Vec::new();
    let mut y = head(&mut svg, title, &format!("{}{scales}", measured(chart.column)), WIDTH);
    for (name, rows) in groups {
        if let Some(name) = name {
            svg.text(0.0, y + 16.0, Anchor::Start, "strong", &name);
            words.push(format!("{name}:"));
            y += GROUP_HEIGHT;
        }
        let figures = rows.iter().filter_map(|row| row.cells.get(cell)?.figure());
        let axis = Axis::over(figures.map(Figure::max), Scale::Linear);
        for row in rows {
            words.push(chart.bar(&mut svg, y, row, axis));
            y += ROW_HEIGHT;
        }
        y += 6.0;
    }
    svg.finish(y, id, title, &words.join(" "))
}

/// Rows that stand together, with what they have in common; without a key all do.
fn groups(table: &Table, key: Option<usize>) -> Vec<(Option<String>, Vec<&Row>)> {
    let Some(key) = key else { return vec![(None, table.rows.iter().collect())] };
    let of_it = |value: &str| {
        let is_of_it = |row: &&Row| row.keys.get(key).is_some_and(|key| key == value);
        table.rows.iter().filter(is_of_it).collect()
    };
    let values = values(table, key).into_iter();
    values.map(|value| (Some(table.keys[key].print_key(value)), of_it(value))).collect()
}

/// What all bars of a chart share.
struct Bars<'a> {
    label: (usize, &'a Column),
    cell: usize,
    column: &'a Column,
    ours: Option<&'a str>,
    /// Where bars begin, and how long the longest is.
    start: f64,
    length: f64,
}

impl<'a> Bars<'a> {
    fn over(table: &'a Table, label: usize, cell: usize, ours: Option<&'a str>) -> Self {
        let column = &table.columns[cell];
        let label = (label, &table.keys[label]);
        let figures = || {
            let cells = table.rows.iter().filter_map(|row| row.cells.get(cell));
            cells.filter_map(Cell::figure)
        };
        let names = table.rows.iter().filter_map(|row| row.keys.get(label.0));
        let names = names.map(|name| text_width(&label.1.print_key(name), TEXT_SIZE));
        let start = names.fold(0.0, f64::max).min(LABEL_WIDTH_MAX) + 10.0;
        let numbers = figures().map(|figure| text_width(&median(figure, column), TEXT_SIZE));
        let number_width = numbers.fold(0.0, f64::max).min(LABEL_WIDTH_MAX) + 8.0;
        Self { label, cell, column, ours, start, length: WIDTH - start - number_width }
    }

    /// Draws a bar whose row begins at y, and says the same in words.
    fn bar(&self, svg: &mut Svg, y: f64, row: &Row, axis: Axis) -> String {
        let key = row.keys.get(self.label.0).map_or("", String::as_str);
        let name = self.label.1.print_key(key);
        let is_ours = self.ours == Some(key);
        let (middle, base) = (y + BAR_HEIGHT / 2.0, y + BAR_HEIGHT / 2.0 + 4.5);
        let text = match row.cells.get(self.cell) {
            Some(Cell::Measured(figure)) => in_words(figure, self.column),
            Some(Cell::Said(words) | Cell::Missing(words)) => words.clone(),
            None => "nothing".to_owned(),
        };
        let words = format!("{name} {text};");
        svg.open("row", &words);
        let class = if is_ours { "strong" } else { "" };
        let shown = shortened(&name, TEXT_SIZE, self.start - 10.0);
        svg.text(self.start - 10.0, base, Anchor::End, class, &shown);
        if let Some(figure) = row.cells.get(self.cell).and_then(Cell::figure) {
            let end = |number| self.start + self.length * axis.place(number);
            let mut class = String::from("bar");
            class.push_str(if is_ours { " ours" } else { "" });
            class.push_str(if figure.is_noisy() { " noisy" } else { "" });
            let width = (end(figure.median()) - self.start).max(1.5);
            svg.rect(self.start, y, (width, BAR_HEIGHT), &class);
            let (low, high) = (end(figure.min()), end(figure.max()));
            if high - low > 1.0 {
                svg.line((low, middle), (high, middle), "whisker");
                for x in [low, high] {
                    svg.line((x, middle - 4.0), (x, middle + 4.0), "whisker");
                }
            }
            let beyond = high.max(self.start + width) + 6.0;
            let class = if is_ours { "figure strong" } else { "figure" };
            svg.text(beyond, base, Anchor::Start, class, &median(figure, self.column));
        } else {
            let room = WIDTH - self.start;
            let why = shortened(&text, 12.0, room);
            svg.text(self.start, base, Anchor::Start, "soft small", &why);
        }
        svg.close();
        words
    }
}
