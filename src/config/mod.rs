//! What `pagewire serve` is to do: the command line, over the environment, over the configuration
//! file, over the defaults. The flags are the one table of it (`src/flags/`): nothing here knows
//! one of them by name but those that say what is served where.

mod file;
#[cfg(test)]
mod page;
mod show;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use pagewire_http::{Listen, Mount, PathPrefix, PlaceError};

use crate::config::file::{Fault, File, FileError, Place, Site, Takes};
use crate::flags::{self, FileFlags, ServeFlags, SiteFlags};

/// A configuration file that is larger is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything that was said, put together.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) flags: ServeFlags,
    pub(crate) file_flags: FileFlags,
    pub(crate) mounts: Vec<Mount>,
    /// The configuration file.
    pub(crate) path: Option<PathBuf>,
    file: File,
    /// The command line and the environment.
    given: ArgMatches,
    /// The same, with what the file says.
    matches: ArgMatches,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}:{error}", path.display())]
    Wrong { path: PathBuf, error: FileError },
    #[error("{}:{place}: {problem}", path.display())]
    Flags { path: PathBuf, place: Place, problem: String },
    /// The command line's own fault.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(
        "nothing to serve: name a directory (pagewire serve DIR), or give the configuration \
         file a root"
    )]
    Nothing,
}

impl Config {
    /// Reads the environment and the file anew: called at start and at each reload. `line` is the
    /// process's command line.
    pub(crate) fn load(line: &[OsString]) -> Result<Self, ConfigError> {
        let given = flags::command().try_get_matches_from(line)?;
        let Some(given) = given.subcommand_matches("serve") else {
            return Err(ConfigError::Nothing);
        };
        let Some(path) = FileFlags::from_arg_matches(given)?.config else {
            return Self::put_together(File::default(), None, given.clone(), given.clone());
        };
        let wrong = |error| ConfigError::Wrong { path: path.clone(), error };
        let text = read(&path)?;
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let base = absolute.parent().unwrap_or(Path::new("/"));
        let (keys, site_keys) = (flags::keys(), flags::site_keys());
        let file = file::read(&text, base, &keys, &site_keys).map_err(wrong)?;
        let matches = with_file(line, given, &file, &path)?;
        Self::put_together(file, Some(path), given.clone(), matches)
    }

