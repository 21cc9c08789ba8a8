//! PURE: lines over sizes, steps or connections. Each has its own colour, dashes and shape of
//! points, and its name at its end: nobody needs to tell colours apart.

use super::axis::{Axis, as_number};
use super::chart::{WIDTH, head, in_words, measured, nothing, values};
use super::figure::{Cell, Figure};
use super::model::{Column, Mark, Scale, Table};
use super::svg::{Anchor, BOLD, Element, Svg, shortened, text_width};
use super::unit::Unit;

const PLOT_HEIGHT: f64 = 210.0;
const NAME_WIDTH_MAX: f64 = 130.0;
/// A line for the label of each mark.
const MARK_HEIGHT: f64 = 15.0;
/// Names at the ends of lines stand at least so far apart.
const NAME_HEIGHT: f64 = 16.0;
const TEXT_SIZE: f64 = 13.0 * BOLD;
/// Looks that differ in colour, dashes and shape: so many classes has chart.css.
const LOOKS: usize = 8;

/// A line for each value of the key `series`, over the key `x`.
pub(crate) fn draw(
    title: &str,
    table: &Table,
    (x, series): (&str, &str),
    column: &str,
    (scale, marks): (Scale, &[Mark]),
    id: &str,
) -> Element {
    let (Some(x_key), Some(series_key), Some(cell)) =
        (table.key(x), table.key(series), table.column(column))
    else {
        return nothing(title, &format!("{} has no {x}, {series} or {column}", table.name), id);
    };
    let lines: Vec<Line> = values(table, series_key)
        .into_iter()
        .map(|value| Line {
            name: name(&table.keys[series_key], value),
            points: points(table, (series_key, value), x_key, cell),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return nothing(title, "nothing was measured", id);
    }
    let mut svg = Svg::new(WIDTH);
    let y = head(&mut svg, title, &measured(&table.columns[cell]), WIDTH);
    let columns = (&table.keys[x_key], &table.columns[cell]);
    // Marks have their labels above all lines.
    let plot = Plot::over(&lines, columns, scale, y + 6.0 + MARK_HEIGHT * as_number(marks.len()));
    plot.grid(&mut svg);
    plot.marks(&mut svg, marks);
    let mut words = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        words.push(plot.line(&mut svg, index % LOOKS, line));
    }
    plot.names(&mut svg, &lines);
    svg.finish(plot.bottom + 44.0, id, title, &words.join(" "))
}

/// A bare number beside a line would be a riddle.
fn name(key: &Column, value: &str) -> String {
    let printed = key.print_key(value);
    if key.unit == Some(Unit::Connections) { format!("{printed} {}", key.title) } else { printed }
}

struct Line<'a> {
    name: String,
    /// From left to right.
    points: Vec<(f64, &'a Figure)>,
}

fn points<'a>(
    table: &'a Table,
    (series_key, value): (usize, &str),
    x_key: usize,
    cell: usize,
) -> Vec<(f64, &'a Figure)> {
    let rows = table.rows.iter().filter(|row| row.keys.get(series_key).is_some_and(|k| k == value));
    let mut points: Vec<_> = rows
        .filter_map(|row| {
            let x: f64 = row.keys.get(x_key)?.parse().ok()?;
            let figure = row.cells.get(cell).and_then(Cell::figure)?;
            x.is_finite().then_some((x, figure))
        })
        .collect();
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    points
}

