//! A configuration file as the command line that it stands for. PURE: the text and the table of
//! flags in, settings with their places out, or what is wrong and where. Reads no file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, ValueHint};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The tables of a file, not yet put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// Its keys above all tables.
    pub(crate) settings: Settings,
    pub(crate) sites: Vec<Site>,
}

/// What keys say, by the ids of their flags.
pub(crate) type Settings = BTreeMap<String, Setting>;

/// One `[[site]]`.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) place: Place,
    pub(crate) hosts: Vec<(String, Place)>,
    pub(crate) path: Option<(String, Place)>,
    pub(crate) settings: Settings,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) place: Place,
    /// As the command line has it; nothing for a flag that is not given.
    pub(crate) arguments: Vec<OsString>,
    /// The arguments are values without a flag's name.
    pub(crate) positional: bool,
    /// Files and directories that the values name, where they do.
    pub(crate) paths: Vec<PathBuf>,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// In a file, whether it is given.
    Nothing,
    /// The same; in a file, how often.
    Count,
    One,
    Several,
}

impl Takes {
    pub(crate) fn of(arg: &Arg) -> Self {
        let action = arg.get_action();
        if matches!(action, ArgAction::Count) {
            Self::Count
        } else if matches!(action, ArgAction::Append) {
            Self::Several
        } else if action.takes_values() {
            Self::One
        } else {
            Self::Nothing
        }
    }
}

/// From 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    /// In characters.
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {}", one_line(fault))]
pub(crate) struct FileError {
    pub(crate) place: Place,
    pub(crate) fault: Fault,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Syntax(String),
    #[error("unknown key '{key}'{}", similar.as_deref().map(similar_key).unwrap_or_default())]
    UnknownKey { key: String, similar: Option<String> },
    #[error("'{key}' is said above, outside of [[site]]: it is not a site's own")]
    NotOfSite { key: String },
    #[error("'{key}' takes {expected}, not {found}")]
    Kind { key: String, expected: &'static str, found: String },
    #[error("invalid value '{value}' for '{key}'{problem}")]
    Value { key: String, value: String, problem: String },
    #[error("{0}")]
    Place(String),
}

/// Keys and values may hold anything, and the log is read line by line.
fn one_line(fault: &Fault) -> String {
    let text = fault.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

fn similar_key(key: &str) -> String {
    format!("; did you mean '{key}'?")
}

/// Reads `text`, whose relative paths start at the directory `base`. `keys` has the flags that
/// are keys above all tables, `site_keys` those that may be said again in each `[[site]]`.
pub(crate) fn read(
    text: &str,
    base: &Path,
    keys: &Command,
    site_keys: &Command,
) -> Result<File, FileError> {
    let reader = Reader { text, base };
    let table = DeTable::parse(text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        reader.fault(&error.span().unwrap_or(0..0), Fault::Syntax(message))
    })?;
    let mut file = File::default();
    for (key, value) in table.get_ref() {
        if key.get_ref() != "site" {
            let setting = reader.setting(keys, key, value)?;
            file.settings.insert(setting.0, setting.1);
            continue;
        }
        let fault = |value: &Spanned<DeValue<'_>>| {
            let expected = "tables, each under a line [[site]]";
            let found = value.get_ref().type_str().to_owned();
            reader.fault(&value.span(), Fault::Kind { key: "site".to_owned(), expected, found })
        };
        for site in value.get_ref().as_array().ok_or_else(|| fault(value))? {
            let table = site.get_ref().as_table().ok_or_else(|| fault(site))?;
            file.sites.push(reader.site(site.span(), table, keys, site_keys)?);
        }
    }
    file.sites.sort_by_key(|site| site.place);
    Ok(file)
}

