//! `sealkeeper.v1.KeyAdmin`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use tracing::info;

use super::desk::timestamp;
use super::status::Fault;
use super::{callers, condition, device, identity, impact, origins, rotation};
use crate::agent::Administration;
use crate::agent::admin::{
    AfterRevocation, Change, Changed, ForgottenKey, HoldStatus, KeyPhase, KeySetStatus, KeyStatus,
    Order, PlacementStatus, PrivateHalf, RevocationReason, RevocationStatus, Upcoming,
};
use crate::agent::callers::Callers;
use crate::api;
use crate::api::v1::{self, key_admin_server};
use crate::time::Time;

/// The longest `request_id`, in characters.
const MAX_REQUEST_ID: usize = 64;

/// The longest `kid`, in bytes: what Kubernetes allows.
const MAX_KID: usize = 1024;

/// The longest note, in bytes: a few sentences. The record keeps it for ever.
const MAX_NOTE: usize = 1024;

/// The administration edge over whatever keeps the keys.
pub(super) struct Admin<A> {
    pub(super) administration: Arc<A>,
    callers: Arc<Callers>,
}

impl<A: Administration> Admin<A> {
    pub(super) const fn new(administration: Arc<A>, callers: Arc<Callers>) -> Self {
        Self {
            administration,
            callers,
        }
    }

    /// Every change takes this way.
    pub(super) async fn change<T>(
        &self,
        request: Request<T>,
        order: impl FnOnce(T) -> Result<(Option<v1::Order>, Change), Fault>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let (order, change) = order(request.into_inner()).map_err(Fault::into_status)?;
        let order = checked_order(order, change).map_err(Fault::into_status)?;
        info!(%caller, key_set = ?order.key_set, request_id = ?order.request_id, "change ordered");
        let changed = self.administration.change(&caller, order).await;
        let changed = changed.map_err(|error| Fault::admin(error).into_status())?;
        Ok(Response::new(change_response(changed)))
    }
}

