//! Where a report goes: standard output, and the files that were asked for. These are opened
//! before anything is measured: ten minutes are not to be lost for a missing folder.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::flags::LabFlags;
use crate::lab::report::{Report, csv, html, pictures, text};

#[derive(Debug)]
pub(crate) struct Outputs {
    json: Option<Output>,
    csv: Option<Output>,
    html: Option<Output>,
    svg: Option<PathBuf>,
}

impl Outputs {
    /// Makes the files, empty.
    pub(crate) fn open(flags: &LabFlags) -> anyhow::Result<Self> {
        let open = |path: Option<&Path>| path.map(Output::open).transpose();
        if let Some(folder) = &flags.svg {
            let failed = || format!("cannot make the folder {}", folder.display());
            fs::create_dir_all(folder).with_context(failed)?;
        }
        Ok(Self {
            json: open(flags.json.as_deref())?,
            csv: open(flags.csv.as_deref())?,
            html: open(flags.html.as_deref())?,
            svg: flags.svg.clone(),
        })
    }

    /// Shows the report, and writes it to the files.
    pub(crate) fn write(self, report: &Report) -> anyhow::Result<()> {
        report.check()?;
        if let Some(json) = self.json {
            json.write(report.to_json()?.as_bytes())?;
        }
        if let Some(file) = self.csv {
            file.write(&csv(report)?)?;
        }
        if let Some(page) = self.html {
            page.write(html(report)?.as_bytes())?;
        }
        if let Some(folder) = self.svg {
            for (name, picture) in pictures(report) {
                Output::open(&folder.join(name))?.write(picture.as_bytes())?;
            }
        }
        // Takes the colours out where they are not wanted.
        let shown = anstream::stdout().write_all(text(report).as_bytes());
        shown.context("cannot print the report")
    }
}

/// A report that an earlier run wrote.
pub(crate) fn read(path: &Path) -> anyhow::Result<Report> {
    let json = fs::read_to_string(path);
    let json = json.with_context(|| format!("cannot read {}", path.display()))?;
    Report::from_json(&json).with_context(|| format!("cannot use {}", path.display()))
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(mut self, content: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(content);
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}