struct Reader<'a> {
    text: &'a str,
    base: &'a Path,
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { line, column }
    }

    fn fault(&self, span: &Range<usize>, fault: Fault) -> FileError {
        FileError { place: self.place(span), fault }
    }

    fn site(
        &self,
        span: Range<usize>,
        table: &DeTable<'_>,
        keys: &Command,
        site_keys: &Command,
    ) -> Result<Site, FileError> {
        let place = self.place(&span);
        let mut site = Site { place, hosts: Vec::new(), path: None, settings: Settings::new() };
        for (key, value) in table {
            match &**key.get_ref() {
                "host" => {
                    site.hosts = self.values(key, value)?;
                    if site.hosts.is_empty() {
                        let fault = Fault::Place("'host' names no host".to_owned());
                        return Err(self.fault(&value.span(), fault));
                    }
                }
                "path" => {
                    let place = self.place(&value.span());
                    site.path = Some((self.text_of(key, value, "one text")?, place));
                }
                name if find(site_keys, name).is_none() && find(keys, name).is_some() => {
                    let fault = Fault::NotOfSite { key: name.to_owned() };
                    return Err(self.fault(&key.span(), fault));
                }
                _ => {
                    let (id, setting) = self.setting(site_keys, key, value)?;
                    site.settings.insert(id, setting);
                }
            }
        }
        Ok(site)
    }

    /// The key's flag by its id, and what it is to be.
    fn setting(
        &self,
        keys: &Command,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Result<(String, Setting), FileError> {
        let name = key.get_ref().to_string();
        let Some(arg) = find(keys, &name) else {
            return Err(self.fault(&key.span(), unknown(keys, name)));
        };
        let positional = arg.get_long().is_none();
        let bare = || OsString::from(format!("--{name}"));
        let needs_none = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let mut paths = Vec::new();
        let arguments = match (Takes::of(arg), value.get_ref()) {
            (Takes::Nothing, DeValue::Boolean(true)) => vec![bare()],
            (Takes::Nothing, DeValue::Boolean(false)) => Vec::new(),
            (Takes::Nothing, _) => return Err(self.kind(key, value, "true or false")),
            (Takes::Count, DeValue::Integer(times)) => match times.as_str().parse::<u8>() {
                Ok(times) => (0..times).map(|_| bare()).collect(),
                Err(_) => return Err(self.kind(key, value, "a number below 256")),
            },
            (Takes::Count, _) => return Err(self.kind(key, value, "a number")),
            // A flag whose value may be left out.
            (Takes::One, DeValue::Boolean(true)) if needs_none => vec![bare()],
            (Takes::One, DeValue::Boolean(false)) if needs_none => Vec::new(),
            _ => self.of_values(keys, arg, key, value, &mut paths)?,
        };
        let place = self.place(&key.span());
        let setting = Setting { key: name, place, arguments, positional, paths };
        Ok((arg.get_id().to_string(), setting))
    }

    fn of_values(
        &self,
        keys: &Command,
        arg: &Arg,
        key: &Key<'_>,
        value: &Value<'_>,
        paths: &mut Vec<PathBuf>,
    ) -> Result<Vec<OsString>, FileError> {
        let name = &**key.get_ref();
        let values = if Takes::of(arg) == Takes::Several {
            self.values(key, value)?
        } else {
            let place = self.place(&value.span());
            vec![(self.text_of(key, value, "one value")?, place)]
        };
        let mut arguments = Vec::with_capacity(values.len());
        for (text, place) in values {
            let said = if is_path(arg) && !text.is_empty() {
                let path = self.base.join(&text);
                paths.push(path.clone());
                path.into_os_string()
            } else {
                OsString::from(&text)
            };
            let mut argument = OsString::new();
            if arg.get_long().is_some() {
                argument.push(format!("--{name}="));
            }
            argument.push(said);
            if let Some(problem) = problem(keys, arg, &argument) {
                let fault = Fault::Value { key: name.to_owned(), value: text, problem };
                return Err(FileError { place, fault });
            }
            arguments.push(argument);
        }
        Ok(arguments)
    }

    /// One value, or each of several.
    fn values(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Vec<(String, Place)>, FileError> {
        let one = |value: &Value<'_>| {
            let text = self.text_of(key, value, "texts and numbers")?;
            Ok((text, self.place(&value.span())))
        };
        match value.get_ref().as_array() {
            Some(values) => values.iter().map(one).collect(),
            None => Ok(vec![one(value)?]),
        }
    }

    fn text_of(
        &self,
        key: &Key<'_>,
        value: &Value<'_>,
        expected: &'static str,
    ) -> Result<String, FileError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => {
                let text = number.as_str();
                let number = i128::from_str_radix(text, number.radix());
                Ok(number.map_or_else(|_| text.to_owned(), |number| number.to_string()))
            }
            DeValue::Float(number) => Ok(number.as_str().to_owned()),
            DeValue::Boolean(said) => Ok(said.to_string()),
            DeValue::Datetime(time) => Ok(time.to_string()),
            DeValue::Array(_) | DeValue::Table(_) => Err(self.kind(key, value, expected)),
        }
    }

    fn kind(&self, key: &Key<'_>, value: &Value<'_>, expected: &'static str) -> FileError {
        let found = match value.get_ref() {
            DeValue::String(text) => format!("the text \"{text}\""),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::Boolean(said) => said.to_string(),
            DeValue::Datetime(_) => "a time".to_owned(),
        };
        let key_name = key.get_ref().to_string();
        self.fault(&value.span(), Fault::Kind { key: key_name, expected, found })
    }
}

