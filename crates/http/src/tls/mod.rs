//! TLS as this server speaks it: which certificate for whom, which protocols, and the handshake.
//! The records are the engine's.

mod certificate;
mod certificates;
mod challenges;
mod self_signed;
mod stream;

use std::fmt;
use std::sync::{Arc, OnceLock};

use pagewire_engine::tls::TlsChoice;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::ProducesTickets;

pub use certificate::{CertificateError, CertificateFacts};
pub use certificates::{CertificateFiles, Certificates};
pub use challenges::{Answer, Challenges};
pub use self_signed::SelfSigned;
pub(crate) use stream::secured;

/// How a listener speaks TLS.
#[derive(Clone)]
pub struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) choice: TlsChoice,
}

impl Tls {
    /// TLS 1.2 and 1.3 with `certificates`, HTTP/2 and HTTP/1.1 by ALPN; `choice` says who seals
    /// the records.
    ///
    /// The keys of session tickets are this process's: made at the first call, changed every six
    /// hours, and no others after certificates were loaded anew, so that sessions outlive that.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Unusable`] when the system has no random numbers.
    pub fn new(certificates: Certificates, choice: TlsChoice) -> Result<Self, CertificateError> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let answers_acme = certificates.challenges.is_some();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&versions)
            .map_err(CertificateError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
        if answers_acme {
            config.alpn_protocols.push(challenges::PROTOCOL.into());
        }
        config.ticketer = ticketer()?;
        // The engine takes the keys over, and the kernel where it can.
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config), choice })
    }
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, CertificateError> {
    static TICKETER: OnceLock<Arc<dyn ProducesTickets>> = OnceLock::new();
    if let Some(ticketer) = TICKETER.get() {
        return Ok(Arc::clone(ticketer));
    }
    let made = Ticketer::new().map_err(CertificateError::Unusable)?;
    Ok(Arc::clone(TICKETER.get_or_init(|| made)))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("choice", &self.choice).finish_non_exhaustive()
    }
}

/// What was agreed on in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSession {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its registered name, such as `TLS13_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Whether the kernel seals what is sent (kTLS).
    pub in_kernel: bool,
}
