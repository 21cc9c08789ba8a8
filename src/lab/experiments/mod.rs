//! One file an experiment: what is measured, in which turns, and what is made of it.

mod peers;

use std::time::Instant;

use crate::flags::Topic;
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
        Topic::Peers => peers::run(stage, &mut experiment),
        _ => Err(anyhow::anyhow!("not there yet")),
    };
    stage.clear();
    experiment.seconds = started.elapsed().as_secs_f64();
    (experiment, ended)
}

/// Bytes on disk that an experiment needs beside what others have made.
pub(crate) fn bytes(topic: Topic, stage: &Stage<'_>) -> u64 {
    match topic {
        Topic::Peers => peers::sizes(stage).iter().sum(),
        _ => 0,
    }
}

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
    samples.add(keys, "requests_per_second", outcome.rate());
    samples.add(keys, "rate_bytes_per_second", outcome.bytes_per_second());
    samples.add(keys, "p50_us", outcome.latency(0.5) * 1e6);
    samples.add(keys, "p99_us", outcome.latency(0.99) * 1e6);
    let per_request = outcome.cpu_seconds_per_request().map(|seconds| seconds * 1e6);
    samples.add_some(keys, "cpu_us_per_request", per_request);
    let per_gb = outcome.cpu_seconds_per_gb().map(|seconds| seconds * 100.0);
    samples.add_some(keys, "cpu_cs_per_gb", per_gb);
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
