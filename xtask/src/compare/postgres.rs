//! A private PostgreSQL for one comparison: its own cluster in the directory
//! of the comparison, on a unix socket only, run by an unprivileged user when
//! we are root (PostgreSQL refuses to run as root), stopped and removed at the
//! end. Measured by its own `pgbench`.
//!
//! Settings: PostgreSQL's defaults, which are durable (`fsync=on`,
//! `synchronous_commit=on`, both said again on the command line), with as many
//! connections as there are clients, and with enough memory and WAL that no
//! checkpoint falls into a run of seconds (`shared_buffers=256MB`,
//! `max_wal_size=4GB`), which is in its favour.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;

const SCRIPT: &str = "\
INSERT INTO t(client, n, payload) VALUES (:client_id, 1, 'client 00000 has written this.');
";

/// A running server.
pub struct Postgres {
    bin: PathBuf,
    user: Option<User>,
    /// The cluster's directory, on the file system that is measured.
    data: PathBuf,
    /// The socket's directory and pgbench's files. A socket's path may have
    /// 107 bytes only, so this one is short.
    run: PathBuf,
    server: Child,
    version: String,
}

#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts one, or says why there is none.
    pub fn start(dir: &Path) -> Result<Self, Failure> {
        let bin = find_bin().ok_or("it is not installed (apt-get install postgresql)")?;
        let user = unprivileged()?;
        let data = match user {
            Some(_) if !others_may_enter(dir) => {
                // The server's user cannot reach the directory of the
                // comparison (below a home directory, often).
                PathBuf::from("/var/tmp").join(format!("onepen-compare-{}", std::process::id()))
            }
            _ => dir.join("postgres"),
        };
        if data
            .parent()
            .map(fs::metadata)
            .transpose()?
            .map(|m| m.dev())
            != Some(fs::metadata(dir)?.dev())
        {
            return Err(format!(
                "its user cannot enter {}, and {} is on another file system; choose --dir",
                dir.display(),
                data.display()
            )
            .into());
        }
        let run = std::env::temp_dir().join(format!("onepen-pg-{}", std::process::id()));
        Self::start_in(bin, user, data.clone(), run.clone()).inspect_err(|_| {
            // Whatever of it was made. What cannot be removed is in temporary
            // directories, and the reason of the failure matters more.
            let _ = fs::remove_dir_all(&data);
            let _ = fs::remove_dir_all(&run);
        })
    }

    fn start_in(
        bin: PathBuf,
        user: Option<User>,
        data: PathBuf,
        run: PathBuf,
    ) -> Result<Self, Failure> {
        for path in [&data, &run] {
            fs::create_dir(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            if let Some(User { uid, gid }) = user {
                chown(path, Some(uid), Some(gid))?;
            }
        }
        let tool = |name: &str| command(&bin, user, &run, name);
        succeed(
            tool("initdb")
                .args([
                    "--auth=trust",
                    "--username=onepen",
                    "--encoding=UTF8",
                    "--no-locale",
                ])
                .arg("-D")
                .arg(&data),
        )?;
        let version = succeed(tool("postgres").arg("--version"))?
            .trim()
            .to_owned();
        let log = fs::File::create(run.join("log"))?;
        let mut server = tool("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(&run);
        for setting in [
            "listen_addresses=",
            "fsync=on",
            "synchronous_commit=on",
            "max_connections=600",
            "shared_buffers=256MB",
            "max_wal_size=4GB",
        ] {
            server.args(["-c", setting]);
        }
        let server = server
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut postgres = Self {
            bin,
            user,
            data,
            run,
            server,
            version,
        };
        postgres.wait_until_ready()?;
        // So that the first run that counts finds its log's files made.
        postgres.pgbench(8, 1.0)?;
        Ok(postgres)
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let ready = self
                .tool("pg_isready")
                .arg("--quiet")
                .arg("-h")
                .arg(&self.run)
                .status()?;
            if ready.success() {
                return Ok(());
            }
            if self.server.try_wait()?.is_some() || start.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(self.run.join("log")).unwrap_or_default();
                return Err(format!("it does not start: {}", log.trim()).into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The server's process.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// One run of pgbench with this many clients, on an empty table.
    pub fn pgbench(&self, clients: usize, seconds: f64) -> Result<Value, Failure> {
        self.psql("DROP TABLE IF EXISTS t")?;
        self.psql(
            "CREATE TABLE t(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, client integer, \
             n integer, payload text)",
        )?;
        self.psql("CHECKPOINT")?;
        let script = self.run.join("insert.sql");
        fs::write(&script, SCRIPT)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o644))?;
        let log = self.run.join("latency");
        // pgbench takes whole seconds only, and its clock runs while it still
        // connects (its rate is without that time): 512 clients need more than
        // a second.
        let time = seconds.ceil() as usize + clients.div_ceil(200);
        let output = succeed(
            self.tool("pgbench")
                .args(["--no-vacuum", "--protocol=prepared"])
                .args(["--log", "--sampling-rate=0.1"])
                .arg(format!("--log-prefix={}", log.display()))
                .arg(format!("--client={clients}"))
                .arg(format!("--jobs={}", std::thread::available_parallelism()?))
                .arg(format!("--time={time}"))
                .arg("--file")
                .arg(&script)
                .arg("-h")
                .arg(&self.run)
                .args(["-U", "onepen", "postgres"]),
        )?;
        let rows: i64 = self.psql("SELECT count(*) FROM t")?.trim().parse()?;
        let latencies = self.take_latencies()?;
        let quantile = |q: f64| {
            let at = ((latencies.len() as f64 * q).ceil() as usize).saturating_sub(1);
            latencies.get(at).copied()
        };
        Ok(json!({
            "name": "PostgreSQL",
            "version": self.version,
            "clients": clients,
            "durability": "FULL",
            "tx_per_s": number_after(&output, "tps = ")?,
            "transactions": number_after(&output, "transactions actually processed: ")? as i64,
            "rows": rows,
            "p50_us": quantile(0.50),
            "p99_us": quantile(0.99),
            "max_us": quantile(1.0),
            "errors": {},
        }))
    }

    /// The latencies of one run in order, in microseconds; their files are
    /// removed.
    fn take_latencies(&self) -> Result<Vec<f64>, Failure> {
        let mut latencies = Vec::new();
        for entry in fs::read_dir(&self.run)? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("latency."))
            {
                // Documentation: pgbench, "Per-Transaction Logging". The third
                // field is the time of the transaction in microseconds.
                for line in fs::read_to_string(&path)?.lines() {
                    latencies.extend(
                        line.split(' ')
                            .nth(2)
                            .and_then(|time| time.parse::<f64>().ok()),
                    );
                }
                fs::remove_file(path)?;
            }
        }
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }

    fn psql(&self, sql: &str) -> Result<String, Failure> {
        succeed(
            self.tool("psql")
                .args([
                    "--no-psqlrc",
                    "--tuples-only",
                    "--no-align",
                    "--quiet",
                    "-v",
                    "ON_ERROR_STOP=1",
                ])
                .arg("-h")
                .arg(&self.run)
                .args(["-U", "onepen", "-c", sql, "postgres"]),
        )
    }

    fn tool(&self, name: &str) -> Command {
        command(&self.bin, self.user, &self.run, name)
    }

    /// Stops the server and removes its files.
    pub fn stop(mut self) -> Result<(), Failure> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), Failure> {
        if self.server.try_wait()?.is_none() {
            succeed(
                self.tool("pg_ctl")
                    .args(["stop", "--mode=immediate", "--silent", "-D"])
                    .arg(&self.data),
            )?;
            self.server.wait()?;
        }
        for dir in [&self.data, &self.run] {
            if dir.exists() {
                fs::remove_dir_all(dir)?;
            }
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // After `stop` there is nothing left to do.
        if let Err(error) = self.shut_down() {
            eprintln!("cannot stop PostgreSQL in {}: {error}", self.data.display());
        }
    }
}

