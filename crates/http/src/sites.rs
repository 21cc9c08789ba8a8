//! Which of several directories answers a request: by the host that it names (RFC 9110, section
//! 7.2), then by the longest path that its target begins with. Called for each request.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Instant;

use http::header::HOST;
use http::{Request, Response, Version};

use crate::body::FileBody;
use crate::digest::Digests;
use crate::error::{PlaceError, RequestError, StartError};
use crate::resolve::TargetPath;
use crate::serve::SiteConfig;
use crate::service::{FileService, error_response};

/// A directory, and for which requests it is served.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The hosts that it is served for; none: those that no other one names.
    pub hosts: Vec<HostPattern>,
    /// What targets begin with. It is no part of the names that are looked for.
    pub path: PathPrefix,
    /// What is served, and how.
    pub site: SiteConfig,
}

impl Mount {
    /// Served for every request.
    #[must_use]
    pub fn everywhere(site: SiteConfig) -> Self {
        Self { hosts: Vec::new(), path: PathPrefix::default(), site }
    }
}

/// A host's name, or `*.` and the name that all of its subdomains end in. Case, a final dot and
/// the port of requests make no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// In lower case.
    name: String,
    subdomains: bool,
}

impl FromStr for HostPattern {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (subdomains, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let is_address = name.starts_with('[') && name.ends_with(']');
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let named = !name.is_empty() && name.bytes().all(is_part);
        let addressed = is_address && !subdomains && is_host(&name);
        if !named && !addressed {
            return Err(PlaceError::Host { text: text.to_owned() });
        }
        Ok(Self { name, subdomains })
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.subdomains { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

/// The front of a request's path, as whole segments; `/` is that of all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(TargetPath);

impl Default for PathPrefix {
    fn default() -> Self {
        Self(TargetPath::root())
    }
}

impl FromStr for PathPrefix {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match TargetPath::parse(text) {
            Ok(target) if text.starts_with('/') && !text.contains(['?', '#']) => Ok(Self(target)),
            _ => Err(PlaceError::Path { text: text.to_owned() }),
        }
    }
}

impl std::fmt::Display for PathPrefix {
    /// Percent-encoded, without a slash at the end unless it is the root.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.encoded() {
            prefix if prefix.is_empty() => f.write_str("/"),
            prefix => f.write_str(&prefix),
        }
    }
}

impl PathPrefix {
    pub(crate) fn target(&self) -> &TargetPath {
        &self.0
    }

    /// Percent-encoded, without a slash at the end: nothing for the root.
    pub(crate) fn encoded(&self) -> String {
        let slashed = self.0.with_slash();
        slashed.strip_suffix('/').unwrap_or_default().to_owned()
    }
}

/// Opens all that is to be served, and closes it again.
///
/// # Errors
///
/// Those that [`Server::bind`](crate::Server::bind) would have for the same.
pub fn check_sites(mounts: &[Mount]) -> Result<(), StartError> {
    Sites::open(mounts, &Digests::new()).map(drop)
}

/// All that a server serves.
#[derive(Debug)]
pub(crate) struct Sites {
    services: Vec<FileService>,
    table: Table,
    /// What is known by now, for those that take their place.
    pub(crate) digests: Digests,
}

/// Where in `Sites::services` the ones for a request are.
#[derive(Debug)]
enum Table {
    /// The first, whatever is asked for.
    One,
    Several {
        exact: HashMap<String, Vec<usize>>,
        /// By what subdomains end in, without the dot before it.
        subdomains: HashMap<String, Vec<usize>>,
        /// For hosts that are in neither.
        others: Vec<usize>,
    },
}

impl Sites {
    /// Opens all directories, whose files have `digests`.
    ///
    /// # Errors
    ///
    /// [`StartError`] for the first one that cannot be opened, or is hidden by another.
    pub(crate) fn open(mounts: &[Mount], digests: &Digests) -> Result<Self, StartError> {
        let mut services = Vec::with_capacity(mounts.len());
        for Mount { path, site, .. } in mounts {
            services.push(FileService::open(site, path, mounts.len(), digests.clone())?);
        }
        let table = match mounts {
            [Mount { hosts, path, .. }] if hosts.is_empty() && *path == PathPrefix::default() => {
                Table::One
            }
            mounts => table(mounts)?,
        };
        Ok(Self { services, table, digests: digests.clone() })
    }

    /// The response to `request`, which came in at `now`, if it is a file that was looked at just
    /// now.
    pub(crate) fn answer_now<B>(
        &self,
        request: &Request<B>,
        now: Instant,
    ) -> Option<Response<FileBody>> {
        self.service_for(request).ok()?.answer_now(request, now)
    }

