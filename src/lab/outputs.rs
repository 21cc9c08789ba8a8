//! Where a report goes: tables on standard output, and the files that the command line names.

use std::fs::{File, OpenOptions, create_dir_all, read_to_string, write};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::flags::LabFlags;
use crate::lab::report::{Report, csv, html, pictures, text};

/// The files of a report, opened before anything is measured: ten minutes are not to be lost for
/// a missing folder.
#[derive(Debug)]
pub(crate) struct Outputs {
    json: Option<Output>,
    csv: Option<Output>,
    html: Option<Output>,
    svg: Option<PathBuf>,
}

#[derive(Debug)]
struct Output {
    file: File,
    path: PathBuf,
}

impl Outputs {
    /// Opens them. What they hold stays until there is something to write.
    pub(crate) fn open(flags: &LabFlags) -> anyhow::Result<Self> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        if let Some(dir) = &flags.svg {
            create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(Self {
            json: open(&flags.json)?,
            csv: open(&flags.csv)?,
            html: open(&flags.html)?,
            svg: flags.svg.clone(),
        })
    }

    /// Writes all of them. The files come first: a terminal may be gone.
    pub(crate) fn write(self, report: &Report) -> anyhow::Result<()> {
        report.check()?;
        if let Some(output) = self.json {
            output.write(report.to_json()?.as_bytes())?;
        }
        if let Some(output) = self.csv {
            output.write(&csv(report)?)?;
        }
        if let Some(output) = self.html {
            output.write(html(report)?.as_bytes())?;
        }
        for (name, picture) in self.svg.iter().flat_map(|_| pictures(report)) {
            let path = self.svg.clone().unwrap_or_default().join(name);
            write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        }
        // Takes the colours out where they are not wanted.
        let shown = anstream::stdout().write_all(text(report).as_bytes());
        shown.context("cannot print the report")
    }
}

impl Output {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    fn write(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        // A pipe has no length.
        let is_file = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(bytes));
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// The report that `--json` wrote to `path`.
pub(crate) fn read(path: &Path) -> anyhow::Result<Report> {
    let json = read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Report::from_json(&json).with_context(|| format!("cannot use {}", path.display()))
}
