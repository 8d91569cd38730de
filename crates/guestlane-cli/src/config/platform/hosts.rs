//! Hosts of the platform: region, and URLs of single hosts.

use guestlane_core::request::{ValidationError, shorten};
use guestlane_genesys::{BaseUrl, Endpoints, REGIONS};

use crate::config::{
    API_URL, BASE_URL, CDN_URL, LOGIN_URL, ORG_DOMAIN, REGION, Reader, SURFACE, ValueSource,
    WEBMESSAGING_URL, url,
};

impl Reader<'_> {
    /// One origin for all calls, or the hosts of a region. A setting can override each host.
    pub(super) fn cloud_hosts(&mut self) -> Option<Endpoints> {
        let mut hosts = if self.settings.value(BASE_URL).is_some() {
            Endpoints::one_origin(self.url(BASE_URL)?)
        } else if let Some(region) = self.settings.value(REGION).map(str::to_owned) {
            let fix =
                "give the region's domain, like mypurecloud.ie, or its AWS name, like eu-west-1";
            let host = ["login.", "api.", "apps.", "webmessaging.", "api-cdn."]
                .into_iter()
                .find(|host| region.starts_with(host));
            if let Some(host) = host {
                self.refuse(
                    REGION,
                    format!(
                        "`{}` is a host name, not a region",
                        shorten(&url::shown(REGION, &region))
                    ),
                    &format!("remove `{host}`"),
                );
                return None;
            }
            let name = region.split(':').next().unwrap_or_default();
            let known = REGIONS
                .iter()
                .any(|known| known.aws.eq_ignore_ascii_case(name));
            if !known && !name.contains('.') && name != "localhost" {
                self.refuse(
                    REGION,
                    format!(
                        "`{}` is neither a known region nor a domain",
                        shorten(&url::shown(REGION, &region))
                    ),
                    fix,
                );
                return None;
            }
            if !region
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'))
                || region.is_empty()
            {
                self.refuse(
                    REGION,
                    format!(
                        "`{}` has a character that is not allowed in a domain",
                        shorten(&url::shown(REGION, &region))
                    ),
                    fix,
                );
                return None;
            }
            Endpoints::for_region(&region)
                .map_err(|error| self.refuse(REGION, error.to_string(), fix))
                .ok()?
        } else {
            self.missing(REGION, "set it to the region's domain, like mypurecloud.ie, or its AWS name, like eu-west-1");
            return None;
        };
        for (env, host) in [
            (LOGIN_URL, &mut hosts.login),
            (API_URL, &mut hosts.api),
            (WEBMESSAGING_URL, &mut hosts.webmessaging),
            (CDN_URL, &mut hosts.cdn),
        ] {
            if self.settings.value(env).is_some() {
                *host = self.url(env)?;
            }
        }
        Some(hosts)
    }

    /// Parses a base URL. `wss://` of a WebSocket is converted to `https://`.
    pub(super) fn url(&mut self, env: &str) -> Option<BaseUrl> {
        let text = self.settings.value(env)?.to_owned();
        let text = match text.strip_prefix("ws") {
            Some(rest) if rest.starts_with("s://") || rest.starts_with("://") => {
                format!("http{rest}")
            }
            _ => text,
        };
        let text = if env == WEBMESSAGING_URL {
            text.trim_end_matches('/')
                .trim_end_matches("/v1")
                .to_owned()
        } else {
            text
        };
        // Check the text before parsing it: the parser's message would show a password.
        if let Err(url::Fault { reason, fix }) = url::checked(&text, url::Extent::Origin) {
            self.refuse(
                env,
                reason,
                fix.unwrap_or("give an https origin, like https://acme.mygenesyscloud.com"),
            );
            return None;
        }
        text.parse()
            .map_err(|error: guestlane_genesys::InvalidBaseUrl| {
                self.refuse(env, error.to_string(), "give an https origin")
            })
            .ok()
    }

    pub(super) fn base(&mut self) -> Option<BaseUrl> {
        if self.settings.value(BASE_URL).is_some() {
            return self.url(BASE_URL);
        }
        let Some(domain) = self.settings.value(ORG_DOMAIN).map(str::to_owned) else {
            if self
                .settings
                .get(SURFACE)
                .is_none_or(|(_, origin)| origin == ValueSource::Default)
            {
                let fix = "set it to web-messaging for a real organization (or open-messaging), with GENESYS_REGION; \
                     rest is for the simulator or a gateway, with GENESYS_BASE_URL or GENESYS_ORG_DOMAIN";
                self.refused
                    .push(ValidationError::new(SURFACE, "is not set", fix));
                return None;
            }
            self.missing(
                ORG_DOMAIN,
                "set it to the organization's domain, like acme.mygenesyscloud.com",
            );
            return None;
        };
        let fix = "give the domain alone, like acme.mygenesyscloud.com; for a whole origin use GENESYS_BASE_URL";
        let reason = if domain.contains("://") {
            Some("has a scheme")
        } else if domain.contains('/') {
            Some("has a path")
        } else if !domain
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'))
        {
            Some("has a character that is not allowed in a domain")
        } else {
            None
        };
        if let Some(reason) = reason {
            self.refuse(
                ORG_DOMAIN,
                format!("`{}` {reason}", shorten(&url::shown(ORG_DOMAIN, &domain))),
                fix,
            );
            return None;
        }
        let parsed = format!("https://{domain}").parse::<BaseUrl>();
        parsed
            .map_err(|_| {
                self.refuse(
                    ORG_DOMAIN,
                    format!(
                        "`{}` is not a domain",
                        shorten(&url::shown(ORG_DOMAIN, &domain))
                    ),
                    fix,
                )
            })
            .ok()
    }
}
