//! One certificate, from the account to the file that it is kept in. Talks to the ACME server.

use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use pagewire_http::tls::{Answer, CertificateError, Challenges};

use super::Wanted;
use super::store::StoreError;

/// How long the ACME server may take to look, and to issue.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The server, or the way to it, said so.
    #[error(transparent)]
    Acme(#[from] instant_acme::Error),
    /// The server does not believe that the name is this host's.
    #[error("the proof was refused: {0}")]
    Unproved(Problem),
    /// The server wants another kind of proof.
    #[error("the ACME server offers no TLS-ALPN-01 for it")]
    NoChallenge,
    /// The order ended without a reason.
    #[error("the ACME server gave the order up: it is {0:?}")]
    GivenUp(OrderStatus),
    /// To be replaced at once: another would be, too, and so on.
    #[error("by this host's clock what was issued is to be replaced already")]
    Stale,
    #[error("no proof can be made")]
    Proof(#[from] CertificateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} cannot be understood", path.display())]
    Account { path: PathBuf, source: serde_json::Error },
    #[error("the ACME server did not come to an end in {} s", .0.as_secs())]
    Slow(Duration),
}

impl OrderError {
    /// What to do about it.
    pub(crate) fn way_out(&self, domain: &str) -> String {
        match self {
            Self::Acme(instant_acme::Error::Api(problem)) | Self::Unproved(problem) => {
                way_out(problem, domain)
            }
            Self::Acme(_) | Self::Slow(_) => {
                "its directory (--acme-directory) must be reachable from here by HTTPS, with a \
                 certificate that this host, or --acme-ca, trusts"
                    .to_owned()
            }
            Self::NoChallenge => {
                "name another server (--acme-directory), or files (--tls-cert)".to_owned()
            }
            Self::Store(_) => "this user must be able to write there, also in the sandbox, which \
                               was closed around the --state-dir of the start"
                .to_owned(),
            Self::Stale => "is the clock right?".to_owned(),
            Self::Account { path, .. } => {
                format!("remove {}, and another account is made", path.display())
            }
            Self::GivenUp(_) | Self::Proof(_) => "this is not known to happen".to_owned(),
        }
    }
}

/// By the kind of problem (RFC 8555 section 6.7).
fn way_out(problem: &Problem, domain: &str) -> String {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
    match kind {
        Some("connection" | "tls" | "unauthorized" | "incorrectResponse") => format!(
            "port 443 of {domain} must lead to a --listen of this server, and whatever is before \
             it must pass TLS on as it is"
        ),
        Some("dns") => format!("{domain} must have this host's address in DNS (A, AAAA)"),
        Some("caa") => format!("the CAA record of {domain} must name this authority"),
        Some("rateLimited") => {
            "too much was asked for: it is waited; try things out with another --acme-directory"
                .to_owned()
        }
        Some("invalidContact" | "unsupportedContact") => "give another --acme-contact".to_owned(),
        Some("externalAccountRequired") => {
            "accounts there are made elsewhere, which pagewire cannot take over: name another \
             --acme-directory"
                .to_owned()
        }
        Some("accountDoesNotExist") => "another account is made at the next try".to_owned(),
        _ => "what it wants is for the operator of the ACME server to say".to_owned(),
    }
}

/// Gets a certificate for `domain` and keeps it.
pub(crate) async fn order(
    wanted: &Wanted,
    domain: &str,
    challenges: &Challenges,
) -> Result<(), OrderError> {
    let account = account(wanted).await?;
    let names = [Identifier::Dns(domain.to_owned())];
    let mut order = match account.new_order(&NewOrder::new(&names)).await {
        Err(instant_acme::Error::Api(problem)) if is_unknown_account(&problem) => {
            wanted.store.forget_account()?;
            return Err(instant_acme::Error::Api(problem).into());
        }
        order => order?,
    };
    // Shown until the server has looked.
    let answers = prove(&mut order, domain, challenges).await?;
    let outcome = order.poll_ready(&POLLING).await;
    drop(answers);
    if !matches!(outcome, Ok(OrderStatus::Ready))
        && let Some(problem) = refusal(&mut order).await?
    {
        return Err(OrderError::Unproved(problem));
    }
    let status = outcome?;
    if status != OrderStatus::Ready {
        return Err(OrderError::GivenUp(status));
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&POLLING).await?;
    Ok(wanted.store.keep(domain, &key, &chain)?)
}

/// That of this server there: made at the first time, by which its terms are agreed to.
async fn account(wanted: &Wanted) -> Result<Account, OrderError> {
    if let Some(text) = wanted.store.load_account()? {
        let credentials: AccountCredentials = serde_json::from_str(&text)
            .map_err(|source| OrderError::Account { path: wanted.store.account(), source })?;
        return Ok(client(wanted)?.from_credentials(credentials).await?);
    }
    let contact = wanted.contact.as_ref().map(|address| format!("mailto:{address}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) =
        client(wanted)?.create(&new, wanted.directory.clone(), None).await?;
    let text = serde_json::to_string(&credentials).map_err(instant_acme::Error::from)?;
    wanted.store.keep_account(&text)?;
    Ok(account)
}

fn client(wanted: &Wanted) -> Result<AccountBuilder, instant_acme::Error> {
    match &wanted.authority {
        Some(root) => Account::builder_with_root(root),
        None => Account::builder(),
    }
}

fn is_unknown_account(problem: &Problem) -> bool {
    problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
}

/// Puts up what the server wants to see, and has it look. A name that it knows already to be ours
/// needs no proof.
async fn prove(
    order: &mut Order,
    domain: &str,
    challenges: &Challenges,
) -> Result<Vec<Answer>, OrderError> {
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or(OrderError::NoChallenge)?;
        let digest = challenge.key_authorization().digest();
        let digest = digest.as_ref().try_into().map_err(|_| OrderError::NoChallenge)?;
        answers.push(challenges.answer(domain, digest)?);
        challenge.set_ready().await?;
    }
    Ok(answers)
}

/// What the server says against a proof.
async fn refusal(order: &mut Order) -> Result<Option<Problem>, instant_acme::Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        if let Some(problem) = state.challenges.iter().find_map(|one| one.error.clone()) {
            return Ok(Some(problem));
        }
    }
    Ok(None)
}
