//! The textbook's table, measured: system calls, mode switches, copies, rate and CPU of each
//! route, on loopback and through a device with and without its features.

use anyhow::bail;
use pagewire_engine::copies::CopyCounters;
use pagewire_engine::proof::Passage;
use pagewire_engine::{Count, Route, RouteChoice};

use crate::lab::experiments::to_f64;
use crate::lab::files::{MIB, Target};
use crate::lab::load::{Clients, Load};
use crate::lab::passage::Between;
use crate::lab::peers::Peer;
use crate::lab::place::Place;
use crate::lab::report::{Cell, Chart, Column, Experiment, Table, Unit, textbook_columns};
use crate::lab::samples::Samples;
use crate::lab::server::{START_PATIENCE, Server};
use crate::lab::stage::Stage;
use crate::lab::stop::Stopped;
use crate::lab::trace::{Calls, Trace};
use crate::lab::veth::{Features, Veth};

const FILE_BYTES: u64 = 256 * MIB;
const CONNECTIONS: usize = 4;
const ROUNDS: usize = 3;
const TIME_MS: u64 = 400;
const LOOPBACK: &str = "loopback";
const TEXTBOOK: &str = "textbook";
const CALLS: &str = "calls";
/// A copy that the oracle cannot tell from the first one.
const HIDDEN: &str = "hidden by the copy into the socket: only counters in the kernel can tell";

pub(crate) fn sizes(stage: &Stage<'_>) -> Vec<u64> {
    vec![stage.size(FILE_BYTES)]
}

/// What is filled.
#[derive(Debug)]
struct Found {
    textbook: Samples,
    calls: Samples,
    /// Of the bytes that the kernel's copy functions move, where it has them.
    counters: Option<CopyCounters>,
}

/// A way from server to client.
#[derive(Debug)]
struct Path<'a> {
    name: &'static str,
    server: &'a Place,
    client: &'a Place,
    /// Of the device; none for loopback.
    features: Option<Features>,
}

pub(crate) fn run(stage: &Stage<'_>, into: &mut Experiment) -> anyhow::Result<()> {
    into.title = "Routes".to_owned();
    into.question = "What does each route cost, and who copies?".to_owned();
    let counters = match CopyCounters::open() {
        Ok(counters) => {
            into.notes.push(COUNTED.to_owned());
            Some(counters)
        }
        Err(why) => {
            into.notes.push(TOLD.to_owned());
            into.notes.push(format!("the kernel's copy functions were not counted: {why}"));
            None
        }
    };
    let mut found = Found { textbook: textbook(), calls: calls(), counters };
    let ended = found.measure(stage, &mut into.notes);
    into.finding = found.finding();
    let textbook = found.textbook.into_table();
    into.charts.push(picture(&textbook));
    into.tables.extend([textbook, found.calls.into_table()]);
    into.notes.extend(NOTES.map(str::to_owned));
    ended
}

/// The rows that textbooks have, through a device of our own if there was one, else loopback.
fn picture(table: &Table) -> Chart {
    let (device, lesser) = (Features::All.name(), Features::NoScatterGather.name());
    let through_device = [
        (device, Route::ReadWrite),
        (device, Route::MmapWrite),
        (lesser, Route::Sendfile),
        (device, Route::Splice),
        (device, Route::Sendfile),
    ];
    let on_loopback = [Route::ReadWrite, Route::MmapWrite, Route::Splice, Route::Sendfile];
    let keys = |network: &str, route: Route| vec![network.to_owned(), route.name().to_owned()];
    let mut rows = Vec::from(through_device.map(|(network, route)| keys(network, route)));
    if !table.rows.iter().any(|row| row.keys == rows[4]) {
        rows = Vec::from(on_loopback.map(|route| keys(LOOPBACK, route)));
    }
    rows.retain(|keys| table.rows.iter().any(|row| row.keys == *keys));
    let title = "The textbook, measured".to_owned();
    Chart::Textbook { title, table: TEXTBOOK.to_owned(), rows }
}

const COUNTED: &str = "copies are the bytes that the kernel's copy functions moved for the sender \
    (kprobes), for each byte sent, to a thousandth: addresses and vectors pass them too";
const TOLD: &str = "copies into the process are counted by the meter; copies into the socket and \
    for the device are told by overwriting what was sent before the receiver reads it (the \
    mutation oracle): a device that passes references on copies nothing for anybody, one that \
    cannot gather copies whatever it is given";

const NOTES: [&str; 2] = [
    "copies are those by the processor; a device moves each byte once more, and a disk once before",
    "strace counts one download of the file, every call of the server included; rate and CPU are \
     measured without it",
];

