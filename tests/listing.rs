//! Directories without an index.html: the page, the JSON, what they leave out, and both in the
//! hands of a browser and of wget.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::support::{Answer, Peer, Server, ask, need, plain_dir, wait_until};

/// Names that would do harm on a page or in a link, if they were let.
const HOSTILE: [&[u8]; 14] = [
    b"<script>alert(1)<\xe2\x88\x95script>",
    b"\"onmouseover=alert(1) x=\"",
    b"a'b&amp;c",
    b"new\nline\r\n\r\nX: y",
    b"100%25 of %00",
    b"\xff\xfe not UTF-8",
    "turned \u{202e}txt.exe".as_bytes(),
    "\u{5e2}\u{5d1}\u{5e8}\u{5d9}\u{5ea}.txt".as_bytes(),
    b"?tar",
    b"#fragment",
    b"javascript:alert(1)",
    b"back\\slash",
    b" spaces ",
    b"{{ title }}",
];

fn get(server: &Server, target: &str) -> Answer {
    ask(server, target).answer()
}

fn get_with(server: &Server, target: &str, headers: &str) -> Answer {
    let mut peer = Peer::connect(server.address());
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes());
    peer.answer()
}

fn text(answer: &Answer) -> String {
    assert_eq!(answer.head.status, 200, "{:?}", answer.head);
    String::from_utf8(answer.body.clone()).unwrap()
}

/// What of a page is made of what the directory holds.
fn shown(page: &str) -> &str {
    page.split_once("<main").unwrap().1.split_once("</main>").unwrap().0
}

/// The targets of the rows of a page, in order.
fn hrefs(page: &str) -> Vec<String> {
    let rows = page.split("<tr").skip(2);
    let href = |row: &str| Some(row.split_once("href=\"")?.1.split_once('"')?.0.to_owned());
    rows.filter_map(href).filter(|href| href != "../").collect()
}

#[test]
fn every_name_is_shown_safely_and_linked_right() {
    let dir = plain_dir();
    for (at, name) in HOSTILE.iter().enumerate() {
        fs::write(dir.path().join(OsStr::from_bytes(name)), at.to_string()).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    let page = text(&get(&server, "/"));
    let shown = shown(&page);
    assert!(!shown.contains("<script") && !shown.contains("\"onmouseover"), "{shown}");
    assert!(!shown.contains('\u{202e}') && shown.contains("{{ title }}"), "{shown}");
    let mut found: Vec<usize> = hrefs(&page)
        .iter()
        .map(|href| text(&get(&server, &format!("/{href}"))).parse().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..HOSTILE.len()).collect::<Vec<_>>());
}

#[test]
fn only_what_can_be_fetched_is_listed() {
    let dir = plain_dir();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    for name in ["file", "sub/inner", ".hidden"] {
        fs::write(root.join(name), name).unwrap();
    }
    for (link, leads_to) in [
        ("good", "sub/inner"),
        ("folder", "sub"),
        ("out", "../secret"),
        ("absolute", "/etc/passwd"),
        ("broken", "nowhere"),
        ("loop", "loop"),
        ("up", ".."),
    ] {
        symlink(leads_to, root.join(link)).unwrap();
    }
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let server = Server::start(&root, &[]);
    let page = text(&get(&server, "/"));
    assert_eq!(hrefs(&page), ["folder/", "sub/", "file", "good"]);
    assert_eq!(page.matches("<title>symbolic link").count(), 2);
    assert_eq!(text(&get(&server, "/good")), "sub/inner");
    assert_eq!(get(&server, "/up/").head.status, 404);
}

#[test]
fn hidden_names_are_neither_listed_nor_served_unless_asked_for() {
    let dir = plain_dir();
    for folder in [".git", ".well-known", "sub/.deep", "sub/.well-known"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("f"), folder).unwrap();
    }
    fs::write(dir.path().join(".env"), ".env").unwrap();
    let hidden = ["/.env", "/.git/f", "/.git/", "/sub/.deep/f", "/sub/.well-known/f", "/%2egit/f"];
    let server = Server::start(dir.path(), &[]);
    for target in hidden {
        assert_eq!(get(&server, target).head.status, 404, "{target}");
    }
    assert_eq!(text(&get(&server, "/.well-known/f")), ".well-known");
    assert_eq!(hrefs(&text(&get(&server, "/"))), ["sub/"]);
    let server = Server::start(dir.path(), &["--hidden"]);
    for target in hidden {
        assert_eq!(get(&server, target).head.status, 200, "{target}");
    }
    assert_eq!(hrefs(&text(&get(&server, "/"))), [".git/", ".well-known/", "sub/", ".env"]);
}

