//! The program that BoringSSL's test runner (ssl/test/runner) starts for each of its cases:
//! connects to it, and is the TLS server that answers each byte with its complement. What it is
//! asked for and does not offer it answers by exit code 89. tests/bogo.rs runs it.

use std::error::Error;
use std::io::{self, Read};
use std::net::{Ipv6Addr, Shutdown, TcpStream as Plain};
use std::process::{ExitCode, exit};
use std::sync::Arc;

use pagewire_engine::RouteChoice;
use pagewire_engine::tls::{TlsAccepted, TlsChoice, TlsWire, accept};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Failure = Box<dyn Error + Send + Sync>;

/// The runner counts the case as one that this program does not offer.
const UNIMPLEMENTED: u8 = 89;
/// The runner counts the case as failed, also where it expects an error.
const MUST_FAIL: i32 = 90;

/// What the runner asks for.
struct Case {
    port: u16,
    key_file: String,
    cert_file: String,
    server: bool,
    min_version: u16,
    max_version: u16,
    excluded: Vec<u16>,
    alpn: Vec<Vec<u8>>,
    tickets: bool,
    /// Connections after the first one, which resume its session.
    resume_count: usize,
    expect_session_miss: bool,
    expect_server_name: Option<String>,
    writes_first: bool,
    shuts_down: bool,
    check_close_notify: bool,
    read_size: usize,
}

impl Case {
    /// `None` where it asks for what is not offered.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, Failure> {
        let mut case = Self {
            port: 0,
            key_file: String::new(),
            cert_file: String::new(),
            server: false,
            min_version: 0,
            max_version: u16::MAX,
            excluded: Vec::new(),
            alpn: Vec::new(),
            tickets: true,
            resume_count: 0,
            expect_session_miss: false,
            expect_server_name: None,
            writes_first: false,
            shuts_down: false,
            check_close_notify: false,
            read_size: 512,
        };
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag}: no value"));
            match flag.as_str() {
                "-port" => case.port = value()?.parse()?,
                "-server" => case.server = true,
                "-key-file" => case.key_file = value()?,
                "-cert-file" => case.cert_file = value()?,
                "-min-version" => case.min_version = value()?.parse()?,
                "-max-version" => case.max_version = value()?.parse()?,
                "-no-tls12" => case.excluded.push(0x303),
                "-no-tls13" => case.excluded.push(0x304),
                "-select-alpn" => case.alpn.push(value()?.into_bytes()),
                "-no-ticket" => case.tickets = false,
                "-resume-count" => case.resume_count = value()?.parse()?,
                "-expect-session-miss" => case.expect_session_miss = true,
                "-expect-server-name" => case.expect_server_name = Some(value()?),
                "-shim-writes-first" => case.writes_first = true,
                "-shim-shuts-down" => case.shuts_down = true,
                "-check-close-notify" => case.check_close_notify = true,
                "-read-size" => case.read_size = value()?.parse()?,
                // So it always is here; and older versions there are none of.
                "-async" | "-implicit-handshake" | "-no-tls1" | "-no-tls11" => {}
                _ => return Ok(None),
            }
        }
        Ok((case.server && !case.versions().is_empty()).then_some(case))
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let asked = |number| {
            (self.min_version..=self.max_version).contains(&number)
                && !self.excluded.contains(&number)
        };
        let both = [&version::TLS13, &version::TLS12];
        both.into_iter().filter(|one| asked(u16::from(one.version))).collect()
    }

    fn config(&self) -> Result<Arc<ServerConfig>, Failure> {
        let chain = CertificateDer::pem_file_iter(&self.cert_file)?.collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&self.versions())?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&self.key_file)?)?;
        config.enable_secret_extraction = true;
        config.alpn_protocols.clone_from(&self.alpn);
        if self.tickets {
            config.ticketer = Ticketer::new()?;
        } else {
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }

    async fn run(&self) -> Result<(), Failure> {
        let config = self.config()?;
        for nth in 0..=self.resume_count {
            let plain = Plain::connect((Ipv6Addr::LOCALHOST, self.port))
                .or_else(|_| Plain::connect(("127.0.0.1", self.port)))?;
            plain.set_nodelay(true)?;
            plain.set_nonblocking(true)?;
            let again = plain.try_clone()?;
            let done = self.connection(plain, Arc::clone(&config), nth > 0).await;
            // Closed with bytes unread it would be reset, and the runner may miss the alert.
            drain(again);
            done?;
        }
        Ok(())
    }

    async fn connection(
        &self,
        plain: Plain,
        config: Arc<ServerConfig>,
        resumes: bool,
    ) -> Result<(), Failure> {
        let socket = TcpStream::from_std(plain)?;
        let TlsAccepted { mut wire, server_name, resumed, .. } =
            accept(socket, config, RouteChoice::Auto, TlsChoice::UserSpace).await?;
        if resumed != (resumes && !self.expect_session_miss) {
            return Err(format!("resumed: {resumed}, which was not expected").into());
        }
        if self.expect_server_name.is_some() && self.expect_server_name != server_name {
            return Err(format!("the server name is {server_name:?}").into());
        }
        let talked = self.talk(&mut wire).await;
        // After an error this sends the alert for it.
        let shut = wire.shutdown().await;
        talked?;
        // Who does not wait for close_notify need not be there.
        if self.check_close_notify {
            shut?;
        }
        if self.shuts_down && self.check_close_notify && wire.read(&mut [0]).await? > 0 {
            return Err("data in place of close_notify".into());
        }
        Ok(())
    }

    /// Answers until the runner has no more to say.
    async fn talk(&self, wire: &mut TlsWire<TcpStream>) -> Result<(), Failure> {
        if self.writes_first {
            wire.write_all(b"hello").await?;
        }
        let mut bytes = vec![0; self.read_size];
        if self.shuts_down {
            return Ok(());
        }
        loop {
            let read = match wire.read(&mut bytes).await {
                Ok(read) => read,
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof && !self.check_close_notify =>
                {
                    0
                }
                Err(error) => return Err(error.into()),
            };
            if read == 0 {
                break;
            }
            bytes[..read].iter_mut().for_each(|byte| *byte = !*byte);
            wire.write_all(&bytes[..read]).await?;
        }
        Ok(())
    }
}

/// Says that nothing more is sent, and reads what the runner still sends. It ends the connection.
fn drain(mut socket: Plain) {
    let ended = socket.shutdown(Shutdown::Write).and_then(|()| socket.set_nonblocking(false));
    while ended.is_ok() && socket.read(&mut [0; 1 << 14]).is_ok_and(|read| read > 0) {}
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    std::panic::set_hook(Box::new(|info| {
        eprintln!("{info}");
        exit(MUST_FAIL);
    }));
    if std::env::args().any(|argument| argument == "-is-handshaker-supported") {
        println!("No");
        return Ok(ExitCode::SUCCESS);
    }
    let Some(case) = Case::parse(std::env::args().skip(1))? else {
        return Ok(ExitCode::from(UNIMPLEMENTED));
    };
    case.run().await?;
    Ok(ExitCode::SUCCESS)
}
