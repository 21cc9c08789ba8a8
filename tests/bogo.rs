//! BoringSSL's test runner against the engine's TLS: cases of handshakes that rustls answers, and
//! of records after them, which are ours. `scripts/bogo` builds it; `bogo/config.json` says what
//! is left out, and why.

use std::path::Path;
use std::process::{Command, Output};

use super::support::{heavy, need, skip};
use super::vm::{example, target};

/// So many cases pass at least: a server that offers nothing would fail none.
const PASSED_MIN: usize = 240;

#[test]
fn the_cases_of_boringssl() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = target().join("bogo");
    if !need("go") {
        return;
    }
    if !place.join("runner").exists() {
        return skip("BoringSSL's test runner is missing (scripts/bogo builds it)");
    }
    let _turn = heavy();
    let mut runner = Command::new(place.join("runner"));
    runner.arg("-shim-path").arg(example("bogo_shim"));
    runner.arg("-resource-dir").arg(place.join("certificates"));
    runner.arg("-shim-config").arg(root.join("tests/bogo/config.json"));
    // Errors have other names here than in BoringSSL; alerts that were sent are checked.
    runner.args(["-allow-unimplemented", "-loose-errors", "-num-workers", "8", "-pipe"]);
    let Output { status, stdout, stderr } = runner.current_dir(&place).output().unwrap();
    let (said, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let of = |kind| said.lines().filter(|line| line.starts_with(kind)).count();
    let (passed, failed) = (of("PASSED ("), of("FAILED ("));
    println!("{passed} passed, {} are of what is not offered", of("UNIMPLEMENTED ("));
    let told = said.split_inclusive('\n').filter(|line| !line.starts_with("UNIMPLEMENTED ("));
    let told = || told.clone().filter(|line| !line.starts_with("PASSED (")).collect::<String>();
    assert!(status.success() && failed == 0, "{status}: {failed} failed\n{}{stderr}", told());
    assert!(passed >= PASSED_MIN, "only {passed} cases passed");
    let mirrored = said.lines().filter(|line| line.starts_with("PASSED"));
    assert!(mirrored.filter(|line| line.contains("-Mirrored")).count() >= 20);
}
