//! Looks that were never taken, and what is made of them.

use std::time::{Duration, Instant};

use onepen_lock::gate::{Counters, Stand};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::look::{Hold, Member, Raw};
use super::order::{Sort, arrange};
use super::picture::{Does, Is, Picture};
use super::screen::{After, Screen};
use super::text;
use super::watch::Watch;
use crate::files::Log;

fn nothing(at: Instant) -> Raw {
    Raw {
        at,
        holds: Vec::new(),
        members: Vec::new(),
        log: Some(Log {
            changes: 10,
            page_size: 4096,
            frames: 100,
            copied: 60,
            marks: [0, 100, 40, u32::MAX, u32::MAX],
            salt: [1, 2],
        }),
        log_bytes: Some(412_032),
        database_bytes: 8192,
        changed: None,
        unseen: Vec::new(),
    }
}

fn hold(pid: u32) -> Hold {
    Hold {
        pid: Some(pid),
        started: 7,
        command: format!("python3 job{pid}.py"),
        activity: "sleeping".into(),
        stopped: false,
        locks: "it open, no transaction".into(),
        in_wal: true,
        writes: false,
        checkpoints: false,
        reads: false,
        shares: true,
        marks: Vec::new(),
    }
}

fn writer(pid: u32) -> Hold {
    Hold {
        writes: true,
        locks: "WRITER".into(),
        ..hold(pid)
    }
}

fn reader(pid: u32, mark: u8) -> Hold {
    Hold {
        reads: true,
        marks: vec![mark],
        ..hold(pid)
    }
}

fn member(slot: usize, stand: Stand) -> Member {
    Member {
        slot,
        pid: 100 + slot as u32,
        started: 7,
        command: "app".into(),
        activity: "running".into(),
        stopped: false,
        label: format!("shop{slot}"),
        stand,
        counters: Counters::default(),
    }
}

fn waits(before: usize) -> Stand {
    Stand::Waiting {
        before,
        since: Duration::from_millis(3),
        threads: 1,
    }
}

fn later(at: Instant, seconds: u64) -> Instant {
    at + Duration::from_secs(seconds)
}

#[test]
fn a_stranger_has_held_the_lock_since_the_last_commit_at_least() {
    let start = Instant::now();
    let mut watch = Watch::new("app.db".into());
    let mut raw = nothing(start);
    raw.holds = vec![writer(1)];
    assert_eq!(watch.picture(&raw).rows[0].for_s, Some(0.0));
    raw.at = later(start, 2);
    let row = &watch.picture(&raw).rows[0];
    assert_eq!(
        (row.is, row.does, row.for_s),
        (Is::Stranger, Does::Writes, Some(2.0))
    );
    // Something was committed: whoever has the lock now took it since then.
    raw.at = later(start, 3);
    raw.log.as_mut().unwrap().changes += 1;
    assert_eq!(watch.picture(&raw).rows[0].for_s, Some(0.0));
    // And another process begins anew.
    raw.at = later(start, 4);
    raw.holds = vec![writer(2)];
    assert_eq!(watch.picture(&raw).rows[0].for_s, Some(0.0));
}

#[test]
fn a_reader_pins_the_frame_of_its_mark_for_as_long_as_it_was_seen_there() {
    let start = Instant::now();
    let mut watch = Watch::new("app.db".into());
    let mut raw = nothing(start);
    raw.holds = vec![reader(1, 2), reader(2, 1)];
    watch.picture(&raw);
    raw.at = later(start, 5);
    raw.log.as_mut().unwrap().frames = 120;
    raw.log.as_mut().unwrap().marks[1] = 120;
    let picture = watch.picture(&raw);
    let pins = picture.rows[0].pins.unwrap();
    assert_eq!((pins.frame, pins.behind, pins.for_s), (40, 80, 5.0));
    let pins = picture.rows[1].pins.unwrap();
    assert_eq!(
        (pins.frame, pins.behind, pins.for_s),
        (120, 0, 0.0),
        "it moved on"
    );
    assert_eq!(picture.log.unwrap().pinned_at, Some(40));
}

