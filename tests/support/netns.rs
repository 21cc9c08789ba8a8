//! Network namespaces of our own, and a veth pair between two of them. Needs root and `ip`.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with its loopback up; removed, with its devices, when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    pub(crate) fn new() -> Netns {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pagewire-{}-{number}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let netns = Netns { name };
        netns.run("ip link set lo up");
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside; its words are split at spaces.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words.split(' '));
        command
    }

    /// Runs a command inside, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, words: &str) {
        succeed(&mut self.command(words));
    }

    /// Calls `work` on a thread inside; sockets made there stay inside for good.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let link = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let inside = move || {
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // It goes with the last process inside at the latest.
        Command::new("ip").args(["netns", "del", &self.name]).status().ok();
    }
}

/// Two namespaces with a veth pair between them: `va` is 10.9.0.1 in the first, `vb` 10.9.0.2 in
/// the second.
pub(crate) fn veth() -> (Netns, Netns) {
    let (a, b) = (Netns::new(), Netns::new());
    a.run(&format!("ip link add va type veth peer name vb netns {}", b.name()));
    a.run("ip address add 10.9.0.1/24 dev va");
    b.run("ip address add 10.9.0.2/24 dev vb");
    a.run("ip link set va up");
    b.run("ip link set vb up");
    (a, b)
}

#[track_caller]
fn succeed(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {status} {}", String::from_utf8_lossy(&stderr));
}
