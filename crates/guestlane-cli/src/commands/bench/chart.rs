//! Chart of latency percentiles, as SVG. The axis of percentiles is logarithmic, so that it shows
//! the few slow sessions.

use std::fmt::Write;

use super::stats::{Report, SHARES};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 64.0;

/// A palette that people with colour blindness can distinguish (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"];

/// The horizontal position of a percentile: each further nine has the same width.
fn x(share: f64) -> f64 {
    let nines = -(1.0 - share).log10();
    LEFT + nines / 4.0 * (WIDTH - LEFT - RIGHT)
}

pub(super) fn latencies(reports: &[Report]) -> String {
    let highest = reports
        .iter()
        .flat_map(|report| &report.median.latency_ms.curve)
        .copied()
        .fold(0.0, f64::max);
    let step = nice_step(highest / 5.0);
    let top = (highest / step).ceil().max(1.0) * step;
    let y = |ms: f64| HEIGHT - BOTTOM - ms / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = svg.write_fmt(text);
        svg.push('\n');
    };
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="Latency of sessions by share">"#
    ));
    line(format_args!(
        r#"<rect width="100%" height="100%" fill="white"/>"#
    ));
    line(format_args!(
        r##"<text x="{LEFT}" y="22" font-size="15" fill="#222">Latency of a session, milliseconds (medians of the runs)</text>"##
    ));
    for n in 0..=(top / step).round() as u32 {
        let ms = f64::from(n) * step;
        let (right, at) = (WIDTH - RIGHT, y(ms));
        line(format_args!(
            r##"<line x1="{LEFT}" x2="{right}" y1="{at:.1}" y2="{at:.1}" stroke="#ddd"/>"##
        ));
        line(format_args!(
            r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#444">{}</text>"##,
            LEFT - 8.0,
            at + 4.0,
            short(ms)
        ));
    }
    for (share, name) in [
        (0.0, "fastest"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
    ] {
        let (at, bottom) = (x(share), HEIGHT - BOTTOM);
        line(format_args!(
            r##"<line x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{bottom}" stroke="#eee"/>"##
        ));
        line(format_args!(
            r##"<text x="{at:.1}" y="{:.1}" text-anchor="middle" fill="#444">{name}</text>"##,
            bottom + 18.0
        ));
    }
    line(format_args!(
        r##"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="#444">share of sessions at or below this latency</text>"##,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 22.0
    ));
    for (n, (report, colour)) in reports.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let curve = SHARES.iter().zip(&report.median.latency_ms.curve);
        let points: Vec<_> = curve
            .map(|(share, ms)| format!("{:.1},{:.1}", x(*share), y(*ms)))
            .collect();
        line(format_args!(
            r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
            points.join(" ")
        ));
        let (at, row) = (LEFT + 14.0, TOP + 14.0 + n as f64 * 17.0);
        line(format_args!(
            r#"<rect x="{at}" y="{:.1}" width="14" height="4" fill="{colour}"/>"#,
            row - 6.0
        ));
        line(format_args!(
            r##"<text x="{}" y="{row:.1}" fill="#222">{}</text>"##,
            at + 20.0,
            report.name
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The smallest step of 1, 2 or 5 times a power of ten that is at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(0.001).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|step| *step >= least)
        .unwrap_or(power)
}

fn short(ms: f64) -> String {
    let text = format!("{ms:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
