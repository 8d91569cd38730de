//! Confirmation of commands that cannot be undone: without `--yes` they only print what they would
//! do.

use std::process::ExitCode;

use serde_json::Value;

use crate::{args::Global, output, report::USAGE};

/// Whether a command that cannot be undone does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub(crate) struct Confirmed {
    /// Apply the change; without it, only print what would happen
    #[arg(long)]
    yes: bool,
}

impl Confirmed {
    /// Whether `--yes` was given.
    pub(crate) fn is_given(self) -> bool {
        self.yes
    }
}

/// Prints what would happen: `lines` as text, or `data` as JSON with `"done": false`. Returns the
/// exit code of wrong usage, so that a script does not continue as if the command had run.
pub(crate) fn preview(
    global: &Global,
    data: Value,
    lines: impl IntoIterator<Item = String>,
) -> ExitCode {
    if global.json {
        show(data, false);
    } else {
        lines.into_iter().for_each(output::stdout_line);
    }
    output::stderr_line("Nothing was changed; add --yes to apply it.");
    ExitCode::from(USAGE)
}

/// Prints what was done, in the same form as [`preview`], with `"done": true`.
pub(crate) fn done(
    global: &Global,
    data: Value,
    lines: impl IntoIterator<Item = String>,
) -> ExitCode {
    if global.json {
        show(data, true);
    } else {
        lines.into_iter().for_each(output::stdout_line);
    }
    ExitCode::SUCCESS
}

fn show(mut data: Value, done: bool) {
    data["done"] = done.into();
    output::json(&data);
}
