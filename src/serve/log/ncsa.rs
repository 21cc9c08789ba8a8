//! NCSA Common Log Format, and combined, as Apache and nginx write them. PURE.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pagewire_http::Exchange;

use super::escape::quoted;

/// Whether a line has Referer and User-Agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    Left,
    Named,
}

/// `host - user [time] "request" status bytes`, and with `Named` ` "referer" "user agent"`.
/// `bytes` are those of the body that the socket accepted, `-` for none.
pub(crate) fn line(exchange: &Exchange, agent: Agent) -> String {
    let Exchange { peer, method, target, version, status, body, .. } = exchange;
    let at = Timestamp::try_from(exchange.at).unwrap_or_default().to_zoned(TimeZone::UTC);
    let user = exchange.user.as_deref().map_or("-".to_owned(), |user| quoted(user.as_bytes()));
    let bytes = match body.report.tally.total().bytes {
        0 => "-".to_owned(),
        bytes => bytes.to_string(),
    };
    let mut line = format!(
        "{host} - {user} [{at}] \"{method} {target} {version:?}\" {status} {bytes}",
        host = peer.ip().map_or("-".to_owned(), |ip| ip.to_string()),
        at = at.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        target = quoted(target.to_string().as_bytes()),
        status = status.as_u16(),
    );
    if agent == Agent::Named {
        let agent = exchange.agent.as_deref();
        let said = |value: Option<&http::HeaderValue>| {
            value.map_or("-".to_owned(), |value| quoted(value.as_bytes()))
        };
        let referer = said(agent.and_then(|agent| agent.referer.as_ref()));
        let user_agent = said(agent.and_then(|agent| agent.user_agent.as_ref()));
        line.push_str(&format!(" \"{referer}\" \"{user_agent}\""));
    }
    line.push('\n');
    line
}
