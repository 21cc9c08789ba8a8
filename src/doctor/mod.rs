//! `pagewire doctor`: does a large file leave this host without a copy by the CPU, and if not,
//! why? `collect.rs` asks, `judge.rs` judges, `text.rs` shows it to a person.

mod collect;
mod device;
mod directory;
mod facts;
mod host;
mod judge;
mod report;
mod text;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::doctor::report::Report;
use crate::flags::DoctorFlags;

/// Of a question that makes no sense, as clap has it for one that cannot be parsed.
const USAGE: u8 = 2;
/// Lines are wrapped here where the output is no terminal.
const COLUMNS: usize = 100;

pub(crate) fn run(flags: &DoctorFlags) -> ExitCode {
    let report = match collect::collect(flags) {
        Ok(facts) => judge::judge(&facts, env!("CARGO_PKG_VERSION")),
        Err(error) => {
            eprintln!("pagewire: {error:#}");
            return USAGE.into();
        }
    };
    match print(&report, flags.json) {
        // Who stops reading has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("pagewire: cannot print what was found: {error}");
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => report.verdict.exit_status.into(),
    }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    // It drops the colours where the output is no terminal, and where NO_COLOR is set.
    let mut out = anstream::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        out.write_all(text::render(report, columns.unwrap_or(COLUMNS)).as_bytes())?;
    }
    out.flush()
}
