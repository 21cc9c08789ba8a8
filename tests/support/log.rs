//! Reads what `pagewire serve` writes: one log line per response, and the totals at the end.

use std::collections::BTreeMap;

/// How a response ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Complete,
    Aborted(String),
}

/// One line of the server's stderr.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    pub(crate) peer: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) sent: u64,
    pub(crate) due: u64,
    pub(crate) outcome: Outcome,
    pub(crate) route: String,
    pub(crate) user_copied: u64,
    pub(crate) calls: u64,
    pub(crate) step_downs: u64,
    /// Bytes that had to be brought into the page cache first.
    pub(crate) cold: u64,
}

impl LogLine {
    /// `None` for a line that is not about a response.
    pub(crate) fn parse(line: &str) -> Option<LogLine> {
        let mut words = line.splitn(7, ' ');
        let (_time, peer) = (words.next()?, words.next()?);
        let (method, target) = (words.next()?, words.next()?);
        let status = words.next()?.parse().ok()?;
        let (sent, due) = words.next()?.split_once('/')?;
        let (outcome, meter) = parse_outcome(words.next()?)?;
        let meter: BTreeMap<&str, &str> =
            meter.split(' ').filter_map(|word| word.split_once('=')).collect();
        let count = |name: &str| meter.get(name)?.parse().ok();
        Some(LogLine {
            peer: peer.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            status,
            sent: sent.parse().ok()?,
            due: due.parse().ok()?,
            outcome,
            route: (*meter.get("route")?).to_owned(),
            user_copied: count("user-copied")?,
            calls: count("calls")?,
            step_downs: count("step-downs").unwrap_or(0),
            cold: count("cold").unwrap_or(0),
        })
    }

    /// The reason of an abort; panics on a complete response.
    #[track_caller]
    pub(crate) fn reason(&self) -> &str {
        match &self.outcome {
            Outcome::Aborted(reason) => reason,
            Outcome::Complete => panic!("is complete, not aborted: {self:?}"),
        }
    }

    /// Panics unless all of `len` bytes were sent.
    #[track_caller]
    pub(crate) fn assert_complete(&self, len: u64) {
        assert_eq!(self.outcome, Outcome::Complete, "{self:?}");
        assert_eq!((self.sent, self.due), (len, len), "{self:?}");
    }
}

fn parse_outcome(rest: &str) -> Option<(Outcome, &str)> {
    if let Some(meter) = rest.strip_prefix("complete ") {
        return Some((Outcome::Complete, meter));
    }
    let (reason, meter) = rest.strip_prefix("aborted \"")?.rsplit_once("\" ")?;
    Some((Outcome::Aborted(reason.to_owned()), meter))
}

/// What one route moved, by the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) calls: u64,
    pub(crate) user_copied: u64,
}

/// What had to be brought into the page cache first, by the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cold {
    pub(crate) bytes: u64,
    pub(crate) waits: u64,
}

/// The totals at the end of the server's stdout.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) responses: u64,
    pub(crate) aborted: u64,
    pub(crate) connections: u64,
    pub(crate) routes: BTreeMap<String, Moved>,
    pub(crate) step_downs: u64,
    pub(crate) cold: Cold,
}

impl Totals {
    /// `None` when the totals are not among `lines`, or not whole.
    pub(crate) fn parse(lines: &[String]) -> Option<Totals> {
        let start = lines.iter().position(|line| line.starts_with("totals: "))?;
        let [responses, aborted, connections] = *numbers(&lines[start]) else {
            return None;
        };
        let rows = &lines[start + 1..];
        let routes = rows.iter().filter_map(|row| route_row(row)).collect();
        let row = |name| rows.iter().find(|row| row.trim_start().starts_with(name));
        let [step_downs] = *numbers(row("step-downs")?) else {
            return None;
        };
        let [bytes, waits] = *numbers(row("cold")?) else {
            return None;
        };
        let cold = Cold { bytes, waits };
        Some(Totals { responses, aborted, connections, routes, step_downs, cold })
    }
}

fn route_row(row: &str) -> Option<(String, Moved)> {
    let name = row.split_whitespace().next()?;
    let [bytes, calls, user_copied] = *numbers(row) else {
        return None;
    };
    Some((name.to_owned(), Moved { bytes, calls, user_copied }))
}

fn numbers(line: &str) -> Box<[u64]> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
