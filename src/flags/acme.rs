//! Flags of `pagewire serve` about certificates that an ACME server issues.

use std::path::PathBuf;

use clap::{Args, ValueHint};

#[derive(Debug, Args)]
pub(crate) struct AcmeFlags {
    /// Name to get a certificate for by ACME, from Let's Encrypt; may be given more than once
    ///
    /// Then every --listen speaks TLS, as with --tls-cert, which may be given for other names. The
    /// certificate is ordered when the server runs, kept in --state-dir, and replaced in time. The
    /// name must lead to this host, and its port 443 to a --listen (TLS-ALPN-01, RFC 8737). By this
    /// you agree to the terms of service of who issues it.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = domain)]
    pub(crate) acme_domain: Vec<String>,

    /// E-mail address that is given to the ACME server when the account there is made
    #[arg(long, value_name = "ADDRESS", value_parser = contact)]
    pub(crate) acme_contact: Option<String>,

    /// Another ACME server, by the URL of its directory [default: Let's Encrypt]
    ///
    /// To try things out, without harm to limits and trust:
    /// <https://acme-staging-v02.api.letsencrypt.org/directory>
    #[arg(long, value_name = "URL", value_parser = directory, value_hint = ValueHint::Url)]
    pub(crate) acme_directory: Option<String>,

    /// Root certificate, in PEM, that the ACME server's own one leads to [default: the system's]
    ///
    /// For an ACME server of your own; what it issues is not checked against this.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) acme_ca: Option<PathBuf>,
}

/// A host's name, in lower case, as DNS has it (RFC 1123 section 2.1).
fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.starts_with("*.") {
        return Err("a wildcard cannot be proved by TLS-ALPN-01: name each host, or have another \
                    program write the files of --tls-cert"
            .to_owned());
    }
    if !name.is_ascii() {
        return Err("names beyond ASCII are given as DNS has them, xn--...".to_owned());
    }
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = name.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok());
    if name.len() > 253 || is_address || !name.split('.').all(is_label) {
        return Err("it is a host's name, such as files.example.org".to_owned());
    }
    Ok(name)
}

fn contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    match address.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() && !address.contains(' ') => {
            Ok(address.to_owned())
        }
        _ => Err("it is an e-mail address, such as admin@example.org".to_owned()),
    }
}

fn directory(text: &str) -> Result<String, String> {
    match text.strip_prefix("https://") {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(text.to_owned()),
        _ => Err("it begins with https:// (RFC 8555 section 6.1)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_hosts_are_names() {
        for (text, expected) in [
            ("Files.Example.org.", Some("files.example.org")),
            ("localhost", Some("localhost")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("*.example.org", None),
            ("bücher.example", None),
            ("192.0.2.1", None),
            ("[2001:db8::1]", None),
            ("a..example", None),
            ("-a.example", None),
            ("a.example/../b", None),
            ("a.example:443", None),
            ("", None),
        ] {
            assert_eq!(domain(text).ok().as_deref(), expected, "{text}");
        }
    }
}
