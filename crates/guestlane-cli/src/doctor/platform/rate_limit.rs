//! Checks of the rate limit.

use guestlane_genesys::ApiPath;

use super::{super::Finding, Probe, of_error};

impl Probe<'_> {
    pub(super) async fn quota(&self) -> Finding {
        let check = "rate limit";
        let seen = match self
            .platform
            .probe_get(ApiPath::new("/api/v2/tokens/me"), &self.context())
            .await
        {
            Ok(seen) => seen,
            Err(error) => return of_error(check, &error),
        };
        let number = |name: &str| {
            seen.headers
                .get(name)
                .and_then(|text| text.parse::<u64>().ok())
        };
        let pace = self
            .config
            .call_policy
            .quota
            .map_or("off".to_owned(), |rate| rate.to_string());
        // No header has the length of a window, only the time to its end. The window is at least
        // that long.
        let left = number("inin-ratelimit-reset").unwrap_or(0);
        let rate = self.config.call_policy.quota.map(|rate| rate.per_second());
        let too_fast =
            |allowed: u64| rate.is_none_or(|rate| rate * left as f64 > allowed as f64 + 0.5);
        match (
            number("inin-ratelimit-count"),
            number("inin-ratelimit-allowed"),
        ) {
            (Some(count), Some(allowed)) if allowed > 0 && count * 10 >= allowed * 9 => {
                Finding::warning(
                    check,
                    format!("{count} of {allowed} calls of the current rate-limit window are used"),
                )
                .because(
                    "another program uses the same OAuth client, or guestlane used it a \
                    moment ago",
                )
                .fix("give guestlane an OAuth client of its own")
            }
            (_, Some(allowed)) if allowed > 0 && too_fast(allowed) => {
                let result = format!(
                    "guestlane's rate limit is {pace}, but the platform allows {allowed} calls in \
                     a window of at least {left} s"
                );
                Finding::warning(check, result)
                    .because(
                        "the platform answers further calls with \
                    429, and they are delayed",
                    )
                    .fix(
                        "set GUESTLANE_PLATFORM_RATE_LIMIT to the organization's rate limit; \
                     docs/rate-limit.md has the public platform's",
                    )
            }
            (Some(count), Some(allowed)) => {
                let window = "the platform does not report the length of the window";
                let result = format!(
                    "{count} of {allowed} calls of the current rate-limit window are used; \
                     guestlane's rate limit is {pace}; {window}"
                );
                Finding::good(check, result)
            }
            _ => Finding::good(
                check,
                format!("the platform does not report it; guestlane's rate limit is {pace}"),
            ),
        }
    }
}
