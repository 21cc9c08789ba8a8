//! What downloads of cold files do to hot clients: rate and p99 of a hot 4 KiB file, alone and
//! beside four downloads from a limited disk.

use std::thread;
use std::time::Duration;

use pagewire_engine::RouteChoice;

use crate::lab::disk_limit::DiskLimit;
use crate::lab::experiments::to_f64;
use crate::lab::files::{KIB, MIB, Target};
use crate::lab::load::Outcome;
use crate::lab::peers::{Kind, Peer};
use crate::lab::process::family;
use crate::lab::report::{Chart, Column, Experiment, Table, Unit};
use crate::lab::samples::Samples;
use crate::lab::server::Server;
use crate::lab::stage::{Network, Stage};

const COLD_FILES: usize = 4;
/// More than the limited disk gives within a round.
const COLD_BYTES: u64 = 128 * MIB;
const HOT_BYTES: u64 = 4 * KIB;
const HOT_CONNECTIONS: usize = 8;
const DISK_BYTES_PER_SECOND: u64 = 40_000_000;
/// How long the downloads run before the hot clients are measured beside them.
const HEAD_START: Duration = Duration::from_millis(400);
const ROUNDS: usize = 3;
const TIME_MS: u64 = 1500;
const TABLE: &str = "cold";

/// The sizes of the files that are served.
pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    let mut sizes = vec![stage.size(COLD_BYTES); COLD_FILES];
    sizes.push(stage.size(HOT_BYTES));
    sizes
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Cold files".to_owned();
    into.question = "What do downloads of cold files do to hot clients?".to_owned();
    if stage.files.are_in_memory()? {
        let dir = stage.files.path().display();
        into.finding = format!(
            "not measured: {dir} is in memory, where no file is ever cold; name a directory on a \
             disk with --dir"
        );
        return Ok(());
    }
    let mut samples = Samples::of(table());
    let (network, note) = stage.fair_network()?;
    into.notes.push(note);
    let ended = measure(stage, &network, &mut samples, &mut into.notes);
    samples.fill_parts(RATE_KEPT, "beside_requests_per_second", "alone_requests_per_second");
    samples.fill_parts(P99_GROWN, "beside_p99_us", "alone_p99_us");
    into.finding = finding(&samples);
    into.tables.push(samples.into_table());
    into.charts.push(Chart::Bars {
        title: "Hot requests per second beside cold downloads, of the rate alone".to_owned(),
        table: TABLE.to_owned(),
        group: None,
        label: "server".to_owned(),
        column: RATE_KEPT.to_owned(),
        ours: Some("pagewire".to_owned()),
    });
    ended
}

const RATE_KEPT: &str = "requests_ratio";
const P99_GROWN: &str = "p99_ratio";

fn peers() -> anyhow::Result<Vec<Peer>> {
    let mut peers = vec![Peer::pagewire(RouteChoice::Auto)?];
    let others = [Kind::Nginx, Kind::NginxAio, Kind::Lighttpd];
    peers.extend(others.into_iter().filter_map(Peer::find));
    Ok(peers)
}

/// A server, and the limit that its reads have.
#[derive(Debug)]
struct Limited {
    /// Dropped first: a group can be removed when its processes are gone.
    server: Server,
    _limit: Option<DiskLimit>,
}

fn measure(
    stage: &Stage<'_>,
    network: &Network,
    samples: &mut Samples,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let hot = [stage.file(stage.size(HOT_BYTES))?];
    let size = stage.size(COLD_BYTES);
    let cold = (0..COLD_FILES)
        .map(|number| stage.files.named(&format!("cold{number}.bin"), size, &stage.stop));
    let cold: Vec<Target> = cold.collect::<anyhow::Result<_>>()?;
    let mut servers = Vec::new();
    for peer in peers()? {
        samples.row(&[peer.name()]);
        match stage.start(&peer, &network.server)? {
            Ok(server) => servers.push(limited(stage, server, notes)?),
            Err(why) => samples.miss(&[peer.name()], &why),
        }
    }
    stage.expect(stage.rounds(ROUNDS) * servers.len() * 2);
    for _ in 0..stage.rounds(ROUNDS) {
        for Limited { server, .. } in &servers {
            if let Err(why) = one_round(stage, network, server, [&hot, &cold], samples)? {
                samples.miss(&[&server.name], &why);
            }
        }
    }
    Ok(())
}

