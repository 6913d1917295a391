use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use onepen_lock::gate::{Gate, NotJoined, Observer};

use crate::actor::Scene;

fn side(scene: &Scene) -> PathBuf {
    scene.dir.path().canonicalize().unwrap().join("app.db-gate")
}

fn mode(path: &std::path::Path) -> u32 {
    path.metadata().unwrap().mode() & 0o777
}

fn refusal(scene: &Scene) -> NotJoined {
    Gate::join(&scene.database, "x").expect_err("must be refused")
}

#[test]
fn the_side_file_has_the_mode_of_the_database_whatever_the_umask() {
    for wanted in [0o600, 0o640, 0o666] {
        let scene = Scene::new();
        let permissions = std::fs::Permissions::from_mode(wanted);
        std::fs::set_permissions(&scene.database, permissions).unwrap();
        let gate = Gate::join(&scene.database, "x").unwrap();
        assert_eq!(gate.path(), side(&scene));
        assert_eq!(mode(gate.path()), wanted);
        // A database that was opened up later takes its gate with it.
        let permissions = std::fs::Permissions::from_mode(0o664);
        std::fs::set_permissions(&scene.database, permissions).unwrap();
        let _actor = scene.actor("y");
        assert_eq!(mode(gate.path()), 0o664);
    }
}

#[test]
fn the_side_file_stays_and_is_used_again() {
    let scene = Scene::new();
    assert!(Observer::open(&scene.database).unwrap().is_none());
    drop(Gate::join(&scene.database, "x").unwrap());
    let before = side(&scene).metadata().unwrap().ino();
    assert!(scene.look().members.is_empty());
    let _gate = Gate::join(&scene.database, "y").unwrap();
    assert_eq!(side(&scene).metadata().unwrap().ino(), before);
    assert_eq!(scene.look().members[0].label, "y");
}

#[test]
fn a_symbolic_link_to_the_database_leads_to_its_gate() {
    let scene = Scene::new();
    let link = scene.dir.path().join("link.db");
    symlink(&scene.database, &link).unwrap();
    let gate = Gate::join(&link, "x").unwrap();
    assert_eq!(gate.path(), side(&scene));
    assert_eq!(
        Observer::open(&link)
            .unwrap()
            .unwrap()
            .look()
            .unwrap()
            .members
            .len(),
        1
    );
}

#[test]
fn a_link_in_the_place_of_the_side_file_is_not_followed() {
    let scene = Scene::new();
    let target = scene.dir.path().join("precious");
    for content in ["", "precious"] {
        std::fs::write(&target, content).unwrap();
        let _ = std::fs::remove_file(side(&scene));
        symlink(&target, side(&scene)).unwrap();
        assert!(matches!(refusal(&scene), NotJoined::Io(_)));
        assert!(Observer::open(&scene.database).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), content);
        std::fs::remove_file(side(&scene)).unwrap();
        std::fs::hard_link(&target, side(&scene)).unwrap();
        assert!(matches!(refusal(&scene), NotJoined::Untrusted(_)));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), content);
        assert_eq!(mode(&target), mode(&scene.database));
    }
}

#[test]
fn what_is_no_side_file_is_not_touched() {
    let scene = Scene::new();
    for content in ["hello", "hello, I am some other file", "onepe"] {
        std::fs::write(side(&scene), content).unwrap();
        assert!(
            matches!(refusal(&scene), NotJoined::Untrusted(_)),
            "{content}"
        );
        assert!(scene.look().members.is_empty());
        assert_eq!(std::fs::read_to_string(side(&scene)).unwrap(), content);
    }
    std::fs::write(side(&scene), b"onepen\0\x09 and of another version").unwrap();
    assert!(matches!(refusal(&scene), NotJoined::OtherVersion));
    assert!(scene.look().members.is_empty());
    std::fs::remove_file(side(&scene)).unwrap();
    std::fs::create_dir(side(&scene)).unwrap();
    assert!(matches!(refusal(&scene), NotJoined::Io(_)));
    std::fs::remove_dir(side(&scene)).unwrap();
    let pipe = std::ffi::CString::new(side(&scene).into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    refusal(&scene); // and does not hang
    assert!(Observer::open(&scene.database).unwrap().is_none());
}

#[test]
fn whatever_is_in_the_side_file_nobody_waits_for_the_dead_or_fails() {
    let scene = Scene::new();
    drop(Gate::join(&scene.database, "x").unwrap());
    let size = side(&scene).metadata().unwrap().len() as usize;
    let mut random = 1_u64;
    let mut next = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as u8
    };
    for round in 0..60 {
        let mut content = vec![0; size];
        content.fill_with(|| match round % 3 {
            0 => next(),
            1 => 0xff,
            _ => next() & 3,
        });
        content[..8].copy_from_slice(b"onepen\0\x01");
        std::fs::write(side(&scene), &content).unwrap();
        let mut a = scene.actor("a");
        assert_eq!(a.ask("take"), "turn");
        scene.look();
        a.ask("others");
        let mut b = scene.actor("b");
        scene.line_up(&mut b);
        assert_eq!(a.ask("pass"), "passed");
        assert_eq!(b.hear(), "turn");
    }
}

#[test]
fn a_side_file_cut_short_is_grown_again_by_the_next() {
    let scene = Scene::new();
    drop(Gate::join(&scene.database, "x").unwrap());
    let size = side(&scene).metadata().unwrap().len();
    for length in [0, 8, 4096, size - 1] {
        let file = File::options().write(true).open(side(&scene)).unwrap();
        file.set_len(length).unwrap();
        assert!(scene.look().members.is_empty());
        let gate = Gate::join(&scene.database, "y").unwrap();
        assert!(gate.seat().try_take(None));
        assert_eq!(side(&scene).metadata().unwrap().len(), size);
    }
}

#[test]
fn who_finds_all_places_taken_is_told() {
    let scene = Scene::new();
    drop(Gate::join(&scene.database, "x").unwrap());
    let file = File::options()
        .read(true)
        .write(true)
        .open(side(&scene))
        .unwrap();
    let lock_all = |kind: libc::c_int| {
        // SAFETY: zeros are a valid `flock`, and `fcntl` reads it while we have it.
        let refused = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = kind as i16;
            lock.l_whence = libc::SEEK_SET as i16;
            lock.l_start = 1 << 30;
            lock.l_len = 128;
            libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock)
        };
        assert_eq!(refused, 0);
    };
    lock_all(libc::F_WRLCK);
    assert!(matches!(refusal(&scene), NotJoined::Full));
    // Not by closing the file: a child that another test starts just now may have a
    // copy of it until it executes its program.
    lock_all(libc::F_UNLCK);
    Gate::join(&scene.database, "x").unwrap();
}

#[test]
fn a_database_that_is_not_there_has_no_gate() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.db");
    assert!(matches!(
        Gate::join(&missing, "x").unwrap_err(),
        NotJoined::Io(error) if error.kind() == std::io::ErrorKind::NotFound
    ));
    assert!(Observer::open(&missing).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
