//! What the programs need around them: a virtual environment, node_modules, the
//! extension, and a folder for the database of each run.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Failure, Options, Way};

/// Where everything is.
pub struct Place {
    dir: PathBuf,
    extension: Option<PathBuf>,
}

/// The database of one run; gone with its folder when dropped.
pub struct Run {
    dir: PathBuf,
}

impl Place {
    pub fn make(options: &Options) -> Result<Self, Failure> {
        std::fs::create_dir_all(&options.dir)?;
        let dir = options.dir.canonicalize()?;
        python(&dir, &options.python)?;
        node(&dir)?;
        let extension = match &options.extension {
            _ if options.stock => None,
            Some(path) => Some(path.canonicalize()?),
            None => Some(build()?),
        };
        Ok(Self { dir, extension })
    }

    /// One line: which versions of what.
    pub fn described(&self) -> Result<String, Failure> {
        let python = "import sqlite3, sys, django, sqlalchemy, peewee, aiosqlite; print(\
             f'Python {sys.version.split()[0]} with SQLite {sqlite3.sqlite_version}, '\
             f'SQLAlchemy {sqlalchemy.__version__}, Django {django.__version__}, '\
             f'peewee {peewee.__version__}, aiosqlite {aiosqlite.__version__}')";
        let mut python_of = Command::new(self.python());
        let python = output(python_of.args(["-c", python]))?;
        let node = "const v = require('better-sqlite3/package.json').version;\
             const d = new (require('better-sqlite3'))(':memory:');\
             const s = d.prepare('SELECT sqlite_version() AS s').get().s;\
             console.log(`Node ${process.versions.node} with better-sqlite3 ${v} (SQLite ${s})`)";
        let mut node_of = self.command(Path::new("x.js"), Way::Stock);
        let node = output(node_of.args(["-e", node]))?;
        Ok(format!("{python}; {node}"))
    }

    /// Runs a program of ours, `program.py` or `program.js`, one way.
    pub fn program(&self, program: &str, way: Way) -> Command {
        let path = programs().join(program);
        let mut command = self.command(&path, way);
        command.arg(path);
        command
    }

    fn command(&self, program: &Path, way: Way) -> Command {
        let is_node = program.extension().is_some_and(|word| word == "js");
        let mut command = if is_node {
            let mut command = Command::new("node");
            command.env("NODE_PATH", self.dir.join("node_modules"));
            command
        } else {
            Command::new(self.python())
        };
        command.current_dir(&self.dir);
        command.env_remove("ONEPEN_EXTENSION");
        if let (Way::Extension, Some(extension)) = (way, &self.extension) {
            let hook = programs().join("hook");
            command.env("ONEPEN_EXTENSION", extension);
            command.env("PYTHONPATH", &hook);
            let require = format!("--require {}", hook.join("onepen.js").display());
            command.env("NODE_OPTIONS", require);
        }
        command
    }

    fn python(&self) -> PathBuf {
        self.dir.join("venv/bin/python")
    }

    /// A new database, journal as named.
    pub fn run(&self, journal: &str) -> Result<Run, Failure> {
        self.run_in(journal, "run")
    }

    /// The same, where several are needed at once: under a name of its own.
    pub fn run_in(&self, journal: &str, name: &str) -> Result<Run, Failure> {
        let dir = self.dir.join(format!("{name}-{}", std::process::id()));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir(&dir)?;
        let run = Run { dir };
        let mut make = self.program("make.py", Way::Stock);
        output(make.arg(run.database()).arg(format!("journal={journal}")))?;
        Ok(run)
    }

    /// What a run left behind; fails when the extension was not where it should
    /// be, or was where it should not.
    pub fn look(&self, run: &Run, way: Way) -> Result<Value, Failure> {
        let side_file = run.dir.join("a.db-gate").exists();
        if side_file != (way == Way::Extension) {
            return Err(match way {
                Way::Extension => "the extension was not at work: it made no side file",
                Way::Stock => "the extension was at work in a stock program",
            }
            .into());
        }
        let mut look = self.program("look.py", Way::Stock);
        Ok(serde_json::from_str(&output(look.arg(run.database()))?)?)
    }
}

impl Run {
    pub fn database(&self) -> PathBuf {
        self.dir.join("a.db")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A virtual environment with what `requirements.txt` asks for.
fn python(dir: &Path, python: &Path) -> Result<(), Failure> {
    let wanted = programs().join("requirements.txt");
    let stamp = format!(
        "{}\n{}",
        output(
            Command::new(python).args(["-c", "import sys; print(sys.executable, sys.version)"])
        )?,
        std::fs::read_to_string(&wanted)?
    );
    stamped(&dir.join("venv.stamp"), &stamp, || {
        let venv = dir.join("venv");
        done(
            Command::new(python)
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        )?;
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "-r"])
            .arg(&wanted);
        done(&mut pip)
    })
}

/// node_modules with what `package.json` asks for.
fn node(dir: &Path) -> Result<(), Failure> {
    let wanted = programs().join("package.json");
    let stamp = format!(
        "{}\n{}",
        output(Command::new("node").arg("--version"))?,
        std::fs::read_to_string(&wanted)?
    );
    stamped(&dir.join("node.stamp"), &stamp, || {
        std::fs::copy(&wanted, dir.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund"])
            .current_dir(dir);
        done(&mut npm)
    })
}

/// Does it once for each text of the stamp.
fn stamped(file: &Path, stamp: &str, act: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    if std::fs::read_to_string(file).is_ok_and(|found| found == stamp) {
        return Ok(());
    }
    act()?;
    Ok(std::fs::write(file, stamp)?)
}

fn build() -> Result<PathBuf, Failure> {
    built("onepen-vfs", &[], "libonepen_vfs.so")
}

/// Builds a part of a package as it is released; where it lies then.
pub fn built(package: &str, part: &[&str], file: &str) -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(root())
        .args(["build", "--release", "-p", package])
        .args(part);
    done(&mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release").join(file).canonicalize()?)
}

fn programs() -> PathBuf {
    root().join("onepen-vfs/programs")
}

/// The project's folder.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

fn done(command: &mut Command) -> Result<(), Failure> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} ended with {status}").into())
    }
}

fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
