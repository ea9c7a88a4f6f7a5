//! Which key an order is about: by the whole id or the start of it, and never
//! one that there is not.

use std::fs;

use crate::live::bad_days::{damage, shown, signs};
use crate::live::lab::{CALM, Lab, wait_until};

/// Exit code, standard output, standard error.
fn run(lab: &Lab, args: &[&str]) -> (Option<i32>, String, String) {
    let output = lab.run(args);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn an_order_finds_its_key_by_the_start_of_its_id() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    let kids = shown(daemon.jwks().await);
    let (code, _, told) = run(&lab, &["keys", "hold", "nonsense"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no key has the id \"nonsense\""), "{told}");
    assert!(kids.iter().all(|kid| told.contains(kid)), "{told}");
    lab.ok(&["keys", "hold", &kids[0][..12]]);
    lab.ok(&["keys", "release", &format!("{}…", &kids[0][..12])]);
    // Not one that the record knows to be none.
    let other = "A".repeat(43);
    let (code, _, told) = run(&lab, &["keys", "revoke", &other, "--force-kid"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("UNKNOWN_KEY"), "{told}");
    assert!(told.contains("keys list --json"), "{told}");
}

/// Found by review: without a record, any text at all was "blocked and has
/// left the set".
#[tokio::test]
async fn without_a_record_a_key_that_there_is_not_is_not_revoked() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    wait_until(async || shown(daemon.jwks().await).len() == 2).await;
    daemon.kill();
    damage(&lab);
    let daemon = lab.serve().await;
    let kids = shown(daemon.jwks().await);
    let stones = || fs::read_dir(lab.path("state/tombstones")).map_or(0, Iterator::count);
    for args in [
        &["keys", "revoke", "nonsense"][..],
        &["keys", "revoke", "nonsense", "--force-kid"],
        &["keys", "revoke", &"A".repeat(43)],
    ] {
        let (code, done, told) = run(&lab, args);
        assert_eq!((code, done.as_str()), (Some(1), ""), "{args:?}: {told}");
        assert!(kids.iter().all(|kid| told.contains(kid)), "{told}");
    }
    assert_eq!((shown(daemon.jwks().await), stones()), (kids.clone(), 0));

    // In advance, where somebody insists.
    let ahead = "A".repeat(43);
    let (code, done, told) = run(&lab, &["keys", "revoke", &ahead, "--force-kid"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(done.contains("blocked"), "{done}");
    assert!(told.starts_with("warning: nobody shows the key"), "{told}");

    let (code, done, told) = run(&lab, &["keys", "revoke", &kids[0][..8]]);
    assert_eq!(code, Some(0), "{told}");
    assert!(done.contains(&kids[0]), "the whole id: {done}");
    assert_eq!(shown(daemon.jwks().await), kids[1..]);
    drop(daemon);

    // Of the first one a tombstone is left, and no key: that it is over is
    // known all the same. Found by use: "no key has the id".
    lab.ok(&["recover", "--write"]);
    let daemon = lab.serve().await;
    for wanted in [&ahead[..], "AAAAAAAA"] {
        let (code, done, told) = run(&lab, &["keys", "revoke", wanted]);
        assert_eq!(code, Some(0), "{told}");
        let before = format!("done:    the key {ahead} was revoked before, at 20");
        assert!(done.contains(&before), "{done}");
    }
    let (_, shown, _) = run(&lab, &["keys", "show", &ahead]);
    assert!(shown.contains(" was revoked 20"), "{shown}");
    let (code, _, told) = run(&lab, &["keys", "hold", &ahead]);
    assert!(code == Some(1) && told.contains("KEY_FORGOTTEN"), "{told}");
    drop(daemon);
    let offline = ["keys", "revoke", &ahead, "--offline"];
    let (code, done, told) = run(&lab, &offline);
    assert!(
        code == Some(0) && done.contains("was revoked before, at 20"),
        "{told}"
    );
}

/// As `keys hold` of a held key: it is as it was asked for.
#[tokio::test]
async fn a_key_that_nobody_holds_is_released_with_a_word() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    let kid = &shown(daemon.jwks().await)[0];
    let released = || {
        let log = fs::read_to_string(lab.path("state/audit/keys.log")).expect("the log");
        log.matches("\"released\"").count()
    };
    for (order, said) in [
        ("release", "nothing held the key"),
        ("hold", "held"),
        ("hold", "held"),
        ("release", "released"),
        ("release", "nothing held the key"),
    ] {
        let (code, done, told) = run(&lab, &["keys", order, kid]);
        assert_eq!(code, Some(0), "{order}: {told}");
        assert!(done.contains(said), "{order}: {done}");
    }
    assert_eq!(released(), 1, "what did not happen is no event");
}