#[tonic::async_trait]
impl<A: Administration> key_admin_server::KeyAdmin for Admin<A> {
    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let name = request.into_inner().key_set;
        let name = Some(name.as_str()).filter(|name| !name.is_empty());
        let key_sets = self.administration.key_sets(&caller, name).await;
        let key_sets = key_sets.map_err(|error| Fault::look(error).into_status())?;
        Ok(Response::new(v1::ListKeysResponse {
            key_sets: key_sets.into_iter().map(key_set).collect(),
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |request| {
            let change = Change::Rotate {
                algorithm: rotation::track(&request.alg)?,
                force: request.force,
                note: checked_note(request.note)?,
            };
            Ok((request.order, change))
        })
        .await
    }

    async fn preview_rotation(
        &self,
        request: Request<v1::PreviewRotationRequest>,
    ) -> Result<Response<v1::PreviewRotationResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let v1::PreviewRotationRequest { key_set, alg } = request.into_inner();
        let track = rotation::track(&alg).map_err(Fault::into_status)?;
        let rotation = self
            .administration
            .foresee_rotation(&caller, &key_set, track);
        let rotation = rotation.await;
        let rotation = rotation.map_err(|error| Fault::look(error).into_status())?;
        Ok(Response::new(rotation::preview(rotation)))
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |request| {
            let reason = revocation_reason(request.reason)?;
            let change = Change::Revoke {
                kid: checked_kid(request.kid)?,
                reason,
                then: after_revocation(request.then)?,
                note: checked_note(request.note)?,
            };
            Ok((request.order, change))
        })
        .await
    }

    async fn preview_revocation(
        &self,
        request: Request<v1::PreviewRevocationRequest>,
    ) -> Result<Response<v1::PreviewRevocationResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let (key_set, thought) =
            impact::thought(request.into_inner()).map_err(Fault::into_status)?;
        let foreseen = self
            .administration
            .foresee(&caller, &key_set, thought)
            .await;
        let foreseen = foreseen.map_err(|error| Fault::look(error).into_status())?;
        Ok(Response::new(impact::preview(foreseen)))
    }

    async fn revoke_device(
        &self,
        request: Request<v1::RevokeDeviceRequest>,
    ) -> Result<Response<v1::RevokeDeviceResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let order = device::order(request.into_inner()).map_err(Fault::into_status)?;
        info!(%caller, device = ?order.device, "the end of a device's keys ordered");
        let ended = self.administration.revoke_device(&caller, order).await;
        let ended = ended.map_err(|error| Fault::admin(error).into_status())?;
        Ok(Response::new(device::response(ended)))
    }

    async fn rollback_key(
        &self,
        request: Request<v1::RollbackKeyRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |v1::RollbackKeyRequest { order, kid }| {
            let kid = checked_kid(kid)?;
            Ok((order, Change::Rollback { kid }))
        })
        .await
    }

    async fn destroy_key(
        &self,
        request: Request<v1::DestroyKeyRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |request| {
            let change = Change::Destroy {
                kid: checked_kid(request.kid)?,
                end_rollback: request.end_rollback,
                note: checked_note(request.note)?,
            };
            Ok((request.order, change))
        })
        .await
    }

    async fn hold_key(
        &self,
        request: Request<v1::HoldKeyRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |v1::HoldKeyRequest { order, kid, note }| {
            let kid = checked_kid(kid)?;
            let note = checked_note(note)?;
            Ok((order, Change::Hold { kid, note }))
        })
        .await
    }

    async fn release_key(
        &self,
        request: Request<v1::ReleaseKeyRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |v1::ReleaseKeyRequest { order, kid }| {
            let kid = checked_kid(kid)?;
            Ok((order, Change::Release { kid }))
        })
        .await
    }

    async fn waive_origin(
        &self,
        request: Request<v1::WaiveOriginRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |request| {
            let note = checked_note(request.note)?;
            origins::waive(request.order, request.origin, request.span, note)
        })
        .await
    }

    async fn restore_origin(
        &self,
        request: Request<v1::RestoreOriginRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |v1::RestoreOriginRequest { order, origin }| {
            Ok((order, Change::RestoreOrigin { origin }))
        })
        .await
    }

    async fn get_health(
        &self,
        request: Request<v1::GetHealthRequest>,
    ) -> Result<Response<v1::GetHealthResponse>, Status> {
        let caller = identity::administrator(&request)?;
        let health = self.administration.health(&caller);
        Ok(Response::new(condition::response(health)))
    }

    async fn confirm_clock(
        &self,
        request: Request<v1::ConfirmClockRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        self.change(request, |request| {
            let reading = request.reading.and_then(time).ok_or_else(|| {
                Fault::field(
                    "reading",
                    "expected a date, got none".into(),
                    "say what your own clock reads",
                )
            })?;
            let note = checked_note(request.note)?;
            Ok((request.order, Change::ConfirmClock { reading, note }))
        })
        .await
    }

    async fn list_callers(
        &self,
        request: Request<v1::ListCallersRequest>,
    ) -> Result<Response<v1::ListCallersResponse>, Status> {
        identity::administrator(&request)?;
        Ok(Response::new(callers::list(&self.callers)))
    }

    async fn block_caller(
        &self,
        request: Request<v1::BlockCallerRequest>,
    ) -> Result<Response<v1::BlockCallerResponse>, Status> {
        let by = identity::administrator(&request)?;
        let blocked = callers::block(&self.callers, by, request.into_inner()).await;
        blocked.map(Response::new).map_err(Fault::into_status)
    }

    async fn unblock_caller(
        &self,
        request: Request<v1::UnblockCallerRequest>,
    ) -> Result<Response<v1::UnblockCallerResponse>, Status> {
        let by = identity::administrator(&request)?;
        let unblocked = callers::unblock(&self.callers, by, request.into_inner()).await;
        unblocked.map(Response::new).map_err(Fault::into_status)
    }
}

