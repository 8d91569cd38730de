//! A rate limit: a number of calls per window.

use std::{fmt, str::FromStr, time::Duration};

/// A rate limit: the number of calls that one OAuth client may make per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    calls: u32,
    window: Duration,
}

/// The text is not a valid rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate; write 100/s, 300/min or off")]
pub struct InvalidRate(String);

impl Rate {
    /// The limit of one OAuth client on the surface `rest` (requirement R9, docs/requirements.md).
    pub const REST: Self = Self {
        calls: 100,
        window: Duration::from_secs(1),
    };

    /// The public platform's limit of one access token (docs/platform.md#rate-limits).
    pub const PLATFORM_DEFAULT: Self = Self {
        calls: 300,
        window: Duration::from_secs(60),
    };

    /// Parses a rate; `off` means no limit and returns `None`.
    ///
    /// # Errors
    ///
    /// Fails for any text other than `off`, a number of calls per second or per minute.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidRate> {
        if text == "off" {
            Ok(None)
        } else {
            text.parse().map(Some)
        }
    }

    /// Returns the calls per [window](Self::window).
    pub fn calls(self) -> u32 {
        self.calls
    }

    /// Returns the calls per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.calls) / self.window.as_secs_f64()
    }

    /// Returns a rate with the same window and another number of calls, at least 1.
    pub(crate) fn with_calls(self, calls: u32) -> Self {
        Self {
            calls: calls.max(1),
            ..self
        }
    }

    /// Returns the window: one second or one minute.
    pub fn window(self) -> Duration {
        self.window
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRate(text.to_owned());
        let (calls, unit) = text.split_once('/').ok_or_else(invalid)?;
        let calls = calls
            .parse()
            .ok()
            .filter(|calls| *calls > 0)
            .ok_or_else(invalid)?;
        let window = match unit {
            "s" => Duration::from_secs(1),
            "min" => Duration::from_secs(60),
            _ => return Err(invalid()),
        };
        Ok(Self { calls, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.calls,
            if self.window.as_secs() == 1 {
                "s"
            } else {
                "min"
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_round_trips_and_rejects_invalid_text() {
        for text in ["100/s", "300/min", "1/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "100", "0/s", "-1/s", "100/h", "x/s", "100/s/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate::parse("off").unwrap(), None);
    }
}
