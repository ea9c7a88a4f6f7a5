//! The end of every key that a device holds, in all key sets.
//!
//! First all of them are blocked in memory, then all are on disk, then each
//! ends as any other: those that sign last, so that none takes the place of
//! another on the way, and the last key of a set leaves it as a fresh one
//! enters. A failure with one of them ends none of the others.

use tokio::sync::oneshot;

use super::admin::{AdminError, DeviceOrder, Ended, EndedKey};
use super::impact::BRIEFLY;
use super::reader::Blocked;
use super::writer::{Message, Writer};
use super::{Agent, gone, impact};
use crate::keyring::{Ending, KeySet, Mandate, Phase};
use crate::policy::Caller;

/// The order, on its way to each writer.
pub(super) struct OnDevice {
    pub(super) caller: Caller,
    pub(super) order: DeviceOrder,
    pub(super) reply: oneshot::Sender<Vec<Ended>>,
    /// Keeps what signs from signing until the writer has blocked it for good.
    pub(super) blocks: Vec<Blocked>,
}

impl Agent {
    pub(super) async fn end_device(
        &self,
        caller: &Caller,
        order: DeviceOrder,
    ) -> Result<Vec<Ended>, AdminError> {
        let device = order.device.as_str();
        let mut blocked = Vec::new();
        for (name, room) in &self.0.rooms {
            let signers = room.reader.load().signers.clone();
            let signing = signers.map(|signers| signers.view.on_device(device));
            let signing = signing.unwrap_or_default().into_iter();
            let blocks: Vec<Blocked> = signing
                .map(|kid| room.reader.block_for_order(&kid))
                .collect();
            blocked.push((name.clone(), blocks));
        }
        let mut answers = Vec::new();
        for (name, blocks) in blocked {
            let (reply, answer) = oneshot::channel();
            let on_device = OnDevice {
                caller: caller.clone(),
                order: order.clone(),
                reply,
                blocks,
            };
            let message = Message::EndDevice(Box::new(on_device));
            let told = self.tell(&name, message).await;
            answers.push((name, told.map(|()| answer)));
        }
        let mut ended = Vec::new();
        for (key_set, answer) in answers {
            let failed = |error| Ended {
                key_set: key_set.clone(),
                kid: String::new(),
                outcome: Err(error),
            };
            match answer {
                Ok(answer) => match answer.await {
                    Ok(of_set) => ended.extend(of_set),
                    Err(_) => ended.push(failed(gone(&key_set))),
                },
                Err(error) => ended.push(failed(error)),
            }
        }
        if ended.is_empty() && self.device(device).is_none() {
            let names: Vec<&str> = self.0.context.devices.keys().map(String::as_str).collect();
            return Err(AdminError::Refused {
                reason: "UNKNOWN_DEVICE",
                rule: "device".to_owned(),
                why: format!("no device {device:?} is configured, and none holds a key"),
                hint: format!("one of: {}", names.join(", ")),
                remaining: None,
            });
        }
        let began = std::time::Instant::now();
        for Ended {
            key_set, outcome, ..
        } in &mut ended
        {
            if let Ok(EndedKey {
                impact: Some(impact),
                ..
            }) = outcome
            {
                let left = BRIEFLY.saturating_sub(began.elapsed());
                impact::count_tokens(
                    &self.0.context,
                    key_set,
                    (&impact.kid, &mut impact.tokens),
                    left,
                )
                .await;
            }
        }
        Ok(ended)
    }
}

impl Writer {
    pub(super) async fn end_device(&mut self, asked: OnDevice) {
        let OnDevice {
            caller,
            order,
            reply,
            blocks,
        } = asked;
        let ended = self.end_keys_on(&caller, &order).await;
        drop(blocks);
        let _ = reply.send(ended);
    }

    pub(super) async fn end_keys_on(&mut self, caller: &Caller, order: &DeviceOrder) -> Vec<Ended> {
        let key_set = self.reader.name.clone();
        let ended = |kid: String, outcome| Ended {
            key_set: key_set.clone(),
            kid,
            outcome,
        };
        let (kids, by_jwks) = match self.held.as_ref().or(self.last.as_ref()) {
            Some(held) => (on_device(&held.record.set, &order.device), false),
            None => (self.on_device_in_the_dark(&order.device), true),
        };
        match (kids.is_empty(), by_jwks) {
            (false, _) => {}
            (true, false) => return Vec::new(),
            // Which keys are there is not known. Nothing signs.
            (true, true) => return vec![ended(String::new(), Err(self.dark()))],
        }
        let device = &order.device;
        tracing::warn!(key_set, device, %caller, keys = kids.len(), "every key on a device is revoked");
        for kid in &kids {
            self.reader.block(kid);
        }
        let ending = Ending {
            reason: order.reason.into(),
            then: Some(order.then.into()),
            at: None,
            mandate: Mandate {
                by: caller.to_string(),
                note: order.note.clone(),
            },
        };
        // A restart must not do what waits for a second person.
        let alone = match self.reader.terms().approvals {
            Some(_) => ending.clone().or_later(),
            None => ending.clone(),
        };
        self.entomb_all(&kids, &alone).await;
        let mut all = Vec::new();
        for kid in kids {
            let did = self.revoke_by(caller, &kid, ending.clone()).await;
            let by_jwks = by_jwks.then(|| by_the_jwks(device));
            let outcome = did.map(|did| EndedKey {
                done: did.done,
                pending: did.pending.into_iter().chain(by_jwks).collect(),
                trusted_until: did.trusted_until,
                durable: did.durable,
                impact: did.impact,
            });
            all.push(ended(kid, outcome));
        }
        all
    }

    /// The keys that are on a device as far as anybody knows without a record:
    /// those that verifiers got last, where the configuration has the keys of
    /// the set made there.
    pub(super) fn on_device_in_the_dark(&self, device: &str) -> Vec<String> {
        if self.plan.device != device {
            return Vec::new();
        }
        let shown = self.published_in_the_dark();
        let mut kids = shown.map(|set| set.kids()).unwrap_or_default();
        let placeholder = self.placeholders();
        kids.retain(|kid| !placeholder.contains(kid));
        kids.sort();
        kids
    }
}

/// What is not known of an order that went by the JWKS.
pub(super) fn by_the_jwks(device: &str) -> String {
    format!(
        "the record cannot be read: this goes by the last JWKS, whose keys are made on the device {device} by the configuration. Whether it holds them, and which others that nobody was shown, is not known: once `sealkeeper recover` has made the record again, their private halves are destroyed, and the same order ends what is left"
    )
}

/// The keys of which a device has, or had, the private half: those that sign
/// last.
pub(super) fn on_device(set: &KeySet, device: &str) -> Vec<String> {
    let signs = |key: &crate::keyring::Key| matches!(key.phase, Phase::Active { .. });
    let ends = set.keys.values().filter(|key| {
        let over = matches!(key.phase, Phase::Revoked { .. } | Phase::Placeholder);
        !over && key.placements.contains_key(device)
    });
    let mut kids: Vec<(bool, String)> = ends
        .filter_map(|key| Some((signs(key), key.kid.clone()?)))
        .collect();
    kids.sort();
    kids.into_iter().map(|(_, kid)| kid).collect()
}
