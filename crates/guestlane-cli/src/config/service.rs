//! Settings of the HTTP service.

use std::{net::SocketAddr, time::Duration};

use ::url::Url;
use guestlane_genesys::Rate;

use super::{
    API_KEY_RATE_LIMIT, DRAIN_PERIOD, LISTEN, MAX_CONCURRENT_SESSIONS, METRICS_LISTEN,
    OTLP_ENDPOINT, Reader, Settings, TLS_CERT_FILE, TLS_KEY_FILE, TLS_TERMINATED_UPSTREAM,
    parse_duration, url,
};
use guestlane::Error;
use guestlane_runtime::durable_fs::expect_private;
use guestlane_server::{ServiceSettings, TlsFiles};

/// Longest drain period, so that a stopping process does stop.
const MAX_DRAIN: Duration = Duration::from_secs(300);

impl Settings {
    /// Settings of the service.
    ///
    /// # Errors
    /// Returns all settings that are missing or invalid, at once.
    pub fn service(&self) -> Result<ServiceSettings, Error> {
        let mut reader = Reader::new(self);
        let settings = reader.service();
        reader.finish(settings)
    }
}

impl Settings {
    /// URL of the trace collector, if one is set.
    ///
    /// # Errors
    /// Returns an error if the URL is invalid.
    pub fn traces(&self) -> Result<Option<Url>, Error> {
        let mut reader = Reader::new(self);
        let Some(text) = self.value(OTLP_ENDPOINT) else {
            return Ok(None);
        };
        let checked = url::checked(text, url::Extent::WithQuery).map_err(|url::Fault { reason, fix }| {
            let like = "write it like https://collector.example.com/v1/traces; http is allowed to \
                loopback addresses only";
            reader.refuse(OTLP_ENDPOINT, reason, fix.unwrap_or(like));
        });
        let url = checked.ok();
        reader.finish(url).map(Some)
    }
}

impl Reader<'_> {
    fn service(&mut self) -> Option<ServiceSettings> {
        let address = "write an address and a port, like 127.0.0.1:8971 or [::]:8971";
        let listen: Option<SocketAddr> = self.parsed(LISTEN, address, |text| text.parse().ok());
        let metrics = self.parsed(
            METRICS_LISTEN,
            "write an address and a port, like 127.0.0.1:8972, or off",
            |text| match text {
                "off" => Some(None),
                text => text.parse().ok().map(Some),
            },
        );
        let public = self.parsed(super::METRICS_ALLOW_PUBLIC, "write true or false", |text| {
            text.parse::<bool>().ok()
        })?;
        if metrics
            .flatten()
            .is_some_and(|address: SocketAddr| !address.ip().is_loopback())
            && !public
        {
            let reason =
                "is not a loopback address, and metrics have neither authentication nor TLS";
            let fix = "listen on 127.0.0.1, or set GUESTLANE_METRICS_ALLOW_PUBLIC=true if a \
                firewall admits only the scraper";
            self.refuse(METRICS_LISTEN, reason, fix);
        }
        let key_rate = self.parsed(API_KEY_RATE_LIMIT, "write 1000/s, 300/min or off", |text| {
            Rate::parse(text).ok()
        });
        let in_range = |text: &str| {
            text.parse()
                .ok()
                .filter(|number| (1..=65_536).contains(number))
        };
        let max_sessions = self.parsed(
            MAX_CONCURRENT_SESSIONS,
            "give a number from 1 to 65536",
            in_range,
        );
        let drain = self.parsed(
            DRAIN_PERIOD,
            "write it like 5s, at most 5min, or off",
            |text| match text {
                "off" => Some(Duration::ZERO),
                text => parse_duration(text).filter(|drain| *drain <= MAX_DRAIN),
            },
        );
        let behind_proxy = self.parsed(TLS_TERMINATED_UPSTREAM, "write true or false", |text| {
            text.parse::<bool>().ok()
        });
        let tls = match (
            self.settings.value(TLS_CERT_FILE),
            self.settings.value(TLS_KEY_FILE),
        ) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert: cert.into(),
                key: key.into(),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.missing(TLS_KEY_FILE, "set it to the private key of the certificate");
                None
            }
            (None, Some(_)) => {
                self.missing(
                    TLS_CERT_FILE,
                    "set it to the certificate of the private key",
                );
                None
            }
        };
        if let Some(Err(exposed)) = tls.as_ref().map(|tls| expect_private(&tls.key)) {
            self.refused
                .push(super::secret_files::exposed_file(TLS_KEY_FILE, &exposed));
        }
        let (listen, behind_proxy) = (listen?, behind_proxy?);
        if !listen.ip().is_loopback() && tls.is_none() && !behind_proxy {
            let reason = "is not a loopback address, and without TLS the network could read API keys and \
                 guest data";
            let fix = "set GUESTLANE_TLS_CERT_FILE and GUESTLANE_TLS_KEY_FILE; or \
                GUESTLANE_TLS_TERMINATED_UPSTREAM=true if a proxy terminates TLS";
            self.refuse(LISTEN, reason, fix);
        }
        Some(ServiceSettings {
            listen,
            metrics: metrics?,
            tls,
            key_rate: key_rate?,
            max_sessions: max_sessions?,
            behind_proxy,
            drain: drain?,
        })
    }
}