fn checked_order(order: Option<v1::Order>, change: Change) -> Result<Order, Fault> {
    let order = order.unwrap_or_default();
    let id = order.request_id.chars().count();
    if !(1..=MAX_REQUEST_ID).contains(&id) {
        return Err(Fault::field(
            "order.request_id",
            format!("expected 1 to {MAX_REQUEST_ID} characters, got {id}"),
            "choose an id for this change, such as a UUID",
        ));
    }
    if order.key_set.is_empty() {
        return Err(Fault::field(
            "order.key_set",
            "expected a name, got none".into(),
            "name the key set to change",
        ));
    }
    Ok(Order {
        request_id: order.request_id,
        key_set: order.key_set,
        expected_version: Some(order.expected_version).filter(|version| !version.is_empty()),
        change,
    })
}

pub(super) fn checked_kid(kid: String) -> Result<String, Fault> {
    if (1..=MAX_KID).contains(&kid.len()) {
        return Ok(kid);
    }
    Err(Fault::field(
        "kid",
        format!("expected 1 to {MAX_KID} bytes, got {}", kid.len()),
        "give the whole id: `sealkeeper keys list --json` shows it",
    ))
}

pub(super) fn checked_note(note: String) -> Result<String, Fault> {
    if note.len() > MAX_NOTE {
        return Err(Fault::field(
            "note",
            format!("expected at most {MAX_NOTE} bytes, got {}", note.len()),
            "shorten the note",
        ));
    }
    // It is shown on terminals, which obey some of them.
    if let Some(control) = note.chars().find(|c| api::is_control(*c)) {
        let control = control.escape_unicode();
        return Err(Fault::field(
            "note",
            format!("expected no control character, got {control}"),
            "write the note as one line of text",
        ));
    }
    Ok(note)
}

pub(super) fn revocation_reason(number: i32) -> Result<RevocationReason, Fault> {
    match v1::RevocationReason::try_from(number) {
        Ok(v1::RevocationReason::Unspecified) => Ok(RevocationReason::Unspecified),
        Ok(v1::RevocationReason::Compromised) => Ok(RevocationReason::Compromised),
        Ok(v1::RevocationReason::Superseded) => Ok(RevocationReason::Superseded),
        Err(_) => Err(Fault::field(
            "reason",
            format!("expected a known reason, got {number}"),
            "use one of the contract's reasons",
        )),
    }
}

pub(super) fn after_revocation(number: i32) -> Result<Option<AfterRevocation>, Fault> {
    match v1::AfterRevocation::try_from(number) {
        Ok(v1::AfterRevocation::Unspecified) => Ok(None),
        Ok(v1::AfterRevocation::Wait) => Ok(Some(AfterRevocation::Wait)),
        Ok(v1::AfterRevocation::Activate) => Ok(Some(AfterRevocation::Activate)),
        Err(_) => Err(Fault::field(
            "then",
            format!("expected a known choice, got {number}"),
            "use one of the contract's choices",
        )),
    }
}

/// `None` for what is no date (google.protobuf.Timestamp).
fn time(at: prost_types::Timestamp) -> Option<Time> {
    let ms = i64::from(at.nanos) / 1_000_000;
    if !(0..1000).contains(&ms) {
        return None;
    }
    let ms = at.seconds.checked_mul(1000)?.checked_add(ms)?;
    Some(Time::from_millis(ms))
}

/// A change on the wire.
#[must_use]
pub fn change_response(changed: Changed) -> v1::ChangeResponse {
    v1::ChangeResponse {
        key_set: Some(key_set(changed.key_set)),
        done: changed.done,
        pending: changed.pending,
        trusted_until: changed.trusted_until.map(timestamp),
        durable: changed.durable,
        acted_alone: changed.alone.unwrap_or_default(),
        impact: changed.impact.map(impact::of),
    }
}

