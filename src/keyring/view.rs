//! What readers see: an immutable picture of a key set, from which a signer
//! is chosen without asking anybody.

use std::collections::{BTreeMap, BTreeSet};

use super::key::{Half, Key, KeyId, Phase};
use super::rules;
use super::set::{KeySet, Plan, Seat};
use super::timing::{HardLimit, Timing};
use crate::jose::{Algorithm, PublicKey};
use crate::time::{Span, Time};

/// The longest `max-age` of the set after a revocation.
const AFTER_REVOCATION: Span = Span::from_secs(60);

/// A key set as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The key set's name.
    pub key_set: String,
    /// Which change of the record it shows.
    pub epoch: u64,
    /// Nothing is signed from this view after this instant; `None` where the
    /// store cannot get out of sight.
    pub sign_until: Option<Time>,
    /// The public keys in the order of the set. Never empty once a key or the
    /// placeholder exists.
    pub published: Vec<PublishedKey>,
    /// When keys are planned to leave the set, soonest first. What keeps one in
    /// it beyond that (a clock in doubt, a store that takes no change) is not
    /// known here.
    pub removals: Vec<Time>,
    /// After a revocation: until when the set is kept for a short time only.
    pub hurry_until: Option<Time>,
    /// The tracks of this signer group; the default first.
    pub seats: Vec<SeatView>,
    /// Every `kid` that was ever revoked.
    pub revoked: BTreeSet<String>,
    timing: Timing,
}

/// A public key of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// Its `kid`.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its numbers.
    pub public: PublicKey,
}

/// Who signs in one track, now and soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatView {
    /// The track.
    pub algorithm: Algorithm,
    active: Option<SigningKey>,
    switch: Option<(Time, SigningKey)>,
    previous: Vec<(Time, SigningKey)>,
    stop_at: Option<Time>,
}

/// A key that may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id in the devices.
    pub id: KeyId,
    /// Its `kid`.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// What each signature is verified against.
    pub public: PublicKey,
    /// The devices that hold its private half.
    pub devices: Vec<String>,
    /// For each device, the serial of the token that holds it, where it is
    /// known.
    pub tokens: BTreeMap<String, String>,
    /// Nothing is signed whose `exp` lies above this.
    pub exp_ceiling: Time,
}

/// The time, and whether it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The clock is believed.
    Sure(Time),
    /// It is not; this is an estimate. Scheduled activations do not happen.
    Doubtful(Time),
}

impl Moment {
    /// The instant, believed or not.
    #[must_use]
    pub const fn time(self) -> Time {
        match self {
            Self::Sure(now) | Self::Doubtful(now) => now,
        }
    }
}

/// Why nothing signs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSigner {
    /// The caller asks for a track that there is not.
    #[error("no {0} track")]
    NoTrack(Algorithm),
    /// The track has no active key: one was revoked, or none is propagated.
    #[error("no {algorithm} key is active{}", next.map(|at| format!(" before {at}")).unwrap_or_default())]
    NoneActive {
        /// The track.
        algorithm: Algorithm,
        /// The instant of the next activation, if it is scheduled.
        next: Option<Time>,
    },
    /// The rotation is so late that the operator wants signing to stop.
    #[error(
        "the rotation of the {algorithm} key has been overdue past its hard limit since {since}"
    )]
    Overdue {
        /// The track.
        algorithm: Algorithm,
        /// Since when.
        since: Time,
    },
    /// This agent has not heard from the store for too long.
    #[error("the view of the store ended at {0}")]
    LeaseEnded(Time),
}

impl KeySet {
    /// The picture for readers. `sign_until` is the lease on it.
    #[must_use]
    pub fn view(&self, plan: &Plan, sign_until: Option<Time>) -> View {
        let seats = plan.tracks.iter().filter_map(|&(algorithm, _)| {
            let id = super::SeatId {
                algorithm,
                group: plan.group.clone(),
            };
            Some(self.seat_view(algorithm, self.seats.get(&id)?, plan))
        });
        let seats: Vec<SeatView> = seats.collect();
        let keys = self.keys.values();
        let removals: BTreeSet<Time> = keys
            .filter_map(|key| self.outlook(key, plan).removed)
            .collect();
        View {
            key_set: self.name.clone(),
            epoch: self.epoch,
            sign_until,
            published: self.published(plan),
            removals: removals.into_iter().collect(),
            hurry_until: self.hurry_until(plan),
            seats,
            revoked: self.revoked.keys().cloned().collect(),
            timing: plan.timing,
        }
    }

