//! Many slow clients at once, and one that is not: nobody waits for them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::stage::{DEADLINE, LARGE, Tree, content, get, on_tcp, on_wires};

/// As many as fit in the 1,024 descriptors that a process has by default, both ends of each.
/// bench/runs has the figures of 10,000.
const SLOW: usize = 400;

/// Reads the first 20 kB of the large file at 10 kB a second, then goes.
async fn read_slowly(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    let mut buffer = [0; 1000];
    for _ in 0..20 {
        beat.tick().await;
        stream.read_exact(&mut buffer).await.unwrap();
    }
}

async fn nobody_waits(address: SocketAddr) {
    let mut slow: JoinSet<()> = (0..SLOW).map(|_| read_slowly(address)).collect();
    for _ in 0..20 {
        assert!(get(address, "/large.bin", &[]).await.body.unwrap() == content(LARGE));
    }
    let finished = async { while slow.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(DEADLINE, finished).await.unwrap();
}

#[tokio::test]
async fn slow_clients_on_wires() {
    let tree = Tree::new();
    nobody_waits(on_wires(Router::new().fallback_service(tree.serve().0)).await).await;
}

#[tokio::test]
async fn slow_clients_elsewhere() {
    let tree = Tree::new();
    nobody_waits(on_tcp(Router::new().fallback_service(tree.serve().0)).await).await;
}