#[test]
fn rates_are_what_was_counted_between_two_looks() {
    let start = Instant::now();
    let mut watch = Watch::new("app.db".into());
    let mut raw = nothing(start);
    raw.members = vec![member(0, Stand::Idle)];
    let first = watch.picture(&raw);
    assert_eq!(
        first.rows[0].transactions_per_s, None,
        "one look has no rate"
    );
    assert_eq!(first.totals.commits_per_s, None);
    raw.at = later(start, 2);
    raw.members[0].counters.commits = 30;
    raw.members[0].counters.writes = 300;
    raw.members[0].counters.waits = 4;
    raw.log.as_mut().unwrap().changes += 50;
    let second = watch.picture(&raw);
    let row = &second.rows[0];
    assert_eq!(row.transactions_per_s, Some(15.0));
    assert_eq!(row.writes_per_s, Some(150.0));
    assert_eq!(row.waits_per_s, Some(2.0));
    assert_eq!(second.totals.transactions_per_s, Some(15.0));
    assert_eq!(second.totals.commits_per_s, Some(25.0), "strangers' too");
    // Another process in the same place has counted nothing before.
    raw.at = later(start, 3);
    raw.members[0].pid = 999;
    assert_eq!(watch.picture(&raw).rows[0].transactions_per_s, None);
}

#[test]
fn a_process_is_one_row_with_what_it_says_and_what_its_locks_say() {
    let mut watch = Watch::new("app.db".into());
    let mut raw = nothing(Instant::now());
    raw.members = vec![
        member(
            0,
            Stand::Turn {
                since: Duration::from_millis(4),
                thread: 42,
                purpose: Some("import".into()),
                claimed: true,
            },
        ),
        member(1, waits(0)),
    ];
    raw.holds = vec![writer(100), reader(101, 1), writer(100)];
    raw.holds[2].started = 8; // the same number, another process
    let picture = watch.picture(&raw);
    assert_eq!(picture.rows.len(), 3);
    let row = &picture.rows[0];
    assert_eq!(
        (row.does, row.for_s, row.thread),
        (Does::Writes, Some(0.004), Some(42))
    );
    assert_eq!(row.purpose.as_deref(), Some("import"));
    let row = &picture.rows[1];
    assert_eq!((row.does, row.before), (Does::Waits, Some(0)));
    assert!(
        row.pins.is_some(),
        "it waits, and another thread of it reads"
    );
    assert_eq!(picture.rows[2].is, Is::Stranger);
    assert_eq!((picture.totals.onepen, picture.totals.strangers), (2, 1));
    assert_eq!(picture.totals.waiting, 1);
}

/// Everybody at once, shuffled.
fn crowd() -> Picture {
    let mut watch = Watch::new("app.db".into());
    let mut raw = nothing(Instant::now());
    raw.members = vec![
        member(3, Stand::Idle),
        member(2, waits(1)),
        member(1, waits(0)),
    ];
    raw.members[0].counters.longest_wait = Duration::from_millis(9);
    raw.holds = vec![hold(1), reader(2, 1), writer(3)];
    raw.holds[1].stopped = true;
    let mut picture = watch.picture(&raw);
    picture.unseen.clear();
    picture
}

fn pids(picture: &Picture, sort: Sort, reverse: bool, filter: &str) -> Vec<u32> {
    let mut rows = picture.rows.clone();
    arrange(&mut rows, sort, reverse, filter);
    rows.iter().map(|row| row.pid.unwrap()).collect()
}

#[test]
fn the_writer_stands_first_then_the_line_then_readers() {
    let crowd = crowd();
    assert_eq!(
        pids(&crowd, Sort::Line, false, ""),
        [3, 101, 102, 2, 1, 103]
    );
    assert_eq!(pids(&crowd, Sort::Pid, false, ""), [1, 2, 3, 101, 102, 103]);
    assert_eq!(pids(&crowd, Sort::Pid, true, ""), [103, 102, 101, 3, 2, 1]);
    assert_eq!(pids(&crowd, Sort::Wait, false, "")[0], 103);
    assert_eq!(pids(&crowd, Sort::Pins, false, "")[0], 2);
}

#[test]
fn a_filter_looks_at_number_label_command_and_doing() {
    let crowd = crowd();
    assert_eq!(pids(&crowd, Sort::Pid, false, "SHOP2"), [102]);
    assert_eq!(pids(&crowd, Sort::Pid, false, "job1"), [1]);
    assert_eq!(pids(&crowd, Sort::Pid, false, "waits"), [101, 102]);
    assert_eq!(pids(&crowd, Sort::Pid, false, "stranger"), [1, 2, 3]);
    assert!(pids(&crowd, Sort::Pid, false, "nobody").is_empty());
}

