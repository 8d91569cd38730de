//! The CRM: is it there, and may it be told. Nothing is sent to it.

use std::time::Duration;

use guestlane_genesys::{Clock, resolver};
use tokio::net::TcpStream;
use url::Url;

use super::Finding;
use crate::{
    config::{ALLOW_PRIVATE, Settings, WEBHOOK_URL},
    outbox::Networks,
};

const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn examine(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let crm = match settings.crm() {
        Ok(Some(crm)) => crm,
        Ok(None) => {
            let fix = format!("set {WEBHOOK_URL}, if a CRM shall be told of sessions");
            return vec![Finding::good("crm", "nobody is told").fix(fix)];
        }
        Err(_) => return vec![Finding::skipped("crm", "its settings cannot be used")],
    };
    let mut findings = Vec::new();
    for url in &crm.urls {
        findings.push(of_receiver(url, crm.networks, clock).await);
    }
    findings
}

async fn of_receiver(url: &Url, networks: Networks, clock: &Clock) -> Finding {
    // A path or a query may be a secret.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let check = format!("crm {host}:{port}");
    let addresses = match clock.timeout(PATIENCE, resolver::lookup(&host, port)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            return Finding::bad(check, format!("its name cannot be resolved: {error}"))
                .fix(format!("check {WEBHOOK_URL} and DNS"));
        }
        Err(_) => return Finding::bad(check, "its name was not resolved within 3 s").fix(format!("check {WEBHOOK_URL} and DNS")),
    };
    if !addresses.iter().any(|address| networks.allow(address.ip())) {
        return Finding::bad(check, "all its addresses are private")
            .because("events are not sent into private networks unless that is allowed")
            .fix(format!("set {ALLOW_PRIVATE}=true, if that is where your CRM is"));
    }
    match clock.timeout(PATIENCE, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_)) => Finding::good(check, "takes connections; no event was sent, and its certificate was not looked at"),
        Ok(Err(error)) => Finding::bad(check, format!("takes no connection: {error}"))
            .because("events wait in the outbox meanwhile; sessions are created")
            .fix("start the CRM, or open the firewall; `guestlane outbox deliver` tries what waits"),
        Err(_) => Finding::bad(check, "took no connection within 3 s").fix("check the firewall between this machine and the CRM"),
    }
}
