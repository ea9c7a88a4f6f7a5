//! Rotations by hand that come faster than tokens die: the set stays as small
//! as rule 6 has it, and operators read until when there is no standby.

use super::bad_days::{active, signs};
use super::lab::{Lab, kids, wait_until};

/// Rule 6 allows three keys: ceil((6 s + ...) / 1 h) + 2.
const SCHEDULE: &str = r#"
rotate_every = "1h"
verifier_cache = "1s"
propagation = "200ms"
skew = "200ms"
max_token_lifetime = "6s"
default_lifetime = "6s"
rollback_window = "1s"
adoption = "200ms"
signing_deadline = "1s"
max_age = "500ms"
"#;

#[tokio::test]
async fn quick_rotations_run_out_of_standbys_and_say_until_when() {
    let lab = Lab::new(SCHEDULE, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;

    let listed = || lab.ok(&["keys", "list"]);
    let largest = async |found: usize| {
        let shown = kids(&daemon.jwks().await.expect("a set")).len();
        assert!(
            shown <= 3,
            "rule 6 allows three keys, and {shown} are shown"
        );
        found.max(shown)
    };
    let mut most = 0;
    for _ in 0..2 {
        let before = active(&lab);
        lab.ok(&["keys", "rotate"]);
        wait_until(async || active(&lab) != before).await;
        most = largest(most).await;
    }
    assert_eq!(most, 3, "the oldest key is there still");
    let list = listed();
    assert!(list.contains("no standby until 20"), "{list}");
    let doctor = lab.run(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout);
    assert!(
        doctor.contains("warn  standby main: ES256: no standby until 20"),
        "{doctor}"
    );
    lab.logged("NO_STANDBY").await;

    // The oldest leaves, and the standby comes by itself.
    wait_until(async || {
        largest(0).await;
        !listed().contains("no standby")
    })
    .await;
    wait_until(async || kids(&daemon.jwks().await.expect("a set")).len() >= 2).await;
    lab.ok(&["keys", "rotate"]);
}
