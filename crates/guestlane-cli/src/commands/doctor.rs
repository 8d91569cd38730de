//! `guestlane doctor`: what is right, what is wrong, and what to do.

use std::process::ExitCode;

use guestlane::{
    Clock,
    doctor::{self, Outcome},
};

use crate::{args::Global, screen, settings};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    let findings = doctor::examine(&settings, &settings::proxies(), &Clock::system()).await;
    for finding in &findings {
        if global.json {
            screen::json(finding);
            continue;
        }
        let mark = match finding.outcome {
            Outcome::Good => "ok  ",
            Outcome::Warning => "warn",
            Outcome::Bad => "BAD ",
            Outcome::Skipped => "–   ",
        };
        screen::data(format!("{mark}  {}: {}", screen::printable(&finding.check), screen::printable(&finding.result)));
        for (name, text) in [("cause", &finding.cause), ("fix", &finding.fix), ("correlation id", &finding.correlation_id)] {
            if let Some(text) = text {
                screen::data(format!("        {name}: {}", screen::printable(text)));
            }
        }
    }
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count() as u64;
    let (bad, warnings) = (count(Outcome::Bad), count(Outcome::Warning));
    if !global.json {
        let summary = match (bad, warnings) {
            (0, 0) => "All is well.".to_owned(),
            (0, n) => format!("Sessions can be created; {}.", screen::count(n, "warning")),
            (n, _) => format!("{} must be solved before sessions can be created.", screen::count(n, "problem")),
        };
        screen::data(format!("\n{summary} Nothing was created or changed."));
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
