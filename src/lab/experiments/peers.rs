//! The same load against this server and every peer that is there: interleaved rounds, one
//! processor for the server and another for the load.

use std::collections::BTreeMap;
use std::time::Duration;

use pagewire_engine::RouteChoice;

use crate::lab::experiments::{add_load, load_columns, to_f64};
use crate::lab::files::{GIB, KIB, MIB};
use crate::lab::peers::Peer;
use crate::lab::report::{Chart, Column, Experiment, Table, Unit};
use crate::lab::samples::Samples;
use crate::lab::server::Server;
use crate::lab::stage::{Network, Stage};

/// File sizes, and how many connections ask for them.
const LOADS: [(u64, usize); 4] = [(4 * KIB, 32), (64 * KIB, 8), (MIB, 8), (GIB, 4)];
/// Files up to this size are about requests, larger ones about bytes.
const SMALL_BYTES_MAX: u64 = 16 * KIB;
const ROUNDS: usize = 5;
const TIME_MS: u64 = 400;
/// Connections that fall silent after one request each.
const IDLE_CONNECTIONS: usize = 500;
/// How long they are silent before memory is looked at.
const SILENCE: Duration = Duration::from_secs(1);
const OURS: &str = "pagewire";

/// The sizes of the files that are served.
pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    stage.sizes(&LOADS.map(|(bytes, _)| bytes))
}

/// One table by network and size of files, and one of memory.
#[derive(Debug)]
struct Found {
    tables: Vec<Samples>,
    memory: Samples,
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Peers".to_owned();
    into.question = "What do other servers make of the same load?".to_owned();
    let mut peers = vec![Peer::pagewire(RouteChoice::Auto)?];
    peers.extend(Peer::found());
    if peers.len() == 1 {
        let names = crate::lab::peers::names();
        into.notes.push(format!("no peer found on the PATH, of: {names}"));
    }
    let (networks, alone) = stage.networks()?;
    into.notes.extend(alone);
    into.notes.extend(versions(&peers));
    let mut found = Found { tables: Vec::new(), memory: memory() };
    let ended = found.measure(stage, &networks, &peers);
    found.report(stage, into);
    ended
}

fn versions(peers: &[Peer]) -> Option<String> {
    let others = peers.iter().filter(|peer| peer.name() != OURS);
    let versions: Vec<_> = others.filter_map(Peer::version).collect();
    (!versions.is_empty()).then(|| format!("peers: {}", versions.join("; ")))
}

impl Found {
    fn measure(
        &mut self,
        stage: &Stage<'_>,
        networks: &[Network],
        peers: &[Peer],
    ) -> anyhow::Result<()> {
        let sizes = sizes(stage);
        stage.expect(
            networks.len() * sizes.len() * stage.rounds(ROUNDS) * peers.len() + peers.len(),
        );
        for (number, network) in networks.iter().enumerate() {
            for is_small in [true, false] {
                self.tables.push(Samples::of(table(network, number, is_small)));
            }
            let [.., small, large] = self.tables.as_mut_slice() else { continue };
            measure_network(stage, network, peers, small, large)?;
        }
        let host = &networks[0];
        for peer in peers {
            self.measure_memory(stage, host, peer)?;
        }
        Ok(())
    }

    fn measure_memory(
        &mut self,
        stage: &Stage<'_>,
        network: &Network,
        peer: &Peer,
    ) -> anyhow::Result<()> {
        let keys = [peer.name()];
        let server = match stage.start(peer, &network.server)? {
            Ok(server) => server,
            Err(why) => {
                self.memory.miss(&keys, &why);
                return Ok(());
            }
        };
        stage.step(&format!("{}, memory", peer.name()));
        let connections = stage.connections(IDLE_CONNECTIONS);
        match stage.idle(&server, &network.client, connections, SILENCE)? {
            Ok(idle) => {
                self.memory.add(&keys, "rest_bytes", idle.rest_bytes);
                self.memory.add(&keys, "idle_connection_bytes", idle.connection_bytes);
            }
            Err(why) => self.memory.miss(&keys, &why),
        }
        Ok(())
    }

    fn report(mut self, stage: &Stage<'_>, into: &mut Experiment) {
        for samples in &mut self.tables {
            samples.fill_ratios("rate_ratio", "rate_bytes_per_second", OURS);
            samples.fill_ratios("cpu_ratio", "cpu_cs_per_gb", OURS);
        }
        into.finding = finding(&self.tables, stage);
        let tables: Vec<Table> = self.tables.into_iter().map(Samples::into_table).collect();
        into.charts.extend(tables.iter().map(chart));
        into.tables.extend(tables);
        into.tables.push(self.memory.into_table());
        into.notes.push(
            "one processor for each server, another one for the load; CPU is that of the server \
             and its processes, which on loopback pays for the receiver's half of TCP as well"
                .to_owned(),
        );
        if stage.client_shares_the_processor {
            into.notes.push("there is one processor only: load and servers share it".to_owned());
        }
    }
}

