//! The figures of a run, and the comparison of two programs.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The figures of a run, in the form of `guestlane bench --json`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    pub(crate) sessions_per_second: f64,
    /// Processor time of the program, without the simulator.
    pub(crate) cpu_ms_per_session: f64,
    pub(crate) latency_ms: Latency,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// The runs of both programs.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    pub(crate) floor: Vec<Figures>,
    pub(crate) guestlane: Vec<Figures>,
}

/// A figure: its name, and how it is read from a run.
type Column = (&'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 4] = [
    ("cpuMsPerSession", |run| run.cpu_ms_per_session),
    ("sessionsPerSecond", |run| run.sessions_per_second),
    ("p50Ms", |run| run.latency_ms.p50),
    ("p99Ms", |run| run.latency_ms.p99),
];

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Pair {
    /// The median over all rounds of guestlane's figure divided by the floor's in the same round.
    fn ratio(&self, of: fn(&Figures) -> f64) -> f64 {
        let rounds = self.guestlane.iter().zip(&self.floor);
        median(rounds.map(|(guestlane, floor)| of(guestlane) / of(floor)))
    }

    pub(crate) fn report(&self) -> Value {
        let figures = COLUMNS.map(|(name, of)| {
            json!({
                "name": name,
                "floor": median(self.floor.iter().map(of)),
                "guestlane": median(self.guestlane.iter().map(of)),
                "ratio": self.ratio(of),
            })
        });
        json!({"rounds": self.floor.len(), "figures": figures, "runs": {"floor": self.floor, "guestlane": self.guestlane}})
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<20}{:>10}{:>12}{:>8}\n",
            "median", "floor", "guestlane", "ratio"
        );
        for (name, of) in COLUMNS {
            text.push_str(&format!(
                "{name:<20}{:>10.3}{:>12.3}{:>8.2}\n",
                median(self.floor.iter().map(of)),
                median(self.guestlane.iter().map(of)),
                self.ratio(of)
            ));
        }
        text
    }
}
