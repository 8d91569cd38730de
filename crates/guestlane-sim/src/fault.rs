//! Faults on demand: on which route, of which kind, at which of its calls.
//!
//! Written as `ROUTE:KIND[:WHEN]`, for example `conversation:answer-lost:nth=3`, `any:429:p=0.1,retry-after=2`,
//! `crm:500:first=2`. Whether a call is hit depends on the seed, the route and the number of the call on that route, so the same
//! seed gives the same run.

use std::{fmt, str::FromStr, time::Duration};

use crate::route::Route;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// 429 with this `Retry-After`; nothing is done.
    TooManyRequests {
        /// `None`: the answer has no such header.
        retry_after: Option<Duration>,
    },
    /// 500; nothing is done.
    InternalError,
    /// The work is done, and the connection is closed without an answer.
    AnswerLost,
    /// The connection is closed before anything is done.
    Reset,
    /// No answer, ever; nothing is done.
    Hang,
    /// 302 to another path of this server; nothing is done.
    Redirect,
}

impl FaultKind {
    /// The name in fault specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooManyRequests { .. } => "429",
            Self::InternalError => "500",
            Self::AnswerLost => "answer-lost",
            Self::Reset => "reset",
            Self::Hang => "hang",
            Self::Redirect => "redirect",
        }
    }
}

/// Which calls are hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All.
    Always,
    /// Only the n-th on its route, counted from 1.
    Nth(u64),
    /// The first n on its route.
    First(u64),
    /// Each with this probability.
    Probability(f64),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// `None`: on every route of the platform (not on the CRM's).
    pub route: Option<Route>,
    /// What goes wrong.
    pub kind: FaultKind,
    /// At which calls.
    pub when: When,
}

/// Not a fault spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{spec}` is not a fault: {reason}; write ROUTE:KIND[:WHEN], for example conversation:answer-lost:nth=3")]
pub struct InvalidFault {
    spec: String,
    reason: &'static str,
}

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(spec: &str) -> Result<Self, InvalidFault> {
        let invalid = |reason| InvalidFault { spec: spec.to_owned(), reason };
        let mut parts = spec.splitn(3, ':');
        let route = match parts.next() {
            Some("any") => None,
            Some(name) => Some(name.parse().map_err(|()| invalid("ROUTE is any, token, queue, contact, conversation or crm"))?),
            None => return Err(invalid("it is empty")),
        };
        let kind = parts.next().unwrap_or_default();
        let (mut when, mut retry_after) = (When::Always, None);
        for setting in parts.next().into_iter().flat_map(|settings| settings.split(',')) {
            let (name, value) = setting.split_once('=').ok_or_else(|| invalid("WHEN is name=value, separated by commas"))?;
            let count = || value.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| invalid("a count is a number from 1"));
            match name {
                "nth" => when = When::Nth(count()?),
                "first" => when = When::First(count()?),
                "p" => {
                    let p = value.parse().ok().filter(|p| (0.0..=1.0).contains(p));
                    when = When::Probability(p.ok_or_else(|| invalid("p is a number from 0 to 1"))?);
                }
                "retry-after" => {
                    retry_after = Some(Duration::from_secs(value.parse().map_err(|_| invalid("retry-after is in seconds"))?));
                }
                _ => return Err(invalid("WHEN knows nth, first, p and (with 429) retry-after")),
            }
        }
        let kind = match kind {
            "429" => FaultKind::TooManyRequests { retry_after },
            "500" => FaultKind::InternalError,
            "answer-lost" => FaultKind::AnswerLost,
            "reset" => FaultKind::Reset,
            "hang" => FaultKind::Hang,
            "redirect" => FaultKind::Redirect,
            _ => return Err(invalid("KIND is 429, 500, answer-lost, reset, hang or redirect")),
        };
        if retry_after.is_some() && kind.name() != "429" {
            return Err(invalid("only 429 has a retry-after"));
        }
        Ok(Self { route, kind, when })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.route.map_or("any", Route::name), self.kind.name())?;
        let mut separator = ':';
        let mut setting = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| {
            write!(f, "{separator}{name}={value}")?;
            separator = ',';
            Ok(())
        };
        match self.when {
            When::Always => {}
            When::Nth(n) => setting(f, "nth", &n)?,
            When::First(n) => setting(f, "first", &n)?,
            When::Probability(p) => setting(f, "p", &p)?,
        }
        if let FaultKind::TooManyRequests { retry_after: Some(wait) } = self.kind {
            setting(f, "retry-after", &wait.as_secs())?;
        }
        Ok(())
    }
}

impl Fault {
    /// Whether it hits the `nth` call on `route`. `salt` tells several faults of one run apart.
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

/// A number from 0 to 1 that looks random and depends only on its arguments (SplitMix64).
fn unit(seed: u64, route: Route, nth: u64, salt: u64) -> f64 {
    let mut z =
        [route as u64, nth, salt].into_iter().fold(seed, |z, part| mix(z ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15))));
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
    fn a_spec_is_read_and_written_the_same() {
        for spec in [
            "any:500",
            "conversation:answer-lost:nth=3",
            "contact:429:p=0.1,retry-after=2",
            "crm:redirect:first=2",
            "token:hang",
            "queue:reset:nth=1",
        ] {
            assert_eq!(spec.parse::<Fault>().unwrap().to_string(), spec);
        }
    }

    #[test]
    fn a_bad_spec_says_what_is_wrong() {
        for spec in
            ["", "contact", "contact:boom", "x:500", "any:500:nth=0", "any:500:p=2", "any:500:nth", "any:500:retry-after=1"]
        {
            let message = spec.parse::<Fault>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{spec}`")) && message.contains("ROUTE:KIND"), "{message}");
        }
    }

    #[test]
    fn five_percent_are_about_five_percent_and_the_same_with_the_same_seed() {
        let fault: Fault = "any:answer-lost:p=0.05".parse().unwrap();
        let hits = |seed| (1..=20_000).filter(|nth| fault.hits(Route::Contact, *nth, seed, 0)).collect::<Vec<_>>();
        assert!((800..1200).contains(&hits(7).len()), "{}", hits(7).len());
        assert_eq!(hits(7), hits(7));
        assert_ne!(hits(7), hits(8));
        assert!(!fault.hits(Route::Crm, 1, 7, 0), "any means any route of the platform");
    }
}