/// All servers run at once; in every round each is measured in its turn.
fn measure_network(
    stage: &Stage<'_>,
    network: &Network,
    peers: &[Peer],
    small: &mut Samples,
    large: &mut Samples,
) -> anyhow::Result<()> {
    let sizes = sizes(stage);
    let mut servers: BTreeMap<&str, Server> = BTreeMap::new();
    let mut absent: BTreeMap<&str, String> = BTreeMap::new();
    for peer in peers {
        match stage.start(peer, &network.server)? {
            Ok(server) => drop(servers.insert(peer.name(), server)),
            Err(why) => drop(absent.insert(peer.name(), why)),
        }
    }
    for (bytes, connections) in LOADS {
        if !sizes.contains(&stage.size(bytes)) {
            continue;
        }
        let samples = if bytes <= SMALL_BYTES_MAX { &mut *small } else { &mut *large };
        let connections = stage.connections(connections);
        let targets = [stage.file(stage.size(bytes))?];
        let (size, count) = (targets[0].bytes.to_string(), connections.to_string());
        for _ in 0..stage.rounds(ROUNDS) {
            for peer in peers {
                let keys = [size.as_str(), count.as_str(), peer.name()];
                let Some(server) = servers.get(peer.name()) else {
                    samples.miss(&keys, &absent[peer.name()]);
                    continue;
                };
                let time = stage.time(TIME_MS);
                match stage.measure(server, &network.client, &targets, connections, time)? {
                    Ok(outcome) => add_load(samples, &keys, &outcome),
                    Err(why) => samples.miss(&keys, &why),
                }
            }
        }
    }
    Ok(())
}

fn table(network: &Network, number: usize, is_small: bool) -> Table {
    let (size, title) =
        if is_small { ("small_files", "Small files") } else { ("large_files", "Large files") };
    let congestion = &network.congestion;
    let name = if number == 0 { size.to_owned() } else { format!("{size}_{congestion}") };
    let mut columns = load_columns();
    columns.push(Column::new("rate_ratio", "rate, of pagewire's", Unit::Ratio));
    columns.push(Column::new("cpu_ratio", "CPU, of pagewire's", Unit::Ratio));
    let keys = vec![
        Column::new("file_bytes", "file", Unit::Bytes),
        Column::new("connections", "connections", Unit::Connections),
        Column::words("server", "server"),
    ];
    Table::new(&name, &format!("{title}, congestion control {congestion}"), keys, columns)
}

fn chart(table: &Table) -> Chart {
    let is_small = table.name.starts_with("small_files");
    let (column, what) = match is_small {
        true => ("requests_per_second", "Requests per second"),
        false => ("cpu_cs_per_gb", "CPU per GB sent"),
    };
    Chart::Bars {
        title: format!("{what}: {}", table.title),
        table: table.name.clone(),
        group: Some("file_bytes".to_owned()),
        label: "server".to_owned(),
        column: column.to_owned(),
        ours: Some(OURS.to_owned()),
    }
}

fn memory() -> Samples {
    let keys = vec![Column::words("server", "server")];
    let columns = vec![
        Column::new("rest_bytes", "at rest", Unit::Bytes),
        Column::new("idle_connection_bytes", "an idle connection", Unit::Bytes),
    ];
    Samples::of(Table::new("memory", "Resident memory", keys, columns))
}

/// In each network: the cost of the largest file, and the rate of the smallest.
fn finding(tables: &[Samples], stage: &Stage<'_>) -> String {
    let [smallest, .., largest] = LOADS;
    let mut parts = Vec::new();
    for samples in tables {
        for ((bytes, connections), column, what) in [
            (largest, "cpu_ratio", "CPU per GB of"),
            (smallest, "rate_ratio", "requests per second for"),
        ] {
            let bytes = stage.size(bytes);
            let connections = stage.connections(connections).to_string();
            let first = [bytes.to_string(), connections];
            let others = samples.others(&first, column, OURS);
            if !others.is_empty() {
                let size = Unit::Bytes.print(to_f64(bytes));
                let title = samples.title();
                parts.push(format!("{title}: {what} {size}, in terms of pagewire's: {others}"));
            }
        }
    }
    if parts.is_empty() { "there was nothing to compare with".to_owned() } else { parts.join(". ") }
}