#[test]
fn the_server_sorts_filters_and_turns_pages() {
    let dir = plain_dir();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (name, len) in [("b10", 1), ("b9", 30), ("A", 20), ("c", 20)] {
        fs::write(dir.path().join(name), vec![0; len]).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    for (query, expected) in [
        ("", ["folder/", "A", "b9", "b10", "c"].as_slice()),
        ("?sort=name&order=desc", &["folder/", "c", "b10", "b9", "A"]),
        ("?sort=size&order=desc", &["folder/", "b9", "A", "c", "b10"]),
        ("?sort=size", &["folder/", "b10", "A", "c", "b9"]),
        ("?q=B", &["b9", "b10"]),
        ("?q=B&sort=size", &["b10", "b9"]),
        ("?q=x%22%3E%3Cscript%3E", &[]),
        ("?page=7&bogus=1", &["folder/", "A", "b9", "b10", "c"]),
    ] {
        let page = text(&get(&server, &format!("/{query}")));
        assert_eq!(hrefs(&page), expected, "{query}");
        assert!(!page.contains("\"><script>"), "{page}");
    }
    let many = dir.path().join("folder");
    for number in 0..2500 {
        fs::write(many.join(format!("n{number}")), "").unwrap();
    }
    let mut target = "/folder/".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = text(&get(&server, &target));
        seen.extend(hrefs(&page));
        let Some((_, next)) = page.split_once("rel=\"next\" href=\"") else { break };
        target = format!("/folder/{}", next.split('"').next().unwrap());
    }
    assert_eq!(seen, (0..2500).map(|number| format!("n{number}")).collect::<Vec<_>>());
}

#[test]
fn json_is_for_programs() {
    let dir = plain_dir();
    fs::create_dir_all(dir.path().join("a b/sub")).unwrap();
    fs::write(dir.path().join("a b/f"), "12345").unwrap();
    fs::write(dir.path().join("a b").join(OsStr::from_bytes(b"\xff\"")), "").unwrap();
    let server = Server::start(dir.path(), &[]);
    let answer = get_with(&server, "/a%20b/", "Accept: application/json\r\n");
    assert_eq!(answer.head.header("content-type"), Some("application/json"));
    assert_eq!(answer.head.header("vary"), Some("Accept"));
    let json = text(&answer);
    let start =
        r#"{"path":"/a%20b/","total":3,"found":3,"page":1,"pages":1,"next":null,"entries":["#;
    assert!(json.starts_with(start), "{json}");
    for piece in [
        r#"{"name":"sub","href":"sub/","type":"directory","symlink":false,"size":null,"#,
        r#"{"name":"f","href":"f","type":"file","symlink":false,"size":5,"modified":"2"#,
        "{\"name\":\"\u{fffd}\\\"\",\"href\":\"%FF%22\",",
    ] {
        assert!(json.contains(piece), "{piece} in {json}");
    }
    assert_eq!(json, text(&get(&server, "/a%20b/?json")));
    let tag = answer.head.header("etag").unwrap();
    let again = format!("Accept: application/json\r\nIf-None-Match: {tag}\r\n");
    let unchanged = get_with(&server, "/a%20b/", &again);
    assert_eq!((unchanged.head.status, unchanged.head.header("etag")), (304, Some(tag)));
    // The page is another representation, and a change is seen at once.
    let html = get_with(&server, "/a%20b/", &format!("If-None-Match: {tag}\r\n"));
    assert!(text(&html).starts_with("<!doctype html>"));
    fs::write(dir.path().join("a b/new"), "").unwrap();
    assert_eq!(get_with(&server, "/a%20b/", &again).head.status, 200);
}