/// The newest installed version's programs: Debian keeps them off the path.
fn find_bin() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .ok()
        .into_iter()
        .flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .collect();
    versions.sort();
    // The issue names version 15; any other is better than none, and said.
    let preferred = versions
        .iter()
        .find(|(version, _)| *version == 15)
        .or(versions.last());
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|dir| dir.join("initdb").exists())
    };
    let complete = |bin: &PathBuf| {
        [
            "initdb",
            "postgres",
            "pgbench",
            "psql",
            "pg_ctl",
            "pg_isready",
        ]
        .iter()
        .all(|tool| bin.join(tool).exists())
    };
    preferred
        .map(|(_, bin)| bin.clone())
        .or_else(on_path)
        .filter(complete)
}

/// Who runs the server: nobody special when we are not root.
fn unprivileged() -> Result<Option<User>, Failure> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(User {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    };
    match find("postgres").or_else(|| find("nobody")) {
        Some(user) => Ok(Some(user)),
        None => Err("we are root, and there is neither a user `postgres` nor `nobody`".into()),
    }
}

/// Whether anybody may pass through every directory down to this one.
fn others_may_enter(dir: &Path) -> bool {
    dir.ancestors()
        .all(|path| fs::metadata(path).is_ok_and(|m| m.mode() & 0o001 != 0))
}

fn command(bin: &Path, user: Option<User>, run: &Path, name: &str) -> Command {
    let mut command = Command::new(bin.join(name));
    // The current directory may be closed to that user. A caller's own
    // PGHOST and the like must not lead us to another server.
    command.current_dir(run);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
    {
        command.env_remove(name);
    }
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// The program's output, or its complaint.
fn succeed(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let program = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default();
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", program.display(), complaint.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The number that follows these words in pgbench's answer.
fn number_after(output: &str, words: &str) -> Result<f64, Failure> {
    let rest = output.split_once(words).map(|(_, rest)| rest);
    let word = rest.and_then(|rest| rest.split([' ', '\n', '/']).next());
    let number = word.and_then(|word| word.parse().ok());
    number.ok_or_else(|| format!("pgbench did not say `{words}…` in: {output}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbench_is_understood() {
        let output = "number of transactions actually processed: 76543\n\
            number of failed transactions: 0 (0.000%)\n\
            tps = 25514.123456 (without initial connection time)\n";
        assert_eq!(number_after(output, "tps = ").unwrap(), 25514.123456);
        assert_eq!(
            number_after(output, "transactions actually processed: ").unwrap(),
            76543.0
        );
        assert!(number_after(output, "latency = ").is_err());
    }
}
