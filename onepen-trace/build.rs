//! Compiles `preload/` into a shared object that becomes a part of the crate.
//!
//! In C, because it takes the place of functions with variable arguments
//! (`fcntl`), which stable Rust cannot define, and must neither allocate nor bring
//! a runtime along into programs that are not ours. The compiler is the one that
//! SQLite itself needs.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 5] = ["map.c", "files.c", "waits.c", "libc.c", "sqlite.c"];
const HEADERS: [&str; 2] = ["records.h", "inside.h"];

fn main() {
    let home = Path::new("preload");
    for name in SOURCES.iter().chain(&HEADERS) {
        println!("cargo::rerun-if-changed={}", home.join(name).display());
    }
    let said = |name: &str| env::var(name).unwrap_or_default();
    let to = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("preload.so");
    let fits =
        said("CARGO_CFG_TARGET_OS") == "linux" && said("CARGO_CFG_TARGET_POINTER_WIDTH") == "64";
    if !fits {
        // There is nothing to preload; the command says so.
        std::fs::write(&to, []).expect("OUT_DIR can be written");
        return;
    }
    // The flags of `cc` are for objects that go into a Rust program. Of those
    // only what chooses the target is needed here.
    let compiler = cc::Build::new().opt_level(2).warnings(false).get_compiler();
    let mut command = compiler.to_command();
    command.args([
        "-std=gnu11",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-ftls-model=initial-exec",
    ]);
    command.args([
        "-fno-strict-aliasing",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Werror=implicit",
    ]);
    command.args(SOURCES.map(|name| home.join(name)));
    command.arg("-o").arg(&to).arg("-ldl");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("the C compiler ended with {status}: {command:?}"),
        Err(error) => panic!("the C compiler cannot be run: {error}: {command:?}"),
    }
}
