//! Revoked keys of which something is left to do.

use super::Report;
use super::sockets::Agent;
use crate::api::v1::{Key, KeySet, KeySetHealth, Phase};
use crate::cli::keys::date;

/// What the agent says of each.
pub(super) fn told(agent: &Agent, report: &mut Report) {
    for set in &agent.key_sets {
        let revoked = set.keys.iter().filter(|key| key.phase() == Phase::Revoked);
        for key in revoked {
            waits_for_second(set, key, report);
        }
    }
}

/// A restart would forget it. Says what to do before one, and after.
pub(super) fn in_memory_alone(set: &KeySetHealth, report: &mut Report) {
    for kid in &set.revoked_in_memory {
        report.fail(
            "revoked",
            &set.name,
            format!("the revocation of {kid} is in memory alone: a restart forgets it"),
            format!(
                "do not stop or restart the agent: make room, see `state folder`, and it is written within seconds. Where the agent ended before, order it again with no agent running: `sealkeeper keys revoke {kid} --key-set {} --offline --reason compromised --then wait`",
                set.name
            ),
        );
    }
}

/// Its private half is kept for a second person.
fn waits_for_second(set: &KeySet, key: &Key, report: &mut Report) {
    let mut next = set.next.iter();
    let Some(destroy) = next.find(|it| it.kid == key.kid && it.kind == "destroy") else {
        return;
    };
    let (kid, at) = (&key.kid, date(destroy.at.as_ref()));
    report.warn(
        "revoked",
        &set.name,
        format!("the private half of the revoked key {kid} exists: it is destroyed at {at}"),
        format!("waits for: {}", destroy.waits_for),
    );
}
