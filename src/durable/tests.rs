#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;

use super::sim::{Loss, SimDisk};
use super::*;
use crate::keyring::{Mandate, Reason, Then};
use crate::time::Time;

const FILE: &str = "/d/f";

/// A disk on which `/d` stands, durably.
fn disk() -> SimDisk {
    let disk = SimDisk::new();
    create_dir(&disk, Path::new("/d")).unwrap();
    disk
}

/// Runs `act` with power failing after each possible number of operations,
/// with every kind of loss; `check` sees what the next start finds and whether
/// `act` had said that it was done.
fn at_every_crash(
    prepare: impl Fn(&SimDisk),
    act: impl Fn(&SimDisk) -> bool,
    check: impl Fn(&SimDisk, bool) -> Result<(), String>,
) -> Result<(), String> {
    for operations in 0.. {
        let disk = disk();
        prepare(&disk);
        disk.cut_power_after(operations);
        let done = act(&disk);
        for loss in Loss::kinds(20) {
            check(&disk.crash(loss), done)
                .map_err(|why| format!("{loss:?} after {:?}: {why}", disk.operations()))?;
        }
        if done {
            assert!(operations > 1, "the crash came too early to test anything");
            return Ok(());
        }
    }
    unreachable!("ends when `act` runs through")
}

/// Old or new, whole; new once `write_atomic` returned.
fn write_atomic_at_every_crash(lie: Option<&str>) -> Result<(), String> {
    at_every_crash(
        |disk| {
            write_atomic(disk, Path::new(FILE), &[b'o'; 300], PRIVATE).unwrap();
            if let Some(what) = lie {
                disk.lie_about(what);
            }
        },
        |disk| write_atomic(disk, Path::new(FILE), &[b'n'; 400], PRIVATE).is_ok(),
        |disk, done| match disk.read(Path::new(FILE)) {
            Ok(bytes) if bytes == [b'n'; 400] => Ok(()),
            Ok(bytes) if bytes == [b'o'; 300] && !done => Ok(()),
            other => Err(format!("done: {done}, found {other:?}")),
        },
    )
}

#[test]
fn write_atomic_leaves_the_old_or_the_new_at_every_crash() {
    write_atomic_at_every_crash(None).unwrap();
}

#[test]
fn write_atomic_needs_each_of_its_syncs() {
    for sync in ["sync /d/.f.", "sync-dir /d"] {
        let found = write_atomic_at_every_crash(Some(sync));
        assert!(found.is_err(), "nothing breaks without {sync:?}");
    }
}

#[test]
fn write_atomic_on_a_full_disk_keeps_the_old_and_leaves_nothing_behind() {
    let disk = disk();
    let path = Path::new(FILE);
    write_atomic(&disk, path, b"old", PRIVATE).unwrap();
    disk.set_free(Some(5));
    let error = write_atomic(&disk, path, b"longer than five", PRIVATE).unwrap_err();
    // Whoever tries again says so.
    assert!(error.to_string().ends_with("; make room"), "{error}");
    assert_eq!(disk.read(path).unwrap(), b"old");
    assert_eq!(disk.list(Path::new("/d")).unwrap(), ["f"]);
    disk.set_free(None);
    write_atomic(&disk, path, b"longer than five", PRIVATE).unwrap();
}

#[test]
fn write_atomic_after_a_failed_sync_keeps_the_old() {
    let disk = disk();
    let path = Path::new(FILE);
    write_atomic(&disk, path, b"old", PRIVATE).unwrap();
    disk.fail_syncs(1);
    write_atomic(&disk, path, b"new", PRIVATE).unwrap_err();
    assert_eq!(disk.read(path).unwrap(), b"old");
}

#[test]
fn a_removed_file_stays_removed() {
    at_every_crash(
        |disk| write_atomic(disk, Path::new(FILE), b"x", PRIVATE).unwrap(),
        |disk| remove(disk, Path::new(FILE)).is_ok(),
        |disk, done| match disk.read(Path::new(FILE)) {
            Ok(_) if done => Err("it came back".into()),
            _ => Ok(()),
        },
    )
    .unwrap();
}

#[test]
fn an_appended_file_and_its_directories_are_there_after_a_crash() {
    let path = Path::new("/d/a/b/f");
    at_every_crash(
        |_| {},
        |disk| {
            create_dir(disk, Path::new("/d/a/b")).is_ok()
                && open_append(disk, path, PRIVATE)
                    .is_ok_and(|mut file| file.append(b"line\n").and_then(|()| file.sync()).is_ok())
        },
        |disk, done| match disk.read(path) {
            Ok(bytes) if bytes == b"line\n" => Ok(()),
            _ if !done => Ok(()),
            other => Err(format!("found {other:?}")),
        },
    )
    .unwrap();
}

fn stone(key_set: &str, kid: &str, at: i64) -> Tombstone {
    Tombstone {
        key_set: key_set.into(),
        kid: kid.into(),
        at: Time::from_secs(at),
        reason: Some(Reason::Superseded),
        then: Some(Then::Activate),
        mandate: Some(Mandate {
            by: "unix:7".into(),
            note: "ticket 12".into(),
        }),
    }
}

