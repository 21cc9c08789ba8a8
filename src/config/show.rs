//! The configuration in effect, as a file that would make it so, each line with where its value
//! came from. PURE.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{Arg, Args};
use toml::Value;

use crate::config::file::{Setting, Site, Takes};
use crate::config::{Config, is_said};
use crate::flags::{self, TlsFlags};

impl Config {
    /// As TOML; flags that have no value are comments.
    pub(crate) fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        for arg in flags::keys().get_arguments() {
            let name = key_of(arg);
            let origin = self.origin(arg);
            match self.value(arg) {
                Some(value) => lines.push((format!("{name} = {value}"), origin)),
                None => lines.push((format!("# {name} ="), "not set".to_owned())),
            }
        }
        let mut text = aligned(&lines);
        for site in &self.file.sites {
            write!(text, "\n[[site]]\n{}", self.site(site))
                .expect("writing to a String does not fail");
        }
        text
    }

    /// Those keys that a running server cannot change, and their values.
    pub(crate) fn fixed(&self) -> BTreeMap<String, Option<String>> {
        let changeable = flags::site_keys();
        let of_site =
            |arg: &Arg| changeable.get_arguments().any(|key| key.get_id() == arg.get_id());
        // Listeners come and go, and certificates with them.
        let listeners = TlsFlags::augment_args(clap::Command::new("listeners"));
        let of_listeners = |arg: &Arg| {
            arg.get_id() == "listen"
                || listeners.get_arguments().any(|key| key.get_id() == arg.get_id())
        };
        let keys = flags::keys();
        let fixed = keys.get_arguments().filter(|arg| !of_site(arg) && !of_listeners(arg));
        fixed.map(|arg| (key_of(arg), self.value(arg))).collect()
    }

    fn value(&self, arg: &Arg) -> Option<String> {
        let id = arg.get_id().as_str();
        let values = || self.matches.get_raw(id).into_iter().flatten();
        let mut values = values().map(|value| value.to_string_lossy().into_owned());
        match Takes::of(arg) {
            Takes::Nothing => Some(Value::Boolean(self.matches.get_flag(id)).to_string()),
            Takes::Count => Some(self.matches.get_count(id).to_string()),
            Takes::Several => {
                let values: Vec<Value> = values.map(Value::String).collect();
                (!values.is_empty()).then(|| Value::Array(values).to_string())
            }
            Takes::One => values.next().map(|value| match value.parse() {
                Ok(number) => Value::Integer(number).to_string(),
                Err(_) => Value::String(value).to_string(),
            }),
        }
    }

    fn origin(&self, arg: &Arg) -> String {
        let id = arg.get_id().as_str();
        match (self.matches.value_source(id), self.file.settings.get(id)) {
            (Some(ValueSource::EnvVariable), _) => flags::variable(arg),
            // The file's settings are put before the command line.
            (Some(ValueSource::CommandLine), Some(setting)) if !is_said(&self.given, id) => {
                self.line_of(setting)
            }
            (Some(ValueSource::CommandLine), _) => "command line".to_owned(),
            (_, Some(setting)) => self.line_of(setting),
            _ => "default".to_owned(),
        }
    }

    fn line_of(&self, setting: &Setting) -> String {
        let path = self.path.as_deref().map(|path| path.display().to_string());
        format!("{}:{}", path.unwrap_or_default(), setting.place.line)
    }

    /// What a site says itself.
    fn site(&self, site: &Site) -> String {
        let strings = |values: Vec<String>| {
            Value::Array(values.into_iter().map(Value::String).collect()).to_string()
        };
        let path = self.path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let at = |line: usize| format!("{path}:{line}");
        let mut lines = Vec::new();
        if let Some((_, place)) = site.hosts.first() {
            let hosts = site.hosts.iter().map(|(host, _)| host.clone()).collect();
            lines.push((format!("host = {}", strings(hosts)), at(place.line)));
        }
        if let Some((path, place)) = &site.path {
            lines.push((format!("path = {}", Value::String(path.clone())), at(place.line)));
        }
        for arg in flags::site_keys().get_arguments() {
            let Some(setting) = site.settings.get(arg.get_id().as_str()) else { continue };
            let prefix = format!("--{}=", setting.key);
            let values = setting.arguments.iter().map(|argument| {
                let argument = argument.to_string_lossy();
                argument.strip_prefix(&prefix).unwrap_or(&argument).to_owned()
            });
            let values: Vec<String> = values.collect();
            let value = match Takes::of(arg) {
                Takes::Several => strings(values),
                Takes::One => Value::String(values.concat()).to_string(),
                Takes::Count => values.len().to_string(),
                Takes::Nothing => (!values.is_empty()).to_string(),
            };
            lines.push((format!("{} = {value}", setting.key), self.line_of(setting)));
        }
        aligned(&lines)
    }
}

fn key_of(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

fn aligned(lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    let width = width.min(60);
    let mut text = String::new();
    for (line, origin) in lines {
        writeln!(text, "{line:width$}  # {origin}").expect("writing to a String does not fail");
    }
    text
}