/// The flag that a key stands for: by its long name; arguments without flag by their id.
fn find<'a>(keys: &'a Command, name: &str) -> Option<&'a Arg> {
    keys.get_arguments().find(|arg| match arg.get_long() {
        Some(long) => long == name,
        None => arg.get_id() == name,
    })
}

/// Whether its values name files or directories; `ValueHint::Other` says that they do not.
pub(crate) fn is_path(arg: &Arg) -> bool {
    let hint = arg.get_value_hint();
    matches!(hint, ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath)
}

/// clap knows which flag is meant.
fn unknown(keys: &Command, key: String) -> Fault {
    let parsed = keys.clone().try_get_matches_from(["pagewire".to_owned(), format!("--{key}")]);
    let similar = parsed.err().and_then(|error| match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.trim_start_matches("--").to_owned()),
        _ => None,
    });
    Fault::UnknownKey { key, similar }
}

/// What clap has against this argument, if it stood alone.
fn problem(keys: &Command, arg: &Arg, argument: &OsString) -> Option<String> {
    let mut line = vec![OsString::from("pagewire")];
    if arg.get_long().is_none() {
        line.push("--".into());
    }
    line.push(argument.clone());
    let error = keys.clone().try_get_matches_from(line).err()?;
    // Of other flags, which the whole command line may have.
    if matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict) {
        return None;
    }
    let reason = std::error::Error::source(&error).map(|reason| format!(": {reason}"));
    let valid = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            Some(format!(": it is one of {}", valid.join(", ")))
        }
        _ => None,
    };
    let rendered = || {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        format!(": {}", line.trim_start_matches("error: "))
    };
    Some(valid.or(reason).unwrap_or_else(rendered))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flags::{keys, site_keys};

    fn read_text(text: &str) -> Result<File, String> {
        let file = read(text, Path::new("/etc/pagewire"), &keys(), &site_keys());
        file.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        assert_eq!(read_text(text).unwrap_err(), expected, "{text}");
    }

    #[test]
    fn keys_become_arguments() {
        let text = "listen = ['[::1]:0', \"127.0.0.1:0\"]\nthreads = 0x4\nquiet = true\n\
                    no-listing = false\nroute = 'splice'\nroot = 'www'\n";
        let file = read_text(text).unwrap();
        let said: Vec<(&str, usize, Vec<&str>)> = file
            .settings
            .iter()
            .map(|(id, setting)| {
                let arguments = setting.arguments.iter().map(|argument| argument.to_str().unwrap());
                (id.as_str(), setting.place.line, arguments.collect())
            })
            .collect();
        let expected = [
            ("listen", 1, vec!["--listen=[::1]:0", "--listen=127.0.0.1:0"]),
            ("no_listing", 4, vec![]),
            ("quiet", 3, vec!["--quiet"]),
            ("root", 6, vec!["/etc/pagewire/www"]),
            ("route", 5, vec!["--route=splice"]),
            ("threads", 2, vec!["--threads=4"]),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn all_flags_have_a_form() {
        for arg in keys().get_arguments() {
            let action = arg.get_action();
            let has_form =
                action.takes_values() || matches!(action, ArgAction::SetTrue | ArgAction::Count);
            assert!(has_form, "{arg}: {action:?}");
        }
    }

    /// Forms of flags that may come, whether or not there is one now.
    #[test]
    fn any_form_of_flag_is_read() {
        let command = || {
            clap::Command::new("pagewire")
                .arg(Arg::new("verbose").long("verbose").action(ArgAction::Count))
                .arg(Arg::new("spa").long("spa").num_args(0..=1).require_equals(true))
                .arg(Arg::new("file").long("file").value_parser(clap::value_parser!(PathBuf)))
        };
        let arguments = |text: &str| {
            let file = read(text, Path::new("/etc"), &command(), &command());
            let file = file.map_err(|error| error.to_string())?;
            let settings = file.settings.into_values();
            let arguments = settings.flat_map(|setting| setting.arguments);
            Ok(arguments.map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("verbose = 2", Ok(vec!["--verbose", "--verbose"])),
            ("verbose = true", Err("1:11: 'verbose' takes a number, not true")),
            ("spa = true", Ok(vec!["--spa"])),
            ("spa = false", Ok(vec![])),
            ("spa = 'x'", Ok(vec!["--spa=x"])),
            ("file = 'x'", Ok(vec!["--file=/etc/x"])),
            ("file = '/x'", Ok(vec!["--file=/x"])),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(arguments(text), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn sites_keep_their_order_and_places() {
        let text = "[[site]]\nroot='/a'\n\n[[site]]\nhost=['x','y']\nroot='b'\npath='/p'\n";
        let sites = read_text(text).unwrap().sites;
        let lines: Vec<usize> = sites.iter().map(|site| site.place.line).collect();
        assert_eq!(lines, [1, 4]);
        assert_eq!(sites[1].hosts.len(), 2);
        assert_eq!(sites[1].settings["root"].arguments, ["/etc/pagewire/b"]);
    }

    #[test]
    fn mistakes_are_named_with_their_places() {
        check_error("quite = true", "1:1: unknown key 'quite'; did you mean 'quiet'?");
        check_error("\n  zzz = 1", "2:3: unknown key 'zzz'");
        check_error("quiet = 1", "1:9: 'quiet' takes true or false, not the number 1");
        check_error("quiet = 'yes'", "1:9: 'quiet' takes true or false, not the text \"yes\"");
        check_error("threads = [1]", "1:11: 'threads' takes one value, not an array");
        check_error(
            "threads = 0",
            "1:11: invalid value '0' for 'threads': number would be zero for non-zero type",
        );
        check_error(
            "listen = [\n  '127.0.0.1:1',\n  'nowhere',\n]",
            "3:3: invalid value 'nowhere' for 'listen': `nowhere` is no address: \
             give IP:PORT, such as 127.0.0.1:8080 for this host only or [::]:8080 for all who can \
             reach it, or unix:/PATH",
        );
        check_error(
            "site = 1",
            "1:8: 'site' takes tables, each under a line [[site]], not integer",
        );
        check_error(
            "[[site]]\nroot='/'\nlisten='x'",
            "3:1: 'listen' is said above, outside of [[site]]: it is not a site's own",
        );
        check_error("[[site]]\nhidde = true", "2:1: unknown key 'hidde'; did you mean 'hidden'?");
        check_error("[[site]]\nhost = []", "2:8: 'host' names no host");
        check_error("hidden = true\nhidden = true", "2:1: duplicate key");
        check_error(r#""a\nb" = 1"#, r"1:1: unknown key 'a\nb'");
    }

    #[test]
    fn what_is_no_toml_has_a_place() {
        for (text, place) in [("hidden =", "1:9"), ("a = 1\n= 2", "2:1"), ("x = 'a", "1:7")] {
            let error = read_text(text).unwrap_err();
            assert!(error.starts_with(&format!("{place}: ")), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            read_text(&text).ok();
        }

        #[test]
        fn any_toml_is_read_or_refused(
            key in "(listen|root|quiet|threads|route|site|hidden|[a-z-]{1,9})",
            value in "(\"[ -~&&[^\"\\\\]]{0,20}\"|-?[0-9]{1,30}|true|\\[1, '-x'\\]|\\{a=1\\})",
            table in "(|\\[\\[site\\]\\]\n|\\[site\\]\n)",
        ) {
            let text = format!("# \u{e4}\n{table}{key} = {value}\n");
            if let Err(error) = read_text(&text) {
                let line: usize = error.split(':').next().unwrap().parse().unwrap();
                prop_assert!((1..=4).contains(&line), "{}", error);
            }
        }
    }
}
