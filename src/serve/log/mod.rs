//! The access log: one line a response, in the format that was asked for. `writer.rs` writes
//! them; the formats are PURE.

mod escape;
mod json;
mod ncsa;
mod text;
mod writer;

use clap::ValueEnum;
use pagewire_engine::{Outcome, Route};
use pagewire_http::Exchange;

pub(crate) use writer::{LineSender, LineWriter, LogOut};

/// How a response is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people: what was sent, how it ended, by which route
    Text,
    /// One JSON object a line, with everything that is known
    Json,
    /// NCSA Common Log Format
    Common,
    /// The same with Referer and User-Agent
    Combined,
    /// No lines
    Off,
}

impl LogFormat {
    /// Whether its lines tell what browsers say of themselves.
    pub(crate) fn names_agents(self) -> bool {
        matches!(self, Self::Json | Self::Combined)
    }

    /// The line of one exchange, with its end of line; `None` where there are none.
    pub(crate) fn line(self, exchange: &Exchange) -> Option<String> {
        match self {
            Self::Text => Some(text::line(exchange)),
            Self::Json => Some(json::line(exchange)),
            Self::Common => Some(ncsa::line(exchange, ncsa::Agent::Left)),
            Self::Combined => Some(ncsa::line(exchange, ncsa::Agent::Named)),
            Self::Off => None,
        }
    }
}

/// The route of a body's bytes, or the routes.
pub(crate) fn route(body: &Outcome) -> String {
    let tally = &body.report.tally;
    let taken: Vec<_> = tally.routes_taken().map(Route::name).collect();
    match taken.as_slice() {
        [] if tally.plain().bytes > 0 => "plain".to_owned(),
        [] => "-".to_owned(),
        taken => taken.join("+"),
    }
}
