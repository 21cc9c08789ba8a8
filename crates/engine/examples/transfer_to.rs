//! The call that Java has and Rust lacks, without tokio: sends a file to whoever connects.
//! `cargo run --example transfer_to FILE`

use std::fs::File;
use std::io;
use std::net::TcpListener;

use pagewire_engine::blocking::transfer_to;

fn main() -> io::Result<()> {
    let file = File::open(std::env::args_os().nth(1).unwrap_or_else(|| "Cargo.toml".into()))?;
    let len = file.metadata()?.len();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    loop {
        let (socket, peer) = listener.accept()?;
        match transfer_to(&file, 0, len, &socket) {
            Ok(report) => println!("{len} bytes to {peer} in {:?}", report.elapsed),
            Err(error) => eprintln!("{peer}: {error}"),
        }
    }
}
