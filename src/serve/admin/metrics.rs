//! The text format of Prometheus, version 0.0.4. PURE.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use pagewire_engine::Route;
use pagewire_http::Refusal;
use pagewire_http::tls::CertificateFacts;

use super::history::ways;
use super::stats::{BUCKETS, CLASSES, Times};
use super::{Snapshot, VERSION};

pub(crate) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics, each with its HELP and TYPE.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let mut page = Page(String::new());
    page.family("pagewire_build_info", "gauge", "The version that runs.");
    page.sample("pagewire_build_info", &[("version", VERSION)], 1);
    moved(&mut page, snapshot);
    connections(&mut page, snapshot);
    handshakes(&mut page, snapshot);
    responses(&mut page, snapshot);
    certificates(&mut page, snapshot);
    process(&mut page, snapshot);
    page.0
}

fn moved(page: &mut Page, snapshot: &Snapshot) {
    let tally = &snapshot.totals.moved;
    let counts = ways()
        .map(|(name, way)| (name, way.map_or(tally.plain(), |route: Route| tally.route(route))));
    let counts: Vec<_> = counts.collect();
    page.family(
        "pagewire_sent_bytes_total",
        "counter",
        "Bytes that sockets accepted, by the route they took; plain is what was no file's.",
    );
    for (route, count) in &counts {
        page.sample("pagewire_sent_bytes_total", &[("route", route)], count.bytes);
    }
    page.family("pagewire_send_calls_total", "counter", "System calls that carry bytes.");
    for (route, count) in &counts {
        page.sample("pagewire_send_calls_total", &[("route", route)], count.calls);
    }
    page.family(
        "pagewire_user_copied_bytes_total",
        "counter",
        "Bytes of files that were copied into user memory.",
    );
    for (route, count) in &counts {
        let copied = count.user_copied_bytes;
        page.sample("pagewire_user_copied_bytes_total", &[("route", route)], copied);
    }
    let cold = tally.cold();
    page.counter("pagewire_cold_waits_total", "Waits for bytes not in the page cache.", cold.waits);
    page.counter("pagewire_cold_bytes_total", "Bytes waited for, being cold.", cold.bytes);
    let step_downs = tally.step_downs();
    page.counter("pagewire_step_downs_total", "Routes refused and left for good.", step_downs);
}

fn connections(page: &mut Page, snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    page.gauge("pagewire_connections", "Connections now.", totals.connections_now);
    page.gauge("pagewire_connections_max", "Connections at most.", totals.connections_max);
    page.counter("pagewire_connections_total", "Connections accepted.", totals.connections);
    page.family("pagewire_refused_total", "counter", "Clients turned away or given up on.");
    for reason in Refusal::ALL {
        let count = totals.refused.by(reason);
        page.sample("pagewire_refused_total", &[("reason", reason.name())], count);
    }
}

fn handshakes(page: &mut Page, snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    page.counter("pagewire_tls_handshakes_total", "TLS handshakes done.", totals.handshakes);
    let resumed = "Those that resumed an earlier session.";
    page.counter("pagewire_tls_resumed_total", resumed, totals.resumed);
    let failed = &totals.failed_handshakes;
    // The reasons come up as clients do: a family without a sample would be none.
    if !failed.is_empty() {
        page.family("pagewire_tls_failed_total", "counter", "TLS handshakes that failed.");
    }
    for (reason, count) in failed {
        page.sample("pagewire_tls_failed_total", &[("reason", reason)], count);
    }
}

fn responses(page: &mut Page, snapshot: &Snapshot) {
    let totals = &snapshot.totals;
    page.family("pagewire_responses_total", "counter", "Responses ended, by class of status.");
    for (class, count) in CLASSES.iter().zip(snapshot.classes) {
        page.sample("pagewire_responses_total", &[("class", class)], count);
    }
    let aborted = "Responses cut short.";
    page.counter("pagewire_responses_aborted_total", aborted, totals.aborted);
    let in_flight = "Requests whose response has not ended.";
    page.gauge("pagewire_requests_in_flight", in_flight, totals.in_flight);
    page.histogram(
        "pagewire_first_byte_seconds",
        "From a request's head to the first byte of the response's body.",
        &snapshot.first_byte,
    );
    page.histogram(
        "pagewire_response_seconds",
        "From a request's head to the last byte of the response's body.",
        &snapshot.whole,
    );
    let lost = "Log lines that were not written.";
    page.counter("pagewire_log_lines_lost_total", lost, snapshot.log_lines_lost);
}

fn certificates(page: &mut Page, snapshot: &Snapshot) {
    if snapshot.certificates.is_empty() {
        return;
    }
    // Of several for one name, that which ends first.
    let mut ends = BTreeMap::new();
    for CertificateFacts { names, not_after, .. } in &snapshot.certificates {
        let name = names.first().map_or("", String::as_str);
        let end = ends.entry(name).or_insert(not_after);
        *end = not_after.min(*end);
    }
    let name = "pagewire_certificate_expiration_timestamp_seconds";
    page.family(name, "gauge", "End of a certificate's validity, in seconds since 1970.");
    for (first, end) in ends {
        page.sample(name, &[("name", first)], end.as_second());
    }
}

fn process(page: &mut Page, snapshot: &Snapshot) {
    let process = &snapshot.process;
    let seconds = process.processor_seconds;
    page.counter("process_cpu_seconds_total", "Processor time, user and system.", seconds);
    let started = snapshot.started_at;
    page.gauge("process_start_time_seconds", "Start, in seconds since 1970.", started);
    for (name, help, value) in [
        ("process_open_fds", "Open descriptors.", process.descriptors),
        ("process_max_fds", "Descriptors at most.", process.descriptors_max),
        ("process_resident_memory_bytes", "Memory in RAM.", process.resident_bytes),
    ] {
        if let Some(value) = value {
            page.gauge(name, help, value);
        }
    }
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        match labels.as_slice() {
            [] => self.line(format_args!("{name} {value}")),
            labels => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Times) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in BUCKETS.iter().zip(times.up_to) {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], times.count);
        self.sample(&format!("{name}_sum"), &[], times.seconds);
        self.sample(&format!("{name}_count"), &[], times.count);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }
}

/// Names of certificates are others' words.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
