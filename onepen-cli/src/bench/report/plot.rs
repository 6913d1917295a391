//! The plots of the page, as SVG. Sizes are for a column of 400 units, so that
//! text can be read on a phone; colours come from the page's style sheet.

use std::fmt::Write;

use super::{PointReport, Report, WayReport, count, time};

const WIDTH: f64 = 400.0;
/// Height of one row of a bar chart: a line of text and its bar.
const ROW: f64 = 38.0;

/// Text that is safe inside an element or a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Adds formatted text.
macro_rules! add {
    ($to:expr, $($what:tt)*) => {
        write!($to, $($what)*).expect("writing to a string cannot fail")
    };
}
pub(super) use add;

fn svg(height: f64, label: &str, content: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">{content}</svg>",
        escape(label)
    )
}

/// The class that gives a way its colour: by its place in the run.
pub fn color(report: &Report, way: &str) -> usize {
    report.points[0]
        .ways
        .iter()
        .position(|candidate| candidate.way == way)
        .unwrap_or(0)
}

/// One bar per way: name and figure above it.
fn bars(
    report: &Report,
    point: &PointReport,
    label: &str,
    most: f64,
    value: impl Fn(&WayReport) -> Option<(f64, String)>,
) -> String {
    let mut content = String::new();
    let mut y = 0.0;
    for way in &point.ways {
        let measured = value(way);
        let (length, text) = measured.map_or((0.0, "–".to_owned()), |(value, text)| {
            ((value / most.max(f64::MIN_POSITIVE)) * WIDTH, text)
        });
        add!(
            content,
            "<g class=\"w{}\" data-way=\"{2}\"><text x=\"0\" y=\"{1:.0}\">{2}</text>\
             <text class=\"figure\" x=\"{WIDTH}\" y=\"{1:.0}\">{3}</text>\
             <rect class=\"rail\" x=\"0\" y=\"{4:.0}\" width=\"{WIDTH}\" height=\"10\" rx=\"2\"/>\
             <rect class=\"bar\" x=\"0\" y=\"{4:.0}\" width=\"{5:.1}\" height=\"10\" rx=\"2\"/></g>",
            color(report, way.way),
            y + 13.0,
            escape(&way.title()),
            escape(&text),
            y + 19.0,
            length.clamp(if length > 0.0 { 1.0 } else { 0.0 }, WIDTH),
        );
        y += ROW;
    }
    svg(y, label, &content)
}

/// Transactions per second of each way.
pub fn throughput_bars(report: &Report, point: &PointReport) -> String {
    let most = point
        .ways
        .iter()
        .filter_map(|way| way.tx_per_s)
        .fold(0.0, f64::max);
    bars(
        report,
        point,
        "Transactions per second of each way",
        most,
        |way| way.tx_per_s.map(|rate| (rate, count(rate))),
    )
}

/// The smallest share of a client by the largest, of each way.
pub fn fairness_bars(report: &Report, point: &PointReport) -> String {
    let label = "Fairness of each way: the smallest share of a client by the largest";
    bars(report, point, label, 1.0, |way| {
        way.fairness.map(|share| (share, format!("{share:.2}")))
    })
}

/// A logarithmic scale over whole powers of ten.
struct Decades {
    low: f64,
    high: f64,
}

impl Decades {
    fn over(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|&value| value > 0.0) {
            low = low.min(value);
            high = high.max(value);
        }
        (high > 0.0).then(|| {
            let low = low.log10().floor();
            Self {
                low,
                high: high.log10().ceil().max(low + 1.0),
            }
        })
    }

    /// Where a value lies, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        ((value.log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Its powers of ten, thinned out so that their labels fit.
    fn marks(&self, at_most: usize) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low as i32, self.high as i32);
        let step = ((high - low) as usize).div_ceil(at_most).max(1);
        (low..=high).step_by(step).map(|power| 10_f64.powi(power))
    }
}

/// Half, 99 %, 99.9 % and all of the latencies of each way, on one scale.
pub fn latency_ranges(report: &Report, point: &PointReport) -> String {
    let label = "Latency of each way: median, 99 %, 99.9 % and longest";
    let all = point.ways.iter().filter_map(|way| way.latency_us);
    let Some(scale) = Decades::over(all.flat_map(|l| [l.p50, l.p99, l.p99_9, l.max])) else {
        return svg(
            ROW,
            label,
            "<text x=\"0\" y=\"14\">nothing was measured</text>",
        );
    };
    let edge = 14.0;
    let x = |value: f64| edge + scale.at(value) * (WIDTH - 2.0 * edge);
    let height = point.ways.len() as f64 * ROW;
    let mut content = String::new();
    for mark in scale.marks(6) {
        add!(
            content,
            "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{height:.0}\"/>\
             <text class=\"mark\" x=\"{0:.1}\" y=\"{1:.0}\">{2}</text>",
            x(mark),
            height + 14.0,
            mark_time(mark)
        );
    }
    for (row, way) in point.ways.iter().enumerate() {
        let y = row as f64 * ROW;
        add!(
            content,
            "<g class=\"w{}\" data-way=\"{2}\"><text class=\"over\" x=\"0\" y=\"{1:.0}\">{2}</text>",
            color(report, way.way),
            y + 14.0,
            escape(&way.title())
        );
        if let Some(latency) = way.latency_us {
            let (middle, p50, p99, p999, max) = (
                y + 25.0,
                x(latency.p50),
                x(latency.p99),
                x(latency.p99_9),
                x(latency.max),
            );
            add!(
                content,
                "<text class=\"figure over\" x=\"{WIDTH}\" y=\"{0:.0}\">{1} · {2}</text>\
                 <line class=\"range\" x1=\"{p50:.1}\" x2=\"{max:.1}\" y1=\"{middle:.0}\" y2=\"{middle:.0}\"/>\
                 <line class=\"range thick\" x1=\"{p50:.1}\" x2=\"{p99:.1}\" y1=\"{middle:.0}\" y2=\"{middle:.0}\"/>\
                 <circle class=\"dot\" cx=\"{p50:.1}\" cy=\"{middle:.0}\" r=\"5\"/>\
                 <line class=\"tick\" x1=\"{p999:.1}\" x2=\"{p999:.1}\" y1=\"{3:.0}\" y2=\"{4:.0}\"/>\
                 <circle class=\"dot open\" cx=\"{max:.1}\" cy=\"{middle:.0}\" r=\"4\"/>",
                y + 14.0,
                time(latency.p50),
                time(latency.max),
                middle - 5.0,
                middle + 5.0,
            );
        }
        content.push_str("</g>");
    }
    svg(height + 20.0, label, &content)
}