    /// The response to `request`, which came in at `now`.
    pub(crate) async fn answer<B>(&self, request: &Request<B>, now: Instant) -> Response<FileBody> {
        match self.service_for(request) {
            Ok(service) => service.answer(request, now).await,
            Err(error) => error_response(request, &error),
        }
    }

    fn service_for<B>(&self, request: &Request<B>) -> Result<&FileService, RequestError> {
        self.service_at(host(request)?, request.uri().path())
    }

    /// The service for requests that name `host` and ask for `path`.
    pub(crate) fn service_at(&self, host: &str, path: &str) -> Result<&FileService, RequestError> {
        match &self.table {
            Table::One => self.services.first().ok_or(RequestError::Misdirected),
            Table::Several { exact, subdomains, others } => {
                let host = name(host).to_ascii_lowercase();
                let mut endings = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
                let named = exact
                    .get(&host)
                    .or_else(|| endings.find_map(|ending| subdomains.get(ending)))
                    .unwrap_or(others);
                if named.is_empty() {
                    return Err(RequestError::Misdirected);
                }
                let target = TargetPath::parse(path)?;
                let mut named = named.iter().map(|index| &self.services[*index]);
                named.find(|service| service.holds(&target)).ok_or(RequestError::Missing)
            }
        }
    }
}

fn table(mounts: &[Mount]) -> Result<Table, StartError> {
    let mut exact: HashMap<String, Vec<usize>> = HashMap::new();
    let mut subdomains: HashMap<String, Vec<usize>> = HashMap::new();
    let mut others = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        if mount.hosts.is_empty() {
            put(&mut others, mounts, index, None)?;
        }
        for host in &mount.hosts {
            let map = if host.subdomains { &mut subdomains } else { &mut exact };
            put(map.entry(host.name.clone()).or_default(), mounts, index, Some(host))?;
        }
    }
    let longest_first = |list: &mut Vec<usize>| {
        list.sort_by_key(|index| std::cmp::Reverse(mounts[*index].path.target().names().count()));
    };
    longest_first(&mut others);
    exact.values_mut().chain(subdomains.values_mut()).for_each(longest_first);
    Ok(Table::Several { exact, subdomains, others })
}

fn put(
    list: &mut Vec<usize>,
    mounts: &[Mount],
    index: usize,
    host: Option<&HostPattern>,
) -> Result<(), StartError> {
    let path = &mounts[index].path;
    let names = |other: usize| mounts[other].path.target().names().eq(path.target().names());
    if list.iter().any(|other| names(*other)) {
        let host = host.map(ToString::to_string);
        return Err(StartError::Twice { host, path: path.to_string() });
    }
    list.push(index);
    Ok(())
}

/// The host that a request names, with its port: that of its target, else that of its only Host
/// field, without which no request of HTTP/1.1 is valid (RFC 9112, section 3.2).
fn host<B>(request: &Request<B>) -> Result<&str, RequestError> {
    let mut fields = request.headers().get_all(HOST).into_iter();
    let field = match (fields.next(), fields.next()) {
        (None, _) if request.version() == Version::HTTP_11 => return Err(RequestError::Host),
        (None, _) => "",
        (Some(_), Some(_)) => return Err(RequestError::Host),
        (Some(field), None) => field.to_str().map_err(|_| RequestError::Host)?,
    };
    if !is_host(field) {
        return Err(RequestError::Host);
    }
    Ok(request.uri().authority().map_or(field, |authority| authority.as_str()))
}

/// Whether all bytes may be in `uri-host [ ":" port ]` (RFC 3986, section 3.2.2). It may be empty.
pub(crate) fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte))
}

