//! The report as one page that needs nothing else: no network, no other file.
//!
//! Guarantees: it can be read on a phone, in the dark, without a script and
//! without seeing the plots (every figure is in a table too).

use super::plot::{self, add, color, escape};
use super::{PointReport, Report, WayReport, count, thousands, time};
use std::fmt::Write;

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    add!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>onepen bench: {}</title>\n<style>\n{}{}</style>\n</head>\n<body>\n<main>\n",
        escape(&report.settings.workload),
        include_str!("page.css"),
        colors(report),
    );
    header(report, &mut page);
    if report.points.len() > 1 {
        page.push_str("<section class=\"wide\">\n<h2>Throughput against writers</h2>\n<p class=\"hint\">Transactions per second; both scales are logarithmic.</p>\n<div class=\"lines\">\n");
        page.push_str(&plot::throughput_lines(report));
        legend(report, &mut page);
        page.push_str("</div>\n</section>\n");
        choice(report, &mut page);
    }
    for point in &report.points {
        section(report, point, &mut page);
    }
    footer(report, &mut page);
    add!(
        page,
        "</main>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page.js")
    );
    page
}

/// Colours that can be told apart by most eyes, in light and in dark.
const PALETTE: [(&str, &str); 10] = [
    ("#8a8f98", "#8f96a3"),
    ("#b0722a", "#d9a05b"),
    ("#a3492f", "#e08a6d"),
    ("#6d4fa3", "#b79be8"),
    ("#2b6cb0", "#7db3f0"),
    ("#0f7b80", "#4cc4c9"),
    ("#b83280", "#f08cc4"),
    ("#8a7a00", "#e6d04c"),
    ("#4a5568", "#a8b3c7"),
    ("#7b341e", "#d3886a"),
];

fn colors(report: &Report) -> String {
    let mut light = String::new();
    let mut dark = String::new();
    let mut next = PALETTE.iter().cycle();
    for way in &report.points[0].ways {
        let number = color(report, way.way);
        // What the page is about has its own colours.
        let (on_light, on_dark) = match way.way {
            "onepen" => ("#0a7d33", "#3ddc6d"),
            "onepen-async" => ("#4f9d1a", "#a4ec5f"),
            _ => *next.next().expect("it has no end"),
        };
        add!(light, ".w{number} {{ --way: {on_light} }}\n");
        add!(dark, ".w{number} {{ --way: {on_dark} }}\n");
    }
    format!("{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n")
}

fn plural(n: u32, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n if what.ends_with("ss") => format!("{n} {what}es"),
        n => format!("{n} {what}s"),
    }
}

fn header(report: &Report, page: &mut String) {
    let settings = &report.settings;
    add!(
        page,
        "<header>\n<h1>onepen bench: {}</h1>\n",
        escape(&settings.workload)
    );
    let mut facts = vec![
        format!("synchronous {:?}", settings.durability),
        format!(
            "{} of {} s",
            plural(settings.rounds, "round"),
            settings.duration_s
        ),
        plural(settings.processes, "process"),
    ];
    if settings.readers > 0 {
        facts.push(format!(
            "{} beside the writers",
            plural(settings.readers, "reader")
        ));
    }
    facts.push(format!("SQLite {}", report.sqlite));
    if let Some(version) = &report.postgres {
        facts.push(format!("PostgreSQL {version}, through a socket"));
    }
    facts.push(format!(
        "{} {}, {}",
        report.machine.os,
        report.machine.arch,
        plural(
            u32::try_from(report.machine.cores).unwrap_or(u32::MAX),
            "core"
        )
    ));
    facts.push(report.machine.file_system.clone());
    page.push_str("<ul class=\"facts\">");
    for fact in facts {
        add!(page, "<li>{}</li>", escape(&fact));
    }
    page.push_str("</ul>\n");
    if report.interrupted {
        page.push_str(
            "<p class=\"warning\">The run was interrupted: these are the figures until then.</p>\n",
        );
    }
    page.push_str("</header>\n");
}

fn legend(report: &Report, page: &mut String) {
    page.push_str("<ul class=\"legend\">");
    for way in &report.points[0].ways {
        add!(
            page,
            "<li class=\"w{}\"><button type=\"button\" data-highlight=\"{1}\" aria-pressed=\"false\">{1}</button></li>",
            color(report, way.way),
            escape(&way.title())
        );
    }
    page.push_str("</ul>\n");
}

fn choice(report: &Report, page: &mut String) {
    page.push_str("<nav aria-label=\"Number of threads\"><span>Threads</span>");
    for point in &report.points {
        add!(
            page,
            "<button type=\"button\" data-threads=\"{0}\" aria-pressed=\"false\">{0}</button>",
            point.threads
        );
    }
    page.push_str("</nav>\n");
}

