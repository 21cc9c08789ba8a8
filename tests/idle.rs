//! Connections between requests: parked, they are as good as new, and end when the server does.

use std::fs;

use super::support::{Peer, Server, plain_dir};

/// Longer than it takes a connection to be parked.
const QUIET_MS: u64 = 1_500;

#[test]
fn a_connection_is_served_on_after_a_pause_wherever_it_came() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    let server = Server::start(dir.path(), &[]);
    let request = b"GET /file.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    // Between two requests, after the first bytes of the next one, and within its head's end.
    for cut in [0, 3, request.len() - 2] {
        let mut peer = Peer::connect(server.address());
        peer.send(&[request, &request[..cut]].concat());
        assert_eq!(peer.answer().body, b"content");
        peer.assert_silent(QUIET_MS);
        peer.send(&request[cut..]);
        assert_eq!(peer.answer().body, b"content", "cut at {cut}");
    }
}

#[test]
fn a_connection_that_said_nothing_yet_is_served() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut peer = Peer::connect(server.address());
    peer.assert_silent(QUIET_MS);
    peer.get("/file.txt");
    assert_eq!(peer.answer().body, b"content");
}

#[test]
fn parked_connections_end_when_the_server_stops() {
    let dir = plain_dir();
    fs::write(dir.path().join("file.txt"), "content").unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut peers = [Peer::connect(server.address()), Peer::connect(server.address())];
    peers[0].get("/file.txt");
    assert_eq!(peers[0].answer().body, b"content");
    peers[0].assert_silent(QUIET_MS);
    server.interrupt();
    for peer in &mut peers {
        assert_eq!(peer.rest(), b"");
    }
    assert_eq!(server.totals().connections, 2);
}
