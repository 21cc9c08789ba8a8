//! The house rules of CONTRIBUTING.md as a test over the files that git tracks.
//! What rustc, clippy and rustfmt can see is left to them; this reads lines, not syntax.
//! A new rule is a new row of `RULES`, with files that it must catch and files that it must pass.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

#[test]
fn the_house_is_tidy() {
    let house = tracked_files();
    let findings: Vec<String> = RULES
        .iter()
        .flat_map(|rule| house.iter().flat_map(|file| rule.findings(file, &house)))
        .collect();
    assert!(findings.is_empty(), "untidy:\n{}\n", findings.join("\n"));
}

#[test]
fn each_rule_catches_what_it_is_for() {
    for rule in RULES {
        for example in rule.caught {
            assert!(rule.catches(example), "{:?} must catch {example:?}", rule.says);
        }
        for example in rule.passed {
            assert!(!rule.catches(example), "{:?} must pass {example:?}", rule.says);
        }
    }
}

const RULES: &[Rule] = &[
    // Directions
    Rule {
        says: "the engine knows nothing of HTTP",
        way_out: "move this to crates/http, or take what it needs as an argument",
        on: |file| file.is_in("crates/engine/src/"),
        find: |file, _| {
            file.shipped_naming(&["axum", "http", "hyper", "hyper_util", "pagewire_http", "tower"])
        },
        caught: &[("crates/engine/src/wire.rs", "use hyper::rt;")],
        passed: &[
            ("crates/engine/src/wire.rs", "// hyper writes head and body together"),
            ("crates/http/src/serve.rs", "use hyper::rt;"),
        ],
    },
    Rule {
        says: "http knows nothing of kafka",
        way_out: "move what both need into the engine",
        on: |file| file.is_in("crates/http/src/"),
        find: |file, _| file.shipped_naming(&["kafka", "pagewire_kafka"]),
        caught: &[("crates/http/src/body.rs", "use pagewire_kafka::Batch;")],
        passed: &[("src/main.rs", "use pagewire_kafka::Broker;")],
    },
    Rule {
        says: "in the engine only wire and socket name tokio",
        way_out: "keep the other rooms free of async, and let the wire call them",
        on: |file| file.is_in("crates/engine/src/") && !file.is_called(&["socket", "wire"]),
        find: |file, _| file.shipped_naming(&["tokio"]),
        caught: &[("crates/engine/src/transfer.rs", "use tokio::net;")],
        passed: &[
            ("crates/engine/src/lib.rs", "#[cfg(feature = \"tokio\")]"),
            ("crates/engine/src/transfer.rs", "mod tests {\n    use tokio::net;\n}"),
            ("crates/engine/src/wire.rs", "use tokio::net;"),
        ],
    },
    Rule {
        says: "a pure room does no I/O and reads no clock, environment or log",
        way_out: "let the caller ask the system, and take the answer as an argument",
        on: File::is_pure,
        find: |file, _| {
            let clocks = file.shipped_naming(&["Instant::now", "SystemTime::now"]);
            let rooms = file.shipped_naming(&["env", "fs", "net", "rustix", "sys", "tracing"]);
            [clocks, rooms].concat()
        },
        caught: &[
            ("crates/engine/src/plan.rs", "use crate::sys::sendfile;"),
            ("crates/engine/src/route.rs", "use std::{fmt, fs};"),
            ("crates/http/src/range.rs", "//! PURE: ranges.\nlet now = Instant::now();"),
        ],
        passed: &[
            ("crates/engine/src/plan.rs", "use std::time::{Duration, Instant};"),
            ("crates/http/src/files.rs", "let now = Instant::now();"),
        ],
    },
    Rule {
        says: "unsafe lives in the engine's sys/ only",
        way_out: "use rustix, or wrap the call in crates/engine/src/sys/",
        on: |file| file.is_rust() && !file.is_in("crates/engine/src/sys/"),
        find: |file, _| file.lines_where(|line| names(&line.code, "unsafe")),
        caught: &[("src/main.rs", "unsafe { exit() }")],
        passed: &[
            ("crates/engine/src/sys/map.rs", "unsafe { map() }"),
            ("src/main.rs", "#![forbid(unsafe_code)] // unsafe has one room"),
        ],
    },
    Rule {
        says: "every crate but the engine forbids unsafe code",
        way_out: "put #![forbid(unsafe_code)] below the file's opening lines",
        on: |file| file.is_crate_root() && !file.is_in("crates/engine/src/"),
        find: |file, _| first_line_if(!file.has(|line| line.code == "#![forbid(unsafe_code)]")),
        caught: &[("crates/http/src/lib.rs", "//! Serves.\n// #![forbid(unsafe_code)]")],
        passed: &[
            ("crates/engine/src/lib.rs", "//! Moves."),
            ("src/main.rs", "//! Runs.\n#![forbid(unsafe_code)]"),
        ],
    },
    // Shape
    Rule {
        says: "folders below src are at most 2 deep",
        way_out: "move the file up; if no room there fits, the rooms are cut wrong",
        on: File::is_rust,
        find: |file, _| {
            let below = file.path.split_once("src/").map_or("", |(_, below)| below);
            first_line_if(below.matches('/').count() > 2)
        },
        caught: &[("crates/http/src/a/b/c/d.rs", "")],
        passed: &[("crates/http/src/a/b/c.rs", "")],
    },
    Rule {
        says: "a file is named for its one idea",
        way_out: "make each helper a method of its type, or name the idea",
        on: File::is_rust,
        find: |file, _| {
            let vague = ["common", "helper", "helpers", "misc", "util", "utils"];
            first_line_if(file.is_called(&vague))
        },
        caught: &[("src/utils.rs", ""), ("tests/common/mod.rs", "")],
        passed: &[("src/flags.rs", ""), ("src/utility.rs", "")],
    },
    Rule {
        says: "a file opens by saying what lives in it",
        way_out: "begin with 1 to 5 lines of //!: what is here, what is not, who calls it",
        on: File::is_rust,
        find: |file, _| first_line_if(!file.text.starts_with("//! ")),
        caught: &[("src/main.rs", "use std::fs;\n//! Late.")],
        passed: &[("src/main.rs", "//! Runs one command.")],
    },
    Rule {
        says: "a line has at most 100 columns",
        way_out: "break it; rustfmt leaves long strings and comments to you",
        on: File::is_rust,
        find: |file, _| file.lines_where(|line| line.raw.chars().count() > 100),
        caught: &[("src/main.rs", COLUMNS_101)],
        passed: &[("src/main.rs", "//! Short.")],
    },
    Rule {
        says: "a file has at most 600 lines before its tests",
        way_out: "find the second idea in it and give that a file; aim under 300",
        on: File::is_rust,
        find: |file, _| file.lines_where(|line| line.number == 601 && !line.is_inline_test),
        caught: &[("src/main.rs", LINES_601)],
        passed: &[("src/main.rs", "//! Short.")],
    },
    Rule {
        says: "no file is dead",
        way_out: "declare it with `mod` in its folder, or delete it",
        on: File::is_module,
        find: |file, house| first_line_if(!file.is_declared_in(house)),
        caught: &[("src/lost.rs", "// mod lost;"), ("tests/lost/mod.rs", "")],
        passed: &[("src/flags/mod.rs", ""), ("src/main.rs", ""), ("tests/tests.rs", "")],
    },
    Rule {
        says: "a script can be run",
        way_out: "chmod +x",
        on: |file| file.is_in("scripts/") || file.is_in(".ci/"),
        find: |file, _| first_line_if(file.text.starts_with("#!") && !file.is_executable),
        caught: &[("scripts/test", "#!/usr/bin/env bash")],
        passed: &[("scripts/notes.md", "How to test.")],
    },
    // Wording
    Rule {
        says: "tests do not sleep",
        way_out: "wait for the event, or for a condition with a deadline",
        on: File::is_rust,
        find: |file, _| file.lines_where(|line| line.is_test && names(&line.code, "sleep")),
        caught: &[
            ("tests/serve.rs", "thread::sleep(second);"),
            ("src/main.rs", "mod tests {\n    use tokio::time::{sleep, timeout};\n}"),
        ],
        passed: &[("src/main.rs", "time::sleep(pause).await;")],
    },
    Rule {
        says: "an exception to a lint is an expectation with its reason",
        way_out: "write #[expect(lint, reason = \"...\")], which fails once it is not needed",
        on: File::is_rust,
        find: |file, _| file.lines_where(|line| line.code.contains("[allow(")),
        caught: &[("src/main.rs", "#![allow(dead_code)]")],
        passed: &[("src/main.rs", "#[expect(dead_code, reason = \"[allow(\")]")],
    },
    Rule {
        says: "what is left to do has an issue",
        way_out: "open an issue and write its number on the line as #123, or do it",
        on: File::is_rust,
        find: |file, _| {
            let is_left = |line: &Line| LEFT_TO_DO.iter().any(|mark| names(line.raw, mark));
            file.lines_where(|line| is_left(line) && !cites_an_issue(line.raw))
        },
        caught: &[("src/main.rs", concat!("// TO", "DO: later #soon"))],
        passed: &[("src/main.rs", concat!("// TO", "DO(#12): later")), ("src/main.rs", "todo!()")],
    },
    Rule {
        says: "no file knows the machine it was written on",
        way_out: "use a path below the repository, or one from the environment",
        on: |_| true,
        find: |file, _| {
            file.lines_where(|line| MACHINE_PATHS.iter().any(|path| names(line.raw, path)))
        },
        caught: &[("docs/lab.md", concat!("see /ro", "ot/notes"))],
        passed: &[("docs/lab.md", concat!("see example.org/ro", "ot/notes"))],
    },
];

