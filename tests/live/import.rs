//! `keys import`: the JWKS of an older system goes on being served.

use std::fs;
use std::process::Output;

use super::backup::{fails, key_log, lose_store};
use super::bad_days::{active, shown, signs};
use super::lab::{CALM, Lab};

const OLD: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"2019-04","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[tokio::test]
async fn it_is_served_with_its_kid_and_survives_a_lost_store() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let signing = {
        let mut daemon = lab.serve().await;
        signs(&mut daemon).await;
        let file = lab.path("old.json");
        fs::write(&file, OLD).expect("the set");
        let in_use = fails(&import(&lab, "old.json"));
        assert!(in_use.contains("an agent is running"), "{in_use}");
        active(&lab)
    };
    let told = import(&lab, "old.json");
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("2019-04 verifies until 2030-01-01T00:00:00Z, and"),
        "{told}"
    );
    let log = key_log(&lab);
    assert!(
        log.contains(r#""imported""#) && log.contains("moved from the old one"),
        "{log}"
    );
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert_eq!(active(&lab), signing);
    assert!(shown(daemon.jwks().await).contains(&"2019-04".to_owned()));
    let set = daemon.jwks().await.expect("a set");
    let text = String::from_utf8(set).expect("text");
    assert!(
        text.contains("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
        "{text}"
    );
    daemon.kill();
    lose_store(&lab);
    lab.ok(&["recover", "--write"]);
    let mut daemon = lab.serve().await;
    signs(&mut daemon).await;
    assert!(shown(daemon.jwks().await).contains(&"2019-04".to_owned()));
    let gone = lab.ok(&["keys", "revoke", "2019-04", "--reason", "superseded"]);
    assert!(gone.contains("2019-04"), "{gone}");
    assert!(!shown(daemon.jwks().await).contains(&"2019-04".to_owned()));
    drop(daemon);
    let back = fails(&import(&lab, "old.json"));
    assert!(back.contains("does not come back"), "{back}");
}

fn import(lab: &Lab, file: &str) -> Output {
    let file = lab.path(file).display().to_string();
    let mut command = lab.command(&["keys", "import", "--from", &file]);
    command.args(["--until", "2030-01-01"]);
    command.args(["--note", "moved from the old one"]);
    command.output().expect("the program under test")
}

#[test]
fn what_could_not_be_verified_with_is_refused_whole() {
    let lab = Lab::new(CALM, &["ES256"]);
    lab.init();
    let odd = OLD.replace(
        r#"{"keys":["#,
        r#"{"keys":[{"kty":"oct","kid":"a secret","k":"AAAA"},"#,
    );
    fs::write(lab.path("odd.json"), odd).expect("the set");
    let said = fails(&import(&lab, "odd.json"));
    assert!(
        said.contains("a secret") && said.contains("no key was imported"),
        "{said}"
    );
    assert!(!key_log(&lab).contains("imported"));
    fs::write(lab.path("none.json"), r#"{"keys":[]}"#).expect("the set");
    let said = fails(&import(&lab, "none.json"));
    assert!(said.contains("expected 1 to 24 keys, got 0"), "{said}");
}
