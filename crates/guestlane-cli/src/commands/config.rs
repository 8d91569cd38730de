//! `guestlane config`: shows each setting with its value and its origin.

use std::process::ExitCode;

use guestlane_cli::config::SETTINGS;
use serde_json::json;

use crate::{
    args::{Config, Global},
    output, settings,
};

pub(crate) fn run(global: &Global, args: &Config) -> anyhow::Result<ExitCode> {
    let Config::Show = args;
    let settings = settings::load(global)?;
    let shown = SETTINGS.iter().map(|setting| {
        let shown = settings.display_value(setting);
        let origin = shown
            .as_ref()
            .map_or_else(|| "not set".to_owned(), |(_, origin)| origin.to_string());
        (setting, shown.map(|(value, _)| value), origin)
    });
    if global.json {
        for (setting, value, origin) in shown {
            output::json(
                &json!({"name": setting.env, "key": setting.key, "value": value, "origin": origin, "about": setting.about}),
            );
        }
    } else {
        let rows = shown.map(|(setting, value, origin)| {
            vec![setting.env.to_owned(), value.unwrap_or_default(), origin]
        });
        output::stdout_line(output::table(&["setting", "value", "from"], rows));
    }
    Ok(ExitCode::SUCCESS)
}
