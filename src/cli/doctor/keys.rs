//! Keys in a token: does it hold what the record says, and can that leave?

use super::super::keys::date;
use super::super::rotate::at_least;
use super::sockets::Agent;
use super::state::Records;
use super::{Report, counted};
use crate::api::v1::{DeviceHealth, KeySetHealth, Phase as Listed, PrivateHalf};
use crate::hsm::{Device, DeviceError, Evidence, ObjectId, TokenIdentity};
use crate::keyring::{Half, Key, Phase};

/// A device that was opened here.
pub(super) struct Looked<'a> {
    device: &'a Device,
    /// The token's label and serial number.
    token: String,
    serial: String,
    require_local: bool,
}

/// What is wrong with a key in the token.
enum Fault {
    /// The token does not hold its private half.
    Gone,
    /// It must not be used.
    Bad(String, &'static str),
}

impl<'a> Looked<'a> {
    pub(super) fn new(device: &'a Device, token: &TokenIdentity, require_local: bool) -> Self {
        Self {
            device,
            token: format!("{:?}, serial {}", token.label, token.serial),
            serial: token.serial.clone(),
            require_local,
        }
    }

    /// Each private half that should be there: is it, is it the recorded one,
    /// and can it leave?
    pub(super) async fn keys(&self, records: &Records, report: &mut Report) {
        for (name, set) in records {
            let here = set
                .keys
                .values()
                .filter(|key| {
                    let half = key.placements.get(self.device.name());
                    matches!(half, Some(Half::Present | Half::Lost))
                })
                // What is in another token is not looked for in this one.
                .filter(|key| {
                    let token = key.tokens.get(self.device.name());
                    token.is_none_or(|token| *token == self.serial)
                })
                // The device is still to make it.
                .filter(|key| !matches!(key.phase, Phase::Generating));
            let (mut good, mut faults) = (Vec::new(), Vec::new());
            for key in here {
                match self.fault(key).await {
                    None => good.push(key),
                    Some(fault) => faults.push((key, fault)),
                }
            }
            for (key, fault) in faults {
                let (found, hint) = self.told(key, fault, &good);
                report.fail("keys", name, found, hint);
            }
            if good.is_empty() {
                continue;
            }
            report.ok(
                "keys",
                name,
                format!(
                    "{} on {}: as recorded, and none can leave",
                    counted(good.len(), "private half").replace("halfs", "halves"),
                    self.device.name()
                ),
            );
        }
    }

    /// For people: what was found, and what to do. `good` are the keys that
    /// the token holds as it should.
    fn told(&self, key: &Key, fault: Fault, good: &[&Key]) -> (String, String) {
        let kid = key.kid.as_deref().unwrap_or("(no kid yet)");
        let of = format!(
            "the {} key {kid} (object id {})",
            key.phase.name(),
            ObjectId(key.id.0)
        );
        match fault {
            Fault::Gone => (
                format!("{of}: the token does not hold its private half"),
                self.lost(key, good),
            ),
            Fault::Bad(found, why) => (
                format!("{of}: {found}"),
                format!("{why}: `sealkeeper keys revoke {kid}` ends it for ever"),
            ),
        }
    }

    /// What to do about a key that the token does not hold.
    fn lost(&self, key: &Key, good: &[&Key]) -> String {
        let kid = key.kid.as_deref().unwrap_or("KID");
        let standby = good.iter().find(|it| {
            it.algorithm == key.algorithm && matches!(it.phase, Phase::Published { .. })
        });
        let standby = standby.and_then(|it| {
            let kid = it.kid.as_deref()?;
            Some(format!("{kid}, in the token as {},", ObjectId(it.id.0)))
        });
        match key.phase {
            Phase::Active { .. } => lost_key(kid, &self.token, standby.as_deref()),
            // Who revokes it ends tokens that are good.
            Phase::Retiring { .. } => format!(
                "is this the right token: {}? If it is, leave the key: it signs no more, and its tokens verify on; only there is no way back to it",
                self.token
            ),
            Phase::Retired { .. } => format!(
                "find out who deleted it; another was made in its place. `sealkeeper keys destroy {kid}` ends this line"
            ),
            _ => format!(
                "is this the right token: {}? If not, put the right one back; if the key was deleted, restore the token's backup. Only if it is lost for good: `sealkeeper keys revoke {kid}` ends it for ever, and the agent makes another",
                self.token
            ),
        }
    }

    async fn fault(&self, key: &Key) -> Option<Fault> {
        let found = match self.device.find(ObjectId(key.id.0)).await {
            Ok(Some(found)) => found,
            Ok(None) => return Some(Fault::Gone),
            // Its public half is left.
            Err(DeviceError::BadKey { why, .. }) if why.contains(" has 0 private ") => {
                return Some(Fault::Gone);
            }
            Err(e) => return Some(Fault::Bad(e.to_string(), "if it must not be used")),
        };
        if key.public.as_ref() != Some(&found.public) {
            return Some(Fault::Bad(
                "the token holds another public key under its id".to_owned(),
                "somebody wrote to the token",
            ));
        }
        let said = loose(&found.evidence, self.require_local)?;
        Some(Fault::Bad(
            format!("the token says {said}"),
            "a key that can leave is no secret",
        ))
    }
}

/// What lets a key out.
fn loose(evidence: &Evidence, require_local: bool) -> Option<&'static str> {
    if evidence.sensitive != Some(true) {
        return Some("CKA_SENSITIVE is not true");
    }
    if evidence.extractable != Some(false) {
        return Some("CKA_EXTRACTABLE is not false");
    }
    if evidence.always_sensitive == Some(false) {
        return Some("CKA_ALWAYS_SENSITIVE is false");
    }
    if evidence.never_extractable == Some(false) {
        return Some("CKA_NEVER_EXTRACTABLE is false");
    }
    (require_local && evidence.local != Some(true)).then_some("CKA_LOCAL is not true")
}

