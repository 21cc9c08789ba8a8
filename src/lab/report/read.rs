//! PURE: a report from the JSON that an earlier run wrote, so that its page can be made again,
//! and the check that a report's parts fit together.

use std::error::Error;
use std::fmt;

use serde::Deserialize;

use super::model::{Chart, Experiment, Report, SCHEMA, Table};

impl Report {
    /// Of this schema only: another one's figures may mean something else.
    pub(crate) fn from_json(json: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = serde_json::from_str(json).map_err(Unreadable::NoReport)?;
        if version.schema != SCHEMA {
            return Err(Unreadable::OtherSchema { found: version.schema });
        }
        let report: Self = serde_json::from_str(json).map_err(Unreadable::NoReport)?;
        report.check().map_err(Unreadable::Broken)?;
        Ok(report)
    }

    /// Indented, because people read it, too.
    pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        Ok(json)
    }

    /// Whether rows have a cell for each column, and charts are of tables that are there.
    pub(crate) fn check(&self) -> Result<(), Broken> {
        for experiment in &self.experiments {
            for table in &experiment.tables {
                check_table(experiment, table)?;
            }
            for chart in &experiment.charts {
                check_chart(experiment, chart)?;
            }
        }
        Ok(())
    }
}

fn check_table(experiment: &Experiment, table: &Table) -> Result<(), Broken> {
    let place = || format!("{}.{}", experiment.name, table.name);
    for (index, row) in table.rows.iter().enumerate() {
        let (found, expected) = (row.keys.len(), table.keys.len());
        if found != expected {
            return Err(Broken::Row { table: place(), row: index, what: "keys", found, expected });
        }
        let (found, expected) = (row.cells.len(), table.columns.len());
        if found != expected {
            return Err(Broken::Row { table: place(), row: index, what: "cells", found, expected });
        }
        for (key, value) in table.keys.iter().zip(&row.keys) {
            let number = value.parse().ok().filter(|number: &f64| number.is_finite());
            if key.unit.is_some() && number.is_none() {
                let (key, value) = (key.name.clone(), value.clone());
                return Err(Broken::Key { table: place(), row: index, key, value });
            }
        }
    }
    Ok(())
}

fn check_chart(experiment: &Experiment, chart: &Chart) -> Result<(), Broken> {
    let lacks = |name: &str| {
        let place = format!("{}, chart {:?}", experiment.name, chart.title());
        Err(Broken::Chart { place, name: name.to_owned() })
    };
    let Some(table) = experiment.tables.iter().find(|table| table.name == chart.table()) else {
        return lacks(chart.table());
    };
    let (keys, columns): (Vec<&str>, Vec<String>) = match chart {
        Chart::Bars { group, label, column, .. } => {
            (group.as_deref().into_iter().chain([label.as_str()]).collect(), vec![column.clone()])
        }
        Chart::Lines { x, series, column, .. } => (vec![x, series], vec![column.clone()]),
        Chart::Textbook { .. } => {
            let columns = super::model::textbook_columns().into_iter();
            (vec!["route"], columns.map(|column| column.name).collect())
        }
    };
    if let Some(key) = keys.into_iter().find(|key| table.key(key).is_none()) {
        return lacks(key);
    }
    if let Chart::Textbook { rows, .. } = chart {
        let is_there = |keys: &Vec<String>| table.rows.iter().any(|row| row.keys == *keys);
        if let Some(keys) = rows.iter().find(|keys| !is_there(keys)) {
            return lacks(&format!("row {}", keys.join(", ")));
        }
    }
    match columns.iter().find(|column| table.column(column).is_none()) {
        Some(column) => lacks(column),
        None => Ok(()),
    }
}

/// Why a text is no report.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// No JSON, or that of something else.
    NoReport(serde_json::Error),
    OtherSchema {
        found: u32,
    },
    Broken(Broken),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReport(error) => {
                write!(to, "it is no report of `pagewire lab --json`: {error}")
            }
            Self::OtherSchema { found } => write!(
                to,
                "it has schema {found}, and this pagewire reads schema {SCHEMA}; use the version \
                 that its field \"pagewire\" names"
            ),
            Self::Broken(broken) => broken.fmt(to),
        }
    }
}

impl Error for Unreadable {}

