//! One file an experiment: what is measured, in which turns, and what is made of it.

mod cold;
mod connections;
mod peers;
mod routes;
mod sizes;
mod steps;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::flags::Topic;
use crate::lab::files::FILLED_BYTES_MAX;
use crate::lab::load::Outcome;
use crate::lab::report::{Column, Experiment, Unit};
use crate::lab::samples::Samples;
use crate::lab::stage::Stage;

/// Runs one experiment. What was measured until an error is in the experiment as well.
pub(crate) fn run(topic: Topic, stage: &Stage<'_>) -> (Experiment, anyhow::Result<()>) {
    let started = Instant::now();
    stage.begin(topic);
    let mut experiment = Experiment { name: topic.name().to_owned(), ..Experiment::default() };
    let ended = match topic {
        Topic::Routes => routes::run(stage, &mut experiment),
        Topic::Sizes => sizes::run(stage, &mut experiment),
        Topic::Steps => steps::run(stage, &mut experiment),
        Topic::Cold => cold::run(stage, &mut experiment),
        Topic::Peers => peers::run(stage, &mut experiment),
        Topic::Connections => connections::run(stage, &mut experiment),
    };
    stage.clear();
    experiment.seconds = started.elapsed().as_secs_f64();
    (experiment, ended)
}

/// The most bytes on disk that the files of these experiments take together.
pub(crate) fn bytes_on_disk(topics: &[Topic], stage: &Stage<'_>) -> u64 {
    let shared =
        topics.iter().filter(|topic| **topic != Topic::Cold).flat_map(|topic| match topic {
            Topic::Routes => routes::sizes(stage),
            Topic::Sizes => sizes::sizes(stage),
            Topic::Steps => steps::sizes(stage),
            Topic::Peers => peers::sizes(stage),
            Topic::Connections | Topic::Cold => connections::sizes(stage),
        });
    let shared: BTreeSet<u64> = shared.filter(|bytes| *bytes <= FILLED_BYTES_MAX).collect();
    let cold = if topics.contains(&Topic::Cold) { cold::sizes(stage) } else { Vec::new() };
    shared.into_iter().chain(cold).sum()
}

const UNANSWERED: &str = "none ended in time";

/// The columns of whatever a load measures.
fn load_columns() -> Vec<Column> {
    vec![
        Column::new("requests_per_second", "requests", Unit::RequestsPerSecond),
        Column::new("rate_bytes_per_second", "rate", Unit::BytesPerSecond),
        Column::new("p50_us", "p50", Unit::Microseconds),
        Column::new("p99_us", "p99", Unit::Microseconds),
        Column::new("cpu_us_per_request", "CPU per request", Unit::Microseconds),
        Column::new("cpu_cs_per_gb", "CPU per GB", Unit::CentisecondsPerGigabyte),
    ]
}

/// Adds one outcome to a row that has the columns of `load_columns`.
fn add_load(samples: &mut Samples, keys: &[&str], outcome: &Outcome) {
    let rate = (outcome.requests > 0).then(|| outcome.rate());
    samples.add_or(keys, "requests_per_second", rate, UNANSWERED);
    samples.add(keys, "rate_bytes_per_second", outcome.bytes_per_second());
    for (column, part) in [("p50_us", 0.5), ("p99_us", 0.99)] {
        let latency = (outcome.requests > 0).then(|| outcome.latency(part) * 1e6);
        samples.add_or(keys, column, latency, UNANSWERED);
    }
    let per_request = outcome.cpu_seconds_per_request().map(|seconds| seconds * 1e6);
    samples.add_or(keys, "cpu_us_per_request", per_request, UNANSWERED);
    let per_gb = outcome.cpu_seconds_per_gb().map(|seconds| seconds * 100.0);
    samples.add_or(keys, "cpu_cs_per_gb", per_gb, UNANSWERED);
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
