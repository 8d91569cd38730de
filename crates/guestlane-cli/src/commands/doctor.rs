//! `guestlane doctor`: checks the settings, the store and the platform, and suggests fixes.

use std::process::ExitCode;

use guestlane_cli::doctor::{self, CheckStatus};
use guestlane_runtime::Clock;

use crate::{args::Global, output, settings};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    let findings = doctor::run_checks(&settings, &settings::proxies(), &Clock::system()).await;
    for finding in &findings {
        if global.json {
            output::json(finding);
            continue;
        }
        let mark = match finding.outcome {
            CheckStatus::Ok => "ok  ",
            CheckStatus::Warning => "warn",
            CheckStatus::Failed => "BAD ",
            CheckStatus::Skipped => "–   ",
        };
        output::stdout_line(format!(
            "{mark}  {}: {}",
            output::printable(&finding.check),
            output::printable(&finding.result)
        ));
        for (name, text) in [
            ("cause", &finding.cause),
            ("fix", &finding.fix),
            ("correlation id", &finding.correlation_id),
        ] {
            if let Some(text) = text {
                output::stdout_line(format!("        {name}: {}", output::printable(text)));
            }
        }
    }
    let count = |outcome| {
        findings
            .iter()
            .filter(|finding| finding.outcome == outcome)
            .count() as u64
    };
    let (bad, warnings) = (count(CheckStatus::Failed), count(CheckStatus::Warning));
    if !global.json {
        let summary = match (bad, warnings) {
            (0, 0) => "All checks passed.".to_owned(),
            (0, n) => format!("Sessions can be created; {}.", output::count(n, "warning")),
            (n, _) => format!(
                "{} must be fixed before sessions can be created.",
                output::count(n, "problem")
            ),
        };
        output::stdout_line(format!("\n{summary} Nothing was created or changed."));
    }
    Ok(if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
