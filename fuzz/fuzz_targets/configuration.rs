//! Any text as a configuration file: read, or refused at a place that it has.
#![no_main]

#[path = "../../src/config/file.rs"]
#[expect(dead_code, reason = "the program shows what this only reads")]
mod file;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{Arg, ArgAction, Command, value_parser};
use libfuzzer_sys::fuzz_target;

/// A flag of each form that the program's can have.
static KEYS: LazyLock<Command> = LazyLock::new(|| {
    SITE_KEYS
        .clone()
        .arg(Arg::new("listen").long("listen").action(ArgAction::Append).value_delimiter(','))
        .arg(Arg::new("threads").long("threads").value_parser(value_parser!(u16)))
        .arg(Arg::new("verbose").long("verbose").action(ArgAction::Count))
        .arg(Arg::new("file").long("file").value_parser(value_parser!(PathBuf)))
});

static SITE_KEYS: LazyLock<Command> = LazyLock::new(|| {
    Command::new("pagewire")
        .arg(Arg::new("root").value_parser(value_parser!(PathBuf)))
        .arg(Arg::new("hidden").long("hidden").action(ArgAction::SetTrue))
        .arg(Arg::new("spa").long("spa").num_args(0..=1).require_equals(true))
});

fuzz_target!(|text: &str| {
    match file::read(text, Path::new("/etc"), &KEYS, &SITE_KEYS) {
        Ok(file) => {
            let settings = file.settings.values();
            let arguments = settings.filter(|setting| !setting.positional);
            let arguments = arguments.flat_map(|setting| &setting.arguments);
            let line = std::iter::once("pagewire".into()).chain(arguments.cloned());
            KEYS.clone().try_get_matches_from(line).expect("each of them was right by itself");
        }
        Err(error) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&error.place.line), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
});