impl Found {
    fn measure(&mut self, stage: &Stage<'_>, notes: &mut Vec<String>) -> anyhow::Result<()> {
        let target = stage.file(stage.size(FILE_BYTES))?;
        stage.files.warm(&target, &stage.stop)?;
        let veth = if stage.root {
            Veth::make(&stage.server, &stage.client)
        } else {
            Err(anyhow::anyhow!("that needs root"))
        };
        let devices = if veth.is_ok() { Features::ALL.len() } else { 0 };
        stage.expect((1 + devices) * Route::ALL.len() * (stage.rounds(ROUNDS) + 1));
        let (server, client) = (&stage.server, &stage.client);
        let loopback = Path { name: LOOPBACK, server, client, features: None };
        self.measure_path(stage, &loopback, &target)?;
        self.count_calls(stage, &target)?;
        let veth = match veth {
            Ok(veth) => veth,
            Err(error) if error.is::<Stopped>() => return Err(error),
            Err(error) => {
                notes.push(format!("no device of our own was measured: {error:#}"));
                return Ok(());
            }
        };
        for features in Features::ALL {
            veth.set(features)?;
            let (server, client) = (&veth.server, &veth.client);
            let path = Path { name: features.name(), server, client, features: Some(features) };
            self.measure_path(stage, &path, &target)?;
        }
        Ok(())
    }

    fn measure_path(
        &mut self,
        stage: &Stage<'_>,
        path: &Path<'_>,
        target: &Target,
    ) -> anyhow::Result<()> {
        let mut servers = Vec::new();
        for route in Route::ALL {
            stage.step(&format!("{}, {route}: copies", path.name));
            match self.find_copies(stage, path, target, route) {
                Ok(()) => {}
                Err(error) if error.is::<Stopped>() => return Err(error),
                Err(error) => {
                    let place = format!("{route} over {} cannot be looked into", path.name);
                    let why = stage.fault(error.context(place));
                    self.textbook.miss(&[path.name, route.name()], &why);
                }
            }
            let peer = Peer::pagewire(RouteChoice::Only(route))?;
            match stage.start(&peer, path.server)? {
                Ok(server) => servers.push((route, server)),
                Err(why) => bail!(why),
            }
        }
        let targets = [target.clone()];
        let connections = stage.connections(CONNECTIONS);
        for _ in 0..stage.rounds(ROUNDS) {
            for (route, server) in &servers {
                let keys = [path.name, route.name()];
                let time = stage.time(TIME_MS);
                match stage.measure(server, path.client, &targets, connections, time)? {
                    Ok(outcome) => {
                        let cost = outcome.cpu_seconds_per_gb().map(|seconds| seconds * 100.0);
                        self.textbook.add_or(&keys, "cpu_cs_per_gb", cost, "nothing moved");
                        let rate = outcome.bytes_per_second();
                        self.textbook.add(&keys, "rate_bytes_per_second", rate);
                    }
                    Err(why) => self.textbook.miss(&keys, &why),
                }
            }
        }
        Ok(())
    }

    /// Switches by the meter; copies by the meter and the oracle, or by counters in the kernel.
    fn find_copies(
        &mut self,
        stage: &Stage<'_>,
        path: &Path<'_>,
        target: &Target,
        route: Route,
    ) -> anyhow::Result<()> {
        let between = Between { server: path.server, client: path.client };
        let counters = self.counters.as_ref();
        let (count, copies) = between.meter(&stage.files, target, route, counters)?;
        let passage = between.oracle(&stage.files, route)?;
        let keys = [path.name, route.name()];
        self.textbook.add(&keys, "switches_per_step", 2.0 * ratio(count.calls, count.steps));
        self.textbook.say(&keys, PASSAGE, Cell::said(passage.to_string()));
        if path.features.is_none() {
            self.add_meter(route, &count);
        }
        if let Some(copies) = copies {
            for (column, bytes) in [
                (INTO_PROCESS, copies.out_of_file),
                (INTO_SOCKET, copies.user_memory),
                (FOR_DEVICE, copies.packets),
            ] {
                let copies = (ratio(bytes, count.bytes) * 1000.0).round() / 1000.0;
                self.textbook.add(&keys, column, copies);
            }
            return Ok(());
        }
        self.textbook.add(&keys, INTO_PROCESS, ratio(count.user_copied_bytes, count.bytes));
        let is_user_memory = matches!(route, Route::ReadWrite | Route::MmapWrite);
        let into_socket = if is_user_memory {
            between.socket_copies_memory()?
        } else {
            // The device cannot have done it where there is none.
            let loopback = Between { server: &stage.server, client: &stage.client };
            loopback.oracle(&stage.files, route)? == Passage::Copied
        };
        self.textbook.add(&keys, INTO_SOCKET, f64::from(u8::from(into_socket)));
        let gathers = between.oracle(&stage.files, Route::Sendfile)? == Passage::ByReference;
        let for_device = match path.features {
            None => Some(0.0),
            Some(_) if gathers => Some(0.0),
            Some(Features::NoScatterGather) => Some(1.0),
            Some(_) if !is_user_memory => Some(f64::from(u8::from(!into_socket))),
            Some(_) => None,
        };
        match for_device {
            Some(copies) => self.textbook.add(&keys, FOR_DEVICE, copies),
            None => self.textbook.say(&keys, FOR_DEVICE, Cell::missing(HIDDEN)),
        }
        Ok(())
    }

