//! A webhook receiver (CRM). It verifies signatures (Standard Webhooks) and recognizes repeated
//! events.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use crate::response::{self, Body, Refusal};

/// The tolerance for a signature's timestamp, in seconds, as in the reference libraries.
const TOLERANCE: i64 = 300;

/// The events that the webhook receiver accepted.
#[derive(Debug, Default)]
pub(crate) struct WebhookReceiver {
    key: Option<hmac::Key>,
    seen: HashSet<String>,
    events: Vec<Value>,
    counts: WebhookCounts,
    guests: HashMap<String, u64>,
}

/// The counters of the webhook receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCounts {
    /// Distinct events, by `webhook-id`.
    pub events: u64,
    /// Repeated deliveries of an event.
    pub repeated: u64,
    /// Deliveries that were rejected because of their signature.
    pub bad_signature: u64,
    /// Events that were accepted without verification because no secret is configured.
    pub unchecked: u64,
    /// Guests that occur in more than one distinct event.
    pub guests_notified_twice: u64,
}

/// The maximum number of events that are kept for inspection.
const KEPT: usize = 1000;

impl WebhookReceiver {
    pub(crate) fn new(secret: Option<&str>) -> Result<Self, String> {
        let key = secret.map(parse_secret).transpose()?;
        Ok(Self {
            key,
            ..Self::default()
        })
    }

    pub(crate) fn counts(&self) -> WebhookCounts {
        self.counts
    }

    pub(crate) fn events(&self) -> &[Value] {
        &self.events
    }

    pub(crate) fn receive(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let id = text("webhook-id");
        if id.is_empty() {
            return Err(Refusal::bad_request("The header webhook-id is missing."));
        }
        match &self.key {
            None => self.counts.unchecked += 1,
            Some(key) => {
                if let Err(reason) = verify(
                    key,
                    id,
                    text("webhook-timestamp"),
                    text("webhook-signature"),
                    body,
                    now,
                ) {
                    self.counts.bad_signature += 1;
                    return Err(Refusal::new(
                        StatusCode::UNAUTHORIZED,
                        "bad.signature",
                        reason,
                    ));
                }
            }
        }
        let event: Value = serde_json::from_slice(body)
            .map_err(|_| Refusal::bad_request("The body is not JSON."))?;
        if self.seen.insert(id.to_owned()) {
            self.counts.events += 1;
            if let Some(guest) = event["data"]["guestId"].as_str() {
                let events = self.guests.entry(guest.to_owned()).or_default();
                *events += 1;
                self.counts.guests_notified_twice += u64::from(*events == 2);
            }
            if self.events.len() < KEPT {
                self.events.push(event);
            }
        } else {
            self.counts.repeated += 1;
        }
        Ok(response::empty(StatusCode::NO_CONTENT))
    }
}

fn parse_secret(secret: &str) -> Result<hmac::Key, String> {
    let encoded = secret
        .strip_prefix("whsec_")
        .ok_or("the CRM's secret does not begin with whsec_")?;
    let key = BASE64_STANDARD
        .decode(encoded)
        .map_err(|_| "the CRM's secret is not base64 after whsec_")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

fn verify(
    key: &hmac::Key,
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), &'static str> {
    let sent: i64 = timestamp
        .parse()
        .map_err(|_| "webhook-timestamp is not a number")?;
    if (sent - now.unix_seconds()).abs() > TOLERANCE {
        return Err("webhook-timestamp is too far from now");
    }
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let good = signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .any(|signature| {
            BASE64_STANDARD
                .decode(signature)
                .is_ok_and(|signature| hmac::verify(key, &signed, &signature).is_ok())
        });
    if good {
        Ok(())
    } else {
        Err("no signature matches")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference library of the scheme signs, and this receiver verifies.
    #[test]
    fn reference_signature_verifies_and_altered_input_fails() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let reference = standardwebhooks::Webhook::new(secret).unwrap();
        let key = parse_secret(secret).unwrap();
        let now = Timestamp::from_unix_micros(1_795_361_029_000_000);
        let timestamp = now.unix_seconds().to_string();
        let signature = reference.sign("msg_1", now.unix_seconds(), b"{}").unwrap();
        assert_eq!(
            verify(&key, "msg_1", &timestamp, &signature, b"{}", now),
            Ok(())
        );
        assert!(
            verify(
                &key,
                "msg_1",
                &timestamp,
                &format!("v1,AAAA {signature}"),
                b"{}",
                now
            )
            .is_ok()
        );
        assert!(verify(&key, "msg_1", &timestamp, &signature, b"{ }", now).is_err());
        assert!(verify(&key, "msg_2", &timestamp, &signature, b"{}", now).is_err());
        assert!(verify(&key, "msg_1", "1", &signature, b"{}", now).is_err());
    }
}
