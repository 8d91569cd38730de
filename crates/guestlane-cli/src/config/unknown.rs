//! Detects environment variables that look like settings but are not. Most are misspelt, and
//! without a warning the default would be used silently.

use super::{SETTINGS, Settings};

/// Prefixes of the names of all settings.
const PREFIXES: [&str; 3] = ["GENESYS_", "GUESTLANE_", "CRM_"];

/// Largest edit distance between a misspelt name and the setting that is suggested.
const MAX_EDITS: usize = 4;

/// Longest part of a name that is repeated, in characters.
const MAX_NAME: usize = 80;

/// An environment variable that looks like a setting but is not. Its value is not stored, because
/// it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Name of the variable, shortened.
    pub name: String,
    /// The setting with the most similar name.
    pub nearest: Option<&'static str>,
}

impl Settings {
    /// Stores those environment variable names that look like settings but are not.
    pub fn look_for_unknown<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let unknown = names.filter(|name| is_unknown(name));
        self.unknown = unknown
            .map(|name| UnknownVariable {
                name: guestlane_runtime::text::one_line(
                    &name.chars().take(MAX_NAME).collect::<String>(),
                ),
                nearest: nearest(name),
            })
            .collect();
    }

    /// Environment variables that look like settings, and have no effect.
    pub fn unknown_variables(&self) -> &[UnknownVariable] {
        &self.unknown
    }
}

fn is_unknown(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
        && SETTINGS.iter().all(|setting| setting.env != name)
        && !name.starts_with("GUESTLANE_TEST_")
        && !is_of_kubernetes(name)
}

/// Whether Kubernetes sets this variable for a Service named `guestlane`, `crm` or `genesys`
/// (kubernetes.io, "Discovering services").
fn is_of_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
}

fn nearest(name: &str) -> Option<&'static str> {
    let name: String = name
        .chars()
        .take(MAX_NAME)
        .collect::<String>()
        .to_ascii_uppercase();
    let edits = SETTINGS
        .iter()
        .map(|setting| (strsim::damerau_levenshtein(&name, setting.env), setting.env));
    edits
        .min()
        .filter(|(edits, _)| *edits <= MAX_EDITS)
        .map(|(_, env)| env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_variable_is_reported_with_nearest_setting() {
        let mut settings = Settings::default();
        let names = [
            "GENESYS_CLINET_ID",
            "GUESTLANE_COLOUR",
            "crm_webhook_url",
            "GENESYS_CLIENT_ID",
            "GENESYS_CLIENT_SECRET_FILE",
            "GUESTLANE_DATABASE_URL_FILE",
            "GUESTLANE_SERVICE_HOST",
            "GUESTLANE_PORT_8971_TCP_ADDR",
            "CRM_PORT",
            "GUESTLANE_TEST_KILLS",
            "PATH",
        ];
        settings.look_for_unknown(names.into_iter());
        let found: Vec<_> = settings
            .unknown_variables()
            .iter()
            .map(|unknown| (unknown.name.as_str(), unknown.nearest))
            .collect();
        assert_eq!(
            found,
            [
                ("GENESYS_CLINET_ID", Some("GENESYS_CLIENT_ID")),
                ("GUESTLANE_COLOUR", None),
                ("crm_webhook_url", Some("CRM_WEBHOOK_URL"))
            ]
        );
    }
}
