//! Fault injection: the faults, the routes and the calls that they affect.
//!
//! A fault spec is `ROUTE:KIND[:WHEN]`, for example `conversation:answer-lost:nth=3`,
//! `any:429:p=0.1,retry-after=2` or `crm:500:first=2`. The seed, the route and the number of the
//! call on that route decide whether a fault affects a call, so the same seed gives the same run.

use std::{fmt, str::FromStr, time::Duration};

use crate::route::Route;

macro_rules! kinds {
    ($($kind:ident = $name:literal, $about:literal;)*) => {
        /// The kind of a fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultKind {
            $(#[doc = $about] $kind,)*
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Returns the name in fault specs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// Returns the description of the fault.
            pub fn about(self) -> &'static str {
                match self { $(Self::$kind => $about),* }
            }
        }
    };
}

kinds! {
    TooManyRequests = "429", "rejected without effect; `retry-after=S` sets the header, otherwise there is none";
    TooManyRequestsDate = "429-date", "like 429, with a date in `Retry-After`: 1 s or `retry-after=S` from now";
    TooManyRequestsSentence = "429-sentence", "like 429, with the wait only in the message: 1 s or `retry-after=S`";
    BadRequest = "400", "rejected without effect";
    BadRequestEcho = "400-echo", "like 400, with a message that repeats the values of the request's custom attributes";
    Unauthorized = "401", "rejected without effect; the access token stays valid";
    Forbidden = "403", "rejected without effect";
    NotFound = "404", "rejected without effect";
    Conflict = "409", "rejected without effect";
    InternalError = "500", "rejected without effect";
    BadGateway = "502", "rejected without effect, with a gateway's HTML page";
    Unavailable = "503", "rejected without effect; `retry-after=S` sets the header";
    Redirect = "redirect", "302 to another path of this server, without effect";
    Reset = "reset", "the connection is reset (RST), and the request has no effect";
    Hang = "hang", "no response is ever sent, and the request has no effect";
    Stale = "stale", "a stale read without effect: 404, an empty page of history, or on the surface `rest` an unknown contact";
    TokenRevoked = "token-revoked", "all access tokens are revoked before the call is handled; a token request gets a token that is already revoked";
    ClockSkew = "clock-skew", "for this call the platform's clock is ahead by one hour, or `seconds=N` (may be negative)";
    BadGatewayAfter = "502-after", "the request takes effect, and the response is a gateway's error page";
    GatewayTimeoutAfter = "504-after", "the request takes effect, and the response is a gateway timeout";
    AnswerLost = "answer-lost", "the request takes effect, then the connection is closed without a response";
    ResetAfter = "reset-after", "the request takes effect, then the connection is reset (RST)";
    HangAfter = "hang-after", "the request takes effect, and no response is ever sent";
    Slow = "slow", "the request takes effect, and the response body arrives in pieces over 3 s, or `seconds=N`";
    Truncated = "truncated", "the request takes effect, and the response ends in the middle of its body";
    NotHttp = "not-http", "the request takes effect, and the response is not HTTP";
    NotJson = "not-json", "the request takes effect, and the response is 200 with an HTML page";
    Empty = "empty", "the request takes effect, and the response is 200 without a body";
    WrongTypes = "wrong-types", "the request takes effect, and in the JSON response strings are numbers and numbers are strings";
    Huge = "huge", "the request takes effect, and the response body has 1 GB";
}

/// The calls that a fault affects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All calls.
    Always,
    /// Only the n-th call on its route, counted from 1.
    Nth(u64),
    /// The first n calls on its route.
    First(u64),
    /// Each call with this probability.
    Probability(f64),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// The affected route. `None` affects every route of the platform, but not the webhook
    /// receiver.
    pub route: Option<Route>,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The affected calls.
    pub when: When,
    /// The value of `Retry-After`, for kinds that have this header.
    pub retry_after: Option<Duration>,
    /// The duration in seconds, for `slow` and `clock-skew`.
    pub seconds: Option<i64>,
}