fn key_set(set: KeySetStatus) -> v1::KeySet {
    v1::KeySet {
        name: set.name,
        version: set.version,
        issuer: set.issuer,
        keys: set.keys.into_iter().map(key).collect(),
        next: set.next.into_iter().map(event).collect(),
        forgotten: set.forgotten.into_iter().map(forgotten).collect(),
        clock_in_doubt: set.clock_doubt.is_some(),
        clock_doubt: set.clock_doubt.unwrap_or_default(),
        not_in_force: set.not_in_force.unwrap_or_default(),
    }
}

fn key(key: KeyStatus) -> v1::Key {
    let phase = match key.phase {
        KeyPhase::Generating => v1::Phase::Generating,
        KeyPhase::Published => v1::Phase::Published,
        KeyPhase::Active => v1::Phase::Active,
        KeyPhase::Retiring => v1::Phase::Retiring,
        KeyPhase::Retired => v1::Phase::Retired,
        KeyPhase::Revoked => v1::Phase::Revoked,
    };
    let private_half = match key.private_half {
        PrivateHalf::Wanted => v1::PrivateHalf::Wanted,
        PrivateHalf::Present => v1::PrivateHalf::Present,
        PrivateHalf::Missing => v1::PrivateHalf::Missing,
        PrivateHalf::Destroyed => v1::PrivateHalf::Destroyed,
        PrivateHalf::GivenUp => v1::PrivateHalf::GivenUp,
        PrivateHalf::None => v1::PrivateHalf::None,
    };
    v1::Key {
        kid: key.kid,
        alg: key.algorithm.to_string(),
        phase: phase.into(),
        private_half: private_half.into(),
        placements: key.placements.into_iter().map(placement).collect(),
        created: key.created.map(timestamp),
        activated: key.activated.map(timestamp),
        published: key.published.map(timestamp),
        observed: key.observed.map(timestamp),
        sightings: key.sightings.into_iter().map(origins::sighting).collect(),
        activates: key.activates.map(timestamp),
        active_since: key.active_since.map(timestamp),
        retiring_since: key.retiring_since.map(timestamp),
        private_destroyed: key.private_destroyed.map(timestamp),
        private_given_up: key.private_given_up.map(timestamp),
        removed: key.removed.map(timestamp),
        exp_ceiling: key.exp_ceiling.map(timestamp),
        refused_until: key.refused_until.map(timestamp),
        hold: key.hold.map(|HoldStatus { since, by, note }| v1::Hold {
            since: Some(timestamp(since)),
            by,
            note,
        }),
        revocation: key.revocation.map(revocation),
    }
}

fn placement(placement: PlacementStatus) -> v1::Placement {
    v1::Placement {
        device: placement.device,
        handle_id: placement.handle_id,
        state: placement.state,
        token_serial: placement.token.unwrap_or_default(),
    }
}

fn revocation(revocation: RevocationStatus) -> v1::Revocation {
    let reason = match revocation.reason {
        RevocationReason::Unspecified => v1::RevocationReason::Unspecified,
        RevocationReason::Compromised => v1::RevocationReason::Compromised,
        RevocationReason::Superseded => v1::RevocationReason::Superseded,
    };
    v1::Revocation {
        at: Some(timestamp(revocation.at)),
        by: revocation.by,
        reason: reason.into(),
        note: revocation.note,
        in_memory_alone: revocation.in_memory_alone,
    }
}

fn forgotten(key: ForgottenKey) -> v1::ForgottenKey {
    v1::ForgottenKey {
        kid: key.kid,
        revocation: Some(revocation(key.revocation)),
    }
}

fn event(event: Upcoming) -> v1::Event {
    v1::Event {
        at: Some(timestamp(event.at)),
        kind: event.kind,
        kid: event.kid.unwrap_or_default(),
        alg: event.algorithm.to_string(),
        waits_for: event.waits_for.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
