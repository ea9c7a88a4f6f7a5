//! A model of the signing path: it asks the view, and nobody else.

use sealkeeper::keyring::{KeyId, NoSigner};

use super::random::millis;
use super::world::{Flight, Item, World};

impl World {
    /// Somebody wants a signature.
    pub(crate) fn sign(&mut self, r: usize) {
        let Some(moment) = self.moment(r).filter(|_| self.replicas[r].up) else {
            return;
        };
        let most = self.plan.timing.max_token_lifetime;
        let exp = match self.random.below(3) {
            0 => moment.time() + most,
            _ => moment.time() + millis(self.random.between(1, most.as_millis())),
        };
        let Some(view) = &self.replicas[r].view else {
            return;
        };
        self.invariant_handover(view, moment);
        let track = self.random.pick(&self.plan.tracks).map(|(alg, _)| *alg);
        let jws = self.random.chance(400);
        let chosen = if jws {
            let named = view.nameable(moment).unwrap_or_default();
            let chosen = self.random.pick(&named).copied();
            if chosen.is_some_and(|key| view.signer(Some(key.algorithm), moment) != Ok(key)) {
                self.totals.count("sign: during the handover");
            }
            chosen
        } else {
            match view.signer(track.filter(|_| self.random.chance(500)), moment) {
                Ok(key) => Some(key),
                Err(refusal) => {
                    self.totals.count(match refusal {
                        NoSigner::NoTrack(_) => "sign: refused, no track",
                        NoSigner::NoneActive { .. } => "sign: refused, none active",
                        NoSigner::Overdue { .. } => "sign: refused, hard limit",
                        NoSigner::LeaseEnded(_) => "sign: refused, lease over",
                    });
                    None
                }
            }
        };
        let Some(key) = chosen.cloned() else { return };
        // Whether the key is blocked is asked at the release alone: what is in
        // flight when the block comes must not leave either.
        if exp > key.exp_ceiling {
            return;
        }
        self.invariant_signs_with_what_exists(r, &key, moment);
        if self.device.away {
            return;
        }
        let most = self.plan.timing.signing_deadline.as_millis();
        let took = millis(self.random.between(0, most));
        let flight = Flight { kid: key.kid, exp };
        let life = self.replicas[r].life;
        self.agenda
            .push((self.now + took, Item::Release { r, life, flight }));
    }

    /// A signature is finished: may it leave, by the view of now?
    pub(crate) fn release(&mut self, r: usize, flight: &Flight) {
        let (Some(moment), Some(view)) = (self.moment(r), &self.replicas[r].view) else {
            return;
        };
        if !view.may_release(&flight.kid, moment, &self.replicas[r].blocked) {
            self.totals.count("sign: dropped at the release");
            return;
        }
        self.totals.signatures += 1;
        self.say(|| {
            format!(
                "replica {r} signed with {} at {moment:?}, epoch {}",
                flight.kid, view.epoch
            )
        });
        self.invariant_release(r, flight, moment);
        self.invariant_published_first(r, &flight.kid);
        self.ledger.token(&flight.kid, flight.exp);
        self.show(flight);
    }

    /// Whether some signer of this replica's view, at this moment, needs the
    /// object.
    pub(crate) fn uses(&self, r: usize, id: KeyId) -> bool {
        let (Some(moment), Some(view)) = (self.moment(r), &self.replicas[r].view) else {
            return false;
        };
        let blocked = &self.replicas[r].blocked;
        self.replicas[r].up
            && view
                .nameable(moment)
                .unwrap_or_default()
                .iter()
                .any(|key| key.id == id && !blocked.contains(&key.kid))
    }
}
