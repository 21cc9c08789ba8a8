//! PURE: the report for a person, coloured. The verdict comes last, where the prompt is.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::doctor::report::{Answer, Check, ChosenBy, Group, Report, State, WayReport};

/// Of the mark and the name, before what is said of them.
const MARGIN: usize = 29;
/// Text is not squeezed into less, however narrow the terminal.
const TEXT_COLUMNS_MIN: usize = 40;

pub(crate) fn render(report: &Report, columns: usize) -> String {
    let mut out = String::new();
    let mut group = None;
    for check in &report.checks {
        if group.replace(check.group) != Some(check.group) {
            let bold = Style::new().bold();
            line(&mut out, &format!("{bold}{}{bold:#}", title(check.group, report)));
        }
        line(&mut out, row(check, columns).trim_end());
    }
    let style = match report.verdict.answer {
        Answer::Yes => AnsiColor::Green.on_default().bold(),
        Answer::No => AnsiColor::Red.on_default().bold(),
        Answer::Unproven => AnsiColor::Yellow.on_default().bold(),
    };
    line(&mut out, &format!("{style}{}{style:#}", report.verdict.line));
    out
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}

fn title(group: Group, report: &Report) -> String {
    let directory = &report.directory;
    match group {
        Group::Routes => {
            format!("routes from {} to a socket, measured now on loopback", directory.path)
        }
        Group::Directory => format!("directory {}", directory.path),
        Group::Device => way(&report.way),
        Group::Kernel => "kernel".to_owned(),
        Group::Host => "host and user".to_owned(),
    }
}

fn way(way: &WayReport) -> String {
    let device = &way.device;
    match (way.chosen_by, &way.to, &way.address) {
        (ChosenBy::To, Some(to), Some(address)) => format!("way to {to} ({address}): {device}"),
        (ChosenBy::Internet, ..) => {
            format!("way to the internet: {device} (--to HOST:PORT or --device DEV for others)")
        }
        (ChosenBy::NoWayOut, ..) => {
            format!("no way leads to the internet: {device} (--to HOST:PORT for others)")
        }
        _ => format!("device {device}, as its features are told"),
    }
}

fn row(check: &Check, columns: usize) -> String {
    let (mark, style) = match check.state {
        State::Good => ("ok", AnsiColor::Green.on_default()),
        State::Info => ("-", Style::new()),
        State::Note => ("note", AnsiColor::Yellow.on_default()),
        State::Bad => ("BAD", AnsiColor::Red.on_default().bold()),
        State::Unknown => ("?", AnsiColor::Yellow.on_default()),
    };
    let name = match &check.device {
        Some(device) => format!("{device} {}", check.id),
        None => check.id.to_owned(),
    };
    let mut text = format!("{}: {}", check.value, check.meaning);
    if let Some(advice) = &check.advice {
        text = format!("{text}\n-> {advice}");
    }
    let width = columns.saturating_sub(MARGIN).max(TEXT_COLUMNS_MIN);
    let wrapped = textwrap::wrap(&text, width).join(&format!("\n{:MARGIN$}", ""));
    let name_columns = MARGIN - 8;
    format!("  {style}{mark:<4}{style:#} {name:<name_columns$} {wrapped}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_wrapped_beside_its_name() {
        let check = Check::new(Group::Device, "checksum", State::Bad, "off").of_device("eth0");
        let check = check.meaning("one two three four five six seven").advice("do it");
        let plain = anstream::adapter::strip_str(&row(&check, 0)).to_string();
        let margin = " ".repeat(MARGIN);
        let expected = [
            "  BAD  eth0 checksum         off: one two three four five six seven\n",
            &format!("{margin}-> do it"),
        ];
        assert_eq!(plain, expected.concat());
        let longest = plain.lines().map(str::len).max().unwrap();
        assert!(longest <= MARGIN + TEXT_COLUMNS_MIN, "{plain}");
    }
}
