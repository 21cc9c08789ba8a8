//! Which icon a name gets. PURE.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Extensions whose media type does not say what people take them for.
const ARCHIVES: [&str; 20] = [
    "7z", "apk", "bz2", "deb", "dmg", "gz", "img", "iso", "jar", "lz4", "qcow2", "rar", "rpm",
    "tar", "tgz", "whl", "xz", "zip", "zst", "txz",
];
const CODE: [&str; 30] = [
    "c", "cc", "cpp", "cs", "css", "go", "h", "hpp", "html", "java", "js", "json", "jsx", "kt",
    "lua", "mjs", "php", "pl", "py", "rb", "rs", "scss", "sh", "sql", "swift", "toml", "ts", "xml",
    "yaml", "yml",
];
const TEXT: [&str; 6] = ["log", "md", "pdf", "rst", "epub", "tex"];

/// The name of the page's symbol for what is called `name`.
pub(crate) fn of(name: &[u8], directory: bool) -> &'static str {
    if directory {
        return "folder";
    }
    let path = Path::new(OsStr::from_bytes(name));
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let extension = extension.to_ascii_lowercase();
    let is_one_of = |known: &[&str]| known.contains(&extension.as_str());
    if is_one_of(&ARCHIVES) {
        return "archive";
    }
    if is_one_of(&CODE) {
        return "code";
    }
    if is_one_of(&TEXT) {
        return "text";
    }
    let media_type = mime_guess::from_path(path).first_raw().unwrap_or_default();
    match media_type.split('/').next() {
        Some("image") => "image",
        Some("video") => "video",
        Some("audio") => "audio",
        Some("text") => "text",
        _ => "file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icons_follow_the_name() {
        for (name, expected) in [
            ("a.JPG", "image"),
            ("a.mkv", "video"),
            ("a.ts", "code"),
            ("a.flac", "audio"),
            ("a.tar.zst", "archive"),
            ("a.pdf", "text"),
            ("notes.txt", "text"),
            ("LICENSE", "file"),
            (".bashrc", "file"),
            ("a.safetensors", "file"),
        ] {
            assert_eq!(of(name.as_bytes(), false), expected, "{name}");
        }
        assert_eq!(of(b"a.jpg", true), "folder");
    }
}
