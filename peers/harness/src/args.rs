//! The arguments every contender takes: where, how many clients, how long,
//! how durable. A wrong argument ends the program with a sentence and code 2.

use std::path::PathBuf;
use std::time::Duration;

/// What the contender was asked to do.
#[derive(Clone, Debug)]
pub struct Args {
    /// An empty directory for the database; the contender leaves its files there.
    pub dir: PathBuf,
    /// How many clients write (or read) at the same time.
    pub clients: usize,
    /// Whether the clients were asked for as `--tasks` (else `--threads`).
    pub tasks: bool,
    /// How long the clients run before anything is measured. A log that still
    /// grows costs more to flush than one that is written over.
    pub warmup: Duration,
    /// How long the clients run and are measured.
    pub time: Duration,
    /// What a COMMIT has to survive.
    pub durability: Durability,
    /// One operation in this many has its latency taken. Where an operation
    /// costs two microseconds, looking at the clock twice would show.
    pub sample: u32,
    /// Which variant of a contender that has several.
    pub way: Option<String>,
}

/// `PRAGMA synchronous` of the writing connections, in WAL mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `synchronous=FULL`: an acknowledged write survives power loss.
    Full,
    /// `synchronous=NORMAL`: an acknowledged write survives the program.
    Normal,
}

impl Durability {
    /// The name, as `PRAGMA synchronous` takes it.
    pub fn pragma(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Normal => "NORMAL",
        }
    }

    /// The number, as `PRAGMA synchronous` answers it.
    pub fn number(self) -> i64 {
        match self {
            Self::Full => 2,
            Self::Normal => 1,
        }
    }
}

const USAGE: &str = "--dir DIR (--threads N | --tasks N) [--seconds S] [--warmup S] \
    [--durability full|normal] [--sample N] [--way NAME]";

impl Args {
    /// Reads the command line of this process, or ends it.
    pub fn parse() -> Self {
        match Self::from_parser(lexopt::Parser::from_env()) {
            Ok(args) => args,
            Err(error) => {
                eprintln!("{error}\nusage: {USAGE}");
                std::process::exit(2);
            }
        }
    }

    fn from_parser(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut dir = None;
        let mut clients = None;
        let mut tasks = false;
        let mut time = Duration::from_secs(2);
        let mut warmup = Duration::ZERO;
        let mut durability = Durability::Full;
        let mut sample = 1;
        let mut way = None;
        while let Some(argument) = parser.next()? {
            match argument {
                Long("dir") => dir = Some(PathBuf::from(parser.value()?)),
                Long("threads") => clients = Some(parser.value()?.parse()?),
                Long("tasks") => {
                    clients = Some(parser.value()?.parse()?);
                    tasks = true;
                }
                Long("seconds") => time = duration(parser.value()?.parse()?)?,
                Long("warmup") => warmup = duration(parser.value()?.parse()?)?,
                Long("durability") => {
                    durability = match parser.value()?.string()?.as_str() {
                        "full" => Durability::Full,
                        "normal" => Durability::Normal,
                        other => return Err(format!("no durability `{other}`").into()),
                    }
                }
                Long("sample") => sample = parser.value()?.parse::<u32>()?.max(1),
                Long("way") => way = Some(parser.value()?.string()?),
                other => return Err(other.unexpected()),
            }
        }
        let clients = clients.ok_or("--threads or --tasks is missing")?;
        if clients == 0 {
            return Err("there must be at least one client".into());
        }
        Ok(Self {
            dir: dir.ok_or("--dir is missing")?,
            clients,
            tasks,
            warmup,
            time,
            durability,
            sample,
            way,
        })
    }

    /// The database file: always the same name, in a directory of its own.
    pub fn database(&self) -> PathBuf {
        self.dir.join("contender.db")
    }
}

fn duration(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("{seconds} seconds: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, lexopt::Error> {
        Args::from_parser(lexopt::Parser::from_args(words))
    }

    #[test]
    fn clients_are_threads_or_tasks() {
        let args = parse(&["--dir", "d", "--tasks", "12", "--durability", "normal"]).unwrap();
        assert!(args.tasks);
        assert_eq!(args.clients, 12);
        assert_eq!(args.durability, Durability::Normal);
        assert!(!parse(&["--dir", "d", "--threads", "1"]).unwrap().tasks);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = parse(&["--threads", "1"]).unwrap_err().to_string();
        assert!(error.contains("--dir"), "{error}");
        let error = parse(&["--dir", "d"]).unwrap_err().to_string();
        assert!(error.contains("--threads"), "{error}");
        assert!(parse(&["--dir", "d", "--threads", "1", "--durability", "off"]).is_err());
        assert!(parse(&["--dir", "d", "--threads", "1", "--seconds", "-1"]).is_err());
    }
}
