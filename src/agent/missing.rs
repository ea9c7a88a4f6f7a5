//! A key that is to sign, and that its device does not hold.
//!
//! A signature that fails for it is the first to know, and is refused. Then
//! the device is asked once more, beside the writer: only where it surely
//! lacks the key and surely holds the next one is a rotation asked for. So a
//! token that was swapped for an empty one, which lacks both, moves nothing.
//! The next key signs when rule 1 allows it, and not before; the set keeps
//! the lost one for the tokens that it signed.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Context;
use super::effects::token_in;
use super::writer::{Clock, Writer};
use crate::hsm::{DeviceError, ObjectId};
use crate::keyring::Key;

impl Writer {
    /// Has the device asked about the key that it did not have when it was to
    /// sign.
    pub(super) fn look_for_missing(&mut self) {
        if self.looking.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        self.looking = self.look();
    }

    fn look(&self) -> Option<JoinHandle<()>> {
        let set = &self.held.as_ref()?.record.set;
        let kid = self.reader.missing()?;
        let key = set.by_kid(&kid)?.clone();
        let seat = key.seat();
        let asked = set.seats.get(&seat)?;
        if asked.active != Some(key.id) || asked.rotate_at.is_some() {
            return None;
        }
        let next = set.standby(&seat)?.clone();
        let (context, news) = (Arc::clone(&self.context), Arc::downgrade(&self.news));
        Some(tokio::spawn(async move {
            let lost = holds(&context, &key).await == Some(false);
            if lost
                && holds(&context, &next).await == Some(true)
                && let Some(news) = news.upgrade()
            {
                news.lost(&kid);
            }
        }))
    }

    /// The device lacks a key, and holds the next one.
    pub(super) async fn lost(&mut self, kid: &str) {
        let key_set = self.reader.name.clone();
        tracing::error!(
            key_set,
            kid,
            "the device has lost the key that signs; the next one takes over as soon as verifiers hold it"
        );
        let step = self.step(Clock::Sure, |set, _, tick| {
            Ok::<_, Infallible>(((), set.rotate_lost(kid, tick)))
        });
        if let Err(e) = step.await {
            tracing::error!(
                key_set,
                kid,
                "the rotation to the next key is not on record: {e}"
            );
        }
    }
}

/// Whether a device that answers holds the private half; none where none
/// answers.
pub(super) async fn holds(context: &Context, key: &Key) -> Option<bool> {
    let mut answered = None;
    for device in key.placements.keys() {
        let name = device;
        let device = context.devices.get(name)?;
        // What another token lacks is not lost.
        let there = token_in(device).await.ok()?;
        if key.tokens.get(name).is_some_and(|token| *token != there) {
            return None;
        }
        match device.find(ObjectId(key.id.0)).await {
            Ok(Some(_)) => return Some(true),
            // Half a pair is lost as well.
            Ok(None) | Err(DeviceError::BadKey { .. }) => answered = Some(false),
            Err(_) => return None,
        }
    }
    answered
}