/// Where numbers stand in the drawing.
struct Plot<'a> {
    x: (&'a Column, Axis),
    y: (&'a Column, Axis),
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl<'a> Plot<'a> {
    fn over(lines: &[Line], (x, y): (&'a Column, &'a Column), scale: Scale, top: f64) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let across = Axis::over(points().map(|(x, _)| *x), Scale::Log);
        let heights = points().flat_map(|(_, figure)| [figure.min(), figure.max()]);
        let up = Axis::over(heights, scale).rounded(y.unit);
        let ticks = up.ticks(y.unit);
        let widths = ticks.iter().map(|&tick| text_width(&y.print(tick), 12.0));
        let left = widths.fold(0.0, f64::max).min(NAME_WIDTH_MAX) + 10.0;
        let names = lines.iter().map(|line| text_width(&line.name, TEXT_SIZE));
        let right = WIDTH - names.fold(0.0, f64::max).min(NAME_WIDTH_MAX) - 16.0;
        Self { x: (x, across), y: (y, up), left, right, top, bottom: top + PLOT_HEIGHT }
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        // Points at the very edge would lie on the axis.
        let (start, end) = (self.left + 10.0, self.right - 6.0);
        let across = start + self.x.1.place(x) * (end - start);
        (across, self.bottom - self.y.1.place(y) * (self.bottom - self.top))
    }

    fn grid(&self, svg: &mut Svg) {
        let (column, axis) = self.y;
        for tick in axis.ticks(column.unit) {
            let (_, y) = self.at(0.0, tick);
            svg.line((self.left, y), (self.right, y), "grid");
            svg.text(self.left - 6.0, y + 4.0, Anchor::End, "tick figure", &column.print(tick));
        }
        svg.line((self.left, self.bottom), (self.right, self.bottom), "floor");
        let (column, axis) = self.x;
        for tick in axis.ticks(column.unit) {
            let (x, _) = self.at(tick, 0.0);
            svg.line((x, self.bottom), (x, self.bottom + 4.0), "floor");
            let text = column.print(tick);
            svg.text(x, self.bottom + 18.0, Anchor::Middle, "tick figure", &text);
        }
        let middle = f64::midpoint(self.left, self.right);
        let title = if axis.is_log() { "(logarithmic)" } else { "" };
        let title = format!("{} {title}", column.title);
        svg.text(middle, self.bottom + 36.0, Anchor::Middle, "soft small", title.trim_end());
    }

    fn marks(&self, svg: &mut Svg, marks: &[Mark]) {
        for (index, mark) in marks.iter().enumerate() {
            let (x, _) = self.at(mark.at, 0.0);
            let y = self.top - 4.0 - MARK_HEIGHT * as_number(index);
            svg.line((x, y - 10.0), (x, self.bottom), "mark");
            let is_left = x < f64::midpoint(self.left, self.right);
            let (anchor, x) =
                if is_left { (Anchor::Start, x + 5.0) } else { (Anchor::End, x - 5.0) };
            let room = if is_left { WIDTH - x } else { x };
            svg.text(x, y, anchor, "soft small", &shortened(&mark.label, 12.0, room));
        }
    }

    /// Draws a line, and says the same in words.
    fn line(&self, svg: &mut Svg, look: usize, line: &Line) -> String {
        let (across, column) = (self.x.0, self.y.0);
        svg.open(&format!("s{}", look + 1), &line.name);
        let way: Vec<_> =
            line.points.iter().map(|(x, figure)| self.at(*x, figure.median())).collect();
        svg.path(&way, "run");
        let mut words = Vec::new();
        for (x, figure) in &line.points {
            let says = format!("{}: {}", across.print_whole(*x), in_words(figure, column));
            svg.open("at", &format!("{}, {says}", line.name));
            let ((_, low), (_, high)) = (self.at(*x, figure.min()), self.at(*x, figure.max()));
            let (x, y) = self.at(*x, figure.median());
            if low - high > 8.0 {
                svg.line((x, low), (x, high), "range");
            }
            point(svg, look, (x, y), if figure.is_noisy() { "point noisy" } else { "point" });
            svg.close();
            words.push(says);
        }
        svg.close();
        format!("{}: {}.", line.name, words.join(", "))
    }

    /// Names beside the ends of their lines, pushed apart where these meet.
    fn names(&self, svg: &mut Svg, lines: &[Line]) {
        let mut ends: Vec<(usize, (f64, f64))> = lines
            .iter()
            .enumerate()
            .filter_map(|(index, line)| {
                let (x, figure) = line.points.last()?;
                Some((index, self.at(*x, figure.median())))
            })
            .collect();
        ends.sort_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
        let heights = ends.iter().map(|(_, (_, y))| *y).collect();
        for ((index, (x, y)), shown) in ends.iter().zip(apart(heights, self.bottom)) {
            svg.open(&format!("s{}", index % LOOKS + 1), &lines[*index].name);
            let name = shortened(&lines[*index].name, TEXT_SIZE, WIDTH - self.right - 16.0);
            if *x < self.right - 10.0 || (shown - y).abs() > 4.0 {
                svg.line((x + 6.0, *y), (self.right + 10.0, shown), "lead");
            }
            svg.text(self.right + 13.0, shown + 4.5, Anchor::Start, "name", &name);
            svg.close();
        }
    }
}

/// Heights in order, moved as little as it takes to stand apart: down from the one above, then
/// up from the floor.
fn apart(mut heights: Vec<f64>, floor: f64) -> Vec<f64> {
    let mut least = f64::MIN;
    for height in &mut heights {
        *height = height.max(least);
        least = *height + NAME_HEIGHT;
    }
    let mut most = floor;
    for height in heights.iter_mut().rev() {
        *height = height.min(most);
        most = *height - NAME_HEIGHT;
    }
    heights
}

fn point(svg: &mut Svg, look: usize, at: (f64, f64), class: &str) {
    let shape: &[(f64, f64)] = match look {
        1 => &[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)],
        2 => &[(0.0, -5.5), (5.0, 4.0), (-5.0, 4.0)],
        3 => &[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)],
        4 => &[(0.0, 5.5), (5.0, -4.0), (-5.0, -4.0)],
        5 => &[(-2.0, -5.0), (2.0, -5.0), (2.0, 5.0), (-2.0, 5.0)],
        6 => &[(-5.0, -2.0), (5.0, -2.0), (5.0, 2.0), (-5.0, 2.0)],
        7 => &[(-5.0, -5.0), (5.0, -5.0), (-5.0, 5.0)],
        _ => return svg.circle(at, 4.0, class),
    };
    svg.shape(at, shape, class);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_apart_and_in_order() {
        assert_eq!(apart(vec![10.0, 50.0], 100.0), [10.0, 50.0]);
        assert_eq!(apart(vec![10.0, 12.0, 13.0], 100.0), [10.0, 26.0, 42.0]);
        assert_eq!(apart(vec![95.0, 99.0], 100.0), [84.0, 100.0]);
    }
}
