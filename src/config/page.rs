//! The part of docs/configuration.md that has every setting, from the flags: the page cannot lack
//! one, nor say something else than `--help`.

use std::fs;
use std::path::Path;

use clap::Arg;

use crate::config::file::Takes;
use crate::flags;

/// What of the page is above this line is written by hand.
const MARK: &str =
    "<!-- From here on made from the flags: UPDATE=1 cargo test --bin pagewire page -->\n";

#[test]
fn the_page_has_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let (by_hand, from_flags) = text.split_once(MARK).expect("the page has the mark");
    let expected = settings();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{by_hand}{MARK}{expected}")).unwrap();
    } else {
        let way_out = "the flags changed: UPDATE=1 cargo test --bin pagewire page";
        assert!(from_flags == expected, "{way_out}");
    }
}

fn settings() -> String {
    let of_sites = flags::site_keys();
    let is_of_site = |arg: &Arg| of_sites.get_arguments().any(|key| key.get_id() == arg.get_id());
    let keys = flags::keys();
    let (sites, server): (Vec<_>, Vec<_>) = keys.get_arguments().partition(|arg| is_of_site(arg));
    let mut text = "\n## Of the server\n".to_owned();
    server.iter().for_each(|arg| text += &setting(arg));
    text += "\n## Of each site\n";
    sites.iter().for_each(|arg| text += &setting(arg));
    text
}

fn setting(arg: &Arg) -> String {
    let key = arg.get_long().unwrap_or(arg.get_id().as_str());
    let values: Vec<&str> =
        arg.get_value_names().into_iter().flatten().map(|name| name.as_str()).collect();
    let value = values.join(" ");
    let (flag, form) = match (arg.get_long(), Takes::of(arg)) {
        (None, _) => (format!("`{value}`"), "text"),
        (Some(long), Takes::Nothing) => (format!("`--{long}`"), "true or false"),
        (Some(long), Takes::Count) => (format!("`--{long}`"), "number of times"),
        (Some(long), Takes::One) => (format!("`--{long} {value}`"), "one value"),
        (Some(long), Takes::Several) => (format!("`--{long} {value}`"), "one value, or a list"),
    };
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let defaults: Vec<_> =
        defaults.filter(|value| Takes::of(arg) != Takes::Nothing && value != "0").collect();
    let default = match defaults.as_slice() {
        [] => String::new(),
        some => format!(", default `{}`", some.join(", ")),
    };
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let paragraphs = help.split("\n\n").map(|paragraph| {
        let lines = paragraph.lines().flat_map(|line| textwrap::wrap(line, 110));
        let lines: Vec<String> = lines.map(|line| escaped(&line)).collect();
        lines.join("\n")
    });
    let help = paragraphs.collect::<Vec<_>>().join("\n\n");
    let variable = flags::variable(arg);
    format!("\n### {key}\n{flag}, `{variable}`; {form}{default}.\n\n{help}\n")
}

/// Without what Markdown would take for its own.
fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for letter in line.chars() {
        if "*_<[`\\".contains(letter) {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}
