//! `onepen top` as a user runs it: against real processes, on a real terminal.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn top() -> Command {
    Command::new(env!("CARGO_BIN_EXE_onepen"))
}

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("app.db")
    }

    fn connect(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (n)")
            .unwrap();
        connection
    }

    fn once(&self) -> Value {
        let output = top()
            .arg("top")
            .arg(self.path())
            .args(["--once", "--json", "--interval", "50ms"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn own_row(picture: &Value) -> &Value {
    let rows = picture["rows"].as_array().unwrap();
    let own = rows
        .iter()
        .find(|row| row["pid"] == std::process::id())
        .unwrap_or_else(|| panic!("this process is not in {picture:#}"));
    assert_eq!(own["is"], "stranger", "it uses SQLite alone");
    own
}

#[test]
fn a_stranger_that_writes_is_shown_with_its_locks() {
    let scene = Scene::new();
    let connection = scene.connect();
    connection
        .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
        .unwrap();
    let picture = scene.once();
    let row = own_row(&picture);
    assert_eq!(row["does"], "writes", "{picture:#}");
    assert!(row["locks"].as_str().unwrap().contains("WRITER"));
    assert!(row["for_s"].as_f64().unwrap() >= 0.05, "held at both looks");
    assert_eq!(picture["journal"], "wal");
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(own_row(&scene.once())["does"], "idle");
}

#[test]
fn a_reader_is_shown_with_the_frame_it_pins() {
    let scene = Scene::new();
    let connection = scene.connect();
    let reader = scene.connect();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader
        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
        .unwrap();
    let before = scene.once()["log"]["frames"].as_u64().unwrap();
    for _ in 0..5 {
        connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    }
    let picture = scene.once();
    let row = own_row(&picture);
    assert_eq!(row["does"], "reads", "{picture:#}");
    assert_eq!(row["pins"]["frame"], before);
    let frames = picture["log"]["frames"].as_u64().unwrap();
    assert!(frames > before);
    assert_eq!(row["pins"]["behind"], frames - before);
    assert_eq!(picture["log"]["pinned_at"], before);
}

#[test]
fn a_process_with_onepen_is_shown_with_what_it_says_of_itself() {
    let scene = Scene::new();
    let db = onepen::Options::new()
        .label("shop")
        .open(scene.path())
        .unwrap();
    db.execute("CREATE TABLE t(n)", ()).unwrap();
    let (end, ends) = channel::<()>();
    let (inside, is_inside) = channel();
    std::thread::scope(|scope| {
        let db = &db;
        let holder = scope.spawn(move || {
            db.with().label("nightly import").write_once(move |tx| {
                tx.execute("INSERT INTO t VALUES (1)", ())?;
                inside.send(()).unwrap();
                ends.recv().unwrap();
                Ok(())
            })
        });
        is_inside.recv().unwrap();
        let picture = scene.once();
        end.send(()).unwrap();
        holder.join().unwrap().unwrap();
        let rows = picture["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{picture:#}");
        let row = &rows[0];
        assert_eq!(
            (&row["is"], &row["label"]),
            (&"onepen".into(), &"shop".into())
        );
        assert_eq!(row["does"], "writes", "{picture:#}");
        assert_eq!(row["purpose"], "nightly import");
        assert!(row["locks"].as_str().unwrap().contains("WRITER"));
        assert!(row["for_s"].as_f64().unwrap() > 0.0);
        assert_eq!(picture["totals"]["onepen"], 1);
    });
    // In the next picture it has committed something and is at rest.
    let picture = scene.once();
    assert_eq!(picture["rows"][0]["does"], "idle", "{picture:#}");
}

#[test]
fn looking_changes_nothing() {
    let scene = Scene::new();
    let connection = scene.connect();
    connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(scene.directory.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.clone(), std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    scene.once();
    assert!(before == files(), "a file was made, removed or written");
}

#[test]
fn what_cannot_be_looked_at_is_said_and_ends_with_2() {
    let scene = Scene::new();
    for path in [scene.path(), scene.directory.path().to_owned()] {
        let output = top().arg("top").arg(&path).arg("--once").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(said.contains(&name), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_reader_of_json_that_leaves_ends_it() {
    let scene = Scene::new();
    let _connection = scene.connect();
    let mut child = top()
        .arg("top")
        .arg(scene.path())
        .args(["--json", "--interval", "20ms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut first = [0; 1];
    output.read_exact(&mut first).unwrap();
    drop(output);
    assert!(wait(&mut child).success());
}

fn wait(child: &mut std::process::Child) -> std::process::ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it did not end");
        }
        std::thread::sleep(Duration::from_millis(5)); // between two looks
    }
}

const ROWS: NonZero<u16> = NonZero::new(24).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(80).unwrap();

/// A terminal of 80 × 24 with `onepen top` on it.
struct OnTerminal {
    child: std::process::Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl OnTerminal {
    fn start(scene: &Scene) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let mut size = rustix::termios::tcgetwinsize(&master).unwrap();
        (size.ws_row, size.ws_col) = (ROWS.get(), COLUMNS.get());
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || {
            let file = File::options()
                .read(true)
                .write(true)
                .open(name.to_str().unwrap())
                .unwrap();
            Stdio::from(file)
        };
        let child = top()
            .arg("top")
            .arg(scene.path())
            .args(["--interval", "100ms"])
            .env("TERM", "xterm")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let mut from = keys.try_clone().unwrap();
        let (to, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal ends with an error when its last user has gone.
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                if to.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keys,
            output,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is so.
    fn until(&mut self, what: &str, is: impl Fn(&str) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let contents = self.screen.screen().contents();
            if is(&contents) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(_) => panic!("never {what}:\n{contents}"),
            }
        }
    }

    /// Waits until the screen is as it was before.
    fn until_given_back(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.screen.screen().alternate_screen() {
            let left = until.saturating_duration_since(Instant::now());
            let bytes = self.output.recv_timeout(left);
            self.screen
                .process(&bytes.expect("the screen is given back"));
        }
    }

    fn until_shown(&mut self, text: &str) {
        self.until(&format!("shown: {text}"), |contents| {
            contents.contains(text)
        });
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_terminal_it_lives_obeys_keys_and_gives_the_screen_back() {
    let scene = Scene::new();
    let connection = scene.connect();
    let mut terminal = OnTerminal::start(&scene);
    let own = std::process::id().to_string();
    terminal.until_shown("nobody writes at this moment");
    terminal.until_shown(&own);
    assert!(terminal.screen.screen().alternate_screen());

    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    terminal.until_shown(&format!("(pid {own}, "));
    terminal.until_shown("has WRITER");
    connection.execute_batch("COMMIT").unwrap();
    terminal.until_shown("nobody writes at this moment");

    terminal.press("s");
    terminal.until_shown("sort: pid");
    terminal.press("/nobody-has-this-name\r");
    terminal.until("without this row", |contents| {
        !contents
            .lines()
            .any(|line| line.trim_start().starts_with(&own))
    });
    terminal.press("h");
    terminal.until_shown("any key closes this");
    terminal.press("x");
    terminal.until("closed", |contents| {
        !contents.contains("any key closes this")
    });

    terminal.press("q");
    let status = wait(&mut terminal.child);
    assert!(status.success());
    terminal.until_given_back();
}

#[test]
fn a_signal_ends_it_with_the_terminal_given_back() {
    let scene = Scene::new();
    let _connection = scene.connect();
    let mut terminal = OnTerminal::start(&scene);
    terminal.until_shown("nobody writes at this moment");
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(wait(&mut terminal.child).success());
    terminal.until_given_back();
}
