//! The page of `--html` in a real browser: it fits a phone, is dark in the
//! dark, and its buttons work. Skipped, and said so, where no Chromium is.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

fn browser() -> Option<&'static str> {
    let installed = BROWSERS.into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    if installed.is_none() {
        // Not through `eprintln!`, which the test harness would swallow.
        let said =
            format!("SKIPPED: the page was not looked at, none of {BROWSERS:?} is installed\n");
        let _ = std::io::stderr().write_all(said.as_bytes());
    }
    installed
}

fn page() -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.html");
    let ran = common::onepen(&[
        "bench",
        "--sweep",
        "1,2,4",
        "--rounds",
        "1",
        "-d",
        "30ms",
        "--readers",
        "1",
        "--html",
        path.to_str().unwrap(),
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    fs::read_to_string(path).unwrap()
}

/// Ends a browser that does not end by itself.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The document after its scripts have run.
fn rendered(browser: &str, file: &Path, dark: bool) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = profile.path().join("dom.html");
    let child = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=2000",
            "--window-size=1300,900",
            "--dump-dom",
        ])
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", file.display()))
        .stdout(fs::File::create(&output).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Guard(child);
    let began = Instant::now();
    while child.0.try_wait().unwrap().is_none() {
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "the browser does not end"
        );
        std::thread::sleep(Duration::from_millis(50)); // between two looks
    }
    fs::read_to_string(output).unwrap()
}

/// Looks at the page in a frame of this width, presses its buttons, and leaves
/// what it found in the document.
const INSPECT: &str = r#"
<script>
const look = (frame) => {
  const page = frame.contentDocument;
  const window = frame.contentWindow;
  const shown = () => [...page.querySelectorAll("[data-point]")]
    .filter((point) => point.getClientRects().length > 0).map((point) => point.dataset.point);
  const press = (selector) => page.querySelector(selector).click();
  const found = {
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    paper: window.getComputedStyle(page.body).backgroundColor,
    ink: window.getComputedStyle(page.body).color,
    plots: page.querySelectorAll("svg").length,
    lines: page.querySelectorAll("polyline").length,
    smallest: Math.min(...[...page.querySelectorAll("[data-point]:not([hidden]) svg text")]
      .map((text) => text.getBoundingClientRect().height)),
    outside: [...page.querySelectorAll("[data-point]:not([hidden]) svg text, .lines svg text")]
      .filter((text) => text.getBoundingClientRect().right > window.innerWidth + 1
        || text.getBoundingClientRect().left < -1).map((text) => text.textContent),
    requests: window.performance.getEntriesByType("resource").length,
    first: shown(),
  };
  press('[data-threads="2"]');
  found.second = shown();
  press('[data-highlight="onepen"]');
  found.lit = [...page.querySelectorAll("svg g.lit")].every((mark) => mark.dataset.way === "onepen")
    && page.querySelectorAll("svg g.lit").length > 0;
  press('[data-highlight="onepen"]');
  found.unlit = page.querySelectorAll("svg g.lit").length;
  return found;
};
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(look);
  document.body.textContent = "FOUND" + JSON.stringify(found) + "DNUOF";
};
</script>
"#;

#[test]
fn the_page_fits_a_phone_and_a_desk_in_light_and_in_dark_and_its_buttons_work() {
    let Some(browser) = browser() else { return };
    let page = page().replace('&', "&amp;").replace('"', "&quot;");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("frames.html");
    let frames: String = [390, 1200]
        .map(|width| {
            format!("<iframe width=\"{width}\" height=\"800\" srcdoc=\"{page}\"></iframe>")
        })
        .concat();
    fs::write(
        &file,
        format!("<!doctype html><meta charset=utf-8>{INSPECT}<body>{frames}"),
    )
    .unwrap();
    for dark in [false, true] {
        let document = rendered(browser, &file, dark);
        let found = document
            .split_once("FOUND{")
            .or_else(|| document.split_once("FOUND["))
            .and_then(|(_, rest)| rest.split_once("DNUOF"))
            .map(|(json, _)| format!("[{json}"))
            .unwrap_or_else(|| panic!("the browser answered {document:.2000}"));
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let frames = found.as_array().unwrap();
        assert_eq!(frames.len(), 2);
        for frame in frames {
            assert_eq!(frame["overflow"], 0, "it must not scroll sideways: {frame}");
            assert_eq!(frame["outside"], serde_json::json!([]), "{frame}");
            assert!(
                frame["smallest"].as_f64().unwrap() >= 11.0,
                "too small to read: {frame}"
            );
            // One against writers, three for each number of threads.
            assert_eq!(frame["plots"], 1 + 3 * 3, "{frame}");
            assert_eq!(frame["lines"], 11, "{frame}");
            assert_eq!(frame["requests"], 0, "it must need nothing else: {frame}");
            assert_eq!(frame["first"], serde_json::json!(["4"]), "{frame}");
            assert_eq!(frame["second"], serde_json::json!(["2"]), "{frame}");
            assert_eq!(frame["lit"], true, "{frame}");
            assert_eq!(frame["unlit"], 0, "{frame}");
            let (paper, ink) = (brightness(&frame["paper"]), brightness(&frame["ink"]));
            assert_eq!(paper < ink, dark, "{frame}");
            assert!((paper - ink).abs() > 150, "hard to read: {frame}");
        }
    }
}

/// Of `rgb(r, g, b)`, from 0 to 255.
fn brightness(color: &serde_json::Value) -> i32 {
    let numbers: Vec<i32> = color
        .as_str()
        .unwrap()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers[..3].iter().sum::<i32>() / 3
}
