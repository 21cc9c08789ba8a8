//! Reports for tests: made-up figures that no page of the product and no document may show.

use super::figure::Cell;
use super::model::{
    Chart, Column, Experiment, Machine, Mark, Report, SCHEMA, Scale, Table, textbook_columns,
};
use super::unit::Unit;

/// One with all kinds of tables, cells and charts, and names that need escaping.
pub(crate) fn report() -> Report {
    Report {
        schema: SCHEMA,
        pagewire: "0.0.0-test".to_owned(),
        command: "pagewire lab --dir \"a & b\"".to_owned(),
        started: "2001-02-03T04:05:06Z".to_owned(),
        seconds: 61.5,
        interrupted: true,
        machine: Machine {
            kernel: "Made-up 1.0".to_owned(),
            processor: Some("Abacus <3>".to_owned()),
            processors: 2,
            memory_bytes: Some(4 << 30),
            congestion_control: Some("reno".to_owned()),
            file_system: None,
            root: true,
        },
        experiments: vec![routes(), sizes(), peers()],
    }
}

/// Rounds that lie so far apart.
fn rounds(median: f64, spread: f64) -> Cell {
    Cell::measured([median, median * (1.0 - spread / 2.0), median * (1.0 + spread / 2.0)])
}

fn routes() -> Experiment {
    let keys = vec![Column::words("route", "route"), Column::words("network", "network")];
    let mut table = Table::new("routes", "Copies & switches", keys, textbook_columns());
    for (route, network, switches, copies, cpu, rate) in [
        ("read-write", "loopback", 4.0, [1.0, 1.0, 0.0], 41.0, 3.1e9),
        ("mmap-write", "loopback", 2.0, [0.0, 1.0, 0.0], 30.0, 4.4e9),
        ("sendfile", "veth, no scatter-gather", 2.0, [0.0, 0.0, 1.02], 25.0, 5.2e9),
        ("splice", "veth, scatter-gather", 4.0, [0.0, 0.0, 0.0], 14.0, 8.2e9),
        ("sendfile", "veth, scatter-gather", 2.0, [0.0, 0.0, 0.0], 11.0, 9.6e9),
    ] {
        let [process, socket, device] = copies.map(|copies| Cell::measured([copies; 3]));
        let switches = Cell::measured([switches; 3]);
        let cells = vec![switches, process, socket, device, rounds(cpu, 0.08), rounds(rate, 0.3)];
        table.push(&[route, network], cells);
    }
    let missing = || Cell::missing("needs root");
    let cells = vec![missing(), missing(), missing(), missing(), missing(), missing()];
    table.push(&["sendfile", "<&>"], cells);
    Experiment {
        name: "routes".to_owned(),
        title: "Four ways to the wire".to_owned(),
        question: "What does each route cost, and who copies?".to_owned(),
        finding: "sendfile copied nothing & cost a quarter of read-write.".to_owned(),
        charts: vec![Chart::Textbook {
            title: "The textbook, measured".to_owned(),
            table: "routes".to_owned(),
            rows: table.rows.iter().map(|row| row.keys.clone()).collect(),
        }],
        tables: vec![table],
        notes: vec!["All of this is made up.".to_owned()],
        seconds: 12.25,
    }
}

fn sizes() -> Experiment {
    let keys =
        vec![Column::new("size_bytes", "file size", Unit::Bytes), Column::words("route", "route")];
    let columns = vec![
        Column::new("cpu_cs_per_gb", "CPU per GB", Unit::CentisecondsPerGigabyte),
        Column::words("chosen", "chosen"),
    ];
    let mut table = Table::new("sizes", "Routes by size", keys, columns);
    for (index, route) in ["read-write", "mmap-write", "sendfile", "splice"].iter().enumerate() {
        for power in (10..=30).step_by(2) {
            let base = [40.0, 28.0, 11.0, 13.0][index];
            let first = [2e5, 1.5e5, 5e5, 9e5][index];
            let cost = base + first / f64::from(1 << power) * 4.0;
            let spread = if power == 16 { 0.6 } else { 0.1 };
            let chosen = Cell::said(if index == 2 { "yes" } else { "no" });
            let size = (1 << power).to_string();
            table.push(&[&size, route], vec![rounds(cost, spread), chosen]);
        }
    }
    let lines = |scale| Chart::Lines {
        title: "CPU per GB by file size".to_owned(),
        table: "sizes".to_owned(),
        x: "size_bytes".to_owned(),
        series: "route".to_owned(),
        column: "cpu_cs_per_gb".to_owned(),
        scale,
        marks: vec![Mark { at: 8192.0, label: "sendfile from here".to_owned() }],
    };
    Experiment {
        name: "sizes".to_owned(),
        title: "Where the routes cross".to_owned(),
        question: "From which size on is sendfile the cheapest?".to_owned(),
        finding: "From 16 KiB on.".to_owned(),
        tables: vec![table],
        charts: vec![lines(Scale::Log), lines(Scale::Linear)],
        notes: Vec::new(),
        seconds: 30.0,
    }
}

fn peers() -> Experiment {
    let keys = vec![
        Column::new("size_bytes", "file size", Unit::Bytes),
        Column::words("server", "server"),
    ];
    let columns = vec![
        Column::new("requests_per_second", "requests", Unit::RequestsPerSecond),
        Column::new("cpu_cs_per_gb", "CPU per GB", Unit::CentisecondsPerGigabyte),
        Column::new("latency_p99_us", "p99", Unit::Microseconds),
        Column::new("memory_bytes", "memory", Unit::Bytes),
        Column::new("ratio", "against pagewire", Unit::Ratio),
        Column::words("tls", "TLS"),
    ];
    let mut table = Table::new("peers", "Servers side by side", keys, columns);
    for (size, factor) in [("4096", 1.0), ("1048576", 0.2)] {
        for (server, rate, spread) in [
            ("pagewire", 92_300.0, 0.05),
            ("nginx", 104_700.0, 0.4),
            ("static-web-server <fast>", 31_000.0, 0.1),
            ("python3 -m http.server", 1_900.0, 0.02),
        ] {
            let rate = rate * factor;
            let cells = vec![
                rounds(rate, spread),
                rounds(2e6 / rate, spread),
                rounds(1e7 / rate, spread),
                rounds(4e6, 0.001),
                rounds(rate / 92_300.0, 0.0),
                Cell::said("no"),
            ];
            table.push(&[size, server], cells);
        }
        let failed = || Cell::missing("did not start: address in use");
        let cells = vec![failed(), failed(), failed(), failed(), failed(), failed()];
        table.push(&[size, "caddy"], cells);
    }
    let bars = |column: &str, title: &str| Chart::Bars {
        title: title.to_owned(),
        table: "peers".to_owned(),
        group: Some("size_bytes".to_owned()),
        label: "server".to_owned(),
        column: column.to_owned(),
        ours: Some("pagewire".to_owned()),
    };
    Experiment {
        name: "peers".to_owned(),
        title: "Servers, side by side".to_owned(),
        question: "How does it compare with what people use?".to_owned(),
        finding: "It depends, as ever.".to_owned(),
        tables: vec![table],
        charts: vec![
            bars("requests_per_second", "Requests per second"),
            bars("cpu_cs_per_gb", "CPU per GB sent, on one processor, over loopback, by server"),
        ],
        notes: vec!["Rounds were interleaved.".to_owned(), "\"Quoted\" <b>note</b>".to_owned()],
        seconds: 19.0,
    }
}
