//! Where the server listens and how it is talked there: plain, over TLS, or only to be sent on.
//! Reads certificates, at start and at each reload.

use std::env;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use jiff::Timestamp;
use pagewire_engine::probe::kernel_tls;
use pagewire_engine::tls::{SuiteSupport, TlsChoice};
use pagewire_http::tls::{
    CertificateFacts, CertificateFiles, Certificates, Challenges, SelfSigned, Tls,
};
use pagewire_http::{Listen, ListenAddress, Security};

use crate::config::Config;
use crate::flags::{ServeFlags, TlsFlags};
use crate::serve::acme::Wanted;

/// The listeners, and what they show to clients.
pub(crate) struct Doors {
    pub(crate) listen: Vec<Listen>,
    pub(crate) certificates: Vec<CertificateFacts>,
    /// What is to be had by ACME.
    pub(crate) acme: Option<Wanted>,
}

impl Doors {
    /// As `config` has it; `sockets` are those that listen already, and ACME servers are shown
    /// `challenges`.
    pub(crate) fn of(
        config: &Config,
        sockets: &[Listen],
        challenges: &Challenges,
    ) -> anyhow::Result<Self> {
        let flags = &config.flags.tls;
        let mut listen = config.listen(sockets);
        let mut facts = Vec::new();
        let acme = Wanted::of(&flags.acme, state_directory(&config.flags).as_deref())?;
        if flags.is_wanted() {
            let mut certificates = certificates(&config.flags, acme.as_ref())?;
            if acme.is_some() {
                certificates = certificates.answering(challenges.clone());
            }
            facts.extend(certificates.facts().cloned());
            let tls = Tls::new(certificates, flags.tls_records)?;
            let secured = |listen: Listen| listen.with(Security::Tls(tls.clone()));
            listen = listen.into_iter().map(secured).collect();
        } else if !flags.https_redirect.is_empty() {
            bail!(
                "--https-redirect needs HTTPS: give --tls-cert and --tls-key, --acme-domain, or \
                 --tls-self-signed"
            );
        } else if !flags.tls_key.is_empty() {
            bail!("--tls-key without --tls-cert: name the certificate that it is for");
        }
        for address in &flags.https_redirect {
            if config.flags.listen.contains(address) {
                bail!("{address} is given as --listen and as --https-redirect: give another one");
            }
            match listen.iter_mut().find(|listen| listen.address == *address) {
                Some(listen) => listen.security = Security::SendOn,
                None => listen.push(Listen::plain(address.clone()).with(Security::SendOn)),
            }
        }
        Ok(Self { listen, certificates: facts, acme })
    }

    /// How the address at `place` is to be typed.
    pub(crate) fn scheme(&self, place: usize) -> &'static str {
        match self.listen.get(place).map(|listen| &listen.security) {
            Some(Security::Tls(_)) => "https",
            _ => "http",
        }
    }

    /// Which passwords strangers on the way could read.
    pub(crate) fn bare_passwords(&self, config: &Config) -> Option<String> {
        config.mounts.iter().find(|mount| mount.site.passwords.is_some())?;
        let bare = self.listen.iter().find(|listen| {
            let is_plain = matches!(listen.security, Security::Plain);
            is_plain && matches!(&listen.address, ListenAddress::Tcp(at) if !at.ip().is_loopback())
        })?;
        Some(format!(
            "passwords can be read on their way to {}, which has no TLS; give --tls-cert and \
             --tls-key, or listen on a loopback address behind a proxy that has it",
            bare.address
        ))
    }

    /// What is spoken since, where the same addresses were listened on before.
    pub(crate) fn changes(&self, before: &Self) -> impl Iterator<Item = String> {
        let spoken = |listen: &Listen| match listen.security {
            Security::Tls(_) => "HTTPS",
            Security::SendOn => "redirects to HTTPS",
            Security::Plain | _ => "plain HTTP",
        };
        self.listen.iter().filter_map(move |now| {
            let then = before.listen.iter().find(|then| then.address == now.address)?;
            let (address, now) = (&now.address, spoken(now));
            (now != spoken(then)).then(|| format!("{address} has {now} for new connections"))
        })
    }

    /// A line for each certificate, and for those that are to come.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let lines = self.certificates.iter().map(line);
        let hint = self.acme.iter().filter(|_| !self.has_https_port()).map(
            |_| "acme: no --listen has port 443, where names are proved: something must pass it on",
        );
        let acme = self.acme.iter().flat_map(Wanted::lines);
        lines.chain(acme).chain(hint.map(str::to_owned))
    }

    /// Whether something listens where an ACME server comes to (RFC 8737 section 3).
    fn has_https_port(&self) -> bool {
        self.listen.iter().any(|listen| match (&listen.address, &listen.security) {
            (ListenAddress::Tcp(address), Security::Tls(_)) => address.port() == 443,
            _ => false,
        })
    }
}

/// Finds out what the kernel does for TLS, if that is to decide. It takes a moment.
pub(crate) fn probe(config: &Config) {
    let flags = &config.flags.tls;
    if flags.is_wanted() && flags.tls_records == TlsChoice::Auto {
        pagewire_engine::tls::probe();
    }
}

