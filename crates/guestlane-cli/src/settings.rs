//! Reads settings from file, environment and flags. It is the only code that reads the environment.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use guestlane::Error;
use guestlane_cli::config::{SETTINGS, STATE_DIR, Settings};
use guestlane_core::request::ValidationError;

use crate::args::Global;

/// The settings file that is read by default, if it exists.
const FILE: &str = "guestlane.toml";

/// Loads the settings from file, environment and flags. Later sources override earlier ones.
///
/// # Errors
/// The file or a secret file cannot be read, or a value is invalid.
pub(crate) fn load(global: &Global) -> Result<Settings, Error> {
    let mut settings = Settings::default();
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from(FILE));
    match read(&path) {
        Ok(text) => settings.add_file(&path, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && global.config.is_none() => {}
        Err(error) => {
            let invalid = ValidationError::new(
                format!("--config {}", path.display()),
                format!("cannot be read: {error}"),
                "name a readable file",
            );
            return Err(Error::Settings(vec![invalid.may_pass()]));
        }
    }
    let mut refused = Vec::new();
    let mut variables = BTreeMap::new();
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => drop(variables.insert(name, value)),
            Err(_) if SETTINGS.iter().any(|setting| setting.env == name) => {
                refused.push(not_utf8(&name))
            }
            Err(_) => {}
        }
    }
    let state_dir = global
        .state_dir
        .as_ref()
        .map(|path| path.to_str().ok_or_else(|| not_utf8("--state-dir")));
    match state_dir.transpose() {
        Ok(state_dir) => {
            settings.add_environment(|name| variables.get(name).cloned());
            settings.look_for_unknown(variables.keys().map(String::as_str));
            settings.add_flag(STATE_DIR, state_dir.map(str::to_owned));
        }
        Err(invalid) => refused.push(invalid),
    }
    if !refused.is_empty() {
        return Err(Error::Settings(refused));
    }
    settings.read_secret_files(credentials_directory().as_deref())?;
    Ok(settings)
}

fn not_utf8(field: &str) -> ValidationError {
    ValidationError::new(field, "is not UTF-8", "encode it in UTF-8")
}

/// The directory in which systemd stores the credentials of a unit.
fn credentials_directory() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The environment variables that configure a proxy. `NO_PROXY` alone does not.
pub(crate) fn proxies() -> Vec<&'static str> {
    const NAMES: [&str; 6] = [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    NAMES.into_iter().filter(is_set).collect()
}

/// The absolute form of a path as it was written. Symbolic links are not resolved, neither in the
/// path nor in the working directory.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let joined = working_directory().join(path);
    let absolute = std::path::absolute(&joined).unwrap_or(joined);
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        // `directory/..` can be removed; `link/..` cannot, because it leads to the parent of the
        // link's target.
        let leaves_directory =
            part == Component::ParentDir && plain.file_name().is_some() && !plain.is_symlink();
        if leaves_directory {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

/// The logical working directory (POSIX `pwd -L`) if `PWD` names it, else the physical one, with
/// symbolic links resolved.
fn working_directory() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let named = std::env::var_os("PWD").map(PathBuf::from);
    let identity = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    let is_plain = |path: &PathBuf| {
        path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
    };
    named
        .filter(|path| {
            is_plain(path) && identity(path).is_some() && identity(path) == identity(Path::new("."))
        })
        .or_else(|| std::env::current_dir().ok())
        .unwrap_or_default()
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}