/// What the first tombstones did not say is not there to be read.
#[test]
fn a_tombstone_of_the_first_form_is_read() {
    let disk = disk();
    let stones = Tombstones::open(Arc::new(disk.clone()), "/d/t").unwrap();
    stones.put(&stone("main", "1", 5)).unwrap();
    let name = disk.list(Path::new("/d/t")).unwrap().remove(0);
    let first_form = br#"{"key_set":"main","kid":"1","at":5000}"#;
    let path = Path::new("/d/t").join(name);
    write_atomic(&disk, &path, first_form, PRIVATE).unwrap();
    let plain = Tombstone {
        reason: None,
        then: None,
        mandate: None,
        ..stone("main", "1", 5)
    };
    assert_eq!(stones.all().unwrap(), [plain]);
}

#[test]
fn a_tombstone_that_was_put_stands_at_every_crash() {
    let open = |disk: &SimDisk| Tombstones::open(Arc::new(disk.clone()), "/d/t");
    let (first, second) = (stone("main", "1", 5), stone("main", "2", 6));
    at_every_crash(
        |disk| open(disk).unwrap().put(&first).unwrap(),
        |disk| open(disk).is_ok_and(|stones| stones.put(&second).is_ok()),
        |disk, done| {
            let found = open(disk).unwrap().all().map_err(|e| e.to_string())?;
            let expected = [first.clone(), second.clone()];
            if found == expected || (!done && found == expected[..1]) {
                Ok(())
            } else {
                Err(format!("found {found:?}"))
            }
        },
    )
    .unwrap();
}

#[test]
fn tombstones_tell_key_sets_apart_and_keep_the_first_instant() {
    let stones = Tombstones::open(Arc::new(disk()), "/d/t").unwrap();
    // A kid can be anything that an imported key brought along.
    let strange = stone("main", "../../etc/passwd\0\u{1f511}", 3);
    for stone in [
        &stone("b", "1", 5),
        &stone("a", "1", 7),
        &stone("b", "1", 9),
        &strange,
    ] {
        stones.put(stone).unwrap();
    }
    let all = stones.all().unwrap();
    assert_eq!(all, [stone("a", "1", 7), stone("b", "1", 5), strange]);
}

/// Ordered again before any record has it: the date is the first one, and what
/// says less takes nothing away.
#[test]
fn a_tombstone_that_is_put_again_says_what_was_said_last() {
    let stones = Tombstones::open(Arc::new(disk()), "/d/t").unwrap();
    let of = |at, reason, then, note: &str| Tombstone {
        reason: Some(reason),
        then,
        mandate: Some(Mandate {
            by: "unix:7".into(),
            note: note.into(),
        }),
        ..stone("main", "1", at)
    };
    stones.put(&of(5, Reason::Unspecified, None, "")).unwrap();
    let wait = Some(Then::Wait);
    let told = of(6, Reason::Compromised, wait, "ticket 12");
    stones.put(&told).unwrap();
    let expected = Tombstone {
        at: Time::from_secs(5),
        ..told
    };
    assert_eq!(stones.all().unwrap(), std::slice::from_ref(&expected));
    stones.put(&of(7, Reason::Unspecified, None, "")).unwrap();
    assert_eq!(stones.all().unwrap(), std::slice::from_ref(&expected));
    let then = Some(Then::Activate);
    stones.put(&of(8, Reason::Unspecified, then, "")).unwrap();
    assert_eq!(stones.all().unwrap(), [Tombstone { then, ..expected }]);
}

#[test]
fn a_damaged_tombstone_is_an_error_not_a_key_that_may_sign() {
    let disk = disk();
    let stones = Tombstones::open(Arc::new(disk.clone()), "/d/t").unwrap();
    stones.put(&stone("main", "1", 5)).unwrap();
    let name = disk.list(Path::new("/d/t")).unwrap().remove(0);
    let path = Path::new("/d/t").join(name);
    let intact = disk.read(&path).unwrap();
    let other_kid = String::from_utf8(intact.clone())
        .unwrap()
        .replace("\"1\"", "\"2\"");
    for content in [&intact[..9], b"", other_kid.as_bytes()] {
        remove(&disk, &path).unwrap();
        write_atomic(&disk, &path, content, PRIVATE).unwrap();
        let error = stones.all().unwrap_err();
        assert!(matches!(error, DurableError::Damaged { .. }), "{error}");
    }
    // Revoking the key once more mends it.
    stones.put(&stone("main", "1", 5)).unwrap();
    assert_eq!(stones.all().unwrap(), [stone("main", "1", 5)]);
}

#[test]
fn the_placeholder_lies_beside_the_set() {
    let last_good = LastGood::open(Arc::new(disk()), "/d/j").unwrap();
    assert_eq!(last_good.load_placeholder("main").unwrap(), None);
    last_good.put("main", b"{\"keys\":[1]}").unwrap();
    last_good
        .put_placeholder("main", b"{\"keys\":[2]}")
        .unwrap();
    // A name that is made to meet it does not.
    last_good
        .put("main.placeholder", b"{\"keys\":[3]}")
        .unwrap();
    let set = last_good.load("main").unwrap().unwrap();
    assert_eq!(set, b"{\"keys\":[1]}");
    let placeholder = last_good.load_placeholder("main").unwrap().unwrap();
    assert_eq!(placeholder, b"{\"keys\":[2]}");
    let empty = last_good.put_placeholder("main", b"{\"keys\":[]}");
    assert!(matches!(empty, Err(DurableError::Refused { .. })));
}