    /// The files and directories that flags name, but for those that are served.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let keys = flags::keys();
        let others =
            keys.get_arguments().filter(|arg| file::is_path(arg) && arg.get_id() != "root");
        let values = others.filter_map(|arg| self.matches.get_raw(arg.get_id().as_str()));
        let of_sites = self.file.sites.iter().flat_map(|site| &site.settings);
        let of_sites = of_sites.filter(|(id, _)| *id != "root").flat_map(|(_, set)| &set.paths);
        let paths = values.flatten().map(PathBuf::from).chain(of_sites.cloned());
        paths.chain(self.path.clone()).collect()
    }

    /// Where to listen, given `sockets` that listen already: on all of them, and on what the
    /// configuration names; on its default only without any.
    pub(crate) fn listen(&self, sockets: &[Listen]) -> Vec<Listen> {
        let is_default = self.matches.value_source("listen") == Some(ValueSource::DefaultValue);
        let mut listen = Vec::new();
        if sockets.is_empty() || !is_default {
            listen.extend(self.flags.listeners());
        }
        for socket in sockets {
            listen = listen.into_iter().map(|listen| listen.or_on(socket)).collect();
            if !listen.iter().any(|listen| listen.address == socket.address) {
                listen.push(socket.clone());
            }
        }
        listen
    }

    fn put_together(
        file: File,
        path: Option<PathBuf>,
        given: ArgMatches,
        matches: ArgMatches,
    ) -> Result<Self, ConfigError> {
        let flags = ServeFlags::from_arg_matches(&matches)?;
        let file_flags = FileFlags::from_arg_matches(&matches)?;
        let mut mounts = Vec::new();
        if let Some(root) = &flags.site.root {
            mounts.push(Mount::everywhere(flags.site.config(root)));
        }
        for mounted in &file_flags.mount {
            let mut mount = Mount::everywhere(flags.site.config(&mounted.directory));
            mount.path = mounted.path.clone();
            mounts.push(mount);
        }
        let mut taken = BTreeSet::new();
        for site in &file.sites {
            let mount = mount(site, &matches);
            let mount = mount.and_then(|mount| free(site, mount, &mut taken));
            mounts.push(mount.map_err(|error| {
                let path = path.clone().unwrap_or_default();
                ConfigError::Wrong { path, error }
            })?);
        }
        if mounts.is_empty() {
            return Err(ConfigError::Nothing);
        }
        Ok(Self { flags, file_flags, mounts, path, file, given, matches })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let len = fs::metadata(path).map_err(unreadable)?.len();
    if len > FILE_BYTES_MAX {
        let source = io::Error::other(format!("{len} bytes are more than {FILE_BYTES_MAX}"));
        return Err(unreadable(source));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The command line with the file's settings before it, but for those that it has itself or the
/// environment has.
fn with_file(
    line: &[OsString],
    given: &ArgMatches,
    file: &File,
    path: &Path,
) -> Result<ArgMatches, ConfigError> {
    let is_serve = |argument: &OsString| argument == "serve";
    let start = line.iter().position(is_serve).map_or(line.len(), |at| at + 1);
    let mut whole: Vec<OsString> = line[..start].into();
    let mut positional = Vec::new();
    for (id, setting) in &file.settings {
        if !is_said(given, id) {
            let list = if setting.positional { &mut positional } else { &mut whole };
            list.extend(setting.arguments.iter().cloned());
        }
    }
    whole.extend_from_slice(&line[start..]);
    if !positional.is_empty() {
        whole.push("--".into());
        whole.extend(positional);
    }
    let parsed = flags::command().try_get_matches_from(whole).map_err(|error| {
        let text = error.to_string();
        let problem = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let of_file = |key: &&file::Setting| problem.contains(&format!("--{}", key.key));
        match file.settings.values().find(of_file) {
            Some(setting) => ConfigError::Flags {
                path: path.to_owned(),
                place: setting.place,
                problem: problem.to_owned(),
            },
            None => ConfigError::Usage(error),
        }
    })?;
    parsed.subcommand_matches("serve").cloned().ok_or(ConfigError::Nothing)
}

/// Whether the command line or the environment has it.
fn is_said(matches: &ArgMatches, id: &str) -> bool {
    let source = matches.value_source(id);
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// What a `[[site]]` serves: where it says nothing of a flag, what is said above all tables, or
/// on the command line.
fn mount(site: &Site, matches: &ArgMatches) -> Result<Mount, FileError> {
    let at = |place| move |fault| FileError { place, fault };
    let of_place = |error: PlaceError| Fault::Place(error.to_string());
    let keys = flags::site_keys();
    let mut line = vec![OsString::from("pagewire")];
    let mut positional = vec![OsString::from("--")];
    for arg in keys.get_arguments() {
        let id = arg.get_id().as_str();
        if let Some(setting) = site.settings.get(id) {
            let list = if setting.positional { &mut positional } else { &mut line };
            list.extend(setting.arguments.iter().cloned());
        } else if let (Some(long), true) = (arg.get_long(), is_said(matches, id)) {
            match Takes::of(arg) {
                Takes::One | Takes::Several => {
                    for value in matches.get_raw(id).into_iter().flatten() {
                        let mut argument = OsString::from(format!("--{long}="));
                        argument.push(value);
                        line.push(argument);
                    }
                }
                Takes::Count => {
                    let times = usize::from(matches.get_count(id));
                    line.extend(std::iter::repeat_n(format!("--{long}").into(), times));
                }
                Takes::Nothing if matches.get_flag(id) => line.push(format!("--{long}").into()),
                Takes::Nothing => {}
            }
        }
    }
    line.extend(positional);
    let parsed = keys.try_get_matches_from(line);
    let flags = parsed.and_then(|parsed| SiteFlags::from_arg_matches(&parsed));
    let flags = flags.map_err(|error| {
        let text = error.to_string();
        let problem = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        at(site.place)(Fault::Place(problem.to_owned()))
    })?;
    let Some(root) = &flags.root else {
        let fault = Fault::Place("this [[site]] has no root = \"DIR\"".to_owned());
        return Err(at(site.place)(fault));
    };
    let mut mount = Mount::everywhere(flags.config(root));
    for (host, place) in &site.hosts {
        mount.hosts.push(host.parse().map_err(of_place).map_err(at(*place))?);
    }
    if let Some((path, place)) = &site.path {
        mount.path = path.parse().map_err(of_place).map_err(at(*place))?;
    }
    Ok(mount)
}

/// The mount, if no `[[site]]` before it is for the same requests.
fn free(
    site: &Site,
    mount: Mount,
    taken: &mut BTreeSet<(Option<String>, String)>,
) -> Result<Mount, FileError> {
    let hosts = mount.hosts.iter().map(|host| Some(host.to_string()));
    let hosts = if mount.hosts.is_empty() { vec![None] } else { hosts.collect() };
    for host in hosts {
        let path = mount.path.to_string();
        if !taken.insert((host.clone(), path.clone())) {
            let host = host.as_deref().unwrap_or("all hosts");
            let text = format!("a [[site]] above is for {host} at {path}, too");
            return Err(FileError { place: site.place, fault: Fault::Place(text) });
        }
    }
    Ok(mount)
}

/// `/path=DIR` of `--mount`.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    pub(crate) path: PathPrefix,
    pub(crate) directory: PathBuf,
}

impl std::str::FromStr for Mounted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((path, directory)) if !directory.is_empty() => {
                let path = path.parse().map_err(|error: PlaceError| error.to_string())?;
                Ok(Self { path, directory: directory.into() })
            }
            _ => Err("it is a path and a directory, such as /pub=/srv/pub".to_owned()),
        }
    }
}
