//! A response as one JSON object on one line. PURE.

use http::HeaderValue;
use jiff::Timestamp;
use pagewire_http::Exchange;
use serde::Serialize;

use super::{escape, route};

/// Its fields are documented in docs/observing.md.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    method: &'a str,
    target: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cipher: Option<&'a str>,
    status: u16,
    sent: u64,
    due: u64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    aborted: Option<&'a str>,
    route: String,
    user_copied: u64,
    calls: u64,
    step_downs: u64,
    cold_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_seconds: Option<f64>,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
}

pub(crate) fn line(exchange: &Exchange) -> String {
    let Exchange { peer, method, target, version, status, body, user, .. } = exchange;
    let at = Timestamp::try_from(exchange.at).unwrap_or_default();
    let tally = &body.report.tally;
    let total = tally.total();
    let agent = exchange.agent.as_deref();
    // What is not UTF-8 shows as U+FFFD.
    let said = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let line = Line {
        time: format!("{at:.3}"),
        peer: peer.to_string(),
        user: user.as_deref(),
        method: method.as_str(),
        target: target.to_string(),
        version: format!("{version:?}"),
        tls_version: exchange.tls.map(|tls| tls.version),
        tls_cipher: exchange.tls.map(|tls| tls.cipher),
        status: status.as_u16(),
        sent: total.bytes,
        due: body.due,
        complete: body.cut_short.is_none(),
        aborted: body.cut_short.as_deref(),
        route: route(body),
        user_copied: total.user_copied_bytes,
        calls: total.calls,
        step_downs: tally.step_downs(),
        cold_bytes: tally.cold().bytes,
        first_byte_seconds: body.first_byte.map(|first| first.as_secs_f64()),
        seconds: body.report.elapsed.as_secs_f64(),
        user_agent: agent.and_then(|agent| agent.user_agent.as_ref()).map(said),
        referer: agent.and_then(|agent| agent.referer.as_ref()).map(said),
    };
    let text = serde_json::to_string(&line).expect("strings and numbers are always JSON");
    escape::json(&text) + "\n"
}