#[test]
fn plain_text_names_the_writer_and_keeps_its_columns() {
    let text = text::plain(&crowd());
    assert!(
        text.contains("writer: python3 job3.py (pid 3, sleeping) has WRITER"),
        "{text}"
    );
    assert!(
        text.contains("log 412.0 kB, 100 frames, 60 % copied back"),
        "{text}"
    );
    assert!(text.contains("waits #1 3.0ms"), "{text}");
    assert!(text.contains("STOPPED, reads"), "{text}");
    let table: Vec<_> = text
        .lines()
        .skip_while(|line| !line.contains("PID"))
        .collect();
    let at = table[0].find("DOES").unwrap();
    for line in &table[1..] {
        assert_eq!(&line[at - 1..at], " ", "{text}");
    }
}

#[test]
fn times_take_at_most_six_characters() {
    for (seconds, shown) in [
        (0.0, "0"),
        (0.000_004, "4µs"),
        (0.0042, "4.2ms"),
        (0.25, "250ms"),
        (1.25, "1.2s"),
        (119.0, "119s"),
        (3600.0, "60min"),
        (86_400.0, "24h"),
    ] {
        assert_eq!(text::time(seconds), shown);
        assert!(text::time(seconds).chars().count() <= 6);
    }
}

fn press(screen: &mut Screen, code: KeyCode) -> After {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn drawn(screen: &mut Screen, picture: &Picture, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| screen.draw(frame, Some(picture), None))
        .unwrap();
    let buffer = terminal.backend().buffer();
    (0..height)
        .map(|y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
                + "\n"
        })
        .collect()
}

#[test]
fn everything_fits_on_80_by_24_and_nothing_breaks_on_less() {
    let mut screen = Screen::new(Duration::from_secs(1), Sort::Line, String::new());
    let crowd = crowd();
    let full = drawn(&mut screen, &crowd, 80, 24);
    for words in [
        "app.db",
        "writer: python3 job3.py",
        "PINS",
        "waits #2 3.0ms",
        "stranger",
        "q quit",
    ] {
        assert!(full.contains(words), "{words} is not on\n{full}");
    }
    for (width, height) in [(1, 1), (5, 3), (20, 5), (79, 2), (300, 100)] {
        drawn(&mut screen, &crowd, width, height);
        press(&mut screen, KeyCode::Char('h'));
        drawn(&mut screen, &crowd, width, height);
        press(&mut screen, KeyCode::Char('h'));
    }
}

#[test]
fn keys_sort_filter_pause_and_quit() {
    let mut screen = Screen::new(Duration::from_secs(1), Sort::Line, String::new());
    let crowd = crowd();
    assert_eq!(press(&mut screen, KeyCode::Char('s')), After::Draw);
    assert!(drawn(&mut screen, &crowd, 80, 24).contains("sort: pid"));
    press(&mut screen, KeyCode::Char('/'));
    for letter in "shop1q".chars() {
        assert_eq!(
            press(&mut screen, KeyCode::Char(letter)),
            After::Draw,
            "typed"
        );
    }
    press(&mut screen, KeyCode::Backspace);
    press(&mut screen, KeyCode::Enter);
    let filtered = drawn(&mut screen, &crowd, 80, 24);
    assert!(
        filtered.contains("shop1") && !filtered.contains("shop2"),
        "{filtered}"
    );
    // The first Esc ends the filter, the second the program.
    assert_eq!(press(&mut screen, KeyCode::Esc), After::Draw);
    assert!(drawn(&mut screen, &crowd, 80, 24).contains("shop2"));
    press(&mut screen, KeyCode::Char('p'));
    assert!(screen.paused);
    for _ in 0..20 {
        press(&mut screen, KeyCode::Char('-'));
    }
    assert_eq!(screen.interval, Duration::from_millis(100));
    for _ in 0..20 {
        press(&mut screen, KeyCode::Char('+'));
    }
    assert_eq!(screen.interval, Duration::from_secs(60));
    assert_eq!(press(&mut screen, KeyCode::Char('x')), After::Nothing);
    assert_eq!(press(&mut screen, KeyCode::Char('q')), After::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control_c), After::Quit);
}
