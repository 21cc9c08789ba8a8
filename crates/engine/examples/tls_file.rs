//! Serves one file over TLS, and fetches it with rustls: `tls_file FILE [kernel|user-space|auto]`
//! sends it to a client in the same process with every version and cipher, and prints a row for
//! each; `--rekey` has the client ask for new keys in the middle.

use std::error::Error;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream as Plain;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pagewire_engine::tls::{TlsChoice, accept, probe};
use pagewire_engine::{Meter, RouteChoice, SourceFile};
use rustix::time::{ClockId, clock_gettime};
use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls::{StreamOwned, SupportedProtocolVersion, version};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

type Failure = Box<dyn Error + Send + Sync>;

const SUITES: [(SupportedCipherSuite, &SupportedProtocolVersion); 6] = [
    (suites::TLS13_AES_128_GCM_SHA256, &version::TLS13),
    (suites::TLS13_AES_256_GCM_SHA384, &version::TLS13),
    (suites::TLS13_CHACHA20_POLY1305_SHA256, &version::TLS13),
    (suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, &version::TLS12),
    (suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, &version::TLS12),
    (suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, &version::TLS12),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: tls_file FILE [CHOICE] [--rekey]")?;
    let choice: TlsChoice = arguments.next().as_deref().unwrap_or("auto").parse()?;
    let rekey = arguments.next().as_deref() == Some("--rekey");
    if choice == TlsChoice::Auto {
        for of in &probe().suites {
            println!("# {}: {:?}", of.name, of.cost);
        }
        println!("# keys can be changed: {}", probe().rekeys);
    }
    println!("suite,in_kernel,bytes,equal,orderly,user_copied,routes,cs_per_gb");
    for (suite, version) in SUITES {
        if !(rekey && suite.tls13().is_none()) {
            one(&path, choice, suite, version, rekey).await?;
        }
    }
    Ok(())
}

async fn one(
    path: &str,
    choice: TlsChoice,
    suite: SupportedCipherSuite,
    version: &'static SupportedProtocolVersion,
    rekey: bool,
) -> Result<(), Failure> {
    let (server, client) = configs(suite, version)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let file = path.to_owned();
    let client = thread::spawn(move || fetch(client, Plain::connect(address)?, &file, rekey));
    let (socket, _) = listener.accept().await?;
    let accepted = accept(socket, server, RouteChoice::Auto, choice).await?;
    let meter = Arc::new(Meter::new());
    let mut wire = accepted.wire.counted_by(Arc::clone(&meter));
    let in_kernel = wire.in_kernel();
    let source = SourceFile::new(File::open(path)?)?;
    let body = source.whole().mapped_bytes()?;
    let before = cpu_time();
    let mut slices = [IoSlice::new(b"head"), IoSlice::new(&body)];
    let mut left = &mut slices[..];
    let sent: io::Result<()> = async {
        while !left.is_empty() {
            if rekey {
                // What the client sends is found by reading, as hyper does.
                let look = wire.readable();
                tokio::time::timeout(Duration::ZERO, look).await.unwrap_or(Ok(()))?;
            }
            let written = wire.write_vectored(left).await?;
            IoSlice::advance_slices(&mut left, written);
        }
        wire.shutdown().await
    }
    .await;
    if let Err(error) = &sent {
        println!("# {:?}: {error}", suite.suite());
        wire.shutdown().await?;
    }
    let spent = cpu_time() - before;
    drop(wire);
    let (received, equal, orderly) = client.join().map_err(|_| "the client panicked")??;
    let tally = meter.snapshot();
    let routes: Vec<String> = tally.routes_taken().map(|route| route.to_string()).collect();
    let centiseconds = spent.as_secs_f64() * 100.0 / (source.len() as f64 / 1e9);
    println!(
        "{:?},{in_kernel},{received},{equal},{orderly},{},{},{centiseconds:.0}",
        suite.suite(),
        tally.total().user_copied_bytes,
        routes.join("+"),
    );
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// How many bytes of the file came, whether they are its, and whether close_notify ended them.
fn fetch(
    config: Arc<ClientConfig>,
    socket: Plain,
    path: &str,
    rekey: bool,
) -> Result<(u64, bool, bool), Failure> {
    let name = ServerName::try_from("localhost")?;
    let mut client = StreamOwned::new(ClientConnection::new(config, name)?, socket);
    let mut head = [0; 4];
    client.read_exact(&mut head)?;
    let mut equal = &head == b"head";
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let (mut received, mut expected) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut bytes = 0;
    let mut asked = !rekey;
    loop {
        if !asked && bytes > len / 4 {
            asked = true;
            client.conn.refresh_traffic_keys()?;
            client.flush()?;
        }
        let read = match client.read(&mut received) {
            Ok(read) => read,
            Err(error) => {
                println!("# client: {error}");
                return Ok((bytes, equal, false));
            }
        };
        if read == 0 {
            return Ok((bytes, equal && bytes == len, true));
        }
        file.read_exact(&mut expected[..read])?;
        equal &= received[..read] == expected[..read];
        bytes += read as u64;
    }
}

fn configs(
    suite: SupportedCipherSuite,
    version: &'static SupportedProtocolVersion,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    server.enable_secret_extraction = true;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let mut provider = default_provider();
    provider.cipher_suites = vec![suite];
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}
