//! Where this was measured: what a reader needs to compare it with elsewhere.

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

#[cfg(test)]
mod tests {
    use super::*;

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
