//! PURE: from facts to the report. The verdict is yes when the route that large files take passes
//! pages by reference, and every device on the way takes them so.

use std::io;

use crate::doctor::facts::Facts;
use crate::doctor::report::{Answer, Check, Reason, Report, VERSION, Verdict};
use crate::doctor::{device, directory, host};

/// What the parts found, in the order in which it is shown.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) checks: Vec<Check>,
    /// Why large files are copied.
    pub(crate) copied: Vec<Reason>,
    /// Why it is not known whether they are.
    pub(crate) unproven: Vec<Reason>,
}

/// `pagewire`: the version of this program.
pub(crate) fn judge(facts: &Facts, pagewire: &'static str) -> Report {
    let mut findings = Findings::default();
    let routes = directory::judge_routes(&facts.directory, &mut findings);
    let directory = directory::judge(&facts.directory, &mut findings);
    let way = device::judge(&facts.way, &mut findings);
    host::judge(facts, &mut findings);
    let is_loopback = facts.way.layers.first().is_some_and(|(top, _)| top.device.is_loopback);
    let by = if is_loopback { "loopback" } else { &way.device };
    let leave = format!("large files of {} leave by {by}", directory.path);
    let Findings { checks, copied, unproven } = findings;
    Report {
        version: VERSION,
        pagewire,
        verdict: verdict(&leave, copied, unproven),
        directory,
        routes,
        way,
        checks,
    }
}

/// Why the kernel said no, if it did.
pub(crate) fn answer(found: &io::Result<()>) -> Option<&io::Error> {
    found.as_ref().err()
}

fn verdict(leave: &str, copied: Vec<Reason>, unproven: Vec<Reason>) -> Verdict {
    let (answer, line, reasons) = if !copied.is_empty() {
        let line = format!("NO: {leave} with a copy by the CPU: {}", explained(&copied));
        (Answer::No, line, [copied, unproven].concat())
    } else if !unproven.is_empty() {
        let line = format!("NOT PROVEN: whether {leave} without a copy: {}", explained(&unproven));
        (Answer::Unproven, line, unproven)
    } else {
        let line = format!("YES: {leave} without a copy by the CPU");
        (Answer::Yes, line, Vec::new())
    };
    Verdict { answer, line, reasons, exit_status: u8::from(answer != Answer::Yes) }
}

fn explained(reasons: &[Reason]) -> String {
    let whats: Vec<&str> = reasons.iter().map(|reason| reason.what.as_str()).collect();
    let fixes: Vec<&str> = reasons.iter().filter_map(|reason| reason.fix.as_deref()).collect();
    let todo = if fixes.is_empty() { String::new() } else { format!(" -> {}", fixes.join("; ")) };
    format!("{}{todo}", whats.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(what: &str, fix: Option<&str>) -> Reason {
        Reason { what: what.to_owned(), fix: fix.map(str::to_owned) }
    }

    #[test]
    fn a_copy_that_is_known_weighs_more_than_what_is_not_known() {
        let copied = || vec![reason("eth0: sg off", Some("ethtool -K eth0 sg on"))];
        let unproven = || vec![reason("not measured", None)];
        for (copied, unproven, answer, exit_status, line) in [
            (vec![], vec![], Answer::Yes, 0, "YES: files leave without a copy by the CPU"),
            (
                vec![],
                unproven(),
                Answer::Unproven,
                1,
                "NOT PROVEN: whether files leave without a copy: not measured",
            ),
            (
                copied(),
                unproven(),
                Answer::No,
                1,
                "NO: files leave with a copy by the CPU: eth0: sg off -> ethtool -K eth0 sg on",
            ),
        ] {
            let count = copied.len() + unproven.len();
            let verdict = verdict("files leave", copied, unproven);
            assert_eq!((verdict.answer, verdict.exit_status), (answer, exit_status));
            assert_eq!(verdict.line, line);
            assert_eq!(verdict.reasons.len(), count, "{verdict:?}");
        }
    }
}