    /// Until no bounded verifier can trust a key that was revoked: by then the
    /// key that was made after it has been in the set for long, too.
    fn hurry_until(&self, plan: &Plan) -> Option<Time> {
        let revoked = self.keys.values().filter_map(|key| match key.phase {
            Phase::Revoked { since, .. } => Some(since),
            _ => None,
        });
        let last = revoked.max()?;
        Some(self.exposed(last, None, plan).bounded_until)
    }

    fn seat_view(&self, algorithm: Algorithm, seat: &Seat, plan: &Plan) -> SeatView {
        let previous = self
            .keys
            .values()
            .filter(|key| key.algorithm == algorithm && key.group == plan.group)
            // One that was never active hands nothing over: it was withdrawn
            // before its time, and verifiers may not hold it.
            .filter(|key| key.activated().is_some())
            .filter_map(|key| match key.phase {
                Phase::Retiring { last_sign, .. } => Some((last_sign, signing_key(key)?)),
                _ => None,
            })
            .collect();
        let id = super::SeatId {
            algorithm,
            group: plan.group.clone(),
        };
        let stop_at = match plan.timing.hard_limit {
            HardLimit::Stop(limit) => self.due_by_schedule(&id, plan).map(|due| due + limit),
            HardLimit::Page(_) => None,
        };
        SeatView {
            algorithm,
            active: seat.active.and_then(|id| signing_key(self.key(id))),
            switch: seat
                .switch
                .as_ref()
                .and_then(|switch| Some((switch.at, signing_key(self.key(switch.to))?))),
            previous,
            stop_at,
        }
    }

    /// The set's keys: the active key of the default track first, because
    /// some verifiers ignore `kid` and take the first; then by the time of
    /// publication, because some count a reorder as a change.
    fn published(&self, plan: &Plan) -> Vec<PublishedKey> {
        let default = self.default_track(plan);
        let default = default.and_then(|id| self.seats.get(&id)?.active);
        let mut live: Vec<&Key> = self
            .keys
            .values()
            .filter(|key| key.is_published())
            .filter(|key| {
                let kid = key.kid.as_deref().unwrap_or_default();
                rules::exception_revoked_for_ever(kid, &self.revoked)
            })
            .collect();
        live.sort_by_key(|key| (Some(key.id) != default, key.published, key.id));
        let placeholder = self.placeholder.and_then(|id| self.keys.get(&id));
        rules::exception_never_empty(live, placeholder)
            .into_iter()
            .filter_map(|key| {
                Some(PublishedKey {
                    kid: key.kid.clone()?,
                    algorithm: key.algorithm,
                    public: key.public.clone()?,
                })
            })
            .collect()
    }
}

fn signing_key(key: &Key) -> Option<SigningKey> {
    let devices: Vec<String> = key
        .placements
        .iter()
        .filter(|(_, half)| **half == Half::Present)
        .map(|(device, _)| device.clone())
        .collect();
    if devices.is_empty() {
        return None;
    }
    Some(SigningKey {
        id: key.id,
        kid: key.kid.clone()?,
        algorithm: key.algorithm,
        public: key.public.clone()?,
        devices,
        tokens: key.tokens.clone(),
        exp_ceiling: key.exp_ceiling?,
    })
}

impl View {
    /// The same signers with another set: what a restriction shows before it
    /// is stored.
    #[must_use]
    pub fn publishing(self, published: Vec<PublishedKey>) -> Self {
        Self { published, ..self }
    }

    /// The key that signs for a track (the default one for `None`).
    pub fn signer(
        &self,
        algorithm: Option<Algorithm>,
        moment: Moment,
    ) -> Result<&SigningKey, NoSigner> {
        self.check_lease(moment)?;
        let seat = match algorithm {
            Some(algorithm) => self
                .seats
                .iter()
                .find(|seat| seat.algorithm == algorithm)
                .ok_or(NoSigner::NoTrack(algorithm))?,
            None => self.default_seat(moment)?,
        };
        seat.signer(moment)
    }

    /// The first track that has an active key: a track that was added is the
    /// default only once its key is propagated.
    fn default_seat(&self, moment: Moment) -> Result<&SeatView, NoSigner> {
        self.seats
            .iter()
            .find(|seat| seat.signer(moment).is_ok())
            .or(self.seats.first())
            .ok_or(NoSigner::NoTrack(Algorithm::Es256))
    }

    /// The keys that a signing input may name: of each track the active one,
    /// and those before it whose handover lasts. The active ones come first.
    pub fn nameable(&self, moment: Moment) -> Result<Vec<&SigningKey>, NoSigner> {
        self.check_lease(moment)?;
        let active = self
            .seats
            .iter()
            .filter_map(|seat| seat.signer(moment).ok());
        let accepted = moment.time() + self.timing.signing_deadline;
        let previous = (self.seats.iter())
            .flat_map(|seat| seat.previous(moment, &self.timing))
            .filter_map(|(last_sign, key)| (accepted <= last_sign).then_some(key));
        Ok(active.chain(previous).collect())
    }

