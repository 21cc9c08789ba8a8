//! PURE: every sample on a line of its own, as CSV (RFC 4180): what tools for figures read.
//! Tables have different keys, so each line names those it has: "route=sendfile".

use super::figure::Cell;
use super::model::{Column, Report, Row, Table};

/// The first line.
const HEAD: [&str; 9] =
    ["experiment", "table", "keys", "column", "unit", "round", "value", "words", "missing"];

/// All cells of all tables; rounds count from 1. Of words and what is missing there is one line
/// without round and value.
pub(crate) fn csv(report: &Report) -> Result<Vec<u8>, csv::Error> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    lines.write_record(HEAD)?;
    for experiment in &report.experiments {
        for table in &experiment.tables {
            for row in &table.rows {
                write_row(&mut lines, &experiment.name, table, row)?;
            }
        }
    }
    lines.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

fn write_row(
    lines: &mut csv::Writer<Vec<u8>>,
    experiment: &str,
    table: &Table,
    row: &Row,
) -> Result<(), csv::Error> {
    let keys = table.keys.iter().zip(&row.keys);
    let keys: Vec<String> = keys.map(|(key, value)| format!("{}={value}", key.name)).collect();
    let keys = keys.join(";");
    for (column, cell) in table.columns.iter().zip(&row.cells) {
        let unit = unit_name(column);
        let start = [experiment, &table.name, &keys, &column.name, &unit];
        let mut line = |end: [&str; 4]| lines.write_record(start.into_iter().chain(end));
        match cell {
            Cell::Measured(figure) => {
                for (index, sample) in figure.samples().iter().enumerate() {
                    line([&(index + 1).to_string(), &sample.to_string(), "", ""])?;
                }
            }
            Cell::Said(words) => line(["", "", words, ""])?,
            Cell::Missing(why) => line(["", "", "", why])?,
        }
    }
    Ok(())
}

/// As JSON has it.
fn unit_name(column: &Column) -> String {
    let name = column.unit.and_then(|unit| serde_json::to_value(unit).ok());
    name.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn every_cell_has_its_lines_and_nothing_is_lost_in_quotes() {
        let report = samples::report();
        let text = csv(&report).unwrap();
        let mut lines = csv::Reader::from_reader(text.as_slice());
        assert_eq!(lines.headers().unwrap(), HEAD.as_slice());
        let lines: Vec<csv::StringRecord> = lines.records().map(Result::unwrap).collect();
        let cells = report.experiments.iter().flat_map(|experiment| &experiment.tables);
        let cells = cells.flat_map(|table| &table.rows).flat_map(|row| &row.cells);
        let expected: usize =
            cells.map(|cell| cell.figure().map_or(1, |figure| figure.samples().len())).sum();
        assert_eq!(lines.len(), expected);
        let is_nginx = |line: &&csv::StringRecord| {
            &line[2] == "size_bytes=4096;server=nginx" && &line[3] == "requests_per_second"
        };
        let nginx: Vec<_> = lines.iter().filter(is_nginx).collect();
        assert_eq!(
            nginx[0].iter().collect::<Vec<_>>()[4..],
            ["requests_per_second", "1", "104700", "", ""]
        );
        assert!(lines.iter().any(|line| &line[2] == "route=sendfile;network=<&>"));
        assert!(lines.iter().any(|line| &line[8] == "did not start: address in use"));
    }
}
