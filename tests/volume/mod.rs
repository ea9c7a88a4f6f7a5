//! More than a device can do, and callers who want a lot of it. Nothing here
//! judges a time: only ratios of what was measured in the same run.

mod device;
mod live;
mod load;
mod overload;
pub(crate) mod slow;
mod talks;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::live::lab::{CALM, Daemon, Lab, softhsm_module};

/// A laboratory whose device takes at least so long for each signature, with
/// two workers, and whose key sets are `main` and these.
pub(crate) async fn slow_lab(sign: Duration, more: &[&str]) -> (Lab, Daemon) {
    let lab = Lab::new(CALM, &["ES256"]);
    let file = lab.path("sealkeeper.toml");
    let text = fs::read_to_string(&file).unwrap();
    let env: String = slow::env(sign, &counters(&lab))
        .iter()
        .map(|(name, value)| format!(", {name} = {value:?}"))
        .collect();
    let text = text
        .replace(
            &format!("module = \"{}\"", softhsm_module().display()),
            &format!("module = {:?}\nworkers = 2", slow::module()),
        )
        .replace("softhsm2.conf\" }", &format!("softhsm2.conf\"{env} }}"));
    assert!(text.contains("SLOW_MODULE_BEHIND") && text.contains("libslow_module"));
    // Each key set like the first, under another name.
    let (_, main) = text.split_once("[key_set.main]").unwrap();
    let main = format!("[key_set.main]{main}");
    let more: String = more
        .iter()
        .map(|name| main.replace("key_set.main", &format!("key_set.{name}")))
        .collect();
    fs::write(&file, format!("{text}\n{more}")).unwrap();
    lab.init();
    let daemon = lab.serve().await;
    (lab, daemon)
}

/// Where the slow module of a laboratory counts.
pub(crate) fn counters(lab: &Lab) -> PathBuf {
    lab.path("counters")
}
