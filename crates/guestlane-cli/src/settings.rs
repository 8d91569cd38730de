//! Reads settings from their three places. The only code that looks at the environment.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use guestlane::{
    Error,
    config::{STATE_DIR, Settings},
    request::Invalid,
};

use crate::args::Global;

/// The settings file that is read when it is there.
const FILE: &str = "guestlane.toml";

/// File, environment, flags; the later wins.
pub(crate) fn load(global: &Global) -> Result<Settings, Error> {
    let mut settings = Settings::default();
    let path = global.config.clone().unwrap_or_else(|| PathBuf::from(FILE));
    match read(&path) {
        Ok(text) => settings.add_file(&path, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && global.config.is_none() => {}
        Err(error) => {
            let invalid =
                Invalid::new(format!("--config {}", path.display()), format!("cannot be read: {error}"), "name a file that can");
            return Err(Error::Settings(vec![invalid]));
        }
    }
    settings.add_environment(|name| {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        std::env::var(name).ok()
    });
    settings.add_flag(STATE_DIR, global.state_dir.as_ref().map(|path| path.display().to_string()));
    Ok(settings)
}

fn read(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}