/// Keys that were to sign next, and that the agent found its token to lack.
pub(super) fn lost_standbys(agent: &Agent, report: &mut Report) {
    let lost = Half::Lost.name();
    for set in &agent.key_sets {
        for key in &set.keys {
            let Some(place) = key.placements.iter().find(|it| it.state == lost) else {
                continue;
            };
            let left = match key.phase() {
                // An agent might have heard that it was to sign.
                Listed::Retiring => "It signs nothing, and leaves the set by itself;",
                _ => "It has left the set, and",
            };
            let found = format!(
                "the key {} (object id {}), which was to sign next: the token of {} does not hold its private half. {left} another was made in its place",
                key.kid,
                hex(&place.handle_id),
                place.device
            );
            let hint = format!(
                "find out who deleted it. If the token's backup is put back for it, the agent uses it no more. `sealkeeper keys destroy {}` ends this line",
                key.kid
            );
            report.fail("keys", &set.name, found, hint);
        }
    }
}

/// Keys that were forced to sign before every verifier holds them.
pub(super) fn early(agent: &Agent, report: &mut Report) {
    for set in &agent.key_sets {
        for key in &set.keys {
            let Some(until) = &key.refused_until else {
                continue;
            };
            let found = format!(
                "the key {} was forced to sign before its time: {}until {} verifiers that do not hold it refuse its tokens",
                key.kid,
                at_least(key),
                date(Some(until))
            );
            let mut others = set.keys.iter();
            let before =
                others.find(|other| other.alg == key.alg && other.phase() == Listed::Retiring);
            let back = before.map(|before| {
                format!(
                    ". Where too much is refused: `sealkeeper keys rollback {}` goes back, or says why it cannot",
                    before.kid
                )
            });
            let hint = format!(
                "it is over by itself, once every origin shows the key{}",
                back.unwrap_or_default()
            );
            report.warn("keys", &set.name, found, hint);
        }
    }
}

/// What to do about the active key that the token did not have.
pub(super) fn missed(agent: &Agent, set: &KeySetHealth) -> String {
    let listed = agent.key_sets.iter().find(|it| it.name == set.name);
    let keys = || listed.into_iter().flat_map(|it| &it.keys);
    let Some(key) = keys().find(|key| set.why.contains(&key.kid)) else {
        return "`sealkeeper keys list` shows which key it is".to_owned();
    };
    let standby = keys().find(|it| {
        it.alg == key.alg
            && it.phase() == Listed::Published
            && it.private_half() == PrivateHalf::Present
    });
    let standby = standby.map(|it| {
        let ids = it.placements.iter().map(|at| hex(&at.handle_id));
        let id = ids.collect::<Vec<_>>().join(", ");
        format!(
            "{}, which the token should hold as {id} (so says the record: while the agent has the token, nobody else looks into it; stop the agent, and doctor does),",
            it.kid
        )
    });
    let on = |it: &&DeviceHealth| key.placements.iter().any(|at| at.device == it.name);
    let token = agent.devices.iter().find(on).map(|it| it.token.as_str());
    lost_key(&key.kid, token.unwrap_or("the token"), standby.as_deref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What to do about an active key that this token does not hold. `standby`
/// says which one is next, and where it is.
fn lost_key(kid: &str, token: &str, standby: Option<&str>) -> String {
    let Some(standby) = standby else {
        return format!(
            "is this the right token: {token}? If not, put the right one back; if the keys were deleted, restore the token's backup: the next signature finds them. Only if they are lost for good: stop the agent, run `sealkeeper recover --keys-are-lost`, and start the agent: what they signed verifies on, and a new key signs once verifiers hold it"
        );
    };
    format!(
        "is this the right token: {token}? If not, put the right one back; if the key was deleted, restore the token's backup: the next signature finds it. The standby takes over by itself where the token holds that one and verifiers do. Only if the key is lost for good: `sealkeeper keys revoke {kid}` ends it for ever; the standby {standby} signs next. Where verifiers may not hold that one yet, revoke asks for --then: `wait` until they do, or `activate` it at once, and some refuse its tokens for a while"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_can_leave_is_named() {
        let good = Evidence {
            sensitive: Some(true),
            extractable: Some(false),
            always_sensitive: Some(true),
            never_extractable: Some(true),
            local: Some(true),
            ..Evidence::default()
        };
        assert_eq!(loose(&good, true), None);
        type Change = fn(&mut Evidence);
        let cases: [(Change, &str); 7] = [
            (|e| e.sensitive = None, "CKA_SENSITIVE"),
            (|e| e.sensitive = Some(false), "CKA_SENSITIVE"),
            (|e| e.extractable = None, "CKA_EXTRACTABLE"),
            (|e| e.extractable = Some(true), "CKA_EXTRACTABLE"),
            (|e| e.always_sensitive = Some(false), "CKA_ALWAYS_SENSITIVE"),
            (
                |e| e.never_extractable = Some(false),
                "CKA_NEVER_EXTRACTABLE",
            ),
            (|e| e.local = None, "CKA_LOCAL"),
        ];
        for (change, named) in cases {
            let mut evidence = good.clone();
            change(&mut evidence);
            let said = loose(&evidence, true).unwrap_or_default();
            assert!(said.starts_with(named), "{named}: {said}");
        }
        let elsewhere = Evidence {
            local: Some(false),
            ..good
        };
        assert_eq!(loose(&elsewhere, false), None);
    }
}
