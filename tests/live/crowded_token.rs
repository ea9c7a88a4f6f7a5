//! A token that holds thousands of keys of other tools, as one that a company
//! shares does: it is listed at each start, before the first signature leaves.

use std::fs;
use std::path::PathBuf;

use super::adopt::makes;
use super::bad_days::{active, signs};
use super::lab::{Lab, QUICK};

/// Pairs beside ours. Going through all of them for each takes SoftHSM a
/// minute.
const OTHERS: usize = 1500;

/// One pair of another tool, as often as that: SoftHSM keeps each object in a
/// file of its own.
fn crowd(lab: &Lab) {
    let objects = || -> Vec<PathBuf> {
        let tokens = fs::read_dir(lab.path("tokens")).expect("the folder");
        let token = tokens.flatten().next().expect("a token").path();
        let files = fs::read_dir(token).expect("the token").flatten();
        let files = files.map(|file| file.path());
        files
            .filter(|file| file.extension().is_some_and(|it| it == "object"))
            .collect()
    };
    let before = objects();
    makes(lab, "other", "0101", &[]);
    let pair = objects().into_iter().filter(|it| !before.contains(it));
    for (half, file) in pair.enumerate() {
        for n in 1..OTHERS {
            let name = format!("{half:08x}-0000-0000-0000-{n:012x}.object");
            fs::copy(&file, file.with_file_name(name)).expect("a copy");
        }
    }
    assert_eq!(objects().len(), before.len() + 2 * OTHERS);
}

#[tokio::test]
async fn a_crowded_token_is_listed_and_keeps_nobody_waiting() {
    let lab = Lab::new(&QUICK.replace("\"4s\"", "\"1h\""), &["ES256"]);
    lab.init();
    crowd(&lab);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    let doctor = lab.ok(&["doctor"]);
    assert!(doctor.contains("key set main: signs"), "{doctor}");
    let key = active(&lab);
    daemon.ask_to_stop();
    daemon.end().await;
    let log = lab.log();
    for wrong in ["what the device holds is not known", "device down"] {
        assert!(!log.contains(wrong), "{log}");
    }
    // Whoever makes the record again has each of them looked at.
    for tail in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.path(&format!("state/keys.sqlite{tail}")));
    }
    lab.ok(&["recover", "--write", "--note", "a lost disk"]);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(active(&lab), key);
}