fn mark_time(micros: f64) -> String {
    match micros {
        m if m < 1.0 => format!("{:.0} ns", m * 1_000.0),
        m if m < 1_000.0 => format!("{m:.0} µs"),
        m if m < 1_000_000.0 => format!("{:.0} ms", m / 1_000.0),
        m => format!("{:.0} s", m / 1_000_000.0),
    }
}

/// Throughput against the number of writers, one line per way; both scales
/// are logarithmic, or the ways below the fastest would be one line.
pub fn throughput_lines(report: &Report) -> String {
    let label = "Transactions per second against writers";
    let points = &report.points;
    let rates = points
        .iter()
        .flat_map(|point| point.ways.iter().filter_map(|way| way.tx_per_s));
    let Some(scale) = Decades::over(rates) else {
        return svg(
            ROW,
            label,
            "<text x=\"0\" y=\"14\">nothing was measured</text>",
        );
    };
    let (left, right, top, bottom) = (34.0, WIDTH - 12.0, 8.0, 300.0);
    let threads = |point: &PointReport| f64::from(point.threads).log2();
    let least = points.iter().map(threads).fold(f64::INFINITY, f64::min);
    let most = points.iter().map(threads).fold(0.0, f64::max);
    let x = |point: &PointReport| {
        let at = (threads(point) - least) / (most - least).max(f64::MIN_POSITIVE);
        left + at * (right - left)
    };
    let y = |rate: f64| bottom - scale.at(rate) * (bottom - top);
    let mut content = String::new();
    for mark in scale.marks(8) {
        add!(
            content,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/>\
             <text class=\"mark left\" x=\"{1}\" y=\"{2:.1}\">{3}</text>",
            y(mark),
            left - 5.0,
            y(mark) + 4.0,
            mark_count(mark)
        );
    }
    for point in points {
        add!(
            content,
            "<text class=\"mark\" x=\"{:.1}\" y=\"{}\">{}</text>",
            x(point),
            bottom + 16.0,
            point.threads
        );
    }
    for way in &points[0].ways {
        let places: Vec<_> = points
            .iter()
            .filter_map(|point| {
                let there = point.ways.iter().find(|there| there.way == way.way)?;
                let rate = there.tx_per_s.filter(|&rate| rate > 0.0)?;
                Some((x(point), y(rate)))
            })
            .collect();
        add!(
            content,
            "<g class=\"w{}\" data-way=\"{}\"><polyline class=\"line\" points=\"",
            color(report, way.way),
            escape(&way.title())
        );
        for (x, y) in &places {
            add!(content, "{x:.1},{y:.1} ");
        }
        content.push_str("\"/>");
        for (x, y) in &places {
            add!(
                content,
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
            );
        }
        content.push_str("</g>");
    }
    add!(
        content,
        "<text class=\"mark\" x=\"{:.0}\" y=\"{}\">writers</text>",
        f64::midpoint(left, right),
        bottom + 34.0
    );
    svg(bottom + 40.0, label, &content)
}

fn mark_count(rate: f64) -> String {
    match rate {
        r if r < 1.0 => format!("{r}"),
        r if r < 1_000.0 => format!("{r:.0}"),
        r if r < 1_000_000.0 => format!("{:.0}k", r / 1_000.0),
        r => format!("{:.0}M", r / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_scale_covers_its_values_in_whole_decades() {
        let scale = Decades::over([3.0, 450.0, 0.0].into_iter()).unwrap();
        assert_eq!((scale.low, scale.high), (0.0, 3.0));
        assert_eq!(scale.at(1.0), 0.0);
        assert_eq!(scale.at(1_000.0), 1.0);
        assert_eq!(scale.at(1e9), 1.0);
        let marks: Vec<_> = scale.marks(8).collect();
        assert_eq!(marks, [1.0, 10.0, 100.0, 1_000.0]);
        assert!(Decades::over([0.0].into_iter()).is_none());
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a b='c'>&\""), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;");
    }
}
