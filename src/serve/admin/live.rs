//! What the live page shows, as JSON. PURE. docs/observing.md has its fields.

use std::collections::BTreeMap;

use pagewire_engine::{Route, Tally};
use pagewire_http::{Refusal, Transfer};
use serde::Serialize;

use super::history::{bytes_by, ways};
use super::stats::CLASSES;
use super::{Snapshot, VERSION};

#[derive(Serialize)]
struct Live<'a> {
    version: &'a str,
    stopping: bool,
    uptime_seconds: f64,
    connections: Connections,
    responses: Responses<'a>,
    sent: BTreeMap<&'a str, u64>,
    user_copied_bytes: u64,
    calls: u64,
    step_downs: u64,
    cold_waits: u64,
    cold_bytes: u64,
    /// Bytes of each of the last seconds, the oldest first.
    seconds: Vec<Seconds<'a>>,
    transfers_now: usize,
    transfers: Vec<One>,
    hottest: Vec<Hot<'a>>,
    process: Process,
    log_lines_lost: u64,
}

#[derive(Serialize)]
struct Connections {
    now: u64,
    max: u64,
    total: u64,
    refused: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Responses<'a> {
    in_flight: u64,
    total: u64,
    aborted: u64,
    by_class: BTreeMap<&'a str, u64>,
    /// Bounds within which so many ended, in seconds.
    first_byte_p50: Option<f64>,
    first_byte_p99: Option<f64>,
}

#[derive(Serialize)]
struct Seconds<'a> {
    route: &'a str,
    bytes: &'a [u64],
}

#[derive(Serialize)]
struct One {
    id: u64,
    peer: String,
    target: String,
    sent: u64,
    due: u64,
    seconds: f64,
    route: &'static str,
    user_copied_bytes: u64,
    cold_bytes: u64,
}

#[derive(Serialize)]
struct Hot<'a> {
    path: &'a str,
    bytes: u64,
    responses: u64,
}

#[derive(Serialize)]
struct Process {
    descriptors: Option<u64>,
    descriptors_max: Option<u64>,
    resident_bytes: Option<u64>,
    processor_seconds: f64,
}

pub(crate) fn render(snapshot: &Snapshot) -> String {
    let totals = &snapshot.totals;
    let moved = &totals.moved;
    let refused = Refusal::ALL.map(|reason| (reason.name(), totals.refused.by(reason)));
    let seconds = snapshot.seconds.iter().map(|(route, bytes)| Seconds { route, bytes }).collect();

    let live = Live {
        version: VERSION,
        stopping: snapshot.stopping,
        uptime_seconds: snapshot.uptime.as_secs_f64(),
        connections: Connections {
            now: totals.connections_now,
            max: totals.connections_max,
            total: totals.connections,
            refused: refused.into_iter().filter(|(_, count)| *count > 0).collect(),
        },
        responses: Responses {
            in_flight: totals.in_flight,
            total: totals.responses,
            aborted: totals.aborted,
            by_class: CLASSES.into_iter().zip(snapshot.classes).collect(),
            first_byte_p50: snapshot.first_byte.quantile(0.5),
            first_byte_p99: snapshot.first_byte.quantile(0.99),
        },
        sent: ways().map(|(name, way)| (name, bytes_by(moved, way))).collect(),
        user_copied_bytes: moved.total().user_copied_bytes,
        calls: moved.total().calls,
        step_downs: moved.step_downs(),
        cold_waits: moved.cold().waits,
        cold_bytes: moved.cold().bytes,
        seconds,
        transfers_now: snapshot.transfers_now,
        transfers: snapshot.transfers.iter().map(one).collect(),
        hottest: snapshot
            .hottest
            .iter()
            .map(|(path, heat)| Hot { path, bytes: heat.bytes, responses: heat.responses })
            .collect(),
        process: Process {
            descriptors: snapshot.process.descriptors,
            descriptors_max: snapshot.process.descriptors_max,
            resident_bytes: snapshot.process.resident_bytes,
            processor_seconds: snapshot.process.processor_seconds,
        },
        log_lines_lost: snapshot.log_lines_lost,
    };
    serde_json::to_string(&live).expect("strings and numbers are always JSON")
}

fn one(transfer: &Transfer) -> One {
    let total = transfer.tally.total();
    One {
        id: transfer.id,
        peer: transfer.peer.to_string(),
        target: transfer.target.to_string(),
        sent: total.bytes,
        due: transfer.due,
        seconds: transfer.elapsed.as_secs_f64(),
        route: main_route(&transfer.tally),
        user_copied_bytes: total.user_copied_bytes,
        cold_bytes: transfer.tally.cold().bytes,
    }
}

/// The way that most of its bytes took.
fn main_route(tally: &Tally) -> &'static str {
    let bytes = |(_, way): &(&str, Option<Route>)| bytes_by(tally, *way);
    let most = ways().filter(|way| bytes(way) > 0).max_by_key(bytes);
    most.map_or("-", |(name, _)| name)
}