// In halves, so that this file does not match itself.
const LEFT_TO_DO: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const MACHINE_PATHS: [&str; 3] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

const COLUMNS_101: &str = ascii(&[b'/'; 101]);
const LINES_601: &str = ascii(&[b'\n'; 601]);

struct Rule {
    says: &'static str,
    way_out: &'static str,
    on: fn(&File) -> bool,
    /// The numbers of the lines at fault, given the file and the house it stands in.
    find: fn(&File, &[File]) -> Vec<usize>,
    caught: &'static [Example],
    passed: &'static [Example],
}

/// The path and the text of a file.
type Example = (&'static str, &'static str);

impl Rule {
    fn findings(&self, file: &File, house: &[File]) -> Vec<String> {
        let numbers = if (self.on)(file) { (self.find)(file, house) } else { Vec::new() };
        let (path, says, way_out) = (&file.path, self.says, self.way_out);
        let report = |number| format!("{path}:{number}: {says}\n    way out: {way_out}");
        numbers.into_iter().map(report).collect()
    }

    fn catches(&self, (path, text): &Example) -> bool {
        let house = [File::new("src/main.rs", "mod flags;")];
        !self.findings(&File::new(path, text), &house).is_empty()
    }
}

struct File {
    /// From the root of the repository, as are all paths here.
    path: String,
    text: String,
    is_executable: bool,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), is_executable: false }
    }

    /// None for what is not text, and for what was deleted but not yet committed.
    fn read(root: &Path, path: &str) -> Option<Self> {
        let text = fs::read_to_string(root.join(path)).ok()?;
        let mode = fs::metadata(root.join(path)).ok()?.permissions().mode();
        Some(Self { is_executable: mode & 0o111 != 0, ..Self::new(path, &text) })
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Whether the file or a folder it is in has one of these names.
    fn is_called(&self, names: &[&str]) -> bool {
        let path = self.path.trim_end_matches(".rs");
        path.split('/').any(|part| names.contains(&part))
    }

    /// Route and plan are; a file whose opening lines say PURE wants to be.
    fn is_pure(&self) -> bool {
        let is_engine = self.is_in("crates/engine/src/") && self.is_called(&["plan", "route"]);
        let mut opening = self.text.lines().take_while(|line| line.starts_with("//!"));
        is_engine || opening.any(|line| names(line, "PURE"))
    }

    fn is_crate_root(&self) -> bool {
        self.path == "src/main.rs" || self.path.ends_with("src/lib.rs")
    }

    /// Whether cargo builds this file only if another one declares it.
    fn is_module(&self) -> bool {
        let is_root = self.is_crate_root() || self.path == "tests/tests.rs";
        self.is_rust() && (self.path.contains("src/") || self.is_in("tests/")) && !is_root
    }

    fn is_declared_in(&self, house: &[File]) -> bool {
        let module = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let (folder, name) = module.rsplit_once('/').unwrap_or(("", module));
        let declaration = format!("mod {name};");
        let mut neighbours = house.iter().filter(|file| file.folder() == folder);
        neighbours.any(|file| file.has(|line| names(&line.code, &declaration)))
    }

    fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn has(&self, is_sought: impl Fn(&Line) -> bool) -> bool {
        self.lines().any(|line| is_sought(&line))
    }

    fn lines_where(&self, is_sought: impl Fn(&Line) -> bool) -> Vec<usize> {
        self.lines().filter(is_sought).map(|line| line.number).collect()
    }

    fn shipped_naming(&self, words: &[&str]) -> Vec<usize> {
        let names_one = |line: &Line| words.iter().any(|word| names(&line.code, word));
        self.lines_where(|line| !line.is_test && names_one(line))
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let is_test_file = self.is_called(&["tests"]);
        let inline_tests = self.text.lines().position(|line| line == "mod tests {");
        self.text.lines().enumerate().map(move |(index, raw)| {
            let is_inline_test = inline_tests.is_some_and(|start| index >= start);
            let is_test = is_test_file || is_inline_test;
            Line { number: index + 1, raw, code: code_of(raw), is_test, is_inline_test }
        })
    }
}

