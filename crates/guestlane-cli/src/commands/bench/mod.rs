//! `guestlane bench`: measures complete runs against a simulator in a process of its own, on this
//! machine.

mod chart;
mod run;
mod stats;

use std::process::ExitCode;

use guestlane_core::request::ValidationError;

use crate::{
    args::{Bench, Global},
    output,
};
use run::Plan;
use stats::{Figures, Report};

pub(crate) async fn run(global: &Global, args: &Bench) -> anyhow::Result<ExitCode> {
    let (quota, arrivals) = (
        super::rate("--rate-limit", &args.rate_limit)?,
        super::rate("--arrival-rate", &args.arrival_rate)?,
    );
    let plans: Vec<Plan> = if args.ablation {
        Plan::each_part()
    } else {
        vec![Plan::whole()]
    };
    let mut runs: Vec<Vec<Figures>> = plans.iter().map(|_| Vec::new()).collect();
    for round in 1..=args.runs {
        // The plans alternate, so that other load on the machine affects all of them alike.
        for (plan, done) in plans.iter().zip(&mut runs) {
            let figures = run::run(args, plan, quota, arrivals).await?;
            output::stderr_line(format!(
                "{}, run {round} of {}: {}",
                plan.name,
                args.runs,
                figures.summary()
            ));
            done.push(figures);
        }
    }
    let reports: Vec<_> = plans
        .iter()
        .zip(runs)
        .map(|(plan, runs)| Report::of(plan.name, runs))
        .collect();
    if let Some(path) = &args.svg {
        std::fs::write(path, chart::latencies(&reports)).map_err(|error| {
            ValidationError::new(
                "--svg",
                format!("{} cannot be written: {error}", path.display()),
                "name another file",
            )
        })?;
    }
    if global.json {
        output::json(&reports);
    } else {
        output::stdout_line(stats::table(&reports));
    }
    Ok(ExitCode::SUCCESS)
}
