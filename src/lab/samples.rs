//! A table while it is measured: samples by row and column, in the order of the rounds.

use std::collections::BTreeMap;

use crate::lab::report::{Cell, Table, Unit};

/// What is collected for one table.
#[derive(Debug)]
pub(crate) struct Samples {
    table: Table,
    rows: Vec<Vec<String>>,
    taken: BTreeMap<(usize, usize), Vec<f64>>,
    /// What is no figure: words, or why there is none.
    said: BTreeMap<(usize, usize), Cell>,
}

impl Samples {
    /// For an empty `table`.
    pub(crate) fn of(table: Table) -> Self {
        Self { table, rows: Vec::new(), taken: BTreeMap::new(), said: BTreeMap::new() }
    }

    /// Makes room for a row; rows stand in the order in which they were first named.
    pub(crate) fn row(&mut self, keys: &[&str]) -> usize {
        if let Some(row) = self.rows.iter().position(|row| row == keys) {
            return row;
        }
        self.rows.push(keys.iter().map(|&key| key.to_owned()).collect());
        self.rows.len() - 1
    }

    /// Adds what one round measured.
    pub(crate) fn add(&mut self, keys: &[&str], column: &str, sample: f64) {
        let at = (self.row(keys), self.column(column));
        self.taken.entry(at).or_default().push(sample);
    }

    /// As `add`; without a sample in any round the table says `why`.
    pub(crate) fn add_or(&mut self, keys: &[&str], column: &str, sample: Option<f64>, why: &str) {
        match sample {
            Some(sample) => self.add(keys, column, sample),
            None => self.say(keys, column, Cell::missing(why)),
        }
    }

    /// Words, or why there is no figure, in the place of one.
    pub(crate) fn say(&mut self, keys: &[&str], column: &str, cell: Cell) {
        let at = (self.row(keys), self.column(column));
        self.said.insert(at, cell);
    }

    /// Says of all columns of a row why there are no figures.
    pub(crate) fn miss(&mut self, keys: &[&str], why: &str) {
        let row = self.row(keys);
        for column in 0..self.table.columns.len() {
            self.said.insert((row, column), Cell::missing(why));
        }
    }

    /// The samples so far, in the order of the rounds.
    pub(crate) fn taken(&self, keys: &[&str], column: &str) -> &[f64] {
        let row = self.rows.iter().position(|row| row == keys);
        let taken = row.and_then(|row| self.taken.get(&(row, self.column(column))));
        taken.map_or(&[], Vec::as_slice)
    }

    /// The median of the samples so far.
    pub(crate) fn median(&self, keys: &[&str], column: &str) -> Option<f64> {
        let cell = Cell::measured(self.taken(keys, column).iter().copied());
        cell.figure().map(|figure| figure.median())
    }

    /// Fills `column` with what `of` is in each row, divided by what it is in the row with the
    /// last key `base`, round by round.
    pub(crate) fn fill_ratios(&mut self, column: &str, of: &str, base: &str) {
        for keys in self.rows.clone() {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let mut base_keys = keys.clone();
            if let Some(last) = base_keys.last_mut() {
                *last = base;
            }
            let pairs = self.taken(&keys, of).iter().zip(self.taken(&base_keys, of));
            let ratios: Vec<f64> = pairs.map(|(mine, base)| mine / base).collect();
            let at = (self.row(&keys), self.column(column));
            if !ratios.is_empty() {
                self.taken.insert(at, ratios);
            }
        }
    }

    /// Fills `column` with what `of` is divided by `whole` in each row, round by round.
    pub(crate) fn fill_parts(&mut self, column: &str, of: &str, whole: &str) {
        for keys in self.rows.clone() {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let pairs = self.taken(&keys, of).iter().zip(self.taken(&keys, whole));
            let parts: Vec<f64> = pairs.map(|(of, whole)| of / whole).collect();
            let at = (self.row(&keys), self.column(column));
            if !parts.is_empty() {
                self.taken.insert(at, parts);
            }
        }
    }

    /// The last keys of the rows.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.rows.iter().filter_map(|keys| keys.last()).map(String::as_str).collect()
    }

    /// The ratios of all rows that begin with `first` but that with the last key `base`, in words.
    pub(crate) fn others(&self, first: &[String], column: &str, base: &str) -> String {
        let rows = self.rows.iter().filter(|keys| keys.starts_with(first));
        let others = rows.filter_map(|keys| {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let name = keys.last().filter(|name| **name != base)?;
            Some(format!("{name} {}", Unit::Ratio.print(self.median(&keys, column)?)))
        });
        others.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn title(&self) -> &str {
        &self.table.title
    }

    /// The table; where nothing was measured it says so.
    pub(crate) fn into_table(mut self) -> Table {
        for (row, keys) in self.rows.iter().enumerate() {
            let cells = (0..self.table.columns.len()).map(|column| {
                let at = (row, column);
                match (self.taken.remove(&at), self.said.remove(&at)) {
                    (Some(samples), _) => Cell::measured(samples),
                    (None, Some(cell)) => cell,
                    (None, None) => Cell::missing("not measured"),
                }
            });
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.table.push(&keys, cells.collect());
        }
        self.table
    }

    fn column(&self, name: &str) -> usize {
        let position = self.table.columns.iter().position(|column| column.name == name);
        position.unwrap_or_else(|| panic!("{} has no column {name}", self.table.name))
    }
}

#[cfg(test)]
mod tests {
    use crate::lab::report::{Column, Unit};

    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let columns = vec![
            Column::new("rate", "rate", Unit::RequestsPerSecond),
            Column::new("ratio", "ratio", Unit::Ratio),
        ];
        let keys = vec![Column::words("server", "server")];
        let mut samples = Samples::of(Table::new("t", "t", keys, columns));
        for (ours, theirs) in [(10.0, 20.0), (100.0, 50.0)] {
            samples.add(&["ours"], "rate", ours);
            samples.add(&["theirs"], "rate", theirs);
        }
        samples.row(&["absent"]);
        samples.fill_ratios("ratio", "rate", "ours");
        let table = samples.into_table();
        assert_eq!(table.rows[1].cells[1], Cell::measured([2.0, 0.5]));
        assert_eq!(table.rows[2].cells[1], Cell::missing("not measured"));
    }
}