    /// Whether a finished signature of this key may leave: asked of the view
    /// of *now*, which may be newer than the one that chose the key.
    #[must_use]
    pub fn may_release(&self, kid: &str, moment: Moment, blocked: &BTreeSet<String>) -> bool {
        let signs = self.seats.iter().any(|seat| {
            let active = seat.signer(moment).is_ok_and(|key| key.kid == kid);
            let mut previous = seat.previous(moment, &self.timing);
            active || previous.any(|(last_sign, key)| key.kid == kid && moment.time() <= last_sign)
        });
        signs
            && self.check_lease(moment).is_ok()
            && rules::exception_restrictions_first(kid, blocked)
    }

    /// What may sign, now or by a switch that is fixed, with a private half on
    /// this device.
    #[must_use]
    pub fn on_device(&self, device: &str) -> Vec<String> {
        let keys = self.seats.iter().flat_map(|seat| {
            let switch = seat.switch.iter().map(|(_, key)| key);
            let previous = seat.previous.iter().map(|(_, key)| key);
            seat.active.iter().chain(switch).chain(previous)
        });
        keys.filter(|key| key.devices.iter().any(|name| name == device))
            .map(|key| key.kid.clone())
            .collect()
    }

    /// How long a verifier may keep the set, at most `max_age`: never past the
    /// next planned removal that lies ahead, and for a minute only while a
    /// revocation is on its way to verifiers: what is next in the set, the key
    /// made after it or a further revocation, reaches them sooner.
    ///
    /// Why one that has passed bounds nothing: the key may leave in a moment,
    /// or not for days, and with no time to keep the set all verifiers would
    /// ask for it with each token until then. A cache that keeps the key for
    /// `max_age` longer does no harm: no token of it is alive (rule 3 forbids
    /// that it goes too early, not too late), and a revocation is never
    /// planned.
    #[must_use]
    pub fn max_age(&self, now: Time) -> Span {
        let most = match self.hurry_until {
            Some(until) if now < until => self.timing.max_age.min(AFTER_REVOCATION),
            _ => self.timing.max_age,
        };
        match self.removals.iter().find(|at| **at > now) {
            Some(at) => most.min(at.since(now)),
            None => most,
        }
    }

    fn check_lease(&self, moment: Moment) -> Result<(), NoSigner> {
        match self.sign_until {
            Some(until) if moment.time() > until => Err(NoSigner::LeaseEnded(until)),
            _ => Ok(()),
        }
    }
}

impl SeatView {
    /// The key that signs at this moment.
    pub fn signer(&self, moment: Moment) -> Result<&SigningKey, NoSigner> {
        if let (Some(since), Moment::Sure(now)) = (self.stop_at, moment)
            && now >= since
            && self.switched(moment).is_none()
        {
            return Err(NoSigner::Overdue {
                algorithm: self.algorithm,
                since,
            });
        }
        self.switched(moment)
            .or(self.active.as_ref())
            .ok_or(NoSigner::NoneActive {
                algorithm: self.algorithm,
                next: self.switch.as_ref().map(|(at, _)| *at),
            })
    }

    /// The key of the scheduled switch, once its instant has come.
    fn switched(&self, moment: Moment) -> Option<&SigningKey> {
        match (&self.switch, moment) {
            (Some((at, key)), Moment::Sure(now)) if now >= *at => Some(key),
            _ => None,
        }
    }

    /// The keys before the one that signs, and the last instant of each. None
    /// in doubt: whether a handover is over is a question of time alone.
    ///
    /// More than one where a rotation or a rollback follows another within a
    /// handover: what was accepted with the first is still let go.
    fn previous(
        &self,
        moment: Moment,
        timing: &Timing,
    ) -> impl Iterator<Item = (Time, &SigningKey)> {
        let sure = matches!(moment, Moment::Sure(_));
        let to = self.switched(moment);
        let replaced = match (&self.switch, &self.active, to) {
            (Some((at, _)), Some(active), Some(_)) => {
                Some((rules::rule_2_last_use(*at, timing), active))
            }
            _ => None,
        };
        let before = self.previous.iter().map(|(last, key)| (*last, key));
        (replaced.into_iter().chain(before))
            // A rollback goes back to one of them.
            .filter(move |(_, key)| sure && to.is_none_or(|to| to.id != key.id))
    }
}
