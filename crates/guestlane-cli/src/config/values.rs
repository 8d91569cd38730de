//! The value of each setting, and where it comes from.

use std::{fmt, path::PathBuf};

use guestlane::Error;
use guestlane_core::{
    request::{ValidationError, shorten},
    surface::Surface,
};
use guestlane_runtime::text::without_bom_str;

use super::{Setting, Settings, url};
use crate::config::{PLATFORM_RATE_LIMIT, SETTINGS, SURFACE};

/// Source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// The setting is not set.
    Default,
    /// The settings file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, flat),
            other => flat.push((key, other.clone())),
        }
    }
}

impl Settings {
    /// Stores one value; every source passes through here.
    ///
    /// White space at both ends is removed, because secret stores and files with CRLF add it. An
    /// empty value counts as not set.
    pub(super) fn take(&mut self, env: &'static str, value: &str, origin: ValueSource) {
        let value = value.trim();
        if value.is_empty() {
            return;
        }
        let unquoted = ['"', '\'']
            .into_iter()
            .find_map(|mark| value.strip_prefix(mark)?.strip_suffix(mark));
        if unquoted.is_some() {
            self.quoted.insert(env);
        } else {
            self.quoted.remove(env);
        }
        self.values
            .insert(env, (unquoted.unwrap_or(value).to_owned(), origin));
    }

    /// Parses the text of a settings file and adds its values.
    ///
    /// # Errors
    /// Returns an error if the text is not TOML, or for each unknown setting and each value of
    /// another type.
    pub fn add_file(&mut self, path: &std::path::Path, text: &str) -> Result<(), Error> {
        let invalid = |reason: String, fix: &str| {
            Error::Settings(vec![ValidationError::new(
                path.display().to_string(),
                reason,
                fix,
            )])
        };
        let text = without_bom_str(text);
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count().max(1));
            invalid(
                format!("line {line}: {}", error.message()),
                "correct the TOML",
            )
        })?;
        let mut flat = Vec::new();
        flatten("", &table, &mut flat);
        let mut refused = Vec::new();
        for (key, value) in flat {
            let setting = SETTINGS.iter().find(|setting| setting.key == key);
            let text = match &value {
                toml::Value::String(text) => Some(text.clone()),
                toml::Value::Integer(number) => Some(number.to_string()),
                toml::Value::Boolean(yes) => Some(yes.to_string()),
                toml::Value::Float(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => None,
            };
            let field = format!("{} in {}", shorten(&key), path.display());
            match (setting, text) {
                (Some(setting), Some(text)) => {
                    self.take(setting.env, &text, ValueSource::File(path.to_owned()))
                }
                (Some(_), None) => refused.push(ValidationError::new(
                    field,
                    "is not a string, a number or a boolean",
                    "write the value in quotation marks",
                )),
                (None, _) => refused.push(ValidationError::new(
                    field,
                    "is not a setting",
                    "remove it; `guestlane config show` lists all settings",
                )),
            }
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Error::Settings(refused))
        }
    }

    /// Adds the values of the environment. An empty value counts as not set.
    pub fn add_environment(&mut self, get: impl Fn(&str) -> Option<String>) {
        for setting in SETTINGS {
            if let Some(value) = get(setting.env) {
                self.take(setting.env, &value, ValueSource::Environment);
            }
        }
    }

    /// Adds the value of a flag, if it is given.
    pub fn add_flag(&mut self, env: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.take(env, &value, ValueSource::Flag);
        }
    }

    /// Returns a value or its default, with its source.
    pub fn get(&self, env: &str) -> Option<(&str, ValueSource)> {
        if let Some((value, origin)) = self.values.get(env) {
            return Some((value, origin.clone()));
        }
        let default = SETTINGS
            .iter()
            .find(|setting| setting.env == env)?
            .default?;
        // The public platform allows fewer calls than the surface `rest`
        // (docs/platform.md#rate-limits).
        let default = if env == PLATFORM_RATE_LIMIT && self.is_public_api() {
            "300/min"
        } else {
            default
        };
        Some((default, ValueSource::Default))
    }

    /// Whether a setting has its default.
    pub fn is_default(&self, env: &str) -> bool {
        self.get(env)
            .is_none_or(|(_, origin)| origin == ValueSource::Default)
    }

    /// Returns a value in the form in which it may be shown: secrets are hidden, as are parts of a
    /// URL that may be secret.
    pub fn display_value(&self, setting: &Setting) -> Option<(String, ValueSource)> {
        let (value, origin) = self.get(setting.env)?;
        if setting.secret {
            return Some(("(hidden)".to_owned(), origin));
        }
        Some((url::shown(setting.env, value), origin))
    }

    /// Whether the surface is one of the public platform's.
    pub(super) fn is_public_api(&self) -> bool {
        self.value(SURFACE)
            .is_some_and(|name| Surface::NAMES[1..].contains(&name))
    }

    pub(super) fn value(&self, env: &str) -> Option<&str> {
        self.get(env).map(|(value, _)| value)
    }

    /// Returns the error for an invalid setting, with the source of its value.
    pub fn invalid(&self, env: &str, reason: impl Into<String>, fix: &str) -> ValidationError {
        let field = match self
            .get(env)
            .map_or(ValueSource::Default, |(_, origin)| origin)
        {
            ValueSource::Default | ValueSource::Environment => env.to_owned(),
            ValueSource::File(path) => {
                let key = SETTINGS
                    .iter()
                    .find(|setting| setting.env == env)
                    .map_or(env, |setting| setting.key);
                format!("{env} ({key} in {})", path.display())
            }
            ValueSource::Flag => format!("{env} (flag)"),
        };
        ValidationError::new(field, reason, fix)
    }
}
