//! The configuration: command line over environment over file, several sites, what is refused and
//! in which words.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::support::{Answer, Peer, Server, pagewire, plain_dir};

/// A directory with a configuration file, and folders `a`, `b` and `c` whose files are named.
struct Stage(TempDir);

impl Stage {
    fn new(config: &str) -> Stage {
        let dir = plain_dir();
        for folder in ["a", "b", "c"] {
            fs::create_dir_all(dir.path().join(folder).join("sub")).unwrap();
            fs::write(dir.path().join(folder).join("name"), folder).unwrap();
            fs::write(dir.path().join(folder).join(".dot"), folder).unwrap();
        }
        fs::write(dir.path().join("pagewire.toml"), config).unwrap();
        Stage(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("pagewire.toml")
    }

    fn root(&self, folder: &str) -> String {
        self.0.path().join(folder).display().to_string()
    }

    fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = pagewire(&["serve", "--config"]);
        command.arg(self.file()).args(arguments).envs(environment.iter().copied());
        Server::spawn(command)
    }

    /// What the program says on standard error, and its exit code.
    fn refused(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (String, Option<i32>) {
        let mut command = pagewire(&["serve", "--config"]);
        command.arg(self.file()).args(arguments).envs(environment.iter().copied());
        let output = command.output().unwrap();
        let folder = format!("{}/", self.0.path().display());
        let said = String::from_utf8(output.stderr).unwrap();
        (said.replace(&folder, ""), output.status.code())
    }

    fn shown(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
        let mut command = pagewire(&["serve", "--show-config", "--config"]);
        command.arg(self.file()).args(arguments).envs(environment.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        let folder = format!("{}/", self.0.path().display());
        shown.replace(&folder, "").lines().map(str::to_owned).collect()
    }
}

fn ask(server: &Server, host: &str, target: &str) -> Answer {
    let mut peer = Peer::connect(server.address());
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    peer.answer()
}

const SITES: &str = "listen = '127.0.0.1:0'
root = 'a'

[[site]]
host = ['B.example', '*.b.example']
root = 'b'
hidden = true

[[site]]
path = '/c'
root = 'c'
";

#[test]
fn each_host_and_path_has_its_site() {
    let stage = Stage::new(SITES);
    let server = stage.start(&[], &[]);
    for (host, target, expected) in [
        ("x", "/name", (200, "a")),
        ("b.EXAMPLE:80", "/name", (200, "b")),
        ("x.b.example", "/.dot", (200, "b")),
        ("x", "/c/name", (200, "c")),
        ("b.example", "/c/name", (404, "")),
    ] {
        let answer = ask(&server, host, target);
        assert_eq!(answer.head.status, expected.0, "{host} {target}");
        assert!(expected.1.is_empty() || answer.body == expected.1.as_bytes(), "{host} {target}");
    }
    assert_eq!(ask(&server, "x", "/.dot").head.status, 404);
    let banner = server.banner();
    assert!(banner[0].contains(" serves "), "{banner:?}");
    assert!(banner[1].contains("/b (") && banner[1].contains(" for b.example, *.b.example"));
    assert!(banner[2].contains("/c (") && banner[2].ends_with(" at /c"), "{banner:?}");
}

/// Redirects, pages and archives of a directory that is served below a path name that path.
#[test]
fn nothing_forgets_the_path_before_it() {
    let stage = Stage::new(SITES);
    let server = stage.start(&["--mount", &format!("/d%20e/f={}", stage.root("c"))], &[]);
    for (target, location) in [
        ("/c", "/c/"),
        ("/c?json", "/c/?json"),
        ("/c/sub", "/c/sub/"),
        ("/d%20e/f/sub?x", "/d%20e/f/sub/?x"),
        ("/d%20e//f", "/d%20e/f/"),
    ] {
        let answer = ask(&server, "x", target);
        assert_eq!(answer.head.status, 308, "{target}");
        assert_eq!(answer.head.header("location"), Some(location), "{target}");
    }
    let page = String::from_utf8(ask(&server, "files.example", "/d%20e/f/sub/").body).unwrap();
    assert!(page.contains("http://files.example/d%20e/f/sub/"), "the phone's address: {page}");
    assert!(page.contains("href=\"../\"") && page.contains("aria-label=\"f\""), "{page}");
    assert!(!page.contains("href=\"../../\""), "nothing leads out of the site: {page}");
    let archive = ask(&server, "x", "/c/?tar");
    let saved = archive.head.header("content-disposition").unwrap();
    assert!(saved.contains("filename=\"c.tar\""), "{saved}");
    assert_eq!(ask(&server, "x", "/d%20e/name").head.status, 404);
}

/// What hosts no site has is the default one's; where there is none, the client learns it.
#[test]
fn a_host_of_no_site_is_misdirected() {
    let stage = Stage::new("listen='127.0.0.1:0'\n[[site]]\nhost='a.example'\nroot='a'");
    let server = stage.start(&[], &[]);
    assert_eq!(ask(&server, "a.example", "/name").head.status, 200);
    assert_eq!(ask(&server, "b.example", "/name").head.status, 421);
    let mut peer = Peer::connect(server.address());
    peer.send(b"GET /name HTTP/1.1\r\n\r\n");
    assert_eq!(peer.answer().head.status, 400);
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file() {
    let stage = Stage::new("route = 'splice'\nthreads = 1\nquiet = true\nroot = 'a'\n");
    let flags = &["--threads", "3"];
    let shown = stage.shown(flags, &[("PAGEWIRE_THREADS", "2"), ("PAGEWIRE_QUIET", "false")]);
    for line in [
        "threads = 3 # command line",
        "quiet = false # PAGEWIRE_QUIET",
        "route = \"splice\" # pagewire.toml:1",
        "root = \"a\" # pagewire.toml:4",
        "hidden = false # default",
        "listen = [\"127.0.0.1:8080\"] # default",
    ] {
        let is_line =
            |shown: &String| shown.split_whitespace().collect::<Vec<_>>().join(" ") == line;
        assert!(shown.iter().any(is_line), "{line}: {shown:#?}");
    }
    let environment = [("PAGEWIRE_LISTEN", "127.0.0.1:0,[::1]:0"), ("PAGEWIRE_ROUTE", "sendfile")];
    let server = stage.start(&["--route", "read-write"], &environment);
    assert_eq!(server.addresses().len(), 2);
    assert!(server.banner().iter().any(|line| line.starts_with("route: read-write")));
    assert_eq!(ask(&server, "x", "/name").body, b"a");
}

/// What is printed can be used as a file, and then says the same.
#[test]
fn the_shown_configuration_is_one() {
    let stage = Stage::new(SITES);
    let first = stage.shown(&["--route", "splice"], &[]);
    fs::write(stage.file(), first.join("\n")).unwrap();
    let values = |shown: &[String]| -> Vec<String> {
        shown.iter().map(|line| line.split(" # ").next().unwrap().trim().to_owned()).collect()
    };
    assert_eq!(values(&stage.shown(&[], &[])), values(&first));
}

#[test]
fn sites_have_what_is_said_above_them_unless_they_say_otherwise() {
    let stage = Stage::new(
        "listen='127.0.0.1:0'\nhidden=true\nroot='a'\n[[site]]\nhost='b'\nroot='b'\n\
         [[site]]\nhost='c'\nroot='c'\nhidden=false\n",
    );
    let server = stage.start(&["--no-listing"], &[]);
    for (host, dot, listing) in [("a", 200, 404), ("b", 200, 404), ("c", 404, 404)] {
        assert_eq!(ask(&server, host, "/.dot").head.status, dot, "{host}");
        assert_eq!(ask(&server, host, "/").head.status, listing, "{host}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_line() {
    for (text, expected) in [
        ("hidden =", "pagewire.toml:1:9: "),
        ("\nquite = true", "pagewire.toml:2:1: unknown key 'quite'; did you mean 'quiet'?"),
        ("listen = 'here'", "pagewire.toml:1:10: invalid value 'here' for 'listen': `here` is no"),
        ("route = 'teleport'", "pagewire.toml:1:9: invalid value 'teleport' for 'route': "),
        ("quiet = 'yes'", "pagewire.toml:1:9: 'quiet' takes true or false, not the text"),
        ("[[site]]\nhost='a'", "pagewire.toml:1:1: this [[site]] has no root = \"DIR\""),
        ("[[site]]\nroot='a'\nhost='a:80'", "pagewire.toml:3:6: 'a:80' is not a host"),
        ("[[site]]\nroot='a'\npath='up/'", "pagewire.toml:3:6: 'up/' is not a path"),
        (
            "[[site]]\nroot='a'\nhost='x'\n[[site]]\nroot='b'\nhost='X'",
            "pagewire.toml:4:1: a [[site]] above is for x at /, too",
        ),
        ("", "nothing to serve: name a directory"),
    ] {
        for mode in [&[][..], &["--check"], &["--show-config"]] {
            let (said, code) = Stage::new(text).refused(mode, &[]);
            assert!(said.starts_with(&format!("pagewire: {expected}")), "{text}: {said}");
            assert_eq!((said.lines().count(), code), (1, Some(1)), "{said}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let stage = Stage::new("");
    fs::remove_file(stage.file()).unwrap();
    let (said, code) = stage.refused(&[], &[]);
    assert!(
        said.starts_with("pagewire: cannot read the configuration file pagewire.toml: No such")
    );
    assert_eq!(code, Some(1));
}

#[test]
fn the_environment_is_named_where_it_is_wrong() {
    let stage = Stage::new("root = 'a'");
    let (said, code) = stage.refused(&[], &[("PAGEWIRE_THREADS", "many")]);
    assert!(said.contains("--threads") && said.contains("PAGEWIRE_THREADS"), "{said}");
    assert_eq!(code, Some(2));
}