/// Limits what `server` reads, or notes why that cannot be.
fn limited(stage: &Stage<'_>, server: Server, notes: &mut Vec<String>) -> anyhow::Result<Limited> {
    let limit = if stage.root {
        let name = server.name.replace([' ', ','], "");
        DiskLimit::make(&name, stage.files.device()?, DISK_BYTES_PER_SECOND).and_then(|limit| {
            family(server.pid()).into_iter().try_for_each(|pid| limit.add(pid))?;
            Ok(limit)
        })
    } else {
        Err(anyhow::anyhow!("that needs root"))
    };
    let note = match &limit {
        Ok(_) => {
            format!("reads of the disk are limited to {} MB/s", DISK_BYTES_PER_SECOND / 1_000_000)
        }
        Err(error) => format!(
            "the disk is not limited ({error:#}): the cold files may be in memory before the hot \
             clients have suffered from them"
        ),
    };
    if !notes.contains(&note) {
        notes.push(note);
    }
    Ok(Limited { server, _limit: limit.ok() })
}

fn one_round(
    stage: &Stage<'_>,
    network: &Network,
    server: &Server,
    [hot, cold]: [&[Target]; 2],
    samples: &mut Samples,
) -> anyhow::Result<Result<(), String>> {
    cold.iter().try_for_each(|target| stage.files.chill(target))?;
    let time = stage.time(TIME_MS);
    let connections = stage.connections(HOT_CONNECTIONS);
    let alone = match stage.measure(server, &network.client, hot, connections, time)? {
        Ok(alone) => alone,
        Err(why) => return Ok(Err(why)),
    };
    // The downloads outlast the hot clients, warm-up included.
    let cold_time = HEAD_START + time.mul_f64(1.3);
    let (downloads, beside) = thread::scope(|scope| {
        let verify = stage.flags.verify;
        let client = &network.client;
        let download =
            move || server.measure(client, cold, COLD_FILES, cold_time, verify, &stage.stop);
        let downloads = scope.spawn(download);
        let beside = stage
            .stop
            .pause(HEAD_START)
            .and_then(|()| stage.measure(server, client, hot, connections, time));
        (downloads.join(), beside)
    });
    let downloads = downloads.map_err(|_| anyhow::anyhow!("a download panicked"))?;
    let (downloads, beside) = (downloads?, beside?);
    Ok(beside.map(|beside| add(samples, &server.name, &alone, &beside, &downloads)))
}

fn add(samples: &mut Samples, name: &str, alone: &Outcome, beside: &Outcome, cold: &Outcome) {
    for (place, outcome) in [("alone", alone), ("beside", beside)] {
        samples.add(&[name], &format!("{place}_requests_per_second"), outcome.rate());
        samples.add(&[name], &format!("{place}_p99_us"), outcome.latency(0.99) * 1e6);
    }
    let rate = to_f64(cold.bytes) / cold.elapsed.as_secs_f64();
    samples.add(&[name], "cold_bytes_per_second", rate);
}

fn table() -> Table {
    let keys = vec![Column::words("server", "server")];
    let columns = vec![
        Column::new("alone_requests_per_second", "requests, alone", Unit::RequestsPerSecond),
        Column::new("beside_requests_per_second", "beside cold", Unit::RequestsPerSecond),
        Column::new(RATE_KEPT, "of the rate alone", Unit::Ratio),
        Column::new("alone_p99_us", "p99, alone", Unit::Microseconds),
        Column::new("beside_p99_us", "beside cold", Unit::Microseconds),
        Column::new(P99_GROWN, "of the p99 alone", Unit::Ratio),
        Column::new("cold_bytes_per_second", "cold downloads", Unit::BytesPerSecond),
    ];
    Table::new(TABLE, "A hot 4 KiB file beside four cold downloads", keys, columns)
}

fn finding(samples: &Samples) -> String {
    let kept = samples.names().into_iter().filter_map(|name| {
        let kept = samples.median(&[name], RATE_KEPT)?;
        Some(format!("{name} {}", Unit::Ratio.print(kept)))
    });
    let kept: Vec<String> = kept.collect();
    if kept.is_empty() {
        return "nothing was measured".to_owned();
    }
    format!("beside cold downloads hot clients keep of their rate: {}", kept.join(", "))
}
