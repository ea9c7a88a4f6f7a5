//! A configuration that would stop signing says so before the restart.

use crate::live::bad_days::signs;
use crate::live::lab::{CALM, Lab, wait_for};

const WARNING: &str = "nothing is signed for at least 1day 10m";

#[tokio::test]
async fn a_swapped_track_is_warned_of() {
    let lab = Lab::new(CALM, &["ES256"]);
    // Nothing has begun: nothing to compare with.
    assert!(!lab.ok(&["config", "check"]).contains("warning"));
    lab.init();
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert!(!lab.ok(&["config", "check"]).contains("warning"));
    assert!(!lab.log().contains("after a restart"), "{}", lab.log());

    lab.configure(CALM, "[[key_set.main.track]]\nalg = \"ES384\"\n");
    // With the agent, which has the old one, and without.
    for _ in 0..2 {
        let told = lab.ok(&["config", "check"]);
        assert!(told.contains(WARNING), "{told}");
        assert!(told.contains("tracks are ES384"), "{told}");
        assert!(told.contains("active keys are ES256"), "{told}");
        let json = lab.ok(&["config", "check", "--json"]);
        assert!(json.contains("\"warnings\":[\"key set main: "), "{json}");
        daemon.kill();
    }
    let mut daemon = lab.serve().await;
    lab.logged(WARNING).await;
    daemon.kill();

    let both = "[[key_set.main.track]]\nalg = \"ES384\"\n[[key_set.main.track]]\nalg = \"ES256\"\n";
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    lab.configure(CALM, both);
    assert!(!lab.ok(&["config", "check"]).contains("warning"));
    lab.amend("[device.softhsm]", "[device.other]");
    lab.amend("device = \"softhsm\"", "device = \"other\"");
    let told = lab.ok(&["config", "check"]);
    assert!(told.contains("active keys are on softhsm"), "{told}");
}

/// Found by review: nothing was said, and in a period nothing would have signed.
#[tokio::test]
async fn a_standby_on_a_device_that_is_gone_is_warned_of() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let mut daemon = lab.serve().await;
    let standby = || {
        lab.keys()
            .into_iter()
            .find(|key| key["phase"] == "published")
    };
    wait_for(|| standby().is_some()).await;
    let kid = standby().expect("it was there")["kid"].clone();
    daemon.kill();
    lab.amend("[device.softhsm]", "[device.other]");
    lab.amend("device = \"softhsm\"", "device = \"other\"");
    let told = lab.ok(&["config", "check"]);
    let next = format!(
        "the next ES256 key, {}, is on softhsm, which is not configured",
        kid.as_str().expect("a kid")
    );
    assert!(told.contains(&next), "{told}");
    let doctor = lab.run(&["doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout);
    assert!(told.contains(&next), "{told}");
}
