//! Entry points for `fuzz/`: they parse settings as the product does. Not part of the API.

use std::path::Path;

use crate::config::{SETTINGS, Settings};

/// Parses a settings file.
pub fn settings_file(text: &str) {
    let mut settings = Settings::default();
    if settings.add_file(Path::new("fuzz.toml"), text).is_ok() {
        read_all(&settings);
    }
}

/// Parses settings from the environment, one `NAME=value` in each line.
pub fn environment(text: &str) {
    let mut settings = Settings::default();
    settings.add_environment(|name| {
        let values = text.lines().filter_map(|line| line.split_once('='));
        values
            .into_iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    });
    read_all(&settings);
}

fn read_all(settings: &Settings) {
    let _ = (
        settings.engine(true),
        settings.crm(),
        settings.service(),
        settings.traces(),
        settings.storage(),
    );
    let _ = (
        settings.quota(),
        settings.key_schedule(),
        settings.surface(),
        settings.default_queue(),
    );
    SETTINGS
        .iter()
        .for_each(|setting| drop(settings.display_value(setting)));
}
