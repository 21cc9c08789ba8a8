//! From one connection to ten thousand: what a request costs, how long it takes, and what a
//! connection takes of memory.

use std::time::Duration;

use pagewire_engine::RouteChoice;
use rustix::process::{Resource, getrlimit};

use crate::lab::experiments::{add_load, load_columns};
use crate::lab::files::KIB;
use crate::lab::peers::{Kind, Peer};
use crate::lab::report::{Cell, Chart, Column, Experiment, Scale, Table, Unit};
use crate::lab::samples::Samples;
use crate::lab::server::Server;
use crate::lab::stage::{Network, Stage};

const COUNTS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const FILE_BYTES: u64 = 4 * KIB;
const ROUNDS: usize = 3;
const TIME_MS: u64 = 500;
/// Fewer connections than this do not show in a server's memory.
const WEIGHED_MIN: usize = 100;
const SILENCE: Duration = Duration::from_millis(500);
/// Descriptors that a process needs beside those of the connections.
const DESCRIPTORS_BESIDE: usize = 100;
const TABLE: &str = "connections";

pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    vec![stage.size(FILE_BYTES)]
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Connections".to_owned();
    into.question = "What do more connections cost?".to_owned();
    let (counts, few) = counts(stage);
    into.notes.extend(few);
    into.notes.push(
        "a file of 4 KiB; connections are kept and never idle, but for their memory, \
                     which is looked at when each has asked once and fallen silent"
            .to_owned(),
    );
    let mut samples = Samples::of(table());
    let (network, note) = stage.fair_network()?;
    into.notes.push(note);
    let ended = measure(stage, &network, &counts, &mut samples);
    into.finding = finding(&counts, &samples);
    into.tables.push(samples.into_table());
    into.charts.extend([
        chart("Requests per second by connections", "requests_per_second", Scale::Linear),
        chart("CPU per request by connections", "cpu_us_per_request", Scale::Linear),
        chart("p99 by connections", "p99_us", Scale::Log),
    ]);
    ended
}

/// Those that the limit of open descriptors allows, and the note if that is not all.
fn counts(stage: &Stage<'_>) -> (Vec<usize>, Option<String>) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_BESIDE);
    let mut counts = Vec::from(COUNTS.map(|count| stage.connections(count)));
    counts.dedup();
    let wanted = counts.last().copied().unwrap_or(0);
    let note = (wanted > room).then(|| {
        format!(
            "not {wanted} connections but {room}: the hard limit of open descriptors is {limit} \
             (raise it with `ulimit -Hn`)"
        )
    });
    counts.iter_mut().for_each(|count| *count = (*count).min(room));
    counts.dedup();
    (counts, note)
}

fn peers() -> anyhow::Result<Vec<Peer>> {
    let mut peers = vec![Peer::pagewire(RouteChoice::Auto)?];
    peers.extend([Kind::Nginx, Kind::Lighttpd].into_iter().filter_map(Peer::find));
    Ok(peers)
}

fn measure(
    stage: &Stage<'_>,
    network: &Network,
    counts: &[usize],
    samples: &mut Samples,
) -> anyhow::Result<()> {
    let targets = [stage.file(stage.size(FILE_BYTES))?];
    let peers = peers()?;
    stage.expect(counts.len() * peers.len() * (stage.rounds(ROUNDS) + 1));
    for count in counts {
        let size = count.to_string();
        let mut servers = Vec::new();
        for peer in &peers {
            let keys = [size.as_str(), peer.name()];
            samples.row(&keys);
            match stage.start(peer, &network.server)? {
                Ok(server) => servers.push(server),
                Err(why) => samples.miss(&keys, &why),
            }
        }
        for server in &servers {
            weigh(stage, network, server, *count, samples)?;
        }
        for _ in 0..stage.rounds(ROUNDS) {
            for server in &servers {
                let keys = [size.as_str(), server.name.as_str()];
                let time = stage.time(TIME_MS);
                match stage.measure(server, &network.client, &targets, *count, time)? {
                    Ok(outcome) => add_load(samples, &keys, &outcome),
                    Err(why) => samples.miss(&keys, &why),
                }
            }
        }
    }
    Ok(())
}

/// Looks at the memory of a server that was just started.
fn weigh(
    stage: &Stage<'_>,
    network: &Network,
    server: &Server,
    count: usize,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    stage.step(&format!("{}, {count} silent connections", server.name));
    let size = count.to_string();
    let keys = [size.as_str(), server.name.as_str()];
    if count < WEIGHED_MIN {
        samples.say(&keys, MEMORY, Cell::missing("too few connections to show in memory"));
        return Ok(());
    }
    match stage.idle(server, &network.client, count, SILENCE)? {
        Ok(idle) => samples.add(&keys, MEMORY, idle.connection_bytes),
        Err(why) => samples.say(&keys, MEMORY, Cell::missing(why)),
    }
    Ok(())
}

const MEMORY: &str = "connection_bytes";

fn table() -> Table {
    let keys = vec![
        Column::new("connections", "connections", Unit::Connections),
        Column::words("server", "server"),
    ];
    let mut columns = load_columns();
    columns.push(Column::new(MEMORY, "memory of a connection", Unit::Bytes));
    Table::new(TABLE, "Cost by connections", keys, columns)
}

fn chart(title: &str, column: &str, scale: Scale) -> Chart {
    Chart::Lines {
        title: title.to_owned(),
        table: TABLE.to_owned(),
        x: "connections".to_owned(),
        series: "server".to_owned(),
        column: column.to_owned(),
        scale,
        marks: Vec::new(),
    }
}

fn finding(counts: &[usize], samples: &Samples) -> String {
    let costs = counts.iter().filter_map(|count| {
        let keys = [count.to_string(), "pagewire".to_owned()];
        let cost = samples.median(&keys.each_ref().map(String::as_str), "cpu_us_per_request")?;
        Some(format!("{} with {count}", Unit::Microseconds.print(cost)))
    });
    let costs: Vec<String> = costs.collect();
    if costs.is_empty() {
        return "nothing was measured".to_owned();
    }
    format!("CPU per request of pagewire by connections: {}", costs.join(", "))
}
