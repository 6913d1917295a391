//! Another process of this test program, which does as it is told and answers in
//! lines that begin with `> `. It goes with its `Partner`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Partner {
    pub process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Partner {
    /// Waits until it says `open`.
    pub fn start(child: &mut Command) -> Self {
        let mut process = child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut partner = Self {
            process,
            input,
            output,
        };
        assert_eq!(partner.hear().as_deref(), Some("open"));
        partner
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The next answer; `None` when it is gone, be it in the middle of one.
    pub fn hear(&mut self) -> Option<String> {
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

    pub fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.hear().expect("it is there")
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