    fn add_meter(&mut self, route: Route, count: &Count) {
        let per_mib = ratio(count.calls, count.bytes) * to_f64(MIB);
        let keys = [route.name()];
        self.calls.add(&keys, "calls_per_mib", per_mib);
        self.calls.add(&keys, "switches_per_mib", 2.0 * per_mib);
        self.calls.add(&keys, "user_copies", ratio(count.user_copied_bytes, count.bytes));
    }

    /// Counts the calls of a real server with strace, if that is there.
    fn count_calls(&mut self, stage: &Stage<'_>, target: &Target) -> anyhow::Result<()> {
        for route in Route::ALL {
            let keys = [route.name()];
            let peer = Peer::pagewire(RouteChoice::Only(route))?;
            let server = match stage.start(&peer, &stage.server)? {
                Ok(server) => server,
                Err(why) => bail!(why),
            };
            match traced(stage, &server, target) {
                Ok(calls) => {
                    let mib = to_f64(target.bytes) / to_f64(MIB);
                    self.calls.add(&keys, TRACED[0], to_f64(calls.carriers()) / mib);
                    self.calls.add(&keys, TRACED[1], to_f64(calls.all()) / mib);
                }
                Err(error) if error.is::<Stopped>() => return Err(error),
                Err(error) => {
                    for column in TRACED {
                        self.calls.say(&keys, column, Cell::missing(format!("{error:#}")));
                    }
                }
            }
        }
        Ok(())
    }

    fn finding(&self) -> String {
        let parts = Route::ALL.into_iter().filter_map(|route| {
            let keys = [LOOPBACK, route.name()];
            let median = |column| self.textbook.median(&keys, column);
            let switches = Unit::Switches.print(median("switches_per_step")?);
            let copies = median(INTO_PROCESS)? + median(INTO_SOCKET)?;
            let cost = Unit::CentisecondsPerGigabyte.print(median("cpu_cs_per_gb")?);
            let copies = Unit::Copies.print(copies);
            Some(format!("{route} {switches} switches a step, {copies} copies, {cost} cs/GB"))
        });
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() {
            return "nothing was measured".to_owned();
        }
        format!("on loopback: {}", parts.join("; "))
    }
}

const INTO_PROCESS: &str = "copies_into_process";
const INTO_SOCKET: &str = "copies_into_socket";
const FOR_DEVICE: &str = "copies_for_device";
const PASSAGE: &str = "passage";
const TRACED: [&str; 2] = ["traced_calls_per_mib", "traced_all_calls_per_mib"];

/// One download of the whole file, counted by strace.
fn traced(stage: &Stage<'_>, server: &Server, target: &Target) -> anyhow::Result<Calls> {
    let targets = std::slice::from_ref(target);
    let (address, time) = (server.address, std::time::Duration::ZERO);
    let load = Load { address, targets, connections: 1, time, verify: stage.flags.verify };
    stage.client.run(|| {
        let mut client = Clients::open(load, &stage.stop)?;
        let trace = Trace::attach(server.pid(), &stage.stop)?;
        client.ask_once(0, START_PATIENCE, &stage.stop)?;
        trace.finish()
    })
}

fn ratio(of: u64, whole: u64) -> f64 {
    to_f64(of) / to_f64(whole)
}

fn textbook() -> Samples {
    let keys = vec![Column::words("network", "network"), Column::words("route", "route")];
    let mut columns = textbook_columns();
    columns.push(Column::words(PASSAGE, "from file to receiver"));
    Samples::of(Table::new(TEXTBOOK, "Switches and copies", keys, columns))
}

fn calls() -> Samples {
    let keys = vec![Column::words("route", "route")];
    let columns = vec![
        Column::new("calls_per_mib", "calls by the meter", Unit::CallsPerMebibyte),
        Column::new("switches_per_mib", "switches", Unit::SwitchesPerMebibyte),
        Column::new("user_copies", "user copies", Unit::Copies),
        Column::new(TRACED[0], "calls that carry bytes, by strace", Unit::CallsPerMebibyte),
        Column::new(TRACED[1], "all calls, by strace", Unit::CallsPerMebibyte),
    ];
    Samples::of(Table::new(CALLS, "System calls of each route, on loopback", keys, columns))
}
