//! A process that is this test program again, and does what it is told on a line.
//!
//! Its answers are lines with `> ` before them: the test program has something to
//! say as well. It is killed when this is dropped.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Told {
    pub process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Told {
    /// Starts it, and waits for its first word.
    pub fn start(command: &mut Command, first: &str) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut told = Self {
            process,
            input,
            output,
        };
        assert_eq!(told.hear(), first);
        told
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The next answer; `None` when it is gone.
    pub fn next_answer(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                return None;
            }
            if let Some((_, answer)) = line.split_once("> ") {
                return Some(answer.trim().to_owned());
            }
        }
    }

    pub fn hear(&mut self) -> String {
        self.next_answer().expect("it is there")
    }

    pub fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.hear()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