fn section(report: &Report, point: &PointReport, page: &mut String) {
    let threads = match report.settings.processes {
        1 => plural(point.threads, "writing thread"),
        processes => format!(
            "{} of {}",
            plural(processes, "process"),
            plural(point.threads, "writing thread")
        ),
    };
    add!(
        page,
        "<div class=\"point\" data-point=\"{}\">\n<h2 class=\"point-title\">{threads}</h2>\n<div class=\"plots\">\n",
        point.threads
    );
    for (title, hint, plot) in [
        (
            "Throughput",
            "Acknowledged transactions per second; longer is better.",
            plot::throughput_bars(report, point),
        ),
        (
            "Latency",
            "● median, thick to 99 %, | 99.9 %, ○ longest; further left is better. The scale is logarithmic.",
            plot::latency_ranges(report, point),
        ),
        (
            "Fairness",
            "The smallest share of a client by the largest: 1 when all got the same, 0 when one got nothing.",
            plot::fairness_bars(report, point),
        ),
    ] {
        add!(
            page,
            "<section>\n<h3>{title}</h3>\n<p class=\"hint\">{hint}</p>\n{plot}\n</section>\n"
        );
    }
    page.push_str("</div>\n");
    table(point, page);
    wrong(point, page);
    page.push_str("</div>\n");
}

type Cell = fn(&WayReport) -> Option<String>;

const CELLS: [(&str, Cell); 10] = [
    ("clients", |way| Some(thousands(way.clients as u64))),
    ("tx/s", |way| way.tx_per_s.map(count)),
    ("p50", |way| way.latency_us.map(|latency| time(latency.p50))),
    ("p99", |way| way.latency_us.map(|latency| time(latency.p99))),
    ("p99.9", |way| {
        way.latency_us.map(|latency| time(latency.p99_9))
    }),
    ("max", |way| way.latency_us.map(|latency| time(latency.max))),
    ("fair", |way| {
        way.fairness.map(|share| format!("{share:.2}"))
    }),
    ("tx/fsync", |way| match way.fsyncs {
        None if way.rounds > 0 => Some("n/a".to_owned()),
        _ => way.tx_per_fsync().map(|ratio| format!("{ratio:.1}")),
    }),
    ("failed", |way| Some(thousands(way.failed))),
    ("lost", |way| way.lost_updates.map(thousands)),
];

fn table(point: &PointReport, page: &mut String) {
    page.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"All figures\">\n<table>\n<thead><tr><th scope=\"col\">way</th>");
    let with_readers = point.ways.iter().any(|way| way.readers.is_some());
    for (head, _) in CELLS {
        add!(page, "<th scope=\"col\">{head}</th>");
    }
    if with_readers {
        page.push_str("<th scope=\"col\">reads/s</th><th scope=\"col\">read p99</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for way in &point.ways {
        let class = if way.is_violated() {
            " class=\"violated\""
        } else {
            ""
        };
        add!(
            page,
            "<tr{class}><th scope=\"row\">{}</th>",
            escape(&way.title())
        );
        for (_, cell) in CELLS {
            let text = cell(way).unwrap_or_else(|| "–".to_owned());
            add!(page, "<td>{}</td>", escape(&text));
        }
        if with_readers {
            let readers = way.readers.as_ref();
            let rate = readers.and_then(|readers| readers.tx_per_s).map(count);
            let p99 = readers
                .and_then(|readers| readers.latency_us)
                .map(|latency| time(latency.p99));
            for text in [rate, p99] {
                add!(page, "<td>{}</td>", text.as_deref().unwrap_or("–"));
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

fn wrong(point: &PointReport, page: &mut String) {
    let mut items = String::new();
    let mut item = |way: &str, class: &str, what: &str| {
        add!(
            items,
            "<li class=\"{class}\"><b>{}</b> {}</li>",
            escape(way),
            escape(what)
        );
    };
    for way in &point.ways {
        if let Some(why) = &way.could_not_run {
            item(&way.title(), "violation", &format!("could not run: {why}"));
        }
        if let Some(lost) = way.lost_updates.filter(|&lost| lost > 0) {
            let what = format!("{} acknowledged updates are lost", thousands(lost));
            item(&way.title(), "violation", &what);
        }
        for violation in &way.violations {
            item(&way.title(), "violation", violation);
        }
        for (class, &errors) in &way.errors {
            item(
                &way.title(),
                "error",
                &format!("{} × {class}", thousands(errors)),
            );
        }
        if let Some(readers) = &way.readers {
            for (class, &errors) in &readers.errors {
                let what = format!("{} × {class} (readers)", thousands(errors));
                item(&way.title(), "error", &what);
            }
        }
        if let Some(note) = way.note {
            item(&way.title(), "note", note);
        }
    }
    if !items.is_empty() {
        add!(page, "<ul class=\"wrong\">{items}</ul>\n");
    }
}

fn footer(report: &Report, page: &mut String) {
    page.push_str("<footer>\n<h2>The ways</h2>\n<dl>");
    for way in &report.points[0].ways {
        add!(
            page,
            "<dt>{}</dt><dd>{}</dd>",
            escape(&way.title()),
            escape(way.about)
        );
    }
    add!(
        page,
        "</dl>\n<p class=\"hint\">Made by onepen {}. tx/s and fairness are medians over the rounds; latencies are of all acknowledged transactions; failures, flushes and lost updates are of all rounds together.</p>\n</footer>\n",
        escape(report.onepen)
    );
}
