//! A protocol of its own over `Wire::send`: a client on a Unix socket names a file in a line, and
//! gets its length as eight bytes, then its content. `cargo run --example length_prefixed SOCKET`

use std::fs::File;
use std::io;

use pagewire_engine::{Payload, SourceFile, Wire};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

async fn answer(stream: UnixStream) -> io::Result<()> {
    let mut wire = BufReader::new(Wire::new(stream));
    let mut name = String::new();
    while wire.read_line(&mut name).await? > 0 {
        let file = SourceFile::new(File::open(name.trim_end())?)?;
        let head = bytes::Bytes::copy_from_slice(&file.len().to_be_bytes());
        let payload = Payload::new().bytes(head).file(file.whole());
        let report = wire.get_mut().send(payload).await?;
        let routes: Vec<_> = report.tally.routes_taken().collect();
        println!("{} bytes by {routes:?} in {:?}", report.tally.total().bytes, report.elapsed);
        name.clear();
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_else(|| "pagewire.socket".into());
    let listener = UnixListener::bind(&path)?;
    println!("{}", path.display());
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async {
            if let Err(error) = answer(stream).await {
                eprintln!("{error}");
            }
        });
    }
}