#[test]
fn the_last_good_set_is_read_back_byte_for_byte() {
    let disk = disk();
    let last_good = LastGood::open(Arc::new(disk.clone()), "/d/jwks").unwrap();
    assert_eq!(last_good.load("main").unwrap(), None);
    let jwks = br#"{ "keys": [ {"kty":"OKP"} ] }"#;
    last_good.put("main", jwks).unwrap();
    last_good.put("../main", br#"{"keys":[{}]}"#).unwrap();
    let disk = disk.crash(Loss::Everything);
    let last_good = LastGood::open(Arc::new(disk), "/d/jwks").unwrap();
    assert_eq!(last_good.load("main").unwrap().unwrap(), jwks);
    assert!(last_good.load("../main").unwrap().is_some());
    assert_eq!(last_good.load("other").unwrap(), None);
}

#[test]
fn what_is_no_jwks_is_neither_kept_nor_served() {
    let disk = disk();
    let last_good = LastGood::open(Arc::new(disk.clone()), "/d/jwks").unwrap();
    let good = br#"{"keys":[{}]}"#;
    last_good.put("main", good).unwrap();
    for bad in [&b""[..], b"{", b"[]", b"{}", br#"{"keys":[]}"#, b"\xff"] {
        let error = last_good.put("main", bad).unwrap_err();
        assert!(matches!(error, DurableError::Refused { .. }), "{error}");
        assert_eq!(last_good.load("main").unwrap().unwrap(), good);
        let torn = last_good.path("torn");
        write_atomic(&disk, &torn, bad, PRIVATE).unwrap();
        let error = last_good.load("torn").unwrap_err();
        assert!(matches!(error, DurableError::Damaged { .. }), "{error}");
    }
}

#[test]
fn opening_sweeps_what_a_dead_writer_left() {
    let disk = disk();
    let path = Path::new("/d/main.jwks.json");
    disk.cut_power_after(2);
    write_atomic(&disk, path, b"{}", PRIVATE).unwrap_err();
    let disk = disk.crash(Loss::Nothing);
    assert_eq!(disk.list(Path::new("/d")).unwrap().len(), 1);
    LastGood::open(Arc::new(disk.clone()), "/d").unwrap();
    assert!(disk.list(Path::new("/d")).unwrap().is_empty());
}

#[test]
fn the_machines_disk_keeps_the_same_contract() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    create_dir(&OsDisk, &dir).unwrap();
    create_dir(&OsDisk, &dir).unwrap();
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let path = dir.join("f");
    write_atomic(&OsDisk, &path, b"old", PRIVATE).unwrap();
    write_atomic(&OsDisk, &path, b"new", PRIVATE).unwrap();
    assert_eq!(OsDisk.read(&path).unwrap(), b"new");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut file = open_append(&OsDisk, &path, PRIVATE).unwrap();
    file.append(b"er").unwrap();
    file.truncate(4).unwrap();
    file.append(b"!").unwrap();
    file.sync().unwrap();
    assert_eq!(OsDisk.read(&path).unwrap(), b"newe!");
    assert_eq!(OsDisk.list(&dir).unwrap(), ["f"]);
    let exists = OsDisk.create(&path, PRIVATE).unwrap_err();
    assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
    remove(&OsDisk, &path).unwrap();
    remove(&OsDisk, &path).unwrap();
    let gone = OsDisk.open(&path).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_lock_excludes_and_ends_with_its_guard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let sim = disk();
    for (disk, path) in [
        (&OsDisk as &dyn Disk, &*path),
        (&sim as &dyn Disk, Path::new("/d/lock")),
    ] {
        let held = disk.lock(path).unwrap();
        let refused = disk.lock(path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        disk.lock(path).unwrap();
    }
}

#[test]
fn a_block_list_is_the_old_or_the_new_one_at_every_crash() {
    let open = |disk: &SimDisk| BlockList::open(Arc::new(disk.clone()), "/d/c");
    let blocked = |id: &str| Blocked {
        id: id.parse().unwrap(),
        since: Time::from_secs(7),
        by: "unix:0".into(),
        note: "a \"note\"".into(),
    };
    let old = vec![blocked("unix:1"), blocked("spiffe://td/x")];
    let new = vec![blocked("dns:a.example")];
    at_every_crash(
        |disk| {
            let list = open(disk).unwrap();
            assert_eq!(list.load().unwrap(), []);
            list.put(&old).unwrap();
        },
        |disk| open(disk).is_ok_and(|list| list.put(&new).is_ok()),
        |disk, done| match open(disk).unwrap().load() {
            Ok(found) if found == new || (!done && found == old) => Ok(()),
            other => Err(format!("done: {done}, found {other:?}")),
        },
    )
    .unwrap();
}
