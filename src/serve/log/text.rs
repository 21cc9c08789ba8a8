//! The line for people, as the tests read it. PURE.

use http::Version;
use jiff::Timestamp;
use pagewire_http::Exchange;

use super::escape::{quoted, word};
use super::route;

/// The line of one exchange: time, peer, method, target, status, bytes sent / due, complete or
/// aborted and why, route, user copies, system calls, what was spoken if it is not HTTP/1.1 without
/// TLS, seconds, rate.
pub(crate) fn line(exchange: &Exchange) -> String {
    let Exchange { peer, method, target, status, body, .. } = exchange;
    let target = word(target.to_string().as_bytes());
    let at = Timestamp::try_from(exchange.at).unwrap_or_default();
    let total = body.report.tally.total();
    let outcome = match &body.cut_short {
        None => "complete".to_owned(),
        Some(reason) => format!("aborted \"{}\"", quoted(reason.as_bytes())),
    };
    let step_downs = match body.report.tally.step_downs() {
        0 => String::new(),
        step_downs => format!(" step-downs={step_downs}"),
    };
    let cold = match body.report.tally.cold().bytes {
        0 => String::new(),
        bytes => format!(" cold={bytes}"),
    };
    let spoken = match exchange.version {
        // What nearly all are.
        Version::HTTP_11 => String::new(),
        version => format!(" version={version:?}"),
    };
    let tls = exchange.tls.map(|tls| format!(" tls={},{}", tls.version, tls.cipher));
    let seconds = body.report.elapsed.as_secs_f64();
    format!(
        "{at:.3} {peer} {method} {target} {status} {sent}/{due} {outcome} route={route} \
         user-copied={copied} calls={calls}{step_downs}{cold}{spoken}{tls} {seconds:.3}s {rate}\n",
        status = status.as_u16(),
        sent = total.bytes,
        due = body.due,
        route = route(body),
        copied = total.user_copied_bytes,
        calls = total.calls,
        tls = tls.unwrap_or_default(),
        rate = rate(total.bytes, seconds),
    )
}

fn rate(bytes: u64, seconds: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    let rate = bytes as f64 / seconds;
    match rate {
        rate if !rate.is_finite() || bytes == 0 => "-".to_owned(),
        rate if rate >= 1e9 => format!("{:.2}GB/s", rate / 1e9),
        rate if rate >= 1e6 => format!("{:.1}MB/s", rate / 1e6),
        rate => format!("{:.1}kB/s", rate / 1e3),
    }
}
