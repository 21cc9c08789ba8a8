//! The live page: one document without outside resources, which asks for `live.json` each second.

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("../../../templates/live.css");
const SCRIPT: &str = include_str!("../../../templates/live.js");

/// What the page may do: use its own style and script, and ask this server.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// It is the same for everybody, and as long as this process runs.
pub(crate) static PAGE: LazyLock<String> = LazyLock::new(|| {
    let page = Page { css: STYLE, script: SCRIPT, host: host_name() };
    page.render().expect("nothing in it can fail")
});

#[derive(Template)]
#[template(path = "live.html")]
struct Page {
    css: &'static str,
    script: &'static str,
    host: String,
}

/// Which machine this is: with ten such pages open that is what one looks for.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