/// Who seals TLS records, and why, after a look at the kernel; nothing where TLS is not spoken.
pub(crate) fn records_here(config: &Config) -> Option<String> {
    let flags = &config.flags.tls;
    if !flags.is_wanted() {
        return None;
    }
    probe(config);
    let missing = kernel_tls().err().map(|error| {
        if error.kind() == ErrorKind::NotFound {
            "this kernel has no kTLS".to_owned()
        } else {
            format!("this kernel refuses kTLS ({error})")
        }
    });
    Some(match (flags.tls_records, missing) {
        (choice @ TlsChoice::UserSpace, _) => format!("sealed by this process ({choice})"),
        (TlsChoice::Auto, None) => found(&pagewire_engine::tls::probe().suites),
        (TlsChoice::Auto, Some(why)) => {
            format!("sealed by this process: {why}; pagewire doctor says more")
        }
        (choice, None) => format!("sealed by the kernel where it takes the keys ({choice})"),
        (choice, Some(why)) => format!(
            "sealed by this process, against --tls-records {choice}: {why}; as root: modprobe tls, \
             where the kernel was built with CONFIG_TLS"
        ),
    })
}

/// What `auto` makes of what was found of each version and cipher.
fn found(suites: &[SuiteSupport]) -> String {
    let taken: Vec<_> = suites.iter().filter(|of| of.kernel_is_taken()).collect();
    if taken.len() == suites.len() {
        return "sealed by the kernel, for less CPU than by this process".to_owned();
    }
    if !taken.is_empty() {
        let names: Vec<_> = taken.iter().map(|of| of.name).collect();
        return format!("sealed by the kernel for {}, else by this process", names.join(", "));
    }
    match suites.iter().find_map(|of| of.cost.as_ref().err()) {
        Some(why) => format!("sealed by this process: the kernel does not ({why})"),
        None => "sealed by this process, for less CPU than by the kernel".to_owned(),
    }
}

/// What a person wants to know of a certificate.
pub(crate) fn line(facts: &CertificateFacts) -> String {
    let CertificateFacts { names, not_before, not_after, fingerprint, .. } = facts;
    let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
    let now = Timestamp::now();
    let validity = if *not_after <= now {
        format!("EXPIRED at {not_after}")
    } else if *not_before > now {
        format!("NOT VALID before {not_before}")
    } else {
        format!("valid until {not_after}")
    };
    format!("certificate for {names}: {validity}, SHA-256 {fingerprint}")
}

/// Files that certificates and keys are read from.
pub(crate) fn files(flags: &ServeFlags) -> Vec<PathBuf> {
    let TlsFlags { tls_cert, tls_key, tls_self_signed, .. } = &flags.tls;
    let mut files = [&tls_cert[..], &tls_key[..]].concat();
    if let (true, Ok(made)) = (tls_self_signed, self_signed(flags)) {
        files.extend([made.chain(), made.key()]);
    }
    files
}

fn certificates(flags: &ServeFlags, acme: Option<&Wanted>) -> anyhow::Result<Certificates> {
    let TlsFlags { tls_cert, tls_key, tls_self_signed, .. } = &flags.tls;
    if *tls_self_signed {
        let wanted = self_signed(flags)?;
        return Certificates::self_signed(&wanted).with_context(|| {
            let directory = wanted.directory.display();
            format!("no self-signed certificate; empty {directory}, or name another --state-dir")
        });
    }
    let (certs, keys) = (tls_cert.len(), tls_key.len());
    if certs != keys {
        bail!("{certs} of --tls-cert and {keys} of --tls-key: each certificate needs its key");
    }
    let pairs = tls_cert.iter().cloned().zip(tls_key.iter().cloned());
    let files = pairs.map(|(chain, key)| CertificateFiles { chain, key });
    let files: Vec<_> = files.chain(acme.into_iter().flat_map(Wanted::files)).collect();
    Ok(Certificates::load(&files)?)
}

fn self_signed(flags: &ServeFlags) -> anyhow::Result<SelfSigned> {
    let directory = state_directory(flags)
        .context("no directory to keep the self-signed certificate in: name a --state-dir")?;
    Ok(SelfSigned { directory, names: own_names(&flags.listen) })
}

/// Where what is made here, or issued by ACME, outlives the process.
pub(crate) fn state_directory(flags: &ServeFlags) -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = |state: PathBuf| state.join("pagewire");
    let given = flags.tls.state_dir.clone().or_else(|| variable("STATE_DIRECTORY"));
    let given = given.or_else(|| variable("XDG_STATE_HOME").map(own));
    given.or_else(|| variable("HOME").map(|home| own(home.join(".local/state"))))
}

/// What this host is called by those who can reach `listen`.
fn own_names(listen: &[ListenAddress]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(rustix::system::uname().nodename().to_str().ok().map(str::to_ascii_lowercase));
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1].into()];
    for address in listen {
        match address {
            ListenAddress::Tcp(address) if address.ip().is_unspecified() => {
                let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
                addresses.extend(interfaces.iter().map(if_addrs::Interface::ip));
            }
            ListenAddress::Tcp(address) => addresses.push(address.ip()),
            ListenAddress::Unix { .. } | _ => {}
        }
    }
    names.extend(addresses.iter().map(ToString::to_string));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}
