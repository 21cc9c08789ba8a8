//! What systemd gives and is told: sockets that listen already, and the state of the service.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};

use super::support::{PATIENCE, Server, need, pagewire, plain_dir, program, wait_until};

/// Whoever starts the program once somebody connects: systemd's own tool for that.
struct Activator(Child);

impl Activator {
    /// Has the program started, with `arguments`, at the first connection to `address`.
    fn start(address: &str, arguments: &[&str]) -> Activator {
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--listen", address, "--"]).arg(program()).arg("serve").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Activator(command.spawn().unwrap())
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        // It became the server.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn asked(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /name HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn sockets_that_systemd_opened_are_served() {
    if !need("systemd-socket-activate") {
        return;
    }
    let dir = plain_dir();
    let root = dir.path().to_str().unwrap();
    fs::write(dir.path().join("name"), "served").unwrap();
    let tcp = free_port();
    let unix = dir.path().join("web.sock");
    // The one is also named by a flag, the other is listened on instead of the default.
    for (place, flags) in [
        (tcp.to_string(), vec![root, "--listen", &*tcp.to_string()]),
        (unix.display().to_string(), vec![root]),
    ] {
        let _activator = Activator::start(&place, &flags);
        let answer = wait_until("the activator's socket", || match place.starts_with('/') {
            true => Some(asked(UnixStream::connect(&place).ok()?)),
            false => Some(asked(TcpStream::connect(&place).ok()?)),
        });
        assert!(answer.ends_with("\r\n\r\nserved"), "{place}: {answer}");
    }
    assert!(unix.exists(), "the socket's name is whose who made it");
}

/// What the program tells, message by message.
struct Manager(UnixDatagram);

impl Manager {
    fn new(directory: &Path) -> Manager {
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }

    #[track_caller]
    fn hears(&self, expected: &str) {
        let mut message = [0; 4096];
        let len = self.0.recv(&mut message).unwrap();
        let message = String::from_utf8_lossy(&message[..len]);
        let is_it = message == expected || message.starts_with(&format!("{expected}\n"));
        assert!(is_it, "{message:?} instead of {expected:?}");
    }
}

#[test]
fn the_service_manager_hears_what_the_server_is_at() {
    let dir = plain_dir();
    let manager = Manager::new(dir.path());
    let mut command = pagewire(&["serve", "--listen", "127.0.0.1:0"]);
    command.arg(dir.path()).env("NOTIFY_SOCKET", dir.path().join("notify"));
    let server = Server::spawn(command);
    manager.hears("READY=1");
    kill_process(server.pid(), Signal::HUP).unwrap();
    manager.hears("RELOADING=1");
    manager.hears("STATUS=reloaded: nothing changed");
    manager.hears("READY=1");
    kill_process(server.pid(), Signal::TERM).unwrap();
    manager.hears("STOPPING=1");
    server.finish();
}

/// Descriptors that are meant for another process are not touched.
#[test]
fn only_what_is_meant_for_it_is_taken() {
    let dir = plain_dir();
    let mut command = pagewire(&["serve", "--listen", "127.0.0.1:0"]);
    command.arg(dir.path()).env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let server = Server::spawn(command);
    assert_eq!(server.addresses().len(), 1);
}

#[test]
fn the_units_are_valid() {
    if !need("systemd-analyze") {
        return;
    }
    let dir = plain_dir();
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    for unit in ["pagewire.service", "pagewire.socket"] {
        let text = fs::read_to_string(contrib.join(unit)).unwrap();
        let here = text.replace("/usr/bin/pagewire", program().to_str().unwrap());
        fs::write(dir.path().join(unit), here).unwrap();
    }
    for unit in ["pagewire.service", "pagewire.socket"] {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]);
        let output = verify.arg(dir.path().join(unit)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let about = said.lines().filter(|line| line.contains("pagewire")).collect::<Vec<_>>();
        assert!(output.status.success() && about.is_empty(), "{said}");
    }
}

/// What is left open is said in docs/operations.md; of 100, less is better.
#[test]
fn the_service_stays_as_closed_as_it_is() {
    if !need("systemd-analyze") {
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--threshold=17"]);
    let output = security.arg(here.join("contrib/systemd/pagewire.service")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