/// The host without its port and final dot.
fn name(host: &str) -> &str {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let name = match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Sites whose only file says which one they are.
    struct Stage {
        _directory: TempDir,
        sites: Result<Sites, StartError>,
    }

    fn stage(places: &[(&[&str], &str)]) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let mounts: Vec<Mount> = places
            .iter()
            .enumerate()
            .map(|(number, (hosts, path))| {
                let root = directory.path().join(number.to_string());
                fs::create_dir(&root).unwrap();
                fs::write(root.join("file"), "x".repeat(number)).unwrap();
                let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
                let mut mount = Mount::everywhere(SiteConfig::new(root));
                (mount.hosts, mount.path) = (hosts, path.parse().unwrap());
                mount
            })
            .collect();
        Stage { sites: Sites::open(&mounts, &Digests::new()), _directory: directory }
    }

    impl Stage {
        /// The status, and of a file the number of its site.
        fn ask(&self, version: Version, host: &[&str], target: &str) -> (u16, u64) {
            let mut request = Request::get(target).version(version);
            for host in host {
                request = request.header(HOST, *host);
            }
            let request = request.body(()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let answer = self.sites.as_ref().unwrap().answer(&request, Instant::now());
            let response = runtime.block_on(answer);
            let status = response.status().as_u16();
            (status, if status == 200 { response.body().bytes_left() } else { 0 })
        }
    }

    #[test]
    fn a_request_of_http_1_1_names_one_host() {
        let several: &[(&[&str], &str)] = &[(&[], "/"), (&["a"], "/")];
        for places in [&several[..1], several] {
            let stage = stage(places);
            let ask = |version, host: &[&str]| stage.ask(version, host, "/file").0;
            assert_eq!(ask(Version::HTTP_11, &["x"]), 200);
            assert_eq!(ask(Version::HTTP_11, &[""]), 200);
            assert_eq!(ask(Version::HTTP_11, &[]), 400);
            assert_eq!(ask(Version::HTTP_11, &["x", "x"]), 400);
            assert_eq!(ask(Version::HTTP_11, &["x/y"]), 400);
            assert_eq!(ask(Version::HTTP_11, &["a@x"]), 400);
            assert_eq!(ask(Version::HTTP_10, &[]), 200);
            assert_eq!(ask(Version::HTTP_2, &[]), 200);
        }
    }

    #[test]
    fn the_host_decides_and_then_the_longest_path() {
        let stage = stage(&[
            (&[], "/"),
            (&["a.example"], "/"),
            (&["*.a.example"], "/"),
            (&["*.b.a.example", "[::1]"], "/"),
            (&["a.example"], "/p"),
            (&["a.example"], "/p/q%20r"),
            (&[], "/p"),
            (&["only.example"], "/p"),
        ]);
        for (host, target, expected) in [
            ("other", "/file", (200, 0)),
            ("a.example", "/file", (200, 1)),
            ("A.EXAMPLE.:8080", "/file", (200, 1)),
            ("x.a.example", "/file", (200, 2)),
            ("y.x.a.example:1", "/file", (200, 2)),
            ("xa.example", "/file", (200, 0)),
            ("x.b.a.example", "/file", (200, 3)),
            ("b.a.example", "/file", (200, 2)),
            ("[::1]:80", "/file", (200, 3)),
            ("[::2]:80", "/file", (200, 0)),
            ("a.example", "/p/file", (200, 4)),
            ("a.example", "/p", (308, 0)),
            ("a.example", "//%70/./file", (200, 4)),
            ("a.example", "/pfile", (404, 0)),
            ("a.example", "/p/q%20r/file", (200, 5)),
            ("other", "/p/file", (200, 6)),
            ("other", "http://a.example/p/file", (200, 4)),
            ("only.example", "/p/file", (200, 7)),
            ("only.example", "/file", (404, 0)),
            ("a.example", "/p/../file", (400, 0)),
        ] {
            let answer = stage.ask(Version::HTTP_11, &[host], target);
            assert_eq!(answer, expected, "{host} {target}");
        }
    }

    #[test]
    fn a_host_of_nobody_is_misdirected() {
        let stage = stage(&[(&["a"], "/")]);
        assert_eq!(stage.ask(Version::HTTP_11, &["a"], "/file").0, 200);
        assert_eq!(stage.ask(Version::HTTP_11, &["b"], "/file").0, 421);
        assert_eq!(stage.ask(Version::HTTP_10, &[], "/file").0, 421);
    }

    #[test]
    fn two_for_the_same_requests_are_refused() {
        for places in
            [&[(&[][..], "/"), (&[][..], "/")][..], &[(&["a"], "/p"), (&["b", "A."], "/p/")]]
        {
            let error = stage(places).sites.unwrap_err();
            assert!(matches!(error, StartError::Twice { .. }), "{error}");
        }
    }

    #[test]
    fn places_are_parsed() {
        for (text, shown) in [
            ("A.example.", Some("a.example")),
            ("*.x_y", Some("*.x_y")),
            ("[::1]", Some("[::1]")),
            ("", None),
            ("*.", None),
            ("*", None),
            ("a:80", None),
            ("http://a", None),
            ("a b", None),
            ("*.[::1]", None),
            ("a.*.b", None),
        ] {
            let host = text.parse::<HostPattern>().ok().map(|host| host.to_string());
            assert_eq!(host.as_deref(), shown, "{text}");
        }
        for (text, shown) in [
            ("/", Some("/")),
            ("//a//", Some("/a")),
            ("/a b/%20", Some("/a%20b/%20")),
            ("", None),
            ("a", None),
            ("/..", None),
            ("/a?b", None),
        ] {
            let path = text.parse::<PathPrefix>().ok().map(|path| path.to_string());
            assert_eq!(path.as_deref(), shown, "{text}");
        }
    }
}
