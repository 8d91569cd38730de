//! Base URL of the platform: an origin to which secrets may be sent.

use std::{fmt, net::IpAddr, str::FromStr};

use url::{Host, Url};

/// An `https://` origin, optionally with a path prefix, or an `http://` origin on the local
/// machine.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Box<str>);

/// Why a URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaseUrl {
    /// The text is not a URL.
    #[error("`{0}` is not a URL; write it like https://acme.mygenesyscloud.com")]
    NotAUrl(String),
    /// The scheme is neither `https` nor `http`.
    #[error("`{0}` has the scheme `{1}`; only https is supported (and http to this machine)")]
    Scheme(String, String),
    /// Plain `http://` to another machine would expose the client secret and every guest token to
    /// the network.
    #[error(
        "`{0}` is plain http to another machine, which would expose secrets to the network; use https"
    )]
    PlainHttp(String),
    /// The URL has credentials, a query or a fragment.
    #[error(
        "the URL of {0} has a user name, a query or a fragment; give only scheme, host and port"
    )]
    Extra(String),
}

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| InvalidBaseUrl::NotAUrl(text.to_owned()))?;
        let extra = !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        if extra {
            return Err(InvalidBaseUrl::Extra(
                url.host_str().unwrap_or_default().to_owned(),
            ));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(InvalidBaseUrl::PlainHttp(text.to_owned())),
            other => return Err(InvalidBaseUrl::Scheme(text.to_owned(), other.to_owned())),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidBaseUrl::NotAUrl(text.to_owned()));
        }
        Ok(Self(url.as_str().trim_end_matches('/').into()))
    }
}

/// Whether a URL's host is the local machine: `localhost`, `127.0.0.0/8` or `[::1]`.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

impl BaseUrl {
    /// Returns the URL of a route; `path` begins with a slash.
    pub fn route(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Returns the URL without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_allows_plain_http_for_loopback_only() {
        for good in [
            "https://acme.example",
            "http://127.0.0.1:8080/",
            "http://localhost:1",
            "http://[::1]:9",
            "https://gw.example/p",
        ] {
            assert!(good.parse::<BaseUrl>().is_ok(), "{good}");
        }
        let refused = |text: &str| text.parse::<BaseUrl>().unwrap_err();
        assert!(matches!(
            refused("http://10.0.0.1"),
            InvalidBaseUrl::PlainHttp(_)
        ));
        assert!(matches!(
            refused("http://localhost.evil.example"),
            InvalidBaseUrl::PlainHttp(_)
        ));
        assert!(matches!(
            refused("ftp://acme.example"),
            InvalidBaseUrl::Scheme(..)
        ));
        assert!(matches!(
            refused("acme.example"),
            InvalidBaseUrl::NotAUrl(_)
        ));
        assert!(matches!(
            refused("https://user:pw@acme.example"),
            InvalidBaseUrl::Extra(_)
        ));
        assert!(matches!(
            refused("https://acme.example/?q"),
            InvalidBaseUrl::Extra(_)
        ));
    }

    #[test]
    fn route_is_appended_to_the_base_path() {
        let base: BaseUrl = "https://gw.example/genesys/".parse().unwrap();
        assert_eq!(
            base.route("/api/v2/x"),
            "https://gw.example/genesys/api/v2/x"
        );
    }
}
