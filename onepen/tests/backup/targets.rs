//! Where a copy may go.

use std::fs;
use std::os::unix::fs::symlink;

use onepen::ErrorKind;

use super::{beside, names, pair, scene, write};

#[test]
fn what_is_there_is_replaced_only_when_asked() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    scene.db.backup_to(&target).run().unwrap();
    write(&scene.db);
    let refused = scene.db.backup_to(&target).run().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(
        refused.to_string().contains("is there already"),
        "{refused}"
    );
    assert_eq!(pair(&target), (0, 0));
    scene.db.backup_to(&target).replace(true).run().unwrap();
    assert_eq!(pair(&target), (1, 1));
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

#[test]
fn a_file_that_was_made_meanwhile_is_not_replaced() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    let refused = scene
        .db
        .backup_to(&target)
        .progress(|_| fs::write(&target, "somebody's").unwrap())
        .run()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains("meanwhile"), "{refused}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "somebody's");
    assert_eq!(names(scene.dir()), ["copy.db"]);
}

#[test]
fn the_source_is_no_target_by_whatever_name() {
    let scene = scene();
    write(&scene.db);
    let source = scene.path();
    let (link, hard) = (scene.dir().join("link.db"), scene.dir().join("hard.db"));
    symlink(&source, &link).unwrap();
    let elsewhere = scene.dir().join("elsewhere");
    symlink(scene.dir(), &elsewhere).unwrap();
    let mut targets = vec![
        source.clone(),
        scene.dir().join("./scene.db"),
        elsewhere.join("scene.db"),
        link.clone(),
    ];
    for ending in ["-wal", "-shm", "-journal"] {
        targets.push(beside(&source, ending));
        targets.push(beside(&elsewhere.join("scene.db"), ending));
    }
    for target in targets {
        let refused = scene.db.backup_to(&target).replace(true).run().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{target:?}: {refused}");
    }
    // A hard link cannot be told from the file; the database itself is refused
    // when it has one, so it is made afterwards.
    fs::hard_link(&source, &hard).unwrap();
    let refused = scene.db.backup_to(&hard).replace(true).run().unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("is the database that is to be copied"),
        "{refused}"
    );
    fs::remove_file(&hard).unwrap();
    // Nor is a name whose log the source would be.
    let odd = scene.dir().join("odd-wal");
    scene.db.backup_to(&odd).run().unwrap();
    let refused = onepen::backup::restore(&odd, scene.dir().join("odd"))
        .run()
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    write(&scene.db);
    assert_eq!(pair(&source), (2, 2), "nothing happened to it");
}

#[test]
fn links_directories_and_files_with_two_names_are_refused() {
    let scene = scene();
    let (file, link, hard) = (
        scene.dir().join("file.db"),
        scene.dir().join("link.db"),
        scene.dir().join("hard.db"),
    );
    fs::write(&file, "").unwrap();
    symlink(&file, &link).unwrap();
    fs::hard_link(&file, &hard).unwrap();
    for (target, part) in [
        (&link, "symbolic link"),
        (&hard, "2 names"),
        (&scene.dir().to_owned(), "is a directory"),
    ] {
        let refused = scene.db.backup_to(target).replace(true).run().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let missing = scene.dir().join("missing/copy.db");
    let refused = scene.db.backup_to(missing).run().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(refused.to_string().contains("create it first"), "{refused}");
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn a_log_of_another_database_is_never_left_beside_the_copy() {
    let scene = scene();
    let target = scene.dir().join("copy.db");
    for ending in ["-wal", "-journal"] {
        let foreign = beside(&target, ending);
        fs::write(&foreign, "of a database that was here").unwrap();
        let refused = scene.db.backup_to(&target).replace(true).run().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        assert!(refused.to_string().contains(ending), "{refused}");
        assert!(!target.exists());
        fs::remove_file(&foreign).unwrap();
    }
    scene.db.backup_to(&target).run().unwrap();
}
