//! Where the platform is, how to authenticate, and how long to wait.

use std::time::Duration;

use guestlane_runtime::TlsRoots;
use secrecy::SecretString;

use crate::{rate::Rate, regions::Endpoints, retry::RetryPolicy};

/// Where the platform is and how to authenticate. All fields are required.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Base URLs of the platform.
    pub hosts: Endpoints,
    /// How token requests carry the credentials.
    pub sign_in: TokenRequestAuth,
    /// The OAuth clients, all of one organization. The rate limits of several are used together.
    pub clients: Vec<OAuthClient>,
    /// The certificates that the client trusts.
    pub trust: TlsRoots,
}

impl Credentials {
    /// Returns the credentials of one OAuth client for the public platform: they are sent in an
    /// `Authorization` header. The system's root certificates are trusted.
    pub fn new(hosts: Endpoints, client: OAuthClient) -> Self {
        Self {
            hosts,
            sign_in: TokenRequestAuth::Basic,
            clients: vec![client],
            trust: TlsRoots::System,
        }
    }
}

/// An OAuth client.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// The client ID.
    pub id: String,
    /// The client secret.
    pub secret: SecretString,
}

impl OAuthClient {
    /// Returns a client with this ID and secret.
    pub fn new(id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        Self {
            id: id.into(),
            secret: secret.into(),
        }
    }
}

/// How a token request carries the credentials. Both use the client credentials grant (RFC 6749,
/// section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRequestAuth {
    /// The surface `rest`: ID and secret in the form, at `/api/v2/oauth/token` (requirement R1,
    /// docs/requirements.md).
    Form,
    /// The public platform: ID and secret by HTTP Basic, at `/oauth/token` of the login host
    /// (docs/platform.md#sign-in).
    Basic,
}

/// Retry policy, timeout and rate limit of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallPolicy {
    /// Number of retries and the backoff between them (requirement R8, docs/requirements.md).
    pub retry: RetryPolicy,
    /// Timeout of one attempt, including reading the response.
    pub call_timeout: Duration,
    /// The rate limit of each OAuth client; `None` disables rate limiting.
    pub quota: Option<Rate>,
}

impl Default for CallPolicy {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            call_timeout: Duration::from_secs(10),
            quota: Some(Rate::REST),
        }
    }
}
