//! Each route by the size of the file, through `pagewire serve --route`: where they cross, which
//! must agree with the engine's constants.

use pagewire_engine::{Route, RouteChoice, SMALL_RANGE_BYTES_MAX};

use crate::lab::experiments::{add_load, load_columns, to_f64};
use crate::lab::files::{FILLED_BYTES_MAX, GIB, KIB, MIB};
use crate::lab::machine::available_bytes;
use crate::lab::peers::Peer;
use crate::lab::report::{Chart, Column, Experiment, Mark, Scale, Table, Unit};
use crate::lab::samples::Samples;
use crate::lab::stage::Stage;

const SIZES: [u64; 14] = [
    KIB,
    2 * KIB,
    4 * KIB,
    8 * KIB,
    16 * KIB,
    32 * KIB,
    64 * KIB,
    256 * KIB,
    MIB,
    4 * MIB,
    16 * MIB,
    128 * MIB,
    GIB,
    10 * GIB,
];
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 3;
const TIME_MS: u64 = 250;
const TABLE: &str = "sizes";
/// Memory that must stay available beside the largest file.
const SPARE_MEMORY: u64 = 2 * GIB;

/// The sizes of the files that are served.
pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    let mut sizes = stage.sizes(&SIZES);
    // What does not fit into memory would measure the disk.
    sizes.retain(|bytes| *bytes <= FILLED_BYTES_MAX || bytes + SPARE_MEMORY <= available_bytes());
    sizes
}

fn choices() -> impl Iterator<Item = RouteChoice> {
    Route::ALL.map(RouteChoice::Only).into_iter().chain([RouteChoice::Auto])
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Sizes".to_owned();
    into.question = "Which route is the cheapest for a file of which size?".to_owned();
    let sizes = sizes(stage);
    if stage.sizes(&SIZES).len() > sizes.len() {
        let note = "the largest file was left out: it does not fit into memory";
        into.notes.push(note.to_owned());
    }
    if sizes.iter().any(|bytes| *bytes > FILLED_BYTES_MAX) {
        let note = "files above 1 GiB are holes: their pages are zeros in the page cache";
        into.notes.push(note.to_owned());
    }
    into.notes.push(format!("{CONNECTIONS} connections on loopback, `--threads 1`"));
    let mut samples = Samples::of(table());
    let ended = measure(stage, &sizes, &mut samples);
    into.finding = finding(&sizes, &samples);
    into.tables.push(samples.into_table());
    into.charts.extend([
        chart("CPU per response by file size", "cpu_us_per_request"),
        chart("CPU per GB by file size", "cpu_cs_per_gb"),
    ]);
    ended
}

fn measure(stage: &Stage<'_>, sizes: &[u64], samples: &mut Samples) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for choice in choices() {
        let peer = Peer::pagewire(choice)?;
        match stage.start(&peer, &stage.server)? {
            Ok(server) => servers.push((choice.to_string(), server)),
            Err(why) => anyhow::bail!(why),
        }
    }
    stage.expect(sizes.len() * stage.rounds(ROUNDS) * servers.len());
    let connections = stage.connections(CONNECTIONS);
    for bytes in sizes {
        let targets = [stage.file(*bytes)?];
        stage.files.warm(&targets[0], &stage.stop)?;
        let size = bytes.to_string();
        for _ in 0..stage.rounds(ROUNDS) {
            for (route, server) in &servers {
                let keys = [size.as_str(), route.as_str()];
                let time = stage.time(TIME_MS);
                match stage.measure(server, &stage.client, &targets, connections, time)? {
                    Ok(outcome) => add_load(samples, &keys, &outcome),
                    Err(why) => samples.miss(&keys, &why),
                }
            }
        }
    }
    Ok(())
}

fn table() -> Table {
    let keys =
        vec![Column::new("file_bytes", "file", Unit::Bytes), Column::words("route", "route")];
    Table::new(TABLE, "Routes by file size", keys, load_columns())
}

fn chart(title: &str, column: &str) -> Chart {
    let mark = Mark {
        at: to_f64(SMALL_RANGE_BYTES_MAX),
        label: "auto changes from mmap-write to sendfile".to_owned(),
    };
    Chart::Lines {
        title: title.to_owned(),
        table: TABLE.to_owned(),
        x: "file_bytes".to_owned(),
        series: "route".to_owned(),
        column: column.to_owned(),
        scale: Scale::Log,
        marks: vec![mark],
    }
}

/// Where sendfile becomes cheaper than mmap-write and stays so.
fn finding(sizes: &[u64], samples: &Samples) -> String {
    let cost = |bytes: u64, route: Route| {
        // CPU per byte is there even when no response ended.
        samples.median(&[&bytes.to_string(), route.name()], "cpu_cs_per_gb")
    };
    let compared = sizes.iter().filter_map(|bytes| {
        let (sendfile, mmap) = (cost(*bytes, Route::Sendfile)?, cost(*bytes, Route::MmapWrite)?);
        Some((*bytes, sendfile < mmap))
    });
    let compared: Vec<(u64, bool)> = compared.collect();
    let engine = Unit::Bytes.print(to_f64(SMALL_RANGE_BYTES_MAX));
    let engine = format!("the engine sends up to {engine} by mmap-write");
    let last_cheap = compared.iter().rposition(|(_, is_cheaper)| !is_cheaper);
    let print =
        |index: usize| compared.get(index).map(|(bytes, _)| Unit::Bytes.print(to_f64(*bytes)));
    match (last_cheap, last_cheap.map_or(print(0), |last| print(last + 1))) {
        _ if compared.is_empty() => "nothing was measured".to_owned(),
        (_, None) => format!("sendfile is never cheaper than mmap-write for long; {engine}"),
        (_, Some(first)) => {
            format!("from {first} on sendfile is cheaper than mmap-write; {engine}")
        }
    }
}