#[test]
fn head_tells_the_same_without_a_body() {
    let dir = plain_dir();
    let server = Server::start(dir.path(), &[]);
    let got = get(&server, "/");
    let mut peer = Peer::connect(server.address());
    peer.send(b"HEAD / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let head = peer.head();
    assert_eq!(peer.rest(), b"");
    for name in ["content-length", "etag", "content-type", "content-security-policy"] {
        assert!(head.header(name).is_some(), "{name}");
        assert_eq!(head.header(name), got.head.header(name), "{name}");
    }
}

#[test]
fn a_phone_is_shown_the_address_that_the_page_was_asked_at() {
    let dir = plain_dir();
    let server = Server::start(dir.path(), &[]);
    let answer = |host: &str| {
        let mut peer = Peer::connect(server.address());
        peer.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        peer.answer()
    };
    let page = |host: &str| text(&answer(host));
    assert!(page("files.example:8080").contains("<p>http://files.example:8080/</p>"));
    assert!(page("localhost:1").contains("--listen"));
    for host in ["", "a:b:c", "["] {
        assert!(!shown(&page(host)).contains("class=\"phone\""), "{host}");
    }
    for host in ["<script>", "a\"b", "me@files.example"] {
        assert_eq!(answer(host).head.status, 400, "{host}");
    }
}

#[test]
fn wget_mirrors_a_tree_by_its_pages() {
    if !need("wget") {
        return;
    }
    let dir = plain_dir();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub/deep er")).unwrap();
    for (name, content) in [("one", "1"), ("sub/t wo", "2"), ("sub/deep er/three%", "3")] {
        fs::write(tree.join(name), content).unwrap();
    }
    let server = Server::start(&tree, &[]);
    let home = dir.path().join("mirror");
    fs::create_dir(&home).unwrap();
    let mut wget = Command::new("wget");
    wget.args(["--quiet", "--recursive", "--level=inf", "--no-host-directories"]);
    let status = wget.arg(server.url("/")).current_dir(&home).status().unwrap();
    assert!(status.success());
    let mut found = files_below(&home);
    found.retain(|name, _| !name.ends_with("index.html"));
    assert_eq!(found, files_below(&tree));
}

fn files_below(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// Drives the page in a frame, as a person would, and writes down what it then shows.
const DRIVER: &str = r#"<!doctype html><pre id="seen"></pre><script>
const seen = {}, done = () => document.getElementById("seen").textContent = JSON.stringify(seen);
const loaded = (frame) => new Promise((next) => {
  frame.addEventListener("load", next, { once: true });
});
const names = (page) => {
  const shown = [...page.querySelectorAll("tbody tr:not([hidden]) bdi")];
  return shown.map((bdi) => bdi.textContent).join(" ");
};
const frame = (sandbox) => {
  const frame = document.createElement("iframe");
  if (sandbox) frame.sandbox = sandbox;
  frame.src = "/list/";
  document.body.append(frame);
  return loaded(frame).then(() => frame);
};
(async () => {
  const live = (await frame()).contentDocument;
  seen.at_first = names(live);
  const field = live.getElementById("q");
  field.value = "B1";
  field.dispatchEvent(new Event("input"));
  seen.filtered = names(live) + "; " + live.getElementById("said").textContent;
  field.value = "";
  field.dispatchEvent(new Event("input"));
  live.querySelector("button[value=size]").click();
  const head = live.querySelector("[data-sort=size]");
  seen.by_size = names(live) + "; " + head.getAttribute("aria-sort");
  live.querySelector("button[value=size]").click();
  seen.by_size_up = names(live);
  seen.address = live.location.search;
  seen.ran = live.defaultView.harm ?? "nothing";
  seen.bold = live.querySelector(".readme b").textContent;
  const still = await frame("allow-same-origin allow-forms");
  seen.background = getComputedStyle(still.contentDocument.querySelector("main")).maxWidth;
  still.contentDocument.querySelector("button[value=size]").click();
  await loaded(still);
  seen.without_scripts = names(still.contentDocument);
  done();
})().catch((error) => { seen.error = String(error); done(); });
</script>"#;

#[test]
fn a_browser_sorts_and_filters_with_scripts_and_without() {
    if !need("chromium") {
        return;
    }
    let dir = plain_dir();
    let list = dir.path().join("list");
    fs::create_dir_all(list.join("z")).unwrap();
    for (name, len) in [("b1", 3), ("b2", 1), ("b10", 2)] {
        fs::write(list.join(name), vec![0; len]).unwrap();
    }
    let readme = "<script>window.harm = 'script'</script><b onclick='harm=1'>bold</b>\
        <img src=/none onerror=\"window.harm = 'handler'\">";
    fs::write(list.join("README.md"), readme).unwrap();
    fs::write(dir.path().join("index.html"), DRIVER).unwrap();
    let server = Server::start(dir.path(), &[]);
    let seen = seen_by_chromium(&server.url("/"));
    for piece in [
        r#""at_first":".. z/ b1 b2 b10 README.md""#,
        r#""filtered":".. b1 b10; 2 of 5 shown""#,
        r#""by_size":".. z/ README.md b1 b10 b2; descending""#,
        r#""by_size_up":".. z/ b2 b10 b1 README.md""#,
        r#""address":"?sort=size&amp;order=asc""#,
        r#""ran":"nothing""#,
        r#""bold":"bold""#,
        r#""background":"992px""#,
        r#""without_scripts":".. z/ README.md b1 b10 b2""#,
    ] {
        assert!(seen.contains(piece), "{piece} in {seen}");
    }
}

/// What the page at `url` wrote into its element `seen`.
fn seen_by_chromium(url: &str) -> String {
    let profile = plain_dir();
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update"]);
    chromium.args(["--disable-sync", "--virtual-time-budget=20000", "--dump-dom"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    let child = chromium.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = child.spawn().unwrap();
    let lines = super::support::Lines::collect(child.stdout.take().unwrap());
    let ended = wait_until("chromium", || child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    wait_until("the page's end", || {
        lines.all().iter().any(|line| line.contains("</html>")).then_some(())
    });
    let page = lines.all().join("\n");
    let (_, seen) = page.split_once("<pre id=\"seen\">").unwrap_or_else(|| panic!("{page}"));
    seen.split("</pre>").next().unwrap().to_owned()
}