/// The error for an invalid fault spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{spec}` is not a fault: {reason}; write ROUTE:KIND[:WHEN], for example conversation:answer-lost:nth=3"
)]
pub struct InvalidFault {
    spec: String,
    reason: String,
}

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(spec: &str) -> Result<Self, InvalidFault> {
        let invalid = |reason: &str| InvalidFault {
            spec: spec.to_owned(),
            reason: reason.to_owned(),
        };
        let mut parts = spec.splitn(3, ':');
        let route = match parts.next() {
            Some("any") => None,
            Some(name) => Some(name.parse().map_err(|()| {
                let names: Vec<_> = Route::ALL.iter().map(|route| route.name()).collect();
                invalid(&format!("ROUTE must be any or one of {}", names.join(", ")))
            })?),
            None => return Err(invalid("the spec is empty")),
        };
        let name = parts.next().unwrap_or_default();
        let kind = FaultKind::ALL
            .iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
                invalid(&format!("KIND must be one of {}", names.join(", ")))
            })?;
        let mut fault = Self {
            route,
            kind: *kind,
            when: When::Always,
            retry_after: None,
            seconds: None,
        };
        let mut whens = 0;
        for setting in parts
            .next()
            .into_iter()
            .flat_map(|settings| settings.split(','))
        {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| invalid("WHEN must be name=value pairs, separated by commas"))?;
            let count = || {
                value
                    .parse::<u64>()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| invalid("a count must be a whole number of at least 1"))
            };
            whens += u32::from(matches!(name, "nth" | "first" | "p"));
            match name {
                "nth" => fault.when = When::Nth(count()?),
                "first" => fault.when = When::First(count()?),
                "p" => {
                    let p = value.parse().ok().filter(|p| (0.0..=1.0).contains(p));
                    fault.when = When::Probability(
                        p.ok_or_else(|| invalid("p must be a number from 0 to 1"))?,
                    );
                }
                "retry-after" if kind.has_retry_after() => {
                    let seconds: u32 = value
                        .parse()
                        .map_err(|_| invalid("retry-after must be a whole number of seconds"))?;
                    fault.retry_after = Some(Duration::from_secs(seconds.into()));
                }
                "retry-after" => {
                    return Err(invalid(
                        "only 429, 429-date, 429-sentence and 503 accept retry-after",
                    ));
                }
                "seconds" if kind.takes_time() => {
                    let seconds: i32 = value
                        .parse()
                        .map_err(|_| invalid("seconds must be a whole number"))?;
                    fault.seconds = Some(seconds.into());
                }
                "seconds" => return Err(invalid("only slow and clock-skew accept seconds")),
                _ => {
                    return Err(invalid(
                        "WHEN accepts only nth, first, p, retry-after and seconds",
                    ));
                }
            }
        }
        if whens > 1 {
            return Err(invalid("nth, first and p exclude each other"));
        }
        if *kind == FaultKind::Slow && fault.seconds.is_some_and(|seconds| seconds < 0) {
            return Err(invalid("seconds may be negative only for clock-skew"));
        }
        if *kind == FaultKind::Stale && !route.is_none_or(Route::reads) {
            let reads: Vec<_> = Route::ALL
                .iter()
                .filter(|route| route.reads())
                .map(|route| route.name())
                .collect();
            return Err(invalid(&format!(
                "stale applies only to {}: the other routes have no read that can be stale",
                reads.join(", ")
            )));
        }
        Ok(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.route.map_or("any", Route::name),
            self.kind.name()
        )?;
        let when = match self.when {
            When::Always => None,
            When::Nth(n) => Some(format!("nth={n}")),
            When::First(n) => Some(format!("first={n}")),
            When::Probability(p) => Some(format!("p={p}")),
        };
        let retry_after = self
            .retry_after
            .map(|wait| format!("retry-after={}", wait.as_secs()));
        let seconds = self.seconds.map(|seconds| format!("seconds={seconds}"));
        let settings: Vec<_> = [when, retry_after, seconds].into_iter().flatten().collect();
        if settings.is_empty() {
            Ok(())
        } else {
            write!(f, ":{}", settings.join(","))
        }
    }
}

impl FaultKind {
    fn has_retry_after(self) -> bool {
        matches!(
            self,
            Self::TooManyRequests
                | Self::TooManyRequestsDate
                | Self::TooManyRequestsSentence
                | Self::Unavailable
        )
    }

    fn takes_time(self) -> bool {
        matches!(self, Self::Slow | Self::ClockSkew)
    }
}

impl Fault {
    /// Returns whether the fault affects the `nth` call on `route`. `salt` separates several faults
    /// of one run.
    pub(crate) fn hits(&self, route: Route, nth: u64, seed: u64, salt: u64) -> bool {
        let here = self.route.map_or(route != Route::Crm, |mine| mine == route);
        here && match self.when {
            When::Always => true,
            When::Nth(n) => nth == n,
            When::First(n) => nth <= n,
            When::Probability(p) => unit(seed, route, nth, salt) < p,
        }
    }
}

/// Returns a pseudo-random number from 0 to 1 that depends only on the arguments (SplitMix64).
fn unit(seed: u64, route: Route, nth: u64, salt: u64) -> f64 {
    let mut z = [route as u64, nth, salt].into_iter().fold(seed, |z, part| {
        mix(z ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15)))
    });
    z = mix(z);
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_spec_round_trips() {
        for spec in [
            "any:500",
            "conversation:answer-lost:nth=3",
            "contact:429:p=0.1,retry-after=2",
            "crm:redirect:first=2",
            "token:hang",
            "queue:reset:nth=1",
            "any:slow:p=0.5,seconds=20",
            "token:clock-skew:seconds=-60",
            "queue:503:retry-after=9",
            "queue:429-sentence:nth=2,retry-after=15",
        ] {
            assert_eq!(spec.parse::<Fault>().unwrap().to_string(), spec);
        }
    }

    #[test]
    fn invalid_fault_spec_error_quotes_the_spec() {
        for spec in [
            "",
            "contact",
            "contact:boom",
            "x:500",
            "any:500:nth=0",
            "any:500:p=2",
            "any:500:nth",
            "any:500:retry-after=1",
            "any:hang:seconds=2",
            "any:slow:seconds=x",
            "contact:stale",
            "any:500:nth=1,first=2",
            "any:slow:seconds=-1",
        ] {
            let message = spec.parse::<Fault>().unwrap_err().to_string();
            assert!(
                message.contains(&format!("`{spec}`")) && message.contains("ROUTE:KIND"),
                "{message}"
            );
        }
    }

    #[test]
    fn fault_probability_is_met_and_reproducible_by_seed() {
        let fault: Fault = "any:answer-lost:p=0.05".parse().unwrap();
        let hits = |seed| {
            (1..=20_000)
                .filter(|nth| fault.hits(Route::Contact, *nth, seed, 0))
                .collect::<Vec<_>>()
        };
        assert!((800..1200).contains(&hits(7).len()), "{}", hits(7).len());
        assert_eq!(hits(7), hits(7));
        assert_ne!(hits(7), hits(8));
        assert!(
            !fault.hits(Route::Crm, 1, 7, 0),
            "any means any route of the platform"
        );
    }
}