struct Line<'a> {
    number: usize,
    raw: &'a str,
    code: String,
    is_test: bool,
    is_inline_test: bool,
}

/// The line without its comment and without what stands in its strings.
fn code_of(raw: &str) -> String {
    let unescaped = raw.replace(r"\\", "").replace(r#"\""#, "").replace("'\"'", "");
    let outside: Vec<&str> = unescaped.split('"').step_by(2).collect();
    let code = outside.join("\"\"");
    code.split("//").next().unwrap_or_default().trim_end().to_owned()
}

/// Whether the text has this word, and not only as a piece of a longer one.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + word.len()..]);
        let goes_on = word.ends_with(is_part) && after.starts_with(is_part);
        !before.ends_with(is_part) && !goes_on
    })
}

fn cites_an_issue(text: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    text.split('#').skip(1).any(|after| after.starts_with(is_digit))
}

fn first_line_if(is_fault: bool) -> Vec<usize> {
    if is_fault { vec![1] } else { Vec::new() }
}

fn tracked_files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // CI may run as another user than the one who owns the clone, which git refuses unless told.
    let listing = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root)
        .output()
        .expect("git runs");
    let complaint = String::from_utf8_lossy(&listing.stderr);
    assert!(listing.status.success(), "tidy needs a clone, for git's list of files: {complaint}");
    let paths = String::from_utf8(listing.stdout).expect("paths are UTF-8");
    let files: Vec<File> =
        paths.split_terminator('\0').filter_map(|path| File::read(root, path)).collect();
    assert!(files.iter().any(File::is_crate_root), "git lists no crate below {}", root.display());
    files
}

const fn ascii(bytes: &'static [u8]) -> &'static str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!(),
    }
}
