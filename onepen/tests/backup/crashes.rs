//! A copy that is killed, or that finds the disk full.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use onepen::backup::{Phase, restore};
use onepen::{Database, ErrorKind};

use super::common::{Scene, child, in_child};
use super::{names, pair, scene, write};

/// In the child: says where it is, and stays there until it is killed.
fn stay(wanted: Phase, phase: Phase, bytes: u64) {
    if phase == wanted && (phase != Phase::Copying || bytes > 2 << 20) {
        println!("\nhere");
        loop {
            std::thread::park();
        }
    }
}

/// Runs the test in a child over the scene's files, and kills it in this phase.
fn kill_in(phase: usize, test: &str, scene: &Scene) {
    let argument = scene.dir().join(format!("phase.{phase}"));
    let child = child(test, &argument).stdout(Stdio::piped()).spawn();
    kill_there(child.unwrap());
}

/// Waits for the child to be there, and kills it.
fn kill_there(mut child: Child) {
    let output = BufReader::new(child.stdout.take().unwrap());
    let here = output.lines().any(|line| line.unwrap() == "here");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(here, "the child did not come so far");
}

const PHASES: [Phase; 2] = [Phase::Copying, Phase::Finishing];

fn phase_of(name: &Path) -> Phase {
    PHASES[usize::from(name.extension().unwrap() == "1")]
}

#[test]
fn a_killed_backup_leaves_the_old_target_and_a_file_that_says_what_it_is() {
    if let Some(argument) = in_child() {
        let wanted = phase_of(&argument);
        let dir = argument.parent().unwrap();
        let db = Database::open(dir.join("app.db")).unwrap();
        let _ = db
            .backup_to(dir.join("copy.db"))
            .replace(true)
            .progress(|done| stay(wanted, done.phase, done.bytes))
            .run();
        return;
    }
    for phase in 0..PHASES.len() {
        let scene = scene();
        let (app, target) = (scene.dir().join("app.db"), scene.dir().join("copy.db"));
        scene.db.backup_to(&app).run().unwrap();
        scene.db.backup_to(&target).run().unwrap();
        let db = Database::open(&app).unwrap();
        write(&db);
        db.close();
        drop(db);
        kill_in(
            phase,
            "crashes::a_killed_backup_leaves_the_old_target_and_a_file_that_says_what_it_is",
            &scene,
        );
        assert_eq!(pair(&target), (0, 0), "the old one");
        let left: Vec<_> = names(scene.dir())
            .into_iter()
            .filter(|name| name.starts_with("copy.db.onepen-part-"))
            .collect();
        assert_eq!(left.len(), 1, "{left:?}");

        // The next one does its work, and names what it found.
        let db = Database::open(&app).unwrap();
        let copied = db.backup_to(&target).replace(true).run().unwrap();
        assert_eq!(copied.leftovers, [scene.dir().join(&left[0])]);
        assert_eq!(pair(&target), (1, 1));
    }
}

#[test]
fn one_that_is_being_written_is_not_taken_for_a_leftover() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    let mut second = None;
    scene
        .db
        .backup_to(&target)
        .progress(|_| {
            second.get_or_insert_with(|| scene.db.backup_to(&target).run());
        })
        .run()
        .unwrap_err(); // the other was faster
    assert_eq!(
        second.unwrap().unwrap().leftovers,
        [""; 0].map(std::path::PathBuf::from)
    );
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

#[test]
fn a_killed_restore_leaves_the_old_database_whole() {
    if let Some(argument) = in_child() {
        let wanted = phase_of(&argument);
        let dir = argument.parent().unwrap();
        let _ = restore(dir.join("copy.db"), dir.join("app.db"))
            .replace(true)
            .progress(|done| stay(wanted, done.phase, done.bytes))
            .run();
        return;
    }
    for phase in 0..PHASES.len() {
        let scene = scene();
        let (app, copy) = (scene.dir().join("app.db"), scene.dir().join("copy.db"));
        scene.db.backup_to(&copy).run().unwrap();
        write(&scene.db);
        // With its newest transaction in the log, as a crash leaves it.
        scene.db.backup_to(&app).run().unwrap();
        super::restores::leave_a_log(&app);
        kill_in(
            phase,
            "crashes::a_killed_restore_leaves_the_old_database_whole",
            &scene,
        );
        assert_eq!(pair(&app), (2, 2), "its newest transaction too");
        restore(&copy, &app).replace(true).run().unwrap();
        assert_eq!(pair(&app), (0, 0));
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_the_old_target_and_nothing_else() {
    const LIMIT: u64 = 2 << 20;
    if let Some(argument) = in_child() {
        let dir = argument.parent().unwrap();
        // What the system does at a limit of the file's size is, to the one who
        // writes, what it does on a full disk.
        // SAFETY: sets two properties of this process, which runs this test only.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit {
                rlim_cur: LIMIT,
                rlim_max: LIMIT,
            };
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        }
        for compact in [false, true] {
            let full = restore(dir.join("app.db"), dir.join("copy.db"))
                .replace(true)
                .compact(compact)
                .run()
                .unwrap_err();
            assert_eq!(full.kind(), ErrorKind::Io, "{full:?}");
            assert!(full.to_string().contains("disk may be full"), "{full}");
            assert_eq!(names(dir), ["app.db", "copy.db"]);
        }
        return;
    }
    let scene = scene();
    let (app, target) = (scene.dir().join("app.db"), scene.dir().join("copy.db"));
    scene.db.backup_to(&target).run().unwrap();
    write(&scene.db);
    scene.db.backup_to(&app).run().unwrap();
    let ran = child(
        "crashes::a_full_disk_is_an_error_that_leaves_the_old_target_and_nothing_else",
        &scene.dir().join("argument"),
    )
    .output()
    .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stdout)
    );
    assert_eq!(pair(&target), (0, 0));
}
