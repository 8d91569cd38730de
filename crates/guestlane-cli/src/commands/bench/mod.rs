//! `guestlane bench`: whole runs against a simulator in a process of its own, on this machine.

mod chart;
mod figures;
mod run;

use std::process::ExitCode;

use guestlane::request::Invalid;

use crate::{
    args::{Bench, Global},
    screen,
};
use figures::{Figures, Report};
use run::Plan;

pub(crate) async fn run(global: &Global, args: &Bench) -> anyhow::Result<ExitCode> {
    let (quota, arrivals) = (super::rate("--quota", &args.quota)?, super::rate("--arrivals", &args.arrivals)?);
    let plans: Vec<Plan> = if args.costs { Plan::each_guarantee() } else { vec![Plan::whole()] };
    let mut runs: Vec<Vec<Figures>> = plans.iter().map(|_| Vec::new()).collect();
    for round in 1..=args.runs {
        // In turns: what else this machine does meets all plans alike.
        for (plan, done) in plans.iter().zip(&mut runs) {
            let figures = run::run(args, plan, quota, arrivals).await?;
            screen::note(format!("{}, run {round} of {}: {}", plan.name, args.runs, figures.brief()));
            done.push(figures);
        }
    }
    let reports: Vec<_> = plans.iter().zip(runs).map(|(plan, runs)| Report::of(plan.name, runs)).collect();
    if let Some(path) = &args.svg {
        std::fs::write(path, chart::latencies(&reports)).map_err(|error| {
            Invalid::new("--svg", format!("{} cannot be written: {error}", path.display()), "name another file")
        })?;
    }
    if global.json {
        screen::json(&reports);
    } else {
        screen::data(figures::table(&reports));
    }
    Ok(ExitCode::SUCCESS)
}
