//! Network namespaces without a name: they are gone with their last user, however that ends, so
//! nothing has to be cleaned up. Needs root, and the programs `unshare` and `ip`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::fstat;

use crate::lab::place::Place;

const START_PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace with its loopback up.
#[derive(Debug)]
pub(crate) struct Netns {
    link: File,
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl Netns {
    /// Makes one, of the same processor as `place`, and the place in it.
    pub(crate) fn make(place: &Place) -> anyhow::Result<(Arc<Self>, Place)> {
        let netns = Arc::new(Self { link: unshared()? });
        let inside = place.within(&netns, place.address);
        inside.run(|| succeed("ip link set lo up"))?;
        Ok((netns, inside))
    }

    /// A path that leads to it while this process lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.link.as_raw_fd())
    }
}

/// A handle to a new namespace. The program that made it ends once we have the handle; if we end
/// before, it ends with its standard input.
fn unshared() -> anyhow::Result<File> {
    let mut command = Command::new("unshare");
    command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    let mut maker = command.spawn().context("cannot run `unshare` (of util-linux)")?;
    let opened = wait_for_its_network(maker.id());
    drop(maker.stdin.take());
    let output = maker.wait_with_output().context("cannot wait for `unshare`")?;
    if !output.status.success() {
        bail!("cannot make a network namespace: {}", words(&output.stderr));
    }
    opened
}

fn wait_for_its_network(pid: u32) -> anyhow::Result<File> {
    let ours = fstat(File::open("/proc/thread-self/ns/net")?)?.st_ino;
    let until = Instant::now() + START_PATIENCE;
    while Instant::now() < until {
        // It is gone when unshare(2) was refused; its own words say why.
        let link = File::open(format!("/proc/{pid}/ns/net"))?;
        if fstat(&link)?.st_ino != ours {
            return Ok(link);
        }
        std::thread::yield_now();
    }
    bail!("`unshare` made no network namespace within {START_PATIENCE:?}")
}

/// Runs a command line, whose words are split at spaces, where the calling thread is.
pub(crate) fn succeed(line: &str) -> anyhow::Result<()> {
    let mut parts = line.split(' ');
    let program = parts.next().context("an empty command line")?;
    let output = Command::new(program).args(parts).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run the program `{program}`"))?;
    ensure!(output.status.success(), "`{line}`: {} {}", output.status, words(&output.stderr));
    Ok(())
}

fn words(said: &[u8]) -> String {
    String::from_utf8_lossy(said).trim().replace('\n', "; ")
}
