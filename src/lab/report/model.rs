//! PURE: what the lab measured. This is what `--json` writes and `--from` reads, so a name or a
//! field that changes its meaning raises `SCHEMA`; docs/lab.md has every one.

use serde::{Deserialize, Serialize};

use super::figure::Cell;
use super::unit::{Unit, digits};

/// Raised when a reader of the last one would misread a report.
pub(crate) const SCHEMA: u32 = 1;

/// One run of the lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    /// The version that measured.
    pub(crate) pagewire: String,
    /// What to type to measure again.
    pub(crate) command: String,
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) seconds: f64,
    /// Whether somebody stopped it: what is there was measured, but not all is there.
    pub(crate) interrupted: bool,
    pub(crate) machine: Machine,
    pub(crate) experiments: Vec<Experiment>,
}

/// Where it was measured. A fact that the system does not tell is None.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Name and release, such as "Linux 6.18.44".
    pub(crate) kernel: String,
    pub(crate) processor: Option<String>,
    /// Those that the lab may run on.
    pub(crate) processors: u32,
    pub(crate) memory_bytes: Option<u64>,
    /// The host's default.
    pub(crate) congestion_control: Option<String>,
    /// Of the folder that the lab's files are made in.
    pub(crate) file_system: Option<String>,
    pub(crate) root: bool,
}

/// One question, and what came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Experiment {
    /// As on the command line.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) question: String,
    /// The answer in a sentence, made from the figures; or why there is none.
    pub(crate) finding: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) charts: Vec<Chart>,
    /// How it was measured, and what could not be.
    pub(crate) notes: Vec<String>,
    pub(crate) seconds: f64,
}

/// Rows are told apart by their keys; each has a cell for each column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Unique in its experiment.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) keys: Vec<Column>,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// Stable, snake_case, ends in the unit: "cpu_cs_per_gb".
    pub(crate) name: String,
    pub(crate) title: String,
    /// None for words. A key with a unit is a plain number in its rows, such as "4096".
    pub(crate) unit: Option<Unit>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) keys: Vec<String>,
    pub(crate) cells: Vec<Cell>,
}

/// A picture of one table of the same experiment: keys and columns by their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Chart {
    /// A bar a row, in the order of the rows; rows that are equal in the key `group` stand
    /// together and share a scale.
    Bars {
        title: String,
        table: String,
        group: Option<String>,
        label: String,
        column: String,
        /// The label whose bars are drawn in the colour that stands out.
        ours: Option<String>,
    },
    /// A line for each value of the key `series`, over the key `x`, whose unit makes it a number
    /// and whose axis is logarithmic.
    Lines {
        title: String,
        table: String,
        x: String,
        series: String,
        column: String,
        scale: Scale,
        marks: Vec<Mark>,
    },
    /// The copies and switches of rows, named by their keys, drawn in this order. The table has
    /// the columns of `textbook_columns`, a key "route", and any other keys.
    Textbook { title: String, table: String, rows: Vec<Vec<String>> },
}

/// The upright axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Log,
}

/// A place on the level axis that has a meaning, such as the size where the engine changes routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) at: f64,
    pub(crate) label: String,
}

/// What `Chart::Textbook` draws; a table may have more. Of the copies each is the bytes copied by
/// the processor at that place for each byte sent: 0 where it went by reference.
pub(crate) fn textbook_columns() -> Vec<Column> {
    vec![
        Column::new("switches_per_step", "switches a step", Unit::Switches),
        Column::new("copies_into_process", "copies into the process", Unit::Copies),
        Column::new("copies_into_socket", "copies into the socket", Unit::Copies),
        Column::new("copies_for_device", "copies for the device", Unit::Copies),
        Column::new("cpu_cs_per_gb", "CPU per GB", Unit::CentisecondsPerGigabyte),
        Column::new("rate_bytes_per_second", "rate", Unit::BytesPerSecond),
    ]
}

impl Column {
    pub(crate) fn new(name: &str, title: &str, unit: Unit) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), unit: Some(unit) }
    }

    /// One of words.
    pub(crate) fn words(name: &str, title: &str) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), unit: None }
    }

    /// A number without its unit, where the head of the column has that.
    pub(crate) fn print(&self, value: f64) -> String {
        self.unit.map_or_else(|| digits(value), |unit| unit.print(value))
    }

    /// A number with its unit.
    pub(crate) fn print_whole(&self, value: f64) -> String {
        match self.unit.map_or("", Unit::symbol) {
            "" => self.print(value),
            symbol if symbol.starts_with('/') => format!("{}{symbol}", self.print(value)),
            symbol => format!("{} {symbol}", self.print(value)),
        }
    }

    /// A key as people read it: with its unit if it has one, else as it is.
    pub(crate) fn print_key(&self, key: &str) -> String {
        let number = key.parse().ok().filter(|number: &f64| number.is_finite());
        match (self.unit, number) {
            (Some(_), Some(number)) => self.print_whole(number),
            (Some(_), None) | (None, _) => key.to_owned(),
        }
    }
}

impl Row {
    /// Why all of it is missing, if it is for one reason.
    pub(crate) fn missing(&self) -> Option<&str> {
        let mut reasons = self.cells.iter().map(|cell| match cell {
            Cell::Missing(why) => Some(why.as_str()),
            Cell::Measured(_) | Cell::Said(_) => None,
        });
        let first = reasons.next()??;
        reasons.all(|reason| reason == Some(first)).then_some(first)
    }
}

impl Chart {
    pub(crate) fn title(&self) -> &str {
        match self {
            Self::Bars { title, .. } | Self::Lines { title, .. } | Self::Textbook { title, .. } => {
                title
            }
        }
    }

    pub(crate) fn table(&self) -> &str {
        match self {
            Self::Bars { table, .. } | Self::Lines { table, .. } | Self::Textbook { table, .. } => {
                table
            }
        }
    }
}

impl Table {
    pub(crate) fn new(name: &str, title: &str, keys: Vec<Column>, columns: Vec<Column>) -> Self {
        let (name, title) = (name.to_owned(), title.to_owned());
        Self { name, title, keys, columns, rows: Vec::new() }
    }

    /// As many keys and cells as the table has keys and columns.
    pub(crate) fn push(&mut self, keys: &[&str], cells: Vec<Cell>) {
        debug_assert_eq!(keys.len(), self.keys.len(), "keys of a row of {}", self.name);
        debug_assert_eq!(cells.len(), self.columns.len(), "cells of a row of {}", self.name);
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        self.rows.push(Row { keys, cells });
    }

    /// Where in a row's keys the one of this name stands.
    pub(crate) fn key(&self, name: &str) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }

    /// Where in a row's cells the column of this name stands.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}
