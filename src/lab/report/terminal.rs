//! PURE: the report as text of at most 100 columns: what was asked, the answer, and the tables
//! with medians and spreads.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::figure::{Cell, NOISY_SPREAD};
use super::model::{Column, Experiment, Report, Row, Table};
use super::unit::{Unit, digits};

const COLUMNS: usize = 100;
const INDENT: &str = "  ";
const GAP: usize = 2;
/// Heads of several words are not broken into narrower lines than this.
const HEAD_WIDTH: usize = 9;
/// Words in a cell are broken where they would be wider.
const CELL_WIDTH_MAX: usize = 36;

/// All of the report that a terminal can show, with the escapes for bold and colours.
pub(crate) fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for experiment in &report.experiments {
        experiment_lines(experiment, &mut lines);
    }
    let percent = digits(NOISY_SPREAD * 100.0);
    lines.push(
        "Medians of the rounds; in brackets how far the lowest and the highest lie apart."
            .to_owned(),
    );
    if report.experiments.iter().flat_map(|experiment| &experiment.tables).any(has_noise) {
        lines.push(format!(
            "{} rounds lie more than {percent}% apart: the machine was too noisy for this figure.",
            noise("~")
        ));
    }
    if report.interrupted {
        lines.push(noise("Interrupted: what is here was measured, but not all is here."));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn experiment_lines(experiment: &Experiment, lines: &mut Vec<String>) {
    let name = format!("{} ({})", experiment.title, experiment.name);
    lines.push(strong(&name));
    lines.extend(wrapped(&experiment.question, COLUMNS));
    lines.push(String::new());
    for table in &experiment.tables {
        table_lines(table, lines);
        lines.push(String::new());
    }
    for note in &experiment.notes {
        lines.extend(listed("- ", note).into_iter().map(|line| soft(&line)));
    }
    let finding = wrapped(&experiment.finding, COLUMNS);
    lines.extend(finding.into_iter().map(|line| strong(&line)));
    let seconds = Unit::Seconds.print(experiment.seconds);
    lines.push(soft(&format!("Took {seconds}.")));
    lines.push(String::new());
}

fn has_noise(table: &Table) -> bool {
    let cells = table.rows.iter().flat_map(|row| &row.cells);
    cells.filter_map(Cell::figure).any(|figure| figure.is_noisy())
}

fn table_lines(table: &Table, lines: &mut Vec<String>) {
    lines.push(format!("{INDENT}{}", strong(&table.title)));
    let mut reasons = Vec::new();
    let keys: Vec<Stack> = (0..table.keys.len()).map(|index| key_stack(table, index)).collect();
    let columns = (0..table.columns.len()).map(|index| cell_stack(table, index, &mut reasons));
    let columns: Vec<Stack> = columns.collect();
    let keys_width: usize = keys.iter().map(|key| key.width + GAP).sum();
    let mut rest = columns.as_slice();
    loop {
        let mut width = INDENT.len() + keys_width;
        let fits = |stack: &&Stack| {
            width += stack.width + GAP;
            width <= COLUMNS + GAP
        };
        // One column at least, or a very wide one would never be printed.
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        block(&keys, now, table, lines);
        rest = later;
        if rest.is_empty() {
            break;
        }
        lines.push(String::new());
    }
    for (index, reason) in reasons.iter().enumerate() {
        let mark = format!("[{}] ", index + 1);
        lines.extend(listed(&mark, reason).into_iter().map(|line| soft(&line)));
    }
}

/// A column as it is printed: the lines of its head, and of each of its cells.
struct Stack {
    head: Vec<String>,
    cells: Vec<Vec<Piece>>,
    width: usize,
    is_number: bool,
}

/// A line of a cell.
struct Piece {
    text: String,
    is_noisy: bool,
}

impl Piece {
    fn lines(text: &str) -> Vec<Self> {
        let line = |text| Self { text, is_noisy: false };
        wrapped(text, CELL_WIDTH_MAX).into_iter().map(line).collect()
    }
}

impl Stack {
    fn new(column: &Column, is_number: bool, cells: Vec<Vec<Piece>>) -> Self {
        let widths = cells.iter().flatten().map(|piece| piece.text.width());
        let title = match column.unit.map_or("", Unit::symbol) {
            "" => column.title.clone(),
            symbol => format!("{} {symbol}", column.title),
        };
        let words = title.split_whitespace().map(UnicodeWidthStr::width);
        let least = title.width().min(HEAD_WIDTH);
        let width = widths.chain(words).max().unwrap_or(0).max(least);
        let head = wrapped(&title, width);
        Self { head, cells, width, is_number }
    }

    /// A line of the cell of a row, as wide as the column.
    fn piece(&self, row: usize, line: usize) -> String {
        match self.cells[row].get(line) {
            Some(piece) if piece.is_noisy => self.padded(&piece.text, noise(&piece.text)),
            Some(piece) => self.padded(&piece.text, piece.text.clone()),
            None => " ".repeat(self.width),
        }
    }

    fn padded(&self, text: &str, painted: String) -> String {
        let space = " ".repeat(self.width.saturating_sub(text.width()));
        if self.is_number { space + &painted } else { painted + &space }
    }
}

/// Of the first key only what differs from the row above.
fn key_stack(table: &Table, index: usize) -> Stack {
    let key = &table.keys[index];
    let mut above = None;
    let cells = table.rows.iter().map(|row| {
        let value = row.keys.get(index).map(String::as_str);
        let is_same = index == 0 && table.keys.len() > 1 && value == above;
        above = value;
        Piece::lines(&if is_same { String::new() } else { key.print_key(value.unwrap_or("")) })
    });
    let cells = cells.collect();
    Stack::new(key, key.unit.is_some(), cells)
}

/// What is missing is a number in brackets, explained below; of rows that miss all it is nothing
/// here.
fn cell_stack(table: &Table, index: usize, reasons: &mut Vec<String>) -> Stack {
    let column = &table.columns[index];
    let mut print = |row: &Row| match row.cells.get(index) {
        _ if row.missing().is_some() => Vec::new(),
        Some(Cell::Measured(figure)) => {
            let is_noisy = figure.is_noisy();
            let sign = if is_noisy { "~" } else { "" };
            let (median, spread) = (column.print(figure.median()), figure.print_spread());
            let text = format!("{sign}{median} {spread}");
            vec![Piece { text: text.trim_end().to_owned(), is_noisy }]
        }
        Some(Cell::Said(words)) => Piece::lines(words),
        Some(Cell::Missing(why)) => {
            let known = reasons.iter().position(|reason| reason == why);
            let number = known.unwrap_or_else(|| {
                reasons.push(why.clone());
                reasons.len() - 1
            });
            Piece::lines(&format!("[{}]", number + 1))
        }
        None => Vec::new(),
    };
    let cells = table.rows.iter().map(&mut print).collect();
    Stack::new(column, column.unit.is_some(), cells)
}

fn block(keys: &[Stack], columns: &[Stack], table: &Table, lines: &mut Vec<String>) {
    let stacks: Vec<&Stack> = keys.iter().chain(columns).collect();
    let height = stacks.iter().map(|stack| stack.head.len()).max().unwrap_or(0);
    for line in 0..height {
        let texts = stacks.iter().map(|stack| {
            // Heads stand on the rule below them.
            let above = height - stack.head.len();
            let text = line.checked_sub(above).map_or("", |line| &stack.head[line]);
            stack.padded(text, soft(text))
        });
        lines.push(joined(texts));
    }
    lines.push(joined(stacks.iter().map(|stack| soft(&"─".repeat(stack.width)))));
    for (index, row) in table.rows.iter().enumerate() {
        match row.missing() {
            Some(why) => missing_row(keys, index, why, lines),
            None => {
                let height = stacks.iter().map(|stack| stack.cells[index].len()).max();
                for line in 0..height.unwrap_or(0).max(1) {
                    lines.push(joined(stacks.iter().map(|stack| stack.piece(index, line))));
                }
            }
        }
    }
}

/// A row that is missing altogether says why across all columns.
fn missing_row(keys: &[Stack], index: usize, why: &str, lines: &mut Vec<String>) {
    let keys_width: usize = keys.iter().map(|key| key.width + GAP).sum();
    let room = COLUMNS.saturating_sub(INDENT.len() + keys_width).max(CELL_WIDTH_MAX);
    let whys = wrapped(why, room);
    let height = keys.iter().map(|key| key.cells[index].len()).max().unwrap_or(0);
    for line in 0..height.max(whys.len()) {
        let why = whys.get(line).map_or("", String::as_str);
        let keys = keys.iter().map(|key| key.piece(index, line));
        lines.push(joined(keys.chain([soft(why)])));
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    format!("{INDENT}{}", texts.join(&" ".repeat(GAP))).trim_end().to_owned()
}

/// A text in lines of at most so many columns; a longer word has a line of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // What moves the cursor is white space, or nothing.
    let text = text.replace(|c: char| c.is_control() && !c.is_whitespace(), "");
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Wrapped, with a mark before the first line.
fn listed(mark: &str, text: &str) -> Vec<String> {
    let lines = wrapped(text, COLUMNS - INDENT.len() - mark.width());
    let space = " ".repeat(mark.width());
    let marked = lines.iter().enumerate().map(|(index, line)| {
        let before = if index == 0 { mark } else { &space };
        format!("{INDENT}{before}{line}")
    });
    marked.collect()
}

fn strong(text: &str) -> String {
    with(Style::new().bold(), text)
}

fn soft(text: &str) -> String {
    with(Style::new().dimmed(), text)
}

fn noise(text: &str) -> String {
    with(AnsiColor::Yellow.on_default(), text)
}

fn with(style: Style, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::super::samples;
    use super::*;

    fn plain() -> String {
        strip_str(&text(&samples::report())).to_string()
    }

    fn lines_of(table: &Table) -> Vec<String> {
        let mut lines = Vec::new();
        table_lines(table, &mut lines);
        lines.iter().map(|line| strip_str(line).to_string()).collect()
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let plain = plain();
        for line in plain.lines() {
            assert!(line.width() <= COLUMNS, "{} columns: {line}", line.width());
            assert_eq!(line, line.trim_end(), "no space at the end");
        }
    }

    #[test]
    fn noise_is_marked_and_explained() {
        let plain = plain();
        assert!(plain.contains("~104,700 (40%)"), "{plain}");
        assert!(plain.contains("~ rounds lie more than 25% apart"), "{plain}");
        assert!(plain.contains("Interrupted: what is here was measured"), "{plain}");
    }

    #[test]
    fn a_row_that_is_missing_says_why_once() {
        let plain = plain();
        let caddy: Vec<_> = plain.lines().filter(|line| line.contains("caddy")).collect();
        assert!(caddy.len() >= 2, "one for each size: {plain}");
        for line in caddy {
            assert_eq!(line.matches("did not start: address in use").count(), 1, "{line}");
        }
    }

    #[test]
    fn what_is_missing_alone_is_explained_below() {
        let columns = vec![Column::words("a", "first"), Column::words("b", "second")];
        let mut table = Table::new("t", "A table", vec![Column::words("k", "key")], columns);
        table.push(&["one"], vec![Cell::said("here"), Cell::missing("needs root")]);
        table.push(&["two"], vec![Cell::missing("needs root"), Cell::missing("no disk")]);
        assert_eq!(
            lines_of(&table),
            [
                "  A table",
                "  key  first  second",
                "  ───  ─────  ──────",
                "  one  here   [1]",
                "  two  [1]    [2]",
                "  [1] needs root",
                "  [2] no disk",
            ]
        );
    }

    #[test]
    fn tables_that_are_too_wide_go_on_below_with_their_keys() {
        let columns = (0..12).map(|index| Column::words("c", &format!("column-number-{index}")));
        let mut table = Table::new("t", "Wide", vec![Column::words("k", "key")], columns.collect());
        table.push(&["here"], (0..12).map(|index| Cell::said(format!("{index}"))).collect());
        let text = lines_of(&table).join("\n");
        assert_eq!(text.matches("here").count(), 3, "three blocks: {text}");
        assert!((0..12).all(|index| text.contains(&format!("column-number-{index}"))), "{text}");
    }
}
