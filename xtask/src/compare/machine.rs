//! Where this was measured: what a reader needs to compare it with elsewhere,
//! and whether the machine was ours alone meanwhile.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::Failure;
use super::figures::Spread;

/// The facts, with the file system of `dir` and what one fsync costs there.
pub fn facts(dir: &Path) -> Result<Value, Failure> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    Ok(json!({
        "cores": std::thread::available_parallelism().map(usize::from).unwrap_or(0),
        "cpu": after(&read("/proc/cpuinfo"), "model name"),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "rustc": rustc.unwrap_or_default(),
        "file_system": file_system(&read("/proc/self/mountinfo"), dir),
        "fdatasync_us": fdatasync(dir)?,
        "load_before": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
    }))
}

/// The type of the file system with the longest mount point above `dir`.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    // Documentation: proc(5), /proc/pid/mountinfo. The optional fields end
    // with a lone dash; the type follows it.
    let mounts = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = Path::new(left.split(' ').nth(4)?);
        let kind = right.split(' ').next()?;
        dir.starts_with(point).then_some((point, kind))
    });
    mounts
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind.to_owned())
}

/// The median cost of writing one page and waiting until it is safe.
fn fdatasync(dir: &Path) -> Result<f64, Failure> {
    let path = dir.join("fdatasync");
    let mut file = fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    Ok(Spread::of(times).expect("fifty of them").median)
}

/// Processor time up to a moment, in the kernel's ticks.
pub struct Usage {
    all: u64,
    busy: u64,
    ours: u64,
}

impl Usage {
    /// Up to now. Ours is this process with all children that have ended, and
    /// the same of the server with this id.
    pub fn now(server: Option<u32>) -> Result<Self, Failure> {
        let stat = fs::read_to_string("/proc/stat")?;
        let own = fs::read_to_string("/proc/self/stat")?;
        let server = match server {
            Some(id) => of_process(&fs::read_to_string(format!("/proc/{id}/stat"))?),
            None => Some(0),
        };
        Self::from_texts(&stat, &own, server).ok_or_else(|| "cannot read /proc/stat".into())
    }

    fn from_texts(stat: &str, own: &str, server: Option<u64>) -> Option<Self> {
        // Documentation: proc(5), /proc/stat. user nice system idle iowait irq
        // softirq steal; what follows is contained in user and nice.
        let cpu = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = cpu
            .split_whitespace()
            .take(8)
            .map_while(|field| field.parse().ok())
            .collect();
        let all = ticks.iter().sum();
        Some(Self {
            all,
            busy: all - ticks.get(3)? - ticks.get(4)?,
            ours: of_process(own)? + server?,
        })
    }

    /// How many cores others (the kernel's own threads among them) kept busy
    /// since an earlier moment.
    pub fn others_since(&self, earlier: &Self, cores: f64) -> Option<f64> {
        let all = self
            .all
            .checked_sub(earlier.all)
            .filter(|ticks| *ticks > 0)?;
        let busy = self.busy.saturating_sub(earlier.busy) as f64;
        let ours = self.ours.saturating_sub(earlier.ours) as f64;
        Some((busy - ours).max(0.0) * cores / all as f64)
    }
}

/// utime, stime, cutime and cstime of /proc/pid/stat together.
fn of_process(stat: &str) -> Option<u64> {
    // The name in brackets may contain spaces; the third field follows it.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_use_is_what_is_neither_idle_nor_ours() {
        let own = |ticks| format!("7 (a b) S 1 1 1 0 -1 4 0 0 0 0 {ticks} 20 1 1 20 0");
        let before = "cpu  100 0 100 800 0 0 0 0 0 0\n";
        let after = "cpu  160 0 120 900 20 0 0 0 0 0\n";
        let before = Usage::from_texts(before, &own(0), Some(0)).unwrap();
        let after = Usage::from_texts(after, &own(30), Some(10)).unwrap();
        // Of 200 ticks on two cores 80 were busy, and 40 of them ours.
        assert_eq!(after.others_since(&before, 2.0), Some(0.4));
    }

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts =
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /tmp rw shared:1 - tmpfs none rw\n";
        assert_eq!(
            file_system(mounts, Path::new("/tmp/x")).as_deref(),
            Some("tmpfs")
        );
        assert_eq!(
            file_system(mounts, Path::new("/tmpx")).as_deref(),
            Some("ext4")
        );
    }
}