/// How parts of a report do not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Row { table: String, row: usize, what: &'static str, found: usize, expected: usize },
    Key { table: String, row: usize, key: String, value: String },
    Chart { place: String, name: String },
}

impl fmt::Display for Broken {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { table, row, what, found, expected } => {
                write!(to, "row {row} of table {table} has {found} {what} instead of {expected}")
            }
            Self::Key { table, row, key, value } => {
                write!(to, "row {row} of table {table}: {key} is {value:?} and not a number")
            }
            Self::Chart { place, name } => write!(to, "{place}: there is no {name}"),
        }
    }
}

impl Error for Broken {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::figure::Cell;
    use super::super::samples;
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let report = samples::report();
        assert_eq!(Report::from_json(&report.to_json().unwrap()).unwrap(), report);
    }

    #[test]
    fn what_is_no_report_says_so() {
        let report = samples::report();
        let other = Report { schema: SCHEMA + 1, ..report.clone() }.to_json().unwrap();
        for (json, says) in [
            ("", "no report of `pagewire lab --json`: EOF"),
            ("{}", "missing field `schema`"),
            ("{\"schema\": 1}", "missing field `pagewire`"),
            (&other, "it has schema 2, and this pagewire reads schema 1"),
        ] {
            let error = Report::from_json(json).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        let broken = |change: fn(&mut Experiment)| {
            let mut report = samples::report();
            report.experiments.iter_mut().for_each(change);
            report.check().unwrap_err().to_string()
        };
        let short = broken(|experiment| {
            experiment.tables[0].rows[1].cells.pop();
        });
        assert_eq!(short, "row 1 of table routes.routes has 5 cells instead of 6");
        let long = broken(|experiment| experiment.tables[0].rows[0].keys.push(String::new()));
        assert_eq!(long, "row 0 of table routes.routes has 3 keys instead of 2");
        let words = broken(|experiment| {
            if experiment.name == "sizes" {
                experiment.tables[0].rows[0].keys[0] = "small".to_owned();
            }
        });
        assert_eq!(words, "row 0 of table sizes.sizes: size_bytes is \"small\" and not a number");
        let lost = broken(|experiment| experiment.tables.clear());
        assert_eq!(lost, "routes, chart \"The textbook, measured\": there is no routes");
        let columnless = broken(|experiment| {
            for table in &mut experiment.tables {
                table.columns.pop();
                table.rows.iter_mut().for_each(|row| drop(row.cells.pop()));
            }
        });
        assert!(columnless.ends_with("there is no rate_bytes_per_second"), "{columnless}");
    }

    /// Keys of objects, and values that are one of a few words.
    fn words(json: &serde_json::Value, found: &mut BTreeSet<String>) {
        match json {
            serde_json::Value::Array(values) => values.iter().for_each(|value| words(value, found)),
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    found.insert(name.clone());
                    if let ("unit" | "kind" | "scale", Some(word)) = (name.as_str(), value.as_str())
                    {
                        found.insert(word.to_owned());
                    }
                    words(value, found);
                }
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }

    #[test]
    fn the_documentation_names_every_field() {
        let mut found = BTreeSet::new();
        words(&serde_json::to_value(samples::report()).unwrap(), &mut found);
        assert!(found.len() > 40, "{found:?}");
        let documentation = include_str!("../../../docs/lab.md");
        let is_named = |word: &&String| documentation.contains(&format!("`{word}`"));
        let unnamed: Vec<_> = found.iter().filter(|word| !is_named(word)).collect();
        assert!(unnamed.is_empty(), "docs/lab.md does not name {unnamed:?}");
        let schema = format!("of this description: {SCHEMA}");
        assert!(documentation.contains(&schema), "docs/lab.md is of another schema");
        let noisy = format!("above {} %", super::super::figure::NOISY_SPREAD * 100.0);
        assert!(documentation.contains(&noisy), "docs/lab.md has another bound for noise");
    }

    #[test]
    fn samples_read_back_to_the_last_bit() {
        let mut report = samples::report();
        let third = Cell::measured([1.0 / 3.0, f64::MIN_POSITIVE, f64::MAX]);
        report.experiments[0].tables[0].rows[0].cells[0] = third;
        assert_eq!(Report::from_json(&report.to_json().unwrap()).unwrap(), report);
    }
}
