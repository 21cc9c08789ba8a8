//! `pagewire lab`: experiments, and the report that shows what they measured.
//! Here: what is run, what is written, and how it ends.

mod disk_limit;
mod experiments;
mod files;
mod load;
mod machine;
mod netns;
mod outputs;
mod passage;
mod peers;
mod place;
mod process;
mod report;
mod samples;
mod server;
mod stage;
mod stop;
mod trace;
mod veth;

use std::ffi::OsString;
use std::io::Write;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use jiff::Timestamp;
use pagewire_http::raise_descriptor_limit;

use crate::flags::{LabFlags, Topic};
use crate::lab::outputs::Outputs;
use crate::lab::report::{Experiment, Report, SCHEMA};
use crate::lab::stage::Stage;
use crate::lab::stop::{Stop, Stopped};

pub(crate) fn run(flags: &LabFlags) -> anyhow::Result<()> {
    if flags.show_config {
        let shown = peers::shown()?;
        return std::io::stdout().write_all(shown.as_bytes()).context("cannot print");
    }
    if let Some(kept) = &flags.from {
        let report = outputs::read(kept)?;
        return Outputs::open(flags)?.write(&report);
    }
    let topics = topics(flags);
    check_peers(flags)?;
    raise_descriptor_limit().context("cannot raise the limit of open descriptors")?;
    let stage = Stage::set(flags, Stop::catch()?)?;
    stage.files.check_room(experiments::bytes_on_disk(&topics, &stage))?;
    let outputs = Outputs::open(flags)?;
    let report = measure(&topics, &stage);
    let faults = stage.faults();
    // Its files are of no use any more, whatever becomes of the report.
    drop(stage);
    let report = report?;
    outputs.write(&report)?;
    match faults.as_slice() {
        _ if report.interrupted => bail!("interrupted; what was measured until then is shown"),
        [] => Ok(()),
        faults => bail!("not all was measured: {}", faults.join("; ")),
    }
}

/// Those of the command line, or all, each once.
fn topics(flags: &LabFlags) -> Vec<Topic> {
    let mut topics = match flags.experiments.as_slice() {
        [] => Topic::value_variants(),
        chosen => chosen,
    }
    .to_owned();
    let mut seen = Vec::new();
    topics.retain(|topic| {
        !seen.contains(topic) && {
            seen.push(*topic);
            true
        }
    });
    topics
}

/// Who asks for a comparison with peers wants to know at once that there are none.
fn check_peers(flags: &LabFlags) -> anyhow::Result<()> {
    ensure!(
        !flags.experiments.contains(&Topic::Peers) || !peers::Peer::found().is_empty(),
        "no peer found on the PATH; install one of: {}",
        peers::names()
    );
    Ok(())
}

fn measure(topics: &[Topic], stage: &Stage<'_>) -> anyhow::Result<Report> {
    let started = Instant::now();
    let mut report = Report {
        schema: SCHEMA,
        pagewire: env!("CARGO_PKG_VERSION").to_owned(),
        command: command(),
        started: Timestamp::now().to_string(),
        seconds: 0.0,
        interrupted: false,
        machine: machine::machine(stage.files.path()),
        experiments: Vec::new(),
    };
    for topic in topics {
        let (mut experiment, ended) = experiments::run(*topic, stage);
        add_notes(&mut experiment);
        if let Err(error) = ended {
            report.interrupted = error.is::<Stopped>();
            if !report.interrupted {
                let error = stage.fault(error.context(format!("{} ended early", topic.name())));
                experiment.notes.push(error);
            }
        }
        report.experiments.push(experiment);
        if report.interrupted {
            break;
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// What must be known of every figure of this run.
fn add_notes(experiment: &mut Experiment) {
    if cfg!(debug_assertions) {
        let note = "measured with a debug build: figures of pagewire mean little";
        experiment.notes.push(note.to_owned());
    }
}

/// What was typed, without the folder of the program.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(OsString::into_string);
    let words = words.map(|word| word.unwrap_or_else(|word| word.to_string_lossy().into_owned()));
    ["pagewire".to_owned()].into_iter().chain(words.map(quoted)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
